"""The drivers of ADS1115 and ADS1114 against their simulated twins and the handbook's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from recorded_bus import RecordedBus, ScriptedBus, Volts

from piod.clock import SimulatedClock
from piod.errors import BusError
from piod.hw.drivers.adc import Signals
from piod.hw.drivers.ads111x import gain_for
from piod.hw.drivers.ads1114 import Ads1114
from piod.hw.drivers.ads1115 import Ads1115
from piod.hw.ports import NoAnswer, Read, Sample, Write
from piod.hw.simulator.chips.ads111x import SimulatedAds111x

HAT, FRONT, SIDE = 0x48, 0x49, 0x4A
CONVERSION_S = 1 / 128
GAINS = (2 / 3, 1, 2, 4, 8, 16)
FULL_SCALES = (6.144, 4.096, 2.048, 1.024, 0.512, 0.256)


class Rig:
    """HAT 1.0's ADC with two photodiodes and the rail, and two boards of a v1.5 vial."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.inputs = {name: Volts() for name in ("pd1", "pd2", "aux", "front", "side")}
        self.bus = RecordedBus(
            clock,
            {
                HAT: chip({1: self.inputs["pd1"], 0: self.inputs["pd2"], 3: self.inputs["aux"]}),
                FRONT: chip({0: self.inputs["front"]}, has_multiplexer=False),
                SIDE: chip({0: self.inputs["side"]}, has_multiplexer=False),
            },
        )
        hat = Ads1115(self.bus, HAT)
        self.signals = Signals(
            self.bus,
            {
                "pd1": (hat, 1),
                "pd2": (hat, 0),
                "aux": (hat, 3),
                "front": (Ads1114(self.bus, FRONT), 0),
                "side": (Ads1114(self.bus, SIDE), 0),
            },
        )

    async def sample(self, signal: str) -> Sample:
        (sample,) = await self.signals.sample([(0.0, signal)])
        return sample


def chip(
    inputs: Mapping[int, Callable[[float], float]], has_multiplexer: bool = True
) -> SimulatedAds111x:
    return SimulatedAds111x(inputs, has_multiplexer=has_multiplexer)


@pytest.fixture
async def rig(clock: SimulatedClock) -> Rig:
    rig = Rig(clock)
    await rig.bus.bus.open()
    return rig


# -- gains ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("volts", "gain"),
    [
        *((-0.01, 16), (0.0, 16), (0.2175, 16), (0.2177, 8), (0.4351, 8), (0.4353, 4)),
        *((0.8703, 4), (0.8705, 2), (1.7407, 2), (1.7409, 1), (3.4815, 1), (3.4817, 2 / 3)),
        *((5.3, 2 / 3), (float("nan"), 2 / 3)),
    ],
)
def test_the_gain_leaves_a_voltage_its_headroom(volts: float, gain: float) -> None:
    assert gain_for(volts) == gain


@pytest.mark.parametrize("signal", ["pd1", "front"])
@pytest.mark.parametrize(("gain", "full_scale"), list(zip(GAINS, FULL_SCALES, strict=True)))
async def test_a_gain_counts_from_the_next_sample_on_and_clips_at_its_full_scale(
    rig: Rig, signal: str, gain: float, full_scale: float
) -> None:
    rig.inputs[signal].volts = 0.9 * full_scale
    await rig.sample(signal)  # with another gain
    rig.signals.set_gain(signal, gain)
    got = await rig.sample(signal)
    assert got.volts == pytest.approx(0.9 * full_scale, abs=full_scale / 0x7FFF)
    assert not got.saturated
    assert rig.signals.full_scale_volts(signal) == full_scale
    rig.inputs[signal].volts = 1.1 * full_scale
    await rig.clock.sleep(0.1)
    got = await rig.sample(signal)
    assert (got.volts, got.saturated) == (full_scale, True)


@pytest.mark.parametrize("signal", ["pd1", "front"])
async def test_a_dark_look_with_the_finest_gain_spoils_no_later_voltage(
    rig: Rig, signal: str
) -> None:
    """Upstream read 0.0016 V here (D-1): the chip and its driver had different gains."""
    rig.inputs[signal].volts = 0.005
    dark = await rig.sample(signal)
    rig.signals.set_gain(signal, rig.signals.gain_for(signal, dark.volts))
    assert (await rig.sample(signal)).volts == pytest.approx(0.005, abs=1e-5)
    rig.signals.set_gain(signal, 1)
    rig.inputs[signal].volts = 0.100
    assert (await rig.sample(signal)).volts == pytest.approx(0.100, abs=2e-4)


async def test_negative_voltages_are_negative(rig: Rig) -> None:
    for signal in ("pd1", "front"):
        rig.inputs[signal].volts = -0.01
        assert (await rig.sample(signal)).volts == pytest.approx(-0.01, abs=2e-4)


