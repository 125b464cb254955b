"""The readings' own database: batches, order, bounds, damage."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from piod.errors import StorageFailed
from piod.storage import readings as module
from piod.storage.readings import Reading, Readings

START = 1_790_000_000.0


def reading(
    second: float, *, kind: str = "od", experiment: str = "E", channel: str = "2"
) -> Reading:
    return Reading("pio01", experiment, kind, channel, START + second, second, {"angle": "90"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "storage" / "piod.sqlite-readings"


@pytest.fixture
async def readings(path: Path) -> AsyncIterator[Readings]:
    one = Readings(path, nullcontext)
    await one.open()
    yield one
    await one.close()


def size_bytes(path: Path) -> int:
    return path.stat().st_size


async def values(readings: Readings, kind: str = "od", **filters: object) -> list[float]:
    pages = readings.pages(kind, **filters)  # type: ignore[arg-type] # named as its parameters
    return [one.value async for page in pages for one in page]


async def test_what_was_flushed_is_there_after_a_new_start_with_all_its_fields(
    path: Path, readings: Readings
) -> None:
    readings.add(reading(1))
    readings.add(Reading("pio01", "É", "rpm", None, START + 0.1234, 500.5, {}))
    await readings.flush()
    again = Readings(path, nullcontext)
    await again.open()
    assert [one async for page in again.pages("od") for one in page] == [reading(1)]
    [page] = [page async for page in again.pages("rpm")]
    assert page == [Reading("pio01", "É", "rpm", None, START + 0.123, 500.5, {})]
    await again.close()


async def test_what_is_flushed_survives_a_kill_and_the_file_is_sound(path: Path) -> None:
    program = """if True:
        import asyncio, os, signal, sys
        from contextlib import nullcontext
        from pathlib import Path
        from piod.storage.readings import Reading, Readings

        async def main():
            readings = Readings(Path(sys.argv[1]), nullcontext)
            await readings.open()
            for number in range(3000):
                readings.add(Reading("u", "E", "od", "1", number, number, {}))
            await readings.flush()
            readings.add(Reading("u", "E", "od", "1", 9999.0, 9999.0, {}))
            os.kill(os.getpid(), signal.SIGKILL)

        asyncio.run(main())
    """
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(path), env=environment
    )
    assert await child.wait() == -signal.SIGKILL
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = Readings(path, nullcontext)
    await again.open()
    assert await values(again) == list(range(3000))
    await again.close()


async def test_reads_see_what_is_not_on_disk_yet_once(readings: Readings) -> None:
    readings.add(reading(1))
    await readings.flush()
    readings.add(reading(2))
    readings.add(reading(3, experiment="F"))
    assert await values(readings) == [1, 2, 3]
    assert await values(readings, experiment="E") == [1, 2]
    pages = readings.pages("od")
    first = await anext(pages)
    await readings.flush()  # while somebody reads
    readings.add(reading(4))
    rest = [one.value async for page in pages for one in page]
    assert [one.value for one in first] + rest == [1, 2, 3]
    counts = await readings.kinds()
    assert counts["od"].readings == 4
    assert (counts["od"].first_at, counts["od"].last_at) == (START + 1, START + 4)


async def test_pages_are_bounded_and_lose_nothing_at_equal_times(
    readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", 7)
    expected = []
    for number in range(40):
        for channel in ("1", "2", "3"):
            readings.add(reading(number // 10, channel=channel))
            expected.append(float(number // 10))
    await readings.flush()
    pages = [page async for page in readings.pages("od")]
    assert max(map(len, pages)) == 7
    assert [one.value for page in pages for one in page] == expected


async def test_since_is_inclusive_until_exclusive_and_order_is_that_of_time(
    readings: Readings,
) -> None:
    for second in (5, 3, 4, 1, 2):  # as a clock that is set makes them
        readings.add(reading(second))
    readings.add(reading(3, kind="rpm"))
    await readings.flush()
    assert await values(readings) == [1, 2, 3, 4, 5]
    assert await values(readings, since=START + 2, until=START + 4) == [2, 3]
    assert await values(readings, kind="led") == []


async def test_age_and_number_are_bounded_and_the_newest_stay(
    readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICE_ROWS", 50)
    day_s = 86_400
    for number in range(200):
        readings.add(reading(number * day_s))
    await readings.flush()
    now = START + 199 * day_s
    assert await readings.prune(now, max_age_days=100, max_rows=1000) == 99
    assert min(await values(readings)) == 99 * day_s
    assert await readings.prune(now, max_age_days=100, max_rows=20) == 81
    assert await values(readings) == [number * day_s for number in range(180, 200)]
    readings.add(reading(200 * day_s))
    await readings.flush()
    assert len(await values(readings)) == 21


async def test_a_clock_that_ran_ahead_costs_nothing(readings: Readings) -> None:
    readings.add(reading(0))
    await readings.flush()
    assert await readings.prune(START + 1e9, max_age_days=1, max_rows=1000) == 0
    assert await values(readings) == [0]


async def test_readings_of_a_clock_that_ran_ahead_cost_nothing_until_they_go_on_for_a_week(
    readings: Readings,
) -> None:
    day_s, leap_s = 86_400, 700 * 86_400
    readings.add(reading(0))
    for day in range(7):
        readings.add(reading(leap_s + day * day_s))
    await readings.flush()
    now = START + leap_s + 6 * day_s
    assert await readings.prune(now, max_age_days=365, max_rows=1000) == 0
    readings.add(reading(leap_s + 7 * day_s + 1))
    await readings.flush()
    assert await readings.prune(now + 2 * day_s, max_age_days=365, max_rows=1000) == 1, "real"


@pytest.mark.parametrize(
    "bad",
    [
        Reading("pio01", "E", "od", "2", START, 1.0, {"x": float("nan")}),
        Reading("pio01", "E", "od", "2", START, 1.0, {"x": "\ud800"}),
        Reading("pio01", "E", "od", "2", START, 1.0, {"x": {1, 2}}),  # type: ignore[dict-item] # bad
        Reading("pio01", "\ud800", "od", "2", START, 1.0, {}),
        Reading("pio01", "E", "od", "2", 1e30, 1.0, {}),
        Reading("pio01", "E", "od", "2", float("inf"), 1.0, {}),
        Reading("pio01", "E", "od", "2", START, float("nan"), {}),
    ],
    ids=["nan in details", "surrogate", "no JSON", "experiment", "far time", "no time", "nan"],
)
async def test_one_reading_that_cannot_be_kept_is_told_and_costs_no_other(
    path: Path, readings: Readings, bad: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    for one in (reading(1), bad, reading(2)):
        readings.add(one)
    await readings.flush()
    assert await values(readings) == [1, 2]
    assert "a reading is not kept" in caplog.text
    readings.add(reading(3))
    await readings.flush()
    assert await values(readings) == [1, 2, 3]


async def test_pruning_gives_space_back_when_much_of_the_file_is_free(
    path: Path, readings: Readings
) -> None:
    for second in range(8000):
        readings.add(reading(second))
    await readings.flush()
    await readings.prune(START, max_age_days=1000, max_rows=10)
    await readings.close()
    assert size_bytes(path) < 100_000


@pytest.fixture
def damaged(path: Path) -> Path:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)
    return path


async def test_a_damaged_file_is_put_aside_and_a_new_one_begins(damaged: Path) -> None:
    one = Readings(damaged, nullcontext)
    one.add(reading(1))
    await one.open()
    await one.flush()
    assert await values(one) == [1]
    assert one.replaced_corrupt is not None
    assert one.replaced_corrupt.name.startswith("piod.sqlite-readings.corrupt-")
    await one.close()


async def test_what_the_disk_refuses_waits_in_bounds(
    readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    for second in range(3):
        readings.add(reading(second))

    async def refused(work: object) -> None:
        raise StorageFailed("the disk refuses")

    database = readings._database
    assert database is not None
    monkeypatch.setattr(database, "write", refused)
    with pytest.raises(StorageFailed):
        await readings.flush()
    for second in range(3, 8):
        readings.add(reading(second))
    assert readings.dropped == 3
    monkeypatch.undo()
    await readings.flush()
    assert await values(readings) == [3, 4, 5, 6, 7]
