"""A tree of files that looks like /sys/class/pwm on a Raspberry Pi, and a kernel's rules for it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from piod.hw import off


class FakeSysfs:
    """``root`` is what to give as the sysfs root; chips are added in the order of their numbers."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "class" / "pwm"
        self.root.mkdir(parents=True)
        self._devices = directory / "devices"
        self._chips = 0
        self.refuse: Callable[[str, str], None] = lambda path, text: None
        """Called before each write under the kernel's rules; may raise or wait."""

    def add_chip(
        self, device: str, channels: int, *, exported: bool = True, gpio: int | None = None
    ) -> Path:
        behind = self._devices / device
        (behind / "of_node").mkdir(parents=True)
        if gpio is not None:
            cells = b"".join(cell.to_bytes(4, "big") for cell in (7, gpio, 0))
            (behind / "of_node" / "gpios").write_bytes(cells)
        chip = self.root / f"pwmchip{self._chips}"
        self._chips += 1
        chip.mkdir()
        (chip / "device").symlink_to(behind)
        (chip / "npwm").write_text(f"{channels}\n")
        (chip / "export").write_text("")
        for channel in range(channels if exported else 0):
            self.make_channel(chip, channel)
        return chip

    def add_pwm_gpio(self, pin: int, *, exported: bool = True) -> Path:
        """The chip of ``dtoverlay=pwm-gpio,gpio=<pin>``; returns its channel's directory."""
        return self.add_chip(f"pwm_gpio@{pin:x}", 1, exported=exported, gpio=pin) / "pwm0"

    @staticmethod
    def make_channel(chip: Path, channel: int, *, period: int = 0, duty: int = 0) -> Path:
        directory = chip / f"pwm{channel}"
        directory.mkdir()
        (directory / "period").write_text(f"{period}\n")
        (directory / "duty_cycle").write_text(f"{duty}\n")
        (directory / "enable").write_text("1\n" if duty else "0\n")
        return directory

    def obey_the_kernel(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Refuse what the kernel refuses, export what is exported; returns the log of writes."""
        writes: list[str] = []

        def write(path: str, text: str) -> None:
            self.refuse(path, text)
            file = Path(path)
            if file.name == "export":
                if (file.parent / f"pwm{text}").exists():
                    raise OSError(errno.EBUSY, "Device or resource busy")
                self.make_channel(file.parent, int(text))
                return
            state = {name: _number(file.parent / name) for name in ("period", "duty_cycle")}
            state[file.name] = int(text)
            # pwm_apply_might_sleep() in the kernel's drivers/pwm/core.c
            if state["period"] == 0 or state["duty_cycle"] > state["period"]:
                raise OSError(errno.EINVAL, "Invalid argument")
            file.write_text(f"{text}\n")
            writes.append(f"{file.name} {text}")

        monkeypatch.setattr(off, "write_attribute", write)
        return writes


def read(path: Path) -> str:
    """What an attribute holds; never the moment between truncation and writing."""
    until = time.monotonic() + 1
    while not (text := path.read_text().strip()) and time.monotonic() < until:
        time.sleep(0.001)
    return text


def state(channel: Path) -> tuple[int, int, int]:
    """Period and duty in nanoseconds, and whether it is enabled."""
    return (
        _number(channel / "period"),
        _number(channel / "duty_cycle"),
        _number(channel / "enable"),
    )


def is_off(channel: Path) -> bool:
    return read(channel / "duty_cycle") == "0" and read(channel / "enable") == "0"


def wait_until(condition: Callable[[], bool], timeout_s: float) -> float:
    """Wait in real time; returns how long it took, fails after ``timeout_s``."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"not within {timeout_s} s"
        time.sleep(0.005)
    return time.monotonic() - start


def environment() -> dict[str, str]:
    """For a Python process that is to import piod and the tests' helpers."""
    here = Path(__file__).resolve()
    path = os.pathsep.join([str(here.parents[2]), str(here.parent)])
    return {**os.environ, "PYTHONPATH": path}


def _number(path: Path) -> int:
    return int(read(path))
