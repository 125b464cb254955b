"""PWM on a Raspberry Pi, against a tree of files with a kernel's rules."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import statistics
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_sysfs import FakeSysfs, is_off, read, state, wait_until

from piod.errors import BusError, DeviceMissing
from piod.hw.header import kernel_pwm
from piod.hw.linux import LineSpec, LinuxPwm


class RecordingGuard:
    """What the guard is told, and what the stirrer's pin was doing at that moment."""

    def __init__(self, channel: Path | None = None) -> None:
        self.channel = channel
        self.told: list[tuple[str, str, str]] = []
        self.deadlines: list[float | None] = []
        self.recipes: dict[str, str] = {}

    def register(self, output: str, recipe: str) -> None:
        self.recipes[output] = recipe

    def on(self, output: str, deadline_monotonic_s: float | None = None) -> None:
        self.deadlines.append(deadline_monotonic_s)
        self._note("on", output)

    def off(self, output: str) -> None:
        self._note("off", output)

    def _note(self, verb: str, output: str) -> None:
        duty = "" if self.channel is None else read(self.channel / "duty_cycle")
        self.told.append((verb, output, duty))


class FakeLine:
    """An output line that remembers its levels."""

    fd = -1

    def __init__(self) -> None:
        self.levels: list[tuple[float, bool]] = []
        self.closed = False

    def write(self, value: bool) -> None:
        assert not self.closed
        self.levels.append((time.monotonic(), value))

    def read(self) -> bool:
        raise NotImplementedError

    def read_event(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def sysfs(tmp_path: Path) -> FakeSysfs:
    return FakeSysfs(tmp_path)


@pytest.fixture
def no_lgpio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lgpio", None)


# -- which channel a pin is ---------------------------------------------------------


def test_channels_are_found_by_the_device_behind_the_chip_not_by_its_number(
    sysfs: FakeSysfs,
) -> None:
    sysfs.add_chip("1f0009c000.pwm", 4)  # of the fan of a Pi 5
    stirrer = sysfs.add_pwm_gpio(17)
    header = sysfs.add_chip("1f00098000.pwm", 4)
    heater = sysfs.add_pwm_gpio(18)
    assert kernel_pwm([17, 13, 16, 12, 18], str(sysfs.root)) == {
        17: (str(stirrer.parent), 0),
        13: (str(header), 1),
        12: (str(header), 0),
        18: (str(heater.parent), 0),
    }


@pytest.mark.parametrize(
    ("device", "pins", "channels"),
    [
        ("fe20c000.pwm", [12, 13, 18, 19], {12: 0, 13: 1}),
        ("3f20c000.pwm", [18, 13], {18: 0, 13: 1}),
        ("1f00098000.pwm", [18, 19], {18: 2, 19: 3}),
        ("fe20c800.pwm", [12, 13, 18, 19], {}),  # of the audio jack
    ],
)
def test_one_hardware_channel_never_stands_for_two_outputs(
    sysfs: FakeSysfs, device: str, pins: list[int], channels: dict[int, int]
) -> None:
    chip = str(sysfs.add_chip(device, 4))
    expected = {pin: (chip, channel) for pin, channel in channels.items()}
    assert kernel_pwm(pins, str(sysfs.root)) == expected


# -- driving --------------------------------------------------------------------------


async def test_opening_turns_off_what_a_dead_daemon_left_on(
    sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    soc = sysfs.add_chip("fe20c000.pwm", 2, exported=False)
    pump = sysfs.make_channel(soc, 0, period=4_000_000, duty=4_000_000)
    stirrer = sysfs.add_pwm_gpio(17)
    sysfs.obey_the_kernel(monkeypatch)
    pwm = LinuxPwm([17, 12, 13], None, sysfs.root)
    assert pwm.pins == (17, 12, 13)
    await pwm.open()
    assert is_off(pump)
    assert is_off(soc / "pwm1"), "exported by the port"
    assert state(stirrer) == (0, 0, 0), "a new channel refuses all writes, and is off"
    await pwm.close()


async def test_duty_and_frequency_follow_the_rules_of_the_kernel(
    sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stirrer = sysfs.add_pwm_gpio(17)
    writes = sysfs.obey_the_kernel(monkeypatch)
    pwm = LinuxPwm([17], None, sysfs.root)
    await pwm.open()
    await pwm.set_duty(17, 33.33333333, hz=200)
    assert state(stirrer) == (5_000_000, 1_666_666, 1)
    del writes[:]
    await pwm.set_duty(17, 100, hz=200)
    assert state(stirrer) == (5_000_000, 5_000_000, 1)
    assert writes == ["duty_cycle 5000000", "enable 1"], "no gap without need"
    await pwm.set_duty(17, 100, hz=1000)
    assert state(stirrer) == (1_000_000, 1_000_000, 1)
    await pwm.set_duty(17, 0.1, hz=16)
    assert state(stirrer) == (62_500_000, 62_500, 1)
    await pwm.set_duty(17, 0, hz=16)
    assert state(stirrer) == (62_500_000, 0, 0)
    await pwm.close()


@pytest.mark.parametrize(
    ("pin", "duty", "hz", "off_after_s"),
    [
        (17, math.nan, 200, None),
        (17, 100.1, 200, None),
        (17, -1, 200, None),
        (17, 50, 0, None),
        (17, 50, math.nan, None),
        (17, 50, math.inf, None),
        (17, 50, 200, -1),
        (17, 50, 200, math.nan),
        (17, 50, 200, math.inf),
        (4, 50, 200, None),
    ],
)
async def test_garbage_is_never_written(
    sysfs: FakeSysfs, pin: int, duty: float, hz: float, off_after_s: float | None
) -> None:
    stirrer = sysfs.add_pwm_gpio(17)
    guard = RecordingGuard()
    pwm = LinuxPwm([17], guard, sysfs.root)
    await pwm.open()
    with pytest.raises(ValueError, match=r"must be|not a PWM output"):
        await pwm.set_duty(pin, duty, hz=hz, off_after_s=off_after_s)
    assert is_off(stirrer)
    assert guard.told == []
    await pwm.close()


async def test_closing_turns_everything_off_and_it_opens_again(sysfs: FakeSysfs) -> None:
    stirrer = sysfs.add_pwm_gpio(17)
    pwm = LinuxPwm([17], None, sysfs.root)
    await pwm.open()
    await pwm.set_duty(17, 50, hz=200)
    await pwm.close()
    assert is_off(stirrer)
    pwm.cut(17)
    with pytest.raises(BusError, match="closed"):
        await pwm.set_duty(17, 50, hz=200)
    await pwm.open()
    await pwm.set_duty(17, 50, hz=200)
    await pwm.open()
    assert is_off(stirrer), "a second open starts from 0 as well"
    await pwm.close()
    assert [t.name for t in threading.enumerate() if t.name.startswith("piod")] == []


# -- off-times --------------------------------------------------------------------------


async def test_off_time_is_kept_while_the_event_loop_is_blocked(sysfs: FakeSysfs) -> None:
    stirrer = sysfs.add_pwm_gpio(17)
    pwm = LinuxPwm([17], None, sysfs.root)
    await pwm.open()
    await pwm.set_duty(17, 50, hz=200, off_after_s=1)
    took: list[float] = []
    watcher = threading.Thread(
        target=lambda: took.append(wait_until(lambda: is_off(stirrer), timeout_s=3))
    )
    watcher.start()
    time.sleep(3)  # noqa: ASYNC251  # the point of the test
    watcher.join()
    assert 0.9 < took[0] <= 1.25
    await pwm.close()


async def test_a_new_duty_replaces_the_off_time_and_none_removes_it(sysfs: FakeSysfs) -> None:
    stirrer, pump = sysfs.add_pwm_gpio(17), sysfs.add_pwm_gpio(16)
    pwm = LinuxPwm([17, 16], None, sysfs.root)
    await pwm.open()
    await pwm.set_duty(17, 50, hz=200, off_after_s=0.05)
    await pwm.set_duty(17, 40, hz=200, off_after_s=1e9)
    await pwm.set_duty(17, 40, hz=200)
    await pwm.set_duty(16, 50, hz=200, off_after_s=1e9)
    await pwm.set_duty(16, 40, hz=200, off_after_s=0.1)
    await asyncio.to_thread(wait_until, lambda: is_off(pump), 1)
    assert state(stirrer) == (5_000_000, 2_000_000, 1)
    await pwm.close()


async def test_off_that_the_hardware_refuses_is_tried_until_it_works_and_the_guard_knows(
    sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stirrer = sysfs.add_pwm_gpio(17)
    sysfs.obey_the_kernel(monkeypatch)
    guard = RecordingGuard()
    pwm = LinuxPwm([17], guard, sysfs.root)
    await pwm.open()
    await pwm.set_duty(17, 50, hz=200, off_after_s=0.05)

    def refuse(path: str, text: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    sysfs.refuse = refuse
    with pytest.raises(BusError, match="GPIO 17 could not be turned off: Input/output error"):
        await pwm.set_duty(17, 0, hz=200)
    with pytest.raises(BusError, match="GPIO 17 could not be driven"):
        await pwm.set_duty(17, 20, hz=200)
    await asyncio.sleep(0.1)
    assert not is_off(stirrer)
    assert guard.deadlines[-1] is not None, "one that has come, so that the guard tries too"
    assert guard.deadlines[-1] < time.monotonic()
    sysfs.refuse = lambda path, text: None
    await asyncio.to_thread(wait_until, lambda: guard.told[-1][0] == "off", 1)
    assert is_off(stirrer)
    await pwm.close()


async def test_guard_hears_of_an_output_before_it_is_on_and_after_it_is_off(
    sysfs: FakeSysfs,
) -> None:
    stirrer = sysfs.add_pwm_gpio(17)
    guard = RecordingGuard(stirrer)
    pwm = LinuxPwm([17], guard, sysfs.root)
    await pwm.open()
    assert guard.recipes == {"pwm:17": f"pwm {stirrer}"}
    before = time.monotonic()
    await pwm.set_duty(17, 50, hz=200, off_after_s=60)
    await pwm.set_duty(17, 40, hz=200)
    await pwm.set_duty(17, 0, hz=200)
    assert guard.told == [
        ("on", "pwm:17", "0"),
        ("on", "pwm:17", "2500000"),
        ("off", "pwm:17", "0"),
    ]
    first, second = guard.deadlines
    assert first == pytest.approx(before + 60, abs=0.5)
    assert second is None
    await pwm.close()


# -- cut ------------------------------------------------------------------------------------


async def test_cut_overtakes_the_queue_and_what_was_queued_stays_off(
    sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stirrer, pump = sysfs.add_pwm_gpio(17), sysfs.add_pwm_gpio(16)
    writes = sysfs.obey_the_kernel(monkeypatch)
    pwm = LinuxPwm([17, 16], None, sysfs.root)
    await pwm.open()
    await pwm.set_duty(17, 50, hz=200)
    stuck, go_on = threading.Event(), threading.Event()

    def wait(path: str, text: str) -> None:
        stuck.set()
        go_on.wait(2)

    sysfs.refuse = wait
    slow = asyncio.ensure_future(pwm.set_duty(16, 60, hz=200))
    await asyncio.to_thread(stuck.wait)
    queued = asyncio.ensure_future(pwm.set_duty(17, 99, hz=200))
    later = asyncio.ensure_future(pwm.set_duty(16, 70, hz=200))
    await asyncio.sleep(0)
    cutter = threading.Thread(target=pwm.cut, args=(17,))
    cutter.start()
    cutter.join()
    sysfs.refuse = lambda path, text: None
    go_on.set()
    with pytest.raises(BusError, match="GPIO 17 was cut"):
        await queued
    await asyncio.gather(slow, later)
    assert is_off(stirrer)
    assert "duty_cycle 4950000" not in writes
    assert writes.index("enable 0") < writes.index("duty_cycle 3500000")
    await pwm.set_duty(17, 30, hz=200)
    assert state(stirrer) == (5_000_000, 1_500_000, 1), "a later duty counts again"
    assert state(pump) == (5_000_000, 3_500_000, 1)
    await pwm.close()


# -- what is not there ------------------------------------------------------------------------


async def test_missing_pin_is_named_with_its_remedy_and_the_others_are_off(
    sysfs: FakeSysfs, tmp_path: Path
) -> None:
    soc = sysfs.add_chip("fe20c000.pwm", 2, exported=False)
    pump = sysfs.make_channel(soc, 0, period=4_000_000, duty=4_000_000)
    sysfs.make_channel(soc, 1)
    pwm = LinuxPwm([12, 13, 17], None, sysfs.root)
    with pytest.raises(DeviceMissing) as caught:
        await pwm.open()
    assert "GPIO 17" in caught.value.message
    assert "dtoverlay=pwm-gpio,gpio=17" in caught.value.remediation
    assert is_off(pump)
    sysfs.add_pwm_gpio(17)
    await pwm.open()
    await pwm.close()


async def test_waiting_for_udev_ends_when_the_files_are_there(
    sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    stirrer = sysfs.add_pwm_gpio(17, exported=False)
    sysfs.obey_the_kernel(monkeypatch)

    def no_permission(path: str, text: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    sysfs.refuse = no_permission
    pwm = LinuxPwm([17], None, sysfs.root, export_timeout_s=0.2)
    with pytest.raises(DeviceMissing, match="GPIO 17 cannot be written to"):
        await pwm.open()
    pwm = LinuxPwm([17], None, sysfs.root, export_timeout_s=2)
    opening = asyncio.ensure_future(pwm.open())
    await asyncio.sleep(0.1)
    assert not opening.done()
    sysfs.refuse = lambda path, text: None
    await opening
    assert is_off(stirrer)
    await pwm.close()


async def test_a_cancelled_open_leaves_no_thread(
    sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysfs.add_pwm_gpio(17, exported=False)
    sysfs.obey_the_kernel(monkeypatch)
    sysfs.refuse = lambda path, text: (_ for _ in ()).throw(PermissionError())
    opening = asyncio.ensure_future(LinuxPwm([17], None, sysfs.root).open())
    await asyncio.sleep(0.1)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert [t.name for t in threading.enumerate() if t.name.startswith("piod")] == []


# -- PWM made in the process --------------------------------------------------------------------


@pytest.mark.usefixtures("no_lgpio")
async def test_without_kernel_pwm_a_thread_makes_the_pulses_and_says_what_would_be_better(
    sysfs: FakeSysfs, caplog: pytest.LogCaptureFixture
) -> None:
    line = FakeLine()
    claimed: list[tuple[str, LineSpec]] = []

    def open_line(chip: str, spec: LineSpec) -> FakeLine:
        claimed.append((chip, spec))
        return line

    guard = RecordingGuard()
    pwm = LinuxPwm([18], guard, sysfs.root, chip="/dev/gpiochip4", open_line=open_line)
    with caplog.at_level(logging.WARNING):
        await pwm.open()
    assert "dtoverlay=pwm-gpio,gpio=18" in caplog.text
    assert claimed == [("/dev/gpiochip4", LineSpec(18, "out"))]
    assert guard.recipes == {"pwm:18": "line 18 /dev/gpiochip4"}
    del line.levels[:]
    await pwm.set_duty(18, 25, hz=50)
    await asyncio.sleep(0.2)
    await pwm.set_duty(18, 0, hz=50)
    count = len(line.levels)
    edges = line.levels[: (count - 1) // 2 * 2]  # whole pulses; the last level is that of off
    passed_s = line.levels[-1][0] - edges[0][0]
    highs = [low - high for (high, _), (low, _) in zip(edges[::2], edges[1::2], strict=True)]
    assert [level for _, level in edges[:4]] == [True, False, True, False]
    assert line.levels[-1][1] is False
    assert 3 <= len(highs) <= 50 * passed_s + 2
    assert 0.0045 < statistics.median(highs) < 0.01, "a quarter of 20 ms"
    await asyncio.sleep(0.05)
    assert len(line.levels) == count, "no pulse after off"
    await pwm.set_duty(18, 100, hz=50)
    await asyncio.sleep(0.05)
    assert {level for _, level in line.levels[count:]} == {True}
    await pwm.close()
    assert line.levels[-1][1] is False
    assert line.closed


async def test_lgpio_makes_the_pulses_where_it_is_installed(
    sysfs: FakeSysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Error(Exception):
        pass

    calls: list[tuple[Any, ...]] = []

    def call(name: str) -> Any:
        def record(*arguments: float) -> int:
            calls.append((name, *arguments))
            if name == "tx_pwm" and arguments[3] == 13:
                raise Error("TX queue full")
            return 7 if name == "gpiochip_open" else 0

        return record

    names = ["gpiochip_open", "gpiochip_close", "gpio_claim_output", "gpio_write", "tx_pwm"]
    fake = SimpleNamespace(error=Error, **{name: call(name) for name in names})
    monkeypatch.setitem(sys.modules, "lgpio", fake)
    pwm = LinuxPwm([17], None, sysfs.root, chip="/dev/gpiochip0")
    await pwm.open()
    assert calls == [("gpiochip_open", 0), ("gpio_claim_output", 7, 17, 0)]
    for duty in (30, 100, 0):
        del calls[:]
        await pwm.set_duty(17, duty, hz=200)
        if duty == 30:
            assert calls == [("tx_pwm", 7, 17, 200, 30)]
        else:
            assert calls == [("tx_pwm", 7, 17, 0, 0), ("gpio_write", 7, 17, duty // 100)]
    with pytest.raises(BusError, match="TX queue full"):
        await pwm.set_duty(17, 13, hz=200)
    assert calls[-1] == ("gpio_write", 7, 17, 0), "what could not be driven is off"
    await pwm.close()
    assert calls[-2:] == [("gpio_write", 7, 17, 0), ("gpiochip_close", 7)]


async def test_line_that_somebody_else_holds_is_named(sysfs: FakeSysfs, no_lgpio: None) -> None:
    def busy(chip: str, spec: LineSpec) -> FakeLine:
        raise OSError(errno.EBUSY, "Device or resource busy")

    pwm = LinuxPwm([18], None, sysfs.root, chip="/dev/gpiochip0", open_line=busy)
    with pytest.raises(BusError, match="GPIO 18 could not be claimed: Device or resource busy"):
        await pwm.open()
