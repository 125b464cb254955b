"""The two files through which piod and the updater talk: a request, and what became of it.

The updater (:mod:`piod.update_runner`) is another process, with other rights, and
it outlives the daemon that asked. So neither sends the other anything:

- piod writes the request (``/run/piod/update.json``), then has systemd start the
  updater's unit, :data:`UPDATE_UNIT`.
- The updater writes the outcomes (``/var/lib/piod-update/outcome.json``, in a
  directory that is root's alone): the last :data:`KEPT` updates, newest first,
  so that a late poll still finds its own. An update that runs stands there too,
  with the step that it is at.

Both are replaced whole and are on disk when a function here returns. Light: it
is imported by both sides.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from piod.errors import Unavailable
from piod.system import UpdateOutcome, UpdateRequest

UPDATE_UNIT = "piod-update.service"
REQUEST_FILE = Path("/run/piod/update.json")
OUTCOME_FILE = Path("/var/lib/piod-update/outcome.json")
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")

KEPT = 10
"""So many updates are remembered."""

SEE_LOG = f"The log of the update: journalctl -u {UPDATE_UNIT}"

State = Literal["running", "succeeded", "failed"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Running:
    """An update that is under way; ``step`` says at what, such as "fetching the package list"."""

    step: str


@dataclass(frozen=True)
class UpdateRecord:
    """One update, as the outcome file has it. Times are UTC, ISO 8601.

    ``boot_id`` is of the boot that the update ran in; ``log`` the end of what its
    commands said. A version that is not known is None.
    """

    request_id: str
    state: State
    boot_id: str
    started_at: str
    ended_at: str | None = None
    step: str = ""
    message: str = ""
    version_before: str | None = None
    version_after: str | None = None
    log: str = ""

    def interrupted(self) -> UpdateRecord:
        """This update, known to run no longer although nobody wrote how it ended."""
        return replace(self, state="failed", message=interrupted(self.step).message)


class UpdateFiles:
    """The request and the outcomes. ``boot_id``: of this boot; empty when it is not known."""

    def __init__(
        self,
        request: Path = REQUEST_FILE,
        outcome: Path = OUTCOME_FILE,
        *,
        boot_id: str | None = None,
    ) -> None:
        self.request = request
        self.outcome = outcome
        self.boot_id = current_boot_id() if boot_id is None else boot_id

    # -- piod's side ------------------------------------------------------------------

    def write_request(self, request: UpdateRequest) -> None:
        """Leave ``request`` for the updater, in place of any before it.

        Raises Unavailable when it cannot be written. Blocks for a write of the disk.
        """
        try:
            replace_file(self.request, json.dumps(asdict(request)) + "\n")
        except OSError as error:
            raise Unavailable(
                f"an update cannot be asked for: {self.request} could not be written: "
                f"{error.strerror or error}",
                cause=str(error),
                remediation="Updates over HTTP need piod to run as the service piod.service of "
                "its Debian package. Update on the machine itself: sudo apt install piod.",
            ) from error

    def read_outcome(self, request_id: str) -> UpdateOutcome | Running | None:
        """What became of that update; None: the updater has not begun it, or long forgotten it.

        Running is what was written last. It is not believed of a boot before this
        one; that the updater died in this boot only systemd knows (the unit is not
        active): read once more then, and take :func:`interrupted` if it still says
        Running. Raises Unavailable when the file cannot be read.
        """
        try:
            records = self.records()
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"the outcome of the update cannot be known: {self.outcome} cannot be read",
                cause=str(error),
                remediation=f"{SEE_LOG}. The file must be readable for all.",
            ) from error
        record = next((one for one in records if one.request_id == request_id), None)
        if record is None:
            return None
        if record.state != "running":
            return UpdateOutcome(record.state == "succeeded", record.message)
        if self.boot_id and record.boot_id and self.boot_id != record.boot_id:
            return interrupted(record.step)
        return Running(record.step)

    # -- the updater's side -----------------------------------------------------------

    def records(self) -> list[UpdateRecord]:
        """The remembered updates, newest first. Raises OSError; ValueError: not understood."""
        try:
            text = self.outcome.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        content: object = json.loads(text)
        entries = content.get("updates") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError("updates must be a list")
        return [_record(entry) for entry in entries]

    def write_records(self, records: list[UpdateRecord]) -> None:
        """Remember the first :data:`KEPT` of ``records`` (newest first). Raises OSError."""
        content = {"updates": [asdict(record) for record in records[:KEPT]]}
        replace_file(self.outcome, json.dumps(content, indent=1) + "\n")


def interrupted(step: str) -> UpdateOutcome:
    """The outcome of an update that ended at ``step`` without a word."""
    return UpdateOutcome(
        False,
        f"it was interrupted while {step or 'it began'}: the machine or the updater was stopped. "
        "Another update finishes what it left half done.",
    )


def current_boot_id() -> str:
    """The kernel's name for this boot; empty where a sandbox hides it."""
    try:
        return BOOT_ID_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def replace_file(path: Path, text: str) -> None:
    """Make ``path`` hold ``text``, atomically and durably, readable for all.

    Unlike :func:`piod.storage.files.write_file` it makes no folder and takes over
    no mode: it is used as root beside another user's files. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), 0o644)
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _record(entry: object) -> UpdateRecord:
    """Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError("an update must be an object")
    state = next((state for state in STATES if state == entry.get("state")), None)
    if state is None:
        raise ValueError(f"state must be one of {', '.join(STATES)}")
    return UpdateRecord(
        request_id=_text(entry, "request_id"),
        state=state,
        boot_id=_text(entry, "boot_id"),
        started_at=_text(entry, "started_at"),
        ended_at=_text_or_none(entry, "ended_at"),
        step=_text(entry, "step"),
        message=_text(entry, "message"),
        version_before=_text_or_none(entry, "version_before"),
        version_after=_text_or_none(entry, "version_after"),
        log=_text(entry, "log"),
    )


def _text(entry: Mapping[str, object], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text")
    return value


def _text_or_none(entry: Mapping[str, object], name: str) -> str | None:
    return None if entry.get(name) is None else _text(entry, name)
