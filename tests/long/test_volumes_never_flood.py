"""The vial never gets too full, and the ledger knows the range in which its volume lies.

Whole units pump by random sequences of what persons, automations and bad luck do: starts,
stops, sleeps, crashes, changes of settings, jumps of the clock, faults of the bus, pumps at
once, the guard, restarts, kills. The pumps are as far off as the ledger has to expect. After
each step:

- the plant has never reached the model's maximum fill volume;
- a pump that is on belongs to a job that lives and is awake;
- when none is on, the volume of the plant lies in the ledger's range.

A failing sequence is printed; PIOD_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from piod.actors.buses.bus import BusReport, BusState, RevokeAll
from piod.clock import SimulatedClock, SteppingEventLoop
from piod.events import JobIdentity, ReadingTaken, VolumesChanged
from piod.hw.simulator.plant import Plant
from piod.jobs.dosing_automation import DosingAutomation
from piod.jobs.job import Job
from piod.jobs.pump_rate import NOMINAL_ML_PER_S
from piod.jobs.registry import JOBS
from tests.jobs.dosing.vial import PUMPS, calibrate_pumps, flowing, set_volumes
from tests.process.unit_process import UnitProcess, outputs, wait_until
from tests.unit import Unit, running_unit

LENGTH = float(os.environ.get("PIOD_LONG", "1"))
SEED = int(os.environ.get("PIOD_SEED", random.randrange(2**32)))

print(f"PIOD_SEED={SEED}")

MAX_FILL_ML = 18.0
"""Of the model."""
ROUNDING_ML = 1e-6
VOLUMES = "/unit_api/bioreactor/experiments/$experiment"
PINS = {"media": 13, "alt_media": 16, "waste": 12}

Step = tuple[str, object]


class Clumsy(DosingAutomation):
    """Pumps all at once, again and again, and crashes in the middle of it."""

    automation_name = "clumsy"
    help = "Crash."
    pumps = ("media", "waste")

    async def execute(self) -> None:
        async def crash() -> None:
            await self.clock.sleep(4)
            raise RuntimeError("a plugin's bug")

        await asyncio.gather(self.dose("media", 0.7), self.dose("waste", 0.7), crash())


KINDS: Mapping[str, type[Job]] = {**JOBS, Clumsy.kind_name(): Clumsy}

# -- what can be done -------------------------------------------------------------------


def dosing(name: str, **options: object) -> tuple[str, Mapping[str, object]]:
    return "dosing_automation", {"automation_name": name, **options}


INFLOWS = ("add_media", "add_alt_media")
AMOUNTS = st.one_of(
    st.sampled_from([0.2, 0.9, 2.0]).map(lambda ml: {"ml": ml}),
    st.sampled_from([0.3, 4.0, 9.0, 15.0, 33.0]).map(lambda s: {"duration": s}),
    st.integers(1, 20).map(lambda s: {"duration": s}),
    st.just({"continuously": True}),
)
RUNS = st.one_of(
    st.tuples(st.sampled_from([*INFLOWS, "remove_waste"]), AMOUNTS),
    st.tuples(
        st.sampled_from(["circulate_media", "circulate_alt_media"]),
        st.sampled_from([3, 25]).map(lambda s: {"duration": s}),
    ),
    st.sampled_from(
        [
            ("pumps", {"media": 0.8, "sleep": 2, "waste": 0.5, "alt_media": 1.1}),
            ("pumps", {"waste": 1.5, "media": 1.5, "waste_": 1.5, "alt_media": 1.5}),
            dosing("chemostat", exchange_volume_ml=0.6, duration=1),
            dosing("chemostat", exchange_volume_ml=3, duration=3),
            dosing("fed_batch", dosing_volume_ml=0.8, duration=0.5),
            dosing("turbidostat", exchange_volume_ml=0.5, target_biomass=1, settle_seconds=3),
            dosing(
                "pid_morbidostat",
                target_growth_rate=0.5,
                target_normalized_od=1,
                duration=2,
            ),
            dosing("clumsy", duration=0.2),
        ]
    ),
)
CHANGES = st.sampled_from(
    [
        {"exchange_volume_ml": 5},
        {"exchange_volume_ml": 0.1},
        {"dosing_volume_ml": 2.5},
        {"duration": 0.05},
        {"duration": 10},
        {"target_growth_rate": 3},
    ]
)
FAULTS = st.sampled_from(
    [
        *({"kind": "bus_error", "bus": "pwm", "count": count} for count in (1, 2)),
        *({"kind": "bus_error", "bus": "pwm", "pin": pin, "count": 2} for pin in PINS.values()),
    ]
)
WAITS = st.tuples(st.just("wait"), st.sampled_from([0.02, 0.5, 3.0, 11.0]))
MISHAPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("stop"), st.integers(0, 3)),
    st.tuples(
        st.just("state"),
        st.tuples(st.integers(0, 3), st.sampled_from(["sleeping", "ready", "disconnected"])),
    ),
    st.tuples(st.just("change"), st.tuples(st.integers(0, 3), CHANGES)),
    st.tuples(st.just("reading"), st.sampled_from([0.5, 1.2, 2.0])),
    st.tuples(st.just("fault"), FAULTS),
    st.tuples(st.just("repair"), st.none()),
    st.tuples(st.just("guard_fires"), st.none()),
    st.tuples(st.just("clock"), st.sampled_from([-86_400.0, -3.0, 7.0, 3e7])),
    st.tuples(st.just("confirm"), st.none()),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("kill"), st.sampled_from([0.0, 0.015])),
)


def alike(*kinds: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    """Each of these as often; ``one_of`` would count the kinds within a kind."""
    return st.integers(0, len(kinds) - 1).flatmap(kinds.__getitem__)


def run(*job_names: str) -> st.SearchStrategy[Step]:
    return st.tuples(st.just("run"), st.tuples(st.sampled_from(job_names), AMOUNTS))


LONGER: st.SearchStrategy[Step] = st.tuples(st.just("wait"), st.sampled_from([40.0, 400.0]))
ANYTHING = alike(st.tuples(st.just("run"), RUNS), WAITS, LONGER, MISHAPS)
FILLING = alike(run(*INFLOWS), run(*INFLOWS), LONGER, WAITS, ANYTHING)
"""Up to where nothing more may flow in."""
LATE_INFLOWS: st.SearchStrategy[Step] = st.tuples(
    st.just("late_inflow"),
    st.tuples(st.sampled_from(INFLOWS), st.integers(3, 15), st.sampled_from([2.0, 12.0])),
)
"""A waste pump that draws air, and at its end what comes in."""
AT_ONCE = alike(run(*INFLOWS), run("remove_waste"), LATE_INFLOWS, WAITS, WAITS, LONGER, ANYTHING)
"""In and out at the same time."""


def sequences(max_size: int) -> st.SearchStrategy[list[Step]]:
    """All lengths alike often: lists of hypothesis are short most of the time."""

    def of_length(length: int) -> st.SearchStrategy[list[Step]]:
        kinds = (ANYTHING, FILLING, AT_ONCE)
        lists = [st.lists(kind, min_size=length, max_size=length) for kind in kinds]
        return st.integers(0, len(kinds) - 1).flatmap(lists.__getitem__)

    return st.integers(1, max_size).flatmap(of_length)


@dataclass(frozen=True)
class Bench:
    """The vial at the start; of each pump whether it is calibrated, and how fast it really is.

    ``rates``: of what the calibration or, without one, the nominal rate says.
    """

    volume_ml: float
    tube_ml: float
    calibrated: frozenset[str]
    rates: tuple[float, float, float]

    def rate(self, role: str) -> float:
        """By what part of what is expected it pumps: as far off as it can be, or as expected."""
        tendency = self.rates[PUMPS.index(role)]
        return 1 + tendency * (0.018 if role in self.calibrated else 0.28)


BENCHES = st.builds(
    Bench,
    volume_ml=st.sampled_from([10.0, 14.0, 15.0, 17.0]),
    tube_ml=st.sampled_from([11.0, 14.0, 15.0]),
    calibrated=st.frozensets(st.sampled_from(PUMPS)),
    rates=st.tuples(
        *[st.sampled_from([-1.0, 0.0, 1.0, 1.0])] * 2, st.sampled_from([-1.0, -1.0, 0.0, 1.0])
    ),
)


# -- doing it ---------------------------------------------------------------------------


async def running(unit: Unit) -> Sequence[Mapping[str, Any]]:
    """The jobs, oldest first."""
    jobs = await unit.get("/unit_api/jobs/running")
    return sorted(jobs, key=lambda job: str(job["started_at"]))


async def do(unit: Unit, what: str, value: Any) -> None:
    """One step; answers are not judged here, but none may be a 500."""
    status = 200
    match what:
        case "run":
            status = await ask_to_run(unit, *value)
        case "late_inflow":
            job_name, inflow_s, before_s = value
            await ask_to_run(unit, "remove_waste", {"duration": before_s + inflow_s})
            await unit.clock.sleep(before_s)
            status = await ask_to_run(unit, job_name, {"duration": inflow_s})
            await unit.clock.sleep(inflow_s + 0.1)
        case "stop":
            jobs = await running(unit)
            name = jobs[value]["job_name"] if value < len(jobs) else "add_media"
            status, _ = await unit.request("POST", "/unit_api/jobs/stop", {"job_name": name})
        case "state" | "change":
            which, changes = value
            jobs = await running(unit)
            if which < len(jobs):
                named = {"state": changes} if what == "state" else changes
                status, _ = await unit.change(jobs[which]["job_id"], **named)
        case "reading":
            job = JobIdentity("pio01", "$experiment", "growth_rate_calculating", "0")
            for kind in ("od_filtered", "growth_rate"):
                taken = ReadingTaken(job, kind, value, None, {}, unit.clock.time())
                unit.daemon.hub.publish(taken)
        case "fault":
            status, _ = await unit.request("POST", "/simulator/faults", value)
        case "repair":
            status, _ = await unit.request("DELETE", "/simulator/faults")
        case "guard_fires":
            await unit.daemon.pwm.ask(RevokeAll("a test says so"), timeout=1)
        case "clock":
            unit.clock.offset_s += value
        case "confirm":
            values = {"current_volume_ml": truth_ml(unit)}
            status, _ = await unit.request("PATCH", VOLUMES, {"values": values})
        case "wait":
            await unit.clock.sleep(value)
    assert status < 500 or status == 503, (what, value, status)


async def ask_to_run(unit: Unit, job_name: str, options: Mapping[str, object]) -> int:
    path = f"/unit_api/jobs/run/job_name/{job_name}"
    status, _ = await unit.request("POST", path, {"options": options})
    return status


def truth_ml(unit: Unit) -> float:
    unit.plant.advance_to(unit.clock.monotonic())
    return unit.plant.vial.volume_ml


async def check(unit: Unit) -> None:
    """The promises."""
    await unit.clock.sleep(0.001)  # what is to be done at once is done
    volume_ml = truth_ml(unit)
    assert unit.plant.vial.highest_ml < MAX_FILL_ML, "flooded"
    for role in flowing(unit):
        await has_owner(unit, role)
    told = await unit.get(VOLUMES)
    if not flowing(unit) and truth_ml(unit) == volume_ml:
        in_range(told, volume_ml)


async def has_owner(unit: Unit, role: str) -> None:
    """A job that lives and is awake, or a bus that fails to turn the pump off and tries on."""
    report: BusReport = await unit.daemon.buses["pwm"].ask(BusState(), timeout=1)
    output = f"GPIO {PINS[role]}"
    if output in report.going_off:
        return
    owner = report.leases[output]
    job_id = owner.partition("(job ")[2].rstrip(")")
    told = await unit.get(f"/unit_api/jobs/settings/job_id/{job_id}")
    assert told["settings"]["$state"] in ("init", "ready"), f"{role} of {owner}: {told}"


def in_range(told: Mapping[str, Any], volume_ml: float) -> None:
    lowest, highest = told["range_ml"]["lowest"], told["range_ml"]["highest"]
    assert lowest - ROUNDING_ML <= volume_ml <= highest + ROUNDING_ML, (volume_ml, told)


@dataclass
class Crashed:
    """What a daemon leaves that is killed: its files as they were, and the plant."""

    data_dir: Path
    plant: Plant


def killed(unit: Unit, data_dir: Path, guard_takes_s: float) -> Crashed:
    """The unit's files and its plant as a kill would leave them, and after the guard."""
    not_sockets = shutil.ignore_patterns("*.sock")
    shutil.copytree(unit.data_dir, data_dir, ignore=not_sockets)
    now_s = unit.clock.monotonic()
    unit.plant.advance_to(now_s)
    plant = Plant.from_json(unit.plant.to_json(), now_s)
    plant.advance_to(now_s + guard_takes_s)
    plant.set_outputs({}, now_s + guard_takes_s)
    return Crashed(data_dir, plant)


