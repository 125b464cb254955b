"""LEDs have one owner, go off with it, and are dark for others for a moment only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from piod.actors.actor import Life
from piod.actors.buses import bus, led
from piod.actors.buses.bus import (
    AllReleased,
    BusReport,
    BusState,
    FindHang,
    LeaseLost,
    RevokeAll,
)
from piod.actors.buses.i2c import BusAccess, I2cBus
from piod.actors.buses.led import LedBus
from piod.actors.buses.led_lease import LeasedLeds, LeaseLeds
from piod.actors.hub import Hub
from piod.actors.supervisor import Supervisor
from piod.clock import SimulatedClock
from piod.errors import BadRequest, BusError, LeaseTaken
from piod.events import LedsChanged
from piod.hw.drivers.dac43608 import Dac43608
from piod.hw.drivers.rp2040 import Rp2040
from piod.hw.ports import Read, TimedTransfer, Write
from piod.hw.simulator.chips.dac43608 import SimulatedDac43608
from piod.hw.simulator.chips.rp2040 import SimulatedRp2040
from piod.hw.simulator.faults import Faults
from piod.hw.simulator.i2c import SimulatedI2c
from piod.restarts import FOR_EVER

PICO, DAC = 0x2C, 0x49
FULL = 100 * 255 / 257
"""What an LED of the RP2040 really gets at most, percent."""


class Guard:
    """What the guard would turn off."""

    def __init__(self) -> None:
        self.on_now: set[str] = set()

    def on(self, output: str) -> None:
        self.on_now.add(output)

    def off(self, output: str) -> None:
        self.on_now.discard(output)


class Rig:
    """Both buses on a simulated chip, and owners that lease from them."""

    def __init__(self, clock: SimulatedClock, address: int) -> None:
        self.clock = clock
        self.shown: dict[str, float] = dict.fromkeys("ABCD", 0.0)
        self.shows: list[tuple[str, float]] = []
        self.hub = Hub()
        self.guard = Guard()
        chip = SimulatedRp2040({}, self._led) if address == PICO else SimulatedDac43608(self._led)
        self.faults = Faults(lambda: self.port.faults_changed())
        self.port = SimulatedI2c({address: chip}, self.faults, clock)
        self.supervisor = Supervisor(clock)
        self.i2c = self.supervisor.start(
            "i2c bus", lambda: I2cBus(self.port, clock, self.hub), FOR_EVER
        ).ref
        access = BusAccess(self.i2c, urgent=True)  # type: ignore[arg-type] # its actor is known
        driver = Rp2040(access, PICO) if address == PICO else Dac43608(access, DAC)
        self.child = self.supervisor.start(
            "led bus", lambda: LedBus(driver, clock, self.hub, self.guard), FOR_EVER
        )
        self.ref = self.child.ref

    def _led(self, channel: str, percent: float, now_s: float) -> None:
        self.shown[channel] = percent
        self.shows.append((channel, percent))

    async def lease(self, channels: str, life: Life | None = None) -> LeasedLeds:
        life = life or Life("somebody")
        request = LeaseLeds(channels, life, lambda error: None)
        lease = await self.ref.ask(request, timeout=5)  # type: ignore[arg-type] # as above
        return LeasedLeds(self.ref, lease)  # type: ignore[arg-type] # as above

    async def ask(self, message: object) -> object:
        return await self.ref.ask(message, timeout=5)  # type: ignore[arg-type] # as above


@asynccontextmanager
async def running(clock: SimulatedClock, address: int = PICO) -> AsyncIterator[Rig]:
    rig = Rig(clock, address)
    await asyncio.sleep(0)
    try:
        yield rig
    finally:
        await rig.supervisor.stop_all()


@pytest.fixture
async def rig(clock: SimulatedClock) -> AsyncIterator[Rig]:
    async with running(clock) as one:
        yield one


async def test_a_level_is_what_the_chip_can_do(rig: Rig) -> None:
    leds = await rig.lease("AB")
    got = await leds.set_levels({"A": 100, "B": 50})
    assert got == {"A": pytest.approx(FULL), "B": pytest.approx(100 * 128 / 257)}
    assert rig.shown == {**got, "C": 0, "D": 0}


async def test_a_channel_has_one_owner_and_the_refusal_names_it(rig: Rig) -> None:
    await rig.lease("CD", Life("led_automation (job 7)"))
    with pytest.raises(LeaseTaken, match=r"LED D is in use by led_automation \(job 7\)"):
        await rig.lease("AD")
    assert (await rig.lease("A")).channels == "A", "nothing of a refused lease is left"


@pytest.mark.parametrize("channels", ["", "E", "AA", "ABCDE"])
async def test_channels_that_there_are_not_are_refused(rig: Rig, channels: str) -> None:
    with pytest.raises(BadRequest):
        await rig.lease(channels)


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan")])
async def test_a_level_out_of_range_is_refused_and_changes_nothing(
    rig: Rig, percent: float
) -> None:
    leds = await rig.lease("AB")
    await leds.set_levels({"A": 20})
    with pytest.raises(BadRequest):
        await leds.set_levels({"A": 30, "B": percent})
    assert rig.shown["A"] == pytest.approx(20, abs=0.5)


async def test_an_led_goes_off_with_its_owner_and_can_be_leased_again(rig: Rig) -> None:
    life = Life("a job")
    leds = await rig.lease("AB", life)
    await leds.set_levels({"A": 50, "B": 10})
    assert rig.guard.on_now == {"led:A", "led:B"}
    life.end()
    await rig.ask(AllReleased("a job"))
    assert rig.shown == dict.fromkeys("ABCD", 0.0)
    assert rig.guard.on_now == set()
    with pytest.raises(LeaseLost):
        await leds.set_levels({"A": 50})
    await rig.lease("A")


async def test_an_owner_that_ends_while_its_led_is_being_lit_leaves_it_dark(rig: Rig) -> None:
    for turns in range(12):
        life = Life("hasty")
        leds = await rig.lease("A", life)
        lighting = asyncio.ensure_future(leds.set_levels({"A": 80}))
        for _ in range(turns):
            await asyncio.sleep(0)
        life.end()
        await asyncio.gather(lighting, return_exceptions=True)
        await rig.ask(AllReleased("hasty"))
        assert rig.shown["A"] == 0
        assert rig.guard.on_now == set()


async def test_turning_off_is_tried_until_the_chip_confirms_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(led, "OFF_WAIT_S", 0.05)
    life = Life("a job")
    await (await rig.lease("A", life)).set_levels({"A": 50})
    gone = rig.faults.add("chip_missing", address=PICO)
    life.end()
    await rig.clock.sleep(30)
    report = await rig.ask(BusState())
    assert report.going_off == {"LED A": "a job"}  # type: ignore[attr-defined] # a BusReport
    assert rig.guard.on_now == {"led:A"}, "the guard must still look after it"
    with pytest.raises(BusError, match="could not be turned off yet"):
        await rig.lease("A")
    rig.faults.remove(gone.id)
    await rig.clock.sleep(2.1)
    assert rig.shown["A"] == 0
    assert rig.guard.on_now == set()


async def test_led_goes_off_next_whatever_waits_for_the_bus(rig: Rig) -> None:
    """Before it there is nothing but the access under way."""
    life = Life("a job")
    await (await rig.lease("A", life)).set_levels({"A": 50})
    access = BusAccess(rig.i2c)  # type: ignore[arg-type] # as above
    look = [TimedTransfer(t, PICO, [Write(b"\x08"), Read(2)]) for t in (0.0, 1.0)]
    ended: list[float] = []

    async def measure() -> None:
        await access.transfer_at(look)
        ended.append(rig.clock.monotonic())

    began_s = rig.clock.monotonic()
    lists = [asyncio.ensure_future(measure()) for _ in range(3)]
    await rig.clock.sleep(0.5)
    life.end()
    await rig.ask(AllReleased("a job"))
    assert rig.shown["A"] == 0
    assert rig.clock.monotonic() - began_s < 1.1
    await asyncio.gather(*lists)
    assert len(ended) == 3


# -- dark for others ------------------------------------------------------------------


async def test_others_are_dark_for_a_while_and_then_as_they_were(rig: Rig) -> None:
    await (await rig.lease("CD")).set_levels({"C": 30, "D": 40})
    ir = await rig.lease("A")
    await ir.set_levels({"A": 80})
    before = dict(rig.shown)
    async with ir.others_dark():
        assert rig.shown == {**dict.fromkeys("BCD", 0.0), "A": before["A"]}
    assert rig.shown == before


async def test_a_level_set_in_the_dark_counts_from_its_end_on(rig: Rig) -> None:
    light = await rig.lease("D")
    ir = await rig.lease("A")
    async with ir.others_dark():
        assert await light.set_levels({"D": 60}) == {"D": 60}
        assert rig.shown["D"] == 0
    assert rig.shown["D"] == pytest.approx(60, abs=0.5)


async def test_darkness_ends_after_five_seconds_by_itself(rig: Rig) -> None:
    await (await rig.lease("D")).set_levels({"D": 60})
    ir = await rig.lease("A")
    async with ir.others_dark():
        await rig.clock.sleep(4.9)
        assert rig.shown["D"] == 0
        await rig.clock.sleep(0.2)
        assert rig.shown["D"] == pytest.approx(60, abs=0.5)


async def test_darkness_ends_with_the_life_of_whoever_wanted_it(rig: Rig) -> None:
    await (await rig.lease("D")).set_levels({"D": 60})
    life = Life("crashes")
    ir = await rig.lease("A", life)
    darkness = ir.others_dark()
    await darkness.__aenter__()
    assert rig.shown["D"] == 0
    life.end()
    await rig.clock.sleep(0.01)
    assert rig.shown["D"] == pytest.approx(60, abs=0.5)
    await darkness.__aexit__(None, None, None)


async def test_an_led_whose_owner_ended_in_the_dark_stays_dark(rig: Rig) -> None:
    life = Life("ends")
    await (await rig.lease("D", life)).set_levels({"D": 60})
    ir = await rig.lease("A")
    async with ir.others_dark():
        life.end()
    await rig.clock.sleep(30)
    assert rig.shown["D"] == 0


async def test_darkness_that_fails_leaves_the_others_on(rig: Rig) -> None:
    await (await rig.lease("D")).set_levels({"D": 60})
    ir = await rig.lease("A")
    rig.faults.add("nack", address=PICO, count=3)
    with pytest.raises(BusError):
        async with ir.others_dark():
            raise AssertionError("it is not dark")
    await rig.clock.sleep(1)
    assert rig.shown["D"] == pytest.approx(60, abs=0.5)


# -- what goes wrong --------------------------------------------------------------------


async def test_a_chip_that_began_anew_is_told_its_levels_again(rig: Rig) -> None:
    await (await rig.lease("D")).set_levels({"D": 60})
    rig.faults.add("chip_reset", address=PICO, seconds=2)
    assert rig.shown["D"] == 0
    await rig.clock.sleep(12.1)
    assert rig.shown["D"] == pytest.approx(60, abs=0.5)


async def test_the_end_of_the_bus_turns_everything_off_and_tells_the_owners(
    clock: SimulatedClock,
) -> None:
    lost: list[BusError] = []
    async with running(clock) as rig:
        request = LeaseLeds("AB", Life("a job"), lost.append)
        lease = await rig.ask(request)
        await LeasedLeds(rig.ref, lease).set_levels({"A": 50, "B": 50})  # type: ignore[arg-type] # as above
        await rig.supervisor.stop(rig.child)
        assert rig.shown == dict.fromkeys("ABCD", 0.0)
    assert len(lost) == 1


async def test_a_new_bus_turns_everything_off_before_it_lends(clock: SimulatedClock) -> None:
    async with running(clock) as rig:
        leds = await rig.lease("A")
        await leds.set_levels({"A": 50})
        gone = rig.faults.add("chip_missing", address=PICO)
        await rig.supervisor.stop(rig.child)
        assert rig.shown["A"] > 0, "nobody can have turned it off"
        driver = Rp2040(BusAccess(rig.i2c, urgent=True), PICO)  # type: ignore[arg-type] # as above
        anew = rig.supervisor.start(
            "led bus", lambda: LedBus(driver, clock, rig.hub, rig.guard), FOR_EVER
        )
        await asyncio.sleep(0)
        rig.ref = anew.ref
        with pytest.raises(Exception, match="led bus is not available"):
            await rig.lease("B")
        rig.faults.remove(gone.id)
        await clock.sleep(3)
        assert rig.shown["A"] == 0
        await rig.lease("B")


async def test_what_the_guard_turned_off_is_not_lit_again(rig: Rig) -> None:
    lost: list[BusError] = []
    lease = await rig.ask(LeaseLeds("D", Life("a job"), lost.append))
    leds = LeasedLeds(rig.ref, lease)  # type: ignore[arg-type] # as above
    await leds.set_levels({"D": 60})
    await rig.ask(RevokeAll("the guard did it"))
    await rig.ask(AllReleased("a job"))
    await rig.clock.sleep(30)
    assert rig.shown["D"] == 0
    assert "the guard did it" in lost[0].message


async def test_after_the_guard_every_led_is_driven_dark_also_one_that_is_nobody_s(rig: Rig) -> None:
    await (await rig.lease("D")).set_levels({"D": 60})
    stranger = Rp2040(BusAccess(rig.i2c), PICO)  # type: ignore[arg-type] # as above
    await stranger.set_level("A", 30)
    await rig.ask(RevokeAll("the guard did it"))
    await rig.clock.sleep(0.1)
    assert rig.shown == dict.fromkeys("ABCD", 0.0)
    assert await rig.ask(BusState()) == BusReport(None)
    assert (await rig.lease("ABCD")).channels == "ABCD"


@pytest.mark.parametrize("told", ["dark", "dark_for_others"])
async def test_what_failed_is_made_good_soon_after_the_chip_answers(rig: Rig, told: str) -> None:
    leds, other = await rig.lease("A"), await rig.lease("B")
    await leds.set_levels({"A": 50})
    lit = rig.shown["A"]
    await rig.clock.sleep(0.1)
    with suppress(BusError):
        if told == "dark":
            gone = rig.faults.add("chip_missing", address=PICO)
            await leds.set_levels({"A": 0})
        else:
            async with other.others_dark():
                assert rig.shown["A"] == 0
                gone = rig.faults.add("chip_missing", address=PICO)
    await rig.clock.sleep(0.3)
    rig.faults.remove(gone.id)
    await rig.clock.sleep(led.RETRY_S[1] + 0.1)
    assert rig.shown["A"] == (0 if told == "dark" else lit)


async def test_the_hub_is_told_the_levels(rig: Rig) -> None:
    with rig.hub.subscribe() as events:
        life = Life("a job")
        await (await rig.lease("D", life)).set_levels({"D": 60})
        life.end()
        await rig.ask(AllReleased("a job"))
        await rig.clock.sleep(0.01)
        events.close()
        told = [event.percent async for event in events if isinstance(event, LedsChanged)]
    dark = dict.fromkeys("ABCD", 0.0)
    assert told == [{**dark, "D": 60}, dark]


async def test_a_bus_that_hangs_starves_the_watchdog_only_while_an_led_is_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "ACCESS_TIMEOUT_S", 0.02)
    life = Life("a job")
    leds = await rig.lease("A", life)
    assert await rig.ask(FindHang()) is None

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(rig.port, "transfer", hang)
        with pytest.raises(BusError, match="did not answer"):
            await leds.set_levels({"A": 50})
        assert "LED A may be on" in str(await rig.ask(FindHang()))
    await leds.set_levels({"A": 50})
    assert await rig.ask(FindHang()) is None


async def test_dac43608_is_lit_without_a_flash(clock: SimulatedClock) -> None:
    """HAZ-10: full scale is what its registers wake up with."""
    async with running(clock, DAC) as rig:
        life = Life("a job")
        leds = await rig.lease("AB", life)
        await leds.set_levels({"A": 10, "B": 20})
        await leds.set_levels({"A": 0})
        await leds.set_levels({"A": 5})
        life.end()
        await rig.ask(AllReleased("a job"))
        assert max(percent for _, percent in rig.shows) < 21
        assert rig.shown == dict.fromkeys("ABCD", 0.0)
