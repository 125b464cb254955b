"""The updater as a process of its own, on files of the test, and a command that it runs.

Run as a script it is the updater: who is trusted comes from its arguments, since
tests run as root and as anybody.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from piod.system import UpdateRequest
from piod.update_files import UpdateFiles, UpdateRecord
from piod.update_runner import Runner

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0

BOOT = "11111111-1111-1111-1111-111111111111"
ME = os.getuid()
SOMEBODY_ELSE = ME + 1

SCRIPT = """#!/bin/sh
me=$(basename "$0")
{ printf '%s' "$me"; printf '|%s' "$@"; echo; } >> @folder@/calls
env > @folder@/environment
. @folder@/$me.does
"""

CONF = """\
[update]
command = @folder@/install --flag {version?--allow-downgrades} piod{version?=}{version}
refresh = @folder@/refresh now
version_command = @folder@/installed
timeout_s = 20
lock_wait_s = 0
"""


def until(what: str, condition: Callable[[], bool]) -> None:
    """Wait, in wall time."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE_S} s"
        time.sleep(0.01)


class Updater:
    """One machine's updater: its files, its conf, and the programs that stand for apt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "update.conf"
        self.request = folder / "run" / "update.json"
        self.outcome = folder / "state" / "outcome.json"
        self.request.parent.mkdir()
        self.outcome.parent.mkdir()
        self.processes: list[subprocess.Popen[str]] = []
        for name, does in {
            "install": "echo Unpacking; echo 0.2.0 > @folder@/version",
            "refresh": "",
            "repair": "",
            "installed": "cat @folder@/version",
            "take": "",
        }.items():
            self.program(name, does)
        (folder / "version").write_text("0.1.0\n")
        self.write_conf(CONF)

    def program(self, name: str, does: str) -> None:
        """A program ``name`` that notes how it was called and then ``does``, in sh."""
        path = self.folder / name
        path.write_text(SCRIPT.replace("@folder@", str(self.folder)))
        path.chmod(0o755)
        does = does.replace("@folder@", str(self.folder))
        path.with_name(f"{name}.does").write_text(does + "\n")

    def write_conf(self, text: str) -> None:
        self.conf.write_text(text.replace("@folder@", str(self.folder)))
        self.conf.chmod(0o644)

    def files(self, boot_id: str = BOOT) -> UpdateFiles:
        """As piod uses them."""
        return UpdateFiles(self.request, self.outcome, boot_id=boot_id)

    def ask(self, request_id: str = "one", **values: object) -> None:
        """Write a request as piod does."""
        self.files().write_request(UpdateRequest(request_id, **values))  # type: ignore[arg-type] # of the test's choice

    def ask_raw(self, content: object) -> None:
        """Write whatever as the request: bytes, or what JSON makes of it."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.request.write_bytes(data)

    def start(
        self,
        *,
        trusted: int = ME,
        requester: int = ME,
        boot_id: str = BOOT,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start the updater."""
        arguments = [str(self.request), str(self.outcome), str(self.conf), boot_id]
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments, str(trusted), str(requester)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        self.processes.append(process)
        return process

    def run(self, **options: object) -> tuple[int, str]:
        """Run the updater to its end: exit status, and what it said."""
        process = self.start(**options)  # type: ignore[arg-type] # those of start
        said, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, said

    def run_here(self) -> int:
        """As :meth:`run`, in this process: for what is refused, which is said on stdout."""
        before = signal.getsignal(signal.SIGTERM)
        try:
            return Runner(self.files(), self.conf, trusted={ME}, requesters={ME}).run()
        finally:
            signal.signal(signal.SIGTERM, before)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @property
    def calls(self) -> list[str]:
        """How the programs were called: ``name|argument|argument``, in order."""
        calls = self.folder / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def record(self, request_id: str = "one") -> UpdateRecord:
        """What the updater wrote about that update."""
        return next(one for one in self.files().records() if one.request_id == request_id)


def request_object(**changes: object) -> dict[str, object]:
    """A request as it stands in the file, changed."""
    return {**asdict(UpdateRequest("one")), **changes}


def main(arguments: list[str]) -> int:
    request, outcome, conf, boot_id, trusted, requester = arguments
    return Runner(
        UpdateFiles(Path(request), Path(outcome), boot_id=boot_id),
        Path(conf),
        trusted={int(trusted)},
        requesters={int(requester)},
    ).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
