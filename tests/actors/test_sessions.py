"""Calibration sessions beneath HTTP: forgetting, resting, lost leases, the daemon's end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from piod.actors import sessions as module
from piod.actors.buses.bus import RevokeAll
from piod.actors.gate import no_new_jobs
from piod.clock import SimulatedClock, timestamp
from piod.storage.ledger import Ledger
from piod.storage.sessions import SessionRow, Sessions, SessionStatus
from tests.http.test_calibrations_api import assert_refusal
from tests.http.test_sessions_api import (
    advance,
    go_to,
    post,
    priming,
    pump_duty,
    shown,
    start,
)
from tests.unit import Unit, running_unit

NOW_S = 1_790_000_000.0
DAY_S = 86_400.0


def row(session_id: str, status: SessionStatus, age_days: float) -> SessionRow:
    touched = timestamp(NOW_S - age_days * DAY_S)
    return SessionRow(
        session_id=session_id,
        protocol_name="duration_based",
        target_device="media_pump",
        status=status,
        step_id="intro_confirm_1",
        data={"channel_pump_is_configured_for": "2", "ü": [1.5, None, {"a": True}]},
        created_at=touched,
        updated_at=touched,
        result={} if status == "complete" else None,
        saves=("calibration/media_pump/mine",),
    )


async def test_a_session_is_kept_whole(tmp_path: Path, clock: SimulatedClock) -> None:
    ledger = await Ledger.open(tmp_path / "piod.sqlite", clock.hold)
    try:
        sessions = Sessions(ledger.database)
        one = row("s1", "complete", 0)
        await sessions.put(one)
        assert await sessions.get("s1") == one
        changed = replace(one, status="aborted", error="why", result=None)
        await sessions.put(changed)
        assert await sessions.all() == [changed]
        assert await sessions.get("s2") is None
    finally:
        await ledger.close()


@pytest.mark.parametrize("days", [None, 3])
async def test_old_sessions_are_forgotten_the_abandoned_ones_sooner(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch, days: int | None
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.0)
    async with running_unit(tmp_path, clock) as unit:
        sessions = Sessions(unit.daemon.ledger.database)
        for age in (1, 6.9, 7.1, 29.9, 30.1):
            await sessions.put(row(f"open-{age}", "in_progress", age))
            await sessions.put(row(f"done-{age}", "complete", age))
            await sessions.put(row(f"ended-{age}", "aborted", age))
    limits = "" if days is None else f"keep_finished_sessions_days={days}\n"
    async with running_unit(tmp_path, clock, config_ini=f"[piod]\n{limits}") as unit:
        sessions = Sessions(unit.daemon.ledger.database)
        for _ in range(1000):
            kept = {one.session_id for one in await sessions.all()}
            if len(kept) < 15:
                break
            await asyncio.sleep(0.001)
    finished = (1, 6.9, 7.1, 29.9) if days is None else (1,)
    assert kept == {
        "open-1",
        "open-6.9",
        *(f"{kind}-{age}" for kind in ("done", "ended") for age in finished),
    }


async def test_a_clock_that_leaps_takes_no_session_away(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.01)
    looks = 0
    expired = Sessions.expired

    async def count(self: Sessions, *limits: str) -> list[SessionRow]:
        nonlocal looks
        found = await expired(self, *limits)
        looks += len(found)
        return found

    monkeypatch.setattr(Sessions, "expired", count)
    async with running_unit(tmp_path, clock) as unit:
        session_id = await start(unit)
        clock.offset_s += 60 * DAY_S  # a time server is found
        for _ in range(500):
            if looks > 2:
                break
            await asyncio.sleep(0.01)
        assert looks > 2, "nobody has looked"
        assert await Sessions(unit.daemon.ledger.database).get(session_id) is not None
        await advance(unit, session_id)


async def test_a_session_that_stays_too_old_is_forgotten_after_a_time_of_grace(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.01)
    monkeypatch.setattr(module, "GRACE_S", 0.2)
    async with running_unit(tmp_path, clock) as unit:
        sessions = Sessions(unit.daemon.ledger.database)
        put_s = time.monotonic()
        await sessions.put(row("old", "in_progress", 8))
        for _ in range(500):
            if await sessions.get("old") is None:
                break
            await asyncio.sleep(0.01)
        assert await sessions.get("old") is None
        assert time.monotonic() - put_s >= 0.2


async def test_a_session_that_rests_has_no_actor_and_goes_on_when_it_is_asked_for(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", 0.3)
    async with running_unit(tmp_path, clock) as unit:
        session_id = await start(unit)
        before = await advance(unit, session_id)

        def actors() -> int:
            names = [task.get_name() for task in asyncio.all_tasks()]
            return names.count(f"calibration session {session_id}")

        assert actors() == 1
        for _ in range(1000):
            if not actors():
                break
            await asyncio.sleep(0.005)
        assert actors() == 0
        assert await shown(unit, session_id) == before


async def test_a_lost_lease_ends_the_step_with_the_reason(unit: Unit) -> None:
    async with priming(unit) as (session_id, waiting):
        await unit.daemon.pwm.ask(RevokeAll("the guard turned it off"), timeout=5)
        assert pump_duty(unit) == 0
    status, body = waiting.result()
    assert status == 503
    assert "the guard turned it off" in body["error"]
    answer = await advance(unit, session_id, prime_duration_s=5)
    assert answer["step"]["step_id"] == "tracer_run"


async def test_while_no_jobs_start_no_pump_of_a_session_does(unit: Unit) -> None:
    session_id = await start(unit)
    await go_to(unit, session_id, "prime_pump_duration")
    async with no_new_jobs(unit.daemon.jobs, "the unit is about to reboot"):
        assert_refusal(await post(unit, session_id, prime_duration_s=5), 409, "about to reboot")
    assert unit.plant.pumps["media"].pumped_ml == 0
    await advance(unit, session_id, prime_duration_s=5)


async def test_the_end_of_all_jobs_turns_a_pump_of_a_session_off(unit: Unit) -> None:
    async with priming(unit) as (session_id, waiting):
        await unit.daemon.end_all_jobs()  # as the daemon does when it ends
        assert pump_duty(unit) == 0
    assert_refusal(waiting.result(), 409, "stopped")
    assert (await shown(unit, session_id))["step"]["step_id"] == "prime_pump_duration"
