"""``duration_based``: what is typed is judged to the last, before it is saved and used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from piod.calibrations.protocols.duration_based import DurationBased
from piod.calibrations.records import PumpCalibration
from piod.errors import BadRequest
from piod.jobs.calibrating.aux_voltage import AuxVoltage, AuxVoltageRead
from piod.jobs.calibrating.pump_run import PumpRan, PumpRun
from tests.calibrations.played import Played, facts

CONFIG = "[PWM]\n2=media\n"
RATE = 0.1
USUAL: dict[str, dict[str, object]] = {
    "name_input": {"calibration_name": "mine"},
    "volume_targets": {"mls_to_calibrate_for": [0.5, 1.0]},
    "pwm_settings": {"hz": 250, "dc": 100},
    "prime_pump_duration": {"prime_duration_s": 15},
    "tracer_volume": {"volume_ml": RATE},
}


def pump(request: object) -> object:
    if isinstance(request, AuxVoltage):
        return AuxVoltageRead(12.0, None)
    assert isinstance(request, PumpRun)
    return PumpRan(request.seconds)


def session(tmp_path: Path) -> Played:
    return Played(DurationBased, "media_pump", facts(tmp_path, CONFIG), pump)


def weighed(one: Played) -> float:
    return round(one.asked[-1].seconds * RATE, 2)


async def runs(one: Played, until: int) -> None:
    """All runs before that one, weighed well; the session is where its volume is typed."""
    await one.walk(USUAL, "test_run")
    while len(one.data["volumes_ml"]) < until - 1:
        await one.go()
        await one.go(volume_ml=weighed(one))
    await one.go()
    assert one.at == "test_volume"


async def test_good_runs_are_saved_at_once(tmp_path: Path) -> None:
    one = session(tmp_path)
    await runs(one, 10)
    assert await one.go(volume_ml=weighed(one)) == "complete"
    assert one.result["verdicts"] == []
    made = one.saved["media_pump", "mine"]
    assert isinstance(made, PumpCalibration)
    assert made.x_to_y(10.0) == pytest.approx(1.0)
    assert len(made.recorded_data.x) == 10
    assert one.page["metadata"]["chart"]["series"][0]["curve"]["type"] == "poly"


async def test_a_slip_in_the_last_volume_is_shown_before_it_is_saved(tmp_path: Path) -> None:
    one = session(tmp_path)
    await runs(one, 10)
    assert await one.go(volume_ml=110) == "confirm_fit"  # for 1.10
    assert one.saved == {}
    assert "110 mL in 11 s" in one.page["body"]
    assert one.page["metadata"]["chart"]["series"][0]["curve"]["type"] == "poly"
    await one.refused("keep is missing")
    assert await one.go(keep="no") == "test_run"
    assert one.page["title"] == "Run 10 of 10"
    await one.go()
    assert await one.go(volume_ml=weighed(one)) == "complete"
    made = one.saved["media_pump", "mine"]
    assert isinstance(made, PumpCalibration)
    assert made.x_to_y(10.0) == pytest.approx(1.0)


async def test_a_slip_in_an_earlier_volume_is_not_forgotten(tmp_path: Path) -> None:
    one = session(tmp_path)
    await runs(one, 3)
    await one.go(volume_ml=0.04)  # for 0.40
    await runs(one, 10)
    assert await one.go(volume_ml=weighed(one)) == "confirm_fit"
    assert "run 3 moved 0.04 mL" in one.page["body"]


async def test_what_is_doubtful_may_be_kept(tmp_path: Path) -> None:
    one = session(tmp_path)
    await runs(one, 10)
    await one.go(volume_ml=2.2)
    assert await one.go(keep="yes") == "complete"
    assert "dose_far_off" in [verdict["code"] for verdict in one.result["verdicts"]]
    assert set(one.saved) == {("media_pump", "mine")}


async def test_a_tracer_of_little_water_is_told_at_the_next_step(tmp_path: Path) -> None:
    one = session(tmp_path)
    await one.walk(USUAL, "tracer_volume")
    assert await one.go(volume_ml=0.04) == "test_run"
    assert "what a scale shows" in one.page["body"]


@pytest.mark.parametrize(
    ("step_id", "volume_ml", "about"),
    [
        ("tracer_volume", 1001, "at most 1000"),
        ("tracer_volume", 0.001, "the longest is 280 s"),
        ("tracer_volume", 100, "starts and stops more than it runs"),
        ("test_volume", 1001, "at most 1000"),
    ],
)
async def test_a_volume_that_no_pump_moves_is_refused(
    tmp_path: Path, step_id: str, volume_ml: float, about: str
) -> None:
    one = session(tmp_path)
    await one.walk(USUAL, step_id)
    await one.refused(about, volume_ml=volume_ml)
    assert one.at == step_id


def test_a_channel_that_can_drive_no_pump_keeps_it_from_starting(tmp_path: Path) -> None:
    known = replace(facts(tmp_path, CONFIG), pwm_channels=frozenset("134"))
    with pytest.raises(BadRequest, match="'media' to channel 2") as refusal:
        DurationBased.start("media_pump", known)
    assert "1, 3, 4" in refusal.value.remediation
    with pytest.raises(BadRequest, match="no PWM channel has the role 'waste'"):
        DurationBased.start("waste_pump", known)
