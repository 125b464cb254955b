"""LEDs are turned off without the daemon, by the bytes that their chips understand."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from piod.hw import off, safe
from piod.hw.drivers.dac43608 import Dac43608
from piod.hw.guard import spawn_guard
from piod.hw.off import led_recipe, turn_off
from piod.hw.safe import FAILED, led_recipes, turn_all_off
from piod.hw.simulator.chips.dac43608 import SimulatedDac43608
from piod.hw.simulator.chips.rp2040 import SimulatedRp2040
from piod.hw.wiring import led_chip_to_turn_off


class I2cDevice:
    """What ``/dev/i2c-1`` was told, and what it answers."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        path.touch()
        self.written: list[tuple[int, bytes]] = []
        self.errors: list[int] = []
        self.lasts_s = 0.0
        self._addresses: dict[int, int] = {}
        self._write = os.write
        monkeypatch.setattr(off.fcntl, "ioctl", self._ioctl)
        monkeypatch.setattr(off.os, "write", self._written)

    def _ioctl(self, fd: int, number: int, address: int) -> int:
        assert number == 0x0706
        assert os.readlink(f"/proc/self/fd/{fd}") == str(self.path)
        self._addresses[fd] = address
        return 0

    def _written(self, fd: int, data: bytes) -> int:
        if fd not in self._addresses:
            return self._write(fd, data)
        time.sleep(self.lasts_s)
        if self.errors:
            raise OSError(self.errors.pop(0), "no")
        self.written.append((self._addresses[fd], data))
        return len(data)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> I2cDevice:
    return I2cDevice(tmp_path / "i2c-1", monkeypatch)


def test_leds_of_the_rp2040_are_set_to_zero_one_by_one(device: I2cDevice) -> None:
    shown: dict[str, float] = {}
    chip = SimulatedRp2040({}, lambda led, percent, now_s: shown.update({led: percent}))
    for led in range(4):
        chip.write(bytes([led, 200]), 0)
    for channel in "ABCD":
        turn_off(led_recipe("RP2040", 0x2C, channel, str(device.path)))
    assert [address for address, _ in device.written] == 4 * [0x2C]
    for _, data in device.written:
        chip.write(data, 0)
    assert shown == dict.fromkeys("ABCD", 0.0)


def test_leds_of_the_dac43608_are_powered_down(device: I2cDevice) -> None:
    shown: dict[str, float] = {}
    chip = SimulatedDac43608(lambda led, percent, now_s: shown.update({led: percent}))
    for led in range(4):
        chip.write(bytes([8 + led, 0x0F, 0x00]), 0)
    chip.write(bytes([1, 0, 0]), 0)
    assert min(shown.values()) > 0
    turn_off(led_recipe("DAC43608", 0x49, "A", str(device.path)))
    assert device.written == [(0x49, b"\x01\x01\xff")]
    chip.write(device.written[0][1], 0)
    assert shown == dict.fromkeys("ABCD", 0.0)
    assert Dac43608.channels == "ABCD"


def test_a_nack_in_passing_is_tried_again(device: I2cDevice) -> None:
    device.errors = [errno.EREMOTEIO, errno.ENXIO]
    turn_off(led_recipe("RP2040", 0x2C, "B", str(device.path)))
    assert device.written == [(0x2C, b"\x01\x00")]


def test_where_no_chip_or_bus_is_nothing_is_on(device: I2cDevice, tmp_path: Path) -> None:
    device.errors = 10 * [errno.EREMOTEIO]
    turn_off(led_recipe("RP2040", 0x2C, "B", str(device.path)))
    turn_off(led_recipe("RP2040", 0x2C, "B", str(tmp_path / "no bus")))
    opened = len(os.listdir("/proc/self/fd"))
    turn_off(led_recipe("RP2040", 0x2C, "B", str(device.path)))
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_bus_that_fails_is_told(device: I2cDevice) -> None:
    device.errors = [errno.ETIMEDOUT]
    with pytest.raises(OSError, match="no"):
        turn_off(led_recipe("RP2040", 0x2C, "B", str(device.path)))


def test_a_stuck_i2c_bus_keeps_no_pump_on_and_takes_a_second_at_most(
    device: I2cDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe, "PATIENCE_S", 0.1)
    order: list[str] = []
    real = off.turn_off

    def noting(recipe: str) -> None:
        order.append(recipe.split()[0])
        real(recipe)

    monkeypatch.setattr(off, "turn_off", noting)
    device.lasts_s, device.errors = 0.11, 100 * [errno.ETIMEDOUT]
    leds = {
        output: recipe.replace("/dev/i2c-1", str(device.path))
        for output, recipe in led_recipes("RP2040", 0x2C).items()
    }
    began = time.monotonic()
    lines = turn_all_off({**leds, "pwm:17": off.pwm_recipe("/no/such/channel")})
    assert time.monotonic() - began < 0.5
    assert order[0] == "pwm"
    assert lines[0] == "pwm:17: off"
    assert len([line for line in lines if line.startswith(FAILED)]) == 4


def test_the_guard_turns_leds_off_after_all_else(tmp_path: Path) -> None:
    """By a real process. The bus is no bus, so what it does about it is in its reports."""
    pwm = tmp_path / "pwm0"
    pwm.mkdir()
    for name in ("duty_cycle", "enable"):
        (pwm / name).write_text("1")
    bus = tmp_path / "i2c-1"
    bus.touch()
    link = spawn_guard(late_after_s=0.1)
    try:
        link.register("led:A", led_recipe("RP2040", 0x2C, "A", str(bus)))
        link.register("pwm:17", off.pwm_recipe(str(pwm)))
        link.on("led:A")
        link.on("pwm:17")
        link.beat()
        reports: list[str] = []
        until = time.monotonic() + 5
        while len(reports) < 2:
            assert time.monotonic() < until
            reports += link.read_reports()
            time.sleep(0.01)
    finally:
        link.dismiss()
        link.close()
    assert reports[0] == "fired heartbeat", "what is quick comes before this report"
    assert reports[1].startswith("failed led:A OSError")
    assert (pwm / "duty_cycle").read_text() == "0"


@pytest.mark.parametrize(
    ("hat", "expected"), [("1.0", ("DAC43608", 0x49)), ("1.2", ("RP2040", 0x2C))]
)
@pytest.mark.parametrize("text", [None, "{ broken", "address: 999\n"])
def test_no_file_that_is_broken_hides_the_leds_chip(
    tmp_path: Path, hat: str, expected: tuple[str, int], text: str | None
) -> None:
    if text is not None:
        folder = tmp_path / "hats" / hat
        folder.mkdir(parents=True)
        (folder / "dac.yaml").write_text(text)
    assert led_chip_to_turn_off(tmp_path, hat, None) == expected
