"""The virtual reactor, seen through its ports: stirrer, hall sensor, faults, off-times."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import statistics
import threading
import time
from collections.abc import Sequence

import pytest

from piod.clock import SimulatedClock
from piod.errors import BadRequest, BusError, DeviceMissing, NotFound
from piod.hw.simulator.board import SimulatedBoard
from piod.hw.simulator.plant import Plant

STIRRING, HEATING, HALL, BUTTON, LED = 17, 18, 21, 4, 23


class GuardTold:
    """A guard that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, float | None]] = []

    def on(self, output: str, deadline_monotonic_s: float | None) -> None:
        self.told.append(("on", output, deadline_monotonic_s))

    def off(self, output: str) -> None:
        self.told.append(("off", output, None))


async def opened(
    clock: SimulatedClock,
    *,
    seed: int = 7,
    volume_ml: float = 15.0,
    guard: GuardTold | None = None,
) -> SimulatedBoard:
    board = SimulatedBoard(
        clock,
        plant=Plant(seed=seed, stirring_pin=STIRRING, volume_ml=volume_ml, capacity_ml=40.0),
        pwm_pins=[STIRRING, HEATING],
        hall_line=HALL,
        button_line=BUTTON,
        led_line=LED,
        guard=guard,
    )
    await board.pwm.open()
    await board.gpio.open()
    return board


@pytest.fixture
async def board(clock: SimulatedClock) -> SimulatedBoard:
    return await opened(clock)


async def stir(
    board: SimulatedBoard, duty_percent: float, off_after_s: float | None = None
) -> None:
    await board.pwm.set_duty(STIRRING, duty_percent, hz=200, off_after_s=off_after_s)


async def kick_to(board: SimulatedBoard, clock: SimulatedClock, duty_percent: float) -> None:
    await stir(board, 100)
    await clock.sleep(0.5)
    await stir(board, duty_percent)
    await clock.sleep(10)


def rpm_of(edges: Sequence[float]) -> float:
    return 60 * (len(edges) - 1) / (edges[-1] - edges[0]) if len(edges) > 1 else 0.0


def stirrer(board: SimulatedBoard) -> dict[str, object]:
    part = board.truth()["stirrer"]
    assert isinstance(part, dict)
    return part


def rpm(board: SimulatedBoard) -> float:
    value = board.truth()["rpm"]
    assert isinstance(value, float)
    return value


def duty(board: SimulatedBoard, pin: int = STIRRING) -> float:
    outputs = board.truth()["pwm"]
    assert isinstance(outputs, dict)
    return float(outputs[str(pin)])


def rpm_per_percent(board: SimulatedBoard) -> float:
    value = stirrer(board)["rpm_per_percent"]
    assert isinstance(value, float)
    return value


# -- the stirrer ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
async def test_thirty_percent_gives_about_500_rpm_within_the_spread_of_units(
    clock: SimulatedClock, seed: int
) -> None:
    board = await opened(clock, seed=seed)
    await kick_to(board, clock, 30)
    measured = rpm_of(await board.gpio.record_edges(HALL, 60))
    assert measured == pytest.approx(rpm_per_percent(board) * 25, rel=0.003)
    assert 475 <= measured <= 525


async def test_a_motor_takes_its_time_constant_to_speed_up(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 30)
    await clock.sleep(0.8)
    assert rpm(board) == pytest.approx(rpm_per_percent(board) * 25 * (1 - math.exp(-1)), rel=1e-5)


