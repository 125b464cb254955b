from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.errors import StorageFailed, StorageFull
from piod.storage import database as database_module
from piod.storage.database import Database

NOTES = (("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",),)

Work = Callable[[sqlite3.Connection], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "storage" / "piod.sqlite"


@pytest.fixture
async def database(path: Path, clock: SimulatedClock) -> AsyncIterator[Database]:
    database = await Database.open(path, schema=NOTES, hold=clock.hold)
    yield database
    await database.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("piod-database")]


async def reopen(path: Path, clock: SimulatedClock, schema: Sequence[Sequence[str]] = NOTES):
    return await Database.open(path, schema=schema, hold=clock.hold)


def note(number: int, text: str = "") -> Work:
    return lambda c: c.execute("INSERT INTO notes VALUES (?, ?)", (number, text))


def put(number: int, text: str) -> Work:
    return lambda c: c.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (number, text))


def texts(connection: sqlite3.Connection) -> dict[int, str]:
    return dict(connection.execute("SELECT id, text FROM notes ORDER BY id").fetchall())


def on_disk(path: Path) -> dict[int, str]:
    """What another process would see."""
    connection = sqlite3.connect(path)
    try:
        return texts(connection)
    finally:
        connection.close()


async def trace(database: Database) -> list[str]:
    """The statements that run from now on."""
    seen: list[str] = []
    await database.write(lambda c: c.set_trace_callback(seen.append))
    seen.clear()
    return seen


async def test_a_durable_write_answers_with_its_result_and_is_seen_by_others(
    database: Database, path: Path
) -> None:
    def count(connection: sqlite3.Connection) -> int:
        note(1, "kept")(connection)
        return connection.execute("SELECT count(*) FROM notes").fetchone()[0]

    assert await database.write(count) == 1
    assert on_disk(path) == {1: "kept"}
    assert await database.read(texts) == {1: "kept"}


async def test_commits_are_flushed_to_disk_and_logged_ahead(database: Database) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "auto_vacuum")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    full, incremental = 2, 2
    assert await database.write(pragmas) == ["wal", full, incremental]


async def test_concurrent_writes_share_a_few_commits(database: Database, path: Path) -> None:
    seen = await trace(database)
    await asyncio.gather(*(database.write(note(n)) for n in range(200)))
    assert len(on_disk(path)) == 200
    assert 1 <= seen.count("COMMIT") <= 20


async def test_simulated_time_stands_still_while_an_answer_is_awaited(
    database: Database, clock: SimulatedClock
) -> None:
    sleeper = asyncio.ensure_future(clock.sleep(1))
    await asyncio.sleep(0)
    await database.write(lambda _: time.sleep(0.02))
    await database.read(lambda _: time.sleep(0.02))
    assert clock.monotonic() == 0.0
    await sleeper


async def test_one_failing_statement_does_not_spoil_its_neighbours(
    database: Database, path: Path
) -> None:
    await database.write(note(3, "first"))
    seen = await trace(database)
    results = await asyncio.gather(
        # the first holds the writer up, so that the others come as one group
        database.write(lambda _: time.sleep(0.05)),
        *(database.write(note(n)) for n in range(1, 6)),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results if isinstance(r, Exception)] == ["StorageFailed"]
    assert "UNIQUE" in str(results[3])
    assert sorted(on_disk(path)) == [1, 2, 3, 4, 5]
    assert seen.count("COMMIT") <= 2


async def test_a_failure_that_rolls_everything_back_loses_nothing_of_its_neighbours(
    database: Database, path: Path
) -> None:
    await database.write(note(3, "first"))
    results = await asyncio.gather(
        database.write(lambda _: time.sleep(0.02)),
        database.write(note(1)),
        database.write(note(2)),
        database.write(lambda c: c.execute("INSERT OR ROLLBACK INTO notes VALUES (3, '')")),
        database.write(note(4)),
        return_exceptions=True,
    )
    assert [i for i, r in enumerate(results) if isinstance(r, Exception)] == [3]
    assert sorted(on_disk(path)) == [1, 2, 3, 4]


async def test_half_of_a_failing_work_is_not_kept(database: Database, path: Path) -> None:
    def half(connection: sqlite3.Connection) -> None:
        note(1)(connection)
        raise LookupError("a bug of the caller")

    with pytest.raises(LookupError):
        await database.write(half)
    await database.write(note(2))
    assert sorted(on_disk(path)) == [2]


