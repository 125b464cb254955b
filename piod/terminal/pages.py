"""A session and its page as the API tells them, decoded once.

:func:`read_page` makes a :class:`Page` of an answer of the session endpoints; :func:`read_offers`
the list of protocols; :func:`read_chart`, :func:`chart_of_calibration` and
:func:`chart_of_estimator` make charts. All raise InvalidRecord for what is not of that shape.
Source: handbook unit-api §4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from piod.calibrations.charts import Series
from piod.calibrations.fields import (
    read_curve,
    read_list,
    read_mapping,
    read_number,
    read_numbers,
    read_text,
    required,
)
from piod.events import JsonValue
from piod.terminal.unit_client import plain

Object: TypeAlias = Mapping[str, object]
Inputs: TypeAlias = dict[str, JsonValue]


@dataclass(frozen=True)
class Field:
    """A field of a form. ``default`` as a person would type it; None: there is none."""

    name: str
    label: str
    kind: str
    required: bool
    default: str | None
    options: tuple[str, ...]
    help_text: str | None


@dataclass(frozen=True)
class Action:
    """Something else that a page offers instead of going on."""

    label: str
    inputs: Inputs

    @property
    def name(self) -> str | None:
        """What it is called, when it is nothing but a name."""
        name = self.inputs.get("action")
        return name if isinstance(name, str) and len(self.inputs) == 1 else None


@dataclass(frozen=True)
class Table:
    """Cells as text; each row as long as ``columns``."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """What a plot shows."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Picture:
    """A drawing, told in words. ``path``: on the unit."""

    path: str
    alt: str


@dataclass(frozen=True)
class Page:
    """Where a session is. ``progress`` of a step that is being taken, 0 to 1; None: none is.

    ``kind``: info, form, action or result; empty when the session was aborted.
    """

    session_id: str
    protocol: str
    device: str
    status: str
    updated_at: str
    error: str | None
    progress: float | None
    step_id: str
    kind: str
    title: str
    body: str
    fields: tuple[Field, ...]
    actions: tuple[Action, ...]
    picture: Picture | None
    table: Table | None
    chart: Chart | None
    result: Object | None


@dataclass(frozen=True)
class Offer:
    """A protocol for a device. ``unavailable_because``: why it would be refused now."""

    device: str
    protocol: str
    title: str
    description: str
    requirements: tuple[str, ...]
    unavailable_because: str | None


def read_page(answer: object) -> Page:
    """The page of what the session endpoints answer."""
    both = read_mapping(answer, "answer")
    session = read_mapping(required(both, "session"), "session")
    told = both.get("step")
    step: Object = {} if told is None else read_mapping(told, "step")
    metadata = read_mapping(step.get("metadata") or {}, "metadata")
    table, chart, result = (metadata.get(key) for key in ("table", "chart", "result"))
    picture, progress = metadata.get("image"), session.get("progress")
    return Page(
        session_id=read_text(required(session, "session_id"), "session_id"),
        protocol=read_text(required(session, "protocol_name"), "protocol_name"),
        device=read_text(required(session, "target_device"), "target_device"),
        status=read_text(required(session, "status"), "status"),
        updated_at=_text(session.get("updated_at")) or "",
        error=_text(session.get("error")),
        progress=None if progress is None else read_number(progress, "progress"),
        step_id=_text(step.get("step_id")) or "",
        kind=_text(step.get("step_type")) or "",
        title=_text(step.get("title")) or "",
        body=_text(step.get("body")) or "",
        fields=tuple(
            _field(read_mapping(each, "fields"))
            for each in read_list(step.get("fields") or [], "fields")
        ),
        actions=tuple(
            _action(read_mapping(each, "actions"))
            for each in read_list(metadata.get("actions") or [], "actions")
        ),
        picture=None if picture is None else _picture(read_mapping(picture, "image")),
        table=None if table is None else _table(read_mapping(table, "table")),
        chart=None if chart is None else read_chart(chart),
        result=None if result is None else read_mapping(result, "result"),
    )


