"""The load generator: keep-alive GETs over raw asyncio, in a process of its own.

``python -m bench.load`` reads one JSON order a line, ``{"port", "paths",
"connections", "seconds"}``, and answers each with one line, a :class:`Load` as
JSON. :class:`Generator` is its other end. Each connection sends its next request
when it has the answer to the one before; the paths go to the connections in turns.
Any answer but 200 ends it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice

from bench.processes import ROOT, Broken


@dataclass(frozen=True)
class Load:
    """What one order gave. Latencies in milliseconds, from sending to the last byte."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float


class _Connection(asyncio.Protocol):
    """One connection; ``over`` is done when it has ended by itself."""

    def __init__(self, path: str, until_s: float, latencies_s: list[float]) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self._until_s = until_s
        self._latencies_s = latencies_s
        self._received = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # of a TCP connection
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        if not received.startswith(b"HTTP/1.1 200 "):
            self._fail(f"answered {received[:300]!r}")
            return
        at = received.find(b"Content-Length: ") + 16
        if len(received) < head + 4 + int(received[at : received.index(b"\r", at)]):
            return
        now_s = time.perf_counter()
        self._latencies_s.append(now_s - self._sent_s)
        self._received = b""
        if now_s < self._until_s:
            self._send()
        else:
            self._transport.close()
            self.over.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"the connection was lost: {error}")

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def _fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(Broken(why))


async def generate(port: int, paths: Sequence[str], connections: int, seconds: float) -> Load:
    """Load ``paths`` with so many connections for so long."""
    loop = asyncio.get_running_loop()
    latencies_s: list[float] = []
    started_s = time.perf_counter()
    made = [
        await loop.create_connection(
            partial(_Connection, path, started_s + seconds, latencies_s), "127.0.0.1", port
        )
        for path in islice(cycle(paths), connections)
    ]
    await asyncio.gather(*(connection.over for _, connection in made))
    passed_s = time.perf_counter() - started_s
    latencies_s.sort()
    return Load(
        requests=len(latencies_s),
        per_s=len(latencies_s) / passed_s,
        p50_ms=1000 * latencies_s[len(latencies_s) // 2],
        p99_ms=1000 * latencies_s[len(latencies_s) * 99 // 100],
        longest_ms=1000 * latencies_s[-1],
    )


class Generator:
    """A running load generator."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def get(self, port: int, *paths: str, connections: int, seconds: float) -> Load:
        """Load ``paths`` on ``port``; blocks meanwhile."""
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None  # both are pipes
        assert answers is not None
        order = {"port": port, "paths": paths, "connections": connections, "seconds": seconds}
        orders.write(json.dumps(order) + "\n")
        orders.flush()
        answer = answers.readline()
        if not answer:
            raise Broken(f"the load generator failed at {paths[0]}; it told why on stderr")
        return Load(**json.loads(answer))


@contextmanager
def generator() -> Iterator[Generator]:
    """A load generator in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Generator(process)


def main() -> None:
    """Follow the orders on stdin until it ends."""
    for order in sys.stdin:
        print(json.dumps(asdict(asyncio.run(generate(**json.loads(order))))), flush=True)


if __name__ == "__main__":
    main()
