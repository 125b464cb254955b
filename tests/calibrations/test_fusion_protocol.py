"""The fused OD: fitted to standards, and a model moved by two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from piod.calibrations.estimators import ANGLES, FusedEstimator, parse_estimator
from piod.calibrations.fits import fit_fused
from piod.calibrations.protocols import CalibrationProtocol, calibration_protocols
from piod.calibrations.protocols.od_fusion_offset import OdFusionOffset
from piod.calibrations.protocols.od_fusion_standards import OdFusionStandards
from piod.calibrations.protocols.protocol import NotNow
from piod.calibrations.writing import artifact_text
from piod.errors import BadRequest, ConfigurationError
from piod.jobs.calibrating.od_fusion import FusionObservation, FusionObserved
from piod.jobs.calibrating.photometer import Reference
from tests.calibrations.played import Played, PlayedCluster, facts

XR = "pioreactor_20ml_XR"
CONFIG = "[od_config.photodiode_channel]\n1=45\n2=90\n3=135\n4=REF\n"
LIGHT = Reference(80.0, 0.127)
GAINS = {"45": (0.030, 1.6), "90": (0.019, 1.0), "135": (0.015, 0.7)}
SIX = (0.05, 0.15, 0.4, 1.0, 2.5, 6.0)
NOISE = (0.998, 1.001, 1.003, 0.999)
"""Of the four samples."""

STANDARDS_INPUTS: dict[str, dict[str, object]] = {
    "name": {"estimator_name": "mine"},
    "name_overwrite": {"overwrite": True},
    "rpm": {"rpm": 500},
}
OFFSET_INPUTS: dict[str, dict[str, object]] = {
    "select_worker": {"source_unit": "pio01"},
    "select_estimator": {"source_estimator_name": "theirs"},
    **STANDARDS_INPUTS,
}


def volts(od: float) -> dict[str, float]:
    cells = 0.375 * od / (1 + od / 10)
    return {angle: blank + gain * cells for angle, (blank, gain) in GAINS.items()}


class Photodiodes:
    """Sees the vial that is in."""

    def __init__(self) -> None:
        self.od = 1.0

    def __call__(self, request: object) -> object:
        assert isinstance(request, FusionObservation)
        assert request.repeats == len(NOISE)
        samples = tuple({a: v * part for a, v in volts(self.od).items()} for part in NOISE)
        return FusionObserved(samples, 80.0, LIGHT)


def session(
    tmp_path: Path,
    protocol: type[CalibrationProtocol] = OdFusionStandards,
    cluster: PlayedCluster | None = None,
) -> tuple[Played, Photodiodes]:
    seen = Photodiodes()
    return Played(protocol, "od_fused", facts(tmp_path, CONFIG, model=XR), seen, cluster), seen


async def standards(one: Played, seen: Photodiodes, *ods: float) -> None:
    for od in ods:
        if one.at == "another_standard":
            await one.go(another="yes")
        await one.walk(STANDARDS_INPUTS, "measure_standard")
        assert await one.go(od_value=od) == "record_observation"
        seen.od = od
        assert await one.go(confirm=True) == "remove_observation"
        assert await one.go() == "another_standard"


async def made(tmp_path: Path, believed: Mapping[float, float] | None = None) -> FusedEstimator:
    """A model, from standards of which the person believes other ODs."""
    one, seen = session(tmp_path)
    for od in SIX:
        await standards(one, seen, od)
    await one.go(another=False)
    estimator = one.saved["od_fused", "mine"]
    assert isinstance(estimator, FusedEstimator)
    if believed is None:
        return estimator
    moved = {math.log10(od): math.log10(other) for od, other in believed.items()}
    records = [(angle, moved[logc], seen_ln) for angle, logc, seen_ln in one.data["records"]]
    fit = fit_fused(records)
    return replace(
        estimator,
        estimator_name="theirs",
        mu_splines=fit.mu_splines,
        sigma_splines_log=fit.sigma_splines_log,
        min_logc=fit.min_logc,
        max_logc=fit.max_logc,
    )


# -- by standards -------------------------------------------------------------------------


async def test_six_standards_make_a_model(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    assert one.data == {
        "channel_angle_map": {"1": "45", "2": "90", "3": "135"},
        "records": [],
        "standards": [],
    }
    await standards(one, seen, *SIX)
    assert len(one.data["records"]) == 6 * 4 * 3
    assert [request.reference for request in one.asked] == [None, *[LIGHT] * 5]
    assert await one.go(another="no") == "complete"
    result = one.result
    assert {key: result[key] for key in ("device", "estimator_name", "path")} == {
        "device": "od_fused",
        "estimator_name": "mine",
        "path": "/od_fused/mine.yaml",
    }
    assert result["title"]
    estimator = one.saved["od_fused", "mine"]
    assert isinstance(estimator, FusedEstimator)
    assert (estimator.angles, estimator.ir_led_intensity) == (ANGLES, 80.0)
    assert 10**estimator.min_logc == pytest.approx(0.05)
    assert 10**estimator.max_logc == pytest.approx(6.0)
    for od in (0.09, 0.25, 0.7, 1.6, 4.0):
        assert estimator.estimate(volts(od)) == pytest.approx(od, rel=0.05)
    # what is written is what is read
    again = parse_estimator(artifact_text(estimator))
    assert again.estimate(volts(0.7)) == estimator.estimate(volts(0.7))
    assert again.recorded_data == estimator.recorded_data


async def test_too_few_standards_are_told_and_more_can_be_added(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, *SIX[:3])
    assert "3 standards measured; the model needs 4, so at least 1 more" in one.page["body"]
    await one.refused("the model needs at least 4", another="no")
    await standards(one, seen, SIX[3])
    assert one.page["body"] == "4 standards measured."
    assert await one.go(another="no") == "complete"


@pytest.mark.parametrize(
    ("step_id", "inputs", "about"),
    [
        ("name", {}, "estimator_name is missing"),
        ("name", {"estimator_name": "../up"}, "estimator_name"),
        ("rpm", {}, "rpm is missing"),
        ("rpm", {"rpm": "inf"}, "rpm must be a finite number"),
        ("rpm", {"rpm": 6000}, "rpm must be at most 5000"),
        ("measure_standard", {}, "od_value is missing"),
        ("measure_standard", {"od_value": 0}, "od_value: at least 0.0001: a blank"),
        ("measure_standard", {"od_value": "0.4000000001"}, "od_value: a standard of OD 0.4 "),
        ("another_standard", {}, "another is missing"),
        ("another_standard", {"another": "perhaps"}, "another must be yes or no"),
        ("another_standard", {"action": "undo"}, "action must be one of redo_last"),
    ],
)
async def test_a_wrong_input_is_named_where_it_is_typed(
    tmp_path: Path, step_id: str, inputs: dict[str, Any], about: str
) -> None:
    one, seen = session(tmp_path)
    if step_id in ("measure_standard", "another_standard"):
        await standards(one, seen, 0.4)
    if step_id == "measure_standard":
        await one.go(another=True)
    await one.walk(STANDARDS_INPUTS, step_id)
    asked = len(one.asked)
    await one.refused(about, **inputs)
    assert len(one.asked) == asked


async def test_a_standard_can_be_corrected_and_done_again(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0)
    await one.go(another=True)
    await one.go()
    await one.go(od_value=5.0)
    assert await one.go(action="correct_od") == "measure_standard"
    await one.go(od_value=0.5)
    seen.od = 2.0  # another vial
    await one.walk({}, "another_standard")
    assert "OD 0.5 reads" in one.page["body"]
    assert "should read more" in one.page["body"]
    assert await one.go(action="redo_last") == "place_standard"
    assert one.data["standards"] == [1.0]
    assert len(one.data["records"]) == 12
    assert await one.go() == "measure_standard"
    assert one.page["metadata"]["table"]["rows"] == [["1", 1.0]]


async def test_redoing_when_nothing_is_there_is_refused(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0)
    one.row = replace(one.row, data={**one.row.data, "standards": [], "records": []})
    await one.refused("no standard yet", action="redo_last")


async def test_the_chart_has_a_series_for_each_angle(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0, 0.1)
    series = one.page["metadata"]["chart"]["series"]
    assert [each["id"] for each in series] == list(ANGLES)
    assert [point["x"] for point in series[0]["points"]] == [0.0] * 4 + [-1.0] * 4


@pytest.mark.parametrize("protocol", [OdFusionStandards, OdFusionOffset])
@pytest.mark.parametrize(
    ("config", "running", "model", "about"),
    [
        (f"{CONFIG}[od_reading.config]\nir_led_intensity=auto\n", [], XR, "is auto"),
        (CONFIG, ["stirring"], XR, "stirring runs"),
        (CONFIG, ["od_reading"], XR, "od_reading runs"),
        (CONFIG, [], "pioreactor_20ml", "this unit is a pioreactor_20ml; .* XR"),
        (CONFIG, [], None, "no known model"),
        (CONFIG.replace("3=135", "3="), [], XR, "no photodiode is configured at 135°"),
        (CONFIG.replace("3=135", "3=13"), [], XR, "a photodiode's angle is"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    tmp_path: Path,
    protocol: type[CalibrationProtocol],
    config: str,
    running: list[str],
    model: str | None,
    about: str,
) -> None:
    with pytest.raises(BadRequest, match=about) as refusal:
        protocol.start("od_fused", facts(tmp_path, config, *running, model=model))
    assert refusal.value.remediation != NotNow.default_remediation
    assert isinstance(refusal.value, NotNow | ConfigurationError)


# -- by two points ------------------------------------------------------------------------


BELIEVED = {od: 1.4 * od**1.15 for od in SIX}


@pytest.fixture
async def theirs(tmp_path: Path) -> FusedEstimator:
    """A model of a lab whose ODs are others."""
    return await made(tmp_path, BELIEVED)


async def two(one: Played, seen: Photodiodes, *ods: float) -> None:
    for od in ods:
        await one.walk(OFFSET_INPUTS, "standard_od")
        await one.go(standard_od=od)
        seen.od = od
        assert await one.go() == "remove_standard"
        if od != ods[-1]:
            await one.go()


async def test_two_standards_correct_a_model(tmp_path: Path, theirs: FusedEstimator) -> None:
    one, seen = session(tmp_path, OdFusionOffset, PlayedCluster({"pio01": {"theirs": theirs}}))
    await two(one, seen, 0.2, 3.0)
    assert "Note" not in one.page["body"]
    assert await one.go() == "complete"
    result = one.result
    assert result["scale_logc"] == pytest.approx(1 / 1.15, rel=0.02)
    assert (result["source_unit"], result["source_estimator"]) == ("pio01", "theirs")
    assert (result["device"], result["estimator_name"]) == ("od_fused", "mine")
    made = one.saved["od_fused", "mine"]
    assert isinstance(made, FusedEstimator)
    for od in (0.09, 0.25, 0.7, 1.6, 4.0):
        assert made.estimate(volts(od)) == pytest.approx(od, rel=0.05)
        assert abs(theirs.estimate(volts(od)) / od - 1) > 0.01
    scale, offset = result["scale_logc"], result["offset_logc"]
    assert made.min_logc == pytest.approx(scale * theirs.min_logc + offset)
    for angle in ANGLES:
        before, after = theirs.mu_splines[angle], made.mu_splines[angle]
        assert after.knots == pytest.approx([scale * knot + offset for knot in before.knots])
        assert after.evaluate(scale * -0.3 + offset) == pytest.approx(before.evaluate(-0.3))
    transform = made.recorded_data["transform"]
    assert transform == {
        "type": "logc_affine",
        "scale_logc": scale,
        "offset_logc": offset,
        "source_unit": "pio01",
        "source_estimator_name": "theirs",
        "source_ir_led_intensity": 80.0,
    }
    kept: Any = made.recorded_data["standards"]
    assert [standard["standard_od"] for standard in kept] == [0.2, 3.0]
    assert [len(standard["estimated_ods"]) for standard in kept] == [4, 4]
    assert made.recorded_data["base_recorded_data"] == theirs.recorded_data
    again = parse_estimator(artifact_text(made))
    assert again.estimate(volts(0.7)) == made.estimate(volts(0.7))


async def test_the_chosen_model_is_kept_when_its_unit_is_gone(
    tmp_path: Path, theirs: FusedEstimator
) -> None:
    cluster = PlayedCluster({"pio01": {}, "pio02": {"theirs": theirs}})
    one, seen = session(tmp_path, OdFusionOffset, cluster)
    await one.go()
    assert one.page["fields"][0]["options"] == ["pio01", "pio02"]
    await one.go(source_unit="pio02")
    assert one.page["fields"][0]["options"] == ["theirs"]
    await one.go(source_estimator_name="theirs")
    assert one.page["fields"][0]["default"] == "theirs-offset-2026-09-21"
    cluster.has["pio02"] = None
    await two(one, seen, 0.2, 3.0)
    assert await one.go() == "complete"
    assert one.result["source_unit"] == "pio02"


async def test_a_unit_without_models_leads_back_to_the_choice(
    tmp_path: Path, theirs: FusedEstimator
) -> None:
    cluster = PlayedCluster({"pio01": {}, "pio02": None, "pio03": {"theirs": theirs}})
    one, _ = session(tmp_path, OdFusionOffset, cluster)
    await one.go()
    for unit, why in (("pio01", "has no fused OD estimator"), ("pio02", "did not answer")):
        assert await one.go(source_unit=unit) == "select_estimator"
        page = one.page
        assert (page["step_type"], page["fields"]) == ("info", [])
        assert why in page["body"]
        assert await one.go() == "select_worker"
    await one.refused("source_unit must be one of", source_unit="pio04")
    await one.go(source_unit="pio03")
    assert one.page["step_type"] == "form"
    await one.refused("source_estimator_name must be one of", source_estimator_name="mine")


async def test_a_model_of_other_angles_is_refused_when_it_is_chosen(
    tmp_path: Path, theirs: FusedEstimator
) -> None:
    cluster = PlayedCluster({"pio01": {"theirs": replace(theirs, angles=("45", "90"))}})
    one, _ = session(tmp_path, OdFusionOffset, cluster)
    await one.walk(OFFSET_INPUTS, "select_estimator")
    await one.refused("goes by 45°, 90°; a model", source_estimator_name="theirs")


async def test_two_standards_of_one_od_are_refused_as_they_are_typed(
    tmp_path: Path, theirs: FusedEstimator
) -> None:
    one, seen = session(tmp_path, OdFusionOffset, PlayedCluster({"pio01": {"theirs": theirs}}))
    await two(one, seen, 0.5)
    await one.walk({}, "standard_od")
    await one.refused("standard_od: the first standard has an OD of 0.5 too", standard_od="0.50")
    await one.refused("standard_od must be at least 1e-06", standard_od=0)
    await one.refused("standard_od is missing")


async def test_swapped_vials_are_refused_while_they_can_be_put_right(
    tmp_path: Path, theirs: FusedEstimator
) -> None:
    one, seen = session(tmp_path, OdFusionOffset, PlayedCluster({"pio01": {"theirs": theirs}}))
    await two(one, seen, 0.5)
    await one.walk({}, "standard_od")
    await one.go(standard_od=3.0)
    seen.od = 0.5
    await one.refused("are estimated the same OD")
    seen.od = 0.2
    await one.refused("is estimated to have the smaller one")
    # either the OD was mistyped, or the vial was the wrong one, or the first one was
    assert await one.go(action="correct_od") == "standard_od"
    assert await one.go(standard_od=0.2) == "record_observation"
    assert await one.go() == "remove_standard"
    assert await one.go(action="redo_last") == "place_standard"
    await one.go()
    await one.go(standard_od=3.0)
    assert await one.go(action="redo_last") == "place_standard"
    assert one.page["title"] == "Standard 1 of 2"
    await two(one, seen, 0.2, 3.0)
    assert await one.go() == "complete"


async def test_doubts_are_told_while_the_standard_can_be_done_again(
    tmp_path: Path, theirs: FusedEstimator
) -> None:
    elsewhere = replace(theirs, ir_led_intensity=50.0)
    one, seen = session(tmp_path, OdFusionOffset, PlayedCluster({"pio01": {"theirs": elsewhere}}))
    await two(one, seen, 9.0)
    body = one.page["body"]
    assert "with the IR LED at 50 %, here it is at 80 %" in body
    assert "the end of the model's range" in body
    assert "close together" not in body
    await one.go(action="redo_last")
    await two(one, seen, 1.0, 1.5)
    assert "lie close together" in one.page["body"]
    await one.go()
    codes = [verdict["code"] for verdict in one.result["verdicts"]]
    assert codes == ["other_intensity", "standards_too_close"]


def test_a_unit_that_is_no_xr_is_offered_them_with_why_not(tmp_path: Path) -> None:
    plain = facts(tmp_path, CONFIG, model="pioreactor_20ml")
    both = calibration_protocols((OdFusionOffset, OdFusionStandards), plain)
    assert [one.id for one in both] == [
        "od_fused_od_fusion_standards",
        "od_fused_od_fusion_offset",
    ]
    assert all("pioreactor_20ml" in str(one.unavailable_because) for one in both)
    xr = facts(tmp_path, CONFIG, model=XR)
    able = calibration_protocols((OdFusionOffset, OdFusionStandards), xr)
    assert [one.unavailable_because for one in able] == [None, None]
