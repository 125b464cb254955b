"""Imports, time until ready to serve, and memory of the serving daemon."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from bench.processes import ROOT, Broken, Client, Server, bare, data_dir, piod

ROUNDS = 5
REQUESTS = 1000
HEALTH = "/unit_api/health"
RUN = "/unit_api/jobs/run/job_name/stirring"
SETTINGS = "/unit_api/jobs/settings/job_name/stirring"
KIB_PER_MIB = 1024


def measure() -> Iterator[Figure]:
    yield from _imports()
    yield from _ready()
    yield from _memory()


def _imports() -> Iterator[Figure]:
    ours, theirs, nothing = [], [], []
    for _ in range(ROUNDS):
        ours.append(_python_ms("import piod.serve"))
        theirs.append(_python_ms("import aiohttp.web"))
        nothing.append(_python_ms("pass"))
    yield Figure(
        "python -c 'import piod.serve'",
        "ms",
        ours,
        "python -c 'import aiohttp.web'",
        theirs,
        note=f"of both, {sorted(nothing)[ROUNDS // 2]:.0f} ms are python -c pass",
    )


def _python_ms(code: str) -> float:
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return 1000 * (time.perf_counter() - started_s)


def _ready() -> Iterator[Figure]:
    ours, theirs = [], []
    with data_dir() as directory:
        with piod(directory) as unit:
            first_s = unit.ready_s
        for _ in range(ROUNDS):
            with piod(directory) as unit:
                ours.append(unit.ready_s)
            with bare({HEALTH: 100}) as handler:
                theirs.append(handler.ready_s)
    yield Figure(
        "exec → ready to serve",
        "s",
        ours,
        "bare aiohttp server",
        theirs,
        aim_max=0.8,
        note=f"on an empty data directory {first_s:.2f} s",
    )


def _memory() -> Iterator[Figure]:
    with bare({HEALTH: 100}) as handler:
        _request(handler)
        bare_mib = alone_mib(handler.pid)
    with data_dir() as directory, piod(directory) as unit:
        with Client(unit) as client:
            client.ask("POST", RUN, {"options": {"target_rpm": 500}})
            client.await_answer(SETTINGS, lambda answer: b'"$state":"ready"' in answer)
        _request(unit)
        daemon_mib = alone_mib(unit.pid)
        guard = child_of(unit.pid)
        guard_mib = rollup_mib(guard, "Pss_Anon")
        plain = {pid: rollup_mib(pid, "Pss") for pid in (unit.pid, guard)}
        with Client(unit) as client:
            client.ask("GET", "/unit_api/swagger.json")
        documented_mib = alone_mib(unit.pid)
    counted = "anonymous PSS and all file pages, as if no other Python ran"
    yield Figure(
        f"daemon's memory, stirring, {REQUESTS} requests",
        "MiB",
        [daemon_mib],
        f"bare aiohttp server after {REQUESTS} requests",
        [bare_mib],
        aim_max=50,
        note=f"{counted}; plain PSS {plain[unit.pid]:.1f} MiB",
    )
    yield Figure(
        "daemon's memory once swagger.json was read",
        "MiB",
        [documented_mib],
        "the line above",
        [daemon_mib],
        aim_max=50,
    )
    yield Figure(
        "guard's memory",
        "MiB",
        [guard_mib],
        f"bare aiohttp server after {REQUESTS} requests",
        [bare_mib],
        aim_max=6,
        note=f"anonymous PSS, its file pages are the daemon's too; plain PSS "
        f"{plain[guard]:.1f} MiB",
    )


def _request(server: Server) -> None:
    with Client(server) as client:
        for _ in range(REQUESTS):
            client.ask("GET", HEALTH)


def alone_mib(pid: int) -> float:
    """The memory of ``pid``, its file pages charged to it alone.

    PSS splits a page of libpython among all who map it, this benchmark among
    them; on a unit nobody else does. Anonymous pages are shared with the guard
    alone.
    """
    file_kib, mapped = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            parts = line.split(maxsplit=5)
            mapped = len(parts) == 6 and parts[5].startswith("/")
        elif mapped and line.startswith("Rss:"):
            file_kib += int(line.split()[1])
        elif mapped and line.startswith("Anonymous:"):
            file_kib -= int(line.split()[1])  # written to: counted with the anonymous ones
    return rollup_mib(pid, "Pss_Anon") + file_kib / KIB_PER_MIB


def rollup_mib(pid: int, key: str) -> float:
    """The line ``key`` of what the kernel adds up for ``pid``."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise Broken(f"this kernel does not tell {key} of a process")
    return int(found[1]) / KIB_PER_MIB


def child_of(pid: int) -> int:
    """The only child of ``pid``: the guard."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if len(children) != 1:
        raise Broken(f"the daemon has {len(children)} children, not the guard alone")
    return int(children[0])
