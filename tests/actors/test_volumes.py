"""The ledger of volumes through its messages: a real database, the virtual clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from piod.actors.actor import Actor, Life, Ref
from piod.actors.experiment_liquids import ExperimentLiquids
from piod.actors.hub import Hub
from piod.actors.supervisor import Supervisor
from piod.actors.volumes import LEDGER_TIMEOUT_S, FinishDose, Unconfirm, VolumeLedger
from piod.clock import SimulatedClock
from piod.config import Config, ConfigFiles
from piod.errors import BadRequest, Conflict, OverflowRefused, StorageFull, VolumeInDoubt
from piod.events import DoseEnded, Event, JobIdentity, VolumesChanged
from piod.hw.models import Limits
from piod.jobs.liquids import Amount, Flow, Volumes
from piod.restarts import FOR_EVER
from piod.storage.imports import VOLUMES_UNCONFIRMED
from piod.storage.ledger import Ledger
from piod.storage.volumes import DoseRow, VolumesRow, VolumeStore

LIMITS = Limits(20.0, 18.0, 60.0, 63.0, 66.0)
ML_PER_S = 0.1


def flow(seconds: float) -> Amount:
    """0.1 mL/s, give or take 10 %."""
    ml = ML_PER_S * seconds
    return Amount(0.9 * ml, ml, 1.1 * ml)


def exact(seconds: float) -> Amount:
    ml = ML_PER_S * seconds
    return Amount(ml, ml, ml)


class Bench:
    """A ledger of volumes, and the jobs that dose."""

    def __init__(
        self,
        ref: Ref[VolumeLedger],
        supervisor: Supervisor,
        store: VolumeStore,
        ledger: Ledger,
        hub: Hub,
    ) -> None:
        self.ref = ref
        self.supervisor = supervisor
        self.store = store
        self.ledger = ledger
        self.hub = hub
        self._jobs = 0

    def job(self, experiment: str = "exp", life: Life | None = None) -> ExperimentLiquids:
        self._jobs += 1
        identity = JobIdentity("pio01", experiment, "add_media", str(self._jobs))
        return ExperimentLiquids(self.ref, identity, life or Life("job"))

    async def volumes(self, experiment: str = "exp") -> Volumes:
        return await self.job(experiment).volumes()


async def pumped(liquids: ExperimentLiquids, role, flow: Flow, seconds: float) -> Amount:
    """One whole dose."""
    dose = await liquids.admit(role, flow, seconds, "test")
    return await dose.finish(seconds)


@asynccontextmanager
async def bench(
    path: Path, clock: SimulatedClock, config: Config | None = None, store=VolumeStore
) -> AsyncIterator[Bench]:
    ledger = await Ledger.open(path / "piod.sqlite", clock.hold)
    hub = Hub()
    supervisor = Supervisor(clock)
    kept = store(ledger)

    def make() -> VolumeLedger:
        return VolumeLedger(
            unit_name="pio01",
            store=kept,
            config=lambda: config or Config(),
            limits=lambda: LIMITS,
            hub=hub,
            clock=clock,
        )

    child = supervisor.start("volumes", lambda: cast("Actor[object]", make()), FOR_EVER)
    try:
        await asyncio.sleep(0)
        yield Bench(cast("Ref[VolumeLedger]", child.ref), supervisor, kept, ledger, hub)
    finally:
        await supervisor.stop_all()
        await ledger.close()


@pytest.fixture
async def one(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Bench]:
    async with bench(tmp_path, clock) as it:
        yield it


def config_of(path: Path, text: str) -> Config:
    (path / "config.ini").write_text(text)
    return ConfigFiles(path).current()


def spread(volumes: Volumes) -> tuple[float, float, float]:
    return volumes.lowest_ml, volumes.current_volume_ml, volumes.highest_ml


# -- what is in the vial ----------------------------------------------------------


async def test_an_experiment_begins_with_the_configuration(tmp_path: Path, clock) -> None:
    config = config_of(
        tmp_path,
        "[bioreactor]\ninitial_volume_ml=12.5\nmax_working_volume_ml=13\n"
        "initial_alt_media_fraction=0.25\ninitial_cumulative_media_added_ml=3\n",
    )
    async with bench(tmp_path, clock, config) as it:
        assert await it.volumes() == Volumes(
            current_volume_ml=12.5,
            lowest_ml=12.5,
            highest_ml=12.5,
            efflux_tube_volume_ml=13,
            alt_media_fraction=0.25,
            cumulative_media_added_ml=3,
            cumulative_alt_media_added_ml=0,
            cumulative_waste_removed_ml=0,
        )


async def test_doses_move_volumes_fraction_and_sums_and_are_kept(tmp_path: Path, clock) -> None:
    async with bench(tmp_path, clock) as it:
        liquids = it.job()
        await pumped(liquids, "media", exact, 10)
        await pumped(liquids, "alt_media", exact, 5)
        after = await liquids.volumes()
        assert spread(after) == (15.5, 15.5, 15.5)
        assert after.alt_media_fraction == round(0.5 / 15.5, 10)
        assert after.cumulative_media_added_ml == 1.0
        assert after.cumulative_alt_media_added_ml == 0.5
        await pumped(liquids, "waste", exact, 30)
        after = await liquids.volumes()
        assert after.current_volume_ml == 14.0  # the tube takes nothing below its end
        assert after.cumulative_waste_removed_ml == 3.0  # but what was pumped counts, air too
    async with bench(tmp_path, clock) as again:
        assert await again.volumes() == after
        assert [(d.role, d.state, d.moved_ml) for d in await again.store.doses("exp")] == [
            ("waste", "finished", 3.0),
            ("alt_media", "finished", 0.5),
            ("media", "finished", 1.0),
        ]


async def test_what_a_pump_may_be_off_widens_the_range_and_the_tube_closes_it(one: Bench) -> None:
    liquids = one.job()
    await pumped(liquids, "media", flow, 10)
    assert spread(await liquids.volumes()) == pytest.approx((14.9, 15.0, 15.1))
    await pumped(liquids, "waste", flow, 20)
    assert spread(await liquids.volumes()) == (14.0, 14.0, 14.0)


# -- the guard ----------------------------------------------------------------------


async def test_a_dose_that_could_reach_the_maximum_is_refused(one: Bench) -> None:
    liquids = one.job()
    assert await liquids.room_ml() == 4.0
    with pytest.raises(OverflowRefused, match=r"could bring the vial to 18\.00 mL") as refused:
        await liquids.admit("media", exact, 40, "test")
    assert refused.value.status == 400
    assert "PATCH /unit_api/bioreactor/experiments/exp" in refused.value.remediation
    with pytest.raises(OverflowRefused):
        await liquids.check("media", flow, 36.5)  # 3.65 mL, but up to 4.015
    await liquids.check("media", exact, 39.9)
    await pumped(liquids, "media", exact, 39.9)


async def test_inflows_at_once_are_counted_together_whoever_pumps(one: Bench) -> None:
    first = await one.job("exp").admit("media", exact, 25, "test")
    other = one.job("another experiment, the same vial")
    assert await other.room_ml() == pytest.approx(1.5)
    with pytest.raises(OverflowRefused, match="could bring the vial to 18"):
        await other.admit("alt_media", exact, 15, "test")
    second = await other.admit("alt_media", exact, 14, "test")
    with pytest.raises(OverflowRefused):
        await one.job("exp").admit("media", exact, 2, "test")
    await first.finish(25)
    await second.finish(0)
    assert await other.room_ml() == pytest.approx(1.5)


async def test_asks_at_the_same_moment_are_not_both_admitted(one: Bench) -> None:
    asked = [one.job().admit("media", exact, 21, "test") for _ in range(4)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(not isinstance(answer, Exception) for answer in answers) == 1
    assert all(isinstance(a, OverflowRefused) for a in answers if isinstance(a, Exception))


async def test_waste_under_way_makes_no_room(one: Bench) -> None:
    liquids = one.job()
    await liquids.change({"current_volume_ml": 17})
    waste = await liquids.admit("waste", exact, 300, "test")
    with pytest.raises(OverflowRefused):
        await liquids.admit("media", exact, 10, "test")
    await waste.finish(300)
    await liquids.admit("media", exact, 10, "test")


async def test_waste_makes_room_only_by_what_was_there_when_it_began(one: Bench) -> None:
    """It may have pumped air all the while until the media came."""
    liquids = one.job()
    media = await liquids.admit("media", exact, 20, "test")
    waste = await liquids.admit("waste", exact, 100, "test")
    await media.finish(20)
    await waste.finish(100)
    assert spread(await liquids.volumes()) == (14.0, 14.0, 16.0)
    with pytest.raises(OverflowRefused):
        await liquids.admit("media", exact, 25, "test")
    await pumped(liquids, "waste", exact, 100)
    assert spread(await liquids.volumes()) == (14.0, 14.0, 14.0)


async def test_waste_may_have_taken_what_a_dose_still_under_way_added(one: Bench) -> None:
    liquids = one.job()
    media = await liquids.admit("media", exact, 20, "test")
    await pumped(liquids, "waste", exact, 15)
    await media.finish(20)
    assert spread(await liquids.volumes()) == (14.5, 16.0, 16.0)


async def test_waste_in_slices_lets_media_circulate_for_ever(one: Bench) -> None:
    liquids = one.job()
    for _ in range(30):
        waste = await liquids.admit("waste", flow, 10, "test")
        await pumped(liquids, "media", flow, 8)
        await waste.finish(10)
    lowest, _, highest = spread(await liquids.volumes())
    assert (lowest, highest) == (14.0, pytest.approx(14.88))


async def test_another_experiment_inherits_the_range_but_not_the_expectation(one: Bench) -> None:
    await pumped(one.job("old"), "media", exact, 35)
    new = one.job("new")
    assert spread(await new.volumes()) == (14.0, 14.0, 17.5)
    with pytest.raises(OverflowRefused, match="could bring the vial to 18") as refused:
        await new.admit("media", exact, 10, "test")
    assert "there may be 17.50 mL in it" in refused.value.cause
    await new.change({"current_volume_ml": 10})
    assert spread(await new.volumes()) == (10, 10, 10)
    await pumped(new, "media", exact, 50)
    assert spread(await one.volumes("old")) == (15.0, 17.5, 17.5)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
async def test_a_time_that_is_none_is_refused(one: Bench, seconds: float) -> None:
    with pytest.raises(BadRequest):
        await one.job().admit("media", exact, seconds, "test")
    assert await one.store.doses("exp") == []


@pytest.mark.parametrize(
    "amount",
    [
        Amount(0, 0, 0),
        Amount(0, 0, 1),
        Amount(-1, 1, 1),
        Amount(0, 2, 1),
        Amount(0, math.nan, 1),
        Amount(0, 1, math.inf),
        Amount(math.nan, math.nan, math.nan),
    ],
)
@pytest.mark.parametrize("role", ["media", "waste"])
async def test_a_volume_that_is_none_is_refused(one: Bench, role, amount: Amount) -> None:
    with pytest.raises(BadRequest, match="a dose must be"):
        await one.job().admit(role, lambda seconds: amount, 1, "test")
    with pytest.raises(BadRequest):
        await one.job().check(role, lambda seconds: amount, 1)
    assert await one.job().room_ml() == 4.0


# -- doses that end otherwise -------------------------------------------------------


async def test_a_dose_is_on_disk_before_its_pump_may_turn(one: Bench) -> None:
    dose = await one.job().admit("media", flow, 10, "dosing_automation:chemostat")
    [row] = await one.store.doses("exp")
    assert (row.dose_id, row.state, row.planned_s) == (dose.dose_id, "intended", 10)
    assert (row.planned_ml, row.planned_most_ml) == pytest.approx((1.0, 1.1))
    assert row.source == "dosing_automation:chemostat"


async def test_a_dose_ends_with_its_owner_at_what_it_can_have_moved(one: Bench, clock) -> None:
    life = Life("job")
    dose = await one.job(life=life).admit("media", flow, 10, "test")
    await clock.sleep(4)
    life.end()
    now = await one.volumes()
    assert spread(now) == pytest.approx((14.0, 14.42, 14.462))  # 0.2 s to be off
    assert now.doubt is None
    told = await dose.finish(4)
    assert (told.least_ml, told.expected_ml, told.most_ml) == pytest.approx((0, 0.42, 0.462))
    assert spread(await one.volumes()) == spread(now)
    [row] = await one.store.doses("exp")
    assert (row.state, row.moved_least_ml) == ("interrupted", 0)


async def test_an_owner_that_ends_late_counts_the_planned_time_at_most(one: Bench, clock) -> None:
    life = Life("job")
    await one.job(life=life).admit("media", flow, 10, "test")
    await clock.sleep(4000)
    life.end()
    assert spread(await one.volumes()) == pytest.approx((14.0, 15.0, 15.1))


async def test_a_flow_that_fails_at_the_end_of_its_owner_counts_at_its_worst(
    one: Bench, clock, caplog: pytest.LogCaptureFixture
) -> None:
    life = Life("job")

    def broken(seconds: float) -> Amount:
        if seconds < 10:
            raise ZeroDivisionError
        return flow(seconds)

    await one.job(life=life).admit("media", broken, 10, "test")
    life.end()
    assert spread(await one.volumes()) == pytest.approx((14.0, 15.0, 15.1))


async def test_finishing_twice_counts_once(one: Bench) -> None:
    dose = await one.job().admit("media", exact, 10, "test")
    assert await dose.finish(5) == Amount(0.5, 0.5, 0.5)
    assert await dose.finish(10) == Amount(0.5, 0.5, 0.5)
    assert (await one.volumes()).current_volume_ml == 14.5


async def test_a_finish_that_makes_no_sense_leaves_the_dose_to_its_owners_end(one: Bench) -> None:
    life = Life("job")
    dose = await one.job(life=life).admit("media", exact, 10, "test")
    with pytest.raises(BadRequest):
        await dose.finish(math.nan)
    bad = FinishDose(dose.dose_id, Amount(0, math.nan, 1))
    with pytest.raises(BadRequest):
        await one.ref.ask(bad, timeout=LEDGER_TIMEOUT_S)
    assert await one.job().room_ml() == 3.0
    life.end()
    assert (await one.volumes()).highest_ml == pytest.approx(14.02)


async def test_an_ask_that_was_given_up_is_no_dose(one: Bench) -> None:
    asking = asyncio.ensure_future(one.job().admit("media", exact, 10, "test"))
    while not await one.store.doses("exp") and await one.job().room_ml() == 4.0:
        pass
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await one.job().room_ml() == 4.0
    assert spread(await one.volumes()) == (14, 14, 14)
    await one.ledger.database.flush()
    assert {row.moved_most_ml for row in await one.store.doses("exp")} <= {0.0}


async def test_no_dose_for_an_owner_that_has_ended(one: Bench) -> None:
    life = Life("job")
    life.end()
    with pytest.raises(Conflict, match="has ended"):
        await one.job(life=life).admit("media", exact, 10, "test")
    assert await one.job().room_ml() == 4.0


# -- after a crash --------------------------------------------------------------------


async def interrupted(path: Path, clock: SimulatedClock, role="media") -> None:
    async with bench(path, clock) as it:
        await pumped(it.job(), "media", exact, 10)
        await it.job().admit(role, flow, 10, "dosing_automation:turbidostat")


async def test_after_a_power_cut_the_range_is_known_and_nothing_is_added(
    tmp_path: Path, clock
) -> None:
    await interrupted(tmp_path, clock)
    async with bench(tmp_path, clock) as it:
        now = await it.volumes()
        assert spread(now) == (15.0, 16.0, 16.1)
        assert now.doubt is not None
        for told in ("add_media", "turbidostat", "0 to 1.10 mL", "15.00 to 16.10 mL", "T14:"):
            assert told in now.doubt, now.doubt
        with pytest.raises(VolumeInDoubt, match="in the middle of a dose") as refused:
            await it.job().admit("media", exact, 1, "test")
        assert refused.value.status == 409
        assert "current_volume_ml" in refused.value.remediation
        assert "remove_waste" in refused.value.remediation
        with pytest.raises(VolumeInDoubt):
            await it.job("another experiment").admit("media", exact, 1, "test")
        assert await it.job().room_ml() == 0.0
        [row, _] = await it.store.doses("exp")
        assert (row.state, row.moved_least_ml, row.moved_most_ml) == ("interrupted", 0, 1.1)
    async with bench(tmp_path, clock) as again:  # once is enough
        assert await again.volumes() == now


async def test_a_person_who_looks_ends_the_doubt(tmp_path: Path, clock) -> None:
    await interrupted(tmp_path, clock)
    async with bench(tmp_path, clock) as it:
        after = await it.job().change({"current_volume_ml": 15.5})
        assert (after.doubt, spread(after)) == (None, (15.5, 15.5, 15.5))
        await pumped(it.job(), "media", exact, 10)
    async with bench(tmp_path, clock) as again:
        assert (await again.volumes()).doubt is None


async def test_waste_down_to_the_tube_ends_the_doubt(tmp_path: Path, clock) -> None:
    await interrupted(tmp_path, clock)
    async with bench(tmp_path, clock) as it:
        await pumped(it.job(), "waste", exact, 20)
        now = await it.volumes()
        assert now.doubt is not None
        assert now.highest_ml == pytest.approx(14.1)
        await pumped(it.job(), "waste", exact, 20)
        now = await it.volumes()
        assert (now.doubt, spread(now)) == (None, (14, 14, 14))
        await pumped(it.job(), "media", exact, 10)


async def test_waste_that_was_interrupted_may_have_taken_all_or_nothing(
    tmp_path: Path, clock
) -> None:
    await interrupted(tmp_path, clock, "waste")
    async with bench(tmp_path, clock) as it:
        now = await it.volumes()
        assert spread(now) == (14.0, 14.0, 15.0)
        assert now.doubt is not None
        assert "remove_waste" in now.doubt


async def test_the_first_dose_of_an_experiment_is_counted_from_what_was_known_then(
    tmp_path: Path, clock
) -> None:
    config = config_of(tmp_path, "[bioreactor]\ninitial_volume_ml=16\n")
    async with bench(tmp_path, clock, config) as it:
        await it.job().admit("media", exact, 10, "test")
    config = config_of(tmp_path, "[bioreactor]\ninitial_volume_ml=much\n")
    async with bench(tmp_path, clock, config) as it:
        assert spread(await it.volumes()) == (16.0, 17.0, 17.0)


async def test_a_ledger_that_crashes_forgets_no_dose_under_way(
    one: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    dose = await one.job().admit("media", flow, 10, "test")
    [child] = one.supervisor._children
    await one.supervisor.stop(child)
    with pytest.raises(Exception, match="was stopped"):
        await dose.finish(10)
    # the supervisor of a daemon would do so after a crash
    again = one.supervisor.start(
        "volumes",
        lambda: cast(
            "Actor[object]",
            VolumeLedger(
                unit_name="pio01",
                store=one.store,
                config=Config,
                limits=lambda: LIMITS,
                hub=one.hub,
                clock=one.supervisor._clock,
            ),
        ),
        FOR_EVER,
    )
    one.ref = cast("Ref[VolumeLedger]", again.ref)
    await asyncio.sleep(0)
    now = await one.volumes()
    assert spread(now) == (14.0, 15.0, 15.1)
    assert now.doubt is not None
    answered = await one.ref.ask(FinishDose(dose.dose_id, exact(1)), timeout=5)
    assert answered == Amount(0.0, 1.0, 1.1)


class FullDisk(VolumeStore):
    """A disk that is full while ``full`` says so."""

    full = False

    async def keep(
        self, volumes: Iterable[VolumesRow], doses: Iterable[DoseRow], *, confirmed: bool = False
    ) -> None:
        if self.full:
            raise StorageFull("the disk is full")
        await super().keep(volumes, doses, confirmed=confirmed)


async def test_without_an_intent_on_disk_there_is_no_dose(tmp_path: Path, clock) -> None:
    async with bench(tmp_path, clock, store=FullDisk) as it:
        it.store.full = True
        with pytest.raises(StorageFull):
            await it.job().admit("media", exact, 10, "test")
        with pytest.raises(StorageFull):
            await it.job().change({"current_volume_ml": 17})
        it.store.full = False
        assert await it.job().room_ml() == 4.0
        await pumped(it.job(), "media", exact, 10)
        assert (await it.volumes()).current_volume_ml == 15.0


async def test_a_fact_that_the_disk_refused_counts_and_is_kept_with_the_next(
    tmp_path: Path, clock
) -> None:
    async with bench(tmp_path, clock, store=FullDisk) as it:
        dose = await it.job().admit("media", exact, 10, "test")
        it.store.full = True
        with pytest.raises(StorageFull):
            await dose.finish(10)
        assert (await it.volumes()).current_volume_ml == 15.0
        it.store.full = False
        await pumped(it.job(), "media", exact, 1)
    async with bench(tmp_path, clock) as again:
        now = await again.volumes()
        assert (now.current_volume_ml, now.doubt) == (15.1, None)


# -- what persons say, and imports ----------------------------------------------------


async def test_changes_are_taken_over_all_or_none(one: Bench) -> None:
    liquids = one.job()
    before = await liquids.volumes()
    for values, told in (
        ({}, "at least one"),
        ({"current_volume_ml": 15, "stirring": 3}, "stirring"),
        ({"current_volume_ml": 15, "alt_media_fraction": 1.1}, "alt_media_fraction must be 0 to 1"),
        ({"current_volume_ml": 20.1}, "current_volume_ml must be 0 to 20"),
        ({"cumulative_media_added_ml": -1}, "cumulative_media_added_ml must be at least 0"),
        ({"efflux_tube_volume_ml": 12, "max_working_volume_ml": 13}, "older name"),
    ):
        with pytest.raises(BadRequest, match=told):
            await liquids.change(values)
    assert await liquids.volumes() == before
    after = await liquids.change({"max_working_volume_ml": 13, "alt_media_fraction": 0.5})
    assert after == replace(before, efflux_tube_volume_ml=13, alt_media_fraction=0.5)


async def test_the_efflux_tube_that_was_told_is_that_of_the_next_experiment(
    tmp_path: Path, clock
) -> None:
    async def tube(it: Bench, experiment: str) -> float:
        return (await it.volumes(experiment)).efflux_tube_volume_ml

    async with bench(tmp_path, clock) as it:
        await pumped(it.job("old"), "media", exact, 1)
        await it.job("told").change({"efflux_tube_volume_ml": 17})
        assert await tube(it, "new") == 17
        assert await tube(it, "old") == 17  # nobody had told that of the old one
    async with bench(tmp_path, clock) as it:
        await it.job("new").change({"current_volume_ml": 17.5})
        await pumped(it.job("new"), "waste", exact, 300)
        assert spread(await it.volumes("new")) == (17, 17, 17)
    async with bench(tmp_path, clock) as it:
        assert await tube(it, "another") == 17
        await it.job("another").change({"efflux_tube_volume_ml": 13})
        assert (await tube(it, "told"), await tube(it, "new")) == (17, 13)
        assert (await it.volumes("another")).highest_ml == 17  # it is the same vial


async def test_without_a_persons_word_the_tube_is_that_of_the_configuration(
    tmp_path: Path, clock
) -> None:
    async with bench(tmp_path, clock) as it:
        await pumped(it.job("old"), "media", exact, 1)
    config = config_of(tmp_path, "[bioreactor]\nefflux_tube_volume_ml=15\n")
    async with bench(tmp_path, clock, config) as it:
        assert (await it.volumes("new")).efflux_tube_volume_ml == 15
        assert (await it.volumes("old")).efflux_tube_volume_ml == 14


async def test_a_tube_that_ends_at_the_maximum_is_refused(one: Bench) -> None:
    for name in ("efflux_tube_volume_ml", "max_working_volume_ml"):
        with pytest.raises(BadRequest, match=f"{name} must be below 18"):
            await one.job().change({name: 18})
    await one.job().change({"efflux_tube_volume_ml": 17.9})
    values = {"max_working_volume_ml": 13, "efflux_tube_volume_ml": 12}
    with pytest.raises(BadRequest, match="max_working_volume_ml is an older name of efflux"):
        await one.job().change(values)


async def test_a_tube_that_the_disk_refuses_is_not_told(tmp_path: Path, clock) -> None:
    async with bench(tmp_path, clock, store=FullDisk) as it:
        it.store.full = True
        with pytest.raises(StorageFull):
            await it.job().change({"efflux_tube_volume_ml": 17})
        it.store.full = False
        assert (await it.volumes()).efflux_tube_volume_ml == 14
        assert (await it.volumes("new")).efflux_tube_volume_ml == 14


async def test_the_volume_is_not_set_while_a_pump_runs(one: Bench) -> None:
    dose = await one.job().admit("media", exact, 10, "test")
    for name in ("current_volume_ml", "efflux_tube_volume_ml", "max_working_volume_ml"):
        with pytest.raises(Conflict, match="while a pump runs"):
            await one.job("other").change({name: 12})
    await one.job().change({"alt_media_fraction": 0.5})
    await dose.finish(10)
    await one.job().change({"current_volume_ml": 12})


async def test_an_import_makes_every_volume_unconfirmed(tmp_path: Path, clock) -> None:
    async with bench(tmp_path, clock) as it:
        await pumped(it.job(), "media", exact, 10)
        await it.ledger.replace_meta([], {VOLUMES_UNCONFIRMED: "1"})
        await it.ref.ask(Unconfirm(), timeout=LEDGER_TIMEOUT_S)
    async with bench(tmp_path, clock) as it:
        for experiment in ("exp", "another"):
            now = await it.volumes(experiment)
            assert (now.lowest_ml, now.highest_ml) == (0, 20)
            assert now.doubt is not None
            assert "import" in now.doubt
            with pytest.raises(VolumeInDoubt, match="import"):
                await it.job(experiment).admit("media", exact, 1, "test")
        await pumped(it.job(), "waste", exact, 30)
        assert (await it.volumes()).highest_ml == 17.0
        assert (await it.volumes("another")).doubt is not None
    async with bench(tmp_path, clock) as it:
        assert (await it.volumes()).doubt is not None
        await it.job("another").change({"current_volume_ml": 12})
        assert (await it.volumes()).doubt is None
        assert spread(await it.volumes()) == (0.0, 14.0, 17.0)  # what both say, together
        assert not await it.store.is_unconfirmed()


# -- the hub -----------------------------------------------------------------------------


async def test_doses_and_volumes_are_published(one: Bench, clock) -> None:
    with one.hub.subscribe() as subscription:
        await pumped(one.job(), "alt_media", flow, 10)
        await one.job().change({"alt_media_fraction": 0})
        subscription.close()
        events: list[Event] = [event async for event in subscription]  # type: ignore[misc] # never Lagged
    doses = [event for event in events if isinstance(event, DoseEnded)]
    assert [(d.job.job_id, d.event, d.volume_ml, d.finished) for d in doses] == [
        ("1", "add_alt_media", 1.0, True)
    ]
    changes = [event for event in events if isinstance(event, VolumesChanged)]
    assert changes[-1].values["alt_media_fraction"] == 0
    assert changes[-1].values["current_volume_ml"] == 15.0
    assert changes[-1].values.keys() >= {"efflux_tube_volume_ml", "cumulative_media_added_ml"}
    assert (changes[-1].experiment, changes[-1].unit) == ("exp", "pio01")


async def test_jumps_of_the_clock_do_not_matter(one: Bench, clock: SimulatedClock) -> None:
    life = Life("job")
    await one.job(life=life).admit("media", exact, 30, "test")
    clock.offset_s += 86_400
    await clock.sleep(1)
    clock.offset_s -= 200_000
    life.end()
    assert (await one.volumes()).highest_ml == pytest.approx(14.12)