def read_offers(answer: object) -> list[Offer]:
    """The protocols of a unit, in its order."""
    return [
        Offer(
            device=read_text(required(one, "target_device"), "target_device"),
            protocol=read_text(required(one, "protocol_name"), "protocol_name"),
            title=_text(one.get("title")) or "",
            description=_text(one.get("description")) or "",
            requirements=_texts(one.get("requirements"), "requirements"),
            unavailable_because=_text(one.get("unavailable_because")),
        )
        for one in (read_mapping(each, "protocol") for each in read_list(answer, "protocols"))
    ]


def read_chart(told: object) -> Chart:
    """A chart of a step's metadata or a result."""
    chart = read_mapping(told, "chart")
    series = [read_mapping(one, "series") for one in read_list(required(chart, "series"), "series")]
    return Chart(
        _text(chart.get("title")) or "",
        _text(chart.get("x_label")) or "x",
        _text(chart.get("y_label")) or "y",
        tuple(_series(one) for one in series),
    )


def chart_of_calibration(answer: object) -> Chart:
    """The curve of a calibration record over what was recorded."""
    record = read_mapping(answer, "calibration")
    recorded = read_mapping(required(record, "recorded_data"), "recorded_data")
    device = _text(record.get("calibration_name")) or ""
    return Chart(
        device,
        _text(record.get("x")) or "x",
        _text(record.get("y")) or "y",
        (_recorded("Measured", recorded, required(record, "curve_data_")),),
    )


def chart_of_estimator(answer: object) -> Chart:
    """The curves of a fused estimator over what was recorded, by angle."""
    record = read_mapping(answer, "estimator")
    recorded = read_mapping(required(record, "recorded_data"), "recorded_data")
    by_angle = read_mapping(required(recorded, "by_angle"), "by_angle")
    curves = read_mapping(required(record, "mu_splines"), "mu_splines")
    return Chart(
        _text(record.get("estimator_name")) or "",
        "log10 of OD",
        "ln of the reading",
        tuple(
            _recorded(f"{angle}°", read_mapping(points, "by_angle"), curves.get(angle))
            for angle, points in by_angle.items()
        ),
    )


def _recorded(label: str, points: Object, curve: object) -> Series:
    return Series(
        label,
        label,
        read_numbers(required(points, "x"), "x"),
        read_numbers(required(points, "y"), "y"),
        None if curve is None else read_curve(curve, "curve"),
    )


def _series(told: Object) -> Series:
    points = [read_mapping(one, "points") for one in read_list(told.get("points") or [], "points")]
    curve = told.get("curve")
    label = _text(told.get("label")) or ""
    return Series(
        _text(told.get("id")) or label,
        label,
        [read_number(required(point, "x"), "x") for point in points],
        [read_number(required(point, "y"), "y") for point in points],
        None if curve is None else read_curve(curve, "curve"),
    )


def _field(told: Object) -> Field:
    name = read_text(required(told, "name"), "name")
    return Field(
        name=name,
        label=_text(told.get("label")) or name,
        kind=_text(told.get("field_type")) or "string",
        required=told.get("required") is not False,
        default=_typed(told.get("default")),
        options=_texts(told.get("options"), "options"),
        help_text=_text(told.get("help_text")),
    )


def _action(told: Object) -> Action:
    inputs = read_mapping(required(told, "inputs"), "inputs")
    kept: Inputs = {
        name: value for name, value in inputs.items() if isinstance(value, str | int | float | bool)
    }
    return Action(_text(told.get("label")) or "", kept)


def _picture(told: Object) -> Picture:
    return Picture(_text(told.get("src")) or "", _text(told.get("alt")) or "")


def _table(told: Object) -> Table:
    rows = (read_list(row, "rows") for row in read_list(told.get("rows") or [], "rows"))
    return Table(
        _text(told.get("title")) or "",
        _texts(told.get("columns"), "columns"),
        tuple(tuple(_typed(cell) or "" for cell in row) for row in rows),
    )


def _typed(value: object) -> str | None:
    """A value as a person types it."""
    match value:
        case None:
            return None
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.10g}"
        case list():
            return ", ".join(_typed(each) or "" for each in value)
        case _:
            return plain(str(value))


def _text(value: object) -> str | None:
    return None if value is None else plain(str(value))


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(_text(each) or "" for each in _list(value, where))


def _list(value: object, where: str) -> Sequence[object]:
    return read_list([] if value is None else value, where)
