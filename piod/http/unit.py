"""Health and version of the unit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from piod.clock import Clock, timestamp
from piod.http.answers import JSON_HEADERS, json_answer, json_bytes

HEALTH_EXAMPLE = {
    "status": "ok",
    "pioreactor_unit": "pio01",
    "utc_time": "2026-01-31T12:45:00.000Z",
    "problems": [],
    "lost_jobs": [],
}

FRESH_S = 1.0
"""How old the findings in an answer of /health may be, wall time."""

Findings = Mapping[str, object]


class UnitHandlers:
    """``/unit_api/health`` and ``/unit_api/versions``.

    ``examine`` finds out how the unit is doing: what health tells besides the
    documented keys.
    """

    def __init__(
        self,
        *,
        unit_name: str,
        version: str,
        clock: Clock,
        examine: Callable[[], Awaitable[Findings]],
    ) -> None:
        self._unit_name = unit_name
        self._version = version
        self._clock = clock
        self._examine = examine
        self._before_time = b""
        self._after_time = b""
        self._examined_at = float("-inf")
        self._examining = asyncio.Lock()

    async def health(self, request: web.Request) -> web.Response:
        """Whether the unit lives, and what is wrong with it."""
        if time.monotonic() - self._examined_at > FRESH_S:
            async with self._examining:
                if time.monotonic() - self._examined_at > FRESH_S:
                    self._encode(await self._examine())
                    self._examined_at = time.monotonic()
        body = self._before_time + timestamp(self._clock.time()).encode() + self._after_time
        return web.Response(body=body, headers=JSON_HEADERS)

    def _encode(self, findings: Findings) -> None:
        """All of the answer but the time; a leader asks often, and little changes."""
        fixed = {"status": "ok", "pioreactor_unit": self._unit_name}
        self._before_time = json_bytes(fixed)[:-1] + b',"utc_time":"'
        self._after_time = b'"' + (b"," + json_bytes(findings)[1:] if findings else b"}")

    async def app_version(self, request: web.Request) -> web.Response:
        return json_answer({"version": f"v{self._version}"})
