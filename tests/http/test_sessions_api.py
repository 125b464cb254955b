"""Calibration sessions over HTTP, on the simulated plant: a pump's, from end to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from piod.jobs import job
from piod.jobs.registry import JOBS
from piod.storage.sessions import Sessions
from tests.http.test_calibrations_api import assert_refusal
from tests.unit import Unit, running_unit

API = "/unit_api/calibrations/sessions"
PUMP = {"protocol_name": "duration_based", "target_device": "media_pump"}
MEDIA_PIN = 13
NOBODY = "00000000-0000-4000-8000-000000000000"

USUAL_INPUTS: dict[str, dict[str, object]] = {
    "name_input": {"calibration_name": "mine"},
    "name_overwrite_confirm": {"overwrite": True},
    "volume_targets": {"mls_to_calibrate_for": [0.5, 1.0]},
    "pwm_settings": {"hz": 250, "dc": 100},
    "prime_pump_duration": {"prime_duration_s": 5},
    "tracer_volume": {"volume_ml": 0.1},
    "test_volume": {"volume_ml": 0.5},
    "confirm_fit": {"keep": True},
}
WRONG_INPUTS: dict[str, list[tuple[dict[str, object], str]]] = {
    "name_input": [
        ({}, "calibration_name"),
        ({"calibration_name": "../up"}, "calibration_name"),
        ({"calibration_name": "  "}, "calibration_name"),
        ({"calibration_name": 5}, "calibration_name"),
    ],
    "name_overwrite_confirm": [({}, "overwrite"), ({"overwrite": "perhaps"}, "overwrite")],
    "volume_targets": [
        ({}, "mls_to_calibrate_for"),
        ({"mls_to_calibrate_for": [0]}, "mls_to_calibrate_for"),
        ({"mls_to_calibrate_for": [-1]}, "mls_to_calibrate_for"),
        ({"mls_to_calibrate_for": [None]}, "mls_to_calibrate_for"),
        ({"mls_to_calibrate_for": [True]}, "mls_to_calibrate_for"),
        ({"mls_to_calibrate_for": "a, b"}, "mls_to_calibrate_for"),
    ],
    "pwm_settings": [
        ({"dc": 100}, "hz"),
        ({"hz": 250}, "dc"),
        ({"hz": "fast", "dc": 100}, "hz"),
        ({"hz": "nan", "dc": 100}, "hz"),
        ({"hz": 0.09, "dc": 100}, "hz"),
        ({"hz": 10_001, "dc": 100}, "hz"),
        ({"hz": 250, "dc": 101}, "dc"),
        ({"hz": 250, "dc": 0}, "dc"),
        ({"hz": True, "dc": 100}, "hz"),
    ],
    "prime_pump_duration": [
        ({}, "prime_duration_s"),
        ({"prime_duration_s": 4}, "at least 5 s"),
        ({"prime_duration_s": 1000}, "prime_duration_s"),
    ],
    "tracer_volume": [
        ({}, "volume_ml"),
        ({"volume_ml": 0}, "volume_ml"),
        ({"volume_ml": "inf"}, "volume_ml"),
        ({"volume_ml": 0.0001}, "longest"),
    ],
    "test_run": [({"action": "redo_last"}, "redo_last"), ({"action": "explode"}, "action")],
    "test_volume": [({}, "volume_ml"), ({"volume_ml": -1}, "volume_ml")],
}


async def start(unit: Unit, **body: object) -> str:
    status, answer = await unit.request("POST", API, {**PUMP, **body})
    assert status == 201, answer
    return str(answer["session"]["session_id"])


async def post(unit: Unit, session_id: str, **inputs: object) -> tuple[int, Any]:
    return await unit.request("POST", f"{API}/{session_id}/inputs", {"inputs": inputs})


async def advance(unit: Unit, session_id: str, **inputs: object) -> dict[str, Any]:
    status, answer = await post(unit, session_id, **inputs)
    assert status == 200, answer
    return dict(answer)


async def abort(unit: Unit, session_id: str) -> dict[str, Any]:
    status, answer = await unit.request("POST", f"{API}/{session_id}/abort")
    assert status == 200, answer
    return dict(answer)


async def shown(unit: Unit, session_id: str) -> dict[str, Any]:
    return dict(await unit.get(f"{API}/{session_id}"))


async def go_to(unit: Unit, session_id: str, target: str) -> dict[str, Any]:
    """Take the steps of a pump's session until it is at ``target``."""
    answer = await shown(unit, session_id)
    while (step_id := answer["step"]["step_id"]) != target:
        answer = await advance(unit, session_id, **USUAL_INPUTS.get(step_id, {}))
    return answer


