"""An experiment with its seven jobs in one simulated unit: memory, and processor time.

The simulated reactor is in both figures: the physics and the chips behind the wire, which a
real unit does not have to pay for. The baselines are figures that were not measured here:
those of the implementation on Flask and Huey, on a virtual machine with two processors.
"""

from __future__ import annotations

import json
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.figures import Figure
from bench.footprint import alone_mib, child_of, rollup_mib
from bench.processes import Broken, Client, data_dir, piod, processes_cpu_s

ROUNDS = 3
ROUND_S = 20.0
WARM_UP_S = 900.0
"""Simulated, as fast as it goes: blanks, filters and caches are filled by then."""
EXPERIMENT = "bench"
FLASK_MIB = 250.0
FLASK_CPU_S = 9.8
QUOTED = "Flask and Huey, quoted: another machine, 2 cores"
RUN = "/unit_api/jobs/run/job_name"
RUNNING = "/unit_api/jobs/running"
JOBS: Mapping[str, Mapping[str, object]] = {
    "stirring": {"target_rpm": 500, "enable_dodging_od": True},
    "growth_rate_calculating": {},
    "od_reading": {},
    "temperature_automation": {"automation_name": "thermostat", "target_temperature": 37},
    "led_automation": {
        "automation_name": "light_dark_cycle",
        "light_intensity": 30,
        "light_duration_minutes": 1,
        "dark_duration_minutes": 1,
    },
    "dosing_automation": {
        "automation_name": "chemostat",
        "exchange_volume_ml": 0.5,
        "duration": 1,
    },
}
"""With the monitor, which the daemon runs by itself, seven."""
READINGS = ("rpm", "od", "growth_rate", "led", "dosing")
"""Which the jobs take within a minute."""
PUMP = """\
calibration_type: simple_peristaltic_pump
calibration_name: bench
calibrated_on_pioreactor_unit: bench
created_at: 2026-05-20T18:02:11Z
curve_data_: {type: poly, coefficients: [0.09, 0.0]}
recorded_data: {x: [1, 5, 10], y: [0.09, 0.45, 0.9]}
hz: 200
dc: 100
voltage: 12
"""


def measure() -> Iterator[Figure]:
    with data_dir() as directory:
        _prepare(directory)
        with piod(directory) as unit, Client(unit) as client:
            for role in ("media", "waste"):
                record = {"calibration_data": PUMP, "set_as_active": True}
                client.ask("POST", f"/unit_api/calibrations/{role}_pump", record)
            both = (unit.pid, child_of(unit.pid))
            idle = _cpu_s_per_minute(both, ROUND_S)
            for name, options in JOBS.items():
                body = {"options": options, "env": {"EXPERIMENT": EXPERIMENT}}
                task = json.loads(client.ask("POST", f"{RUN}/{name}", body))["result_url_path"]
                client.await_answer(task, lambda answer: b'"complete"' in answer)
            client.ask("POST", "/simulator/advance", {"seconds": WARM_UP_S})
            since = json.loads(client.ask("GET", "/unit_api/health"))["utc_time"]
            seconds = [_cpu_s_per_minute(both, ROUND_S) for _ in range(ROUNDS)]
            mib = alone_mib(unit.pid) + rollup_mib(both[1], "Pss_Anon")
            plain_mib = sum(rollup_mib(pid, "Pss") for pid in both)
            running = {job["job_name"] for job in json.loads(client.ask("GET", RUNNING))}
            if running != {*JOBS, "monitor"}:
                raise Broken(f"not all jobs run to the end: {', '.join(sorted(running))} do")
            _check_readings(client, since)
    yield Figure(
        "seven jobs, memory of daemon and guard",
        "MiB",
        [mib],
        QUOTED,
        [FLASK_MIB],
        aim_max=70,
        note=f"anonymous PSS and all file pages, as if no other Python ran; "
        f"plain PSS {plain_mib:.1f} MiB",
    )
    yield Figure(
        "seven jobs, processor time in a minute",
        "s",
        seconds,
        QUOTED,
        [FLASK_CPU_S],
        aim_max=1.0,
        note=f"daemon and guard, {ROUNDS} times {ROUND_S:g} s; the simulated reactor is in it; "
        f"the same unit with the monitor alone: {idle:.2f} s",
    )


def _prepare(directory: Path) -> None:
    """What the configuration of an experiment has beyond the defaults."""
    (directory / "config.ini").write_text(
        "[PWM]\n1=stirring\n2=media\n3=alt_media\n4=waste\n5=heating\n"
        "[leds]\nA=IR\nC=white\nD=blue\n"
        "[od_reading.config]\nref_normalization=unity\n"
    )


def _check_readings(client: Client, since: str) -> None:
    """Every job has done its work meanwhile."""
    for kind in READINGS:
        query = f"experiment={EXPERIMENT}&since={urllib.parse.quote(since)}"
        rows = client.ask("GET", f"/unit_api/readings/{kind}?{query}").count(b"\n") - 1
        if rows < 1:
            raise Broken(f"there were no readings of the kind {kind}")


def _cpu_s_per_minute(pids: tuple[int, ...], seconds: float) -> float:
    before_s, began_s = processes_cpu_s(pids), time.monotonic()
    time.sleep(seconds)
    return 60 * (processes_cpu_s(pids) - before_s) / (time.monotonic() - began_s)
