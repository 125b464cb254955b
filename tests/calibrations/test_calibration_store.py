"""Calibration files of a unit, and the one that is active."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from piod.calibrations.records import InvalidRecord, PumpCalibration
from piod.calibrations.store import CalibrationStore
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
    with pytest.raises(StorageFailed, match="cannot be read: Is a directory"):
        await store.read("media_pump", "folder")
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