async def test_a_fuller_vial_turns_one_percent_slower_for_each_ml(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    before = rpm(board)
    board.patch({"volume_ml": 18})
    await clock.sleep(10)
    assert rpm(board) == pytest.approx(before * 0.97, rel=1e-3)
    board.patch({"volume_ml": 5})
    await clock.sleep(10)
    assert rpm(board) == pytest.approx(before, rel=1e-3)


async def test_a_bar_at_rest_needs_18_percent_and_then_turns_at_10(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 17)
    await clock.sleep(10)
    assert rpm(board) == 0
    assert stirrer(board)["stalled"] is True
    await stir(board, 18)
    await clock.sleep(5)
    assert rpm(board) > 200
    await stir(board, 10)
    await clock.sleep(10)
    assert rpm(board) == pytest.approx(rpm_per_percent(board) * 5, rel=1e-3)
    await stir(board, 7.9)
    await clock.sleep(5)
    assert rpm(board) < 0.1


async def test_a_bar_that_gets_slower_than_60_rpm_stalls_until_a_kick(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 12)
    board.patch({"stirrer": {"rpm_per_percent": 15}})
    await stir(board, 8.5)
    await clock.sleep(10)
    assert stirrer(board)["stalled"] is True
    assert len(await board.gpio.record_edges(HALL, 5)) == 0
    await stir(board, 12)
    await clock.sleep(10)
    assert rpm(board) < 0.1
    await kick_to(board, clock, 12)
    assert rpm(board) == pytest.approx(15 * 7, rel=1e-3)


async def test_a_kick_from_rest_does_not_shake_the_bar_off(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    for _ in range(5):
        await stir(board, 0)
        await clock.sleep(0.75)
        await kick_to(board, clock, 30)
        assert stirrer(board)["bar_lost"] is False
        assert rpm(board) > 470


async def test_a_leap_of_a_turning_motor_loses_the_bar_until_the_motor_has_stood(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 20)
    await stir(board, 59)  # 780 RPM more, at most 819 with the spread
    await stir(board, 20)
    await stir(board, 70)
    await clock.sleep(5)
    assert stirrer(board)["bar_lost"] is True
    assert rpm(board) < 0.1
    await stir(board, 0)
    await clock.sleep(0.3)
    await kick_to(board, clock, 30)
    assert rpm(board) < 0.1
    await stir(board, 0)
    await clock.sleep(0.75)
    await kick_to(board, clock, 30)
    assert stirrer(board)["bar_lost"] is False
    assert rpm(board) > 470


async def test_a_rise_that_a_turning_bar_can_follow_keeps_it(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 20)
    await stir(board, 55)
    await clock.sleep(10)
    assert stirrer(board)["bar_lost"] is False
    assert rpm(board) == pytest.approx(rpm_per_percent(board) * 50, rel=1e-3)


def test_bars_slip_by_chance_once_in_ten_thousand_minutes_of_turning() -> None:
    half_life_s = 10_000 * 60 * math.log(2)
    lost = resting = 0
    for seed in range(200):
        plant = Plant(seed=seed, stirring_pin=STIRRING, volume_ml=15, capacity_ml=20)
        plant.patch({"vial": {"standard_od": 0}})  # nothing grows: that would take its time
        plant.advance_to(half_life_s)
        resting += plant.stirrer.mode == "lost"
        plant.set_pwm(STIRRING, 30, half_life_s)
        plant.advance_to(2 * half_life_s)
        lost += plant.stirrer.mode == "lost"
    assert resting == 0
    assert 80 <= lost <= 120


@pytest.mark.parametrize("seed", range(20))
def test_time_in_small_pieces_comes_to_the_same_as_in_one(seed: int) -> None:
    drawn = random.Random(seed)
    whole, pieces = (
        Plant(seed=seed, stirring_pin=STIRRING, volume_ml=15, capacity_ml=40) for _ in range(2)
    )
    now = 0.0
    for _ in range(100):
        span = drawn.choice([0.0, 0.05, 0.5, 5, 500, 300_000])
        for cut in sorted(drawn.uniform(0, span) for _ in range(5)):
            pieces.advance_to(now + cut)
        now += span
        duty_percent = drawn.choice([0, 5, 8.1, 12, 18, 30, 45, 100])
        jammed = drawn.random() < 0.1
        volume_ml = drawn.uniform(0, 40)
        for plant in (whole, pieces):
            plant.set_pwm(STIRRING, duty_percent, now)
            plant.jam_stirrer(jammed, now)
            plant.patch({"volume_ml": volume_ml})
        assert whole.stirrer.mode == pieces.stirrer.mode
        assert whole.stirrer.rpm == pytest.approx(pieces.stirrer.rpm, abs=1e-3)
        assert whole.stirrer.turns == pytest.approx(pieces.stirrer.turns, abs=1e-3)


# -- the hall sensor -----------------------------------------------------------------


async def test_edges_end_within_two_seconds_of_zero_duty(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    await stir(board, 0)
    stopped = clock.monotonic()
    edges = await board.gpio.record_edges(HALL, 10)
    assert edges  # it coasts
    assert edges[-1] - stopped < 2
    assert len(await board.gpio.record_edges(HALL, 600)) == 0


async def test_a_window_sees_the_duty_change_inside_it(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 15)
    start = clock.monotonic()
    recording = asyncio.ensure_future(board.gpio.record_edges(HALL, 20))
    await clock.sleep(10)
    await stir(board, 45)
    edges = await recording
    slow = [edge for edge in edges if edge < start + 10]
    fast = [edge for edge in edges if edge > start + 15]
    assert rpm_of(slow) == pytest.approx(rpm_per_percent(board) * 10, rel=0.02)
    assert rpm_of(fast) == pytest.approx(rpm_per_percent(board) * 40, rel=0.01)
    assert start <= edges[0] <= edges[-1] <= start + 20
    assert list(edges) == sorted(edges)


async def test_windows_that_touch_share_no_edge_and_miss_none(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    long = asyncio.ensure_future(board.gpio.record_edges(HALL, 4))
    pieces: list[float] = []
    for _ in range(40):
        pieces += await board.gpio.record_edges(HALL, 0.1)
    assert pieces == pytest.approx(list(await long))


async def test_the_same_seed_and_inputs_give_the_same_edges_and_another_seed_others(
    clock: SimulatedClock,
) -> None:
    async def edges_of(seed: int) -> Sequence[float]:
        board = await opened(clock, seed=seed)
        await kick_to(board, clock, 30)
        return await board.gpio.record_edges(HALL, 5)

    one, same, other = await asyncio.gather(edges_of(3), edges_of(3), edges_of(4))
    assert one == same
    assert one != other


async def test_looking_at_the_truth_changes_nothing(clock: SimulatedClock) -> None:
    async def edges_of(board: SimulatedBoard) -> Sequence[float]:
        await kick_to(board, clock, 30)
        return await board.gpio.record_edges(HALL, 5)

    async def look(board: SimulatedBoard) -> None:
        for _ in range(1500):
            await clock.sleep(0.01)
            board.truth()
            await board.gpio.read(HALL)

    watched, unwatched = await opened(clock), await opened(clock)
    one, other, _ = await asyncio.gather(edges_of(watched), edges_of(unwatched), look(watched))
    assert one == pytest.approx(other, abs=1e-6)


async def test_edges_jitter_by_one_percent_and_the_speed_wavers_by_two_rpm(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    edges = await board.gpio.record_edges(HALL, 600)
    periods = [after - before for before, after in itertools.pairwise(edges)]
    # two independent edges make a period
    assert statistics.stdev(periods) / statistics.mean(periods) == pytest.approx(
        0.01 * math.sqrt(2), rel=0.15
    )
    start = math.ceil(edges[0])
    by_minute = [
        rpm_of([edge for edge in edges if start + s <= edge < start + s + 10])
        for s in range(0, 580, 10)
    ]
    assert 0.3 < statistics.stdev(by_minute) < 1.5  # sigma 2 over ten cells of 1 s, and jitter


async def test_the_hall_line_is_low_while_the_magnet_passes(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    levels = []
    for _ in range(2000):
        levels.append(await board.gpio.read(HALL))
        await clock.sleep(0.0017)
    assert levels.count(False) / len(levels) == pytest.approx(0.1, abs=0.02)


async def test_a_bar_at_rest_gives_an_empty_window_that_takes_its_time(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    before = clock.monotonic()
    assert list(await board.gpio.record_edges(HALL, 5)) == []
    assert clock.monotonic() == before + 5


async def test_a_cancelled_recording_leaves_nothing_behind(clock: SimulatedClock) -> None:
    plant = Plant(seed=1, stirring_pin=STIRRING, volume_ml=15, capacity_ml=20)
    board = SimulatedBoard(
        clock, plant=plant, pwm_pins=[STIRRING], hall_line=HALL, button_line=BUTTON, led_line=LED
    )
    await board.gpio.open()
    recording = asyncio.ensure_future(board.gpio.record_edges(HALL, 5))
    await clock.sleep(1)
    recording.cancel()
    await asyncio.gather(recording, return_exceptions=True)
    assert plant.records == 0


# -- off-times -----------------------------------------------------------------------


async def test_an_off_time_turns_the_output_off_at_its_simulated_instant(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 30, off_after_s=2)
    await clock.sleep(1.999)
    assert duty(board) == 30
    await clock.sleep(0.002)
    assert duty(board) == 0


async def test_a_later_duty_replaces_the_off_time_or_removes_it(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 30, off_after_s=2)
    await clock.sleep(1)
    await stir(board, 40, off_after_s=2)
    await clock.sleep(1.5)
    assert duty(board) == 40
    await stir(board, 50)
    await clock.sleep(100)
    assert duty(board) == 50


async def test_an_off_time_that_is_due_already_spares_the_duty_that_came_in_between(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    changed: list[bool] = []

    def change() -> None:
        # runs at the off-time's own instant, when its callback is queued already
        coroutine = stir(board, 50)
        with pytest.raises(StopIteration):
            coroutine.send(None)
        changed.append(True)

    clock.call_at(2, change)
    await stir(board, 30, off_after_s=2)
    await clock.sleep(10)
    assert changed
    assert duty(board) == 50


async def test_zero_percent_is_reached_whatever_the_frequency(board: SimulatedBoard) -> None:
    await stir(board, 30)
    await board.pwm.set_duty(STIRRING, 0, hz=0)
    assert duty(board) == 0


async def test_cut_works_from_another_thread_and_for_unknown_pins(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 30)

    def cut_both() -> None:
        board.pwm.cut(STIRRING)
        board.pwm.cut(999)

    cutter = threading.Thread(target=cut_both)
    with clock.hold():
        cutter.start()
        await asyncio.to_thread(cutter.join)
    await clock.sleep(0)
    assert duty(board) == 0
    await stir(board, 30)
    board.pwm.cut(STIRRING)
    assert duty(board) == 0


@pytest.mark.parametrize("bad", [-1, 100.1, math.nan, math.inf])
async def test_a_duty_that_is_none_never_reaches_an_output(
    board: SimulatedBoard, bad: float
) -> None:
    await stir(board, 30)
    with pytest.raises(ValueError, match="duty"):
        await stir(board, bad)
    with pytest.raises(ValueError, match="frequency"):
        await board.pwm.set_duty(STIRRING, 40, hz=-bad if bad > 0 else bad)
    with pytest.raises(ValueError, match="off_after_s"):
        await stir(board, 40, off_after_s=-abs(bad))
    assert duty(board) == 30


# -- the guard -----------------------------------------------------------------------


async def test_the_guard_hears_on_before_and_off_after_with_deadlines_at_scale_one() -> None:
    clock, guard = SimulatedClock(scale=1), GuardTold()
    board = await opened(clock, guard=guard)
    guard.told.clear()
    now = time.monotonic()
    await stir(board, 30, off_after_s=5)
    await stir(board, 40)
    await stir(board, 0)
    (on, timed, deadline), *rest = guard.told
    assert (on, timed) == ("on", "pwm:17")
    assert deadline == pytest.approx(now + 5, abs=0.5)
    assert rest == [("on", "pwm:17", None), ("off", "pwm:17", None)]


async def test_the_guard_gets_no_wall_deadline_when_simulated_time_has_another_pace(
    clock: SimulatedClock,
) -> None:
    guard = GuardTold()
    board = await opened(clock, guard=guard)
    guard.told.clear()
    await stir(board, 30, off_after_s=5)
    await clock.sleep(6)
    assert guard.told == [("on", "pwm:17", None), ("off", "pwm:17", None)]


async def test_the_guard_keeps_watching_an_output_that_would_not_go_off(
    clock: SimulatedClock,
) -> None:
    guard = GuardTold()
    board = await opened(clock, guard=guard)
    await stir(board, 30, off_after_s=5)
    guard.told.clear()
    fault = board.faults.add("bus_error", bus="pwm")
    with pytest.raises(BusError):
        await stir(board, 0)
    await clock.sleep(10)
    assert guard.told == []
    board.faults.remove(fault.id)
    await clock.sleep(0.06)
    assert guard.told == [("off", "pwm:17", None)]
    fault = board.faults.add("bus_error", bus="pwm", count=1)
    with pytest.raises(BusError):
        await stir(board, 50)
    assert guard.told[1:] == [("on", "pwm:17", None), ("off", "pwm:17", None)]
    guard.told.clear()
    board.faults.add("bus_error", bus="pwm")
    with pytest.raises(BusError):  # it never was on, so there is nothing to watch
        await stir(board, 50)
    assert guard.told == [("on", "pwm:17", None), ("off", "pwm:17", None)]


# -- faults --------------------------------------------------------------------------


async def test_a_held_bar_does_not_turn_and_turns_again_when_let_go(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    fault = board.faults.add("stirrer_stall")
    await clock.sleep(3)
    assert stirrer(board)["stalled"] is True
    await kick_to(board, clock, 30)
    assert rpm_of(await board.gpio.record_edges(HALL, 5)) == 0
    board.faults.remove(fault.id)
    await kick_to(board, clock, 30)
    assert rpm(board) > 470


async def test_half_of_the_edges_lost_halves_the_count(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    all_edges = len(await board.gpio.record_edges(HALL, 120))
    fault = board.faults.add("lost_edges", fraction=0.5)
    assert len(await board.gpio.record_edges(HALL, 120)) == pytest.approx(all_edges / 2, rel=0.1)
    board.faults.remove(fault.id)
    assert len(await board.gpio.record_edges(HALL, 120)) == pytest.approx(all_edges, rel=0.02)


async def test_an_output_whose_bus_fails_is_turned_off_as_soon_as_the_bus_is_back(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 30, off_after_s=2)
    fault = board.faults.add("bus_error", bus="pwm", message="the kernel said EIO")
    with pytest.raises(BusError, match="EIO"):
        await stir(board, 40)
    await clock.sleep(5)
    assert duty(board) == 30  # it could not even be turned off
    board.faults.remove(fault.id)
    await clock.sleep(0.051)
    assert duty(board) == 0


async def test_after_a_change_that_failed_the_output_is_off(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 30)
    board.faults.add("bus_error", bus="pwm", count=1)
    with pytest.raises(BusError):
        await stir(board, 40, off_after_s=100)
    assert duty(board) == 0
    await clock.sleep(1000)
    assert duty(board) == 0


@pytest.mark.parametrize("how", ["set_duty", "cut"])
async def test_a_turning_off_that_failed_is_tried_again_unless_a_new_duty_comes(
    clock: SimulatedClock, board: SimulatedBoard, how: str
) -> None:
    async def turn_off() -> None:
        if how == "cut":
            board.pwm.cut(STIRRING)
            return
        with pytest.raises(BusError):
            await stir(board, 0)

    await stir(board, 30)
    board.faults.add("bus_error", bus="pwm", pin=STIRRING, count=3)
    await turn_off()
    assert duty(board) == 30
    await clock.sleep(0.2)
    assert duty(board) == 0
    await stir(board, 30)
    board.faults.add("bus_error", bus="pwm", pin=STIRRING, count=1)
    await turn_off()
    await stir(board, 20)
    await clock.sleep(10)
    assert duty(board) == 20


async def test_a_fault_of_one_pin_or_bus_spares_the_others(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    board.faults.add("bus_error", bus="pwm", pin=HEATING)
    board.faults.add("bus_error", bus="gpio", pin=HALL, count=2)
    await stir(board, 30)
    with pytest.raises(BusError):
        await board.pwm.set_duty(HEATING, 10, hz=16)
    assert await board.gpio.read(BUTTON) is False
    for _ in range(2):
        with pytest.raises(BusError):
            await board.gpio.read(HALL)
    await board.gpio.read(HALL)
    assert [fault.kind for fault in board.faults.list()] == ["bus_error"]


async def test_a_missing_device_is_told_apart_from_a_failing_one(board: SimulatedBoard) -> None:
    for bus in ("pwm", "gpio"):
        board.faults.add("device_missing", bus=bus)
    with pytest.raises(DeviceMissing):
        await stir(board, 10)
    with pytest.raises(DeviceMissing):
        await board.gpio.read(HALL)
    with pytest.raises(DeviceMissing):
        await board.pwm.open()
    with pytest.raises(DeviceMissing):
        await board.gpio.open()
    board.faults.clear()
    await board.pwm.open()
    await stir(board, 30)


async def test_closing_turns_every_output_off_even_if_one_would_not(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await stir(board, 30)
    await board.pwm.set_duty(HEATING, 10, hz=16)
    board.faults.add("bus_error", bus="pwm", pin=STIRRING, count=1)
    with pytest.raises(BusError):
        await board.pwm.close()
    assert duty(board, HEATING) == 0
    await clock.sleep(0.06)
    assert duty(board) == 0
    with pytest.raises(BusError, match="not open"):
        await stir(board, 30)
    await board.pwm.close()


async def test_the_button_is_read_and_its_release_is_a_falling_edge(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    recording = asyncio.ensure_future(board.gpio.record_edges(BUTTON, 3))
    await clock.sleep(1)
    fault = board.faults.add("button")
    assert await board.gpio.read(BUTTON) is True
    await clock.sleep(0.5)
    board.faults.remove(fault.id)
    assert await board.gpio.read(BUTTON) is False
    assert list(await recording) == [clock.monotonic() - 1.5]


async def test_the_pcb_led_shows_and_goes_dark_on_close(board: SimulatedBoard) -> None:
    await board.gpio.write(LED, True)
    assert board.truth()["pcb_led_on"] is True
    await board.gpio.close()
    assert board.truth()["pcb_led_on"] is False
    with pytest.raises(BusError, match="not open"):
        await board.gpio.write(LED, True)


@pytest.mark.parametrize(
    ("kind", "params", "names"),
    [
        ("meteor", {}, "kind must be one of: stirrer_stall, lost_edges"),
        ("stirrer_stall", {"fraction": 1}, "fraction is not known here"),
        ("stirrer_stall", {"self": 1, "kind": 2, "id": 3}, "is not known here"),
        ("lost_edges", {}, "fraction is missing"),
        ("lost_edges", {"fraction": True}, "fraction must be a number from 0 to 1"),
        ("lost_edges", {"fraction": math.nan}, "fraction must be a number"),
        ("lost_edges", {"fraction": 10**400}, "fraction must be a number"),
        ("bus_error", {"bus": "spi"}, "bus must be one of: pwm, gpio"),
        ("bus_error", {"bus": ["pwm"]}, "bus must be one of: pwm, gpio"),
        ("bus_error", {"bus": "pwm", "pin": 1.5}, "pin must be a whole number"),
        ("bus_error", {"bus": "pwm", "count": 0}, "count must be a whole number from 1"),
        ("bus_error", {"bus": "pwm", "message": ""}, "message must be text"),
        ("device_missing", {}, "bus is missing"),
    ],
)
async def test_a_fault_that_is_not_understood_is_refused_by_name(
    board: SimulatedBoard, kind: str, params: dict[str, object], names: str
) -> None:
    with pytest.raises(BadRequest, match=names):
        board.faults.add(kind, **params)
    assert board.faults.list() == ()


async def test_faults_are_listed_with_what_they_were_given(board: SimulatedBoard) -> None:
    stall = board.faults.add("stirrer_stall")
    failing = board.faults.add("bus_error", bus="pwm", count=3)
    assert [fault.to_json() for fault in board.faults.list()] == [
        {"kind": "stirrer_stall", "id": stall.id},
        {
            "kind": "bus_error",
            "id": failing.id,
            "bus": "pwm",
            "pin": None,
            "count": 3,
            "message": None,
        },
    ]
    with pytest.raises(NotFound, match="no fault with the id 'x'"):
        board.faults.remove("x")


# -- patching ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"volume_ml": 41}, "volume_ml must be a number from 0 to 40"),
        ({"volume_ml": -0.1}, "volume_ml must be"),
        ({"volume_ml": "12"}, "volume_ml must be"),
        ({"volume_ml": math.nan}, "volume_ml must be"),
        ({"volume": 12}, "volume is not known here; known are: volume_ml, efflux_ml"),
        ({"stirrer": 3}, "stirrer must be an object"),
        ({"stirrer": {"rpm": 3}}, "stirrer.rpm is not known here"),
        ({"stirrer": {"rpm_per_percent": 0}}, "stirrer.rpm_per_percent must be"),
        ({"stirrer": {"bar_lost": 1}}, "stirrer.bar_lost must be true or false"),
        ([], "must be an object"),
    ],
)
async def test_a_patch_that_is_wrong_anywhere_changes_nothing(
    board: SimulatedBoard, changes: object, names: str
) -> None:
    before = board.truth()
    if isinstance(changes, dict):
        changes = {"volume_ml": 3, "stirrer": {"bar_lost": True}} | changes
    with pytest.raises(BadRequest, match=names):
        board.patch(changes)
    assert board.truth() == before


async def test_a_patch_loses_the_bar_and_puts_it_back(
    clock: SimulatedClock, board: SimulatedBoard
) -> None:
    await kick_to(board, clock, 30)
    assert board.patch({"stirrer": {"bar_lost": True}})["stirrer"] == stirrer(board)
    await clock.sleep(5)
    assert rpm(board) < 0.1
    board.patch({"stirrer": {"bar_lost": False}})
    await clock.sleep(10)
    assert rpm(board) > 470