async def live_through(bench: Bench, steps: Sequence[Step], folder: Path) -> None:
    clock = SimulatedClock(start_time=1_790_000_000.0)
    plant: Plant | None = None
    rest = list(steps)
    data_dir = folder / "0"
    data_dir.mkdir()
    for number in range(1, len(steps) + 2):
        async with running_unit(data_dir, clock, kinds=KINDS, plant=plant) as unit:
            if plant is None:
                await set_up(unit, bench)
            plant, next_life = unit.plant, "restart"
            await check(unit)
            while rest:
                what, value = rest.pop(0)
                if what == "restart":
                    break
                if what == "kill":
                    data_dir = folder / str(number)
                    plant = killed(unit, data_dir, float(str(value))).plant
                    next_life = "kill"
                    break
                await do(unit, what, value)
                await check(unit)
            if next_life == "restart":
                await unit.request("DELETE", "/simulator/faults")
                await unit.post("/unit_api/jobs/stop/all")
                assert not flowing(unit)
                await check(unit)
        if not rest and next_life == "restart":
            return


async def set_up(unit: Unit, bench: Bench) -> None:
    await calibrate_pumps(unit, bench.calibrated)
    for role, pump in unit.plant.pumps.items():
        expected = pump.ml_per_s if role in bench.calibrated else NOMINAL_ML_PER_S
        pump.ml_per_s = expected * bench.rate(role)
    unit.plant.patch({"volume_ml": bench.volume_ml, "efflux_ml": bench.tube_ml})
    await set_volumes(unit, current_volume_ml=bench.volume_ml, efflux_tube_volume_ml=bench.tube_ml)


