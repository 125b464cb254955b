"""A container with a real systemd as its first process: booted, spoken to, rebooted.

It is systemd-nspawn with a network of its own, whose loopback alone exists:
:meth:`Container.request` speaks HTTP from inside it. What the container does to its
files is seen in its tree, from outside. Needs root; see :mod:`tree`.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.machine.tree import CLEAN_ENVIRONMENT

T = TypeVar("T")

REBOOTED, POWERED_OFF = 133, 0
"""How systemd-nspawn exits."""
BOOT_TIMEOUT_S = 30.0
DOWN_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 120.0
_NAMESPACES = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def wait_until(what: str, condition: Callable[[], T], timeout_s: float = 20.0) -> T:
    """The first value of ``condition`` that is true; fails after ``timeout_s``."""
    until = time.monotonic() + timeout_s
    while True:
        late = time.monotonic() > until
        value = condition()
        if value:
            return value
        assert not late, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.01)


class Container:
    """One tree, booted as often as wanted. ``work``: an empty directory for its console."""

    def __init__(self, tree: Path, work: Path) -> None:
        self.tree = tree
        self._work = work
        self._name = f"piod-test-{os.getpid()}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader: int | None = None
        self._cgroups: list[Path] = []

    # -- up and down ------------------------------------------------------------------

    @property
    def console(self) -> str:
        """All it has written to its console."""
        path = self._work / "console.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def is_up(self) -> bool:
        return self._nspawn is not None and self._nspawn.poll() is None

    def boot(self) -> None:
        """Returns when its systemd says that everything has been started."""
        assert not self.is_up, "it is running"
        self._remove_cgroups()
        self._cgroups = [_new_cgroup(parent, self._name) for parent in _own_cgroups()]
        ready_path = self._work / "ready.sock"
        ready_path.unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
            (self._work / "console.log").open("ab") as console,
        ):
            ready.bind(str(ready_path))
            self._nspawn = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={
                    **CLEAN_ENVIRONMENT,
                    "NOTIFY_SOCKET": str(ready_path),
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                },
                start_new_session=True,
            )
            self._leader = self._wait_ready(ready)

    def _command(self) -> list[str]:
        """nspawn, in cgroups of its own: it would share its parent's with its like."""
        # it does not outlive this process, however that ends
        nspawn = [
            "setpriv",
            "--pdeathsig=TERM",
            "systemd-nspawn",
            "-q",
            "--register=no",
            "--keep-unit",
            "-b",
        ]
        nspawn += ["-D", str(self.tree), f"--machine={self._name}", "--private-network"]
        nspawn += ["--console=pipe", "--notify-ready=yes", "--resolv-conf=off"]
        nspawn += ["--link-journal=no"]
        enter = [f"echo $$ > {shlex.quote(str(group))}/cgroup.procs" for group in self._cgroups]
        return ["sh", "-c", " && ".join([*enter, f"exec {shlex.join(nspawn)}"])]

    def _wait_ready(self, ready: socket.socket) -> int:
        """The process id of its systemd, once that is ready."""
        assert self._nspawn is not None
        leader = None
        until = time.monotonic() + BOOT_TIMEOUT_S
        ready.settimeout(0.2)
        while time.monotonic() < until and self._nspawn.poll() is None:
            try:
                told = dict(line.split("=", 1) for line in ready.recv(4096).decode().splitlines())
            except TimeoutError:
                continue
            leader = told.get("X_NSPAWN_LEADER_PID", leader)
            if told.get("READY") == "1" and leader is not None:
                return int(leader)
        raise AssertionError(f"the container did not come up; its console:\n{self.console}")

    def wait_down(self) -> int:
        """How nspawn exits: REBOOTED or POWERED_OFF."""
        assert self._nspawn is not None
        try:
            return self._nspawn.wait(DOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it is still up; its console:\n{self.console}") from None

    def close(self) -> None:
        """End it as a power cut does, and leave nothing of it but its tree."""
        if self._nspawn is not None:
            if self.is_up and self._leader is not None:
                os.kill(self._leader, signal.SIGKILL)
                try:
                    self._nspawn.wait(10)
                except subprocess.TimeoutExpired:
                    pass  # as below
            if self.is_up:
                self._nspawn.kill()
            self._nspawn.wait()
        self._remove_cgroups()

    def _remove_cgroups(self) -> None:
        for top in self._cgroups:
            for group, _, _ in os.walk(top, topdown=False):
                wait_until(f"an empty {group}", partial(_removed, group), 5)
        self._cgroups = []

    # -- inside -----------------------------------------------------------------------

    def run(
        self, *command: str, user: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or as ``user``, who has no session then."""
        if user is not None:
            as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
            command = (*as_user, "--", *command)
        done = subprocess.run(
            ["nsenter", "-t", str(self._leader), *_NAMESPACES, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=CLEAN_ENVIRONMENT,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert not check or done.returncode == 0, (
            f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def output(self, *command: str, user: str | None = None) -> str:
        """What a command prints that succeeds."""
        return self.run(*command, user=user).stdout.strip()

    def unit(self, name: str, what: str) -> str:
        """A property of a systemd unit."""
        return self.output("systemctl", "show", "--value", "-p", what, name)

    def outer_pid(self, inner_pid: int) -> int:
        """What a process inside is called outside, where a signal takes no detour."""
        namespace = os.readlink(f"/proc/{self._leader}/ns/pid")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                ids = next(filter(_is_nspid, status.read_text().splitlines())).split()
                may_be = len(ids) > 2 and int(ids[-1]) == inner_pid
                if may_be and os.readlink(status.parent / "ns" / "pid") == namespace:
                    return int(status.parent.name)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
        raise AssertionError(f"no process {inner_pid} inside")

    # -- its network ------------------------------------------------------------------

    def inside_network(self, work: Callable[[], T]) -> T:
        """Do ``work`` in a thread that sees the container's network alone."""
        with ThreadPoolExecutor(1) as one_thread:
            return one_thread.submit(self._in_network, work).result()

    def _in_network(self, work: Callable[[], T]) -> T:
        with open(f"/proc/{self._leader}/ns/net") as namespace:
            if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        return work()

    def request(
        self, method: str, path: str, body: object = None, *, port: int = 80
    ) -> tuple[int, Any]:
        """Status and JSON of piod's answer."""
        return self.inside_network(lambda: ask(method, path, body, port))

    def get(self, path: str) -> Any:
        return _ok(*self.request("GET", path))

    def post(self, path: str, body: object = None) -> Any:
        return _ok(*self.request("POST", path, body))

    def finished(self, launched: dict[str, str], timeout_s: float = 20.0) -> dict[str, Any]:
        """A task, when it is over, however it ended."""

        def over() -> Any:
            status, task = self.request("GET", launched["result_url_path"])
            return task if status == 200 else None

        return dict(wait_until("the end of the task", over, timeout_s))


def ask(method: str, path: str, body: object, port: int) -> tuple[int, Any]:
    """One request on a connection of its own to this network's loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def _ok(status: int, body: Any) -> Any:
    assert 200 <= status < 300, (status, body)
    return body


def _is_nspid(line: str) -> bool:
    return line.startswith("NSpid:")


# -- cgroups ----------------------------------------------------------------------------


def _own_cgroups() -> list[Path]:
    """This process's groups in the hierarchies that a systemd manages its units in.

    That is the unified one (v2) and, where it is mounted too, the one named systemd (v1).
    """
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for _, place, kind, options, *_ in mounts:
            unified = controllers == "" and kind == "cgroup2"
            named = controllers == "name=systemd" and kind == "cgroup"
            if unified or (named and "name=systemd" in options.split(",")):
                found.append(Path(place + path))
                break
    assert found, "no cgroup hierarchy is mounted here that a systemd can use"
    return found


def _new_cgroup(parent: Path, name: str) -> Path:
    group = parent / name
    group.mkdir(exist_ok=True)
    return group


def _removed(group: str) -> bool:
    try:
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # its last process is still ending
    return True


def lines_of(text: str) -> Sequence[dict[str, Any]]:
    """JSON, one object a line, as ``journalctl -o json`` prints it."""
    return [json.loads(line) for line in text.splitlines()]
