"""The updater: does the update that piod asked for. ``python3 -I -m piod.update_runner``

It runs as root in its own unit (``piod-update.service``), so that it outlives the
restart of piod that the update causes, and it takes nothing on trust: the request
(:mod:`piod.update_files`) comes from a process that the network can talk to. It is
read as a hostile file and validated anew; what may be done stands in
``/etc/piod/update.conf`` (:mod:`piod.update_conf`), which must be root's. No shell
is involved, and nothing of the environment reaches a command.

Exit status: 0 the update succeeded (or was dealt with before); 1 it failed, and the
outcome file says why; 2 there was no request that could be answered.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from piod.errors import BadRequest, Forbidden, PiodError
from piod.system import UpdateFailed, UpdateRequest, read_update
from piod.update_conf import UpdateConf, filled, read_conf
from piod.update_files import SEE_LOG, State, UpdateFiles, UpdateRecord, now

CONF_FILE = Path("/etc/piod/update.conf")
LOCK_FILE = "lock"
PIOD_USER = "piod"
ROOT = 0

MAX_REQUEST_BYTES = 16 * 1024
LOG_TAIL_BYTES = 4000
END_S = 10.0
"""A command that ran out of time has so long to end by itself."""
LOCK_RETRY_S = 2.0

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
}
"""All that a command sees."""

_REQUEST_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}", re.ASCII)
_LOCKED = re.compile(rb"Could not get lock|locked by another process|is another process using it")
_TELLING = re.compile(r"(E: |dpkg: error|.*\berror\b)", re.IGNORECASE)


class Runner:
    """One run of the updater.

    ``trusted``: the users who may own the configuration and local packages;
    ``requesters``: those who may own the request.
    """

    def __init__(
        self,
        files: UpdateFiles,
        conf: Path,
        *,
        trusted: Iterable[int],
        requesters: Iterable[int],
    ) -> None:
        self._files = files
        self._conf = conf
        self._trusted = frozenset(trusted)
        self._requesters = frozenset(requesters)
        self._log = b""
        self._stopping = False

    def stop(self, number: int, frame: FrameType | None) -> None:
        """On SIGTERM: nothing more is begun. The command that runs ends by itself.

        It may be in the middle of unpacking; the unit gives it time, also when the
        machine goes down.
        """
        self._stopping = True

    def run(self) -> int:
        """Do the update that is asked for; the exit status. Waits for another run to end."""
        signal.signal(signal.SIGTERM, self.stop)
        with _locked(self._files.outcome.with_name(LOCK_FILE)):
            records = self._without_orphans()
            try:
                request_id, options = read_request(self._files.request, self._requesters)
            except BadRequest as refusal:
                _say(refusal.message)
                return 2
            if any(record.request_id == request_id for record in records):
                _say(f"the update {request_id} was dealt with before")
                return 0
            record = UpdateRecord(
                request_id, "running", self._files.boot_id, now(), step="reading the request"
            )
            self._write(record)
            record = self._update(record, options)
            self._write(record)
            _say(f"{record.state}: {record.message}")
            return 0 if record.state == "succeeded" else 1

    def _update(self, record: UpdateRecord, options: Mapping[str, object]) -> UpdateRecord:
        """The update, to its end. Raises nothing that a request can cause."""
        state: State = "succeeded"
        try:
            request, _ = read_update(record.request_id, options)
            _refuse_removal(request)
            conf = read_conf(self._conf, self._trusted)
            argv = conf.arguments(request, self._trusted)
            record = replace(record, version_before=self._version(conf))
            if conf.repair:
                record = self._step(record, "finishing what was interrupted before")
                self._command(filled(conf.repair, {}, request), conf)  # or the next one says why
            if conf.refresh:
                record = self._step(record, "fetching the package list")
                self._succeed(record, filled(conf.refresh, {}, request), conf)
            record = self._step(record, _installing(request))
            self._succeed(record, argv, conf)
            record = replace(record, version_after=self._version(conf))
            message = _done(record, request, conf.unused_flags(request))
        except PiodError as refusal:
            state, message = "failed", f"{refusal.message}. {refusal.remediation}"
        except OSError as error:
            state, message = "failed", f"it broke off while {record.step}: {error}"
        return replace(
            record,
            state=state,
            ended_at=now(),
            message=message,
            log=self._log.decode("utf-8", "replace"),
        )

    # -- the outcome file -------------------------------------------------------------

    def _records(self) -> list[UpdateRecord]:
        try:
            return self._files.records()
        except ValueError as error:
            _say(f"{self._files.outcome} is begun anew: {error}")
            return []

    def _without_orphans(self) -> list[UpdateRecord]:
        """The records. With the lock held none is of a living run: who says so was interrupted."""
        records = self._records()
        if any(record.state == "running" for record in records):
            records = [
                record.interrupted() if record.state == "running" else record for record in records
            ]
            self._files.write_records(records)
        return records

    def _write(self, record: UpdateRecord) -> None:
        others = [one for one in self._records() if one.request_id != record.request_id]
        self._files.write_records([record, *others])

    def _step(self, record: UpdateRecord, step: str) -> UpdateRecord:
        self._refuse_if_stopping()
        record = replace(record, step=step)
        self._write(record)
        _say(step)
        return record

    # -- commands ---------------------------------------------------------------------

    def _succeed(self, record: UpdateRecord, argv: list[str], conf: UpdateConf) -> None:
        """Raises UpdateFailed with what the command said."""
        status, said = self._command(argv, conf)
        if status != 0:
            raise UpdateFailed(
                f"{record.step} failed ({_ending(argv, status, conf)}): {_telling(said)}",
                remediation=SEE_LOG,
            )

    def _command(self, argv: list[str], conf: UpdateConf) -> tuple[int | None, bytes]:
        """Exit status, and the end of what it said; waits while another holds a lock of apt."""
        give_up = time.monotonic() + conf.lock_wait_s
        while True:
            status, said = _run(argv, conf.timeout_s)
            self._log = (self._log + said)[-LOG_TAIL_BYTES:]
            wait_s = min(LOCK_RETRY_S, give_up - time.monotonic())
            if status == 0 or wait_s <= 0 or not _LOCKED.search(said):
                return status, said
            _say(f"another process is installing packages; waiting for it: {argv[0]}")
            time.sleep(wait_s)
            self._refuse_if_stopping()

    def _refuse_if_stopping(self) -> None:
        if self._stopping:
            raise UpdateFailed(
                "the updater was told to stop before it installed anything",
                remediation="Send the command again.",
            )

    def _version(self, conf: UpdateConf) -> str | None:
        """The version that is installed; None: it is not known."""
        if not conf.version_command:
            return None
        status, said = _run(list(conf.version_command), conf.timeout_s)
        text = said.decode("utf-8", "replace").strip()
        return text if status == 0 and re.fullmatch(r"[!-~]{1,100}", text) else None


# -- the request ----------------------------------------------------------------------


def read_request(path: Path, requesters: Iterable[int]) -> tuple[str, dict[str, object]]:
    """The id of the request, and its options, not validated yet.

    Raises BadRequest. What cannot be understood is never quoted: it might be the
    content of another file.
    """
    try:
        # not through a link, and without waiting for the writer of a pipe
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadRequest(f"there is no request at {path}: {error.strerror or error}") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise BadRequest(f"{path} is not used: it is not a regular file of its own")
        if status.st_uid not in frozenset(requesters):
            raise BadRequest(f"{path} is not used: user {status.st_uid} may not ask for updates")
        data = os.read(file, MAX_REQUEST_BYTES + 1)
    finally:
        os.close(file)
    if len(data) > MAX_REQUEST_BYTES:
        raise BadRequest(f"{path} is not used: it is longer than {MAX_REQUEST_BYTES} bytes")
    try:
        content: object = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadRequest(f"{path} is not used: it is not JSON") from None
    known = {field.name for field in fields(UpdateRequest)}
    if not isinstance(content, dict) or not set(content) <= known:
        raise BadRequest(f"{path} is not used: it may have {', '.join(sorted(known))} alone")
    request_id = content.pop("request_id", None)
    if not isinstance(request_id, str) or not _REQUEST_ID.fullmatch(request_id):
        raise BadRequest(f"{path} is not used: request_id is missing, or is not an id")
    return request_id, {key: v for key, v in content.items() if v is not None and v is not False}


def _refuse_removal(request: UpdateRequest) -> None:
    """``apt-get install piod=1.0-`` would *remove* piod: a dash at the end is a command to apt."""
    if request.version is not None and request.version[-1] in "+-":
        raise Forbidden(
            f"the version {request.version} ends in {request.version[-1]}",
            remediation="Name a version that ends in a letter or a digit.",
        )


def _installing(request: UpdateRequest) -> str:
    if request.source is not None:
        return f"installing {request.source}"
    which = request.version or request.sha or request.branch
    return f"installing piod {which}" if which else "installing the newest piod"


def _done(record: UpdateRecord, request: UpdateRequest, unused_flags: list[str]) -> str:
    """What the update came to. Raises UpdateFailed when that is not what was asked for."""
    before, after = record.version_before, record.version_after
    if request.version is not None and after is not None and after != request.version:
        raise UpdateFailed(
            f"piod {request.version} was asked for, but piod {after} is installed",
            remediation=SEE_LOG,
        )
    if after is None:
        said = "piod is updated"
    elif before == after:
        said = f"piod {after} was the version to be, and is installed"
    else:
        said = f"piod {after} is installed in place of {before or 'an unknown version'}"
    for name in unused_flags:
        said += f"; {name} has no meaning for the command of this unit"
    return said


# -- processes ------------------------------------------------------------------------


def _run(argv: list[str], timeout_s: float) -> tuple[int | None, bytes]:
    """Run a command without input; its status and the end of its output.

    The output goes through a file: a service that the command starts and that
    keeps the output open holds nothing up, and a command does not die of our death.
    A status of None: it was stopped after ``timeout_s``. Raises OSError.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
            umask=0o022,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                _end(process)
            said = _tail(output)
        return status, said


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and what it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(END_S)
            return
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            continue