@pytest.mark.parametrize("gain", [0, 3, 32, float("nan")])
async def test_other_gains_and_inputs_are_mistakes_of_the_caller(rig: Rig, gain: float) -> None:
    for signal in ("pd1", "front"):
        with pytest.raises(ValueError, match="gain"):
            rig.signals.set_gain(signal, gain)
    with pytest.raises(ValueError, match="input 4"):
        Signals(rig.bus, {"x": (Ads1115(rig.bus, HAT), 4)})
    with pytest.raises(ValueError, match="input 1"):
        Signals(rig.bus, {"x": (Ads1114(rig.bus, FRONT), 1)})


# -- ADS1115 -----------------------------------------------------------------------------


async def test_an_ads1115_is_started_awaited_and_read(rig: Rig) -> None:
    rig.inputs["pd1"].volts = 1.024
    assert (await rig.sample("pd1")).volts == pytest.approx(1.024, abs=1.3e-4)
    # AIN1, gain 1, single-shot, 128 SPS; 1.024 V of 4.096 V are 2000
    assert rig.bus.wire == ["48 w01D383", "48 w01 rD383 w00 r2000"]


@pytest.mark.parametrize(
    ("signal", "gain", "word"),
    [
        *(("pd2", 1, "C383"), ("aux", 1, "F383")),
        *(("pd1", 2 / 3, "D183"), ("pd1", 2, "D583"), ("pd1", 16, "DB83")),
    ],
)
async def test_input_and_gain_are_in_the_word_that_starts_a_conversion(
    rig: Rig, signal: str, gain: float, word: str
) -> None:
    rig.signals.set_gain(signal, gain)
    await rig.sample(signal)
    assert rig.bus.wire[0] == f"48 w01{word}"


async def test_each_input_has_its_own_gain(rig: Rig) -> None:
    rig.inputs["pd1"].volts, rig.inputs["aux"].volts = 0.1, 1.6
    rig.signals.set_gain("pd1", 16)
    dim, rail = await rig.signals.sample([(0.0, "pd1"), (0.0, "aux")])
    assert dim.volts == pytest.approx(0.1, abs=1e-5)
    assert rail.volts == pytest.approx(1.6, abs=2e-4)


async def test_a_plan_that_is_too_fast_is_stretched_and_says_so(rig: Rig) -> None:
    samples = await rig.signals.sample([(0.0, "pd1"), (0.0, "pd2"), (0.1, "pd1")])
    times = [sample.t_s for sample in samples]
    assert times[1] - times[0] >= CONVERSION_S
    assert times[2] == pytest.approx(0.1 + CONVERSION_S / 2, abs=0.002)


async def test_a_conversion_that_does_not_end_is_no_voltage() -> None:
    bus = ScriptedBus(["5383", "2000"])
    with pytest.raises(BusError, match="conversion"):
        await Signals(bus, {"pd1": (Ads1115(bus, HAT), 1)}).sample([(0.0, "pd1")])


async def test_the_twin_is_busy_while_it_converts(rig: Rig) -> None:
    config = [Write(b"\x01"), Read(2), Write(b"\x00"), Read(2)]
    assert await rig.bus.transfer(HAT, config) == [b"\x85\x83", b"\x00\x00"]
    rig.inputs["pd1"].volts = 1.024
    await rig.bus.transfer(HAT, [Write(b"\x01\xd3\x83")])
    await rig.clock.sleep(CONVERSION_S * 0.9)
    assert await rig.bus.transfer(HAT, config) == [b"\x53\x83", b"\x00\x00"]
    await rig.clock.sleep(CONVERSION_S * 0.2)
    assert await rig.bus.transfer(HAT, config) == [b"\xd3\x83", b"\x20\x00"]


async def test_an_ads1115_that_is_reset_while_it_measures_gives_no_voltage(rig: Rig) -> None:
    rig.clock.call_at(
        CONVERSION_S / 2, lambda: rig.bus.faults.add("chip_reset", address=HAT, seconds=0)
    )
    with pytest.raises(BusError, match="lost its configuration"):
        await rig.sample("pd1")
    assert (await rig.sample("pd1")).volts == 0.0


# -- ADS1114 -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "word"),
    list(zip(GAINS, ("0083", "0283", "0483", "0683", "0883", "0A83"), strict=True)),
)
async def test_an_ads1114_is_configured_once_and_verified(rig: Rig, gain: float, word: str) -> None:
    rig.signals.set_gain("front", gain)
    rig.inputs["front"].volts = 0.128
    await rig.sample("front")
    assert rig.bus.wire[:2] == ["49 w01 r8583", f"49 w01{word} w01 r{word}"]
    rig.bus.wire.clear()
    await rig.sample("front")
    config, result, again = rig.bus.wire
    assert config == again == f"49 w01 r{word}"
    assert result.startswith("49 w00 r")


