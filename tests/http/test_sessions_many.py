"""Fifty sessions at once on one unit: its hardware serves one after the other."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from tests.http.test_calibrations_api import assert_refusal
from tests.person import Person, put_in
from tests.walks import FUSED, PHOTODIODES, PUMP, STIRRER, Walk, walk_to, xr

pytestmark = pytest.mark.long  # walks and processes that wait: too slow for the fast tests

PLAN: tuple[tuple[Walk, str, str], ...] = (
    (PUMP, "media_pump", "tracer_run"),
    (PUMP, "waste_pump", "tracer_run"),
    (STIRRER, "stirring", "run_calibration"),
    (PHOTODIODES, "od90", "measure_standard"),
    (FUSED, "od_fused", "record_observation"),
)
EACH = 10
OPENLY_SHOWN_S = 0.25
"""50 ms, with slack for a busy machine."""
USES_STIRRER = {"stirring", "od90", "od_fused"}


def kind_of(person: Person) -> str:
    """What of the hardware it needs: a pump, or the stirrer."""
    device = str(person.answer["session"]["target_device"])
    return "stirring" if device in USES_STIRRER else device


def session_id(person: Person) -> str:
    return str(person.answer["session"]["session_id"])


def named(person: Person) -> str:
    row = person.answer["session"]
    return f"{session_id(person)} ({row['protocol_name']} of {row['target_device']})"


async def test_of_fifty_sessions_one_has_each_output_and_the_others_are_told_which(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with xr(tmp_path, clock) as unit:
        people: list[tuple[Person, Walk]] = []
        for _ in range(EACH):
            for walk, device, step_id in PLAN:
                person = await Person.begin(unit, walk.protocol, device)
                await walk_to(person, walk, step_id)
                people.append((person, walk))
        await put_in(unit, 0.4)
        before = {session_id(person): await unit.get(person.path) for person, _ in people}
        assert len(before) == 50

        with clock.hold():  # whoever has got an output keeps it meanwhile
            waiting = {
                asyncio.create_task(person.post(**walk.inputs(person.answer))): person
                for person, walk in people
            }
            kinds = {kind_of(person) for person, _ in people}
            while sum(not task.done() for task in waiting) > len(kinds):
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=0.02)
            holders = {kind_of(one): one for task, one in waiting.items() if not task.done()}
            assert holders.keys() == kinds
            for task, person in waiting.items():
                if task.done():
                    rivals = [one for one, _ in people if kind_of(one) == kind_of(person)]
                    assert_refusal(task.result(), 409, "is in use by calibration session")
                    said = task.result()[1]["error"]
                    # one that has the light but not the stirrer is a holder, too, for a moment
                    of_pump = kind_of(person) != "stirring"
                    told = [holders[kind_of(person)]] if of_pump else rivals
                    assert any(named(one) in said for one in told), said
                    assert named(person) not in said
            for person, _ in people:
                began_s = time.monotonic()
                shown = await unit.get(person.path)
                assert time.monotonic() - began_s < OPENLY_SHOWN_S
                shown["session"]["progress"] = None
                assert shown == before[session_id(person)]

        done, _ = await asyncio.wait(waiting)
        served = [waiting[task] for task in done if task.result()[0] == 200]
        assert {session_id(one) for one in served} == set(map(session_id, holders.values()))
        # what is free again serves the next
        for kind, holder in holders.items():
            person, walk = next(
                (one, walk) for one, walk in people if one is not holder and kind_of(one) == kind
            )
            await person.go(**walk.inputs(person.answer))
            served.append(person)
        for person, _ in people:
            if person not in served:
                assert await unit.get(person.path) == before[session_id(person)]
