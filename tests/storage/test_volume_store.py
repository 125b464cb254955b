"""What the ledger keeps of volumes and doses: a real database."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from piod.clock import SimulatedClock, timestamp
from piod.storage import volumes as volumes_module
from piod.storage.ledger import Ledger
from piod.storage.schema import SCHEMA
from piod.storage.volumes import DoseRow, VolumesRow, VolumeStore

NOW = 1_790_000_000.0


@pytest.fixture
async def ledger(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Ledger]:
    one = await Ledger.open(tmp_path / "piod.sqlite", clock.hold)
    yield one
    await one.close()


def row(experiment: str = "exp", volume_ml: float = 14.0, turn: int = 1) -> VolumesRow:
    return VolumesRow(
        experiment=experiment,
        current_volume_ml=volume_ml,
        lowest_ml=volume_ml - 0.1,
        highest_ml=volume_ml + 0.1,
        efflux_tube_volume_ml=14.0,
        alt_media_fraction=0.25,
        cumulative_media_added_ml=1.0,
        cumulative_alt_media_added_ml=2.0,
        cumulative_waste_removed_ml=3.0,
        doubt=None,
        vial_turn=turn,
        updated_at=timestamp(NOW + turn),
    )


def dose(dose_id: str, state: str = "intended") -> DoseRow:
    return DoseRow(
        dose_id=dose_id,
        experiment="exp",
        job_name="add_media",
        job_id="7",
        role="media",
        source="test",
        state=state,
        admitted_at=timestamp(NOW),
        planned_s=10.0,
        planned_ml=1.0,
        planned_most_ml=1.1,
    )


async def test_a_fresh_ledger_knows_nothing(ledger: Ledger) -> None:
    kept = await VolumeStore(ledger).load()
    assert (dict(kept.volumes), kept.open_doses, kept.unconfirmed) == ({}, (), False)


async def test_what_was_kept_is_there_for_the_next_daemon(tmp_path: Path, clock) -> None:
    path = tmp_path / "piod.sqlite"
    one = await Ledger.open(path, clock.hold)
    await VolumeStore(one).keep([row(), row("other", 12.0)], [dose("a"), dose("b")])
    over = replace(
        dose("a"),
        state="finished",
        ended_at=timestamp(NOW + 9),
        moved_least_ml=0.9,
        moved_ml=1.0,
        moved_most_ml=1.1,
    )
    await VolumeStore(one).keep([row(volume_ml=15.0, turn=2)], [over])
    # a copy, as a power cut would leave it
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", tmp_path / f"cut.sqlite{suffix}")
    await one.close()
    again = await Ledger.open(tmp_path / "cut.sqlite", clock.hold)
    store = VolumeStore(again)
    kept = await store.load()
    assert kept.volumes == {"exp": row(volume_ml=15.0, turn=2), "other": row("other", 12.0)}
    assert kept.open_doses == (dose("b"),)
    assert await store.dose("a") == over
    assert await store.doses("exp") == [dose("b"), over]
    assert await store.dose("c") is None
    await again.close()


async def test_doses_that_are_over_are_bounded_and_open_ones_stay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes_module, "MAX_DOSES", 3)
    store = VolumeStore(ledger)
    await store.keep([], [dose("open")])
    for number in range(6):
        await store.keep([], [dose(str(number), "finished")])
    assert [kept.dose_id for kept in await store.doses("exp")] == ["5", "4", "3", "open"]


async def test_experiments_are_bounded_but_never_the_one_that_knows_the_vial(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes_module, "MAX_EXPERIMENTS", 2)
    store = VolumeStore(ledger)
    await store.keep([replace(row("vial", turn=9), updated_at=timestamp(NOW - 9))], [])
    await store.keep([row(f"{turn}", turn=turn) for turn in range(1, 5)], [])
    assert set((await store.load()).volumes) == {"vial", "3", "4"}


async def test_confirming_takes_back_what_an_import_says(ledger: Ledger) -> None:
    store = VolumeStore(ledger)
    await ledger.replace_meta([], {"volumes_unconfirmed": "1"})
    assert await store.is_unconfirmed()
    await store.keep([row()], [])
    assert (await store.load()).unconfirmed
    await store.keep([row()], [], confirmed=True)
    assert not await store.is_unconfirmed()


async def test_a_ledger_without_volumes_gets_their_tables(tmp_path: Path, clock) -> None:
    path = tmp_path / "piod.sqlite"
    older = sqlite3.connect(path)
    for step in SCHEMA[:2]:
        for statement in step:
            older.execute(statement)
    older.execute("INSERT INTO meta (key, value) VALUES ('model', 'kept')")
    older.execute("PRAGMA user_version = 2")
    older.commit()
    older.close()
    ledger = await Ledger.open(path, clock.hold)
    await VolumeStore(ledger).keep([row()], [dose("a")])
    assert (await VolumeStore(ledger).load()).volumes == {"exp": row()}
    assert await ledger.get_meta("model") == "kept"
    await ledger.close()
