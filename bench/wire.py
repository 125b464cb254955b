"""A tree of files like the kernel's PWM, and a record of what was written to it, and when.

The tree is for the ``linux`` backend on a machine without such pins. It lies in memory, as
sysfs does. What is recorded is when a write has returned: then the pin has changed.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from piod.hw import off

IN_MEMORY = Path("/dev/shm")


@contextmanager
def tree(pins: Sequence[int]) -> Iterator[Path]:
    """The root of a tree with a ``pwm-gpio`` chip for each pin, its channel exported."""
    directory = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="piod-bench-", dir=directory) as name:
        root = Path(name) / "class" / "pwm"
        for number, pin in enumerate(pins):
            behind = Path(name) / "devices" / f"pwm_gpio@{pin:x}"
            (behind / "of_node").mkdir(parents=True)
            cells = b"".join(cell.to_bytes(4, "big") for cell in (7, pin, 0))
            (behind / "of_node" / "gpios").write_bytes(cells)
            channel = channel_of(root, number)
            channel.mkdir(parents=True)
            (channel.parent / "device").symlink_to(behind)
            for attribute in ("period", "duty_cycle", "enable"):
                (channel / attribute).write_text("0\n")
        yield root


def channel_of(root: Path, number: int) -> Path:
    """The directory of the channel of the pin with that number in the order of ``tree``."""
    return root / f"pwmchip{number}" / "pwm0"


@dataclass(frozen=True)
class Pulse:
    """An output from on to off, by ``time.monotonic()``, which all processes share."""

    on_s: float
    off_s: float


@contextmanager
def recorded(to: Path) -> Iterator[None]:
    """Write down what this process writes to the tree; into the file ``to`` at the end."""
    written: list[tuple[float, str, str]] = []
    write_attribute = off.write_attribute

    def write(path: str, text: str) -> None:
        write_attribute(path, text)
        written.append((time.monotonic(), path, text))

    off.write_attribute = write
    try:
        yield
    finally:
        off.write_attribute = write_attribute
        to.write_text(json.dumps(written))


def pulses(record: Path, channel: Path) -> list[Pulse]:
    """What was recorded of one output, in the order of time."""
    found = []
    on_s: float | None = None
    for at_s, path, text in json.loads(record.read_text()):
        if path == f"{channel}/enable" and text == "1":
            on_s = at_s if on_s is None else on_s
        elif path == f"{channel}/duty_cycle" and text == "0" and on_s is not None:
            found.append(Pulse(on_s, at_s))
            on_s = None
    return found