async def test_one_conversion_of_the_old_configuration_is_not_taken_for_a_new_one(
    rig: Rig,
) -> None:
    rig.inputs["front"].volts = 0.2
    await rig.sample("front")
    await rig.clock.sleep(0.1)
    for _ in range(20):
        for gain in (16, 1):
            rig.signals.set_gain("front", gain)
            await rig.clock.sleep(0.0013)
            assert (await rig.sample("front")).volts == pytest.approx(0.2, abs=2e-4)


async def test_the_twin_finishes_a_conversion_with_the_settings_that_it_began_with(
    rig: Rig,
) -> None:
    rig.inputs["front"].volts = 0.256
    read = [Write(b"\x00"), Read(2)]
    await rig.bus.transfer(FRONT, [Write(b"\x01\x02\x83")])  # gain 1, at 0 s
    await rig.clock.sleep(1.5 * CONVERSION_S)
    assert await rig.bus.transfer(FRONT, read) == [b"\x08\x00"]
    await rig.bus.transfer(FRONT, [Write(b"\x01\x06\x83")])  # gain 4
    await rig.clock.sleep(CONVERSION_S)
    assert await rig.bus.transfer(FRONT, read) == [b"\x08\x00"]
    await rig.clock.sleep(0.6 * CONVERSION_S)
    assert await rig.bus.transfer(FRONT, read) == [b"\x20\x00"]


async def test_looks_at_an_ads1114_are_a_conversion_apart(rig: Rig) -> None:
    await rig.sample("front")
    samples = await rig.signals.sample([(0.0, "front"), (0.0, "front"), (0.001, "front")])
    times = [sample.t_s for sample in samples]
    assert times[1] - times[0] >= CONVERSION_S
    assert times[2] - times[1] >= CONVERSION_S


async def test_an_ads1114_that_was_reset_is_configured_anew(rig: Rig) -> None:
    rig.inputs["front"].volts = 0.2
    rig.signals.set_gain("front", 8)
    await rig.sample("front")
    rig.bus.faults.add("chip_reset", address=FRONT, seconds=0)
    assert (await rig.sample("front")).volts == pytest.approx(0.2, abs=1e-4)
    rig.clock.call_at(
        rig.clock.monotonic() + 0.05,
        lambda: rig.bus.faults.add("chip_reset", address=FRONT, seconds=0),
    )
    with pytest.raises(BusError, match="0x49 lost its configuration"):
        await rig.signals.sample([(0.0, "front"), (0.1, "front")])


async def test_a_chip_that_does_not_hold_its_configuration_is_refused() -> None:
    bus = ScriptedBus(["8583", "8583"])
    with pytest.raises(BusError, match="holds 8583"):
        await Signals(bus, {"pd1": (Ads1114(bus, FRONT), 0)}).sample([(0.0, "pd1")])


# -- together ----------------------------------------------------------------------------


async def test_photodiodes_on_several_chips_are_looked_at_in_turn(rig: Rig) -> None:
    rig.inputs["front"].volts, rig.inputs["side"].volts = 0.1, 0.3
    plan = [(at, name) for at in (0.0, 0.02, 0.04) for name in ("front", "side")]
    await rig.signals.sample(plan)
    rig.bus.wire.clear()
    samples = await rig.signals.sample(plan)
    looks = [line[:2] for line in rig.bus.wire if " w00 " in line]
    assert looks == ["49", "4A", "49", "4A", "49", "4A"]
    assert [sample.volts for sample in samples] == pytest.approx([0.1, 0.3] * 3, abs=2e-4)
    times = [sample.t_s for sample in samples]
    assert times == sorted(times)


async def test_chips_of_different_kinds_are_looked_at_together(rig: Rig) -> None:
    for name, volts in (("pd1", 0.5), ("front", 0.1), ("side", 0.3)):
        rig.inputs[name].volts = volts
    plan = [(at, name) for at in (0.0, 0.03, 0.06) for name in ("side", "pd1", "front")]
    samples = await rig.signals.sample(plan)
    assert [sample.volts for sample in samples] == pytest.approx([0.3, 0.5, 0.1] * 3, abs=2e-4)


async def test_a_plan_that_makes_no_sense_is_a_mistake_of_the_caller(rig: Rig) -> None:
    for plan in ([(0.1, "pd1"), (0.0, "pd1")], [(float("nan"), "pd1")], [(0.0, "pd9")]):
        with pytest.raises(ValueError, match=r"back|pd9"):
            await rig.signals.sample(plan)
    assert rig.bus.wire == []
    assert list(await rig.signals.sample([])) == []


async def test_a_missing_chip_is_named(rig: Rig) -> None:
    rig.bus.faults.add("chip_missing", address=SIDE)
    with pytest.raises(NoAnswer, match="0x4A"):
        await rig.signals.sample([(0.0, "front"), (0.0, "side")])
    assert (await rig.sample("front")).volts == 0
    assert [rig.signals.carries_hum(name) for name in ("pd1", "front")] == [True, False]
