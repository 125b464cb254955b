"""Calibration sessions on disk, in the ledger's database.

A session is written whole, durably, after each step that was accepted. ``saves`` are the
artifacts that it has begun to write (``calibration/media_pump/name#fingerprint``), kept before
the file is: a session that is taken up after a power cut may replace its own file, and no other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from piod.events import JsonValue
from piod.storage.database import Database

MAX_KEPT_BYTES = 1024 * 1024
"""Of the data of a session, and of its result: they are read and written at each step."""

SessionStatus = Literal["in_progress", "complete", "aborted", "failed"]

COLUMNS = (
    "session_id, protocol_name, target_device, status, step_id, data, created_at, updated_at, "
    "result, error, saves"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """One session; keys as in handbook unit-api §4.2. Times are those of clock.timestamp."""

    session_id: str
    protocol_name: str
    target_device: str
    status: SessionStatus
    step_id: str
    data: Mapping[str, JsonValue] = field(default_factory=dict)
    created_at: str
    updated_at: str
    result: Mapping[str, JsonValue] | None = None
    error: str | None = None
    saves: tuple[str, ...] = ()


class Sessions:
    """The table of sessions. Raises StorageFull or StorageFailed when the disk refuses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, row: SessionRow) -> None:
        """Keep a session as it is now. Durable."""
        values = _record(row)
        places = ", ".join("?" * len(values))
        statement = f"INSERT OR REPLACE INTO sessions ({COLUMNS}) VALUES ({places})"
        await self._database.write(lambda connection: _run(connection, statement, values))

    async def get(self, session_id: str) -> SessionRow | None:
        """The session of that id, if it is (still) kept."""
        rows = await self._rows("WHERE session_id = ?", session_id)
        return rows[0] if rows else None

    async def all(self) -> list[SessionRow]:
        """All that are kept, the one that was touched last first."""
        return await self._rows("ORDER BY updated_at DESC, session_id")

    async def ids_in_progress(self) -> list[str]:
        """Of those that are neither complete nor aborted; first the one left alone longest."""
        statement = (
            "SELECT session_id FROM sessions WHERE status = 'in_progress' "
            "ORDER BY updated_at, session_id"
        )
        return await self._database.read(
            lambda connection: [str(record[0]) for record in connection.execute(statement)]
        )

    async def expired(self, finished_before: str, abandoned_before: str) -> list[SessionRow]:
        """Those that were touched last before these times."""
        limit = "CASE status WHEN 'in_progress' THEN ? ELSE ? END"
        return await self._rows(f"WHERE updated_at < {limit}", abandoned_before, finished_before)

    async def forget(self, rows: Sequence[SessionRow]) -> None:
        """Delete these, unless they have been touched since they were read. Durable."""
        statement = "DELETE FROM sessions WHERE session_id = ? AND updated_at = ?"
        values = [(row.session_id, row.updated_at) for row in rows]
        await self._database.write(
            lambda connection: connection.executemany(statement, values).rowcount
        )

    async def _rows(self, rest: str, *parameters: object) -> list[SessionRow]:
        statement = f"SELECT {COLUMNS} FROM sessions {rest}"
        return await self._database.read(
            lambda connection: [
                _row(record) for record in connection.execute(statement, parameters)
            ]
        )


def as_kept(row: SessionRow) -> SessionRow:
    """``row`` as it comes back from the disk.

    Raises ValueError when its data or its result are no JSON, or larger than MAX_KEPT_BYTES.
    """
    data = json_value(dict(row.data))
    result = None if row.result is None else json_value(dict(row.result))
    assert isinstance(data, dict)  # for mypy: dictionaries stay some
    assert result is None or isinstance(result, dict)
    return replace(row, data=data, result=result)


def json_value(value: object) -> JsonValue:
    """A copy of ``value`` that is plain JSON; ValueError, as :func:`as_kept`."""
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if size > MAX_KEPT_BYTES:
        raise ValueError(f"it has {size} bytes; {MAX_KEPT_BYTES} are allowed")
    kept: JsonValue = json.loads(text)
    return kept


def _run(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> int:
    return connection.execute(statement, values).rowcount


def _record(row: SessionRow) -> tuple[object, ...]:
    return (
        row.session_id,
        row.protocol_name,
        row.target_device,
        row.status,
        row.step_id,
        _json(dict(row.data)),
        row.created_at,
        row.updated_at,
        None if row.result is None else _json(dict(row.result)),
        row.error,
        _json(list(row.saves)),
    )


def _row(record: sqlite3.Row) -> SessionRow:
    return SessionRow(
        session_id=record["session_id"],
        protocol_name=record["protocol_name"],
        target_device=record["target_device"],
        status=record["status"],
        step_id=record["step_id"],
        data=json.loads(record["data"]),
        created_at=record["created_at"],
        updated_at=record["updated_at"],
        result=None if record["result"] is None else json.loads(record["result"]),
        error=record["error"],
        saves=tuple(json.loads(record["saves"])),
    )


def _json(value: JsonValue) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
