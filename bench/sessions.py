"""Fifty calibration sessions at once: each looked at by its own browser, all the time.

One of them runs its pump meanwhile, and an advance waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from bench.figures import Figure
from bench.load import Load, generator
from bench.processes import Broken, Client, bare, data_dir, piod

SESSIONS = 50
ROUNDS = 21
SECONDS = 0.3
PUMP_S = 120
API = "/unit_api/calibrations/sessions"
START = {"protocol_name": "duration_based", "target_device": "media_pump"}
RUNS_PUMP = "prime_pump_duration"
INPUTS: Mapping[str, Mapping[str, object]] = {
    "name_input": {"calibration_name": "bench"},
    "volume_targets": {"mls_to_calibrate_for": [0.5, 1.0]},
    "pwm_settings": {"hz": 250, "dc": 100},
}
"""Of the steps before the pump runs; the others take none."""


def measure() -> Iterator[Figure]:
    with (
        generator() as load,
        data_dir() as directory,
        piod(directory) as unit,
        Client(unit) as client,
        Client(unit) as pumping,
    ):
        paths = [f"{API}/{_start(client)}" for _ in range(SESSIONS)]
        length = len(client.ask("GET", paths[-1]))
        _run_pump(client, pumping, paths[0])
        ours: list[Load] = []
        theirs: list[Load] = []
        # each path as long as it is there, so that the requests are alike
        with bare(dict.fromkeys(paths, length)) as handler:
            for number in range(-1, ROUNDS):  # the first one fills caches
                turns = [(unit, ours), (handler, theirs)]
                for server, loads in turns if number % 2 else reversed(turns):
                    one = load.get(server.port, *paths, connections=SESSIONS, seconds=SECONDS)
                    if number >= 0:
                        loads.append(one)
        _check_pump(client, paths[0])
        client.ask("POST", f"{paths[0]}/abort")
        pumping.receive()
    baseline = f"bare aiohttp handler, {length} bytes, as many connections"
    for name, aim, values, others in (
        ("p50", None, [one.p50_ms for one in ours], [one.p50_ms for one in theirs]),
        ("p99", 50, [one.p99_ms for one in ours], [one.p99_ms for one in theirs]),
        ("longest", 50, [one.longest_ms for one in ours], [one.longest_ms for one in theirs]),
    ):
        yield Figure(
            f"GET of a session, {SESSIONS} at once, {name}",
            "ms",
            values,
            baseline,
            others,
            aim_max=aim,
            note=f"longest of {sum(one.requests for one in ours)} {max(values):.0f} ms, "
            f"of the baseline's {max(others):.0f} ms"
            if name == "longest"
            else "",
        )


def _start(client: Client) -> str:
    return str(json.loads(client.ask("POST", API, START))["session"]["session_id"])


def _run_pump(client: Client, pumping: Client, path: str) -> None:
    """Take a session to where its pump runs; ``pumping`` waits for the answer."""
    step = _step(client, path)
    while step != RUNS_PUMP:
        client.ask("POST", f"{path}/inputs", {"inputs": INPUTS.get(step, {})})
        step = _step(client, path)
    pumping.send("POST", f"{path}/inputs", {"inputs": {"prime_duration_s": PUMP_S}})
    client.await_answer(path, lambda answer: json.loads(answer)["session"]["progress"] is not None)


def _check_pump(client: Client, path: str) -> None:
    if json.loads(client.ask("GET", path))["session"]["progress"] is None:
        raise Broken("the pump of the session did not run to the end of the measurement")


def _step(client: Client, path: str) -> str:
    return str(json.loads(client.ask("GET", path))["step"]["step_id"])
