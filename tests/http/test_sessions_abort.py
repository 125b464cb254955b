"""An abort while the hardware of a session works, or another unit is waited for.

Simulated time stands still meanwhile: what is on goes off at the very instant of the abort.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from piod.clock import SimulatedClock
from tests.http.test_calibrations_api import assert_refusal
from tests.person import Person, put_in
from tests.unit import Unit
from tests.walks import CONFIG, FUSED, OFFSET, PHOTODIODES, PUMP, STIRRER, Walk, take, walk_to, xr

AT_ONCE_S = 0.5
"""100 ms, with slack for a busy machine."""
IR = "A"
MEDIA_PIN = 13


def pumps(unit: Unit) -> bool:
    return unit.plant.duties.get(MEDIA_PIN, 0.0) > 0


def stirs(unit: Unit) -> bool:
    return unit.duty > 0


def lights(unit: Unit) -> bool:
    return unit.plant.optics.levels[IR] > 0


def is_off(unit: Unit) -> bool:
    return not any(unit.plant.duties.values()) and not any(unit.plant.optics.levels.values())


async def aborted(unit: Unit, person: Person) -> dict[str, Any]:
    """Abort while simulated time stands still; the answer."""
    with unit.clock.hold():
        at_s, began_s = unit.clock.monotonic(), time.monotonic()
        async with asyncio.timeout(5):
            status, answer = await unit.request("POST", f"{person.path}/abort")
        took_s = time.monotonic() - began_s
        assert status == 200, answer
        assert is_off(unit)
        assert unit.clock.monotonic() == at_s
    assert took_s < AT_ONCE_S
    return dict(answer)


@pytest.mark.parametrize(
    ("walk", "step_id", "works"),
    [
        (PUMP, "prime_pump_duration", pumps),
        (PUMP, "test_run", pumps),
        (STIRRER, "run_calibration", stirs),
        (PHOTODIODES, "measure_standard", stirs),
        (PHOTODIODES, "measure_standard", lights),
        (PHOTODIODES, "measure_blank", lights),
        (FUSED, "record_observation", lights),
        (OFFSET, "record_observation", lights),
    ],
    ids=lambda value: getattr(value, "protocol", getattr(value, "__name__", value)),
)
async def test_an_abort_turns_everything_off_at_once_and_answers_who_waits(
    tmp_path: Path,
    clock: SimulatedClock,
    walk: Walk,
    step_id: str,
    works: Callable[[Unit], bool],
) -> None:
    async with xr(tmp_path, clock) as unit:
        await put_in(unit, 0.5)
        person = await Person.begin(unit, walk.protocol, walk.device)
        await walk_to(person, walk, step_id)
        before = person.answer["session"]
        waiting = asyncio.create_task(person.post(**walk.inputs(person.answer)))
        while not works(unit):
            assert not waiting.done(), waiting.result()
            await clock.sleep(0.01)
        answer = await aborted(unit, person)
        session = answer["session"]
        assert answer["step"] is None
        assert (session["status"], session["step_id"]) == ("aborted", step_id)
        assert (session["data"], session["result"]) == (before["data"], None)
        assert session["error"]
        assert_refusal(await waiting, 409, "aborted")
        await clock.sleep(60)
        assert is_off(unit)
        assert await unit.get(person.path) == answer
        # nothing is left behind that the next one could stumble over
        other = await Person.begin(unit, walk.protocol, walk.device)
        await walk_to(other, walk, step_id)
        await take(other, walk)
        assert is_off(unit)


@pytest.mark.parametrize("step_id", ["intro", "select_worker"])
async def test_an_abort_does_not_wait_for_another_unit(
    tmp_path: Path, clock: SimulatedClock, step_id: str
) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        if step_id == "intro" or "estimators" in request.path:
            asked.set()
            await never.wait()
        return web.json_response([{"pioreactor_unit": "pio02"}])

    application = web.Application()
    application.router.add_get("/{path:.*}", slow)
    async with TestServer(application) as server:
        port = server.port
        async with xr(tmp_path, clock) as unit:
            (tmp_path / "config.ini").write_text(
                f"{CONFIG}[cluster.topology]\nleader_address=127.0.0.1\n[ui]\nport={port}\n"
                "[cluster.addresses]\npio02=127.0.0.1\n"
            )
            person = await Person.begin(unit, OFFSET.protocol, OFFSET.device)
            await walk_to(person, OFFSET, step_id)
            inputs = {} if step_id == "intro" else {"source_unit": "pio02"}
            waiting = asyncio.create_task(person.post(**inputs))
            await asyncio.wait_for(asked.wait(), 5)
            answer = await aborted(unit, person)
            assert (answer["session"]["status"], answer["session"]["step_id"]) == (
                "aborted",
                step_id,
            )
            assert_refusal(await waiting, 409, "aborted")
        never.set()