def pump_duty(unit: Unit) -> float:
    return unit.plant.duties.get(MEDIA_PIN, 0.0)


@asynccontextmanager
async def priming(unit: Unit, seconds: float = 250) -> AsyncIterator[tuple[str, asyncio.Task[Any]]]:
    """A session whose pump runs, and the advance that waits for it."""
    session_id = await start(unit)
    await go_to(unit, session_id, "prime_pump_duration")
    waiting = asyncio.create_task(post(unit, session_id, prime_duration_s=seconds))
    while not pump_duty(unit):
        await asyncio.sleep(0.001)
        assert not waiting.done(), waiting.result()
    try:
        yield session_id, waiting
    finally:
        await waiting


# -- to the end ----------------------------------------------------------------------


async def test_a_pump_is_calibrated_and_the_calibration_is_active(unit: Unit) -> None:
    session_id = await start(unit)
    answer = await go_to(unit, session_id, "tracer_run")
    pump = unit.plant.pumps["media"]
    moved_ml = pump.pumped_ml
    while answer["session"]["status"] == "in_progress":
        step_id, ran_ml = answer["step"]["step_id"], pump.pumped_ml - moved_ml
        if step_id in ("tracer_run", "test_run"):
            moved_ml = pump.pumped_ml
        weighed = {"volume_ml": ran_ml} if step_id in ("tracer_volume", "test_volume") else {}
        answer = await advance(unit, session_id, confirm=True, **weighed)
    result = answer["session"]["result"]
    assert answer["step"]["metadata"]["result"] == result
    assert (answer["step"]["step_type"], answer["step"]["step_id"]) == ("result", "complete")
    assert result["stats"]["slope"] == pytest.approx(pump.ml_per_s, rel=0.03)
    assert result["calibration_link"]["calibration_name"] == "mine"
    folder = unit.data_dir / "storage" / "calibrations" / "media_pump"
    assert result["calibration_link"]["path"] == str(folder / "mine.yaml")
    low, high = result["recommended_volume_range_ml"]
    assert low == pytest.approx(0.4, rel=0.1)
    assert high == pytest.approx(1.1, rel=0.1)
    active = (await unit.get("/unit_api/active_calibrations"))["media_pump"]
    assert result["calibration"].items() <= active.items()
    assert (active["hz"], active["dc"], active["voltage"]) == (250.0, 100.0, 12.0)
    assert len(active["recorded_data"]["x"]) == 10


async def test_the_runs_are_planned_by_the_tracer_and_drawn_as_they_come(unit: Unit) -> None:
    session_id = await start(unit)
    answer = await go_to(unit, session_id, "tracer_volume")
    answer = await advance(unit, session_id, volume_ml=1.0)  # handbook §9
    runs = [0.4] * 4 + [0.75] * 2 + [1.1] * 4
    assert answer["session"]["data"]["durations_to_test"] == pytest.approx(runs)
    assert "actions" not in answer["step"]["metadata"]
    await advance(unit, session_id)
    answer = await advance(unit, session_id, volume_ml=0.5)
    (series,) = answer["step"]["metadata"]["chart"]["series"]
    assert (series["id"], series["points"]) == ("measured", [{"x": pytest.approx(0.4), "y": 0.5}])
    (button,) = answer["step"]["metadata"]["actions"]
    answer = await advance(unit, session_id, **button["inputs"])
    assert answer["step"]["step_id"] == "test_volume"
    assert answer["session"]["data"]["volumes_ml"] == []


# -- what is refused -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, ["empty"]),
        ([], ["object"]),
        ({}, ["target_device"]),
        ({"target_device": "media_pump"}, ["protocol_name"]),
        ({"target_device": 5, "protocol_name": "duration_based"}, ["target_device"]),
        ({"target_device": "stirring", "protocol_name": "duration_based"}, ["dc_based"]),
        ({"target_device": "../etc", "protocol_name": "duration_based"}, ["target_device"]),
        ({"target_device": "od7", "protocol_name": "standards"}, ["target_device", "od7"]),
    ],
)
async def test_a_wrong_start_is_400_with_the_field(
    unit: Unit, body: object, words: list[str]
) -> None:
    assert_refusal(await unit.request("POST", API, body), 400, *words)


