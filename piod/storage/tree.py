"""The data directory as users of the HTTP API see it: looked at, read, removed from.

:class:`Tree` decides what is theirs. A path is contained twice: as it is written,
and again when every link in it is followed. Pipes, devices and sockets are never
opened. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from piod.errors import BadRequest, Forbidden, NotFound, PiodError, StorageFailed
from piod.storage import files
from piod.storage.database_files import (
    HEAD_BYTES,
    is_database,
    is_database_content,
    is_database_name,
    is_ledger_file,
    owner_of_sidecar,
)
from piod.storage.layout import (
    FILE_SYSTEM_MARKER,
    INSTALLS_MARKER,
    is_plugin,
    is_private,
    is_protected,
)
from piod.storage.masking import holds_secrets, mask_secrets

MAX_MASKED_BYTES = 1024 * 1024
"""How large a configuration file may be to be shown: its mask is made in memory."""

_HIDDEN_FOLDER = "__pycache__"


@dataclass(frozen=True)
class Listing:
    """What is in a folder. ``dirs`` and ``files`` are names, sorted by code point."""

    path: str
    dirs: list[str]
    files: list[str]


@dataclass(frozen=True)
class OpenFile:
    """A file to be sent; whoever gets it closes ``stream``."""

    name: str
    stream: BinaryIO
    size_bytes: int
    modified_at: float
    """Unix time, seconds."""
    tag: str
    """Differs when the content does."""


class Tree:
    """The data directory ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))

    def refuse_if_disallowed(self) -> None:
        """Raises Forbidden while the marker file says that nobody may."""
        if (self.root / FILE_SYSTEM_MARKER).is_file():
            raise Forbidden(
                "the files of this unit may not be used over HTTP",
                cause=f"there is a file {FILE_SYSTEM_MARKER} in the data directory",
                remediation=f"Remove the file {FILE_SYSTEM_MARKER} on the unit, or use SSH.",
            )

    def look(self, requested: str) -> Listing | OpenFile:
        """What is at ``requested``, a path below the data directory.

        Raises BadRequest (NUL), Forbidden (outside, a database, piod's own, no
        file), NotFound or StorageFailed.
        """
        path, real = self._locate(requested)
        with _refusing(requested):
            status = os.stat(real)
            if stat.S_ISDIR(status.st_mode):
                self._refuse_private(real, requested)
                return self._listing(real, requested)
            if requested.endswith("/"):
                raise NotADirectoryError
            return self._open(path, real, requested)

    def remove(self, requested: str) -> bool:
        """Delete the file ``requested`` durably; False if there is no such file.

        The path is relative to the data directory, or absolute and inside it, and
        may begin with ``~``. A link is removed, not what it leads to. Raises as
        :meth:`check_removal` does, or StorageFailed.
        """
        path = self.check_removal(requested)
        with _refusing(requested):
            try:
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    return False
            except (FileNotFoundError, NotADirectoryError):
                return False
        return files.remove_file(path)

    def check_removal(self, requested: str) -> Path:
        """The path that :meth:`remove` would delete.

        Raises BadRequest (NUL), or Forbidden: outside, a database, or a file that
        piod or a fence of this unit is made of.
        """
        _refuse_nul(requested)
        path, real = self._locate(os.path.expanduser(requested))
        # the file itself, not what it leads to; but the links above it are followed
        entry = Path(os.path.realpath(path.parent)) / path.name
        if not entry.is_relative_to(self._real_root):
            raise _outside(requested)
        for target in {entry, real}:
            if is_protected(self._relative(target)):
                raise Forbidden(
                    f"{requested!r} may not be removed over HTTP",
                    cause="it belongs to piod, or it is a marker that guards this unit",
                    remediation="Remove it on the unit itself, while piod is stopped.",
                )
            if os.path.lexists(self.root / INSTALLS_MARKER) and is_plugin(self._relative(target)):
                raise Forbidden(
                    f"{requested!r} may not be removed: plugins of this unit may not be changed",
                    cause=f"the file {INSTALLS_MARKER} lies in its data directory",
                    remediation=f"Remove {INSTALLS_MARKER} on the unit itself.",
                )
        with _refusing(requested, missing_is_fine=True):
            self._refuse_database(entry, requested)
            if stat.S_ISREG(os.lstat(entry).st_mode) and os.access(entry, os.R_OK):
                with entry.open("rb", buffering=0) as file:
                    self._refuse_database_content(file.read(HEAD_BYTES), requested)
        return entry

    # -- where ----------------------------------------------------------------------

    @property
    def _real_root(self) -> Path:
        return Path(os.path.realpath(self.root))

    def _locate(self, requested: str) -> tuple[Path, Path]:
        """``requested`` as a path inside the data directory, and where its links lead."""
        _refuse_nul(requested)
        path = Path(os.path.normpath(os.path.join(self.root, requested)))
        real = Path(os.path.realpath(path))
        # the data directory itself may be reached by a link
        as_written = path.is_relative_to(self.root) or path.is_relative_to(self._real_root)
        if not (as_written and real.is_relative_to(self._real_root)):
            raise _outside(requested)
        return path, real

    def _relative(self, real: Path) -> str:
        return real.relative_to(self._real_root).as_posix()

    # -- what -----------------------------------------------------------------------

    def _listing(self, real: Path, requested: str) -> Listing:
        dirs: list[str] = []
        names: list[str] = []
        with os.scandir(real) as entries:
            for entry in entries:
                if entry.name.startswith(".") and is_private(self._relative(real / entry.name)):
                    continue  # the lock and the socket are no secret, work under way is
                try:
                    is_folder = entry.is_dir()
                except OSError:
                    is_folder = False  # a link that leads nowhere
                if not is_folder:
                    names.append(entry.name)
                elif entry.name != _HIDDEN_FOLDER:
                    dirs.append(entry.name)
        shown = os.path.normpath(os.path.join(self.root, requested))
        if not requested or requested.endswith("/"):
            shown += "/"
        return Listing(shown, sorted(dirs), sorted(names))

    def _open(self, path: Path, real: Path, requested: str) -> OpenFile:
        self._refuse_private(real, requested)
        for place in {path, real}:
            self._refuse_database(place, requested)
        if not stat.S_ISREG(os.stat(real).st_mode):
            raise _no_file(requested)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        stream = os.fdopen(os.open(real, flags), "rb", buffering=0)
        try:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _no_file(requested)  # exchanged meanwhile
            self._refuse_database_content(os.pread(stream.fileno(), HEAD_BYTES, 0), requested)
            tag = f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"
            if not (holds_secrets(path.name) or holds_secrets(real.name)):
                return OpenFile(path.name, stream, status.st_size, status.st_mtime, tag)
            if status.st_size > MAX_MASKED_BYTES:
                raise Forbidden(
                    f"{requested!r} is too large for its secrets to be masked",
                    remediation="Read it on the unit itself.",
                )
            shown = mask_secrets(stream.read(MAX_MASKED_BYTES))
        except BaseException:
            stream.close()
            raise
        stream.close()
        return OpenFile(path.name, BytesIO(shown), len(shown), status.st_mtime, f"{tag}-masked")

    def _refuse_private(self, real: Path, requested: str) -> None:
        if is_private(self._relative(real)):
            raise Forbidden(
                f"{requested!r} is piod's own", remediation="There is nothing in it to be read."
            )

    def _refuse_database(self, path: Path, requested: str) -> None:
        """Refuse by name, and without opening anything that this process has open."""
        owner = owner_of_sidecar(path)
        if (
            is_database_name(path.name)
            or is_ledger_file(path, self.root)
            or (owner is not None and self._is_whole_database(owner))
        ):
            raise _database(requested)

    def _is_whole_database(self, path: Path) -> bool:
        return is_ledger_file(path, self.root) or (path.is_file() and is_database(path))

    def _refuse_database_content(self, head: bytes, requested: str) -> None:
        if is_database_content(head):
            raise _database(requested)


