"""A real server around a route table, for the tests of the front end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest
from aiohttp.test_utils import TestClient

from piod.http.application import build_application
from piod.http.edge import BeforeAnswer
from piod.http.routes import Route

Serve = Callable[..., Awaitable[TestClient]]


@dataclass
class Configured:
    """What a configuration says about callers; tests change it while the server runs."""

    allowed_origins: list[str] = field(default_factory=list)
    api_key: str | None = None
    unknown: str | None = None


@pytest.fixture
def configured() -> Configured:
    return Configured()


@pytest.fixture
def serve(aiohttp_client, configured: Configured) -> Serve:
    """``await serve(routes)`` gives a client of a server that answers them."""

    async def start(
        routes: Sequence[Route], before_answer: BeforeAnswer | None = None
    ) -> TestClient:
        application = build_application(
            routes, version="1.2.3", access=lambda: configured, before_answer=before_answer
        )
        return await aiohttp_client(application)

    return start
