"""Estimator records, and the OD that they make of readings."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from piod.calibrations.curves import AkimaCurve, BrokenCurve
from piod.calibrations.estimators import FusedEstimator, MissingAngle, parse_estimator
from piod.calibrations.fields import InvalidRecord

FUSED = """\
estimator_type: od_fused_estimator
estimator_name: fused-two-decades
calibrated_on_pioreactor_unit: pioXR1
created_at: 2026-03-18T16:45:00.125Z
ir_led_intensity: 80
angles: ['45', '90', '135']
mu_splines:
  '45':  {type: akima, knots: [-2.0, -1.0, 0.0, 0.5], coefficients:
    [[-3.6, 1.0, 0.3, 0.0], [-2.3, 1.6, 0.2, 0.0], [-0.5, 1.8, -0.2, 0.0]]}
  '90':  {type: akima, knots: [-2.0, -1.0, 0.0, 0.5], coefficients:
    [[-3.5, 1.1, 0.3, 0.0], [-2.1, 1.7, 0.1, 0.0], [-0.3, 1.7, -0.3, 0.0]]}
  '135': {type: akima, knots: [-2.0, -1.0, 0.0, 0.5], coefficients:
    [[-3.4, 1.2, 0.2, 0.0], [-2.0, 1.8, 0.1, 0.0], [-0.1, 1.6, -0.4, 0.0]]}
sigma_splines_log:
  '45':  {type: akima, knots: [-2.0, 0.5], coefficients: [[-3.0, 0.0, 0.0, 0.0]]}
  '90':  {type: akima, knots: [-2.0, 0.5], coefficients: [[-3.1, 0.0, 0.0, 0.0]]}
  '135': {type: akima, knots: [-2.0, 0.5], coefficients: [[-3.2, 0.0, 0.0, 0.0]]}
min_logc: -2.0
max_logc: 0.5
sigma_floor: 0.04
recorded_data:
  by_angle: {'45': {x: [-2, 0.5], y: [-3.6, 0.35]}}
  when: 2026-03-18T16:45:00Z
"""

OFFSET = """\
estimator_type: od_fused_estimator
estimator_name: fused-two-decades-offset
calibrated_on_pioreactor_unit: pioXR2
created_at: 2026-03-19T08:00:00Z
ir_led_intensity: 75.0
angles: ['45', '90', '135']
mu_splines:
  '45':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.5, 1.5, 0.0, 0.0]]}
  '90':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.4, 1.55, 0.0, 0.0]]}
  '135': {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.3, 1.6, 0.0, 0.0]]}
sigma_splines_log:
  '45':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.2, 0.1, 0.0, 0.0]]}
  '90':  {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.2, 0.0, 0.0, 0.0]]}
  '135': {type: akima, knots: [-1.9, 0.1], coefficients: [[-3.2, -0.1, 0.0, 0.0]]}
min_logc: -1.9
max_logc: 0.1
sigma_floor: 0.04
recorded_data:
  transform: {type: logc_affine, scale_logc: 1.0, offset_logc: 0.1}
