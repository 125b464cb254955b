"""What is leased for a measurement ends with it, and with nothing else of its owner."""

from __future__ import annotations

import asyncio

import pytest

from piod.errors import BusError, Conflict
from piod.jobs.calibrating import unpublished
from tests.jobs.calibrating.bench import IR, Bench

MEDIA_PIN, WASTE_PIN = 13, 12


async def test_leases_end_off_with_the_context_and_those_of_the_owner_stay(bench: Bench) -> None:
    kept = await bench.unit.lease_pwm("media", hz=250)
    await kept.set_duty(40)
    async with bench.unit.errand(unpublished) as errand:
        waste = await errand.lease_pwm("waste", hz=250)
        leds = await errand.lease_leds(IR)
        await waste.set_duty(60)
        await leds.set_levels({IR: 50})
        assert bench.outputs_on() == {MEDIA_PIN: 40, WASTE_PIN: 60, IR: pytest.approx(50, abs=1)}
        with pytest.raises(Conflict, match="in use by calibration_session"):
            await bench.unit.lease_pwm("waste", hz=250)
    assert bench.outputs_on() == {MEDIA_PIN: 40}
    with pytest.raises(BusError, match="no lease"):
        await waste.set_duty(60)
    await (await bench.unit.lease_pwm("waste", hz=250)).set_duty(0)
    await kept.set_duty(0)


async def test_they_end_when_it_fails(bench: Bench) -> None:
    async def measure() -> None:
        async with bench.unit.errand(unpublished) as errand:
            await (await errand.lease_pwm("waste", hz=250)).set_duty(60)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await measure()
    assert bench.outputs_on() == {}


async def test_they_end_with_their_owner(bench: Bench) -> None:
    async with bench.unit.errand(unpublished) as errand:
        await (await errand.lease_pwm("waste", hz=250)).set_duty(60)
        await bench.whole.post("/unit_api/jobs/stop", {"job_name": "calibration_session"})
        assert bench.outputs_on() == {}
        with pytest.raises(BusError, match="no lease"):
            await (await errand.lease_pwm("media", hz=250)).set_duty(60)
    assert bench.outputs_on() == {}


async def test_one_that_was_cancelled_before_it_has_its_lease_leaves_none(bench: Bench) -> None:
    async def measure() -> None:
        async with bench.unit.errand(unpublished) as errand:
            await (await errand.lease_leds(IR)).set_levels({IR: 50})
            await (await errand.lease_pwm("waste", hz=250)).set_duty(60)
            await asyncio.Event().wait()

    for steps in range(40):
        measuring = asyncio.ensure_future(measure())
        for _ in range(steps):
            await asyncio.sleep(0)
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
        assert bench.outputs_on() == {}
    await bench.unit.lease_pwm("waste", hz=250)
    await bench.unit.lease_leds(IR)