async def test_a_batched_work_comes_with_the_next_durable_commit(
    database: Database, path: Path
) -> None:
    database.later("n", put(1, "batched"))
    assert on_disk(path) == {}
    await database.write(note(2, "durable"))
    assert on_disk(path) == {1: "batched", 2: "durable"}


async def test_a_batched_work_alone_is_on_disk_when_the_batch_is_due(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database_module.BATCH_S <= 3.0
    monkeypatch.setattr(database_module, "BATCH_S", 0.1)
    seen = await trace(database)
    database.later("n", put(1, "batched"))
    await asyncio.sleep(0.02)
    assert seen == []
    deadline = time.monotonic() + 2
    while not on_disk(path):
        assert time.monotonic() < deadline
        database.later("m", put(2, "those that follow do not put it off"))
        await asyncio.sleep(0.01)
    assert sorted(on_disk(path)) == [1, 2]
    assert seen.count("COMMIT") == 1


async def test_repeated_batched_works_of_a_key_are_written_once_in_the_order_of_the_last(
    database: Database, path: Path
) -> None:
    seen = await trace(database)
    for n in range(50):
        database.later("volume", put(1, f"{n} mL"))
        database.later("copy", lambda c: c.execute("INSERT INTO notes SELECT 2, text FROM notes"))
    assert len(database.unsaved()) == 2
    await database.flush()
    assert on_disk(path) == {1: "49 mL", 2: "49 mL"}
    assert len([s for s in seen if s.startswith("INSERT")]) == 2
    assert database.unsaved() == []


async def test_a_batched_work_runs_after_those_that_came_before_it(
    database: Database, path: Path
) -> None:
    database.later("put", put(1, "old"))
    database.later("delete", lambda c: c.execute("DELETE FROM notes"))
    database.later("put", put(1, "new"))
    await database.flush()
    assert on_disk(path) == {1: "new"}


async def test_a_batched_work_that_can_never_succeed_is_dropped_and_logged(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.later("bad", lambda c: c.execute("INSERT INTO nowhere VALUES (1)"))
    await database.flush()
    assert database.unsaved() == []
    assert "no such table: nowhere" in caplog.text


def limit_pages(more: int) -> Callable[[sqlite3.Connection], None]:
    """A full disk: the file may grow by ``more`` pages only."""

    def limit(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + more}").fetchone()

    return limit


async def test_a_full_disk_is_told_and_what_still_fits_is_kept(
    database: Database, path: Path
) -> None:
    await database.write(limit_pages(3))
    results = await asyncio.gather(
        database.write(lambda _: time.sleep(0.02)),
        database.write(note(1, "fits")),
        database.write(note(2, "x" * 100_000)),
        database.write(note(3, "fits")),
        return_exceptions=True,
    )
    assert [type(r) for r in results if isinstance(r, Exception)] == [StorageFull]
    assert isinstance(results[2], StorageFull)
    assert results[2].status == 507
    assert "full" in results[2].message
    assert sorted(on_disk(path)) == [1, 3]


async def test_batches_wait_for_room_on_a_full_disk_and_the_newest_value_wins(
    database: Database, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await database.write(limit_pages(0))
    database.later("big", put(1, "x" * 100_000))
    database.later("other", put(2, "y" * 100_000))
    for _ in range(3):
        await database.flush()
    assert len(database.unsaved()) == 2
    assert caplog.text.count("takes no batches") == 1
    database.later("big", put(1, "small"))
    await database.write(limit_pages(1000))
    await database.flush()
    assert on_disk(path) == {1: "small", 2: "y" * 100_000}
    assert database.unsaved() == []
    assert "takes batches again" in caplog.text


async def test_what_is_tried_again_comes_before_what_came_meanwhile(
    database: Database, path: Path
) -> None:
    await database.write(limit_pages(0))
    release = threading.Event()
    database.later("one", put(1, "x" * 100_000))
    database.later("two", put(2, "y" * 100_000))

    def wait_and_make_room(connection: sqlite3.Connection) -> None:
        release.wait(5)
        limit_pages(1000)(connection)

    writing = asyncio.ensure_future(database.write(wait_and_make_room))
    await asyncio.sleep(0.05)  # now the writer is at it, and both batched works have failed
    database.later("delete", lambda c: c.execute("DELETE FROM notes"))
    database.later("one", put(1, "new"))
    release.set()
    await writing
    await database.flush()
    assert on_disk(path) == {1: "new"}


async def test_closing_on_a_full_disk_ends_and_says_what_is_lost(
    path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    database = await reopen(path, clock)
    await database.write(limit_pages(0))
    database.later("one", put(1, "x" * 100_000))
    await asyncio.wait_for(database.close(), 5)
    assert "dropped" in caplog.text
    assert on_disk(path) == {}


async def test_what_waits_for_a_full_disk_is_bounded_in_number_and_time(
    database: Database,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(database_module, "MAX_BATCHED", 5)
    await database.write(limit_pages(0))
    for n in range(8):
        database.later(n, put(n, "x" * 100_000))
    assert len(database.unsaved()) == 5
    await database.flush()
    assert len(database.unsaved()) == 5
    assert caplog.text.count("too many wait") == 3
    monkeypatch.setattr(database_module, "GIVE_UP_S", 0.0)
    database.later(7, put(7, "x" * 100_000))
    await database.flush()
    assert len(database.unsaved()) == 4
    await database.write(limit_pages(1000))
    await database.flush()
    assert sorted(on_disk(path)) == [3, 4, 5, 6]


async def test_a_locked_file_is_refused_with_the_reason(database: Database, path: Path) -> None:
    await database.write(lambda c: c.execute("PRAGMA busy_timeout = 10").fetchone())
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        database.later("n", put(2, "waits"))
        with pytest.raises(StorageFailed, match="locked"):
            await database.write(note(1))
        other.execute("ROLLBACK")
    finally:
        other.close()
    await database.write(note(1))
    assert on_disk(path) == {1: "", 2: "waits"}


async def test_reads_do_not_wait_for_a_slow_write(database: Database) -> None:
    release = threading.Event()
    writing = asyncio.ensure_future(database.write(lambda _: release.wait(5)))
    await asyncio.sleep(0.01)
    assert await asyncio.wait_for(database.read(texts), 2) == {}
    assert not writing.done()
    release.set()
    await writing


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(StorageFailed, match="readonly"):
        await database.read(note(1))


async def test_a_cancelled_caller_does_not_disturb_the_others(
    database: Database, path: Path
) -> None:
    writing = asyncio.ensure_future(database.write(note(1)))
    await asyncio.sleep(0)
    writing.cancel()
    await database.write(note(2))
    assert sorted(on_disk(path)) == [1, 2]


async def test_closing_commits_what_waits_and_leaves_one_file(
    path: Path, clock: SimulatedClock
) -> None:
    database = await reopen(path, clock)
    database.later("n", put(1, "batched"))
    writing = asyncio.ensure_future(database.write(note(2, "durable")))
    assert await database.read(texts) is not None
    await database.close()
    await database.close()
    await writing
    assert os.listdir(path.parent) == ["piod.sqlite"]
    assert on_disk(path) == {1: "batched", 2: "durable"}
    for refused in (database.write(note(3)), database.read(texts), database.flush()):
        with pytest.raises(StorageFailed, match="closed"):
            await refused
    database.later("n", put(4, "too late"))
    assert not [t for t in threading.enumerate() if t.name.startswith("piod-database")]


async def test_a_writer_that_dies_of_a_bug_leaves_nobody_waiting(
    path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    database = await reopen(path, clock)
    monkeypatch.setattr(database, "_settle", None)
    with pytest.raises(StorageFailed, match="closed"):
        await asyncio.wait_for(database.write(note(1)), 2)
    with pytest.raises(StorageFailed, match="closed"):
        await database.write(note(2))
    await database.close()
    assert len(died) == 1


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "not a database": lambda _: b"to be or not to be, that is the question\n" * 500,
    "overwritten page": lambda old: old[:4096] + b"\xa5" * 4096 + old[8192:],
    "torn header": lambda old: b"\0" * 100 + old[100:],
    "truncated": lambda old: old[: len(old) // 2],
}


def spoil(path: Path, damage: Callable[[bytes], bytes]) -> bytes:
    damaged = damage(path.read_bytes() if path.exists() else b"")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(damaged)
    return damaged


@pytest.mark.parametrize("damage", list(DAMAGE))
async def test_a_damaged_file_is_moved_aside_and_a_new_one_begins(
    damage: str, path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    first = await reopen(path, clock)
    assert first.replaced_corrupt is None
    await asyncio.gather(*(first.write(note(n, "x" * 1000)) for n in range(100)))
    await first.close()
    damaged = spoil(path, DAMAGE[damage])

    second = await reopen(path, clock)
    try:
        aside = second.replaced_corrupt
        assert aside is not None
        assert aside.name.startswith("piod.sqlite.corrupt-")
        assert "is damaged" in caplog.text
        await second.write(note(1, "anew"))
        assert on_disk(path) == {1: "anew"}
        assert aside.read_bytes() == damaged
    finally:
        await second.close()


async def test_a_second_damaged_file_does_not_replace_the_first(
    path: Path, clock: SimulatedClock
) -> None:
    kept = set()
    for _ in range(2):
        spoil(path, DAMAGE["not a database"])
        database = await reopen(path, clock)
        await database.close()
        kept.add(database.replaced_corrupt)
    assert len(kept) == 2
    assert all(aside is not None and aside.exists() for aside in kept)


async def test_an_older_schema_is_brought_up_to_date_and_keeps_its_rows(
    path: Path, clock: SimulatedClock
) -> None:
    old = await reopen(path, clock)
    await old.write(note(1, "old"))
    await old.close()
    newer = (*NOTES, ("ALTER TABLE notes ADD COLUMN author TEXT",))
    new = await reopen(path, clock, newer)
    query = "SELECT text, author FROM notes"
    assert tuple(await new.read(lambda c: c.execute(query).fetchone())) == ("old", None)
    await new.close()
    # and down again: the older piod works on the newer file, and does not relabel it
    old = await reopen(path, clock)
    await old.write(lambda c: c.execute("INSERT INTO notes (id, text) VALUES (2, 'later')"))
    await old.close()
    new = await reopen(path, clock, newer)
    assert await new.read(lambda c: c.execute("SELECT count(*) FROM notes").fetchone()[0]) == 2
    await new.close()
    assert old.replaced_corrupt is None


async def test_a_migration_that_fails_changes_nothing(path: Path, clock: SimulatedClock) -> None:
    await (await reopen(path, clock)).close()
    bad = (*NOTES, ("CREATE TABLE more (id)", "CREATE TABLE notes (id)"))
    with pytest.raises(StorageFailed, match="already exists"):
        await reopen(path, clock, bad)
    good = (*NOTES, ("CREATE TABLE more (id)",))
    await (await reopen(path, clock, good)).close()


@pytest.mark.parametrize("folder", ["/proc/self", "/proc/1/none", "/dev/null"])
async def test_a_folder_that_takes_no_file_is_refused_with_a_remedy(
    folder: str, clock: SimulatedClock
) -> None:
    with pytest.raises(StorageFailed, match="could not be") as refused:
        await reopen(Path(folder) / "piod.sqlite", clock)
    assert refused.value.remediation
    assert not [t for t in threading.enumerate() if t.name.startswith("piod-database")]


STORM = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from piod.clock import WallClock
    from piod.storage.database import Database

    SCHEMA = (("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",),)

    async def writer(database, first):
        for n in range(first, 10**9, 8):
            await database.write(
                lambda c: c.execute("INSERT INTO notes VALUES (?, ?)", (n, "x" * (n % 3000)))
            )
            print(n, flush=True)

    async def main():
        database = await Database.open(Path(sys.argv[1]), schema=SCHEMA, hold=WallClock().hold)
        await asyncio.gather(*(writer(database, first) for first in range(8)))

    asyncio.run(main())
    """
)


async def test_after_a_kill_in_a_storm_of_writes_every_acknowledged_row_is_there(
    path: Path, clock: SimulatedClock
) -> None:
    storm = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        STORM,
        str(path),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert storm.stdout is not None
    acknowledged = [int(await storm.stdout.readline()) for _ in range(300)]
    storm.kill()
    # the last line may be cut short by the kill
    acknowledged += [int(line) async for line in storm.stdout if line.endswith(b"\n")]
    assert await storm.wait() == -signal.SIGKILL

    database = await reopen(path, clock)
    try:
        kept = await database.read(texts)
    finally:
        await database.close()
    assert database.replaced_corrupt is None
    assert set(acknowledged) <= set(kept)
    # at most the one write in flight of each of the eight writers is there unacknowledged
    assert len(kept) <= len(acknowledged) + 8
