"""Sessions that are up against something: protocols with bugs, rivals, imports, sheer numbers."""

from __future__ import annotations

import asyncio
import gc
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from piod.actors import session as session_module
from piod.actors import sessions as sessions_module
from piod.actors.gate import no_new_jobs
from piod.actors.session import Abort, Advance, SessionAborted, SessionView
from piod.actors.session_bench import SessionBench, Workshop
from piod.actors.sessions import CalibrationSessions
from piod.calibrations.curves import PolyCurve
from piod.calibrations.fields import InvalidRecord
from piod.calibrations.records import PumpCalibration, RecordedData
from piod.calibrations.store import MAX_FILE_BYTES
from piod.calibrations.writing import artifact_text
from piod.errors import Conflict, StorageFull
from piod.storage.sessions import MAX_KEPT_BYTES, SessionRow, Sessions
from tests.http.test_calibrations_api import assert_refusal
from tests.http.test_sessions_api import abort, advance, go_to, post, shown, start
from tests.unit import Unit

DEVICE = "media_pump"


def actor_of(session_id: str) -> CalibrationSessions:
    """The one that has an actor for that session; no door leads to it."""
    actors = [one for one in gc.get_objects() if isinstance(one, CalibrationSessions)]
    (found,) = [one for one in actors if session_id in one._open]
    return found


async def workshop_of(unit: Unit, session_id: str) -> Workshop:
    await shown(unit, session_id)
    return actor_of(session_id)._workshop


def made(slope: float) -> PumpCalibration:
    return PumpCalibration(
        calibration_name="same",
        calibrated_on_pioreactor_unit="pio01",
        created_at=datetime(2026, 3, 4, tzinfo=UTC),
        curve_data_=PolyCurve((slope, 0.0)),
        x="duration",
        y="volume",
        recorded_data=RecordedData((1.0,), (1.0,)),
        raw={},
        hz=250.0,
        dc=100.0,
        voltage=12.0,
    )


async def row_of(workshop: Workshop, session_id: str) -> SessionRow:
    row = await workshop.sessions.get(session_id)
    assert row is not None
    return row


# -- aborting ------------------------------------------------------------------------


async def test_an_advance_right_behind_an_abort_turns_nothing_on(unit: Unit) -> None:
    session_id = await start(unit)
    await go_to(unit, session_id, "prime_pump_duration")
    moved_ml = unit.plant.pumps["media"].pumped_ml
    ref = actor_of(session_id)._open[session_id].ref
    aborted, advanced = await asyncio.gather(
        ref.ask(Abort(), timeout=25),
        ref.ask(Advance({"prime_duration_s": 250}), timeout=300),
        return_exceptions=True,
    )
    assert isinstance(aborted, SessionView)
    assert aborted.session.status == "aborted"
    assert isinstance(advanced, SessionAborted)
    assert unit.plant.pumps["media"].pumped_ml == moved_ml


PLUGIN = """\
import asyncio
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.steps import Step

async def go(turn):
{go}

def metadata(view):
    return {metadata}

class Mine(CalibrationProtocol):
    name = "mine"
    devices = ("my_scale",)
    title = "Mine"
    description = "Mine."
    steps = (Step("a", "info", "A", then=go), Step("b", "info", "B", metadata=metadata, then=go))

    @classmethod
    def start(cls, device, facts):
        {start}
"""
MINE = {"protocol_name": "mine", "target_device": "my_scale"}
STUBBORN = """\
    for _ in range(5):
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            pass
    return turn.complete({})
"""


async def install(unit: Unit, go: str = "    return 'b'", **parts: str) -> None:
    (unit.data_dir / "plugins").mkdir()
    source = unit.data_dir.parent / "mine.py"
    source.write_text(PLUGIN.format(**{"go": go, "metadata": "{}", "start": "return {}", **parts}))
    task = await unit.post(
        "/unit_api/plugins/install", {"args": ["mine"], "options": {"source": str(source)}}
    )
    assert task["status"] == "complete", task


