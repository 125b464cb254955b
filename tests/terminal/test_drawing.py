"""Pages as text: what a terminal of a given width shows of charts, tables and results."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from piod.calibrations.curves import PolyCurve
from piod.terminal.drawing import chart_text, page_text, result_text, table_text
from piod.terminal.pages import (
    Chart,
    Table,
    chart_of_calibration,
    chart_of_estimator,
    read_chart,
    read_page,
)

LINE = {"type": "poly", "coefficients": [2.0, 0.0]}
CHART = {
    "title": "Volume by running time",
    "x_label": "Seconds",
    "y_label": "mL",
    "series": [
        {
            "id": "measured",
            "label": "Measured",
            "points": [{"x": 1.0, "y": 2.1}, {"x": 10.0, "y": 19.5}],
            "curve": LINE,
        }
    ],
}
PAGE = {
    "session": {
        "session_id": "s1",
        "protocol_name": "mine",
        "target_device": "media_pump",
        "status": "in_progress",
        "progress": None,
        "error": None,
    },
    "step": {
        "step_id": "weigh",
        "step_type": "form",
        "title": "Weigh",
        "body": "Weigh the water \x1b[31mof the run\x07.\nThen dry the vessel.",
        "fields": [],
        "metadata": {
            "image": {"src": "/unit_api/static/scale.svg", "alt": "A scale", "caption": None},
            "table": {"title": "Runs", "columns": ["Run", "mL"], "rows": [["1", 2.5], [2, 11.25]]},
            "actions": [{"label": "Again", "inputs": {"action": "redo_last"}}],
        },
    },
}


@pytest.fixture
def without_plotext(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotext", None)


def test_a_page_shows_its_text_its_table_and_where_its_picture_is() -> None:
    page = read_page(PAGE)
    assert page_text(page, 60, "http://pio01.local").split("\n") == [
        "== Weigh ==",
        "",
        "Weigh the water [31mof the run.",
        "Then dry the vessel.",
        "",
        "(picture: A scale,",
        "http://pio01.local/unit_api/static/scale.svg)",
        "",
        "Runs",
        "Run     mL",
        "  1    2.5",
        "  2  11.25",
    ]
    assert [(action.name, action.label) for action in page.actions] == [("redo_last", "Again")]


def test_an_aborted_session_has_no_page() -> None:
    page = read_page({**PAGE, "session": {**PAGE["session"], "status": "aborted"}, "step": None})
    assert (page.status, page.kind, page.fields) == ("aborted", "", ())


@pytest.mark.usefixtures("without_plotext")
def test_without_plotext_a_chart_is_the_table_of_its_points() -> None:
    assert chart_text(read_chart(CHART), 80).split("\n") == [
        "Volume by running time",
        "",
        "Measured",
        "Seconds    mL  Curve",
        "      1   2.1      2",
        "     10  19.5     20",
    ]


def test_an_older_plotext_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotext", ModuleType("plotext"))
    assert "Seconds    mL  Curve" in chart_text(read_chart(CHART), 80)


def test_with_plotext_a_chart_is_a_plot() -> None:
    pytest.importorskip("plotext", "6.0")
    lines = chart_text(read_chart(CHART), 70).split("\n")
    assert lines[0] == "mL"
    assert "Volume by running time" in lines[1]
    assert lines[-1] == "o Measured"
    assert all(len(line) <= 70 for line in lines)
    plot = "".join(lines[2:-2])
    assert plot.count("o") == 2
    assert any(0x2800 <= ord(c) <= 0x28FF for c in plot), "no curve"
    assert "\x1b" not in plot


def test_with_plotext_a_chart_without_points_is_drawn_as_a_table() -> None:
    empty = Chart("Nothing yet", "x", "y", ())
    assert chart_text(empty, 70) == "Nothing yet"


def test_rows_that_are_too_short_leave_cells_empty() -> None:
    assert table_text(Table("", ("a", "b"), (("1",),))) == "a  b\n1"


def test_a_calibration_is_drawn_over_what_was_recorded() -> None:
    chart = chart_of_calibration(
        {
            "calibration_name": "mine",
            "x": "Duration",
            "y": "Volume",
            "curve_data_": LINE,
            "recorded_data": {"x": [1, 2], "y": [2, 4]},
        }
    )
    assert (chart.title, chart.x_label, chart.y_label) == ("mine", "Duration", "Volume")
    [series] = chart.series
    assert (series.x, series.y, series.curve) == ((1, 2), (2, 4), PolyCurve((2.0, 0.0)))


def test_an_estimator_is_drawn_by_angle() -> None:
    spline = {"type": "akima", "knots": [0.0, 1.0], "coefficients": [[0.0, 2.0, 0.0, 0.0]]}
    chart = chart_of_estimator(
        {
            "estimator_name": "fused",
            "mu_splines": {"45": spline, "90": spline},
            "recorded_data": {
                "by_angle": {"45": {"x": [0.0], "y": [0.1]}, "90": {"x": [1.0], "y": [2.1]}}
            },
        }
    )
    assert [series.label for series in chart.series] == ["45°", "90°"]


def test_a_result_tells_what_was_saved_how_well_it_fits_and_what_is_odd() -> None:
    verdict = {"code": "x", "what": "a point is off", "mend": "Measure again.", "blocks": False}
    link = {"device": "od90", "calibration_name": "mine", "path": "/od90/mine.yaml"}
    fit = {"rmse": 0.012345, "parameters": [{"name": "slope", "value": 0.1, "std_error": 0.001}]}
    told = result_text(
        {
            "calibrations": [link],
            "fits": {"2": fit},
            "verdicts": {"2": [verdict]},
            "doubts": ["the rail was not read"],
            "recommended_volume_range_ml": [0.8, 1.1],
        },
        80,
    )
    assert told.split("\n") == [
        "Saved and active: od90 mine (/od90/mine.yaml)",
        "Good for doses of 0.8 to 1.1 mL.",
        "2: typical distance of the points from the curve: 0.0123",
        "2: slope: 0.1 ± 0.001",
        "Note: the rail was not read",
        "Note: a point is off. Measure again.",
    ]


@pytest.mark.parametrize("result", [{}, {"calibrations": None, "verdicts": 3, "fit": "no"}])
def test_a_result_of_another_shape_says_nothing(result: dict[str, object]) -> None:
    assert result_text(result, 80) == ""
