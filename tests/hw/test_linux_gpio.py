"""Digital lines on a Raspberry Pi, with pipes for the kernel's edge events."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from piod.errors import BusError, DeviceMissing
from piod.hw import header
from piod.hw.linux import LineSpec, LinuxGpio
from piod.hw.linux import gpio as module

HALL = LineSpec(21, "in", bias="pull_up", edge="falling")
BUTTON = LineSpec(4, "in", bias="pull_down", edge="both")
LED = LineSpec(23, "out")
S = 1_000_000_000


@dataclass
class Event:
    edge: str
    timestamp: int


class FakeLine:
    """What is used of periphery.GPIO; :meth:`happens` queues an edge, as the kernel does."""

    def __init__(self, spec: LineSpec) -> None:
        self.fd, self._kernel = os.pipe()
        self.level = spec.bias == "pull_up"
        self.closed = False
        self.broken = False

    def happens(self, edge: str, timestamp_ns: int) -> None:
        os.write(self._kernel, struct.pack("=BQ", edge == "falling", timestamp_ns))

    def read_event(self) -> Event:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        falling, timestamp_ns = struct.unpack("=BQ", os.read(self.fd, 9))
        return Event("falling" if falling else "rising", timestamp_ns)

    def read(self) -> bool:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        return self.level

    def write(self, value: bool) -> None:
        if self.broken:
            raise OSError(errno.EIO, "Input/output error")
        self.level = value

    def close(self) -> None:
        self.closed = True
        os.close(self.fd)
        os.close(self._kernel)


class Header:
    """Claims fake lines."""

    def __init__(self) -> None:
        self.lines: dict[int, FakeLine] = {}
        self.busy: set[int] = set()

    def open_line(self, chip: str, spec: LineSpec) -> FakeLine:
        assert chip == "/dev/gpiochip0"
        if spec.line in self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.lines[spec.line] = FakeLine(spec)
        return self.lines[spec.line]

    def gpio(self) -> LinuxGpio:
        return LinuxGpio([HALL, BUTTON, LED], "/dev/gpiochip0", self.open_line)


@pytest.fixture
def pins() -> Header:
    return Header()


def now_ns() -> int:
    return time.monotonic_ns()


def intervals(times: Any) -> list[float]:
    return [round(b - a, 4) for a, b in itertools.pairwise(times)]


async def test_levels_are_read_and_written_and_the_led_is_low_in_the_end(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    assert await gpio.read(21) is True
    assert await gpio.read(4) is False
    await gpio.write(23, True)
    assert pins.lines[23].level is True
    await gpio.close()
    assert pins.lines[23].level is False
    assert all(line.closed for line in pins.lines.values())
    with pytest.raises(BusError, match="closed"):
        await gpio.read(21)
    assert [t.name for t in threading.enumerate() if t.name.startswith("piod")] == []


async def test_lines_are_claimed_as_the_wiring_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import periphery

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(periphery, "GPIO", lambda *a, **k: calls.append((a, k)))
    for spec in (HALL, LED):
        module.open_periphery_line("/dev/gpiochip0", spec)
    assert calls == [
        (("/dev/gpiochip0", 21, "in"), {"edge": "falling", "bias": "pull_up", "label": "piod"}),
        (("/dev/gpiochip0", 23, "low"), {"edge": "none", "bias": "default", "label": "piod"}),
    ]


async def test_falling_edges_have_the_times_of_the_kernel(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    hall = pins.lines[21]
    stale = now_ns()
    for back in (3, 2, 1):
        hall.happens("falling", stale - back * S)
    recording = asyncio.ensure_future(gpio.record_edges(21, 0.2))
    await asyncio.sleep(0.05)
    start = now_ns()
    for turn in range(4):
        hall.happens("falling", start + turn * S // 100)
        hall.happens("rising", start + turn * S // 100 + 1)
    times = await recording
    assert intervals(times) == [0.01, 0.01, 0.01]
    await gpio.close()


async def test_window_without_edges_ends_in_time_and_empty(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    begun = time.monotonic()
    assert list(await gpio.record_edges(21, 0.1)) == []
    assert 0.1 <= time.monotonic() - begun < 0.5
    await gpio.close()


async def test_recordings_run_side_by_side_on_one_line_and_on_several(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    long = asyncio.ensure_future(gpio.record_edges(21, 0.3))
    button = asyncio.ensure_future(gpio.record_edges(4, 0.3))
    await asyncio.sleep(0.05)
    start = now_ns()
    pins.lines[21].happens("falling", start)
    short = asyncio.ensure_future(gpio.record_edges(21, 0.1))
    await asyncio.sleep(0.05)
    pins.lines[21].happens("falling", start + S)
    pins.lines[4].happens("rising", start)
    pins.lines[4].happens("falling", start + 2 * S)
    assert len(await short) == 1
    assert intervals(await long) == [1.0]
    assert len(await button) == 1
    await gpio.close()


async def test_recording_that_nobody_waits_for_is_dropped(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    recording = asyncio.ensure_future(gpio.record_edges(21, 60))
    await asyncio.sleep(0.05)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    await gpio.read(4)  # the thread has heard of it
    pins.lines[21].happens("falling", now_ns())
    await asyncio.sleep(0.05)
    idle = select.select([pins.lines[21].fd], [], [], 0)[0]
    assert idle, "nobody fetches the edges of an idle line"
    await gpio.close()


async def test_broken_line_is_a_bus_error_and_the_others_work_on(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    hall = asyncio.ensure_future(gpio.record_edges(21, 5))
    button = asyncio.ensure_future(gpio.record_edges(4, 0.2))
    await asyncio.sleep(0.05)
    pins.lines[21].broken = True
    pins.lines[21].happens("falling", now_ns())
    with pytest.raises(BusError, match="GPIO 21 could not be watched: Input/output error"):
        await hall
    with pytest.raises(BusError, match="GPIO 21 could not be read"):
        await gpio.read(21)
    pins.lines[4].happens("falling", now_ns())
    assert len(await button) == 1
    await gpio.close()


async def test_closing_ends_a_recording_with_a_bus_error(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    recording = asyncio.ensure_future(gpio.record_edges(21, 60))
    await asyncio.sleep(0.05)
    await gpio.close()
    with pytest.raises(BusError, match="closed during a recording"):
        await recording


async def test_wall_clock_that_is_set_in_a_window_bends_no_interval(
    pins: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-periphery asks newer kernels for edges in wall-clock time."""
    offset_ns = 1_700_000_000 * S
    monkeypatch.setattr(time, "time_ns", lambda: time.monotonic_ns() + offset_ns)
    gpio = pins.gpio()
    await gpio.open()
    recording = asyncio.ensure_future(gpio.record_edges(21, 0.3))
    await asyncio.sleep(0.05)
    start = now_ns()
    pins.lines[21].happens("falling", start + offset_ns)
    await asyncio.sleep(0.05)
    offset_ns += 3600 * S
    pins.lines[21].happens("falling", start + 20_000_000 + offset_ns)
    assert intervals(await recording) == [0.02]
    await gpio.close()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda gpio: gpio.read(17),
        lambda gpio: gpio.write(21, True),
        lambda gpio: gpio.record_edges(23, 1),
    ],
)
async def test_misuse_is_a_value_error(pins: Header, misuse: Callable[[LinuxGpio], Any]) -> None:
    gpio = pins.gpio()
    await gpio.open()
    with pytest.raises(ValueError, match="GPIO"):
        await misuse(gpio)
    await gpio.close()


