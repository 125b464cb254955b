"""Charts and tables in the metadata of a step, as leaders' pages draw them.

Source: handbook unit-api.md §4.2. A step's metadata is ``{"chart": chart(…), "table":
table(…)}``, either or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from piod.calibrations.curves import Curve
from piod.calibrations.views import curve_view
from piod.events import JsonValue


@dataclass(frozen=True)
class Series:
    """Points of one colour, and the curve through them if there is one yet.

    ``x`` and ``y`` are equally long; ``id`` is unique in its chart, ``label`` stands in the
    legend.
    """

    id: str
    label: str
    x: Sequence[float]
    y: Sequence[float]
    curve: Curve | None = None


def chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> dict[str, JsonValue]:
    """The chart of ``series``, as JSON. Labels name the quantity and its unit."""
    return {
        "title": title,
        "x_label": x_label,
        "y_label": y_label,
        "series": [_series(one) for one in series],
    }


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[float | str]]
) -> dict[str, JsonValue]:
    """The table, as JSON; each row has one cell for each column."""
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"{len(columns)} columns, and a row of {len(row)} cells")
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}


def _series(series: Series) -> dict[str, JsonValue]:
    return {
        "id": series.id,
        "label": series.label,
        "points": [{"x": x, "y": y} for x, y in zip(series.x, series.y, strict=True)],
        "curve": None if series.curve is None else _curve(series.curve),
    }


def _curve(curve: Curve) -> JsonValue:
    view: dict[str, JsonValue] = {}
    for key, value in curve_view(curve).items():
        match value:
            case str():
                view[key] = value
            case tuple():
                view[key] = [list(one) if isinstance(one, tuple) else one for one in value]
    return view
