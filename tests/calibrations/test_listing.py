"""Lists parse only what has changed."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from piod.calibrations.listing import FRESH_S, Contents, Listing
from piod.calibrations.records import Calibration
from piod.calibrations.store import CalibrationStore
from piod.clock import SimulatedClock
from piod.errors import StorageFailed
from piod.storage.files import write_file
from tests.calibrations.test_calibration_store import PUMP, PointersInMemory, put


class Unit:
    """A store, its listing, and which files were parsed."""

    def __init__(self, directory: Path, clock: SimulatedClock, **bounds: int) -> None:
        self.parsed: list[str] = []
        self.store = CalibrationStore(directory, PointersInMemory(), clock.hold)
        self.listing = Listing(self.store, self.render, **bounds)

    def render(self, calibration: Calibration) -> bytes:
        self.parsed.append(calibration.calibration_name)
        return calibration.calibration_name.encode()

    def put(self, device: str, name: str) -> None:
        put(self.store, device, name, PUMP.replace("fast", name))

    async def names(self) -> dict[str, list[str]]:
        """What a look after a while tells; ``parsed`` is what it has parsed."""
        self.parsed.clear()
        await asyncio.sleep(FRESH_S)
        return self.listed(await self.listing.contents())

    def listed(self, contents: Contents | None) -> dict[str, list[str]]:
        assert contents is not None
        return {device: list(rendered) for device, rendered in contents.items()}


@pytest.fixture
def unit(tmp_path: Path, clock: SimulatedClock) -> Unit:
    return Unit(tmp_path, clock)


async def test_a_thousand_unchanged_records_are_not_parsed_again(unit: Unit) -> None:
    for number in range(1000):
        unit.put(f"device{number % 3}", f"c{number:03}")
    first = await unit.names()
    assert len(unit.parsed) == 1000
    assert await unit.names() == first
    assert unit.parsed == []
    assert [len(listed) for listed in first.values()] == [334, 333, 333]


async def test_what_changed_is_parsed_and_nothing_else(unit: Unit, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        unit.put("od", name)
    await unit.names()
    # replaced, as piod and editors do; the same size and the same time as before
    path = unit.store.path_of("od", "a")
    before = path.stat()
    write_file(path, path.read_text().replace("200", "201"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    # changed in place
    with unit.store.path_of("od", "b").open("a") as stream:
        stream.write("# a note\n")
    unit.store.path_of("od", "c").unlink()
    unit.put("od", "d")
    assert await unit.names() == {"od": ["a", "b", "d"]}
    assert unit.parsed == ["a", "b", "d"]


async def test_order_is_that_of_the_file_names(unit: Unit, tmp_path: Path) -> None:
    for name in ("b", "a b", "a.b", "a"):
        unit.put("z", name)
    unit.put("a", "x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("not a calibration")
    (tmp_path / "stray.yaml").write_text(PUMP)
    assert await unit.names() == {"a": ["x"], "empty": [], "z": ["a b", "a.b", "a", "b"]}


async def test_a_missing_directory_is_none(tmp_path: Path, clock: SimulatedClock) -> None:
    unit = Unit(tmp_path / "gone", clock)
    assert await unit.listing.contents() is None
    unit.store.directory.mkdir()
    assert await unit.listing.contents() == {}
    unit.store.directory.rmdir()
    assert await unit.listing.contents() is None


async def test_a_directory_that_cannot_be_read_is_a_typed_failure(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageFailed, match="could not be listed"):
        await Unit(tmp_path / "loop", clock).listing.contents()


async def test_a_device_that_cannot_be_read_is_left_out(
    unit: Unit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unit.put("od", "a")
    (tmp_path / "loop").symlink_to("loop")
    assert await unit.names() == {"od": ["a"]}
    assert "loop could not be listed" in caplog.text


async def test_unusable_files_are_logged_once_for_each_change(
    unit: Unit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unit.put("od", "good")
    bad = tmp_path / "od" / "bad.yaml"
    bad.write_text("nothing of use")
    (tmp_path / "od" / "é.yaml").write_text(PUMP)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "x.yaml").write_text(PUMP)
    (tmp_path / "od" / "dangling.yaml").symlink_to("nowhere")
    with caplog.at_level(logging.WARNING):
        assert await unit.names() == {".hidden": [], "od": ["good"]}
        assert len(caplog.records) == 3
        assert await unit.names() == {".hidden": [], "od": ["good"]}
        assert len(caplog.records) == 3
        bad.write_text("nothing of use still")
        await unit.names()
        assert len(caplog.records) == 4
    assert "bad.yaml is not listed" in caplog.records[-1].getMessage()


async def test_what_is_kept_is_bounded_in_number(tmp_path: Path, clock: SimulatedClock) -> None:
    unit = Unit(tmp_path, clock, max_records=3)
    for name in "abcd":
        unit.put("od", name)
    assert (await unit.names()) == {"od": ["a", "b", "c", "d"]}
    assert (await unit.names()) == {"od": ["a", "b", "c", "d"]}
    assert unit.parsed == ["d"]
    assert await unit.listing.contents() is not await unit.listing.contents()
    unit.store.path_of("od", "d").unlink()
    await unit.names()
    await unit.names()
    assert unit.parsed == []


async def test_what_is_kept_is_bounded_in_bytes(tmp_path: Path, clock: SimulatedClock) -> None:
    unit = Unit(tmp_path, clock, max_bytes=250)
    for letter in "abc":
        unit.put("od", letter * 100)
    await unit.names()
    await unit.names()
    assert unit.parsed == ["c" * 100]
    unit.store.path_of("od", "c" * 100).unlink()
    await unit.names()
    await unit.names()
    assert unit.parsed == []


async def test_a_second_look_within_a_moment_costs_nothing_and_gives_the_same(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit.put("od", "a")
    first = await unit.listing.contents()
    monkeypatch.setattr("piod.calibrations.listing.os.listdir", None)
    assert await unit.listing.contents() is first
    monkeypatch.undo()
    await asyncio.sleep(FRESH_S)
    assert await unit.listing.contents() is first  # looked at anew, and still the same


async def test_what_comes_and_goes_shows_at_once(unit: Unit, tmp_path: Path) -> None:
    unit.put("od", "a")
    assert unit.listed(await unit.listing.contents()) == {"od": ["a"]}
    await asyncio.sleep(0.02)  # beyond the grain of the kernel's clock
    unit.put("od", "b")
    assert unit.listed(await unit.listing.contents()) == {"od": ["a", "b"]}
    await asyncio.sleep(0.02)
    unit.put("new", "c")
    assert unit.listed(await unit.listing.contents()) == {"new": ["c"], "od": ["a", "b"]}
    await asyncio.sleep(0.02)
    unit.store.path_of("od", "b").unlink()
    assert unit.listed(await unit.listing.contents()) == {"new": ["c"], "od": ["a"]}


async def test_what_piod_changes_shows_at_once(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    # as if the kernel's clock had not ticked between the changes
    monkeypatch.setattr("piod.calibrations.listing._changed_ns", lambda folder: 0)
    for number in range(20):
        text = PUMP.replace("fast", f"c{number:02}").replace("200", str(number))
        await unit.store.add("media_pump", text)
        contents = await unit.listing.contents()
        assert contents is not None
        assert len(contents["media_pump"]) == number + 1
    for number in range(20):
        await unit.store.delete("media_pump", f"c{number:02}")
        contents = await unit.listing.contents()
        assert contents is not None
        assert len(contents["media_pump"]) == 19 - number


async def test_lists_that_are_asked_for_at_once_parse_once(unit: Unit) -> None:
    for name in "abc":
        unit.put("od", name)
    lists = await asyncio.gather(*(unit.listing.contents() for _ in range(4)))
    assert all(listed == lists[0] for listed in lists)
    assert unit.parsed == ["a", "b", "c"]