async def test_held_line_is_named_and_the_others_are_let_go(pins: Header) -> None:
    pins.busy.add(23)
    gpio = pins.gpio()
    with pytest.raises(BusError, match="GPIO 23 could not be claimed: Device or resource busy"):
        await gpio.open()
    assert all(line.closed for line in pins.lines.values())
    pins.busy.clear()
    await gpio.open()
    await gpio.close()


async def test_machine_without_a_header_is_missing_a_device(
    pins: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "gpio_chip", lambda: None)
    with pytest.raises(DeviceMissing, match="40-pin header"):
        await LinuxGpio([HALL], open_line=pins.open_line).open()


def test_header_is_found_by_the_label_of_its_chip(tmp_path: Any) -> None:
    labels = {"gpiochip0": "brcmstb-gpio", "gpiochip4": "pinctrl-rp1", "gpiochip9": None}
    for name in [*labels, "null"]:
        (tmp_path / name).touch()

    def label_of(path: str) -> str:
        label = labels[os.path.basename(path)]
        if label is None:
            raise PermissionError
        return label

    assert header.gpio_chip(str(tmp_path), label_of) == str(tmp_path / "gpiochip4")
    labels["gpiochip4"] = "something"
    assert header.gpio_chip(str(tmp_path), label_of) is None


# -- levels ------------------------------------------------------------------------------


async def test_a_level_is_awaited_until_its_edge_comes(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    button = pins.lines[4]
    button.happens("rising", 1)  # pressed and let go before anybody looked
    button.happens("falling", 2)
    waiting = asyncio.ensure_future(gpio.await_level(4, True))
    recording = asyncio.ensure_future(gpio.record_edges(4, 0.3))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    button.happens("rising", 3 * S)
    await asyncio.wait_for(waiting, 1)
    button.happens("falling", 4 * S)
    await asyncio.wait_for(gpio.await_level(4, False), 1)
    assert len(await recording) == 1
    await gpio.close()


async def test_a_wait_that_is_given_up_leaves_a_recording_alone(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    recording = asyncio.ensure_future(gpio.record_edges(4, 0.3))
    waiting = asyncio.ensure_future(gpio.await_level(4, True))
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asyncio.sleep(0.05)
    pins.lines[4].happens("falling", S)
    assert len(await recording) == 1
    await gpio.close()


async def test_a_line_that_fails_ends_the_wait(pins: Header) -> None:
    gpio = pins.gpio()
    await gpio.open()
    waiting = asyncio.ensure_future(gpio.await_level(4, True))
    await asyncio.sleep(0.05)
    pins.lines[4].broken = True
    pins.lines[4].happens("rising", S)
    with pytest.raises(BusError, match="could not be watched"):
        await asyncio.wait_for(waiting, 1)
    pins.lines[4].broken = False
    await gpio.close()
