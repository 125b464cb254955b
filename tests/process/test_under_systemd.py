"""The daemon as systemd runs it: told of its state, fed to the watchdog, handed its sockets.

No systemd runs here: the test holds the notify socket and the listening socket.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from unit_process import Start, UnitProcess, all_off, outputs, wait_until

pytestmark = pytest.mark.long  # processes that wait: too slow for the fast tests

WORKER = ("--leader", "leader01")
MODEL = """\
model_name: mine
model_version: "1.0"
display_name: My own
reactor_diameter_mm: 27
reactor_capacity_ml: 20
reactor_max_fill_volume_ml: 18
max_temp_to_reduce_heating: 60
max_temp_to_disable_heating: 63
max_temp_to_shutdown: 65
"""


class Manager:
    """systemd's end of the notify socket."""

    def __init__(self, path: Path) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.told: list[str] = []

    def hear(self) -> list[str]:
        """All that was told so far."""
        while True:
            try:
                self.told += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.told

    def wait(self, line: str, timeout_s: float = 10) -> None:
        wait_until(line, lambda: line in self.hear(), timeout_s)

    def forget(self) -> None:
        self.hear()
        self.told.clear()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    one = Manager(tmp_path / "notify")
    yield one
    one.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """The socket of piod.socket."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as one:
        yield one


class Clients:
    """Each asks again and again, with a connection of its own for each request."""

    def __init__(self, port: int, count: int = 6) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.request("GET", "/unit_api/jobs/running")
                with connection.getresponse() as answer:
                    answer.read()
                    if answer.status != 200:
                        self.failed.append(str(answer.status))
                self.answered += 1
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            finally:
                connection.close()


@contextmanager
def running(unit: UnitProcess) -> Iterator[UnitProcess]:
    try:
        yield unit.wait_ready()
    finally:
        unit.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


# -- what systemd is told ---------------------------------------------------------------


def test_ready_is_told_when_the_outputs_are_off_and_the_port_answers(
    killed: Path, manager: Manager
) -> None:
    port = free_port()
    unit = UnitProcess(killed, *WORKER, port=port, environ=manager.environ)
    try:
        wait_until("READY", lambda: "READY=1" in manager.hear() or unit.exit_status, 20)
        assert all_off(killed)
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
            connection.sendall(b"GET /unit_api/jobs/running HTTP/1.0\r\n\r\n")
            connection.settimeout(5)
            assert connection.recv(100).startswith(b"HTTP/1.0 200"), unit.stderr
        assert manager.hear()[0] == "READY=1", "nothing before that"

        unit.wait_ready().stop_all()  # what was resumed
        manager.wait("STATUS=no job runs")
        unit.run_stirring(400)
        manager.wait("STATUS=1 job: stirring")

        guard = unit.guard_pid()
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{guard}/environ").read_bytes()

        unit.signal(signal.SIGTERM)
        manager.wait("STOPPING=1", 2)
        assert unit.wait_exit(5) == 0
        assert all_off(killed)
    finally:
        unit.close()


def test_the_watchdog_is_fed_until_the_daemon_hangs_and_not_stopped_by_a_missing_device(
    tmp_path: Path, manager: Manager
) -> None:
    environ = {**manager.environ, "WATCHDOG_USEC": "1000000"}
    with running(UnitProcess(tmp_path / "unit", *WORKER, environ=environ)) as unit:
        unit.run_stirring(400)
        unit.post("/simulator/faults", {"kind": "device_missing", "bus": "pwm"})
        unit.advance(10)
        wait_until("its notice", lambda: "lost its device" in unit.stderr, 10)
        manager.forget()
        for _ in range(4):
            manager.wait("WATCHDOG=1", 1)
            manager.forget()
        unit.signal(signal.SIGSTOP)
        time.sleep(0.1)
        manager.forget()
        time.sleep(0.7)
        assert manager.hear() == []
        unit.signal(signal.SIGCONT)
        manager.wait("WATCHDOG=1")


HANGING = """
import signal, sys

def hang(*_):
    import asyncio
    from piod.actors.buses.pwm import PwmBus

    async def stuck(self, message):
        await asyncio.Event().wait()

    PwmBus.receive = stuck

