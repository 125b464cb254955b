"""Lists parse only what has changed."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from piod.calibrations.listing import Listing
from piod.calibrations.records import Calibration
from piod.calibrations.store import CalibrationStore
from piod.clock import SimulatedClock
from piod.errors import BadRequest, StorageFailed
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
        self.parsed.clear()
        everything = await self.listing.everything()
        assert everything is not None
        return {device: [one.name for one in listed] for device, listed in everything.items()}


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


async def test_order_is_that_of_the_file_names_and_empty_devices_are_left_out(
    unit: Unit, tmp_path: Path
) -> None:
    for name in ("b", "a b", "a.b", "a"):
        unit.put("z", name)
    unit.put("a", "x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("not a calibration")
    (tmp_path / "stray.yaml").write_text(PUMP)
    assert await unit.names() == {"a": ["x"], "z": ["a b", "a.b", "a", "b"]}
    assert await unit.listing.of_device("empty") == []
    assert await unit.listing.of_device("nowhere") is None
    with pytest.raises(BadRequest):
        await unit.listing.of_device("..")


async def test_a_missing_directory_is_none(tmp_path: Path, clock: SimulatedClock) -> None:
    assert await Unit(tmp_path / "gone", clock).listing.everything() is None


async def test_a_directory_that_cannot_be_read_is_a_typed_failure(
    unit: Unit, tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageFailed, match="could not be listed"):
        await unit.listing.of_device("loop")


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
        assert await unit.names() == {"od": ["good"]}
        assert len(caplog.records) == 3
        assert await unit.names() == {"od": ["good"]}
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
    assert len(unit.parsed) > 0
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
    assert len(unit.parsed) == 3
    unit.store.path_of("od", "c" * 100).unlink()
    await unit.names()
    await unit.names()
    assert unit.parsed == []


async def test_named_ones_are_found_without_a_list(unit: Unit) -> None:
    unit.put("od", "a")
    unit.put("waste_pump", "b")
    found = await unit.listing.of([("od", "a"), ("waste_pump", "gone"), ("nowhere", "x")])
    assert {device: one.content for device, one in found.items()} == {"od": b"a"}
    assert unit.parsed == ["a"]


async def test_lists_that_are_asked_for_at_once_parse_once(unit: Unit) -> None:
    for name in "abc":
        unit.put("od", name)
    lists = await asyncio.gather(*(unit.listing.everything() for _ in range(4)))
    assert all(listed == lists[0] for listed in lists)
    assert unit.parsed == ["a", "b", "c"]
