"""Asking the leader and other units for estimators: real HTTP, and units that misbehave."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from piod.actors.cluster import (
    MAX_ANSWER_BYTES,
    MAX_ESTIMATOR_BYTES,
    ClusterEstimators,
    UnitUnreachable,
)
from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.store import EstimatorStore
from piod.calibrations.writing import artifact_json, artifact_text
from piod.config import ConfigFiles
from piod.errors import Conflict, NotFound
from tests.calibrations.test_fusion_protocol import made

SHORT_S = 0.3

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pointers:
    """Nothing is active."""

    async def get(self, kind: str, device: str) -> str | None:
        return None

    async def all(self, kind: str) -> dict[str, str]:
        return {}

    async def set(self, kind: str, device: str, name: str) -> None: ...

    async def remove(self, kind: str, device: str) -> None: ...


@asynccontextmanager
async def cluster(
    tmp_path: Path, routes: dict[str, Handler], *, more: str = ""
) -> AsyncIterator[ClusterEstimators]:
    """Of pio01, whose leader and other units are all one server with those GET routes."""
    application = web.Application()
    for path, handler in routes.items():
        application.router.add_get(path, handler)
    async with TestServer(application) as server:
        (tmp_path / "config.ini").write_text(
            f"[cluster.topology]\nleader_address=127.0.0.1\n[ui]\nport={server.port}\n"
            f"[cluster.addresses]\npio02=127.0.0.1\n{more}"
        )
        config = ConfigFiles(tmp_path)
        yield ClusterEstimators(
            unit_name="pio01",
            leader_name="leader",
            store=EstimatorStore(tmp_path / "estimators", Pointers(), nullcontext),
            config=config.current,
            hold=nullcontext,
            workers_timeout_s=SHORT_S,
            estimators_timeout_s=SHORT_S,
        )


def says(body: object, status: int = 200) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status)

    return handler


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(10 * SHORT_S)
    return web.Response(text="[]")


async def never_ends(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(MAX_ANSWER_BYTES // 65_536 + 2):
        await response.write(b" " * 65_536)
    return response


async def moved(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


WORKERS = "/api/workers"
MODELS = "/unit_api/estimators/od_fused"


async def test_the_leader_says_which_units_there_are(tmp_path: Path) -> None:
    workers = [
        {"pioreactor_unit": "pio03", "is_active": 1},
        {"pioreactor_unit": "pio01"},
        {"pioreactor_unit": "pio02"},
        {"pioreactor_unit": "../elsewhere"},
        {"pioreactor_unit": 5},
        "pio04",
    ]
    async with cluster(tmp_path, {WORKERS: says(workers)}) as one:
        assert await one.units() == ["pio01", "pio02", "pio03"]


@pytest.mark.parametrize(
    "leader",
    [
        pytest.param(says([], status=500), id="fails"),
        pytest.param(says("no JSON"), id="no JSON"),
        pytest.param(says("[" * 100_000), id="deep"),
        pytest.param(says({"error": "?"}), id="no list"),
        pytest.param(moved, id="moved"),
        pytest.param(never_ends, id="endless"),
        pytest.param(hangs, id="hangs"),
    ],
)
async def test_without_the_leaders_word_there_is_this_unit_alone(
    tmp_path: Path, leader: Handler
) -> None:
    async with cluster(tmp_path, {WORKERS: leader}) as one:
        began_s = time.monotonic()
        assert await one.units() == ["pio01"]
        assert time.monotonic() - began_s < 5 * SHORT_S


async def test_a_leader_that_is_not_there_leaves_this_unit_alone(tmp_path: Path) -> None:
    async with cluster(tmp_path, {}, more="[ui]\nport=1\n") as one:
        assert await one.units() == ["pio01"]


async def test_an_estimator_of_another_unit_is_the_same_here(tmp_path: Path) -> None:
    model = await made(tmp_path)
    told = {**artifact_json(model), "is_active": True, "pioreactor_unit": "pio02"}
    asked: list[tuple[str, str | None]] = []

    async def one_model(request: web.Request) -> web.StreamResponse:
        asked.append((request.match_info["name"], request.headers.get("Authorization")))
        return web.json_response(told)

    routes = {MODELS: says([told, {"estimator_name": "a b"}]), MODELS + "/{name}": one_model}
    key = "[ui_basic_auth]\napi_key=c2VjcmV0\n"
    async with cluster(tmp_path, routes, more=key) as one:
        assert await one.estimator_names("pio02") == ["a b", "mine"]
        got = await one.estimator("pio02", "mine")
        assert_same(got, model)
        await one.estimator("pio02", "a b?/#")
    assert asked == [("mine", "Basic c2VjcmV0"), ("a b?/#", "Basic c2VjcmV0")]


def assert_same(one: FusedEstimator, other: FusedEstimator) -> None:
    assert artifact_json(one) == artifact_json(other)
    readings = {"45": 0.3, "90": 0.2, "135": 0.1}
    assert one.estimate(readings) == other.estimate(readings)


@pytest.mark.parametrize(
    ("unit", "about"),
    [
        (says([], status=503), "status 503"),
        (says({}), "as a list"),
        (says("?"), "no JSON"),
        (hangs, "did not answer within"),
    ],
)
async def test_a_unit_that_does_not_tell_is_named(
    tmp_path: Path, unit: Handler, about: str
) -> None:
    async with cluster(tmp_path, {MODELS: unit}) as one:
        with pytest.raises(UnitUnreachable, match=about):
            await one.estimator_names("pio02")


async def test_a_unit_that_has_none_has_none(tmp_path: Path) -> None:
    async with cluster(tmp_path, {}) as one:
        assert await one.estimator_names("pio02") == []


@pytest.mark.parametrize(
    "told",
    [
        [],
        {},
        {"estimator_type": "od_fused_estimator"},
        {"estimator_type": "od_fused_estimator", "created_at": "soon"},
    ],
)
async def test_an_estimator_that_cannot_be_used_is_refused(tmp_path: Path, told: object) -> None:
    async with cluster(tmp_path, {MODELS + "/x": says(told)}) as one:
        with pytest.raises(UnitUnreachable, match="the estimator 'x' of pio02 cannot be used"):
            await one.estimator("pio02", "x")


async def test_its_own_are_read_from_its_own_files(tmp_path: Path) -> None:
    model = await made(tmp_path)
    async with cluster(tmp_path, {}) as one:
        assert await one.estimator_names("pio01") == []
        folder = tmp_path / "estimators" / "od_fused"
        folder.mkdir(parents=True)
        (folder / "mine.yaml").write_text(artifact_text(model))
        (folder / "broken.yaml").write_text("nothing: 1\n")
        assert await one.estimator_names("pio01") == ["mine"]
        assert_same(await one.estimator("pio01", "mine"), model)
        with pytest.raises(NotFound):
            await one.estimator("pio01", "gone")


async def test_an_estimator_that_is_too_large_for_a_session_is_refused(tmp_path: Path) -> None:
    model = await made(tmp_path)
    told = {**artifact_json(model), "more": "x" * MAX_ESTIMATOR_BYTES}
    async with cluster(tmp_path, {MODELS + "/{name}": says(told)}) as one:
        with pytest.raises(UnitUnreachable, match=f"more than {MAX_ESTIMATOR_BYTES} bytes"):
            await one.estimator("pio02", "mine")
        file = tmp_path / "estimators" / "od_fused" / "mine.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(artifact_text(model))
        assert_same(await one.estimator("pio01", "mine"), model)
        file.write_text(f"{artifact_text(model)}# {'x' * MAX_ESTIMATOR_BYTES}\n")
        with pytest.raises(Conflict, match="larger than"):
            await one.estimator("pio01", "mine")
