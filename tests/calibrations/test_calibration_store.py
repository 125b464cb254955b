"""Calibration files of a unit, and the one that is active."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from piod.calibrations.fields import InvalidRecord
from piod.calibrations.records import PumpCalibration
from piod.calibrations.store import MAX_FILE_BYTES, CalibrationStore
from piod.clock import SimulatedClock
from piod.errors import BadRequest, NotFound, StorageFailed

PUMP = """\
calibration_type: simple_peristaltic_pump
calibration_name: fast
calibrated_on_pioreactor_unit: pio07
created_at: 2026-03-04T09:15:30Z
curve_data_: {type: poly, coefficients: [0.125, 0.0]}
recorded_data: {x: [], y: []}
hz: 200
dc: 75
voltage: 12
"""


class PointersInMemory:
    """What the ledger keeps on a unit."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], str] = {}

    async def get(self, kind: str, device: str) -> str | None:
        return self.names.get((kind, device))

    async def all(self, kind: str) -> dict[str, str]:
        return {device: name for (of, device), name in self.names.items() if of == kind}

    async def set(self, kind: str, device: str, name: str) -> None:
        self.names[kind, device] = name

    async def remove(self, kind: str, device: str) -> None:
        self.names.pop((kind, device), None)


@pytest.fixture
def pointers() -> PointersInMemory:
    return PointersInMemory()


@pytest.fixture
def store(tmp_path: Path, pointers: PointersInMemory, clock: SimulatedClock) -> CalibrationStore:
    return CalibrationStore(tmp_path, pointers, clock.hold)


