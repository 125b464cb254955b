"""How long a person waits: from POST run to ready, from POST stop to the output off.

The baseline is a POST to the bare handler, and as many commits, each flushed to
the same disk, as must come before the event by piod's promises: a task before
its launch is answered, a job before it touches anything, a result before the
task says that it is complete. Turning off waits for no disk.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.figures import Figure
from bench.processes import POLL_S, POLL_TIMEOUT_S, Broken, Client, Server, bare, data_dir, piod
from piod.jobs.stirrer import KICK_S

ROUNDS = 9
RUN = "/unit_api/jobs/run/job_name/stirring"
STOP = "/unit_api/jobs/stop/all"
SETTINGS = "/unit_api/jobs/settings/job_name/stirring"
ANSWER_BYTES = 150
KICK_MS = 1000 * KICK_S


def measure() -> Iterator[Figure]:
    with (
        data_dir() as directory,
        piod(directory) as unit,
        bare({RUN: ANSWER_BYTES}) as handler,
        Client(handler) as bare_client,
    ):
        commit = committer(directory / "storage" / "baseline.sqlite")
        to_ready, to_ready_at_rest, to_complete, to_off, to_answer = ([] for _ in range(5))
        posts, two_commits, three_commits = [], [], []
        for number in range(ROUNDS):
            # other options each time: the same ones are taken once a second
            ready_ms, _ = _run(unit, target_rpm=500 + number)
            off_ms, answer_ms = _stop(unit, directory, was_on=True)
            at_rest_ms, complete_ms = _run(unit, target_rpm=0, duty_cycle=number)
            _stop(unit, directory, was_on=False)
            to_ready.append(ready_ms)
            to_ready_at_rest.append(at_rest_ms)
            to_complete.append(complete_ms)
            to_off.append(off_ms)
            to_answer.append(answer_ms)
            posts.append(post_ms(bare_client, commit, commits=0))
            two_commits.append(post_ms(bare_client, commit, commits=2))
            three_commits.append(post_ms(bare_client, commit, commits=3))
    bare_post = "POST to the bare handler"
    yield Figure(
        "POST run → ready, spin-up included",
        "ms",
        to_ready,
        f"{bare_post} + 2 flushed commits + the kick of {KICK_MS:g} ms",
        [ms + KICK_MS for ms in two_commits],
        note="the simulated clock catches up with the commits during the kick, "
        "so the next line tells what piod takes",
    )
    yield Figure(
        "POST run → ready, target 0 RPM (no spin-up)",
        "ms",
        to_ready_at_rest,
        f"{bare_post} + 2 flushed commits (task, job)",
        two_commits,
        aim_max=20,
        note=f"polled over HTTP every {1000 * POLL_S:g} ms",
    )
    yield Figure(
        "POST run → task complete, target 0 RPM",
        "ms",
        to_complete,
        f"{bare_post} + 3 flushed commits (task, job, result)",
        three_commits,
    )
    yield Figure(
        "POST stop/all → output off",
        "ms",
        to_off,
        bare_post,
        posts,
        aim_max=10,
        note="off is when outputs.json shows 0",
    )
    yield Figure(
        "POST stop/all → answered",
        "ms",
        to_answer,
        f"{bare_post} + 2 flushed commits",
        two_commits,
        note="waits for the task on disk",
    )


def _run(unit: Server, **options: float) -> tuple[float, float]:
    """Milliseconds from POST run to $state ready, and to the task's end."""
    with Client(unit) as client, Client(unit) as watcher:
        started_s = time.perf_counter()
        launched = json.loads(client.ask("POST", RUN, {"options": options}))
        watcher.await_answer(SETTINGS, lambda answer: b'"$state":"ready"' in answer)
        ready_s = time.perf_counter()
        watcher.await_answer(launched["result_url_path"], lambda answer: b'"complete"' in answer)
        complete_s = time.perf_counter()
    return 1000 * (ready_s - started_s), 1000 * (complete_s - started_s)


def _stop(unit: Server, directory: Path, *, was_on: bool) -> tuple[float, float]:
    """Milliseconds from POST stop/all to the outputs off, and to its answer.

    Broken unless an output was on before exactly when ``was_on``: without one
    there is nothing to measure.
    """
    outputs = directory / "simulator" / "outputs.json"

    def any_on() -> bool:
        return any(json.loads(outputs.read_bytes())["pwm"].values())

    with Client(unit) as client:
        if any_on() is not was_on:
            raise Broken(f"outputs.json should show an output {'on' if was_on else 'off'}")
        started_s = time.perf_counter()
        client.send("POST", STOP)
        while any_on():
            if time.perf_counter() > started_s + POLL_TIMEOUT_S:
                raise Broken("the output did not go off")
        off_s = time.perf_counter()
        status, answer = client.receive()
        answered_s = time.perf_counter()
        if status != 202:
            raise Broken(f"POST {STOP}: {status} {answer!r}")
        task = json.loads(answer)["result_url_path"]
        client.await_answer(task, lambda result: b'"complete"' in result)
    return 1000 * (off_s - started_s), 1000 * (answered_s - started_s)


def post_ms(client: Client, commit: Callable[[], None], *, commits: int) -> float:
    """Milliseconds of a POST and so many commits after it."""
    started_s = time.perf_counter()
    client.ask("POST", RUN, {"options": {"target_rpm": 500}})
    for _ in range(commits):
        commit()
    return 1000 * (time.perf_counter() - started_s)


def committer(path: Path) -> Callable[[], None]:
    """Commits a row to a database that flushes each commit, as piod's does."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (text TEXT)")

    def commit() -> None:
        connection.execute("INSERT INTO rows VALUES (?)", ("x" * 200,))

    return commit
