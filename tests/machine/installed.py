"""The unit under test: piod, installed and started by systemd in a container, simulated.

Power, services and updates are real there: it speaks with the container's own D-Bus.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.machine.container import Container, ask, wait_until
from tests.machine.tree import run_in

SERVICE = "piod.service"
STIRRER = "17"
"""GPIO of the stirrer on the HATs that are shipped."""
ENVIRONMENT = """\
PIOD_OPTIONS=--simulate
DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket
"""
CONFIGURATION = """\
[piod]
web_server_units=lighttpd.service
"""
DUMMY = """\
[Service]
ExecStart=/bin/sleep infinity
"""
DUMMIES = ("lighttpd.service", "bystander.service")
"""Services to restart, or not to; the first is one that piod may."""
UP = ("running\n", "degraded\n")
"""Of systemctl is-system-running: what is not on its way down."""
_TARGETS_RPM = itertools.count(400)
"""Never the same twice: piod refuses to start the same thing twice within a second."""


def install(deb: Path, tree: Path) -> None:
    """Install a package in a tree, and make it a simulated unit, before the first boot."""
    shutil.copy(deb, tree / "root" / "piod.deb")
    run_in(tree, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "/root/piod.deb")
    (tree / "etc" / "piod" / "environment").write_text(ENVIRONMENT)
    for name in DUMMIES:
        (tree / "etc" / "systemd" / "system" / name).write_text(DUMMY)


class Installed(Container):
    """A container with piod in it. It is its own leader."""

    @property
    def data_dir(self) -> Path:
        """Its data directory, seen from outside."""
        return self.tree / "var" / "lib" / "piod"

    def boot(self) -> None:
        super().boot()
        self.run("systemctl", "start", *DUMMIES)

    def make_ready(self) -> None:
        """Up, active, and no job running, whatever the test before left."""
        if self.is_up and self.run("systemctl", "is-system-running", check=False).stdout not in UP:
            self.wait_down()
        if not self.is_up:
            self.boot()
        self.run("systemctl", "reset-failed")
        started = self.run("systemctl", "start", SERVICE, check=False)
        assert started.returncode == 0, self.journal()
        self.wait_active()
        if self.running():
            self.finished(self.post("/unit_api/jobs/stop/all"))
        self.configure(CONFIGURATION)

    def configure(self, text: str) -> None:
        """Make ``text`` the configuration of the unit itself."""
        path = self.data_dir / "unit_config.ini"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)

    # -- the service --------------------------------------------------------------------

    def wait_active(self, timeout_s: float = 30.0) -> None:
        """Until it is active and answers."""
        try:
            wait_until("an active piod", lambda: self.state() == "active", timeout_s)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.journal()}") from None
        status, health = self.request("GET", "/unit_api/health")
        assert status == 200, health

    def state(self) -> str:
        return self.unit(SERVICE, "ActiveState")

    def main_pid(self) -> int:
        """Of the daemon, as the container numbers it."""
        return int(self.unit(SERVICE, "MainPID"))

    def invocation(self, name: str = SERVICE) -> str:
        """What changes with each start of a service."""
        return self.unit(name, "InvocationID")

    def journal(self, lines: int = 40) -> str:
        query = ["journalctl", "-o", "cat", "-n", str(lines), "-u", SERVICE]
        return self.run(*query, check=False).stdout

    def with_drop_in(self, text: str, name: str = SERVICE) -> None:
        """Change a service for one test; :meth:`without_drop_in` takes it back."""
        self.run("mkdir", "-p", f"/run/systemd/system/{name}.d")
        self.run("sh", "-c", 'printf %s "$1" > "$2"', "-", text, _drop_in(name))
        self.run("systemctl", "daemon-reload")

    def without_drop_in(self, name: str = SERVICE) -> None:
        self.run("rm", "-f", _drop_in(name))
        self.run("systemctl", "daemon-reload")

    def boot_id(self) -> str:
        return self.output("cat", "/proc/sys/kernel/random/boot_id")

    # -- the reactor --------------------------------------------------------------------

    def outputs(self) -> Mapping[str, Mapping[str, float]]:
        """What the simulated outputs hold."""
        held: dict[str, dict[str, float]] = json.loads(
            (self.data_dir / "simulator" / "outputs.json").read_text()
        )
        return held

    def all_off(self) -> bool:
        return not any(level for group in self.outputs().values() for level in group.values())

    def run_stirring(self) -> str:
        """Stirring, with its output on; the job_id."""
        target_rpm = next(_TARGETS_RPM)
        launched = self.post(
            "/unit_api/jobs/run/job_name/stirring", {"options": {"target_rpm": target_rpm}}
        )
        task = self.finished(launched)
        assert task["status"] == "complete", task
        wait_until("a stirrer that turns", lambda: self.outputs()["pwm"][STIRRER] > 0)
        return str(task["result"]["job_id"])

    def running(self) -> list[dict[str, Any]]:
        """The jobs that run; not the daemon's own, which always do."""
        rows: list[dict[str, Any]] = self.get("/unit_api/jobs/running")
        return [row for row in rows if not row["is_long_running_job"]]

    def row(self, job_id: str) -> dict[str, Any]:
        """A job in the history."""
        return {row["job_id"]: dict(row) for row in self.get("/unit_api/jobs")}[job_id]

    def time_until_off_s(self, since: float) -> float:
        """Seconds of ``time.monotonic()`` since ``since`` until every output is off."""
        until = time.monotonic() + 20
        while not self.all_off():
            assert time.monotonic() < until, f"still on: {self.outputs()}\n{self.journal()}"
            time.sleep(0.002)
        return time.monotonic() - since

    def health_from_inside(self) -> int:
        """The status of one request, for a thread that is in the container's network."""
        return ask("GET", "/unit_api/health", None, 80)[0]


def _drop_in(name: str) -> str:
    return f"/run/systemd/system/{name}.d/test.conf"


def exposure(text: str) -> float:
    """The figure that ``systemd-analyze security`` ends with; 10 is unprotected."""
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", text)
    assert found, text
    return float(found[1])
