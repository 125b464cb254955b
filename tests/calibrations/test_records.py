"""Calibration records: what a file says, and what is said about a wrong one."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from piod.calibrations.curves import AboveDomain, AkimaCurve, NoSolution, PolyCurve, SplineCurve
from piod.calibrations.fields import InvalidRecord
from piod.calibrations.names import check_name
from piod.calibrations.records import (
    OD600Calibration,
    ODCalibration,
    PumpCalibration,
    RecordedData,
    StirringCalibration,
    parse_calibration,
)
from piod.errors import BadRequest

PUMP = """\
calibration_type: simple_peristaltic_pump
calibration_name: media a
calibrated_on_pioreactor_unit: pio07
created_at: 2026-03-04T09:15:30.250Z
curve_data_: {type: poly, coefficients: [0.125, 0.0]}
x: Duration
y: Volume
recorded_data:
  x: [4.0, 4.0, 8.0, 8.0]
  y: [0.5, 0.51, 0.99, 1.0]
hz: 200.0
dc: 75
voltage: 11.9
"""

BENT_PUMP = """\
calibration_type: simple_peristaltic_pump
calibration_name: waste b
calibrated_on_pioreactor_unit: pio12
created_at: 2026-05-20 18:02:11+02:00
curve_data_:
  type: poly
  coefficients: [-0.001, 0.14, 0.02]
recorded_data: {x: [1, 5, 10], y: [0.16, 0.69, 1.32]}
hz: 150
dc: 100
voltage: 12.1
"""

STIRRING = """\
calibration_type: simple_stirring
calibration_name: stir-a
calibrated_on_pioreactor_unit: pio03
created_at: 2026-06-13T10:20:00.000Z
curve_data_:
  type: spline
  knots: [10.0, 20.0, 30.0]
  coefficients:
    - [250.0, 22.0, 0.0, -0.01]
    - [460.0, 19.0, -0.3, 0.01]
recorded_data: {x: [10.0, 15.0, 20.0, 25.0, 30.0], y: [251.0, 357.0, 461.0, 548.0, 629.0]}
pwm_hz: 67.0
voltage: 11.7
"""

OD600 = """\
calibration_type: od600
calibration_name: od90-a
calibrated_on_pioreactor_unit: pio07
created_at: 2026-02-11T14:05:09.500Z
curve_data_:
  type: akima
  knots: [0.0, 0.5, 1.0, 2.0]
  coefficients: [[0.04, 0.96, -0.08, 0.0], [0.5, 0.88, -0.16, 0.0], [0.9, 0.72, -0.12, 0.0]]