def steps_taken() -> set[asyncio.Task[object]]:
    return {task for task in asyncio.all_tasks() if "the step a of mine" in task.get_name()}


@pytest.mark.parametrize(
    "go", ["    await asyncio.Event().wait()", STUBBORN], ids=["for ever", "not even cancelled"]
)
async def test_a_step_that_does_not_return_can_be_aborted(
    unit: Unit, monkeypatch: pytest.MonkeyPatch, go: str
) -> None:
    monkeypatch.setattr(session_module, "STEP_ENDS_WITHIN_S", 0.1)
    await install(unit, go)
    session_id = await start(unit, **MINE)
    waiting = asyncio.create_task(post(unit, session_id))
    for _ in range(5000):
        if steps_taken():
            break
        await asyncio.sleep(0.001)
    assert steps_taken()
    began_s = time.monotonic()
    answer = await abort(unit, session_id)
    assert time.monotonic() - began_s < 2
    assert answer["session"]["status"] == "aborted"
    assert_refusal(await waiting, 409, "aborted")
    assert await shown(unit, session_id) == answer
    if steps := steps_taken():  # it does end at last, for the sake of the next test
        await asyncio.wait(steps)
    assert await shown(unit, session_id) == answer


# -- bugs ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "go",
    [
        "    turn.data['x'] = {1, 2}; return 'b'",
        "    turn.data['x'] = float('nan'); return 'b'",
        "    turn.data['x'] = '\\ud800'; return 'b'",
        f"    turn.data['x'] = 'x' * {MAX_KEPT_BYTES}; return 'b'",
        "    return turn.complete({'x': object()})",
        "    raise asyncio.CancelledError",
        "    asyncio.current_task().cancel(); await asyncio.sleep(1)",
    ],
)
async def test_a_step_that_gives_no_json_is_refused_and_harms_no_other(unit: Unit, go: str) -> None:
    await install(unit, go)
    other = await start(unit)
    ref = (await advance(unit, other), actor_of(other))
    session_id = await start(unit, **MINE)
    assert_refusal(await post(unit, session_id), 500, "bug")
    answer = await shown(unit, session_id)
    assert (answer["step"]["step_id"], answer["session"]["data"]) == ("a", {})
    assert (await shown(unit, other), actor_of(other)) == ref
    assert (await abort(unit, session_id))["session"]["status"] == "aborted"


@pytest.mark.parametrize("metadata", ["{'x': {1}}", "{'x': float('inf')}"])
async def test_a_page_that_is_no_json_is_refused_before_the_session_is_there(
    unit: Unit, metadata: str
) -> None:
    await install(unit, metadata=metadata)
    session_id = await start(unit, **MINE)
    assert_refusal(await post(unit, session_id), 500, "the page b of mine", "bug")
    assert (await shown(unit, session_id))["step"]["step_id"] == "a"


@pytest.mark.parametrize(
    "start_with",
    ["return {'x': {1}}", "return {'x': float('nan')}", "raise asyncio.CancelledError"],
)
async def test_a_start_that_gives_no_json_begins_no_session(unit: Unit, start_with: str) -> None:
    await install(unit, start=start_with)
    status_and_body = await unit.request("POST", "/unit_api/calibrations/sessions", MINE)
    assert_refusal(status_and_body, 500, "the start of mine", "bug")
    assert await Sessions(unit.daemon.ledger.database).all() == []


# -- saving --------------------------------------------------------------------------


async def test_of_two_sessions_that_save_one_name_at_once_one_is_refused(unit: Unit) -> None:
    ids = [await start(unit), await start(unit)]
    shop = await workshop_of(unit, ids[0])
    benches = [SessionBench(shop, await row_of(shop, each)) for each in ids]
    replies = await asyncio.gather(
        *(
            bench.save(made(slope), DEVICE, may_replace=False)
            for slope, bench in enumerate(benches, start=1)
        ),
        return_exceptions=True,
    )
    assert sorted(type(reply) for reply in replies if not isinstance(reply, str)) == [Conflict]


