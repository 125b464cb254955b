"""The other units of the cluster, as far as this one asks them: for their fused OD estimators.

The leader is asked which workers there are (``GET /api/workers``), a unit for its estimators
(``GET /unit_api/estimators/od_fused``), as leaders and units ask each other: at
``[cluster.addresses]``, else by mDNS, with ``[ui] proto`` and ``port``. Whatever they do, an
answer or a refusal comes within the deadline. Source: handbook unit-api §4.8, §6.1.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs

from piod.calibrations.estimators import FUSED_DEVICE, FusedEstimator, estimator_from_json
from piod.calibrations.fields import InvalidRecord
from piod.calibrations.store import SUFFIX, EstimatorStore
from piod.config import Config
from piod.errors import Conflict, NotFound, PiodError, Unavailable

log = logging.getLogger(__name__)

WORKERS_TIMEOUT_S = 5.0
"""Wall time; a person waits for the page."""
ESTIMATORS_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of a list."""
MAX_ESTIMATOR_BYTES = 512 * 1024
"""Of one that is taken over. A session keeps it, and no more than MAX_KEPT_BYTES; usual are a
few kB."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_AS_IT_IS = re.compile(r"localhost|[0-9.]+")


class UnitUnreachable(Unavailable):
    """Another unit does not answer, or not as a unit does."""

    default_remediation = (
        "Check that the unit is on and in the same network, and its address in "
        "[cluster.addresses]; or choose another unit."
    )


class ClusterEstimators:
    """See :class:`piod.calibrations.protocols.turn.Cluster`. ``store``: this unit's own."""

    def __init__(
        self,
        *,
        unit_name: str,
        leader_name: str,
        store: EstimatorStore,
        config: Callable[[], Config],
        hold: Callable[[], AbstractContextManager[None]],
        workers_timeout_s: float = WORKERS_TIMEOUT_S,
        estimators_timeout_s: float = ESTIMATORS_TIMEOUT_S,
    ) -> None:
        self._unit_name = unit_name
        self._leader_name = leader_name
        self._store = store
        self._config = config
        self._hold = hold
        self._workers_timeout_s = workers_timeout_s
        self._estimators_timeout_s = estimators_timeout_s

    async def units(self) -> Sequence[str]:
        try:
            workers = await self._get(self._leader(), "/api/workers", self._workers_timeout_s)
            if not isinstance(workers, list):
                raise UnitUnreachable("the leader's list of workers is no list")
        except PiodError as refusal:
            log.info("the other units are not known: %s", refusal.message)
            workers = []
        names = {worker.get("pioreactor_unit") for worker in workers if isinstance(worker, dict)}
        others = [name for name in names if isinstance(name, str) and _HOST.fullmatch(name)]
        return [self._unit_name, *sorted(set(others) - {self._unit_name})]

    async def estimator_names(self, unit_name: str) -> Sequence[str]:
        if unit_name == self._unit_name:
            with self._hold():
                return await asyncio.to_thread(self._own_names)
        try:
            found = await self._of_unit(unit_name, "")
        except NotFound:
            return []
        if not isinstance(found, list):
            raise UnitUnreachable(f"{unit_name} does not tell its estimators as a list")
        names = {one.get("estimator_name") for one in found if isinstance(one, dict)}
        return sorted(name for name in names if isinstance(name, str) and name)

    async def estimator(self, unit_name: str, name: str) -> FusedEstimator:
        if unit_name == self._unit_name:
            with self._hold():
                return await asyncio.to_thread(self._own, name)
        found = await self._of_unit(
            unit_name, f"/{quote(name, safe='')}", at_most=MAX_ESTIMATOR_BYTES
        )
        try:
            return estimator_from_json(found)
        except InvalidRecord as refusal:
            raise UnitUnreachable(
                f"the estimator {name!r} of {unit_name} cannot be used: {refusal.message}",
                remediation="Choose another estimator.",
            ) from refusal

    def _own(self, name: str) -> FusedEstimator:
        """Blocks."""
        path = self._store.path_of(FUSED_DEVICE, name)
        estimator = self._store.read_file(path)
        if path.stat().st_size > MAX_ESTIMATOR_BYTES:
            raise Conflict(
                f"the estimator {name!r} is larger than {MAX_ESTIMATOR_BYTES} bytes",
                remediation="Choose another estimator.",
            )
        return estimator

    def _own_names(self) -> list[str]:
        """Those whose files can be read; blocks."""
        names = []
        for path in sorted((self._store.directory / FUSED_DEVICE).glob(f"*{SUFFIX}")):
            try:
                self._store.read_file(path)
            except PiodError as refusal:
                log.warning("%s is not offered: %s", path, refusal.message)
            else:
                names.append(path.stem)
        return names

    async def _of_unit(self, unit_name: str, rest: str, at_most: int = MAX_ANSWER_BYTES) -> object:
        path = f"/unit_api/estimators/{FUSED_DEVICE}{rest}"
        host = self._address(unit_name)
        return await self._get(host, path, self._estimators_timeout_s, at_most)

    def _leader(self) -> str:
        if self._leader_name == self._unit_name:
            return "localhost"
        address = self._config().text("cluster.topology", "leader_address", None)
        return address or self._address(self._leader_name)

    def _address(self, unit_name: str) -> str:
        configured = self._config().text("cluster.addresses", unit_name, None)
        if configured:
            return configured
        return unit_name if _AS_IT_IS.fullmatch(unit_name) else f"{unit_name}.local"

    async def _get(
        self, host: str, path: str, timeout_s: float, at_most: int = MAX_ANSWER_BYTES
    ) -> object:
        """The JSON of one answer. NotFound, UnitUnreachable."""
        config = self._config()
        proto = config.text("ui", "proto", "http")
        port = config.integer("ui", "port", 80, minimum=1, maximum=65535)
        key = config.text("ui_basic_auth", "api_key", None)
        headers = {hdrs.AUTHORIZATION: f"Basic {key}"} if key else {}
        url = f"{proto}://{host}:{port}{path}"
        try:
            # wall time: simulated time stands still while another unit owes an answer
            with self._hold():
                async with (
                    asyncio.timeout(timeout_s),
                    aiohttp.ClientSession() as session,
                    session.get(url, headers=headers, allow_redirects=False) as answer,
                ):
                    if answer.status == 404:
                        raise NotFound(f"there is no {url}")
                    if answer.status != 200:
                        raise UnitUnreachable(f"{url} answers with status {answer.status}")
                    body = await _read(answer, url, at_most)
                return await asyncio.to_thread(json.loads, body)  # megabytes take their time
        except TimeoutError as error:
            raise UnitUnreachable(f"{url} did not answer within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnitUnreachable(f"{url} cannot be reached: {error}") from error
        except (ValueError, RecursionError) as error:  # a URL that is none, and what is no JSON
            raise UnitUnreachable(f"{url} gives no JSON: {error}") from error


async def _read(answer: aiohttp.ClientResponse, url: str, at_most: int) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > at_most:
            raise UnitUnreachable(f"{url} answers with more than {at_most} bytes")
    return bytes(body)
