"""A run of a pump: what it moves, and that nothing leaves it on."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.errors import BadRequest, BusError, ConfigurationError, Conflict, PiodError
from piod.jobs.calibrating import pump_run
from piod.jobs.calibrating.pump_run import PumpRun
from tests.jobs.calibrating.bench import Bench, bench_on

MEDIA_PIN = 13


def request(seconds: float = 4.0, **changed: object) -> PumpRun:
    told: dict[str, object] = {"device": "media_pump", "hz": 250.0, "duty_percent": 100.0}
    return PumpRun(seconds=seconds, **{**told, **changed})  # type: ignore[arg-type] # of cases


async def test_the_pump_moves_what_its_rate_makes_of_the_seconds(bench: Bench) -> None:
    pump = bench.whole.plant.pumps["media"]
    ran = await bench.measure(pump_run.run, request(10.0))
    assert ran.seconds == 10.0
    assert pump.pumped_ml == pytest.approx(10.0 * pump.ml_per_s, rel=0.02)
    assert len(bench.told) > 5


@pytest.mark.parametrize("device", ["media_pump", "alt_media_pump", "waste_pump"])
async def test_each_device_is_the_pump_of_its_role(bench: Bench, device: str) -> None:
    await bench.measure(pump_run.run, request(device=device))
    pumps = bench.whole.plant.pumps.items()
    turned = [role for role, pump in pumps if pump.to_json()["pumped_s"] == pytest.approx(4.0)]
    assert turned == [device.removesuffix("_pump")]


async def test_the_next_run_can_follow_at_once(bench: Bench) -> None:
    for _ in range(3):
        await bench.measure(pump_run.run, request(0.5))


async def test_the_off_time_goes_to_the_hardware_with_the_duty_cycle(bench: Bench) -> None:
    """So that a blocked loop cannot make it longer."""
    asked: list[tuple[int, float, float | None]] = []
    port = bench.whole.board.pwm
    real = port.set_duty

    async def spied(pin: int, duty: float, *, hz: float, off_after_s: float | None = None) -> None:
        asked.append((pin, duty, off_after_s))
        await real(pin, duty, hz=hz, off_after_s=off_after_s)

    port.set_duty = spied  # type: ignore[method-assign] # a spy
    await bench.measure(pump_run.run, request(3.0))
    assert [one for one in asked if one[1] > 0] == [(MEDIA_PIN, 100.0, 3.0)]


async def test_cancelling_at_any_moment_turns_it_off_at_once(bench: Bench) -> None:
    drawn = random.Random(7)
    on = [
        await bench.cancelled(pump_run.run, request(5.0), drawn.uniform(0, 4.99)) for _ in range(12)
    ]
    assert sum(on) >= 11


async def test_the_end_of_its_owner_turns_it_off_and_the_run_does_not_count(bench: Bench) -> None:
    running = asyncio.ensure_future(pump_run.run(bench.unit, request(5.0), bench.told.append))
    await bench.clock.sleep(2)
    assert bench.outputs_on() == {MEDIA_PIN: 100.0}
    await bench.whole.post("/unit_api/jobs/stop", {"job_name": "calibration_session"})
    assert bench.outputs_on() == {}
    with pytest.raises(BusError, match="no lease"):
        await running


async def test_a_pump_in_use_is_refused_with_its_owner(bench: Bench) -> None:
    taken = await bench.unit.lease_pwm("media", hz=100)
    with pytest.raises(Conflict, match=r"GPIO 13 is in use by calibration_session \(job"):
        await bench.measure(pump_run.run, request())
    await taken.set_duty(0)


async def test_a_pump_without_a_channel_is_refused(tmp_path: Path, clock: SimulatedClock) -> None:
    async with bench_on(tmp_path, clock, config_ini="[PWM]\n1=stirring\n") as bench:
        with pytest.raises(ConfigurationError, match="'media'"):
            await bench.measure(pump_run.run, request())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "heating"),
        ("device", "heating_pump"),
        ("device", "media"),
        ("seconds", 0.0),
        ("seconds", -1.0),
        ("seconds", 281.0),
        ("seconds", math.nan),
        ("hz", 0.0),
        ("hz", 10_001.0),
        ("duty_percent", 0.0),
        ("duty_percent", 101.0),
        ("duty_percent", math.inf),
    ],
)
async def test_what_is_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadRequest, match="pump" if field == "device" else field):
        pump_run.check(request(**{field: value}))  # type: ignore[arg-type] # of cases


async def test_a_bus_that_fails_is_a_refusal_and_leaves_it_off(bench: Bench) -> None:
    bench.whole.board.faults.add("bus_error", bus="pwm", pin=MEDIA_PIN, count=1)
    with pytest.raises(PiodError):
        await bench.measure(pump_run.run, request())
    await bench.measure(pump_run.run, request(0.5))
