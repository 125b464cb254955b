"""What the simulated unit leaves on disk, and how the plant runs on without a daemon."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.errors import BusError
from piod.hw import off
from piod.hw.simulator import plant_file as plant_file_module
from piod.hw.simulator.board import SimulatedBoard
from piod.hw.simulator.plant import Plant
from piod.hw.simulator.plant_file import PlantFile
from piod.hw.simulator.run_on import Resumed, replace_text, run_on, saved_text
from piod.hw.simulator.silicon import SiliconFile

STIRRING, MEDIA, HALL, BUTTON, LED = 17, 13, 21, 4, 23
SAVED = 1_790_000_000.0
"""The wall time at which the daemon of these tests died."""

ALL_OFF = {"pwm": {"17": 0.0, "13": 0.0}, "led": {"A": 0.0, "B": 0.0, "C": 0.0, "D": 0.0}}


class GuardTold:
    def __init__(self) -> None:
        self.is_on: set[str] = set()

    def on(self, output: str, deadline_monotonic_s: float | None) -> None:
        self.is_on.add(output)

    def off(self, output: str) -> None:
        self.is_on.discard(output)


def a_plant(seed: int = 7) -> Plant:
    return Plant(seed=seed, stirring_pin=STIRRING, volume_ml=15, capacity_ml=20)


def turning_plant(now_s: float = 0.0) -> Plant:
    plant = a_plant()
    plant.call_now(now_s - 10)
    plant.set_pwm(STIRRING, 30, now_s - 10)
    plant.advance_to(now_s)
    return plant


def a_board(
    clock: SimulatedClock,
    directory: Path,
    *,
    interval_s: float = 0.0,
    guard: GuardTold | None = None,
    plant: Plant | None = None,
) -> SimulatedBoard:
    plant = plant or a_plant()
    return SimulatedBoard(
        clock,
        plant=plant,
        pwm_pins=[STIRRING, MEDIA],
        hall_line=HALL,
        button_line=BUTTON,
        led_line=LED,
        silicon=SiliconFile(directory, interval_s),
        plant_file=PlantFile(directory, plant, clock, interval_s),
        guard=guard,
    )


def outputs(directory: Path) -> dict[str, dict[str, float]]:
    content = json.loads((directory / "outputs.json").read_text())
    assert isinstance(content, dict)
    return content


def kept(directory: Path) -> dict[str, object]:
    content = json.loads((directory / "plant.json").read_text())
    assert isinstance(content, dict)
    return content


def write_outputs(directory: Path, pwm: dict[str, float], since: float) -> None:
    path = directory / "outputs.json"
    path.write_text(json.dumps({"pwm": pwm, "led": {"A": 0.0}}))
    os.utime(path, (since, since))


def ran_on(directory: Path, now: float) -> Resumed:
    resumed = run_on(directory, now)
    assert resumed is not None
    return resumed


# -- outputs.json --------------------------------------------------------------------


async def test_the_file_shows_every_wired_output_from_the_power_on(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    write_outputs(tmp_path, {"17": 40.0, "99": 3.0}, time.time())
    a_board(clock, tmp_path).close()
    assert outputs(tmp_path) == ALL_OFF


async def test_the_file_shows_each_change_when_set_duty_returns(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    board = a_board(clock, tmp_path / "made" / "when missing")
    await board.pwm.open()
    await board.pwm.set_duty(STIRRING, 42.5, hz=200, off_after_s=3)
    assert outputs(tmp_path / "made" / "when missing")["pwm"] == {"17": 42.5, "13": 0.0}
    await clock.sleep(4)
    assert outputs(tmp_path / "made" / "when missing") == ALL_OFF
    await board.pwm.set_duty(MEDIA, 100, hz=250)
    await board.pwm.close()
    assert outputs(tmp_path / "made" / "when missing") == ALL_OFF
    assert sorted(p.name for p in (tmp_path / "made" / "when missing").iterdir()) == [
        "outputs.json",
        "plant.json",
    ]


async def test_a_lazy_file_is_written_at_most_once_an_interval_and_at_once_on_demand(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    silicon = SiliconFile(tmp_path, 0.05)
    silicon.wire([STIRRING], "")
    path = tmp_path / "outputs.json"
    seen: set[int] = set()
    started = time.monotonic()
    for percent in range(1, 300):
        silicon.hold("pwm", "17", percent % 100)
        seen.add(path.stat().st_ino)
        await asyncio.sleep(0.001)
    passed = time.monotonic() - started
    assert 2 <= len(seen) <= passed / 0.05 + 2
    await asyncio.sleep(0.1)
    assert outputs(tmp_path)["pwm"] == {"17": 99}  # the last change came through by itself
    silicon.hold("pwm", "17", 5)
    silicon.hold("pwm", "17", 6)
    silicon.flush()
    assert outputs(tmp_path)["pwm"] == {"17": 6}
    inode = path.stat().st_ino
    silicon.flush()
    assert path.stat().st_ino == inode
    silicon.close()


async def test_the_guard_watches_an_output_until_the_lazy_file_shows_it_off(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    guard = GuardTold()
    board = a_board(clock, tmp_path, interval_s=0.05, guard=guard)
    await board.pwm.open()
    await asyncio.sleep(0.06)
    await board.pwm.set_duty(STIRRING, 30, hz=200)
    await board.pwm.set_duty(MEDIA, 100, hz=250)
    await asyncio.sleep(0.06)
    await board.pwm.set_duty(MEDIA, 90, hz=250)  # written at once: the interval is over
    await board.pwm.set_duty(STIRRING, 0, hz=200)
    await board.pwm.set_duty(MEDIA, 0, hz=250)
    await board.pwm.set_duty(MEDIA, 50, hz=250)
    assert outputs(tmp_path)["pwm"]["17"] == 30
    assert guard.is_on == {"pwm:17", "pwm:13"}
    await asyncio.sleep(0.1)
    assert outputs(tmp_path)["pwm"] == {"17": 0, "13": 50}
    assert guard.is_on == {"pwm:13"}
    await board.pwm.close()
    assert guard.is_on == set()
    board.close()


async def test_an_output_that_cannot_be_written_has_not_changed_and_is_tried_off_again(
    clock: SimulatedClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guard = GuardTold()
    board = a_board(clock, tmp_path, guard=guard)
    await board.pwm.open()
    await board.pwm.set_duty(STIRRING, 30, hz=200)
    path = tmp_path / "outputs.json"
    path.rename(tmp_path / "aside")
    path.mkdir()  # nothing can be renamed over a directory
    with pytest.raises(BusError, match="cannot be written"):
        await board.pwm.set_duty(STIRRING, 40, hz=200)
    with pytest.raises(BusError):
        await board.pwm.set_duty(STIRRING, 0, hz=200)
    assert board.truth()["pwm"] == {"13": 0.0, "17": 30}
    assert guard.is_on == {"pwm:17"}
    path.rmdir()
    await clock.sleep(0.06)
    assert outputs(tmp_path) == ALL_OFF
    assert board.truth()["pwm"] == {"13": 0.0, "17": 0}
    assert guard.is_on == set()
    assert caplog.text.count("cannot write") == 1
    board.close()


async def test_the_recipe_of_the_guard_understands_the_file(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    board = a_board(clock, tmp_path)
    await board.pwm.open()
    await board.pwm.set_duty(STIRRING, 30, hz=200)
    await board.pwm.set_duty(MEDIA, 12.5, hz=250)
    off.turn_off(off.simulated_recipe(str(tmp_path / "outputs.json"), "pwm:17", ["pwm:17"]))
    assert outputs(tmp_path)["pwm"] == {"17": 0.0, "13": 12.5}
    board.close()


# -- plant.json ----------------------------------------------------------------------


async def test_the_plant_is_saved_with_each_change_of_an_output_and_each_patch(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    board = a_board(clock, tmp_path)
    await board.pwm.open()
    await clock.sleep(100)
    await board.pwm.set_duty(STIRRING, 30, hz=200)
    saved = kept(tmp_path)
    assert saved["simulated_unix_s"] == clock.time()
    assert saved["saved_unix_s"] == pytest.approx(time.time(), abs=5)
    assert saved["plant"]["pwm"] == {"13": 0.0, "17": 30}  # type: ignore[index]  # JSON
    board.patch({"volume_ml": 3})
    assert kept(tmp_path)["plant"]["vial"]["volume_ml"] == 3  # type: ignore[index]  # JSON
    board.close()


async def test_the_plant_is_saved_while_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimulatedClock(scale=1, start_time=SAVED)
    monkeypatch.setattr(plant_file_module, "SAVE_EVERY_S", 0.02)
    plant = turning_plant()
    before = turns(plant)
    keeper = PlantFile(tmp_path, plant, clock)
    saving = asyncio.ensure_future(keeper.keep_saving())
    await asyncio.sleep(0.05)
    early = kept(tmp_path)["simulated_unix_s"]
    await asyncio.sleep(0.05)
    # what is saved is the plant at that instant, though nobody else let it go on
    passed_s = kept(tmp_path)["simulated_unix_s"] - SAVED  # type: ignore[operator]  # JSON
    turned = kept(tmp_path)["plant"]["stirrer"]["turns"] - before  # type: ignore[index]  # JSON
    assert turned == pytest.approx(passed_s * plant.stirrer.rpm / 60, rel=1e-3)
    assert isinstance(early, float)
    assert SAVED < early < float(str(kept(tmp_path)["simulated_unix_s"]))
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    assert kept(tmp_path)["simulated_unix_s"] == pytest.approx(clock.time(), abs=0.02)


async def test_a_disk_that_refuses_does_not_stop_the_saving(
    clock: SimulatedClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "plant.json").mkdir()
    keeper = PlantFile(tmp_path, a_plant(), clock)
    saving = asyncio.ensure_future(keeper.keep_saving())
    await asyncio.sleep(0.01)
    (tmp_path / "plant.json").rmdir()
    await asyncio.sleep(0.2)
    assert "plant" in kept(tmp_path)
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    assert "can be written again" in caplog.text


def test_a_plant_taken_up_again_goes_on_as_if_nothing_had_been() -> None:
    whole, first = turning_plant(), turning_plant()
    taken_up = Plant.from_json(json.loads(json.dumps(first.to_json())), first.now_s)
    edges = []
    for plant in (whole, taken_up):
        plant.set_pwm(STIRRING, 20, 5)
        recording = plant.start_recording(6)
        plant.stop_recording(recording, 20)
        edges.append(recording)
        plant.set_pwm(STIRRING, 0, 21)
        plant.advance_to(3_000_000)
    assert edges[0] == edges[1]
    assert edges[0]
    assert whole.to_json() == taken_up.to_json()


# -- running on ----------------------------------------------------------------------


def turns(plant: Plant) -> float:
    return plant.stirrer.turns


def save(directory: Path, plant: Plant, simulated: float = SAVED) -> None:
    replace_text(directory / "plant.json", saved_text(plant, SAVED, simulated))


def test_an_output_that_the_guard_turned_off_counts_until_then(tmp_path: Path) -> None:
    plant = turning_plant(SAVED)
    save(tmp_path, plant)
    write_outputs(tmp_path, {"17": 0.0}, SAVED + 100)
    resumed = ran_on(tmp_path, SAVED + 1000).plant
    steady_rpm = plant.stirrer.steady_rpm(30, 15)
    coasting = 0.3 / 60 * steady_rpm
    assert turns(resumed) - turns(plant) == pytest.approx(
        100 * steady_rpm / 60 + coasting, abs=0.01
    )
    assert resumed.truth()["rpm"] == 0
    assert resumed.duties[STIRRING] == 0


def test_an_output_that_nobody_turned_off_counts_until_now(tmp_path: Path) -> None:
    plant = turning_plant(SAVED)
    save(tmp_path, plant)
    write_outputs(tmp_path, {"17": 30.0, "13": 100.0}, SAVED - 3)
    resumed = ran_on(tmp_path, SAVED + 1000).plant
    assert turns(resumed) - turns(plant) == pytest.approx(
        1000 * plant.stirrer.steady_rpm(30, 15) / 60, abs=0.01
    )
    assert dict(resumed.duties) == {17: 30.0, 13: 100.0}
    assert kept(tmp_path)["saved_unix_s"] == SAVED + 1000
    # What has been counted is not counted again.
    again = ran_on(tmp_path, SAVED + 1000).plant
    assert turns(again) == turns(resumed)


def test_a_change_just_before_the_end_that_only_the_outputs_saw_counts(tmp_path: Path) -> None:
    plant = a_plant()
    save(tmp_path, plant)
    write_outputs(tmp_path, {"17": 30.0}, SAVED + 0.5)
    resumed = ran_on(tmp_path, SAVED + 60.5).plant
    steady_rpm = plant.stirrer.steady_rpm(30, 15)
    assert turns(resumed) == pytest.approx((60 - 0.8) * steady_rpm / 60, rel=1e-6)


def test_a_file_from_the_future_counts_until_now(tmp_path: Path) -> None:
    plant = turning_plant(SAVED)
    save(tmp_path, plant)
    write_outputs(tmp_path, {"17": 0.0}, SAVED + 5000)
    resumed = ran_on(tmp_path, SAVED + 60).plant
    assert turns(resumed) - turns(plant) == pytest.approx(
        plant.stirrer.steady_rpm(30, 15), abs=0.01
    )
    assert resumed.duties[STIRRING] == 0


def test_outputs_that_are_missing_are_off(tmp_path: Path) -> None:
    save(tmp_path, turning_plant(SAVED))
    resumed = ran_on(tmp_path, SAVED + 10).plant
    assert resumed.truth()["rpm"] == 0
    assert resumed.duties[STIRRING] == 0


@pytest.mark.parametrize("now", [SAVED - 5000, SAVED])
def test_a_wall_clock_set_back_lets_no_time_pass(tmp_path: Path, now: float) -> None:
    plant = turning_plant(SAVED)
    save(tmp_path, plant)
    write_outputs(tmp_path, {"17": 30.0}, SAVED - 1)
    resumed = ran_on(tmp_path, now)
    assert turns(resumed.plant) == turns(plant)
    assert resumed.start_time == SAVED


@pytest.mark.parametrize(
    ("simulated", "now", "start"),
    [
        (SAVED, SAVED + 60, SAVED + 60),
        (SAVED + 86_400, SAVED + 60, SAVED + 86_460),  # it ran at a higher scale
        (SAVED - 86_400, SAVED + 60, SAVED + 60),  # it ran at a lower one
        (SAVED + 86_400, SAVED - 60, SAVED + 86_400),  # and the wall clock was set back
    ],
)
def test_simulated_time_never_goes_back_over_a_restart(
    tmp_path: Path, simulated: float, now: float, start: float
) -> None:
    save(tmp_path, a_plant(), simulated)
    write_outputs(tmp_path, {}, SAVED)
    assert ran_on(tmp_path, now).start_time == start
    assert ran_on(tmp_path, now).start_time == start


def test_years_of_running_on_take_no_time(tmp_path: Path) -> None:
    save(tmp_path, turning_plant(SAVED))
    write_outputs(tmp_path, {"17": 30.0}, SAVED - 1)
    started = time.process_time()
    resumed = ran_on(tmp_path, SAVED + 10 * 365 * 86_400)
    assert time.process_time() - started < 0.1
    assert resumed.plant.stirrer.mode == "lost"  # in ten years any bar slips


def test_without_a_plant_there_is_nothing_to_run_on(tmp_path: Path) -> None:
    write_outputs(tmp_path, {"17": 30.0}, SAVED)
    assert run_on(tmp_path, SAVED) is None
    assert run_on(tmp_path / "missing", SAVED) is None


def broken_plants() -> list[str]:
    """Each member of the file wrong or missing in turn, and files that are no JSON at all."""
    whole = json.loads(saved_text(turning_plant(SAVED), SAVED, SAVED))
    texts = ["", "{", "[]", "null", "[" * 100_000, "\x00", '{"plant": 1e999}']

    def spoil(part: dict[str, object]) -> None:
        for name, value in list(part.items()):
            wrongs: list[object] = [
                "x",
                math.nan,
                -1e300,
                [],
                1 if isinstance(value, bool) else True,
            ]
            for wrong in wrongs:
                part[name] = wrong
                texts.append(json.dumps(whole))
            del part[name]
            texts.append(json.dumps(whole))
            part[name] = value
            if isinstance(value, dict):
                spoil(value)

    spoil(whole)
    return texts


def test_a_plant_file_that_is_not_understood_is_set_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accepted = []
    texts = broken_plants()
    for text in texts:
        caplog.clear()
        (tmp_path / "plant.json").write_text(text)
        if run_on(tmp_path, SAVED + 60) is not None:
            accepted.append(text)
            continue
        assert not (tmp_path / "plant.json").exists()
        assert (tmp_path / "plant.json.corrupt").read_text() == text
        assert "plant.json is not understood" in caplog.text
        assert caplog.records[0].levelno == logging.WARNING
    # Only a duty that is no output of this plant may be missing without harm.
    assert len(texts) > 80
    assert len(accepted) == 1
    assert '"pwm": {}' in accepted[0]


@pytest.mark.parametrize("text", ["", "{}", '{"pwm": {"17": "x"}, "led": {}}', '{"pwm": {"x": 1}}'])
def test_outputs_that_are_not_understood_are_set_aside_and_off(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, turning_plant(SAVED))
    (tmp_path / "outputs.json").write_text(text)
    assert ran_on(tmp_path, SAVED + 10).plant.truth()["rpm"] == 0
    assert (tmp_path / "outputs.json.corrupt").read_text() == text
    assert "outputs.json is not understood" in caplog.text


async def test_a_board_on_a_plant_that_ran_on_starts_with_everything_off(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    save(tmp_path, turning_plant(SAVED))
    write_outputs(tmp_path, {"17": 30.0, "13": 100.0, "5": 7.0}, SAVED)
    plant = ran_on(tmp_path, SAVED + 10).plant
    assert plant.stirrer.rpm > 470
    board = a_board(clock, tmp_path, plant=plant)
    assert outputs(tmp_path) == ALL_OFF
    assert set(plant.duties.values()) == {0.0}
    await clock.sleep(5)
    truth = board.truth()
    assert float(str(truth["rpm"])) < 0.1
    board.close()


def test_a_motor_that_was_rewired_is_driven_by_its_new_output() -> None:
    plant = turning_plant()
    plant.wire(MEDIA)
    plant.advance_to(10)
    assert plant.stirrer.rpm < 0.1
    plant.set_pwm(STIRRING, 100, 10)
    plant.set_pwm(MEDIA, 30, 10)
    plant.advance_to(20)
    assert plant.stirrer.rpm == pytest.approx(plant.stirrer.steady_rpm(30, 15), rel=1e-3)


def test_running_on_imports_next_to_nothing() -> None:
    heavy = ["asyncio", "logging", "dataclasses", "inspect", "piod.clock"]
    program = (
        "import sys, piod.hw.simulator.run_on\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
