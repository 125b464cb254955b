from __future__ import annotations

import asyncio
import os
import time

import pytest

from piod.clock import SimulatedClock, timestamp


async def test_a_long_sleep_takes_no_wall_time_and_lands_exactly(clock: SimulatedClock) -> None:
    started = time.monotonic()
    await clock.sleep(86_400)
    assert clock.monotonic() == 86_400
    assert clock.time() == 1_790_000_000 + 86_400
    assert time.monotonic() - started < 5


async def test_timers_fire_in_order_of_their_due_time_and_none_is_skipped(
    clock: SimulatedClock,
) -> None:
    fired: list[tuple[float, str]] = []

    async def every(period: float, name: str) -> None:
        for _ in range(3):
            await clock.sleep(period)
            fired.append((clock.monotonic(), name))

    await asyncio.gather(every(2.0, "slow"), every(0.75, "fast"))
    assert fired == [
        (0.75, "fast"),
        (1.5, "fast"),
        (2.0, "slow"),
        (2.25, "fast"),
        (4.0, "slow"),
        (6.0, "slow"),
    ]


async def test_time_stands_still_while_a_thread_owes_an_answer(clock: SimulatedClock) -> None:
    sleeper = asyncio.ensure_future(clock.sleep(1))
    with clock.hold():
        await asyncio.to_thread(time.sleep, 0.05)
        assert clock.monotonic() == 0.0
    await sleeper
    assert clock.monotonic() == 1.0


async def test_time_stands_still_while_anything_is_runnable(clock: SimulatedClock) -> None:
    sleeper = asyncio.ensure_future(clock.sleep(1))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert clock.monotonic() == 0.0
    await sleeper


async def test_a_cancelled_timer_neither_fires_nor_moves_time(clock: SimulatedClock) -> None:
    fired: list[float] = []
    clock.call_at(5, lambda: fired.append(5)).cancel()
    await clock.sleep(1)
    assert clock.monotonic() == 1
    await clock.sleep(10)
    assert fired == []


async def test_a_scale_limits_the_pace() -> None:
    clock = SimulatedClock(scale=100)
    started = time.monotonic()
    await clock.sleep(5)
    passed = time.monotonic() - started
    assert passed >= 0.049
    assert 5 <= clock.monotonic() < 5 + passed * 100


async def test_time_goes_on_between_timers_at_a_limited_pace() -> None:
    clock = SimulatedClock(scale=100)
    await asyncio.sleep(0.05)
    assert clock.monotonic() >= 4.9


async def test_advance_lifts_the_limit_for_as_long_as_it_says() -> None:
    clock = SimulatedClock(scale=1)
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(60)
            ticks.append(clock.monotonic())

    ticking = asyncio.ensure_future(tick())
    started = time.monotonic()
    await clock.advance(3600)
    assert time.monotonic() - started < 10
    assert len(ticks) in (59, 60)
    await asyncio.sleep(0.02)
    assert clock.monotonic() < 3601
    ticking.cancel()


async def test_a_machine_that_cannot_keep_up_falls_behind_without_skipping() -> None:
    clock = SimulatedClock(scale=1000)
    seen: list[float] = []
    for _ in range(5):
        await clock.sleep(1)
        seen.append(clock.monotonic())
        time.sleep(0.005)  # noqa: ASYNC251 # the machine is busy: five simulated seconds of its pace
    assert seen == pytest.approx([1, 2, 3, 4, 5], abs=4)
    assert clock.factor < 1000


async def test_a_busy_loop_does_not_starve_due_timers_for_ever() -> None:
    clock = SimulatedClock(scale=1)
    loop = asyncio.get_running_loop()
    sleeper = asyncio.ensure_future(clock.sleep(0.01))
    read, write = os.pipe()
    loop.add_reader(read, lambda: None)  # readable for ever: the loop never comes to rest
    os.write(write, b"x")
    try:
        await asyncio.wait_for(sleeper, 5)
    finally:
        loop.remove_reader(read)
        for descriptor in (read, write):
            os.close(descriptor)


def test_the_clock_needs_the_stepping_loop() -> None:
    async def make() -> None:
        SimulatedClock()

    loop = asyncio.SelectorEventLoop()
    with pytest.raises(RuntimeError):
        loop.run_until_complete(make())
    loop.close()


def test_timestamps_are_utc_with_milliseconds_and_z() -> None:
    assert timestamp(1_769_863_500.1234) == "2026-01-31T12:45:00.123Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"


async def test_tasks_that_never_wait_do_not_starve_due_timers_for_ever() -> None:
    clock = SimulatedClock(scale=1)

    async def spin() -> None:
        while True:  # noqa: ASYNC110 # there is nothing to wait for: that is the point
            await asyncio.sleep(0)

    spinning = asyncio.ensure_future(spin())
    try:
        await asyncio.wait_for(clock.sleep(0.01), 5)
    finally:
        spinning.cancel()
