"""The plant behind the chips and faults of the board, and what configuration wires to it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.config import ConfigFiles
from piod.errors import BadRequest, BusError
from piod.hw.ports import Read, Write
from piod.hw.simulator.board import SimulatedBoard
from piod.hw.simulator.chips import chips_of
from piod.hw.simulator.plant import Plant
from piod.hw.simulator.run_on import replace_text, run_on, saved_text
from piod.hw.simulator.setup import simulated_unit
from piod.hw.simulator.silicon import SiliconFile
from piod.hw.simulator.surroundings import photodiode_angles
from piod.hw.wiring import load_wiring

HEATING, STIRRING = 18, 17
RP2040, SENSOR = 0x2C, 0x4F
LED_A = 0


class GuardTold:
    def __init__(self) -> None:
        self.is_on: set[str] = set()

    def on(self, output: str, deadline_monotonic_s: float | None) -> None:
        self.is_on.add(output)

    def off(self, output: str) -> None:
        self.is_on.discard(output)


async def a_board(
    clock: SimulatedClock,
    silicon: SiliconFile | None = None,
    guard: GuardTold | None = None,
    model: tuple[str, str] = ("pioreactor_20ml", "1.1"),
) -> SimulatedBoard:
    wiring = load_wiring(Path("no such directory"), "1.2", model)
    board = SimulatedBoard(
        clock,
        plant=Plant(
            seed=2,
            stirring_pin=STIRRING,
            heating_pin=HEATING,
            pump_pins={"media": 13, "alt_media": 16, "waste": 12},
            volume_ml=15,
            capacity_ml=20,
            efflux_ml=15,
        ),
        pwm_pins=tuple(wiring.pwm_pins.values()),
        hall_line=wiring.hall_pin,
        button_line=wiring.button_pin,
        led_line=wiring.led_pin,
        i2c_chips=chips_of(wiring),
        silicon=silicon,
        guard=guard,
    )
    await board.pwm.open()
    await board.i2c.open()
    return board


async def shine(board: SimulatedBoard, level: int) -> None:
    await board.i2c.transfer(RP2040, [Write(bytes([LED_A, level]))])


async def volts(board: SimulatedBoard, clock: SimulatedClock, channel: int) -> float:
    """An input of the RP2040, once its moving average has settled."""
    await clock.sleep(0.3)
    await board.i2c.transfer(RP2040, [Write(bytes([4 + channel])), Read(2)])
    await clock.sleep(0.3)
    (answer,) = await board.i2c.transfer(RP2040, [Write(bytes([4 + channel])), Read(2)])
    return int.from_bytes(answer, "little") / 32 / 4095 * 3.3


async def celsius(board: SimulatedBoard) -> float:
    (answer,) = await board.i2c.transfer(SENSOR, [Write(b"\x00"), Read(2)])
    return int.from_bytes(answer, "big", signed=True) / 256


async def test_the_light_that_a_chip_makes_reaches_the_photodiodes_of_the_configuration(
    clock: SimulatedClock,
) -> None:
    board = await a_board(clock)
    board.patch({"vial": {"standard_od": 1.0}})
    assert await volts(board, clock, 2) == pytest.approx(0.002, abs=0.002)
    await shine(board, 204)
    percent = 204 / 257
    assert await volts(board, clock, 2) == pytest.approx(percent * 0.16 + 0.002, rel=0.02)
    assert await volts(board, clock, 3) == pytest.approx(percent * 0.36 + 0.002, rel=0.04)
    assert await volts(board, clock, 1) == pytest.approx(12 * 0.134, rel=0.01)
    await shine(board, 0)
    assert await volts(board, clock, 3) == pytest.approx(0.002, abs=0.002)


async def test_an_ads1114_hears_no_hum(clock: SimulatedClock) -> None:
    """Its chip gets another input than one that does, as its name alone tells."""
    board = await a_board(clock, model=("pioreactor_20ml", "1.5"))
    await board.i2c.transfer(0x4A, [Write(bytes([0x01, 0x0A, 0x83]))])  # gain 16, continuous
    seen = []
    for _ in range(400):
        await clock.sleep(0.0103)
        (answer,) = await board.i2c.transfer(0x4A, [Write(b"\x00"), Read(2)])
        seen.append(int.from_bytes(answer, "big", signed=True) / 32767 * 0.256)
    mean = sum(seen) / len(seen)
    spread = (sum((each - mean) ** 2 for each in seen) / len(seen)) ** 0.5
    assert spread == pytest.approx(0.0003, rel=0.15)  # hum would add 0.00035


async def test_an_led_is_in_the_silicon_and_with_the_guard_while_it_shines(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    guard = GuardTold()
    silicon = SiliconFile(tmp_path)
    board = await a_board(clock, silicon, guard)

    def led() -> float:
        return float(json.loads((tmp_path / "outputs.json").read_text())["led"]["A"])

    await shine(board, 204)
    assert led() == pytest.approx(79.4, abs=0.1)
    assert board.truth()["led"] == {"A": led(), "B": 0.0, "C": 0.0, "D": 0.0}
    assert guard.is_on == {"led:A"}
    path = tmp_path / "outputs.json"
    path.rename(tmp_path / "aside")
    path.mkdir()  # nothing can be renamed over a directory
    with pytest.raises(BusError):
        await shine(board, 0)
    assert guard.is_on == {"led:A"}  # it is still on
    path.rmdir()
    await shine(board, 0)
    assert led() == 0
    assert guard.is_on == set()
    assert board.truth()["led"] == {"A": 0.0, "B": 0.0, "C": 0.0, "D": 0.0}
    path.rename(tmp_path / "aside")
    path.mkdir()
    with pytest.raises(BusError):
        await shine(board, 204)
    assert guard.is_on == {"led:A"}  # until the file shows what the LED holds
    path.rmdir()
    silicon.flush()
    assert guard.is_on == set()
    board.close()


async def test_a_lazy_silicon_keeps_the_guard_watching_until_it_is_written(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    guard = GuardTold()
    silicon = SiliconFile(tmp_path, 60)
    board = await a_board(clock, silicon, guard)
    await shine(board, 100)
    silicon.flush()
    await shine(board, 0)
    assert guard.is_on == {"led:A"}
    silicon.flush()
    assert guard.is_on == set()
    board.close()


async def test_a_new_board_finds_the_leds_dark(clock: SimulatedClock, tmp_path: Path) -> None:
    plant = Plant(seed=1, stirring_pin=None, volume_ml=15, capacity_ml=20)
    plant.set_led("A", 50, 0)
    SimulatedBoard(
        clock, plant=plant, pwm_pins=[STIRRING], hall_line=21, button_line=4, led_line=23
    )
    assert set(plant.optics.levels.values()) == {0.0}


# -- faults --------------------------------------------------------------------------


async def test_faults_of_sensor_and_heater_come_and_go(clock: SimulatedClock) -> None:
    board = await a_board(clock)
    await board.pwm.set_duty(HEATING, 20, hz=16)
    stuck = board.faults.add("temperature_stuck")
    shown = await celsius(board)
    await clock.sleep(300)
    board.faults.add("bubbles")  # another fault does not let it go
    assert await celsius(board) == shown
    board.faults.remove(stuck.id)
    warm = await celsius(board)
    assert warm > shown + 3
    board.faults.add("temperature_offset", celsius=-1)
    board.faults.add("temperature_offset", celsius=-9)
    assert await celsius(board) == pytest.approx(warm - 10, abs=0.3)
    board.faults.clear()
    board.faults.add("temperature_runaway")
    await clock.sleep(3)
    assert await celsius(board) == pytest.approx(warm + 0.5, abs=0.4)
    board.faults.clear()
    board.faults.add("temperature_stuck", celsius=-0.0625)
    assert await celsius(board) == -0.0625
    board.faults.clear()
    board.faults.add("heater_failure")
    await clock.sleep(3600)
    assert await celsius(board) < 28
    board.faults.clear()
    await board.pwm.set_duty(HEATING, 0, hz=16)
    board.faults.add("heater_stuck")
    await clock.sleep(60)
    assert await celsius(board) > 32
    assert board.truth()["heater_percent"] == 100


async def test_a_pump_that_fails_moves_nothing(clock: SimulatedClock) -> None:
    board = await a_board(clock)
    fault = board.faults.add("pump_failure", pump="media")
    await board.pwm.set_duty(13, 100, hz=250, off_after_s=10)
    await clock.sleep(11)
    assert board.truth()["volume_ml"] == 15
    board.faults.remove(fault.id)
    await board.pwm.set_duty(13, 100, hz=250, off_after_s=10)
    await clock.sleep(11)
    assert float(str(board.truth()["volume_ml"])) > 15.7


@pytest.mark.parametrize(
    ("kind", "params", "names"),
    [
        ("temperature_stuck", {"celsius": 1000}, "celsius must be a number from -128"),
        ("temperature_offset", {}, "celsius is missing"),
        ("temperature_runaway", {"celsius_per_minute": "x"}, "celsius_per_minute must be"),
        ("heater_stuck", {"duty_percent": 101}, "duty_percent must be"),
        ("heater_failure", {"duty_percent": 1}, "duty_percent is not known here"),
        ("pump_failure", {"pump": "coffee"}, "pump must be one of: media, alt_media, waste"),
        ("bubbles", {"probability": 2}, "probability must be a number from 0 to 1"),
    ],
)
async def test_a_fault_of_the_plant_that_is_not_understood_is_refused(
    clock: SimulatedClock, kind: str, params: dict[str, object], names: str
) -> None:
    board = await a_board(clock)
    with pytest.raises(BadRequest, match=names):
        board.faults.add(kind, **params)


# -- configuration -------------------------------------------------------------------


CONFIG = """
[bioreactor]
initial_volume_ml = 12.5
max_working_volume_ml = 13
[leds]
C = IR
[od_config.photodiode_channel]
1 = 135
2 = REF
"""


async def truth_of_unit(
    clock: SimulatedClock, directory: Path, config: str, roles: dict[str, str]
) -> dict[str, object]:
    (directory / "config.ini").write_text(config)
    async with simulated_unit(
        directory,
        clock,
        wiring=load_wiring(directory / "hardware", "1.2", ("pioreactor_20ml", "1.1")),
        roles=roles,
        capacity_ml=20,
        max_fill_ml=18,
        config=ConfigFiles(directory).current(),
        resumed=None,
        seed=3,
        guard=None,
    ) as (board, _):
        await board.pwm.open()
        await board.i2c.open()
        await board.i2c.transfer(RP2040, [Write(bytes([2, 204]))])  # channel C
        for pin, duty_percent in ((16, 100), (18, 10)):
            await board.pwm.set_duty(pin, duty_percent, hz=100)
        await clock.sleep(1)
        seen = {"pd1": await volts(board, clock, 2), "pd2": await volts(board, clock, 3)}
        truth = {**board.truth(), **seen}
        await board.pwm.close()
    return truth


async def test_volumes_light_and_pumps_are_where_the_configuration_says(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    roles = {"stirring": "1", "waste": "2", "media": "3"}
    truth = await truth_of_unit(clock, tmp_path, CONFIG, roles)
    assert truth["efflux_ml"] == 13
    assert truth["max_fill_ml"] == 18
    assert 12.5 < float(str(truth["volume_ml"])) < 12.8
    assert truth["heater_percent"] == 10
    pumps = truth["pumps"]
    assert isinstance(pumps, dict)
    assert pumps["media"]["pumped_ml"] > 0.1  # on channel 3, GPIO 16
    assert pumps["waste"]["pumped_ml"] == pumps["alt_media"]["pumped_ml"] == 0
    assert truth["pd2"] == pytest.approx(204 / 257 * 0.16, rel=0.05)
    assert truth["pd1"] == pytest.approx(204 / 257 * (0.015 + 0.7 * 0.0375), rel=0.1)


@pytest.mark.parametrize("config", ["", "[bioreactor]\ninitial_volume_ml = 200\n", "[[["])
async def test_without_a_configuration_that_can_be_used_all_is_as_usual(
    clock: SimulatedClock, tmp_path: Path, config: str
) -> None:
    truth = await truth_of_unit(clock, tmp_path, config, {"stirring": "1"})
    assert truth["volume_ml"] == 15
    assert truth["efflux_ml"] == 15
    assert truth["pd1"] == pytest.approx(0.002, abs=0.002)  # the IR LED is on channel A


def test_channels_without_a_photodiode_have_no_angle() -> None:
    channels = {"1": "REF", "2": "90", "3": "", "4": "42"}
    assert photodiode_angles(channels) == {"pd1": "REF", "pd2": "90"}


def test_an_led_and_a_pump_that_nobody_turned_off_count_until_now(tmp_path: Path) -> None:
    saved = 1_790_000_000.0
    plant = Plant(
        seed=1, stirring_pin=17, pump_pins={"media": 13}, volume_ml=5, capacity_ml=20, now_s=saved
    )
    replace_text(tmp_path / "plant.json", saved_text(plant, saved, saved))
    path = tmp_path / "outputs.json"
    path.write_text(json.dumps({"pwm": {"17": 30, "13": 100}, "led": {"A": 80, "B": 0}}))
    os.utime(path, (saved, saved))
    resumed = run_on(tmp_path, saved + 100)
    assert resumed is not None
    assert resumed.plant.optics.levels["A"] == 80
    assert float(str(resumed.plant.truth()["ir_output"])) < 0.999
    media = resumed.plant.pumps["media"]
    assert resumed.plant.vial.volume_ml == pytest.approx(5 + media.ml_per_s * 99.95, rel=0.011)
