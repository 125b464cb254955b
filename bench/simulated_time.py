"""How fast simulated time goes with a job on it, and what it costs the requests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime

from bench.figures import Figure
from bench.load import Load, generator
from bench.processes import Client, Server, data_dir, piod

SCALE = 3600.0
WALL_S = 5.0
ROUNDS = 5
SECONDS = 0.6
HEALTH = "/unit_api/health"
RUN = "/unit_api/jobs/run/job_name/stirring"


def measure() -> Iterator[Figure]:
    with (
        data_dir() as fast_directory,
        piod(fast_directory, time_scale=SCALE) as fast,
        data_dir() as slow_directory,
        piod(slow_directory) as slow,
        generator() as load,
    ):
        for unit in (fast, slow):
            with Client(unit) as client:
                client.ask("POST", RUN, {"options": {"target_rpm": 500}})
        time.sleep(1.0)
        factor = _factor(fast)
        hurried: list[Load] = []
        at_ease: list[Load] = []
        for _ in range(ROUNDS):
            for unit, loads in ((fast, hurried), (slow, at_ease)):
                loads.append(load.get(unit.port, HEALTH, connections=1, seconds=SECONDS))
    yield Figure(
        f"simulated s per s at --time-scale {SCALE:g}, stirring",
        "x",
        [factor],
        "the scale that was asked for",
        [SCALE],
        note=f"over {WALL_S:g} s of wall time, without requests",
    )
    baseline = "the same at --time-scale 1"
    yield Figure(
        "/health, p50, meanwhile, 1 connection",
        "ms",
        [one.p50_ms for one in hurried],
        baseline,
        [one.p50_ms for one in at_ease],
    )
    yield Figure(
        "/health, p99, meanwhile, 1 connection",
        "ms",
        [one.p99_ms for one in hurried],
        baseline,
        [one.p99_ms for one in at_ease],
    )


def _factor(unit: Server) -> float:
    """Simulated seconds per wall second over WALL_S."""
    with Client(unit) as client:
        begin = _utc_s(client), time.monotonic()
        time.sleep(WALL_S)
        end = _utc_s(client), time.monotonic()
    return (end[0] - begin[0]) / (end[1] - begin[1])


def _utc_s(client: Client) -> float:
    told = json.loads(client.ask("GET", HEALTH))["utc_time"]
    return datetime.fromisoformat(told).timestamp()