def put(store: CalibrationStore, device: str, name: str, content: str | bytes) -> None:
    path = store.path_of(device, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


async def test_files_lie_where_upstream_keeps_them(store: CalibrationStore, tmp_path: Path) -> None:
    assert store.path_of("media_pump", "a b") == tmp_path / "media_pump" / "a b.yaml"


@pytest.mark.parametrize(
    ("device", "name", "field"),
    [
        ("../x", "a", "device"),
        ("", "a", "device"),
        ("media_pump", "../a", "calibration_name"),
        ("media_pump", "a/b", "calibration_name"),
        ("media_pump", "x" * 251, "calibration_name"),
    ],
)
async def test_names_that_are_none_are_refused(
    store: CalibrationStore, device: str, name: str, field: str
) -> None:
    with pytest.raises(BadRequest, match=f"^{field} "):
        store.path_of(device, name)
    with pytest.raises(BadRequest, match=f"^{field} "):
        await store.read(device, name)


async def test_calibration_is_read(store: CalibrationStore) -> None:
    put(store, "media_pump", "fast", PUMP)
    put(store, "media_pump", "x" * 250, PUMP)
    calibration = await store.read("media_pump", "fast")
    assert isinstance(calibration, PumpCalibration)
    assert calibration.x_to_y(8) == 1
    await store.read("media_pump", "x" * 250)


async def test_refusals_name_the_calibration(store: CalibrationStore, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no calibration 'slow' of media_pump"):
        await store.read("media_pump", "slow")
    put(store, "media_pump", "slow", PUMP.replace("hz: 200", "hz: fast"))
    with pytest.raises(
        InvalidRecord,
        match="calibration 'slow' of media_pump cannot be used: hz: must be a number, got 'fast'",
    ):
        await store.read("media_pump", "slow")
    put(store, "media_pump", "latin", b"a: \xe9\n")
    with pytest.raises(InvalidRecord, match="calibration 'latin' of media_pump is not UTF-8 text"):
        await store.read("media_pump", "latin")
    (tmp_path / "media_pump" / "folder.yaml").mkdir()
    with pytest.raises(StorageFailed, match="cannot be read: it is not a file"):
        await store.read("media_pump", "folder")
    put(store, "media_pump", "huge", "#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidRecord, match="larger than"):
        await store.read("media_pump", "huge")
    os.mkfifo(store.path_of("media_pump", "pipe"))
    with pytest.raises(StorageFailed, match="it is not a file"):
        await store.read("media_pump", "pipe")
    (tmp_path / "waste_pump").write_text("a file where a folder belongs")
    with pytest.raises(NotFound):
        await store.read("waste_pump", "fast")


async def test_active_calibration_is_the_one_pointed_at(
    store: CalibrationStore, pointers: PointersInMemory
) -> None:
    put(store, "media_pump", "fast", PUMP)
    assert await store.active_calibration("media_pump") is None
    pointers.names["calibration", "media_pump"] = "fast"
    calibration = await store.active_calibration("media_pump")
    assert calibration is not None
    assert calibration.calibration_name == "fast"
    assert await store.active_calibration("waste_pump") is None


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone", "there is no calibration"), ("bad", "cannot be used"), ("../x", "calibration_name")],
)
async def test_pointer_that_leads_nowhere_counts_as_none_with_a_warning(
    store: CalibrationStore,
    pointers: PointersInMemory,
    caplog: pytest.LogCaptureFixture,
    name: str,
    reason: str,
) -> None:
    put(store, "media_pump", "bad", "nothing of use")
    pointers.names["calibration", "media_pump"] = name
    with caplog.at_level(logging.WARNING):
        assert await store.active_calibration("media_pump") is None
    (record,) = caplog.records
    assert record.getMessage().startswith("The active calibration of media_pump is not used: ")
    assert reason in record.getMessage()


async def test_device_that_is_no_name_is_refused(store: CalibrationStore) -> None:
    with pytest.raises(BadRequest, match=r"^device "):
        await store.active_calibration("../x")


async def test_simulated_time_stands_still_while_a_file_is_read(
    store: CalibrationStore, clock: SimulatedClock
) -> None:
    put(store, "media_pump", "fast", PUMP)
    ticking = asyncio.create_task(clock.sleep(0.001))
    before = clock.monotonic()
    await store.read("media_pump", "fast")
    assert clock.monotonic() == before
    assert not ticking.done()
    await ticking


# -- changes ------------------------------------------------------------------------


async def test_added_text_is_kept_as_it_is_under_its_name(
    store: CalibrationStore, pointers: PointersInMemory, tmp_path: Path
) -> None:
    text = "# mine\r\n" + PUMP + "note: {by: me}\n"
    path = await store.add("media_pump", text)
    assert path == tmp_path / "media_pump" / "fast.yaml"
    assert path.read_bytes() == text.encode()
    assert pointers.names == {}
    await store.add("media_pump", PUMP, set_as_active=True)
    assert path.read_bytes() == PUMP.encode()
    assert pointers.names == {("calibration", "media_pump"): "fast"}


@pytest.mark.parametrize(
    ("device", "old", "new", "message"),
    [
        ("media_pump", "hz: 200", "hz: -1", "hz: must be at least 0"),
        ("media_pump", "fast", "../fast", "calibration_name '../fast' is not allowed"),
        ("media_pump", "fast", "x" * 251, "calibration_name must not be longer than 250"),
        ("media_pump", "fast", "''", "calibration_name must not be empty"),
        ("../x", "fast", "slow", "device '../x' is not allowed"),
        ("od90", "fast", "slow", "does not fit the device 'od90', which takes od or od600"),
        ("stirring", "fast", "slow", "which takes simple_stirring"),
        ("od_fused", "fast", "slow", "only estimators"),
        ("sessions", "fast", "slow", "no device may be called 'sessions'"),
        # what is wrong first, in this order: the text, its name, the device
        ("../x", "fast", "../fast", "calibration_name"),
        ("../x", "dc: 75", "dc: x", "dc: must be a number"),
    ],
)
async def test_what_cannot_be_kept_is_refused_and_nothing_is_written(
    store: CalibrationStore, tmp_path: Path, device: str, old: str, new: str, message: str
) -> None:
    with pytest.raises(BadRequest) as refusal:
        await store.add(device, PUMP.replace(old, new, 1), set_as_active=True)
    assert message in refusal.value.message
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("device", ["media_pump", "my_pump", "incubator", "odour"])
async def test_devices_that_plugins_add_take_any_type(store: CalibrationStore, device: str) -> None:
    await store.add(device, PUMP)
    assert (await store.read(device, "fast")).calibration_name == "fast"


async def test_deleting_the_active_one_clears_the_pointer(
    store: CalibrationStore, pointers: PointersInMemory
) -> None:
    await store.add("media_pump", PUMP, set_as_active=True)
    await store.add("media_pump", PUMP.replace("fast", "slow"))
    await store.delete("media_pump", "slow")
    assert pointers.names == {("calibration", "media_pump"): "fast"}
    await store.delete("media_pump", "fast")
    assert pointers.names == {}
    with pytest.raises(NotFound, match="there is no calibration 'fast' of media_pump"):
        await store.delete("media_pump", "fast")


async def test_only_what_can_be_used_becomes_active(
    store: CalibrationStore, pointers: PointersInMemory
) -> None:
    put(store, "media_pump", "bad", "nothing of use")
    with pytest.raises(InvalidRecord):
        await store.activate("media_pump", "bad")
    with pytest.raises(NotFound):
        await store.activate("media_pump", "gone")
    assert pointers.names == {}
    put(store, "media_pump", "fast", PUMP)
    await store.activate("media_pump", "fast")
    assert pointers.names == {("calibration", "media_pump"): "fast"}
    await store.deactivate("media_pump")
    await store.deactivate("media_pump")
    assert pointers.names == {}


async def test_activating_beside_a_deletion_never_leaves_a_pointer_to_nothing(
    store: CalibrationStore, pointers: PointersInMemory
) -> None:
    for _ in range(20):
        await store.add("media_pump", PUMP)
        await asyncio.gather(
            store.activate("media_pump", "fast"),
            store.delete("media_pump", "fast"),
            return_exceptions=True,
        )
        assert pointers.names == {}


async def test_preparing_makes_the_folder_and_clears_what_a_killed_write_left(
    tmp_path: Path, pointers: PointersInMemory, clock: SimulatedClock
) -> None:
    store = CalibrationStore(tmp_path / "storage" / "calibrations", pointers, clock.hold)
    assert not await store.exists()
    await store.prepare()
    assert await store.exists()
    left = store.directory / "od" / ".piod-unfinished-1"
    left.parent.mkdir()
    left.write_text("half")
    await store.prepare()
    assert not left.exists()


async def test_preparing_where_nothing_can_be_made_is_only_logged(
    tmp_path: Path,
    pointers: PointersInMemory,
    clock: SimulatedClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "storage").write_text("a file where a folder belongs")
    store = CalibrationStore(tmp_path / "storage" / "calibrations", pointers, clock.hold)
    await store.prepare()
    assert "folder of calibrations" in caplog.text
