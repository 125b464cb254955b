"""What an export of the data directory holds, entry by entry.

:func:`export_entries` is for :class:`piod.storage.zips.ZipStream`. Databases are
copied by SQLite's backup, one at a time, so that each is whole although somebody
writes to it. What cannot be read is left out with a line in the log, and so are
links that lead out of the tree.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from piod.storage.database_files import is_database, is_ledger_file, owner_of_sidecar
from piod.storage.files import TEMPORARY_PREFIX
from piod.storage.layout import (
    LEDGER_NAME,
    METADATA_NAME,
    PLUGIN_ENVIRONMENT,
    READINGS_NAME,
    SIMULATOR_FOLDER,
    STORAGE_FOLDER,
    is_private,
)
from piod.storage.sqlite_file import primary_code
from piod.storage.zips import ZipEntry

UPSTREAM_BACKUP = f"{STORAGE_FOLDER}/pioreactor.sqlite.backup"
BUSY_S = 5.0
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_log = logging.getLogger(__name__)


def metadata(
    *, unit_name: str, leader_name: str, app_version: str, exported_at_utc: str
) -> dict[str, object]:
    """What an archive says of itself, in the shape that upstream reads."""
    return {
        "metadata_version": 1,
        "name": unit_name,
        "leader_hostname": leader_name or "unknown",
        "is_leader": bool(leader_name) and unit_name == leader_name,
        "app_version": app_version,
        "exported_at_utc": exported_at_utc,
    }


def export_entries(root: Path, about: Mapping[str, object]) -> Generator[ZipEntry, None, None]:
    """All of the data directory ``root``, sorted, and ``about`` as the last entry.

    Touches the disk at each step. Close it at the end: it may hold a temporary file.
    """
    real_root = Path(os.path.realpath(root))
    open_folders = [iter(_sorted(_Found("", root)))]
    whole: set[Path] = set()
    while open_folders:
        found = next(open_folders[-1], None)
        if found is None:
            open_folders.pop()
            continue
        if _is_left_out(found.name):
            continue
        try:
            entry = _resolved(found, real_root)
            if entry is None:
                continue
            mode = os.lstat(entry.path).st_mode
            if stat.S_ISDIR(mode):
                yield ZipEntry(f"{entry.name}/")
                open_folders.append(iter(_sorted(entry)))
            elif stat.S_ISREG(mode):
                yield from _file(entry, whole, root)
            else:
                _leave_out(found, "it is a device, a pipe or a socket")
        except OSError as error:
            _leave_out(found, error.strerror or str(error))
    yield ZipEntry(METADATA_NAME, json.dumps(about, indent=2).encode())


@dataclass(frozen=True)
class _Found:
    """Something in the tree: its name in the archive, where it is, and how it was reached."""

    name: str
    path: Path
    by_link: bool = False


def _sorted(folder: _Found) -> list[_Found]:
    try:
        names = sorted(os.listdir(folder.path))
    except OSError as error:
        _leave_out(folder, error.strerror or str(error))
        return []
    prefix = f"{folder.name}/" if folder.name else ""
    return [_Found(prefix + name, folder.path / name, folder.by_link) for name in names]


def _is_left_out(name: str) -> bool:
    first, _, below = name.partition("/")
    return (
        is_private(name)
        or name in (METADATA_NAME, UPSTREAM_BACKUP)
        or first == PLUGIN_ENVIRONMENT  # of this machine's Python
        or (first == SIMULATOR_FOLDER and below.endswith(".new"))
    )


def _resolved(found: _Found, real_root: Path) -> _Found | None:
    """``found`` with links followed; None if it is left out."""
    if not stat.S_ISLNK(os.lstat(found.path).st_mode):
        return found
    real = Path(os.path.realpath(found.path))
    if not real.is_relative_to(real_root) or real == real_root:
        _leave_out(found, "it is a link that leads out of the data directory")
        return None
    name = real.relative_to(real_root).as_posix()
    if _is_left_out(name):
        return None
    if stat.S_ISDIR(os.stat(real).st_mode):
        holds_itself = Path(os.path.realpath(found.path.parent)).is_relative_to(real)
        if found.by_link or holds_itself:
            _leave_out(found, "it is a link that may lead in circles")
            return None
        return _Found(found.name, real, by_link=True)
    return _Found(found.name, real, found.by_link)


def _file(found: _Found, whole: set[Path], root: Path) -> Iterator[ZipEntry]:
    """``found``; a database as a copy that SQLite has made of it.

    ``whole``: the databases that are in the archive with all that their logs hold.
    """
    owner = owner_of_sidecar(found.path)
    if owner in whole:
        return
    is_open_here = is_ledger_file(found.path, root)
    if is_open_here and found.path.name not in (LEDGER_NAME, READINGS_NAME):
        return  # its log; or a second name, by which SQLite would not find its log
    if not is_open_here and not is_database(found.path):
        yield ZipEntry(found.name, found.path)
        return
    copy = (root / STORAGE_FOLDER) / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
    try:
        try:
            _copy_database(found.path, copy)
        except sqlite3.Error as error:
            if is_open_here or primary_code(error) not in DAMAGED:
                _leave_out(found, str(error))
            else:
                yield ZipEntry(found.name, found.path)  # such as it is, and its log after it
            return
        whole.add(found.path)
        yield ZipEntry(found.name, copy)
    finally:
        for part in (copy, copy.with_name(f"{copy.name}-journal")):
            part.unlink(missing_ok=True)


def _copy_database(source: Path, target: Path) -> None:
    """A copy as of one instant. Raises sqlite3.Error or OSError."""
    target.parent.mkdir(exist_ok=True)
    target.touch(stat.S_IMODE(os.stat(source).st_mode) | stat.S_IRUSR | stat.S_IWUSR)
    # Read-only, SQLite leaves a log behind that was not there; else it may drop one that it
    # takes for stale, and of a damaged database that is worth keeping.
    mode = "ro" if source.with_name(f"{source.name}-wal").exists() else "rw"
    uri = f"{source.absolute().as_uri()}?mode={mode}"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        copy.execute("PRAGMA synchronous = OFF")
        copy.execute("PRAGMA journal_mode = OFF")
        live.backup(copy)


def _leave_out(found: _Found, why: str) -> None:
    _log.warning("%a is left out of an export: %s", found.name, why)
