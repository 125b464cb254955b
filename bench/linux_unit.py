"""A unit on the ``linux`` backend, with its guard, whose PWM is a tree of files.

``python -m bench.linux_unit DATA_DIR SYSFS_ROOT RECORD``: what it writes to the tree is recorded
(:mod:`bench.wire`). Everything but the tree is as on a Raspberry Pi; I2C and GPIO are missing.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from aiohttp import web

from bench.wire import recorded
from piod.clock import WallClock
from piod.config import ConfigFiles
from piod.daemon import build
from piod.defaults import write_defaults
from piod.hw.guard import GuardLink, spawn_guard
from piod.hw.linux.board import LinuxBoard
from piod.hw.linux.pwm import LinuxPwm
from piod.hw.models import load_models
from piod.hw.wiring import Wiring, load_wiring
from piod.launch import DEFAULT_HAT, SIMULATED_MODEL
from piod.system import NoSystem

UNIT_NAME = "bench"


def wiring_of(data_dir: Path) -> Wiring:
    """How the unit on ``data_dir`` is wired."""
    return load_wiring(data_dir / "hardware", DEFAULT_HAT, SIMULATED_MODEL)


async def serve(data_dir: Path, sysfs_root: Path, guard: GuardLink) -> None:
    """Until SIGTERM, on a free port that is told on stdout."""
    write_defaults(data_dir, leader_hostname=UNIT_NAME)
    wiring = wiring_of(data_dir)
    pins = tuple(wiring.pwm_pins.values())
    board = LinuxBoard(pwm_pins=pins, lines=(), guard=guard)
    board.pwm = LinuxPwm(pins, guard, sysfs_root)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with build(
        board,
        WallClock(),
        data_dir=data_dir,
        unit_name=UNIT_NAME,
        leader_name=UNIT_NAME,
        config=ConfigFiles(data_dir),
        wiring=wiring,
        models=load_models(data_dir / "models"),
        system=NoSystem("a benchmark has none"),
        default_model=SIMULATED_MODEL,
        guard=guard,
    ) as daemon:
        runner = web.AppRunner(daemon.application, access_log=None, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"linux unit: serving http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await over.wait()
        await daemon.end_all_jobs()
        await runner.cleanup()


def main(data_dir: Path, sysfs_root: Path, record: Path) -> None:
    guard = spawn_guard(keep_fds=())
    try:
        with (
            recorded(record),
            asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        ):
            runner.run(serve(data_dir, sysfs_root, guard))
    finally:
        guard.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
