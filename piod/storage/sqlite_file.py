"""The file of a database: opened and checked, brought up to date, its errors understood.

:func:`open_database` gives the connection that writes, :func:`connect` further
ones; :func:`refusal` turns what SQLite raises into piod's own refusals.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from piod.errors import StorageFailed, StorageFull
from piod.storage.files import make_folder, storage_error, sync_folder

BUSY_S = 5.0
"""How long a person's sqlite3 shell may lock the file before a commit fails."""

_log = logging.getLogger(__name__)

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def open_database(
    path: Path, schema: Sequence[Sequence[str]]
) -> tuple[sqlite3.Connection, Path | None]:
    """Open ``path`` for writing, made if it is missing, its tables brought up to date.

    A damaged file is moved aside, loudly, and a new one is made; the second
    result is where the damaged one lies, else None.

    Raises :class:`StorageFailed` or :class:`StorageFull`.
    """
    moved_to: Path | None = None
    try:
        make_folder(path.parent)
        try:
            return _open_and_check(path, schema), moved_to
        except sqlite3.DatabaseError as error:
            # A sector that cannot be read is damage too; the rename does not touch it.
            bad_sector = _extended_code(error) == sqlite3.SQLITE_IOERR_READ
            if primary_code(error) not in _DAMAGED and not bad_sector:
                raise
            moved_to = _move_aside(path)
            _log.error(
                "The database %s is damaged (%s). It was moved to %s and a new one begins: "
                "the history before now is only in that file.",
                path,
                error,
                moved_to,
            )
            return _open_and_check(path, schema), moved_to
    except sqlite3.Error as error:
        raise refusal(path, "could not be opened", error) from error
    except OSError as error:
        raise storage_error(f"the database {path} could not be opened", error) from error


def connect(path: Path) -> sqlite3.Connection:
    """A connection without implicit transactions, usable from any one thread at a time."""
    # isolation_level=None: transactions are begun and ended here, not by the module's guesses
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    return connection


def refusal(path: Path, what: str, error: sqlite3.Error) -> StorageFull | StorageFailed:
    """The refusal that tells ``what`` failed with the database ``path``, and why."""
    code = primary_code(error)
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    message = f"the database {path} {what}: {error}"
    cause = f"{name}: {error}"
    # A flush or the shared memory file that finds no room is an I/O error to SQLite.
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _free_bytes(path) < 65536):
        return StorageFull(message, cause=cause)
    if code in _DAMAGED:
        return StorageFailed(
            message,
            cause=cause,
            remediation="Restart piod: at its start it puts a damaged database aside and begins "
            "a new one. Then check the disk or SD card.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StorageFailed(
            message,
            cause=cause,
            remediation="Check that the disk is mounted writable and that the user that runs "
            f"piod owns {path.parent}.",
        )
    return StorageFailed(message, cause=cause)


def _free_bytes(path: Path) -> float:
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return math.inf
    return disk.f_bavail * disk.f_frsize


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 if the module itself raised."""
    return _extended_code(error) & 0xFF


def _extended_code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code


def _open_and_check(path: Path, schema: Sequence[Sequence[str]]) -> sqlite3.Connection:
    if not path.exists():
        # SQLite would leave the group without the right to write; logs get the mode of the file
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o664))
    connection = connect(path)
    try:
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
            # Has no effect once something is in the file.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StorageFailed(
                f"the database {path} could not be opened: its disk does not support "
                f"write-ahead logging (it offers {mode!r})",
                remediation="Put the data directory on a local, writable disk.",
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 1048576")
        problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            damage = sqlite3.DatabaseError(" ".join(problem.split()))
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage
        _migrate(connection, path, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: Path, schema: Sequence[Sequence[str]]) -> None:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(schema):
        _log.warning(
            "the database %s has schema %d, this piod knows %d: it is used as it is",
            path,
            version,
            len(schema),
        )
    if version >= len(schema):
        return
    connection.execute("BEGIN IMMEDIATE")
    for step in schema[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(schema)}")
    connection.execute("COMMIT")


def _move_aside(path: Path) -> Path:
    """Rename a database and its log, so that they can still be opened together.

    The log goes first: after a kill in between, no old log lies beside a new file.
    """
    base = f"{path.name}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, count = path.with_name(base), 1
    while aside.exists():
        count += 1
        aside = path.with_name(f"{base}-{count}")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    sync_folder(path.parent)
    return aside
