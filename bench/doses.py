"""Doses on the ``linux`` backend: from POST to the pump on, and how exact its on-time is.

The second is measured while every processor is busy with requests to the same daemon. Beside
it, at the same time, a process does nothing but turn an output on and off by a timer.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bench import jobs
from bench.figures import Figure
from bench.linux_unit import wiring_of
from bench.load import generator
from bench.processes import Broken, Client, Server, bare, data_dir, server
from bench.wire import Pulse, channel_of, pulses, tree

DOSES = 1000
AT_REST = 100
SECONDS = 0.05
EXPERIMENT = "bench"
ACTION = "add_media"
MEDIA_CHANNEL = "2"
"""Of the usual configuration."""
NO_PIN = 0
"""Of the bare timer; nothing is wired to it."""
RUN = f"/unit_api/jobs/run/job_name/{ACTION}"
RUNNING = "/unit_api/jobs/running"
HEALTH = "/unit_api/health"
VIAL = f"/unit_api/bioreactor/experiments/{EXPERIMENT}"
CONNECTIONS = 8
BURST_S = 1.0
POLL_S = 0.005
POLL_TIMEOUT_S = 20.0
COMMITS = 3
"""Flushed before the pump may turn: the task, the job, the intent."""


@dataclass(frozen=True)
class _Dose:
    """When its POST was sent, the on-time that it asked for, and what was on the wire."""

    asked_s: float
    seconds: float
    pulse: Pulse

    @property
    def to_on_ms(self) -> float:
        return 1000 * (self.pulse.on_s - self.asked_s)

    @property
    def error_ms(self) -> float:
        return 1000 * abs(self.pulse.off_s - self.pulse.on_s - self.seconds)


def measure() -> Iterator[Figure]:
    at_rest, loaded, posts, timer = _doses()
    yield from _latency([one.to_on_ms for one in at_rest], posts, loaded)
    yield from _accuracy(
        [one.error_ms for one in loaded],
        [1000 * abs(pulse.off_s - pulse.on_s - SECONDS) for pulse in timer],
    )


def _doses() -> tuple[list[_Dose], list[_Dose], list[float], list[Pulse]]:
    """Doses at rest and under load; beside them POSTs with commits (ms), and bare pulses."""
    posts: list[float] = []
    with data_dir() as directory:
        record, timer_record = directory / "unit.json", directory / "timer.json"
        pins = wiring_of(directory).pwm_pins
        with tree([*pins.values(), NO_PIN]) as root:
            media = channel_of(root, list(pins).index(MEDIA_CHANNEL))
            spare = channel_of(root, len(pins))
            with (
                server("-m", "bench.linux_unit", str(directory), str(root), str(record)) as unit,
                Client(unit) as client,
            ):
                client.ask("PATCH", VIAL, {"values": {"current_volume_ml": 1.0}})
                asked = []
                with bare({jobs.RUN: jobs.ANSWER_BYTES}) as handler, Client(handler) as poster:
                    commit = jobs.committer(directory / "storage" / "baseline.sqlite")
                    for number in range(AT_REST):
                        asked.append(_dose(client, number))
                        posts.append(jobs.post_ms(poster, commit, commits=COMMITS))
                with (
                    _loaded(unit),
                    server(
                        "-m", "bench.bare_timer", str(spare.parent), str(timer_record),
                        str(SECONDS), str(SECONDS),
                    ),
                ):  # fmt: skip
                    asked += [_dose(client, AT_REST + number) for number in range(DOSES)]
        made = pulses(record, media)
        timer = pulses(timer_record, spare)
    if len(made) != len(asked):
        raise Broken(f"{len(asked)} doses were asked for, {len(made)} were on the wire")
    doses = [_Dose(*one, pulse) for one, pulse in zip(asked, made, strict=True)]
    return doses[:AT_REST], doses[AT_REST:], posts, timer


def _latency(
    at_rest: Sequence[float], posts: Sequence[float], loaded: Sequence[_Dose]
) -> Iterator[Figure]:
    bare_post = f"POST to the bare handler + {COMMITS} flushed commits (task, job, intent)"
    busy = [one.to_on_ms for one in loaded]
    yield Figure(
        "POST run add_media → pump on",
        "ms",
        at_rest,
        bare_post,
        posts,
        note=f"while {CONNECTIONS} connections load HTTP, {statistics.median(busy):.0f} ms",
    )
    yield Figure(
        "POST run add_media → pump on, p99",
        "ms",
        [_p99(at_rest)],
        bare_post,
        [_p99(posts)],
        note=f"of {AT_REST}; while {CONNECTIONS} connections load HTTP, {_p99(busy):.0f} ms, "
        f"of {DOSES}",
    )


def _accuracy(errors: Sequence[float], timer: Sequence[float]) -> Iterator[Figure]:
    for name, of, aim in (
        ("median", statistics.median, None),
        ("p99", _p99, 2),
        ("largest", max, None),
    ):
        yield Figure(
            f"error of on-time, HTTP loaded, {name}",
            "ms",
            [of(errors)],
            "a bare timer process at the same time",
            [of(timer)],
            aim_ratio_max=aim,
            note=f"{len(errors)} doses of {1000 * SECONDS:g} ms; {len(timer)} by the timer",
        )


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


def _dose(client: Client, number: int) -> tuple[float, float]:
    """One dose, from its POST until its job has ended: when it was sent, and its on-time."""
    # other options each time: the same ones are taken once a second
    seconds = round(SECONDS + number * 1e-6, 6)
    body = {"options": {"duration": seconds}, "env": {"EXPERIMENT": EXPERIMENT}}
    asked_s = time.monotonic()
    task = json.loads(client.ask("POST", RUN, body))["result_url_path"]
    time.sleep(seconds)
    until_s = asked_s + POLL_TIMEOUT_S
    while time.monotonic() < until_s:
        result = json.loads(client.ask("GET", task))
        if result["status"] == "failed":
            raise Broken(f"dose {number}: {result['error']}")
        if result["status"] == "complete" and ACTION.encode() not in client.ask("GET", RUNNING):
            return asked_s, seconds
        time.sleep(POLL_S)
    raise Broken(f"dose {number} never came to its end")


@contextmanager
def _loaded(unit: Server) -> Iterator[None]:
    """CONNECTIONS ask for health as fast as they get it, meanwhile."""
    over = threading.Event()
    failure: list[Broken] = []

    def load() -> None:
        try:
            with generator() as generating:
                while not over.is_set():
                    generating.get(unit.port, HEALTH, connections=CONNECTIONS, seconds=BURST_S)
        except Broken as error:
            failure.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failure:
        raise failure[0]
