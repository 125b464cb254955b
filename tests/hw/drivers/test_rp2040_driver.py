"""The RP2040's driver against its simulated twin, and against bytes of the handbook."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from recorded_bus import Leds, RecordedBus, ScriptedBus, Volts

from piod.clock import SimulatedClock
from piod.errors import BusError
from piod.hw.drivers.adc import Signals
from piod.hw.drivers.rp2040 import Rp2040
from piod.hw.ports import NoAnswer, Read, Sample, Write
from piod.hw.simulator.chips.rp2040 import SimulatedRp2040

ADDRESS = 0x2C
VERSION_0_5, VERSION_0_3 = "0500", "0300"


class Rig:
    """A driver on a recorded wire to a simulated chip."""

    def __init__(self, clock: SimulatedClock, firmware: tuple[int, int] = (0, 5)) -> None:
        self.clock = clock
        self.leds = Leds()
        self.inputs = {number: Volts() for number in range(4)}
        inputs: dict[int, Callable[[float], float]] = {**self.inputs}
        chip = SimulatedRp2040(inputs, self.leds.set, firmware=firmware)
        self.bus = RecordedBus(clock, {ADDRESS: chip})
        self.driver = Rp2040(self.bus, ADDRESS)
        self.signals = signals(self.bus)

    async def volts(self, signal: str) -> float:
        (sample,) = await self.signals.sample([(0.0, signal)])
        return sample.volts


def signals(bus: RecordedBus | ScriptedBus) -> Signals:
    driver = Rp2040(bus, ADDRESS)
    return Signals(bus, {name: (driver, number) for number, name in enumerate("vapq")})


@pytest.fixture
async def rig(clock: SimulatedClock) -> Rig:
    rig = Rig(clock)
    await rig.bus.bus.open()
    return rig


async def scripted(*answers: str) -> Sample:
    (sample,) = await signals(ScriptedBus(list(answers))).sample([(0.0, "p")])
    return sample


# -- ADC -----------------------------------------------------------------------------


async def test_inputs_are_read_little_endian_after_the_version(rig: Rig) -> None:
    rig.inputs[2].volts, rig.inputs[3].volts = 0.3, 1.0
    await rig.clock.sleep(1)
    rig.bus.wire.clear()
    first, second = await rig.signals.sample([(0.0, "p"), (0.02, "q")])
    # 0.3 V are int(0.3 / 3.3 * 4095 * 32) = 11912 = 2E88, 1 V 39709 = 9B1D
    assert rig.bus.wire == ["2C w08 r0500", "2C w06 r882E", "2C w07 r1D9B"]
    assert (first.volts, second.volts) == pytest.approx((0.3, 1.0), abs=3e-5)
    assert (first.t_s, second.t_s) == pytest.approx((0.00045, 0.02), abs=1e-6)


async def test_the_scale_follows_the_firmware() -> None:
    assert (await scripted(VERSION_0_5, "882E")).volts == pytest.approx(11912 / 4095 / 32 * 3.3)
    assert (await scripted(VERSION_0_3, "882E")).volts == pytest.approx(11912 / 4095 / 16 * 3.3)
    assert (await scripted("0001", "882E")).volts == pytest.approx(11912 / 4095 / 32 * 3.3)


async def test_old_firmware_is_understood_by_its_twin_too(clock: SimulatedClock) -> None:
    rig = Rig(clock, firmware=(0, 3))
    await rig.bus.bus.open()
    rig.inputs[2].volts = 1.2
    await clock.sleep(1)
    assert await rig.driver.firmware() == (0, 3)
    assert await rig.volts("p") == pytest.approx(1.2, abs=6e-5)


async def test_above_the_wrap_a_bright_signal_reads_dark(rig: Rig) -> None:
    for true, read, saturated in ((1.49, 1.49, False), (1.6, 1.6, True), (1.7, 0.0496, False)):
        rig.inputs[2].volts = true
        await rig.clock.sleep(2)
        (sample,) = await rig.signals.sample([(0.0, "p")])
        assert sample.volts == pytest.approx(read, abs=1e-3)
        assert sample.saturated is saturated
    assert rig.signals.full_scale_volts("p") == 1.5


async def test_photodiodes_follow_in_a_moving_average(rig: Rig) -> None:
    await rig.clock.sleep(0.5)
    await rig.driver.set_level("A", 80)  # the average is told of darkness up to here
    rig.inputs[2].volts = 1.0
    loops = 0.0
    for _ in range(3):
        await rig.clock.sleep(0.033)
        loops += 3
        assert await rig.volts("p") == pytest.approx(1 - 0.75**loops, abs=1e-4)


async def test_slow_inputs_are_measured_once_a_second(rig: Rig) -> None:
    await rig.clock.sleep(3.35)
    assert await rig.volts("a") == 0.0
    rig.inputs[1].volts = 0.5
    await rig.clock.sleep(1.0)
    assert await rig.volts("a") == 0.0  # as of 3.3 s
    await rig.clock.sleep(0.1)
    assert await rig.volts("a") == pytest.approx(0.5, abs=1e-4)


async def test_other_pointers_read_as_invalid(rig: Rig) -> None:
    for pointer in (0, 3, 9, 0xFF):
        assert await rig.bus.transfer(ADDRESS, [Write(bytes([pointer])), Read(2)]) == [b"\xff\xff"]


async def test_firmware_that_tells_no_version_gives_no_voltages() -> None:
    with pytest.raises(BusError, match="firmware"):
        await scripted("FFFF", "FFFF")


async def test_there_is_one_gain(rig: Rig) -> None:
    assert rig.signals.gain_for("p", 0.001) == 1
    rig.signals.set_gain("p", 1)
    with pytest.raises(ValueError, match="gain"):
        rig.signals.set_gain("p", 16)
    with pytest.raises(ValueError, match="input 4"):
        Signals(rig.bus, {"x": (rig.driver, 4)})
    assert rig.signals.carries_hum("p")


# -- LEDs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "level", "effective"),
    [(0, "00", 0), (80, "CC", 79.377), (100, "FF", 99.222), (0.1, "00", 0), (0.3, "01", 0.389)],
)
async def test_a_level_is_one_byte_and_its_effect_is_told(
    rig: Rig, percent: float, level: str, effective: float
) -> None:
    await rig.driver.set_level("C", 50)
    rig.bus.wire.clear()
    assert await rig.driver.set_level("C", percent) == pytest.approx(effective, abs=1e-3)
    assert rig.bus.wire == [f"2C w02{level}"]
    assert rig.leds.level("C") == pytest.approx(effective, abs=1e-3)


async def test_all_off_leaves_no_led_on(rig: Rig) -> None:
    for channel in rig.driver.channels:
        await rig.driver.set_level(channel, 50)
    rig.bus.wire.clear()
    await rig.driver.all_off()
    assert rig.bus.wire == ["2C w0000", "2C w0100", "2C w0200", "2C w0300"]
    assert [rig.leds.level(channel) for channel in "ABCD"] == [0, 0, 0, 0]


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan")])
async def test_a_level_outside_the_range_is_a_mistake_of_the_caller(
    rig: Rig, percent: float
) -> None:
    with pytest.raises(ValueError, match="100"):
        await rig.driver.set_level("A", percent)
    assert rig.bus.wire == []


@pytest.mark.parametrize("channel", ["E", "", "AB"])
async def test_what_is_no_channel_is_a_mistake_of_the_caller(rig: Rig, channel: str) -> None:
    with pytest.raises(ValueError, match="channel"):
        await rig.driver.set_level(channel, 10)
    assert rig.bus.wire == []


async def test_a_refused_led_is_as_before(clock: SimulatedClock) -> None:
    leds, broken = Leds(), [True]

    def set_led(channel: str, percent: float, now_s: float) -> None:
        if broken:
            raise BusError("it cannot be set")
        leds.set(channel, percent, now_s)

    bus = RecordedBus(clock, {ADDRESS: SimulatedRp2040({}, set_led)})
    await bus.bus.open()
    driver = Rp2040(bus, ADDRESS)
    with pytest.raises(BusError, match="cannot"):
        await driver.set_level("A", 80)
    broken.clear()
    await driver.set_level("A", 80)
    assert leds.level("A") == pytest.approx(79.377, abs=1e-3), "the chip did not think it was on"


# -- a reset -----------------------------------------------------------------------------


async def test_a_reset_turns_the_leds_off_at_once_and_is_silent_for_two_seconds(rig: Rig) -> None:
    await rig.driver.set_level("A", 80)
    rig.inputs[2].volts = 0.3
    await rig.clock.sleep(1)
    rig.bus.faults.add("chip_reset", address=ADDRESS)
    assert rig.leds.told[-1] == ("A", 0.0, 1.0)
    assert not await rig.driver.present()
    with pytest.raises(NoAnswer, match="0x2C"):
        await rig.volts("p")
    await rig.clock.sleep(2.01)
    assert await rig.driver.present()
    assert rig.leds.level("A") == 0
    await rig.clock.sleep(1)
    assert await rig.volts("p") == pytest.approx(0.3, abs=1e-4)


async def test_a_reset_in_the_middle_of_a_list_ends_it(rig: Rig) -> None:
    rig.clock.call_at(0.1, lambda: rig.bus.faults.add("chip_reset", address=ADDRESS))
    with pytest.raises(NoAnswer, match="item 3 of a timed list of 4"):
        await rig.signals.sample([(0.0, "p"), (0.2, "p"), (0.3, "p")])


async def test_a_nack_in_the_middle_of_a_list_is_named(rig: Rig) -> None:
    rig.clock.call_at(0.1, lambda: rig.bus.faults.add("nack", address=ADDRESS, count=1))
    with pytest.raises(NoAnswer, match=r"0x2C.*item 3 of a timed list of 4"):
        await rig.signals.sample([(0.0, "p"), (0.2, "p"), (0.3, "p")])
    assert len(await rig.signals.sample([(0.0, "p"), (0.2, "p"), (0.3, "p")])) == 3
