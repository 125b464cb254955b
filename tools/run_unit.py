"""``make run``: a simulated unit with its first jobs, and where to look.

Starts the daemon as a user would, waits for its line, runs the jobs over HTTP,
and then stays in front of it until Ctrl-C.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

JOBS: Mapping[str, Mapping[str, object]] = {
    "stirring": {},
    "od_reading": {},
    "temperature_automation": {"automation_name": "thermostat", "target_temperature": 37},
}
"""The first jobs, and their options."""
READY_TIMEOUT_S = 30.0


def request(url: str, body: object = None) -> object:
    """The JSON that ``url`` answers; a POST when there is a body."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as response:
        return json.load(response)


def run(url: str, job: str, options: Mapping[str, object]) -> str:
    """Run a job; its id once it is ready."""
    launched = request(f"{url}/unit_api/jobs/run/job_name/{job}", {"options": options})
    assert isinstance(launched, dict)
    until = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < until:
        task = request(url + str(launched["result_url_path"]))
        assert isinstance(task, dict)
        if task["status"] == "complete":
            return str(task["result"]["job_id"])
        if task["status"] == "failed":
            raise SystemExit(f"{job} does not start: {task['error']}")
        time.sleep(0.1)
    raise SystemExit(f"{job} is not ready after {READY_TIMEOUT_S:g} s")


def measured(url: str, job: str, setting: str) -> object:
    """What a job measures first: the value of that name in its setting."""
    until = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < until:
        body = request(f"{url}/unit_api/jobs/settings/job_name/{job}")
        assert isinstance(body, dict)
        if setting in body["settings"]:
            return json.loads(body["settings"][setting])
        time.sleep(0.2)
    raise SystemExit(f"{job} measures no {setting}")


def main(port: str, data_dir: str) -> int:
    piod = Path(sys.executable).with_name("piod")
    daemon = subprocess.Popen(
        [piod, "serve", "--simulate", "--port", port, "--data-dir", data_dir],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert daemon.stdout is not None
    line = daemon.stdout.readline()
    if not line:
        return daemon.wait()
    url = line.split()[-1]
    for job, options in JOBS.items():
        print(f"piod: {job} is running (job {run(url, job, options)})")
    for job, setting in (
        ("stirring", "measured_rpm"),
        ("od_reading", "ods"),
        ("temperature_automation", "temperature"),
    ):
        print(f"piod: {job} measures {json.dumps(measured(url, job, setting))}")
    print(
        f"""
  A simulated Pioreactor answers at {url}

    what it measures   curl -s {url}/unit_api/jobs/settings/job_name/od_reading
    all of it, as CSV  curl -s {url}/unit_api/readings/od
    every endpoint     {url}/unit_api/docs
    the truth inside   curl -s {url}/simulator/plant
    what the pins hold {data_dir}/simulator/outputs.json

  Ctrl-C ends it.
""",
        flush=True,
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the daemon, too
    signal.signal(signal.SIGTERM, lambda number, frame: daemon.terminate())
    return daemon.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