def _tail(output: BinaryIO) -> bytes:
    """The end of ``output``, which is said in full to our own log."""
    output.seek(0)
    tail = b""
    while chunk := output.read(64 * 1024):
        sys.stdout.buffer.write(chunk)
        tail = (tail + chunk)[-LOG_TAIL_BYTES:]
    sys.stdout.flush()
    return tail


def _ending(argv: list[str], status: int | None, conf: UpdateConf) -> str:
    if status is None:
        how = f"stopped after {conf.timeout_s:g} s"
    else:
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
    return f"{os.path.basename(argv[0])}: {how}"


def _telling(said: bytes) -> str:
    """The line of a command's output that says most about why it failed."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
    lines = [line for line in lines if line] or ["it said nothing"]
    return next((line for line in lines if _TELLING.match(line)), lines[-1])[:300]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of the updater; one that is held is waited for: its holder has a deadline."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another update is under way; waiting for it to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Run as root on the files of the machine."""
    requesters = {ROOT}
    try:
        requesters.add(pwd.getpwnam(PIOD_USER).pw_uid)
    except KeyError:
        _say(f"there is no user {PIOD_USER}: only root can ask for an update")
    runner = Runner(UpdateFiles(), CONF_FILE, trusted={ROOT}, requesters=requesters)
    try:
        return runner.run()
    except PiodError as refusal:
        _say(refusal.message)
    except OSError as error:
        _say(f"nothing was done: {error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