signal.signal(signal.SIGUSR1, hang)
from piod.cli import main
sys.exit(main())
"""
"""A piod whose PWM bus actor hangs from SIGUSR1 on."""


def test_the_watchdog_is_not_fed_any_more_when_a_bus_actor_hangs(
    tmp_path: Path, manager: Manager
) -> None:
    environ = {**manager.environ, "WATCHDOG_USEC": "600000"}
    piod = (sys.executable, "-c", HANGING)
    with running(UnitProcess(tmp_path / "unit", *WORKER, piod=piod, environ=environ)) as unit:
        unit.run_stirring(400)
        manager.wait("WATCHDOG=1", 1)
        unit.signal(signal.SIGUSR1)
        wait_until("its notice", lambda: "systemd will restart piod: pwm bus" in unit.stderr, 5)
        manager.forget()
        time.sleep(3 * 0.6)
        assert "WATCHDOG=1" not in manager.hear()
        assert unit.get("/unit_api/jobs"), "all else of it lives"


def test_the_watchdog_is_fed_while_a_slow_disk_holds_the_ledger(
    tmp_path: Path, manager: Manager
) -> None:
    environ = {**manager.environ, "WATCHDOG_USEC": "600000"}
    with running(UnitProcess(tmp_path / "unit", *WORKER, environ=environ)) as unit:
        unit.run_stirring(400)
        ledger = unit.data_dir / "storage" / "piod.sqlite"
        with (
            closing(sqlite3.connect(ledger, isolation_level=None)) as hog,
            ThreadPoolExecutor(1) as client,
        ):
            hog.execute("BEGIN EXCLUSIVE")
            run = ("POST", "/unit_api/jobs/run/job_name/led_intensity", {"options": {"A": 5}})
            asking = client.submit(unit.request, *run)
            for _ in range(6):
                manager.forget()
                manager.wait("WATCHDOG=1", 0.6)
            assert not asking.done(), "it waits for the ledger"
            hog.execute("ROLLBACK")
            assert asking.result(10)[0] == 202


def test_a_hangup_reads_the_files_again_but_changes_no_unit_that_runs_a_job(
    tmp_path: Path, manager: Manager
) -> None:
    with running(UnitProcess(tmp_path / "unit", *WORKER, environ=manager.environ)) as unit:
        config = unit.data_dir / "config.ini"
        good = config.read_text()
        manager.wait("READY=1")

        def hang_up(then: str) -> None:
            manager.forget()
            before = unit.stderr.count(then)
            unit.signal(signal.SIGHUP)
            manager.wait("READY=1")
            lines = [line for line in manager.told if not line.startswith("STATUS=")]
            assert lines[0] == "RELOADING=1"
            assert lines[1].startswith("MONOTONIC_USEC=")
            assert unit.stderr.count(then) == before + 1, unit.stderr

        config.write_text("nonsense")
        hang_up("Configuration not taken over: config.ini, line 1")
        config.write_text(good)
        hang_up("the configuration was read again")

        (unit.data_dir / "models").mkdir()
        (unit.data_dir / "models/mine.yaml").write_text(MODEL)
        job_id = unit.run_stirring(400)
        hang_up("they count when piod is told again")
        assert unit.settings(job_id)["$state"] == "ready"
        assert not knows_mine(unit)

        unit.stop_all()
        hang_up("the daemon starts anew: its files have changed")
        assert knows_mine(unit)
        assert unit.stdout.count("\n") == 1


def knows_mine(unit: UnitProcess) -> bool:
    """Whether a job may run on the model that MODEL describes."""
    status, answer = unit.request(
        "POST",
        "/unit_api/jobs/run/job_name/stirring",
        {"env": {"MODEL_NAME": "mine", "MODEL_VERSION": "1.0"}},
    )
    if status == 202:
        unit.result(answer)
    else:
        assert (status, "unknown reactor model" in answer["error"]) == (400, True)
    return status == 202


# -- sockets ------------------------------------------------------------------------------


def test_a_restart_under_load_on_the_socket_of_systemd_drops_no_request(
    tmp_path: Path, listening: socket.socket
) -> None:
    data_dir = tmp_path / "unit"
    port = listening.getsockname()[1]
    with ExitStack() as units, Clients(port) as clients:
        for life in range(3):
            unit = UnitProcess(data_dir, *WORKER, "--host", "192.0.2.1", listen=listening)
            units.callback(unit.close)
            unit.wait_ready()
            assert unit.stdout == f"piod: serving http://127.0.0.1:{port}\n"
            enough = clients.answered + 50
            wait_until("answers", lambda: clients.answered > enough, 20)  # noqa: B023  # here
            if life == 0:
                here = f"socket:[{os.fstat(listening.fileno()).st_ino}]"
                of_guard = Path(f"/proc/{unit.guard_pid()}/fd").iterdir()
                assert here not in [os.readlink(entry) for entry in of_guard]
            if life < 2:
                unit.signal(signal.SIGTERM)
                assert unit.wait_exit(5) == 0, unit.stderr
    assert clients.failed == []


def test_whoever_is_connected_at_the_end_is_answered_and_told_to_close(
    tmp_path: Path, listening: socket.socket
) -> None:
    address = listening.getsockname()
    with (
        running(UnitProcess(tmp_path / "unit", *WORKER, listen=listening)) as unit,
        socket.create_connection(address) as early,
        socket.create_connection(address) as half,
        socket.create_connection(address) as silent,
    ):
        half.sendall(b"POST /unit_api/jobs/stop/all HTTP/1.1\r\nHost: x\r\n")
        half.sendall(b"Content-Length: 2\r\n\r\n{")
        time.sleep(0.2)  # so that they are accepted
        unit.signal(signal.SIGTERM)
        wait_until("the end to begin", lambda: "ending" in unit.stderr, 5)
        early.sendall(b"GET /unit_api/jobs/running HTTP/1.1\r\nHost: x\r\n\r\n")
        half.sendall(b"}")
        with socket.create_connection(address) as late:  # for the next instance
            late.sendall(b"GET /unit_api/jobs/running HTTP/1.0\r\n\r\n")
            for one, status in ((early, b"200"), (half, b"202")):
                one.settimeout(5)
                text = b"".join(iter(lambda one=one: one.recv(4096), b""))
                assert text.startswith(b"HTTP/1.1 " + status), text
                assert b"connection: close" in text.lower()
            assert silent.recv(10) == b""
            assert unit.wait_exit(5) == 0
            with running(UnitProcess(unit.data_dir, *WORKER, listen=listening)):
                late.settimeout(5)
                assert late.recv(100).startswith(b"HTTP/1.0 200")


# -- an import --------------------------------------------------------------------------


def test_after_an_import_the_daemon_starts_anew_as_its_files_say_and_refuses_nobody(
    start: Start, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit", *WORKER)
    with urllib.request.urlopen(unit.url + "/unit_api/zipped_dot_pioreactor") as answer:
        exported = zipfile.ZipFile(io.BytesIO(answer.read()))
    entries = {name: exported.read(name) for name in exported.namelist()}
    wiring = "hardware/hats/1.2/pwm.yaml"
    swapped = entries[wiring].replace(b'"1": 17', b'"1": 16').replace(b'"3": 16', b'"3": 17')
    assert swapped != entries[wiring]
    unit.run_stirring(400)
    assert outputs(unit.data_dir)["pwm"]["17"] > 0

    with Clients(unit.port) as clients:
        task = upload(unit, {**entries, wiring: swapped, "models/mine.yaml": MODEL.encode()})
        assert unit.result(task) is True
        wait_until("the new start", lambda: "the daemon starts anew" in unit.stderr, 10)
        answered = clients.answered
        wait_until("more answers", lambda: clients.answered > answered + 50, 20)
    assert clients.failed == []
    assert unit.result(task) is True, "it is kept"
    assert all_off(unit.data_dir)
    assert knows_mine(unit)
    held = outputs(unit.data_dir)["pwm"]
    assert held["16"] > 0
    assert held["17"] == 0

    # the same once more: nothing is made differently, so nothing starts anew
    unit.stop_all()
    task = upload(unit, {**entries, wiring: swapped, "models/mine.yaml": MODEL.encode()})
    assert unit.result(task) is True
    time.sleep(0.3)
    assert unit.stderr.count("the daemon starts anew") == 1

    # one that no unit could start with: the daemon stays as it was
    broken = entries["config.ini"] + b"\n[piod]\nmodel_name = nobodys\nmodel_version = 9\n"
    task = upload(unit, {**entries, wiring: swapped, "config.ini": broken})
    assert unit.result(task) is True
    wait_until("a word", lambda: "unknown reactor model nobodys" in unit.stderr, 5)
    assert unit.running() == []
    unit.signal(signal.SIGTERM)
    assert unit.wait_exit(5) == 0
    assert "Traceback" not in unit.stderr


def upload(unit: UnitProcess, entries: dict[str, bytes]) -> dict[str, str]:
    """Import these files."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    body = b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
    body += packed.getvalue() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    url = unit.url + "/unit_api/import_zipped_dot_pioreactor"
    request = urllib.request.Request(url, body, headers, method="POST")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 202
        launched: dict[str, str] = json.load(answer)
        return launched
