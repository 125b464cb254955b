"""A whole unit as a process of its own: ``python -m piod``, spoken to over HTTP.

What it does to its outputs is read from ``outputs.json``, which outlives it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
STIRRER = "17"
"""GPIO of the stirrer on the HATs that are shipped."""
READY = "piod: serving "
START_TIMEOUT_S = 20.0

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait_until(what: str, condition: Callable[[], T], timeout_s: float) -> T:
    """The first value of ``condition`` that is true; fails after ``timeout_s`` of wall time."""
    until = time.monotonic() + timeout_s
    while True:
        late = time.monotonic() > until
        value = condition()
        if value:
            return value
        assert not late, f"{what}: not within {timeout_s} s"
        time.sleep(0.005)


def environment() -> dict[str, str]:
    """For piod: nothing in it says where its files lie or what started it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DOT_PIOREACTOR", "GLOBAL_CONFIG", "LOCAL_CONFIG")
        and name != "DBUS_SYSTEM_BUS_ADDRESS"
        and name not in ("JOURNAL_STREAM", "INVOCATION_ID", "HOSTNAME")
    }
    return {**kept, "PYTHONPATH": str(ROOT)}


def run_piod(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``piod`` with these arguments, to its end."""
    return run_module("-m", "piod", *arguments)


def run_module(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=30,
    )


def safe_outputs(data_dir: Path) -> subprocess.CompletedProcess[str]:
    return run_piod("safe-outputs", "--simulate", "--data-dir", str(data_dir))


def outputs(data_dir: Path) -> dict[str, dict[str, float]]:
    """What the simulated outputs hold."""
    held: dict[str, dict[str, float]] = json.loads(
        (data_dir / "simulator" / "outputs.json").read_text()
    )
    return held


def stirrer_duty(data_dir: Path) -> float:
    return outputs(data_dir)["pwm"][STIRRER]


def all_off(data_dir: Path) -> bool:
    return not any(level for group in outputs(data_dir).values() for level in group.values())


class UnitProcess:
    """One ``piod serve --simulate``, its guard with it.

    It leads a process group of its own and is not reaped before :meth:`close`:
    so its id, and with it the group's, cannot become a stranger's meanwhile.
    ``piod``: the command that it is.
    """

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        port: int = 0,
        piod: Sequence[str] = (sys.executable, "-m", "piod"),
        environ: Mapping[str, str] | None = None,
        listen: socket.socket | None = None,
    ) -> None:
        """``listen``: a listening socket that it is handed as systemd does it.

        It runs no monitor, unless ``unit_config.ini`` is there already and says otherwise:
        these tests count jobs, and the faults that accesses meet.
        """
        self.data_dir = data_dir
        settings = data_dir / "unit_config.ini"
        if not settings.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            settings.write_text("[piod]\nrun_monitor = 0\n")
        logs = data_dir.parent / "logs"
        logs.mkdir(exist_ok=True)
        number = len(list(logs.iterdir()))
        self._stdout = logs / f"{number}.out"
        self._stderr = logs / f"{number}.err"
        command = [*piod, "serve", "--simulate", "--port", str(port)]
        command += ["--data-dir", str(data_dir), *arguments]
        if listen is not None:
            # the id of the process is to be known in it; it comes as file 0, and is to be 3
            handing_over = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 0</dev/null'
            command = ["sh", "-c", handing_over, "sh", *command]
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=listen or subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env={**environment(), **(environ or {})},
                start_new_session=True,
            )
        self.pid = self._process.pid

    # -- the process ----------------------------------------------------------------

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        """Its log."""
        return self._stderr.read_text()

    @property
    def url(self) -> str:
        return self.stdout.splitlines()[0].removeprefix(READY)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def is_ready(self) -> bool:
        return self.stdout.startswith(READY) and "\n" in self.stdout

    def wait_ready(self) -> UnitProcess:
        """Wait for the line that says so."""
        wait_until(
            "the line on stdout",
            lambda: self.is_ready or self.exit_status is not None,
            START_TIMEOUT_S,
        )
        assert self.is_ready, self.stderr
        return self

    @property
    def exit_status(self) -> int | None:
        """None while it runs; minus the signal that killed it."""
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, self.pid, options)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def wait_exit(self, timeout_s: float) -> int:
        wait_until("its exit", lambda: self.exit_status is not None, timeout_s)
        status = self.exit_status
        assert status is not None
        return status

    def guard_pid(self) -> int | None:
        """Its only child, if that lives."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    # after the name, in parentheses: state, parent
                    state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                except OSError:
                    continue  # it has ended
                if int(parent) == self.pid and state != "Z":
                    return int(entry.name)
        return None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill9(self) -> None:
        """As the out-of-memory killer does it."""
        self.signal(signal.SIGKILL)
        self.wait_exit(5)

    def kill9_with_guard(self) -> None:
        """Both at once, as far as one can: the guard, frozen, sees nothing of it."""
        guard = self.guard_pid()
        assert guard is not None
        os.kill(guard, signal.SIGSTOP)
        self.kill9()
        os.kill(guard, signal.SIGKILL)

    def close(self) -> None:
        """Kill what is left and reap it."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended, and its guard with it
        self._process.wait()

    # -- HTTP -----------------------------------------------------------------------

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with _OPENER.open(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)

    def get(self, path: str) -> Any:
        return self._ok(*self.request("GET", path))

    def post(self, path: str, body: object = None) -> Any:
        return self._ok(*self.request("POST", path, body))

    def patch(self, path: str, body: object) -> Any:
        return self._ok(*self.request("PATCH", path, body))

    def delete(self, path: str) -> Any:
        return self._ok(*self.request("DELETE", path))

    @staticmethod
    def _ok(status: int, body: Any) -> Any:
        assert 200 <= status < 300, (status, body)
        return body

    # -- what the tests ask of it -----------------------------------------------------

    def result(self, launched: Mapping[str, str]) -> Any:
        """The result of a task, when it is complete."""
        task = wait_until("the task", lambda: self._over(launched["result_url_path"]), 20)
        assert task["status"] == "complete", task
        return task["result"]

    def failure(self, launched: Mapping[str, str]) -> str:
        """The error of a task, when it has failed."""
        task = wait_until("the task", lambda: self._over(launched["result_url_path"]), 20)
        assert task["status"] == "failed", task
        error: str = task["error"]
        return error

    def _over(self, path: str) -> Any:
        status, task = self.request("GET", path)
        return task if status == 200 else None

    def run_stirring(self, target_rpm: float, **body: object) -> str:
        """Stirring, ready; its job_id."""
        launched = self.post(
            "/unit_api/jobs/run/job_name/stirring",
            {"options": {"target_rpm": target_rpm}, **body},
        )
        job_id: str = self.result(launched)["job_id"]
        return job_id

    def stop_all(self) -> None:
        self.result(self.post("/unit_api/jobs/stop/all"))

    def running(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.get("/unit_api/jobs/running")
        return rows

    def row(self, job_id: str) -> dict[str, Any]:
        """A job in the history."""
        rows = {row["job_id"]: row for row in self.get("/unit_api/jobs")}
        return dict(rows[job_id])

    def settings(self, job_id: str) -> dict[str, str]:
        """What a running job publishes; nothing when it does not run."""
        status, body = self.request("GET", f"/unit_api/jobs/settings/job_id/{job_id}")
        return body["settings"] if status == 200 else {}

    def health(self) -> dict[str, Any]:
        body: dict[str, Any] = self.get("/unit_api/health")
        return body

    def advance(self, seconds: float) -> None:
        self.post("/simulator/advance", {"seconds": seconds})

    @property
    def duty(self) -> float:
        """The duty cycle that the stirrer's output holds, in percent."""
        return stirrer_duty(self.data_dir)


Start = Callable[..., UnitProcess]
"""``start(data_dir, *arguments)``: see the fixture of that name."""
