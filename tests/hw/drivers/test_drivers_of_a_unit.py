"""Every wiring that is shipped gets the drivers of its chips, and they work together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recorded_bus import Leds, RecordedBus

from piod.clock import SimulatedClock
from piod.hw.drivers import analog_inputs, led_driver, thermometer
from piod.hw.linux import LinuxI2c
from piod.hw.models import BUILT_IN
from piod.hw.simulator.chips import build_chips, chips_of
from piod.hw.wiring import detect_hat, load_wiring

VOLTS = {"pd1": 0.2, "pd2": 0.4, "pd3": 0.6, "pd4": 0.8, "aux": 1.4, "version": 0.1}


class Vial:
    """Surroundings with a voltage of its own for each signal."""

    def __init__(self) -> None:
        self.leds = Leds()

    def analog_input(self, signal: str, kind: str) -> Callable[[float], float]:
        return lambda now_s: VOLTS[signal]

    def pcb_celsius(self, now_s: float) -> float:
        return 31.25

    def set_led(self, channel: str, percent: float, now_s: float) -> None:
        self.leds.set(channel, percent, now_s)


@pytest.mark.parametrize(
    ("hat", "model"),
    [
        (hat, model.key)
        for hat in ("1.0", "1.1", "1.2")
        for model in BUILT_IN
        if hat != "1.0" or model.model_version != "1.5"  # no such unit can be wired
    ],
)
async def test_every_signal_led_and_sensor_of_a_unit_works(
    tmp_path: Path, clock: SimulatedClock, hat: str, model: tuple[str, str]
) -> None:
    wiring, vial = load_wiring(tmp_path, hat, model), Vial()
    bus = RecordedBus(clock, build_chips(chips_of(wiring), vial, 0.0))
    await bus.bus.open()
    signals = analog_inputs(bus, wiring)
    assert set(signals.signals) == set(wiring.adc)
    await clock.sleep(2)
    samples = await signals.sample([(0.01, signal) for signal in signals.signals])
    for signal, sample in zip(signals.signals, samples, strict=True):
        assert sample.volts == pytest.approx(VOLTS[signal], abs=1e-3)

    leds = led_driver(bus, wiring)
    for channel in leds.channels:
        assert await leds.set_level(channel, 50) == pytest.approx(50, abs=0.5)
        assert vial.leds.level(channel) == pytest.approx(50, abs=0.5)
    await leds.all_off()
    assert [vial.leds.level(channel) for channel in leds.channels] == [0] * 4
    assert await thermometer(bus, wiring).read_celsius() == 31.25


async def test_looks_of_one_reading_are_as_regular_as_planned(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    """Forty looks at two photodiodes: each at its instant, to the time of a transaction."""
    wiring = load_wiring(tmp_path, "1.2", ("pioreactor_20ml", "1.1"))
    bus = RecordedBus(clock, build_chips(chips_of(wiring), Vial(), 0.0))
    await bus.bus.open()
    plan = [(0.0137 * number, signal) for number in range(40) for signal in ("pd1", "pd2")]
    began_s = clock.monotonic()
    samples = await analog_inputs(bus, wiring).sample(plan)
    assert clock.monotonic() - began_s == pytest.approx(0.0137 * 39, abs=0.002)
    for (offset_s, _), sample in zip(plan, samples, strict=True):
        assert offset_s <= sample.t_s + 1e-9
        assert sample.t_s < offset_s + 0.001


@pytest.mark.hardware
async def test_the_chips_of_a_real_hat_answer_as_their_twins_do(tmp_path: Path) -> None:
    """On a HAT of its own or with a vial of any model; the LEDs stay off."""
    hat = detect_hat()
    if hat is None:
        pytest.skip("no Pioreactor HAT")
    wiring, bus = load_wiring(tmp_path, hat, None), LinuxI2c()
    await bus.open()
    try:
        leds = led_driver(bus, wiring)
        assert await leds.present()
        await leds.all_off()
        assert await leds.set_level("A", 0) == 0
        signals = analog_inputs(bus, wiring)
        plan = [(0.02 * number, "pd1") for number in range(20)]
        for sample, (offset_s, _) in zip(await signals.sample(plan), plan, strict=True):
            assert sample.t_s >= offset_s
            assert -0.01 < sample.volts < signals.full_scale_volts("pd1")
        sensor = thermometer(bus, wiring)
        if await sensor.present():
            assert 0 < await sensor.read_celsius() < 70
    finally:
        await bus.close()
