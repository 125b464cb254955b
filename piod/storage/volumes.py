"""What the ledger keeps of volumes: the vial of each experiment, and the doses.

A dose is kept when it is admitted (``intended``), before its pump turns, and when it is over:
``finished``, or ``interrupted`` if nobody told how long the pump was on. A dose that is still
``intended`` when the daemon starts was under way when the daemon before died.

:meth:`VolumeStore.keep` writes volumes and doses in one step: what a dose moved is never
kept without what it made of the vial. Only the newest MAX_DOSES doses that are over and the
MAX_EXPERIMENTS experiments that changed last are kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from typing import Literal

from piod.storage.imports import VOLUMES_UNCONFIRMED
from piod.storage.ledger import Ledger

MAX_DOSES = 20_000
MAX_EXPERIMENTS = 1000

DoseState = Literal["intended", "finished", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumesRow:
    """The vial of one experiment, mL; see :class:`piod.jobs.liquids.Volumes`.

    ``vial_turn`` is highest where the one vial of the unit was changed last; 0: never here.
    ``tube_source``: who says where the efflux tube ends, see :mod:`piod.actors.vial`; None:
    the configuration.
    """

    experiment: str
    current_volume_ml: float
    lowest_ml: float
    highest_ml: float
    efflux_tube_volume_ml: float
    alt_media_fraction: float
    cumulative_media_added_ml: float
    cumulative_alt_media_added_ml: float
    cumulative_waste_removed_ml: float
    doubt: str | None
    vial_turn: int
    updated_at: str
    tube_source: Literal["told", "vial"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseRow:
    """One dose: what it was to move (mL, in ``planned_s`` seconds) and what it moved.

    ``role``: media, alt_media or waste. The last four are None while it is under way.
    """

    dose_id: str
    experiment: str
    job_name: str
    job_id: str
    role: str
    source: str
    state: DoseState
    admitted_at: str
    planned_s: float
    planned_ml: float
    planned_most_ml: float
    ended_at: str | None = None
    moved_least_ml: float | None = None
    moved_ml: float | None = None
    moved_most_ml: float | None = None


@dataclass(frozen=True)
class KeptVolumes:
    """What is kept, as it is when the daemon starts."""

    volumes: Mapping[str, VolumesRow]
    """By experiment."""
    open_doses: tuple[DoseRow, ...]
    """Those under way, in the order of their admission."""
    unconfirmed: bool
    """An import replaced the files of the unit; nobody has confirmed a volume since."""


_VOLUMES_COLUMNS = tuple(field.name for field in fields(VolumesRow))
_DOSE_COLUMNS = tuple(field.name for field in fields(DoseRow))


class VolumeStore:
    """The volumes in the ledger. All raise StorageFull or StorageFailed."""

    def __init__(self, ledger: Ledger) -> None:
        self._database = ledger.database

    async def load(self) -> KeptVolumes:
        """All that is kept, after the oldest experiments were forgotten."""
        await self._database.write(_forget_experiments)
        return await self._database.read(_load)

    async def keep(
        self, volumes: Iterable[VolumesRow], doses: Iterable[DoseRow], *, confirmed: bool = False
    ) -> None:
        """Keep these, in place of what was kept of them; durable.

        ``confirmed``: the volumes are no longer unconfirmed by an import.
        """
        volumes, doses = tuple(volumes), tuple(doses)

        def work(connection: sqlite3.Connection) -> None:
            for row in volumes:
                _put(connection, "volumes", "experiment", _VOLUMES_COLUMNS, astuple(row))
            for dose in doses:
                _put(connection, "doses", "dose_id", _DOSE_COLUMNS, astuple(dose))
            if doses:
                connection.execute(
                    "DELETE FROM doses WHERE state <> 'intended' AND dose_number <= "
                    "(SELECT max(dose_number) FROM doses) - ?",
                    (MAX_DOSES,),
                )
            if confirmed:
                connection.execute("DELETE FROM meta WHERE key = ?", (VOLUMES_UNCONFIRMED,))

        await self._database.write(work)

    async def dose(self, dose_id: str) -> DoseRow | None:
        """The dose of that id, if it is (still) kept."""
        found = await self._doses("WHERE dose_id = ?", dose_id)
        return found[0] if found else None

    async def doses(self, experiment: str, limit: int = MAX_DOSES) -> list[DoseRow]:
        """The doses of an experiment, newest first."""
        return await self._doses(
            "WHERE experiment = ? ORDER BY dose_number DESC LIMIT ?", experiment, limit
        )

    async def is_unconfirmed(self) -> bool:
        """See :attr:`KeptVolumes.unconfirmed`."""
        return await self._database.read(_is_unconfirmed)

    async def _doses(self, rest: str, *parameters: object) -> list[DoseRow]:
        return await self._database.read(lambda c: _dose_rows(c, rest, parameters))


# -- in the database's threads ----------------------------------------------------


def _put(
    connection: sqlite3.Connection,
    table: str,
    key: str,
    columns: tuple[str, ...],
    values: tuple[object, ...],
) -> None:
    news = ", ".join(f"{column} = excluded.{column}" for column in columns)
    connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        f"ON CONFLICT ({key}) DO UPDATE SET {news}",
        values,
    )


def _load(connection: sqlite3.Connection) -> KeptVolumes:
    records = connection.execute(f"SELECT {', '.join(_VOLUMES_COLUMNS)} FROM volumes")
    rows = [VolumesRow(**dict(zip(_VOLUMES_COLUMNS, record, strict=True))) for record in records]
    return KeptVolumes(
        {row.experiment: row for row in rows},
        tuple(_dose_rows(connection, "WHERE state = 'intended' ORDER BY dose_number", ())),
        _is_unconfirmed(connection),
    )


def _dose_rows(
    connection: sqlite3.Connection, rest: str, parameters: tuple[object, ...]
) -> list[DoseRow]:
    statement = f"SELECT {', '.join(_DOSE_COLUMNS)} FROM doses {rest}"
    return [
        DoseRow(**dict(zip(_DOSE_COLUMNS, record, strict=True)))
        for record in connection.execute(statement, parameters)
    ]


def _is_unconfirmed(connection: sqlite3.Connection) -> bool:
    found: tuple[str] | None = connection.execute(
        "SELECT value FROM meta WHERE key = ?", (VOLUMES_UNCONFIRMED,)
    ).fetchone()
    return found is not None and found[0] == "1"


def _forget_experiments(connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM volumes WHERE experiment NOT IN (SELECT experiment FROM volumes "
        "ORDER BY updated_at DESC LIMIT ?) "
        "AND vial_turn < (SELECT max(vial_turn) FROM volumes)",
        (MAX_EXPERIMENTS,),
    )
