"""The first promise, under random sequences of everything that a user and bad luck can do.

An output is on only while a living owner holds it: after each step, if no job is
starting or ready, the pin is at 0. Long: ``make test-long``; a failing sequence is
printed, and PIOD_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from piod.actors.buses.bus import RevokeAll
from piod.clock import SimulatedClock, SteppingEventLoop
from tests.unit import Unit, running_unit

LENGTH = float(os.environ.get("PIOD_LONG", "1"))
SEED = int(os.environ.get("PIOD_SEED", random.randrange(2**32)))

print(f"PIOD_SEED={SEED}")

targets = st.sampled_from([0, 1, 60, 300, 500, 900, 1500])
steps = st.one_of(
    st.tuples(st.just("run"), targets),
    st.tuples(st.just("run_open_loop"), st.sampled_from([0, 20, 100])),
    st.tuples(st.just("stop"), st.just(0)),
    st.tuples(st.just("target"), targets),
    st.tuples(st.just("state"), st.sampled_from(["sleeping", "ready", "disconnected"])),
    st.tuples(st.just("fault"), st.sampled_from(["hall_once", "hall", "stall", "edges"])),
    st.tuples(st.just("repair"), st.just(0)),
    st.tuples(st.just("guard_fires"), st.just(0)),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 0.6, 7.0, 30.0, 600.0])),
    st.tuples(st.just("restart"), st.just(0)),
)
FAULTS: dict[object, dict[str, object]] = {
    "hall_once": {"kind": "bus_error", "bus": "gpio", "count": 1},
    "hall": {"kind": "bus_error", "bus": "gpio"},
    "stall": {"kind": "stirrer_stall"},
    "edges": {"kind": "lost_edges", "fraction": 0.9},
}


async def do(unit: Unit, what: str, value: object) -> None:
    """One step, as a user or as bad luck; answers are not judged here, but none may be a 500."""
    running = await unit.get("/unit_api/jobs/running")
    match what:
        case "run" | "run_open_loop":
            options = (
                {"target_rpm": value} if what == "run" else {"use_rpm": False, "duty_cycle": value}
            )
            path = "/unit_api/jobs/run/job_name/stirring"
            status, _ = await unit.request("POST", path, {"options": options})
        case "stop":
            status, _ = await unit.request("POST", "/unit_api/jobs/stop/all")
        case "target" if running:
            status, _ = await unit.change(running[0]["job_id"], target_rpm=value)
        case "state" if running:
            status, _ = await unit.change(running[0]["job_id"], state=value)
        case "fault":
            status, _ = await unit.request("POST", "/simulator/faults", FAULTS[value])
        case "repair":
            status, _ = await unit.request("DELETE", "/simulator/faults")
        case "guard_fires":
            await unit.daemon.pwm.ask(RevokeAll("a test says so"), timeout=1)
            return
        case "wait":
            await unit.clock.sleep(float(str(value)))
            return
        case _:
            return
    assert status < 500 or status == 503, (what, value, status)


async def check(unit: Unit) -> None:
    """The promise."""
    for _ in range(50):
        await asyncio.sleep(0)
    status, body = await unit.request("GET", "/unit_api/jobs/settings/job_name/stirring")
    state = body["settings"]["$state"] if status == 200 else "not running"
    if state not in ("init", "ready"):
        assert unit.duty == 0, f"the pin is on and the job is {state}"


async def live_through(sequence: list[tuple[str, object]], data_dir: Path) -> None:
    clock = SimulatedClock(start_time=1_790_000_000.0)
    lives: list[list[tuple[str, object]]] = [[]]
    for step in sequence:
        if step[0] == "restart":
            lives.append([])
        else:
            lives[-1].append(step)
    for life in lives:
        async with running_unit(data_dir, clock) as unit:
            assert unit.duty == 0
            for what, value in life:
                await do(unit, what, value)
                await check(unit)
            await unit.post("/unit_api/jobs/stop/all")
            assert unit.duty == 0
            assert await unit.get("/unit_api/jobs/running") == []
        assert unit.duty == 0


def one_example(sequence: list[tuple[str, object]]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=SteppingEventLoop) as runner,
    ):
        runner.run(live_through(sequence, Path(folder)))


@seed(7)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(steps, min_size=1, max_size=12))
def test_the_pin_is_on_only_while_a_job_holds_it(sequence: list[tuple[str, object]]) -> None:
    one_example(sequence)


@pytest.mark.long
@seed(SEED)
@settings(
    max_examples=int(400 * LENGTH),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(st.lists(steps, min_size=1, max_size=40))
def test_the_pin_is_on_only_while_a_job_holds_it_in_long_sequences(
    sequence: list[tuple[str, object]],
) -> None:
    one_example(sequence)
