"""Calibration records: what a calibration file says, with types.

:func:`parse_calibration` reads the YAML text of one. The types, told apart by
``calibration_type``: :class:`PumpCalibration`, :class:`StirringCalibration`,
:class:`ODCalibration`, :class:`OD600Calibration`. In all of them x is the cause
or the target (seconds, duty cycle, OD) and y what was observed (mL, RPM, volts).
Source: handbook unit-api.md §3.2 to §3.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from piod.calibrations.curves import Curve, choose_solution
from piod.calibrations.fields import (
    Fields,
    InvalidRecord,
    parse_fields,
    read_choice,
    read_curve,
    read_instant,
    read_mapping,
    read_number,
    read_numbers,
    read_text,
    required,
)

ANGLES = ("45", "90", "135", "180")
PHOTODIODE_CHANNELS = ("1", "2", "3", "4")


@dataclass(frozen=True)
class RecordedData:
    """The points that the curve was fitted to, in the order of recording."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Calibration:
    """What every calibration has. Names are those of the file.

    ``x`` and ``y`` are axis labels; ``raw`` is the whole record as it was read,
    with keys that piod does not know.
    """

    calibration_type: ClassVar[str]
    default_x: ClassVar[str]
    default_y: ClassVar[str]

    calibration_name: str
    calibrated_on_pioreactor_unit: str
    created_at: datetime
    curve_data_: Curve
    x: str
    y: str
    recorded_data: RecordedData
    raw: Fields

    def x_to_y(self, x: float) -> float:
        """What is observed at ``x``. Raises CurveError."""
        return self.curve_data_.evaluate(x)

    def y_to_x(self, y: float, *, enforce_bounds: bool) -> float:
        """The ``x`` that gives ``y``: the smallest one within the recorded x, else the nearest.

        With ``enforce_bounds`` one outside the recorded x is refused. Raises
        CurveError: NoSolution, BelowDomain, AboveDomain, BrokenCurve.
        """
        low, high = self.domain
        solutions = self.curve_data_.solve(y)
        return choose_solution(solutions, low, high, enforce_bounds=enforce_bounds)

    @property
    def domain(self) -> tuple[float, float]:
        """The least and greatest recorded x; infinite when nothing was recorded."""
        recorded = self.recorded_data.x
        return (min(recorded), max(recorded)) if recorded else (-math.inf, math.inf)


@dataclass(frozen=True)
class PumpCalibration(Calibration):
    """Seconds → mL, at a PWM frequency (Hz), duty cycle (%) and voltage (V)."""

    calibration_type = "simple_peristaltic_pump"
    default_x, default_y = "Duration", "Volume"

    hz: float
    dc: float
    voltage: float


@dataclass(frozen=True)
class StirringCalibration(Calibration):
    """Duty cycle (%) → RPM, at a PWM frequency (Hz) and voltage (V)."""

    calibration_type = "simple_stirring"
    default_x, default_y = "DC %", "RPM"

    pwm_hz: float
    voltage: float


@dataclass(frozen=True)
class ODCalibration(Calibration):
    """OD → volts of one photodiode, at an intensity of the IR LED (%)."""

    calibration_type = "od"
    default_x, default_y = "OD", "Voltage"

    ir_led_intensity: float
    angle: str
    pd_channel: str


@dataclass(frozen=True)
class OD600Calibration(ODCalibration):
    """As :class:`ODCalibration`, against OD600."""

    calibration_type = "od600"
    default_x = "OD600"


def parse_calibration(text: str) -> Calibration:
    """The calibration that ``text`` (YAML) describes.

    Whether its curve can be evaluated is not checked. Raises InvalidRecord.
    """
    raw = parse_fields(text, "the calibration")
    tag = read_choice(required(raw, "calibration_type"), "calibration_type", tuple(_READERS))
    return _READERS[tag](raw)


def _pump(raw: Fields) -> Calibration:
    return PumpCalibration(
        *_base(raw, PumpCalibration),
        hz=read_number(required(raw, "hz"), "hz", minimum=0),
        dc=read_number(required(raw, "dc"), "dc", minimum=0),
        voltage=read_number(required(raw, "voltage"), "voltage"),
    )


def _stirring(raw: Fields) -> Calibration:
    return StirringCalibration(
        *_base(raw, StirringCalibration),
        pwm_hz=read_number(required(raw, "pwm_hz"), "pwm_hz", minimum=0),
        voltage=read_number(required(raw, "voltage"), "voltage"),
    )


def _od(raw: Fields) -> Calibration:
    return ODCalibration(*_base(raw, ODCalibration), *_optics(raw))


def _od600(raw: Fields) -> Calibration:
    return OD600Calibration(*_base(raw, OD600Calibration), *_optics(raw))


_READERS: Mapping[str, Callable[[Fields], Calibration]] = {
    PumpCalibration.calibration_type: _pump,
    StirringCalibration.calibration_type: _stirring,
    ODCalibration.calibration_type: _od,
    OD600Calibration.calibration_type: _od600,
}


def _base(
    raw: Fields, kind: type[Calibration]
) -> tuple[str, str, datetime, Curve, str, str, RecordedData, Fields]:
    return (
        read_text(required(raw, "calibration_name"), "calibration_name"),
        read_text(required(raw, "calibrated_on_pioreactor_unit"), "calibrated_on_pioreactor_unit"),
        read_instant(required(raw, "created_at"), "created_at"),
        read_curve(required(raw, "curve_data_"), "curve_data_"),
        read_text(raw.get("x", kind.default_x), "x"),
        read_text(raw.get("y", kind.default_y), "y"),
        _recorded_data(required(raw, "recorded_data")),
        raw,
    )


def _optics(raw: Fields) -> tuple[float, str, str]:
    return (
        read_number(required(raw, "ir_led_intensity"), "ir_led_intensity"),
        read_choice(required(raw, "angle"), "angle", ANGLES),
        read_choice(required(raw, "pd_channel"), "pd_channel", PHOTODIODE_CHANNELS),
    )


def _recorded_data(value: object) -> RecordedData:
    fields = read_mapping(value, "recorded_data")
    unknown = sorted(key for key in fields if key not in ("x", "y"))
    if unknown:
        raise InvalidRecord(f"recorded_data.{unknown[0][:80]}: only x and y are allowed here")
    x = read_numbers(required(fields, "x", "recorded_data."), "recorded_data.x")
    y = read_numbers(required(fields, "y", "recorded_data."), "recorded_data.y")
    if len(x) != len(y):
        raise InvalidRecord(
            f"recorded_data: x and y must be equally long, got {len(x)} and {len(y)} numbers"
        )
    return RecordedData(x, y)
