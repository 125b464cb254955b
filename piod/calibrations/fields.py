"""Reading the fields of a record: each reader says what is wrong where.

A record comes from YAML as plain values. :func:`parse_fields` makes fields of
the text; a ``read_…`` gives a value its type, or raises :class:`InvalidRecord`
whose message begins with the place (``where``), such as
``curve_data_.coefficients[2]``.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TypeAlias

from piod.calibrations.curves import AkimaCurve, Curve, PolyCurve, SplineCurve
from piod.errors import BadRequest

Fields: TypeAlias = Mapping[str, object]

CURVE_TYPES = (PolyCurve.type, SplineCurve.type, AkimaCurve.type)

_EXPONENT = re.compile(r"[+-]?[0-9]+\.?[0-9]*[eE][+-]?[0-9]+")

_SHORT = reprlib.Repr()  # a refused value may be as large as the whole text
_SHORT.maxlevel = 2

_MAX_INTEGER = 2**63 - 1


class InvalidRecord(BadRequest):
    """The text is not the record that it should be; the message says what is wrong where."""

    default_remediation = "Correct the text where the message points."


def parse_fields(text: str, what: str) -> Fields:
    """The fields in ``text``, which is YAML; ``what`` is the record for the message.

    Keys that are not text are left out: no field has such a name.
    """
    from piod import yaml_text

    try:
        document = yaml_text.load(text)
    except yaml_text.YamlProblem as error:
        raise InvalidRecord(f"{what} is not readable YAML: {error}") from error
    if not isinstance(document, Mapping):
        raise InvalidRecord(f"{what} must be a mapping of fields to values")
    return {key: value for key, value in document.items() if isinstance(key, str)}


def required(fields: Mapping[str, object], key: str, prefix: str = "") -> object:
    """The value of ``key``, which stands in what ``prefix`` leads to (``recorded_data.``)."""
    if key not in fields:
        raise InvalidRecord(f"{prefix}{key}: is missing")
    return fields[key]


def read_text(value: object, where: str) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise wrong(where, "must be text", value)
    return value


def read_choice(value: object, where: str, allowed: Sequence[str]) -> str:
    """One of ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        small = isinstance(value, int) and abs(value) < 1000
        hint = " in quotes" if small and str(value) in allowed else ""
        raise wrong(where, f"must be one of {', '.join(allowed)}{hint}", value)
    return value


def read_instant(value: object, where: str) -> datetime:
    """A time with a UTC offset."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise wrong(where, "must have a UTC offset, such as 2026-03-04T09:15:30Z", value)
        try:
            value.astimezone(UTC)
        except OverflowError as error:
            raise wrong(where, "must be a time of the years 1 to 9999 in UTC", value) from error
        return value
    if isinstance(value, date):
        raise wrong(where, "must have a time of day and a UTC offset, not only a date", value)
    if isinstance(value, str):
        raise wrong(where, "must be a YAML timestamp with a UTC offset, without quotes", value)
    raise wrong(where, "must be a timestamp with a UTC offset", value)


def read_number(value: object, where: str, minimum: float = -math.inf) -> float:
    """A finite number, at least ``minimum``."""
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        raise wrong(
            where,
            "must be a number; YAML takes one with an exponent for text unless it has "
            "a decimal point and a signed exponent, such as 1.0e+5",
            value,
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, "must be a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise wrong(where, "must be a finite number", value)
    if number < minimum:
        raise wrong(where, f"must be at least {minimum:g}", number)
    return number


def read_numbers(value: object, where: str) -> tuple[float, ...]:
    """A list of finite numbers."""
    return tuple(
        read_number(item, f"{where}[{index}]") for index, item in enumerate(read_list(value, where))
    )


def read_list(value: object, where: str) -> Sequence[object]:
    """A list of whatever."""
    if not isinstance(value, list):
        raise wrong(where, "must be a list", value)
    return value


def read_mapping(value: object, where: str) -> Fields:
    """A mapping of texts to whatever."""
    if not isinstance(value, Mapping):
        raise wrong(where, "must be a mapping", value)
    for key in value:
        if not isinstance(key, str):
            raise wrong(where, "must have texts as its keys (in quotes if they are numbers)", key)
    return value


def read_curve(value: object, where: str, types: Sequence[str] = CURVE_TYPES) -> Curve:
    """A curve of one of ``types``; whether it can be evaluated is not checked."""
    fields = read_mapping(value, where)
    kind = read_choice(required(fields, "type", f"{where}."), f"{where}.type", types)
    place = f"{where}.coefficients"
    coefficients = required(fields, "coefficients", f"{where}.")
    if kind == PolyCurve.type:
        return PolyCurve(read_numbers(coefficients, place))
    rows = tuple(
        read_numbers(row, f"{place}[{index}]")
        for index, row in enumerate(read_list(coefficients, place))
    )
    knots = read_numbers(required(fields, "knots", f"{where}."), f"{where}.knots")
    return (AkimaCurve if kind == AkimaCurve.type else SplineCurve)(knots, rows)


def read_json(value: object, where: str) -> object:
    """What JSON can carry, of any shape; times become texts."""
    match value:
        case None | bool() | str():
            return value
        case int():
            if abs(value) > _MAX_INTEGER:
                raise wrong(where, "must be a number of at most 64 bits", value)
            return value
        case float():
            return read_number(value, where)
        case date():
            return value.isoformat()
        case list():
            return [read_json(item, f"{where}[{index}]") for index, item in enumerate(value)]
        case Mapping():
            return {
                key: read_json(item, f"{where}.{key}")
                for key, item in read_mapping(value, where).items()
            }
        case _:
            raise wrong(where, "must be text, a number, true, false, a list or a mapping", value)


def wrong(where: str, demand: str, value: object) -> InvalidRecord:
    """The refusal of ``value`` at ``where``."""
    try:
        shown = _SHORT.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        shown = "a number of very many digits"
    return InvalidRecord(f"{where[:200]}: {demand}, got {shown}")
