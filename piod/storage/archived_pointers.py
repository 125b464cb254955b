"""Which calibrations and estimators were active on the unit that a tree of files is of.

piod's own archive tells it in its ledger, upstream's in its persistent cache. Both
may be somebody's upload: read with limits, and believed only where the artifact
exists. The cache of an installation that is used as it lies is in use by others:
:func:`cached_pointers` leaves it, and what lies beside it, untouched.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from piod.storage.files import storage_error
from piod.storage.sqlite_file import refusal

_log = logging.getLogger(__name__)

UPSTREAM_CACHE = "local_persistent_pioreactor_metadata.sqlite"

FOLDERS = {"calibration": "calibrations", "estimator": "estimators"}
"""Below storage, by kind of artifact."""

MAX_POINTERS = 1000
MAX_NAME = 300
MAX_VALUE_BYTES = 100_000
MAX_STEPS = 1_000_000
"""Of SQLite's virtual machine: a few seconds, should the file be made to take for ever."""


def archived_pointers(storage: Path, ledger: Path) -> dict[tuple[str, str], str]:
    """The name of the active artifact by kind (calibration, estimator) and device.

    ``storage``: the folder of that name in an unpacked archive; ``ledger``: where
    the archive's ledger lies, if it had one. A database that cannot be read tells
    of none.
    """
    if ledger.is_file():
        path, query = ledger, _from_ledger
    elif (storage / UPSTREAM_CACHE).is_file():
        path, query = storage / UPSTREAM_CACHE, _from_upstream
    else:
        return {}
    try:
        found = _read(str(path), query)
    except sqlite3.Error as error:
        _log.warning("The active artifacts in %s could not be read: %s", path.name, error)
        return {}
    return _believed(found, storage)


def cached_pointers(storage: Path, cache: Path) -> dict[tuple[str, str], str]:
    """The same of an installation that is in use, from its persistent ``cache``.

    Raises StorageFailed or StorageFull when the cache cannot be read.
    """
    try:
        return _believed(_read(_untouched(cache), _from_upstream), storage)
    except sqlite3.Error as error:
        raise refusal(cache, "could not be read", error) from error
    except OSError as error:
        raise storage_error(f"the database {cache} could not be read", error) from error


def _untouched(path: Path) -> str:
    """The URI under which SQLite reads ``path`` and makes no file beside it.

    While somebody uses it, or died using it, its log is there and is read too.
    Without one, SQLite would make one, and its owner could then not write to it.
    """
    with path.open("rb") as file:
        is_wal = file.read(20)[18:19] == b"\2"  # https://www.sqlite.org/fileformat.html, 1.3.3
    mode = "immutable=1" if is_wal and not path.with_name(f"{path.name}-wal").exists() else ""
    return f"{path.absolute().as_uri()}?mode=ro&{mode}"


def _believed(found: list[tuple[str, str, str]], storage: Path) -> dict[tuple[str, str], str]:
    pointers: dict[tuple[str, str], str] = {}
    for kind, device, name in found:
        if _is_there(storage / FOLDERS[kind], device, name):
            pointers[kind, device] = name
        else:
            _log.warning("The active %s %a of %a is not among the files", kind, name, device)
    return pointers


def _read(
    where: str, query: Callable[[sqlite3.Connection], list[tuple[str, str, str]]]
) -> list[tuple[str, str, str]]:
    """``where``: a path or a URI. Raises sqlite3.Error."""
    steps = itertools.count()
    with closing(sqlite3.connect(where, uri=where.startswith("file:"))) as connection:
        # before anything is read: a view could make values of a gigabyte
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA query_only = ON")
        # called every 1000 steps; true ends the query
        connection.set_progress_handler(lambda: int(next(steps) > MAX_STEPS / 1000), 1000)
        return query(connection)


def _from_ledger(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    pointers: list[tuple[str, str, str]] = []
    if not _has_table(connection, "meta"):
        return pointers
    for kind in FOLDERS:
        prefix = f"active_{kind}:"
        rows = connection.execute(
            "SELECT key, value FROM meta WHERE key GLOB ? LIMIT ?", (f"{prefix}*", MAX_POINTERS)
        )
        pointers += [
            (kind, key.removeprefix(prefix), name) for key, name in rows if _are_text(key, name)
        ]
    return pointers


def _from_upstream(connection: sqlite3.Connection) -> list[tuple[str, str, str]]:
    pointers = []
    for kind, folder in FOLDERS.items():
        table = f"cache_active_{folder}"
        if _has_table(connection, table):
            rows = connection.execute(f"SELECT key, value FROM {table} LIMIT ?", (MAX_POINTERS,))
            pointers += [(kind, device, name) for device, name in rows if _are_text(device, name)]
    return pointers


def _has_table(connection: sqlite3.Connection, name: str) -> bool:
    known = connection.execute(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)
    )
    return known.fetchone() is not None


def _are_text(*values: object) -> bool:
    return all(isinstance(value, str) and len(value) <= MAX_NAME for value in values)


def _is_there(folder: Path, device: str, name: str) -> bool:
    components = (device, f"{name}.yaml")
    if any("/" in part or "\0" in part or part in ("", ".", "..") for part in components):
        return False
    try:
        return folder.joinpath(*components).is_file()
    except OSError:
        return False  # longer than any name can be
