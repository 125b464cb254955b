"""What every implementation of the ports keeps, whatever is behind it.

The same tests run on the simulated board, on the Raspberry Pi's PWM with a tree
of files in the place of the kernel, and, with ``-m hardware`` on a Raspberry Pi
with a vial and a stir bar in place, on the real board: the bar turns then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_sysfs import FakeSysfs, state

from piod.clock import Clock, SimulatedClock, WallClock
from piod.errors import BusError
from piod.hw.linux import LineSpec, LinuxBoard, LinuxPwm
from piod.hw.ports import GpioPort, PwmPort
from piod.hw.simulator.board import SimulatedBoard
from piod.hw.simulator.plant import Plant

STIRRING, HEATING, HALL, BUTTON, LED = 17, 18, 21, 4, 23
BOTH = [STIRRING, HEATING]


@dataclass
class Pwm:
    """One implementation of the PWM port and the clock that it lives by."""

    clock: Clock
    port: PwmPort
    held: Callable[[int], float] | None
    """The duty in percent that the hardware holds; None: it cannot be seen."""

    def check(self, pin: int, duty_percent: float) -> None:
        if self.held is not None:
            assert self.held(pin) == pytest.approx(duty_percent, abs=1e-3)


@dataclass
class Board:
    """One implementation of both ports."""

    pwm: Pwm
    gpio: GpioPort

    @property
    def clock(self) -> Clock:
        return self.pwm.clock


def simulated_board() -> Board:
    clock = SimulatedClock(start_time=1_790_000_000.0)
    plant = Plant(seed=1, stirring_pin=STIRRING, volume_ml=15, capacity_ml=20)
    board = SimulatedBoard(
        clock,
        plant=plant,
        pwm_pins=BOTH,
        hall_line=HALL,
        button_line=BUTTON,
        led_line=LED,
    )
    return Board(Pwm(clock, board.pwm, lambda pin: plant.duties[pin]), board.gpio)


def real_board() -> Board:
    board = LinuxBoard(
        pwm_pins=BOTH,
        lines=[
            LineSpec(HALL, "in", bias="pull_up", edge="falling"),
            LineSpec(BUTTON, "in", bias="pull_down", edge="both"),
            LineSpec(LED, "out"),
        ],
        guard=None,
    )
    return Board(Pwm(WallClock(), board.pwm, None), board.gpio)


def simulated_pwm(directory: Path) -> Pwm:
    return simulated_board().pwm


def sysfs_pwm(directory: Path) -> Pwm:
    tree = FakeSysfs(directory)
    channels = {pin: tree.add_pwm_gpio(pin) for pin in BOTH}

    def held(pin: int) -> float:
        period, duty, enabled = state(channels[pin])
        return 100 * duty / period if enabled else 0.0

    return Pwm(WallClock(), LinuxPwm(BOTH, None, tree.root), held)


def real_pwm(directory: Path) -> Pwm:
    return real_board().pwm


def on_a_raspberry_pi() -> bool:
    try:
        return "Raspberry Pi" in Path("/proc/device-tree/model").read_text(errors="replace")
    except OSError:
        return False


HARDWARE = [
    pytest.mark.hardware,
    pytest.mark.skipif(not on_a_raspberry_pi(), reason="not a Raspberry Pi"),
]


@pytest.fixture(params=[simulated_pwm, sysfs_pwm, pytest.param(real_pwm, marks=HARDWARE)])
async def pwm(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pwm]:
    made: Pwm = request.param(tmp_path)
    await made.port.open()
    yield made
    await made.port.close()


@pytest.fixture(params=[simulated_board, pytest.param(real_board, marks=HARDWARE)])
async def board(request: pytest.FixtureRequest) -> AsyncIterator[Board]:
    made: Board = request.param()
    await made.pwm.port.open()
    await made.gpio.open()
    yield made
    await made.pwm.port.close()
    await made.gpio.close()


# -- PWM -----------------------------------------------------------------------------


async def test_every_pin_holds_what_it_was_given_when_set_duty_returns(pwm: Pwm) -> None:
    assert set(pwm.port.pins) == set(BOTH)
    for pin in BOTH:
        pwm.check(pin, 0)
        for percent in (100, 1, 33.33333, 0.5, 0.0):
            await pwm.port.set_duty(pin, percent, hz=200, off_after_s=5)
            pwm.check(pin, percent)


async def test_the_frequency_may_change_with_the_output_on(pwm: Pwm) -> None:
    for hz in (16, 200, 1, 250):
        await pwm.port.set_duty(HEATING, 10, hz=hz, off_after_s=5)
        pwm.check(HEATING, 10)


async def test_zero_is_reached_whatever_the_frequency(pwm: Pwm) -> None:
    await pwm.port.set_duty(STIRRING, 20, hz=200, off_after_s=5)
    await pwm.port.set_duty(STIRRING, 0, hz=0)
    pwm.check(STIRRING, 0)


async def test_opening_again_is_harmless_and_turns_off(pwm: Pwm) -> None:
    await pwm.port.set_duty(STIRRING, 20, hz=200, off_after_s=5)
    await pwm.port.open()
    pwm.check(STIRRING, 0)
    await pwm.port.set_duty(STIRRING, 20, hz=200, off_after_s=5)
    pwm.check(STIRRING, 20)


async def test_closing_turns_off_and_may_come_twice(pwm: Pwm) -> None:
    await pwm.port.set_duty(STIRRING, 20, hz=200)
    await pwm.port.set_duty(HEATING, 1, hz=16)
    await pwm.port.close()
    pwm.check(STIRRING, 0)
    pwm.check(HEATING, 0)
    await pwm.port.close()
    with pytest.raises(BusError):
        await pwm.port.set_duty(STIRRING, 10, hz=200)


async def test_a_pin_that_is_not_the_ports_is_a_mistake_of_the_caller(pwm: Pwm) -> None:
    with pytest.raises(ValueError, match="GPIO 2 "):
        await pwm.port.set_duty(2, 10, hz=200)
    pwm.port.cut(2)


@pytest.mark.parametrize("percent", [-0.1, 100.1, float("nan"), float("inf")])
async def test_a_duty_outside_the_range_is_refused(pwm: Pwm, percent: float) -> None:
    with pytest.raises(ValueError, match="100"):
        await pwm.port.set_duty(STIRRING, percent, hz=200)
    pwm.check(STIRRING, 0)


async def test_cut_turns_off_without_raising_and_set_duty_tells_that_it_worked(pwm: Pwm) -> None:
    await pwm.port.set_duty(STIRRING, 20, hz=200, off_after_s=5)
    pwm.port.cut(STIRRING)
    pwm.port.cut(STIRRING)
    await pwm.port.set_duty(STIRRING, 0, hz=200)
    pwm.check(STIRRING, 0)


async def test_an_off_time_turns_its_output_off_and_no_other(pwm: Pwm) -> None:
    await pwm.port.set_duty(STIRRING, 20, hz=200, off_after_s=0.1)
    await pwm.port.set_duty(HEATING, 1, hz=16, off_after_s=60)
    await pwm.clock.sleep(0.05)
    pwm.check(STIRRING, 20)
    await pwm.clock.sleep(0.15)
    pwm.check(STIRRING, 0)
    pwm.check(HEATING, 1)


async def test_a_later_duty_replaces_the_off_time_or_removes_it(pwm: Pwm) -> None:
    await pwm.port.set_duty(STIRRING, 20, hz=200, off_after_s=0.1)
    await pwm.port.set_duty(STIRRING, 21, hz=200, off_after_s=60)
    await pwm.port.set_duty(HEATING, 1, hz=16, off_after_s=0.1)
    await pwm.port.set_duty(HEATING, 2, hz=16)
    await pwm.clock.sleep(0.2)
    pwm.check(STIRRING, 21)
    pwm.check(HEATING, 2)


# -- GPIO ----------------------------------------------------------------------------


async def test_a_level_that_the_button_has_is_not_waited_for(board: Board) -> None:
    await board.gpio.await_level(BUTTON, False)
    with pytest.raises(ValueError, match="both edges"):
        await board.gpio.await_level(HALL, True)


async def test_who_waits_for_a_level_is_told_when_the_port_closes(board: Board) -> None:
    waiting = asyncio.ensure_future(board.gpio.await_level(BUTTON, True))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await board.gpio.close()
    with pytest.raises(BusError, match="closed"):
        await waiting


async def test_the_led_is_written_and_the_button_read(board: Board) -> None:
    await board.gpio.write(LED, True)
    await board.gpio.write(LED, False)
    assert await board.gpio.read(BUTTON) is False


async def test_a_line_that_is_not_the_ports_is_a_mistake_of_the_caller(board: Board) -> None:
    with pytest.raises(ValueError, match="GPIO 2 "):
        await board.gpio.read(2)
    with pytest.raises(ValueError, match="GPIO 2 "):
        await board.gpio.write(2, True)
    with pytest.raises(ValueError, match="GPIO 21 "):
        await board.gpio.write(HALL, True)
    with pytest.raises(ValueError, match="GPIO 2 "):
        await board.gpio.record_edges(2, 0.01)


async def test_lines_may_be_opened_again_and_closed_twice_and_refuse_then(board: Board) -> None:
    await board.gpio.open()
    await board.gpio.read(BUTTON)
    await board.gpio.close()
    await board.gpio.close()
    with pytest.raises(BusError):
        await board.gpio.read(BUTTON)
    with pytest.raises(BusError):
        await board.gpio.record_edges(HALL, 0.01)


async def test_a_window_without_edges_takes_its_time(board: Board) -> None:
    started = board.clock.monotonic()
    assert list(await board.gpio.record_edges(HALL, 0.3)) == []
    assert board.clock.monotonic() - started == pytest.approx(0.3, abs=0.1)


async def test_a_turning_bar_gives_one_edge_a_turn_in_order(board: Board) -> None:
    await board.pwm.port.set_duty(STIRRING, 100, hz=200, off_after_s=20)
    await board.clock.sleep(0.5)
    await board.pwm.port.set_duty(STIRRING, 30, hz=200, off_after_s=20)
    await board.clock.sleep(5)
    edges = list(await board.gpio.record_edges(HALL, 2))
    assert edges == sorted(edges)
    assert edges[-1] - edges[0] <= 2
    assert 60 * (len(edges) - 1) / (edges[-1] - edges[0]) == pytest.approx(500, rel=0.5)


async def test_an_off_time_stops_the_bar(board: Board) -> None:
    await board.pwm.port.set_duty(STIRRING, 50, hz=200, off_after_s=1)
    assert len(await board.gpio.record_edges(HALL, 1)) > 1
    await board.clock.sleep(5)
    assert list(await board.gpio.record_edges(HALL, 1)) == []


async def test_two_recorders_of_one_line_see_the_same(board: Board) -> None:
    await board.pwm.port.set_duty(STIRRING, 50, hz=200, off_after_s=20)
    await board.clock.sleep(3)
    one, other = await asyncio.gather(
        board.gpio.record_edges(HALL, 1), board.gpio.record_edges(HALL, 1)
    )
    assert abs(len(one) - len(other)) <= 1
    assert len(one) > 2


async def test_an_abandoned_recording_does_not_disturb_the_next(board: Board) -> None:
    recording = asyncio.ensure_future(board.gpio.record_edges(HALL, 60))
    await board.clock.sleep(0.1)
    recording.cancel()
    await asyncio.gather(recording, return_exceptions=True)
    assert list(await board.gpio.record_edges(HALL, 0.1)) == []


async def test_a_recording_does_not_outlive_its_port(board: Board) -> None:
    recording = asyncio.ensure_future(board.gpio.record_edges(HALL, 0.3))
    await board.clock.sleep(0.1)
    await board.gpio.close()
    with pytest.raises(BusError):
        await recording