def one_example(bench: Bench, steps: Sequence[Step]) -> None:
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            asyncio.Runner(loop_factory=SteppingEventLoop) as runner,
        ):
            runner.run(live_through(bench, steps, Path(folder)))
    except BaseException as failure:
        failure.add_note(f"{bench}, {steps}")
        raise


@seed(5)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(BENCHES, sequences(12))
@example(  # a pump that never got beyond its dead time
    Bench(10.0, 11.0, frozenset(), (-1.0, -1.0, -1.0)), [("run", ("add_media", {"duration": 0.3}))]
)
@example(  # a pump that refuses to go off: nobody knows when it did
    Bench(10.0, 11.0, frozenset(PUMPS), (0.0, 0.0, -1.0)),
    [
        ("run", ("add_media", {"duration": 9})),
        ("fault", {"kind": "bus_error", "bus": "pwm", "pin": 13, "count": 2}),
        ("state", (0, "disconnected")),
    ],
)
def test_a_vial_is_never_flooded_and_its_volume_is_known(bench: Bench, steps: list[Step]) -> None:
    one_example(bench, steps)


@pytest.mark.long
@seed(SEED)
@settings(
    max_examples=max(10, int(300 * LENGTH)),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(BENCHES, sequences(40))
def test_a_vial_is_never_flooded_in_long_sequences(bench: Bench, steps: list[Step]) -> None:
    one_example(bench, steps)


# -- a real process, killed -------------------------------------------------------------

MIXED_RUNS: Sequence[tuple[str, Mapping[str, object]]] = (
    ("add_media", {"duration": 30}),
    ("add_alt_media", {"duration": 12}),
    ("add_media", {"continuously": True}),
    ("remove_waste", {"continuously": True}),
    ("remove_waste", {"duration": 25}),
    ("circulate_media", {"duration": 20}),
)


@pytest.mark.long
def test_a_unit_that_is_killed_again_and_again_never_floods(tmp_path: Path) -> None:
    """Kills at any moment, of intents and facts that are being written, too."""
    dice = random.Random(SEED)
    data_dir = tmp_path / "unit"
    for number in range(max(4, int(40 * LENGTH))):
        unit = UnitProcess(data_dir)
        try:
            unit.wait_ready()
            judge(unit)
            if dice.random() < 0.6:
                confirm(unit)
            runs = dice.sample(MIXED_RUNS, dice.randint(1, 3))
            for job_name, options in runs:
                path = f"/unit_api/jobs/run/job_name/{job_name}"
                status, _ = unit.request("POST", path, {"options": options})
                assert status in (202, 400, 409), (number, job_name, status)
            if dice.random() < 0.5:
                unit.advance(dice.choice([1, 10, 30]))
            time.sleep(dice.uniform(0, 0.4))
            if dice.random() < 0.3:
                unit.signal(signal.SIGSTOP)  # until the guard finds that it hangs
                wait_until("all pumps off", lambda: pumps_off(data_dir), 5)
                unit.signal(signal.SIGCONT)
                time.sleep(dice.uniform(0, 0.2))
            unit.kill9()
            wait_until("all pumps off", lambda: pumps_off(data_dir), 1)
        finally:
            unit.close()
        print(f"kill {number}: {[name for name, _ in runs]}")


def pumps_off(data_dir: Path) -> bool:
    return not any(outputs(data_dir)["pwm"][str(pin)] for pin in PINS.values())


def judge(unit: UnitProcess) -> None:
    """After a start nothing flows, and what is in the vial is in the range."""
    assert pumps_off(unit.data_dir)
    assert unit.running() == []
    truth = unit.get("/simulator/plant")
    assert truth["highest_ml"] < MAX_FILL_ML
    in_range(unit.get(VOLUMES), truth["volume_ml"])


def confirm(unit: UnitProcess) -> None:
    """Somebody looks at the vial; if it is quite full he empties it first, by hand."""
    volume_ml = unit.get("/simulator/plant")["volume_ml"]
    if volume_ml > 16.5:
        volume_ml = unit.patch("/simulator/plant", {"volume_ml": 15.0})["volume_ml"]
    unit.patch(VOLUMES, {"values": {"current_volume_ml": volume_ml}})


# -- ten thousand doses -------------------------------------------------------------------


@pytest.mark.long
async def test_after_ten_thousand_doses_the_ledger_and_the_plant_agree(unit: Unit) -> None:
    """With pumps without noise: at each dose within 1 %, and in all that was pumped."""
    doses = max(1000, int(10_000 * LENGTH))
    await calibrate_pumps(unit)
    unit.plant.patch({"pumps": {role: {"ideal": True} for role in PUMPS}})
    unit.plant.patch({"volume_ml": 14.0, "efflux_ml": 14.0})
    await set_volumes(unit, current_volume_ml=14.0, efflux_tube_volume_ml=14.0)
    dice = random.Random(SEED)
    off: list[float] = []

    async def compare() -> None:
        with unit.daemon.hub.subscribe() as events:
            async for event in events:
                if isinstance(event, VolumesChanged) and not flowing(unit):
                    known = float(str(event.values["current_volume_ml"]))
                    off.append(known / truth_ml(unit) - 1)

    comparing = asyncio.ensure_future(compare())
    done = 0
    while done < doses:
        steps = some_doses(dice, min(990, doses - done))
        await unit.run("pumps", options=steps)
        while await unit.get("/unit_api/jobs/running"):
            await unit.clock.sleep(600)
        done += len(steps)
        in_range(await unit.get(VOLUMES), truth_ml(unit))
    comparing.cancel()
    await asyncio.gather(comparing, return_exceptions=True)
    assert len(off) >= doses
    known = (await unit.get(VOLUMES))["values"]
    pumped = {role: pump.pumped_ml for role, pump in unit.plant.pumps.items()}
    print(f"{done} doses; the ledger off by {min(off):+.1e} to {max(off):+.1e}; pumped {pumped}")
    assert max(map(abs, off)) < 0.01
    assert unit.plant.vial.highest_ml < MAX_FILL_ML
    assert known["cumulative_media_added_ml"] == pytest.approx(pumped["media"], rel=0.01)
    assert known["cumulative_alt_media_added_ml"] == pytest.approx(pumped["alt_media"], rel=0.01)
    assert known["alt_media_fraction"] == pytest.approx(
        unit.plant.culture.alt_media_fraction, rel=0.01
    )


def some_doses(dice: random.Random, count: int) -> dict[str, float]:
    """Some in, some out; each fifth one goes down to the tube."""
    steps: dict[str, float] = {}
    for number in range(count):
        role = "waste" if number % 5 == 4 else dice.choice(["media", "alt_media", "waste"])
        volume_ml = 4.0 if number % 5 == 4 else round(dice.uniform(0.05, 0.8), 3)
        steps[role + "_" * sum(name.rstrip("_") == role for name in steps)] = volume_ml
    return steps