recorded_data: {x: [2.0, 1.0, 0.5, 0.0], y: [1.5, 0.9, 0.5, 0.04]}
ir_led_intensity: 80
angle: '90'
pd_channel: '2'
"""


def test_pump_calibration_has_what_its_file_says() -> None:
    pump = parse_calibration(PUMP)
    assert isinstance(pump, PumpCalibration)
    assert pump.calibration_type == "simple_peristaltic_pump"
    assert pump.calibration_name == "media a"
    assert pump.calibrated_on_pioreactor_unit == "pio07"
    assert pump.created_at == datetime(2026, 3, 4, 9, 15, 30, 250_000, tzinfo=UTC)
    assert pump.curve_data_ == PolyCurve((0.125, 0.0))
    assert (pump.x, pump.y) == ("Duration", "Volume")
    assert pump.recorded_data == RecordedData((4.0, 4.0, 8.0, 8.0), (0.5, 0.51, 0.99, 1.0))
    assert (pump.hz, pump.dc, pump.voltage) == (200.0, 75.0, 11.9)
    assert isinstance(pump.dc, float)
    assert pump.domain == (4.0, 8.0)


def test_pump_vectors() -> None:
    pump = parse_calibration(PUMP)
    assert pump.x_to_y(6) == 0.75
    assert pump.y_to_x(0.75, enforce_bounds=True) == 6
    with pytest.raises(AboveDomain):
        pump.y_to_x(pump.x_to_y(9), enforce_bounds=True)
    assert pump.y_to_x(pump.x_to_y(9), enforce_bounds=False) == 9
    bent = parse_calibration(BENT_PUMP)
    assert bent.created_at.utcoffset() == timedelta(hours=2)
    assert (bent.x, bent.y) == ("Duration", "Volume")
    assert bent.x_to_y(5.5) == pytest.approx(0.75975)
    with pytest.raises(NoSolution):
        bent.y_to_x(1e6, enforce_bounds=False)
    # The parabola gives 0.69… at 5 s and again at 135 s, where nothing was recorded.
    assert bent.y_to_x(bent.x_to_y(5), enforce_bounds=True) == pytest.approx(5)


def test_stirring_calibration_is_a_spline_from_duty_cycle_to_rpm() -> None:
    stirring = parse_calibration(STIRRING)
    assert isinstance(stirring, StirringCalibration)
    assert isinstance(stirring.curve_data_, SplineCurve)
    assert (stirring.x, stirring.y, stirring.pwm_hz) == ("DC %", "RPM", 67.0)
    assert stirring.x_to_y(15) == pytest.approx(358.75)
    assert stirring.y_to_x(358.75, enforce_bounds=True) == pytest.approx(15)


def test_od_calibrations_know_their_photodiode() -> None:
    od600 = parse_calibration(OD600)
    assert isinstance(od600, OD600Calibration)
    assert isinstance(od600.curve_data_, AkimaCurve)
    assert (od600.x, od600.y) == ("OD600", "Voltage")
    assert (od600.ir_led_intensity, od600.angle, od600.pd_channel) == (80.0, "90", "2")
    assert od600.x_to_y(1.0) == 0.9
    assert od600.y_to_x(0.9, enforce_bounds=True) == 1.0
    od = parse_calibration(OD600.replace("od600", "od").replace("'90'", "'180'"))
    assert type(od) is ODCalibration
    assert (od.x, od.angle) == ("OD", "180")


def test_nothing_recorded_means_no_bounds() -> None:
    empty = PUMP.replace("[4.0, 4.0, 8.0, 8.0]", "[]").replace("[0.5, 0.51, 0.99, 1.0]", "[]")
    pump = parse_calibration(empty)
    assert pump.domain == (-math.inf, math.inf)
    assert pump.y_to_x(1000, enforce_bounds=True) == 8000


def test_unknown_keys_are_kept_and_labels_are_free() -> None:
    pump = parse_calibration(PUMP.replace("x: Duration", "x: Zeit") + "note: {by: me}\n")
    assert pump.raw["note"] == {"by": "me"}
    assert pump.raw["hz"] == 200.0
    assert pump.x == "Zeit"


def test_keys_that_are_no_text_are_left_out() -> None:
    pump = parse_calibration(PUMP + "1: one\n? 0x" + "f" * 5000 + "\n: many\n")
    assert 1 not in pump.raw
    assert pump.x == "Duration"


def test_curve_that_cannot_be_evaluated_is_still_a_record() -> None:
    stirring = parse_calibration(STIRRING.replace("[10.0, 20.0, 30.0]", "[]"))
    with pytest.raises(NoSolution):
        stirring.x_to_y(1)


@pytest.mark.parametrize("text", ["2026-03-04T09:15:30Z", "2026-03-04 09:15:30 +00:00"])
def test_created_at_may_be_written_with_t_or_space(text: str) -> None:
    pump = parse_calibration(PUMP.replace("2026-03-04T09:15:30.250Z", text))
    assert pump.created_at == datetime(2026, 3, 4, 9, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "2026-03-04T09:15:30.250Z",
            "'2026-03-04T09:15:30Z'",
            "created_at: must be a YAML timestamp with a UTC offset, without quotes, got",
        ),
        ("2026-03-04T09:15:30.250Z", "2026-03-04", "created_at: must have a time of day"),
        ("2026-03-04T09:15:30.250Z", "0001-01-01T00:00:00+02:00", "created_at: must be a time of"),
        ("2026-03-04T09:15:30.250Z", "2026-03-04T09:15:30", "created_at: must have a UTC offset"),
        (
            "2026-03-04T09:15:30.250Z",
            "12",
            "created_at: must be a timestamp with a UTC offset, got 12",
        ),
        (
            "2026-03-04T09:15:30.250Z",
            "2026-02-30T00:00:00Z",
            "not readable YAML: a value cannot be read: day",
        ),
        ("[0.125, 0.0]", "[0.125, x]", "curve_data_.coefficients[1]: must be a number, got 'x'"),
        (
            "[0.125, 0.0]",
            "['0.125', 0]",
            "curve_data_.coefficients[0]: must be a number, got '0.125'",
        ),
        ("[0.125, 0.0]", "[true, 0]", "curve_data_.coefficients[0]: must be a number, got True"),
        (
            "[0.125, 0.0]",
            "[.nan, 0]",
            "curve_data_.coefficients[0]: must be a finite number, got nan",
        ),
        ("[0.125, 0.0]", "[1e5, 0]", "curve_data_.coefficients[0]: must be a number; YAML takes"),
        (
            "[0.125, 0.0]",
            "[1" + "0" * 400 + ", 0]",
            "curve_data_.coefficients[0]: must be a finite number",
        ),
        ("[0.125, 0.0]", "0x" + "f" * 5000, "must be a list, got a number of very many digits"),
        ("hz: 200.0", "hz: 0x" + "f" * 5000, "hz: must be a finite number, got a number of very"),
        ("hz: 200.0", "hz: [0x" + "f" * 5000 + "]", "hz: must be a number, got"),
        ("hz: 200.0", "hz: {? 0x" + "f" * 5000 + " : 1}", "hz: must be a number, got"),
        ("simple_peristaltic_pump", "0x" + "f" * 5000, "calibration_type: must be one of"),
        ("recorded_data:\n", "recorded_data:\n  1: []\n", "recorded_data: must have texts as"),
        ("[0.125, 0.0]", "0.125", "curve_data_.coefficients: must be a list, got 0.125"),
        (", coefficients: [0.125, 0.0]", "", "curve_data_.coefficients: is missing"),
        (
            "type: poly",
            "type: cubic",
            "curve_data_.type: must be one of poly, spline, akima, got 'cubic'",
        ),
        ("type: poly", "type: spline", "curve_data_.coefficients[0]: must be a list, got 0.125"),
        (
            "{type: poly, coefficients: [0.125, 0.0]}",
            "[]",
            "curve_data_: must be a mapping, got []",
        ),
        ("simple_peristaltic_pump", "pump", "simple_stirring, od, od600, got 'pump'"),
        ("calibration_type: simple_peristaltic_pump\n", "", "calibration_type: is missing"),
        ("calibration_name: media a\n", "", "calibration_name: is missing"),
        ("pio07", "7", "calibrated_on_pioreactor_unit: must be text, got 7"),
        ("y: Volume", "y:", "y: must be text, got None"),
        ("hz: 200.0", "hz: -1", "hz: must be at least 0, got -1.0"),
        ("dc: 75\n", "", "dc: is missing"),
        ("voltage: 11.9", "voltage: high", "voltage: must be a number, got 'high'"),
        ("1.0]", "1.0, 2.0]", "recorded_data: x and y must be equally long, got 4 and 5 numbers"),
        ("  y: [0.5, 0.51, 0.99, 1.0]\n", "", "recorded_data.y: is missing"),
        ("hz: 200.0", "  z: []\nhz: 200.0", "recorded_data.z: only x and y are allowed here"),
        ("x: [4.0", "x: [four", "recorded_data.x[0]: must be a number, got 'four'"),
    ],
)
def test_wrong_record_is_refused_with_what_is_wrong_where(old: str, new: str, message: str) -> None:
    assert old in PUMP
    with pytest.raises(InvalidRecord) as refusal:
        parse_calibration(PUMP.replace(old, new, 1))
    assert message in refusal.value.message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("'90'", "90", "angle: must be one of 45, 90, 135, 180 in quotes, got 90"),
        ("'90'", "'91'", "angle: must be one of 45, 90, 135, 180, got '91'"),
        ("'2'", "2", "pd_channel: must be one of 1, 2, 3, 4 in quotes, got 2"),
        ("[0.9, 0.72, -0.12, 0.0]", "[0.9, z]", "curve_data_.coefficients[2][1]: must be a number"),
        ("knots: [0.0, 0.5, 1.0, 2.0]", "nots: []", "curve_data_.knots: is missing"),
    ],
)
def test_wrong_od_record_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidRecord) as refusal:
        parse_calibration(OD600.replace(old, new, 1))
    assert message in refusal.value.message


@pytest.mark.parametrize("text", ["", "- 1\n", "just text", "a: [1\n"])
def test_what_is_no_record_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidRecord, match="the calibration "):
        parse_calibration(text)


def test_refusal_stays_short_whatever_was_sent() -> None:
    with pytest.raises(InvalidRecord) as refusal:
        parse_calibration(PUMP.replace("hz: 200.0", f"hz: [{'[1, 2, 3], ' * 5000}]"))
    assert len(refusal.value.message) < 300


@pytest.mark.parametrize("name", ["a", "a b", "a.b", "od90-a_1", "0", "a .b", "x" * 255])
def test_name_is_allowed(name: str) -> None:
    assert check_name(name, "device") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".x",
        "-x",
        "a  b",
        " a",
        "a ",
        "é",
        "x:y",
        "a/b",
        "a\\b",
        "a\n",
        "a\0",
        "x" * 256,
        "\ud800",
        5,
        None,
        ["a"],
    ],
)
def test_name_is_refused_naming_the_field(name: object) -> None:
    with pytest.raises(BadRequest, match=r"^calibration_name ") as refusal:
        check_name(name, "calibration_name")
    refusal.value.message.encode()