y: ln(V)
"""

READINGS = ({"45": 0.1, "90": 0.12, "135": 0.15}, {"45": 0.6, "90": 0.74, "135": 0.9})


def ideal(estimator: FusedEstimator, logc: float) -> dict[str, float]:
    """What is read at an OD when nothing disturbs."""
    return {a: math.exp(curve.evaluate(logc)) for a, curve in estimator.mu_splines.items()}


def test_record_is_read_with_its_types() -> None:
    estimator = parse_estimator(FUSED)
    assert estimator.estimator_name == "fused-two-decades"
    assert estimator.angles == ("45", "90", "135")
    assert isinstance(estimator.mu_splines["90"], AkimaCurve)
    assert estimator.ir_led_intensity == 80.0
    assert estimator.y == "log(Voltage)"
    assert estimator.low_conc_scales == {}
    assert estimator.recorded_data["when"] == "2026-03-18T16:45:00+00:00"
    assert parse_estimator(OFFSET).y == "ln(V)"


@pytest.mark.parametrize(
    ("text", "expected"), [(FUSED, (0.11335, 0.99348)), (OFFSET, (0.09415, 1.24961))]
)
def test_reference_vectors(text: str, expected: tuple[float, float]) -> None:
    estimator = parse_estimator(text)
    assert [round(estimator.estimate(readings), 5) for readings in READINGS] == list(expected)


@pytest.mark.parametrize("logc", [-1.95, -1.2, -0.5, 0.0, 0.3, 0.45])
def test_undisturbed_readings_give_their_od_back(logc: float) -> None:
    estimator = parse_estimator(FUSED)
    # no spread and no low-density weights to pull at it
    estimator = replace(estimator, low_conc_scales=dict.fromkeys(("45", "90", "135"), 1.0))
    assert math.log10(estimator.estimate(ideal(estimator, logc))) == pytest.approx(logc, abs=0.02)


def test_one_wild_angle_hardly_moves_the_estimate() -> None:
    estimator = parse_estimator(FUSED)
    readings = ideal(estimator, -0.1)
    wild = {**readings, "45": readings["45"] * 2}
    assert estimator.estimate(wild) == pytest.approx(estimator.estimate(readings), rel=0.03)


def test_estimate_stays_within_the_model() -> None:
    estimator = parse_estimator(FUSED)
    for reading in (0.0, -1.0, 1e-300, 1e300):
        od = estimator.estimate(dict.fromkeys(("45", "90", "135"), reading))
        assert 10**-2.0 <= od <= 10**0.5 * 1.000001


def test_in_thin_cultures_135_degrees_leads_unless_the_file_says_otherwise() -> None:
    estimator = parse_estimator(FUSED)
    readings = {**ideal(estimator, -1.8), "45": ideal(estimator, -1.4)["45"]}
    led = math.log10(estimator.estimate(readings))
    assert led == pytest.approx(-1.8, abs=0.03)
    own = replace(estimator, low_conc_scales={"45": 0.01, "90": 10.0, "135": 10.0})
    assert math.log10(own.estimate(readings)) == pytest.approx(-1.4, abs=0.03)


@pytest.mark.parametrize("readings", [{"45": 0.1, "90": 0.12}, {}, {**READINGS[0], "90": math.nan}])
def test_a_missing_angle_is_an_error(readings: dict[str, float]) -> None:
    with pytest.raises(MissingAngle, match="needs a reading at"):
        parse_estimator(FUSED).estimate(readings)


def test_angles_that_the_model_does_not_know_are_ignored() -> None:
    estimator = parse_estimator(FUSED)
    assert estimator.estimate({**READINGS[0], "180": 3}) == estimator.estimate(READINGS[0])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("angles: ['45', '90', '135']", "angles: []"),
        ("min_logc: -2.0", "min_logc: 0.5"),
        ("max_logc: 0.5", "max_logc: 1000"),
        ("[[-3.0, 0.0, 0.0, 0.0]]", "[[-3.0]]"),
        ("[[-3.0, 0.0, 0.0, 0.0]]", "[[1000, 0.0, 0.0, 0.0]]"),
        ("knots: [-2.0, 0.5]", "knots: [0.5, -2.0]"),
        ("  '45':  {type: akima, knots: [-2.0, 0.5]", "  '135': {type: akima, knots: [-2.0, 0.5]"),
    ],
)
def test_model_that_cannot_be_evaluated_is_a_record_and_a_typed_refusal(old: str, new: str) -> None:
    assert old in FUSED
    estimator = parse_estimator(FUSED.replace(old, new, 1))
    with pytest.raises(BrokenCurve):
        estimator.estimate(READINGS[0])


def test_a_spread_of_nothing_is_a_typed_refusal() -> None:
    text = FUSED.replace("sigma_floor: 0.04", "sigma_floor: 0").replace("[[-3.0,", "[[-1000000,")
    with pytest.raises(BrokenCurve):
        parse_estimator(text).estimate(READINGS[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("od_fused_estimator", "od", "estimator_type: must be one of od_fused_estimator, got 'od'"),
        ("estimator_name: fused-two-decades\n", "", "estimator_name: is missing"),
        ("2026-03-18T16:45:00.125Z", "2026-03-18", "created_at: must have a time of day"),
        ("angles: ['45',", "angles: [45,", "angles[0]: must be one of 45, 90, 135 in quotes"),
        ("angles: ['45',", "angles: ['180',", "angles[0]: must be one of 45, 90, 135, got"),
        ("  '45':  {type: akima", "  '45':  {type: poly", "mu_splines.45.type: must be one of ak"),
        ("[[-3.6, 1.0,", "[[-3.6, x,", "mu_splines.45.coefficients[0][1]: must be a number"),
        ("  '45':  {type", "  45:  {type", "mu_splines: must have texts as its keys"),
        ("  '45':  {type", "  '46':  {type", "mu_splines: a key: must be one of 45, 90, 135"),
        ("sigma_floor: 0.04", "sigma_floor: .inf", "sigma_floor: must be a finite number"),
        ("min_logc: -2.0", "min_logc: low", "min_logc: must be a number"),
        ("when: 2026", "when: !!binary aGVsbG8=\n  then: 2026", "recorded_data.when: must be text"),
        ("when: 2026", "when: .nan\n  then: 2026", "recorded_data.when: must be a finite number"),
        ("when: 2026", "a: [{b: 99999999999999999999}]\n  then: 2026", "recorded_data.a[0].b: "),
        ("sigma_floor: 0.04", "sigma_floor: 0.04\nlow_conc_scales: {'45': -1}", "at least 0"),
        ("recorded_data:\n", "recorded:\n", "recorded_data: is missing"),
    ],
)
def test_wrong_record_is_refused_with_what_is_wrong_where(old: str, new: str, message: str) -> None:
    assert old in FUSED
    with pytest.raises(InvalidRecord) as refusal:
        parse_estimator(FUSED.replace(old, new, 1))
    assert message in refusal.value.message


@pytest.mark.parametrize("text", ["", "- 1\n", "just text", "a: [1\n"])
def test_what_is_no_record_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidRecord, match="the estimator "):
        parse_estimator(text)
