"""Listing calibrations, and exporting a large data directory."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Iterator

from bench.figures import Figure
from bench.footprint import alone_mib
from bench.load import generator
from bench.processes import bare, data_dir, piod
from bench.requests import compare

TREE_MB = 200
FILE_MB = 10
RECORD = """\
calibration_type: od600
calibration_name: {name}
calibrated_on_pioreactor_unit: pio01
created_at: 2026-02-11T14:05:09.500Z
curve_data_: {{type: poly, coefficients: [-0.05, 0.62, 0.03]}}
x: OD600
y: Voltage
recorded_data: {{x: [0.0, 0.2, 0.6, 1.2], y: [0.03, 0.152, 0.384, 0.702]}}
ir_led_intensity: 80.0
angle: '90'
pd_channel: '2'
"""


def measure() -> Iterator[Figure]:
    with generator() as load:
        for records, aim in ((20, 0.5), (1000, None)):
            with data_dir() as directory:
                folder = directory / "storage" / "calibrations" / "od90"
                folder.mkdir(parents=True)
                for number in range(records):
                    name = f"cal-{number:04d}"
                    (folder / f"{name}.yaml").write_text(RECORD.format(name=name))
                with piod(directory) as unit:
                    path = "/unit_api/calibrations"
                    yield from compare(
                        load, unit, path, f"calibrations ({records} records)", aim=aim
                    )
    yield from _export()


def _export() -> Iterator[Figure]:
    with data_dir() as directory:
        for number in range(TREE_MB // FILE_MB):
            block = os.urandom(2**20) * FILE_MB
            (directory / f"file-{number:02d}.bin").write_bytes(block)
        with piod(directory) as unit, bare({"/": 100}) as handler:
            idle = alone_mib(unit.pid)
            peak = [idle]
            over = threading.Event()
            watcher = threading.Thread(target=_watch, args=(unit.pid, peak, over))
            watcher.start()
            began = time.monotonic()
            size = _download(f"http://127.0.0.1:{unit.port}/unit_api/zipped_dot_pioreactor")
            took_s = time.monotonic() - began
            over.set()
            watcher.join()
            yield Figure(
                f"export of {TREE_MB} MB, memory over idle",
                "MiB",
                [max(peak) - idle],
                "bare aiohttp handler, idle",
                [alone_mib(handler.pid)],
                aim_max=30,
                note=f"{size / 1e6:.0f} MB sent in {took_s:.1f} s; sampled each 20 ms",
            )


def _watch(pid: int, peak: list[float], over: threading.Event) -> None:
    while not over.wait(0.02):
        peak.append(alone_mib(pid))


def _download(url: str) -> int:
    size = 0
    with urllib.request.urlopen(url, timeout=120) as answer:
        while chunk := answer.read(1 << 20):
            size += len(chunk)
    return size