def _refuse_nul(requested: str) -> None:
    if "\0" in requested:
        raise BadRequest("the path must not contain NUL characters")


def _outside(requested: str) -> Forbidden:
    return Forbidden(
        f"the path {requested[:300]!r} leads outside of the data directory",
        remediation="Name a file below the data directory of this unit.",
    )


def _database(requested: str) -> Forbidden:
    return Forbidden(
        f"{requested!r} is (part of) a database: it can be neither read nor removed over HTTP",
        remediation="GET /unit_api/zipped_dot_pioreactor exports a consistent copy of it.",
    )


def _no_file(requested: str) -> Forbidden:
    return Forbidden(
        f"{requested!r} is not a file: it is a device, a pipe or a socket",
        remediation="Only regular files are served.",
    )


@contextmanager
def _refusing(requested: str, *, missing_is_fine: bool = False) -> Iterator[None]:
    """What the file system says about ``requested``, as a refusal."""
    shown = requested[:300]
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if not missing_is_fine:
            raise _missing(shown) from error
    except PermissionError as error:
        raise Forbidden(
            f"piod may not read {shown!r}",
            cause=str(error),
            remediation="Correct the permissions of that file on the unit.",
        ) from error
    except OSError as error:
        raise _os_refusal(shown, error) from error


def _missing(shown: str) -> NotFound:
    return NotFound(
        f"there is no {shown!r} in the data directory of this unit",
        remediation="GET /unit_api/system/path/ lists what is there.",
    )


def _os_refusal(shown: str, error: OSError) -> PiodError:
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return _missing(shown)
    return StorageFailed(f"{shown!r} could not be read: {error.strerror}", cause=str(error))