async def test_a_pump_without_an_output_is_not_calibrated(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[PWM]\n1=stirring\n3=waste\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        assert_refusal(await unit.request("POST", API, PUMP), 400, "'media'", "media_pump")
        listed = {p["id"]: p for p in await unit.get("/unit_api/calibration_protocols")}
        assert "'media'" in listed["media_pump_duration_based"]["unavailable_because"]
        assert listed["waste_pump_duration_based"]["unavailable_because"] is None


async def test_an_unknown_session_is_404_before_anything_else(unit: Unit) -> None:
    for one in (NOBODY, "abc", "x" * 200):
        assert_refusal(await unit.request("GET", f"{API}/{one}"), 404, one[:80])
        assert_refusal(await unit.request("POST", f"{API}/{one}/inputs", []), 404)
        assert_refusal(await unit.request("POST", f"{API}/{one}/abort"), 404)


async def test_wrong_inputs_at_every_step_are_400_and_change_nothing(unit: Unit) -> None:
    calibration = (
        "calibration_type: simple_peristaltic_pump\ncalibration_name: mine\n"
        "calibrated_on_pioreactor_unit: pio01\ncreated_at: 2026-02-11T14:05:09.500Z\n"
        "curve_data_: {type: poly, coefficients: [0.1, 0.0]}\nrecorded_data: {x: [], y: []}\n"
        "hz: 250\ndc: 100\nvoltage: 12\n"
    )
    body = {"calibration_data": calibration}
    status, _ = await unit.request("POST", "/unit_api/calibrations/media_pump", body)
    assert status == 201
    session_id = await start(unit)
    seen = set()
    answer = await shown(unit, session_id)
    while (step_id := answer["step"]["step_id"]) not in seen:
        before = await shown(unit, session_id)
        for inputs, said in WRONG_INPUTS.get(step_id, []):
            assert_refusal(await post(unit, session_id, **inputs), 400, said)
        for broken in ([], None, {"inputs": []}, {"inputs": "x"}):
            path = f"{API}/{session_id}/inputs"
            assert_refusal(await unit.request("POST", path, broken), 400)
        assert await shown(unit, session_id) == before
        assert pump_duty(unit) == 0
        seen.add(step_id)
        answer = await advance(unit, session_id, **USUAL_INPUTS.get(step_id, {}))
    assert seen >= WRONG_INPUTS.keys()
    assert not (unit.data_dir / "storage" / "calibrations" / "up.yaml").exists()


class Holder(job.Job):
    """Holds the media pump's output."""

    job_name = "holder"
    options = (job.Option("note", "text"),)

    @classmethod
    async def create(cls, unit: job.Unit, options: job.Options) -> job.Job:
        await unit.lease_pwm("media", hz=200)
        return cls()

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_hardware_has_one_owner_and_the_refusal_names_it(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, kinds={**JOBS, "holder": Holder}) as unit:
        session_id = await start(unit)
        await go_to(unit, session_id, "prime_pump_duration")
        job_id = await unit.run("holder")
        assert_refusal(
            await post(unit, session_id, prime_duration_s=5), 409, f"holder (job {job_id})"
        )
        await unit.post("/unit_api/jobs/stop", {"job_name": "holder"})
        assert (await shown(unit, session_id))["step"]["step_id"] == "prime_pump_duration"
        async with priming(unit) as (other, waiting):
            _, accepted = await unit.request(
                "POST", "/unit_api/jobs/run/job_name/holder", {"options": {"note": "again"}}
            )
            task = await unit.task(accepted)
            assert task["status"] == "failed"
            owner = f"calibration session {other} (duration_based of media_pump)"
            assert owner in task["error"]
            assert_refusal(await post(unit, session_id, prime_duration_s=5), 409, owner)
            await abort(unit, other)
        assert waiting.result()[0] == 409


# -- while hardware runs -------------------------------------------------------------


async def test_an_abort_stops_the_pump_at_once_and_answers_the_waiting_advance(unit: Unit) -> None:
    async with priming(unit) as (session_id, waiting):
        began_s, pumping_since_s = time.monotonic(), unit.clock.monotonic()
        answer = await abort(unit, session_id)
        took_s = time.monotonic() - began_s
        assert unit.clock.monotonic() - pumping_since_s < 60, "it pumped to the end"
        assert pump_duty(unit) == 0
        assert took_s < 0.5  # 100 ms, with slack for a busy machine
        assert answer["step"] is None
        session = answer["session"]
        assert (session["status"], session["step_id"]) == ("aborted", "prime_pump_duration")
        assert session["error"]
    assert_refusal(waiting.result(), 409, "aborted")
    assert (await shown(unit, session_id))["session"] == session
    answer = await advance(unit, session_id, prime_duration_s=5)
    assert (answer["session"], answer["step"], pump_duty(unit)) == (session, None, 0)
    await go_to(unit, await start(unit), "tracer_run")


async def test_a_second_advance_is_409_and_the_pump_runs_once(unit: Unit) -> None:
    async with priming(unit, 200) as (session_id, waiting):
        answer = await post(unit, session_id, prime_duration_s=200)
        assert_refusal(answer, 409, "prime_pump_duration")
    assert waiting.result()[0] == 200
    assert unit.plant.pumps["media"].pumped_ml < 1.1 * 200 * unit.plant.pumps["media"].ml_per_s
    assert (await shown(unit, session_id))["step"]["step_id"] == "tracer_run"


async def test_a_session_is_shown_with_its_progress_while_its_pump_runs(unit: Unit) -> None:
    async with priming(unit, 200) as (session_id, _):
        answer = await shown(unit, session_id)
        assert answer["step"]["step_id"] == "prime_pump_duration"
        assert 0 <= answer["session"]["progress"] < 1
    assert (await shown(unit, session_id))["session"]["progress"] is None


async def test_stopping_all_jobs_stops_the_pump_of_a_session(unit: Unit) -> None:
    async with priming(unit) as (session_id, waiting):
        since_s = unit.clock.monotonic()
        await unit.post("/unit_api/jobs/stop/all")
        assert unit.clock.monotonic() - since_s < 60, "it pumped to the end"
        assert pump_duty(unit) == 0
    assert_refusal(waiting.result(), 409, "stopped")
    answer = await shown(unit, session_id)
    assert (answer["session"]["status"], answer["step"]["step_id"]) == (
        "in_progress",
        "prime_pump_duration",
    )
    answer = await advance(unit, session_id, prime_duration_s=5)
    assert answer["step"]["step_id"] == "tracer_run"


# -- the end -------------------------------------------------------------------------


async def test_what_is_finished_stays_as_it_is(unit: Unit) -> None:
    session_id = await start(unit)
    complete = await go_to(unit, session_id, "complete")
    assert await abort(unit, session_id) == complete
    assert await advance(unit, session_id, volume_ml=5) == complete
    assert await shown(unit, session_id) == complete
    other = await start(unit)
    aborted = await abort(unit, other)
    assert await abort(unit, other) == aborted


async def test_a_session_whose_protocol_is_gone_is_409_and_can_be_aborted(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[od_config.photodiode_channel]\n1=REF\n2=90\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        session_id = await start(unit, protocol_name="od_calibration", target_device="od")
        assert (await shown(unit, session_id))["session"]["protocol_name"] == "od_calibration"
        (tmp_path / "config.ini").write_text("[od_config.photodiode_channel]\n1=REF\n")
        path = f"{API}/{session_id}"
        assert_refusal(await unit.request("GET", path), 409, "od_calibration")
        assert_refusal(await post(unit, session_id), 409, "od_calibration")
        assert (await abort(unit, session_id))["session"]["status"] == "aborted"


async def test_a_session_goes_on_where_it_was_after_every_step(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    session_id, steps, before = "", set(), None
    while True:
        async with running_unit(tmp_path, clock) as unit:
            session_id = session_id or await start(unit)
            answer = await shown(unit, session_id)
            assert before is None or answer == before
            step_id = answer["step"]["step_id"]
            if step_id in steps:
                break
            steps.add(step_id)
            before = await advance(unit, session_id, **USUAL_INPUTS.get(step_id, {}))
    assert {"prime_pump_duration", "tracer_run", "tracer_volume", "test_volume"} <= steps


async def test_a_disk_that_fails_at_the_last_step_loses_and_doubles_nothing(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await start(unit)
    answer = await shown(unit, session_id)
    while answer["session"]["data"].get("volumes_ml", []) != [0.5] * 9:
        step_id = answer["step"]["step_id"]
        answer = await advance(unit, session_id, **USUAL_INPUTS.get(step_id, {}))
    await advance(unit, session_id)  # the last run
    await advance(unit, session_id, volume_ml=0.5)
    put, failures = Sessions.put, ["once"]

    async def fail_when_complete(self: Sessions, row: Any) -> None:
        if row.status == "complete" and failures:
            failures.clear()
            raise OSError("not a refusal: a bug of the disk")
        await put(self, row)

    monkeypatch.setattr(Sessions, "put", fail_when_complete)
    status, _ = await post(unit, session_id, keep=True)
    assert status >= 500
    folder = unit.data_dir / "storage" / "calibrations" / "media_pump"
    assert [path.name for path in folder.iterdir()] == ["mine.yaml"]
    assert (await shown(unit, session_id))["step"]["step_id"] == "confirm_fit"
    answer = await advance(unit, session_id, keep=True)
    assert answer["session"]["status"] == "complete"
    assert [path.name for path in folder.iterdir()] == ["mine.yaml"]


async def test_a_name_that_was_taken_meanwhile_is_not_overwritten(unit: Unit) -> None:
    first, second = await start(unit), await start(unit)
    await go_to(unit, second, "volume_targets")
    await go_to(unit, first, "complete")
    file = unit.data_dir / "storage" / "calibrations" / "media_pump" / "mine.yaml"
    text = file.read_text()
    answer = await shown(unit, second)
    while len(answer["session"]["data"].get("volumes_ml", [])) < 9:
        step_id = answer["step"]["step_id"]
        answer = await advance(unit, second, **USUAL_INPUTS.get(step_id, {}))
    await advance(unit, second)
    await advance(unit, second, volume_ml=0.7)
    assert_refusal(await post(unit, second, keep=True), 409, "'mine'")
    assert file.read_text() == text


async def test_fifty_sessions_at_once_are_each_shown_at_once(unit: Unit) -> None:
    ids = [await start(unit) for _ in range(50)]
    async with priming(unit, 200):
        slowest_s = 0.0
        for session_id in ids:
            began_s = time.monotonic()
            await shown(unit, session_id)
            slowest_s = max(slowest_s, time.monotonic() - began_s)
    assert slowest_s < 0.25  # 50 ms, with slack for a busy machine
    assert len(set(ids)) == 50


# -- the other protocols ---------------------------------------------------------------


async def test_the_stirrer_is_calibrated_by_a_sweep(unit: Unit) -> None:
    session_id = await start(unit, protocol_name="dc_based", target_device="stirring")
    await advance(unit, session_id)
    answer = await advance(unit, session_id)
    session = answer["session"]
    assert session["status"] == "complete"
    (link,) = session["result"]["calibrations"]
    active = (await unit.get("/unit_api/active_calibrations"))["stirring"]
    assert active["calibration_name"] == link["calibration_name"]
    assert len(active["recorded_data"]["x"]) == 15
    assert unit.duty == 0


OPTICS = "[od_config.photodiode_channel]\n1=REF\n2=90\n[leds]\nA=IR\n[od_reading.config]\n"


async def test_standards_of_one_od_are_refused_at_their_step(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    async with running_unit(tmp_path, clock, config_ini=OPTICS) as unit:
        session_id = await start(unit, protocol_name="standards", target_device="od90")
        for inputs in ({}, {"calibration_name": "od"}, {"rpm": 500}, {}, {"od600_value": 0.5}):
            answer = await advance(unit, session_id, **inputs)
        assert answer["step"]["step_id"] == "another_standard"
        assert len(answer["step"]["metadata"]["chart"]["series"]) == 1
        again = "record another standard"
        await advance(unit, session_id, next_action=again)
        await advance(unit, session_id)
        assert_refusal(await post(unit, session_id, od600_value=0.5), 400, "od600_value", "0.5")
        assert (await shown(unit, session_id))["step"]["step_id"] == "measure_standard"