async def test_what_somebody_uploads_after_a_failed_save_is_not_overwritten(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await start(unit)
    shop = await workshop_of(unit, session_id)
    bench = SessionBench(shop, await row_of(shop, session_id))
    with monkeypatch.context() as patch:

        def full(*args: object) -> None:
            raise StorageFull("the disk is full")

        patch.setattr("piod.calibrations.store.write_file", full)
        with pytest.raises(StorageFull):
            await bench.save(made(1), DEVICE, may_replace=False)
    theirs = SessionBench(shop, await row_of(shop, await start(unit)))
    file = await theirs.save(made(2), DEVICE, may_replace=False)
    again = SessionBench(shop, await row_of(shop, session_id))
    assert await again.exists(PumpCalibration, DEVICE, "same")
    with pytest.raises(Conflict, match="'same'"):
        await again.save(made(3), DEVICE, may_replace=False)
    # but its own it may replace, also when it has been interrupted again
    for slope in (4, 5):
        mine = SessionBench(shop, await row_of(shop, theirs._session.session_id))
        assert not await mine.exists(PumpCalibration, DEVICE, "same")
        assert await mine.save(made(slope), DEVICE, may_replace=False) == file


async def test_nothing_is_saved_while_an_import_replaces_the_files(unit: Unit) -> None:
    session_id = await start(unit)
    shop = await workshop_of(unit, session_id)
    bench = SessionBench(shop, await row_of(shop, session_id))
    async with no_new_jobs(unit.daemon.jobs, "an import replaces the files of the unit"):
        with pytest.raises(Conflict, match="an import"):
            await bench.save(made(1), DEVICE, may_replace=False)
    assert not (unit.data_dir / "storage" / "calibrations" / DEVICE).exists()
    assert await bench.save(made(1), DEVICE, may_replace=False)


# -- numbers -------------------------------------------------------------------------


async def test_so_many_sessions_may_be_open_and_no_more(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "MAX_IN_PROGRESS", 3)
    body = {"protocol_name": "duration_based", "target_device": DEVICE}
    path = "/unit_api/calibrations/sessions"
    replies = await asyncio.gather(*(unit.request("POST", path, body) for _ in range(6)))
    assert sorted(status for status, _ in replies) == [201] * 3 + [409] * 3
    refused = next(reply for reply in replies if reply[0] == 409)
    assert_refusal(refused, 409, "3 calibration sessions are in progress")
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert not [name for name in names if name.startswith("calibration session ")]
    open_ids = {body["session"]["session_id"] for status, body in replies if status == 201}
    (told,) = [one for one in open_ids if one in refused[1]["error_info"]["remediation"]]
    await abort(unit, told)
    assert await start(unit)


async def test_an_old_session_that_somebody_is_at_is_not_forgotten(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_module, "GRACE_S", 0.0)
    used, left = await start(unit), await start(unit)
    await shown(unit, used)
    kept = Sessions(unit.daemon.ledger.database)
    for session_id in (used, left):
        row = await kept.get(session_id)
        assert row is not None
        await kept.put(replace(row, updated_at="2001-01-01T00:00:00.000Z"))
    await actor_of(used)._forget_expired()
    assert [row.session_id for row in await kept.all()] == [used]


async def test_what_could_not_be_read_again_is_not_written(unit: Unit) -> None:
    shop = await workshop_of(unit, await start(unit))
    comment = "# " + "x" * MAX_FILE_BYTES
    with pytest.raises(InvalidRecord, match="are allowed"):
        await shop.calibrations.add(DEVICE, f"{artifact_text(made(1))}{comment}\n")
    assert await shop.calibrations.add(DEVICE, artifact_text(made(1)))
