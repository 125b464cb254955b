"""Calibration records: what a calibration file says, with types.

:func:`parse_calibration` reads the YAML text of one. The types, told apart by
``calibration_type``: :class:`PumpCalibration`, :class:`StirringCalibration`,
:class:`ODCalibration`, :class:`OD600Calibration`. In all of them x is the cause
or the target (seconds, duty cycle, OD) and y what was observed (mL, RPM, volts).
Source: handbook unit-api.md §3.2 to §3.4.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, TypeAlias

from piod.calibrations.curves import (
    AkimaCurve,
    Curve,
    PolyCurve,
    SplineCurve,
    choose_solution,
)
from piod.errors import BadRequest

Fields: TypeAlias = Mapping[str, object]

ANGLES = ("45", "90", "135", "180")
PHOTODIODE_CHANNELS = ("1", "2", "3", "4")

_EXPONENT = re.compile(r"[+-]?[0-9]+\.?[0-9]*[eE][+-]?[0-9]+")

_SHORT = reprlib.Repr()  # a refused value may be as large as the whole text
_SHORT.maxlevel = 2


class InvalidRecord(BadRequest):
    """The text is not a calibration; the message says what is wrong where."""

    default_remediation = "Correct the calibration where the message points."


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
    from piod import yaml_text

    try:
        document = yaml_text.load(text)
    except yaml_text.YamlProblem as error:
        raise InvalidRecord(f"the calibration is not readable YAML: {error}") from error
    if not isinstance(document, Mapping):
        raise InvalidRecord("the calibration must be a mapping of fields to values")
    raw: Fields = {str(key): value for key, value in document.items()}
    tag = _choice(_required(raw, "calibration_type"), "calibration_type", tuple(_READERS))
    return _READERS[tag](raw)


def _pump(raw: Fields) -> Calibration:
    return PumpCalibration(
        *_base(raw, PumpCalibration),
        hz=_number_field(raw, "hz", minimum=0),
        dc=_number_field(raw, "dc", minimum=0),
        voltage=_number_field(raw, "voltage"),
    )


def _stirring(raw: Fields) -> Calibration:
    return StirringCalibration(
        *_base(raw, StirringCalibration),
        pwm_hz=_number_field(raw, "pwm_hz", minimum=0),
        voltage=_number_field(raw, "voltage"),
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
        _text(_required(raw, "calibration_name"), "calibration_name"),
        _text(_required(raw, "calibrated_on_pioreactor_unit"), "calibrated_on_pioreactor_unit"),
        _instant(_required(raw, "created_at"), "created_at"),
        _curve(_required(raw, "curve_data_")),
        _text(raw.get("x", kind.default_x), "x"),
        _text(raw.get("y", kind.default_y), "y"),
        _recorded_data(_required(raw, "recorded_data")),
        raw,
    )


def _optics(raw: Fields) -> tuple[float, str, str]:
    return (
        _number_field(raw, "ir_led_intensity"),
        _choice(_required(raw, "angle"), "angle", ANGLES),
        _choice(_required(raw, "pd_channel"), "pd_channel", PHOTODIODE_CHANNELS),
    )


def _curve(value: object) -> Curve:
    fields = _mapping(value, "curve_data_")
    kind = _choice(_required(fields, "type", "curve_data_."), "curve_data_.type", _CURVE_TYPES)
    where = "curve_data_.coefficients"
    coefficients = _required(fields, "coefficients", "curve_data_.")
    if kind == PolyCurve.type:
        return PolyCurve(_numbers(coefficients, where))
    rows = tuple(
        _numbers(row, f"{where}[{index}]") for index, row in enumerate(_list(coefficients, where))
    )
    knots = _numbers(_required(fields, "knots", "curve_data_."), "curve_data_.knots")
    return (AkimaCurve if kind == AkimaCurve.type else SplineCurve)(knots, rows)


_CURVE_TYPES = (PolyCurve.type, SplineCurve.type, AkimaCurve.type)


def _recorded_data(value: object) -> RecordedData:
    fields = _mapping(value, "recorded_data")
    unknown = sorted(str(key) for key in fields if key not in ("x", "y"))
    if unknown:
        raise InvalidRecord(f"recorded_data.{unknown[0]}: only x and y are allowed here")
    x = _numbers(_required(fields, "x", "recorded_data."), "recorded_data.x")
    y = _numbers(_required(fields, "y", "recorded_data."), "recorded_data.y")
    if len(x) != len(y):
        raise InvalidRecord(
            f"recorded_data: x and y must be equally long, got {len(x)} and {len(y)} numbers"
        )
    return RecordedData(x, y)


def _instant(value: object, where: str) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return value
        raise _wrong(where, "must have a UTC offset, such as 2026-03-04T09:15:30Z", value)
    if isinstance(value, date):
        raise _wrong(where, "must have a time of day and a UTC offset, not only a date", value)
    if isinstance(value, str):
        raise _wrong(where, "must be a YAML timestamp with a UTC offset, without quotes", value)
    raise _wrong(where, "must be a timestamp with a UTC offset", value)


def _number_field(raw: Fields, key: str, minimum: float = -math.inf) -> float:
    number = _number(_required(raw, key), key)
    if number < minimum:
        raise _wrong(key, f"must be at least {minimum:g}", number)
    return number


def _number(value: object, where: str) -> float:
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        raise _wrong(
            where,
            "must be a number; YAML takes one with an exponent for text unless it has "
            "a decimal point and a signed exponent, such as 1.0e+5",
            value,
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(where, "must be a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(where, "must be a finite number", value)
    return number


def _numbers(value: object, where: str) -> tuple[float, ...]:
    return tuple(
        _number(item, f"{where}[{index}]") for index, item in enumerate(_list(value, where))
    )


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong(where, "must be a list", value)
    return value


def _mapping(value: object, where: str) -> Fields:
    if not isinstance(value, Mapping):
        raise _wrong(where, "must be a mapping", value)
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "must be text", value)
    return value


def _choice(value: object, where: str, allowed: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in allowed:
        hint = " in quotes" if str(value) in allowed else ""
        raise _wrong(where, f"must be one of {', '.join(allowed)}{hint}", value)
    return value


def _required(fields: Mapping[str, object], key: str, prefix: str = "") -> object:
    if key not in fields:
        raise InvalidRecord(f"{prefix}{key}: is missing")
    return fields[key]


def _wrong(where: str, demand: str, value: object) -> InvalidRecord:
    return InvalidRecord(f"{where}: {demand}, got {_SHORT.repr(value)}")
