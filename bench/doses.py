"""Doses on the ``linux`` backend: from POST to the pump on, and how exact its on-time is.

The second is measured while every processor is busy with requests to the same daemon. Beside
it, at the same time, a process does nothing but turn an output on and off by a timer.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
class _Asked:
    """One dose: when its POST was sent, and for how long."""

    at_s: float
    seconds: float


def measure() -> Iterator[Figure]:
    with data_dir() as directory:
        posts: list[float] = []
        asked: list[_Asked] = []
        timer_record, record = directory / "timer.json", directory / "unit.json"
        pins = tuple(wiring_of(directory).pwm_pins.values())
        with tree([*pins, 0]) as root:
            media, spare = channel_of(root, pins.index(_media_pin(directory))), len(pins)
            with server("-m", "bench.linux_unit", str(directory), str(root), str(record)) as unit:
                with Client(unit) as client:
                    client.ask("PATCH", VIAL, {"values": {"current_volume_ml": 1.0}})
                    with bare({jobs.RUN: jobs.ANSWER_BYTES}) as handler, Client(handler) as bare_client:
                        commit = jobs.committer(directory / "storage" / "baseline.sqlite")
                        for number in range(AT_REST):
                            asked.append(_dose(client, number))
                            posts.append(jobs.post_ms(bare_client, commit, commits=COMMITS))
                    with (
                        _loaded(unit),
                        server(
                            "-m", "bench.bare_timer", str(channel_of(root, spare).parent),
                            str(timer_record), f"{SECONDS:g}", f"{SECONDS:g}",
                        ),
                    ):  # fmt: skip
                        asked += [_dose(client, AT_REST + number) for number in range(DOSES)]
            made = pulses(record, media)
            timed = pulses(timer_record, channel_of(root, spare))
    if len(made) != len(asked):
        raise Broken(f"{len(asked)} doses were asked for, {len(made)} were on the wire")
    to_on = [1000 * (pulse.on_s - one.at_s) for one, pulse in zip(asked, made, strict=True)]
    yield from _latency(to_on[:AT_REST], posts, to_on[AT_REST:])
    errors = [
        _error_ms(pulse, one.seconds)
        for one, pulse in zip(asked[AT_REST:], made[AT_REST:], strict=True)
    ]
    yield from _accuracy(errors, [_error_ms(pulse, SECONDS) for pulse in timed])


def _latency(
    at_rest: Sequence[float], posts: Sequence[float], loaded: Sequence[float]
) -> Iterator[Figure]:
    bare_post = f"POST to the bare handler + {COMMITS} flushed commits (task, job, intent)"
    yield Figure("POST run add_media → pump on", "ms", at_rest, bare_post, posts)
    yield Figure(
        "POST run add_media → pump on, p99",
        "ms",
        [_p99(at_rest)],
        bare_post,
        [_p99(posts)],
        note=f"of {AT_REST}; with {CONNECTIONS} connections busy {_p99(loaded):.0f} ms, "
        f"median {sorted(loaded)[len(loaded) // 2]:.0f} ms, of {DOSES}",
    )


def _accuracy(errors: Sequence[float], timer: Sequence[float]) -> Iterator[Figure]:
    baseline = "a bare timer process at the same time"
    for name, ours, theirs, aim in (
        ("median", sorted(errors)[len(errors) // 2], sorted(timer)[len(timer) // 2], None),
        ("p99", _p99(errors), _p99(timer), 2.0),
        ("largest", max(errors), max(timer), None),
    ):
        yield Figure(
            f"error of on-time, HTTP loaded, {name}",
            "ms",
            [ours],
            baseline,
            [theirs],
            aim_ratio_max=aim,
            note=f"{len(errors)} doses of {1000 * SECONDS:g} ms, {len(timer)} by the timer",
        )


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


def _error_ms(pulse: Pulse, seconds: float) -> float:
    return 1000 * abs(pulse.off_s - pulse.on_s - seconds)


def _media_pin(directory: Path) -> int:
    """Channel 2 of the usual configuration."""
    return wiring_of(directory).pwm_pins["2"]


def _dose(client: Client, number: int) -> _Asked:
    """One dose, from its POST until its job has ended."""
    # other options each time: the same ones are taken once a second
    seconds = round(SECONDS + number * 1e-6, 6)
    body = {"options": {"duration": seconds}, "env": {"EXPERIMENT": EXPERIMENT}}
    asked = _Asked(time.monotonic(), seconds)
    task = json.loads(client.ask("POST", RUN, body))["result_url_path"]
    time.sleep(seconds)
    until_s = asked.at_s + POLL_TIMEOUT_S
    while time.monotonic() < until_s:
        client.send("GET", task)
        status, answer = client.receive()
        if status == 200:
            break
        time.sleep(POLL_S)
    if json.loads(answer)["status"] != "complete":
        raise Broken(f"dose {number}: {answer!r}")
    while time.monotonic() < until_s:
        if ACTION.encode() not in client.ask("GET", RUNNING):
            return asked
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
