"""The processes that are measured: started, waited for, ended."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
END_TIMEOUT_S = 10.0
POLL_S = 0.0005
POLL_TIMEOUT_S = 10.0
UNIT_NAME = "bench"


class Broken(Exception):
    """A process did not do what the benchmark needs; the message tells what it said."""


@dataclass(frozen=True)
class Server:
    """A server that is ready. ``ready_s``: wall seconds from exec to its ready line."""

    pid: int
    port: int
    ready_s: float


@contextmanager
def server(*arguments: str) -> Iterator[Server]:
    """``python ARGUMENTS``, from its line on stdout that ends in its URL until it is ended."""
    with tempfile.TemporaryFile("w+") as errors:
        started_s = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None  # it is a pipe
            ready = process.stdout.readline()
            ready_s = time.monotonic() - started_s
            if "http://" not in ready:
                errors.seek(0)
                raise Broken(f"{' '.join(arguments)} did not start: {ready}{errors.read()}")
            yield Server(process.pid, int(ready.rpartition(":")[2]), ready_s)
        finally:
            process.terminate()
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def piod(data_dir: Path, *, time_scale: float = 1.0) -> Iterator[Server]:
    """A simulated unit on ``data_dir``."""
    with server(
        "-m", "piod", "serve", "--simulate", "--port", "0", "--data-dir", str(data_dir),
        "--unit", UNIT_NAME, "--time-scale", f"{time_scale:g}",
    ) as unit:  # fmt: skip
        yield unit


@contextmanager
def bare(body_bytes: Mapping[str, int]) -> Iterator[Server]:
    """The bare aiohttp handler: paths and the length of what they answer."""
    with server("-m", "bench.bare", json.dumps(dict(body_bytes))) as unit:
        yield unit


@contextmanager
def data_dir() -> Iterator[Path]:
    """A data directory for one server; on a disk, if $TMPDIR is, since flushing it counts."""
    with tempfile.TemporaryDirectory(prefix="piod-bench-") as name:
        yield Path(name)


class Client:
    """One keep-alive connection, for requests one at a time."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: object = None) -> None:
        """Send a request; :meth:`receive` comes next."""
        if body is None:
            self._connection.request(method, path)
        else:
            headers = {"Content-Type": "application/json"}
            self._connection.request(method, path, json.dumps(body), headers)

    def receive(self) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        response = self._connection.getresponse()
        return response.status, response.read()

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """The body of a successful answer; Broken for any other."""
        self.send(method, path, body)
        status, answer = self.receive()
        if status >= 300:
            raise Broken(f"{method} {path}: {status} {answer.decode('utf-8', 'replace')}")
        return answer

    def await_answer(self, path: str, there: Callable[[bytes], bool]) -> None:
        """GET ``path``, whatever its status, every POLL_S until ``there`` is true of the body."""
        until_s = time.monotonic() + POLL_TIMEOUT_S
        while time.monotonic() < until_s:
            self.send("GET", path)
            if there(self.receive()[1]):
                return
            time.sleep(POLL_S)
        raise Broken(f"GET {path} never showed what was waited for")


def cpu_s(pid: int) -> float:
    """The processor time that the main thread of ``pid`` has used, in seconds."""
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def processes_cpu_s(pids: Iterable[int]) -> float:
    """The processor time of whole processes, all their threads ever, in seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc_pid_stat(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def environment() -> str:
    """The machine and the versions, in one line."""
    import platform

    import aiohttp

    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"Python {platform.python_version()}, aiohttp {aiohttp.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} CPUs, load {load}"
    )
