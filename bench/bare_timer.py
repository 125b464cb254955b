"""The bare timer: the least that can turn an output on for a time and off again.

``python -m bench.bare_timer CHIP RECORD SECONDS PAUSE_S`` drives channel 0 of the chip, over and
over, as piod's driver does, sleeping in between, until SIGTERM. A process that does nothing else.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType

from bench.wire import recorded
from piod.hw.linux.sysfs_pwm import SysfsPwm

HZ = 250.0


class _Over(Exception):
    """SIGTERM has come."""


def _end(number: int, frame: FrameType | None) -> None:
    raise _Over


def main(chip: str, record: str, seconds: float, pause_s: float) -> None:
    signal.signal(signal.SIGTERM, _end)
    channel = SysfsPwm(chip, 0)
    with recorded(Path(record)):
        print("bare timer: on http://127.0.0.1:0", flush=True)  # as servers say it; it is none
        try:
            while True:
                until_s = time.monotonic() + seconds
                channel.drive(100.0, HZ)
                time.sleep(max(0.0, until_s - time.monotonic()))
                channel.off()
                time.sleep(pause_s)
        except _Over:
            pass


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
