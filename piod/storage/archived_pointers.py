"""Which calibrations and estimators were active on the unit that an archive is of.

piod's own archive tells it in its ledger, upstream's in its persistent cache. Both
are somebody's upload: read with limits, and believed only where the artifact exists.
"""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

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
        found = _read(ledger, _from_ledger)
    elif (storage / UPSTREAM_CACHE).is_file():
        found = _read(storage / UPSTREAM_CACHE, _from_upstream)
    else:
        return {}
    pointers: dict[tuple[str, str], str] = {}
    for kind, device, name in found:
        if _is_there(storage / FOLDERS[kind], device, name):
            pointers[kind, device] = name
        else:
            _log.warning("The active %s %a of %a is not in the archive", kind, name, device)
    return pointers


def _read(
    path: Path, query: Callable[[sqlite3.Connection], list[tuple[str, str, str]]]
) -> list[tuple[str, str, str]]:
    steps = itertools.count()
    try:
        with closing(sqlite3.connect(path)) as connection:
            # before anything is read: a view could make values of a gigabyte
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA query_only = ON")
            # called every 1000 steps; true ends the query
            connection.set_progress_handler(lambda: int(next(steps) > MAX_STEPS / 1000), 1000)
            return query(connection)
    except sqlite3.Error as error:
        _log.warning("The active artifacts in %s could not be read: %s", path.name, error)
        return []


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
