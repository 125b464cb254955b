"""Requests per second and latencies of piod, against the bare handler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.figures import Figure
from bench.load import Generator, Load, generator
from bench.processes import Client, Server, bare, cpu_s, data_dir, piod, server

HEALTH = "/unit_api/health"
RUNNING = "/unit_api/jobs/running"
ROUNDS = 21
SECONDS = 0.2
"""Of each burst; two bursts (throughput, latency) a round and server."""
CONNECTIONS = 8


@dataclass
class _Bursts:
    """What one server gave, one value a round."""

    server: Server
    busy: list[Load] = field(default_factory=list)
    alone: list[Load] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    """Processor time of the server's event loop for one request, µs."""

    def take(self, load: Generator, path: str) -> None:
        before_s = cpu_s(self.server.pid)
        burst = load.get(self.server.port, path, connections=CONNECTIONS, seconds=SECONDS)
        self.cpu_us.append(1e6 * (cpu_s(self.server.pid) - before_s) / burst.requests)
        self.busy.append(burst)
        self.alone.append(load.get(self.server.port, path, connections=1, seconds=SECONDS))


def measure() -> Iterator[Figure]:
    with generator() as load:
        with data_dir() as directory, piod(directory) as unit:
            yield from compare(load, unit, HEALTH, "health", aim=0.8)
        with data_dir() as directory, server("-m", "bench.three_jobs", str(directory)) as unit:
            with Client(unit) as client:
                for number in (1, 2, 3):
                    client.ask("POST", f"/unit_api/jobs/run/job_name/idle_{number}")
                client.await_answer(RUNNING, lambda answer: answer.count(b'"job_id"') == 3)
            yield from compare(load, unit, RUNNING, "jobs/running (3 jobs)", aim=0.6)


def compare(
    load: Generator, unit: Server, path: str, name: str, *, aim: float | None
) -> Iterator[Figure]:
    with Client(unit) as client:
        length = len(client.ask("GET", path))
    with bare({path: length}) as handler:
        ours, theirs = _Bursts(unit), _Bursts(handler)
        for one in (ours, theirs):  # the first requests fill caches
            load.get(one.server.port, path, connections=1, seconds=0.2)
        for number in range(ROUNDS):
            # in turns, each as often first as second
            for one in (ours, theirs) if number % 2 else (theirs, ours):
                one.take(load, path)
    baseline = f"bare aiohttp handler, {length} bytes"
    many, one_at_a_time = f"{CONNECTIONS} connections", "1 connection"
    yield Figure(
        f"/{name}, {many}",
        "/s",
        [burst.per_s for burst in ours.busy],
        baseline,
        [burst.per_s for burst in theirs.busy],
        aim_ratio_min=aim,
    )
    yield Figure(
        f"/{name}, CPU per request",
        "µs",
        ours.cpu_us,
        baseline,
        theirs.cpu_us,
        note="steadier than requests/s on a busy machine"
        + (f"; the aim means a ratio of at most {1 / aim:.2f}" if aim else ""),
    )
    yield Figure(
        f"/{name}, p50, {one_at_a_time}",
        "ms",
        [burst.p50_ms for burst in ours.alone],
        baseline,
        [burst.p50_ms for burst in theirs.alone],
    )
    yield Figure(
        f"/{name}, p99, {one_at_a_time}",
        "ms",
        [burst.p99_ms for burst in ours.alone],
        baseline,
        [burst.p99_ms for burst in theirs.alone],
    )
