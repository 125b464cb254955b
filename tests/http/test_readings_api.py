"""Readings over HTTP: kinds, CSV, filters, bad input; and what a restart keeps."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.jobs.job import Job, Options
from piod.jobs.job import Unit as Parts
from piod.jobs.registry import JOBS
from piod.storage import readings as storage
from tests.unit import Unit, running_unit

START = 1_790_000_000.0
READINGS = "/unit_api/readings"


class Measure(Job):
    """An OD of two channels each second; rpm has no channel."""

    job_name = "measure"

    def __init__(self, unit: Parts) -> None:
        self._unit = unit

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls(unit)

    async def run(self) -> None:
        start = self._unit.clock.time()
        for second in range(20):
            for channel in ("1", "2"):
                self._unit.record(
                    "od", second + 0.5, channel, at=start + second, angle="90", note='a, "b"'
                )
        self._unit.record("rpm", 500.0)


KINDS = {**JOBS, "measure": Measure}


@pytest.fixture
async def measured(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    async with running_unit(tmp_path, clock, kinds=KINDS) as unit:
        await unit.run("measure", env={"EXPERIMENT": "Exp, 1"})
        await clock.sleep(0.1)
        yield unit


async def rows(unit: Unit, path: str) -> list[dict[str, str]]:
    async with unit.client.get(path) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        return list(csv.DictReader(io.StringIO(await answer.text())))


async def test_a_reading_is_a_line_with_all_that_is_known_of_it(measured: Unit) -> None:
    lines = await rows(measured, f"{READINGS}/od")
    assert len(lines) == 40
    first = dict(lines[0])
    assert json.loads(first.pop("details")) == {"angle": "90", "note": 'a, "b"'}
    assert first.pop("timestamp").startswith("2026-09-21T")
    assert first == {
        "unit": "pio01",
        "experiment": "Exp, 1",
        "kind": "od",
        "channel": "1",
        "value": "0.5",
        "units": "OD",
    }
    [rpm] = await rows(measured, f"{READINGS}/rpm")
    assert (rpm["channel"], rpm["value"], rpm["units"], rpm["details"]) == ("", "500.0", "RPM", "")


async def test_kinds_are_listed_with_their_counts(measured: Unit) -> None:
    kinds = await measured.get(READINGS)
    assert {kind: count["readings"] for kind, count in kinds.items()} == {"od": 40, "rpm": 1}
    assert kinds["od"]["units"] == "OD"
    assert kinds["od"]["first"] < kinds["od"]["last"]


@pytest.mark.parametrize("form", ["unix", "iso", "zone"])
async def test_since_and_until_are_iso_or_unix(measured: Unit, form: str) -> None:
    begin = (await rows(measured, f"{READINGS}/od"))[0]["timestamp"]
    minute = begin[:17]
    second = float(begin[17:-1])
    texts = {
        "iso": (f"{minute}{second + 5:06.3f}Z", f"{minute}{second + 7:06.3f}"),
        "zone": (f"{minute}{second + 5:06.3f}+00:00", f"{minute}{second + 7:06.3f}%2B00:00"),
    }
    if form == "unix":
        unix_s = datetime.fromisoformat(begin).timestamp()
        since, until = f"{unix_s + 5:.3f}", f"{unix_s + 7:.3f}"
    else:
        since, until = texts[form]
    lines = await rows(measured, f"{READINGS}/od?since={since}&until={until}")
    assert [line["value"] for line in lines] == ["5.5", "5.5", "6.5", "6.5"]


async def test_an_experiment_is_exported_alone(measured: Unit) -> None:
    assert len(await rows(measured, f"{READINGS}/od?experiment=Exp,%201")) == 40
    assert await rows(measured, f"{READINGS}/od?experiment=other") == []


async def test_a_known_kind_without_readings_is_a_line_of_titles(measured: Unit) -> None:
    assert await rows(measured, f"{READINGS}/growth_rate") == []


async def test_an_unknown_kind_is_404_and_lists_the_kinds(measured: Unit) -> None:
    status, refusal = await measured.request("GET", f"{READINGS}/speed")
    assert status == 404
    assert "'speed'" in refusal["error"]
    assert "od, raw_od" in refusal["error_info"]["remediation"]


@pytest.mark.parametrize(
    "query",
    ["since=yesterday", "until=nan", "since=-1", "since=1e300", "since=5&until=4", "since="],
)
async def test_times_that_are_none_are_400(measured: Unit, query: str) -> None:
    status, refusal = await measured.request("GET", f"{READINGS}/od?{query}")
    assert status == 400
    assert "since" in refusal["error"] or "until" in refusal["error"]


async def test_an_export_is_sent_in_pieces_and_head_sends_none(
    measured: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    await measured.daemon.readings.flush()
    monkeypatch.setattr(storage, "PAGE_ROWS", 7)
    assert len(await rows(measured, f"{READINGS}/od")) == 40
    async with measured.client.head(f"{READINGS}/od") as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_stirring_keeps_what_it_measured(measured: Unit) -> None:
    await measured.run("stirring", options={"target_rpm": 400})
    await measured.clock.sleep(60)
    lines = await rows(measured, f"{READINGS}/rpm?experiment=$experiment")
    assert len(lines) >= 3
    assert float(lines[-1]["value"]) == pytest.approx(400, rel=0.05)


async def test_readings_are_there_after_a_restart(tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock, kinds=KINDS) as unit:
        await unit.run("measure")
        await clock.sleep(0.1)
        before = await rows(unit, f"{READINGS}/od")
    async with running_unit(tmp_path, clock, kinds=KINDS) as unit:
        assert await rows(unit, f"{READINGS}/od") == before


async def test_a_plugin_cannot_keep_what_is_no_reading(measured: Unit) -> None:
    class Wrong(Measure):
        job_name = "wrong"

        async def run(self) -> None:
            with pytest.raises(ValueError, match="no kind of reading"):
                self._unit.record("mood", 1.0)
            with pytest.raises(ValueError, match="finite"):
                self._unit.record("od", float("nan"))
            for details in ({"x": {1, 2}}, {"x": float("nan")}, {"x": "\ud800"}):
                with pytest.raises(ValueError, match="no JSON"):
                    self._unit.record("od", 1.0, **details)  # type: ignore[arg-type] # wrong
            for at in (1e30, -1.0, float("nan")):
                with pytest.raises(ValueError, match="cannot have been taken"):
                    self._unit.record("od", 1.0, at=at)
            with pytest.raises(ValueError, match="channel"):
                self._unit.record("od", 1.0, 2)  # type: ignore[arg-type] # wrong
            raised.append(True)

    raised: list[bool] = []
    async with running_unit(
        measured.data_dir / "other", measured.clock, kinds={**KINDS, "wrong": Wrong}
    ) as unit:
        await unit.run("wrong")
        await unit.clock.sleep(0.1)
    assert raised
