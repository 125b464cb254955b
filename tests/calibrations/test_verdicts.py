"""Verdicts: each fault is told with its figures and how to mend it, and good data is left alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piod.calibrations.charts import Series, chart, table
from piod.calibrations.curves import PolyCurve, SplineCurve
from piod.calibrations.fits import (
    LogAffine,
    UnusablePoints,
    akima,
    line_through_origin,
    poly_fixed,
    spline_auto,
)
from piod.calibrations.verdicts import (
    UnusableMeasurement,
    Verdict,
    judge_blank,
    judge_doses,
    judge_levels,
    judge_number_of_standards,
    judge_offset,
    judge_outliers,
    judge_pump_fit,
    judge_rising,
    judge_runs,
    judge_standards,
    judge_stray_standard,
    judge_sweep,
    judge_tracer,
    refuse_blocking,
    told,
)


def codes(verdicts: Sequence[Verdict]) -> list[str]:
    return [verdict.code for verdict in verdicts]


def only(verdicts: Sequence[Verdict], code: str) -> Verdict:
    assert codes(verdicts) == [code]
    return verdicts[0]


# -- pumps -------------------------------------------------------------------------------

RUNS = [0.4] * 4 + [0.75] * 2 + [1.1] * 4


def dosed(rate: float = 1.0, offset: float = 0.0, noise: float = 0.01) -> list[float]:
    generator = random.Random(2)
    return [rate * s + offset + generator.gauss(0, noise) for s in RUNS]


def test_a_usual_tracer_is_left_alone() -> None:
    assert judge_tracer(1.2, [0.5, 1], tracer_s=1, longest_s=280) == []


def test_a_tracer_too_small_for_the_scale_is_told() -> None:
    verdict = only(judge_tracer(0.04, [1], tracer_s=1, longest_s=280), "tracer_too_small")
    assert "25 %" in verdict.what
    assert not verdict.blocks


def test_runs_too_short_to_be_dosed_are_told() -> None:
    verdict = only(judge_tracer(10, [1], tracer_s=1, longest_s=280), "runs_too_short")
    assert "0.08 s" in verdict.what
    assert verdict.blocks


def test_a_run_that_could_never_be_made_blocks() -> None:
    verdicts = judge_tracer(0.001, [1], tracer_s=1, longest_s=280)
    assert codes(verdicts) == ["tracer_too_small", "runs_too_long"]
    assert "1100 s; the longest is 280 s" in verdicts[1].what
    assert verdicts[1].blocks


@pytest.mark.parametrize("targets", [[], [0], [1, -1], [math.nan]])
def test_volumes_that_are_none_block(targets: list[float]) -> None:
    assert only(judge_tracer(1, targets, tracer_s=1, longest_s=280), "target_not_positive").blocks


def test_a_pump_that_moves_nothing_blocks() -> None:
    assert only(judge_tracer(0, [1], tracer_s=1, longest_s=280), "nothing_pumped").blocks


def test_doses_that_agree_are_left_alone_all_the_way() -> None:
    volumes = dosed()
    for count in range(len(RUNS) + 1):
        assert judge_doses(RUNS[:count], volumes[:count], tracer_ml_per_s=1.05) == []


def test_a_dose_with_a_slip_of_the_point_is_told_at_once() -> None:
    volumes = dosed()
    volumes[3] = 4.01
    verdict = only(judge_doses(RUNS[:4], volumes[:4]), "dose_far_off")
    assert "4.01 mL in 0.4 s is 10 mL/s" in verdict.what
    assert "redo" in verdict.mend
    # the next is judged by the median of those before: the slip does not spoil it
    assert judge_doses(RUNS[:5], volumes[:5]) == []


def test_the_first_dose_is_judged_by_the_tracer() -> None:
    verdict = only(judge_doses([0.4], [0.8], tracer_ml_per_s=1.0), "dose_far_off")
    assert "first run gave 1 mL/s" in verdict.what
    assert judge_doses([0.4], [0.8]) == []


def test_longer_runs_that_move_no_more_are_told() -> None:
    verdicts = judge_doses(RUNS[:5], [0.5, 0.5, 0.5, 0.5, 0.4])
    assert codes(verdicts) == ["dose_far_off", "volume_does_not_grow"]
    assert verdicts[1].what == "runs of 0.75 s moved 0.4 mL, those of 0.4 s 0.5 mL"


def test_a_good_line_is_left_alone() -> None:
    assert judge_pump_fit(line_through_origin(RUNS, dosed())) == []


def test_a_line_that_misses_the_origin_is_told() -> None:
    fit = line_through_origin(RUNS, dosed(offset=0.3))
    verdicts = judge_pump_fit(fit)
    assert "line_misses_origin" in codes(verdicts)
    assert "+0.3" in verdicts[codes(verdicts).index("line_misses_origin")].what
    assert not any(verdict.blocks for verdict in verdicts)


def test_an_offset_that_the_scale_cannot_show_is_no_offset() -> None:
    seconds = [0.4, 0.4, 0.5, 0.5, 0.6, 0.6]
    assert judge_pump_fit(line_through_origin(seconds, [0.1 * s - 0.008 for s in seconds])) == []


def test_a_run_unlike_the_others_of_its_length_is_told_by_its_number() -> None:
    volumes = dosed()
    assert judge_runs(RUNS, volumes) == []
    volumes[2] *= 1.5
    assert "run 3 moved" in only(judge_runs(RUNS, volumes), "outlier").what


def test_pumps_that_are_measured_with_care_are_left_alone() -> None:
    noise = random.Random(1)
    runs = [4.0] * 4 + [7.5] * 2 + [11.0] * 4
    doubted = 0
    for _ in range(300):
        volumes = [round(0.1 * (s - 0.06) * (1 + noise.gauss(0, 0.02)), 2) for s in runs]
        fit = line_through_origin(runs, volumes)
        doubted += bool([*judge_doses(runs, volumes), *judge_runs(runs, volumes)])
        doubted += bool(judge_pump_fit(fit))
    assert doubted <= 9


def test_an_uncertain_slope_is_told_with_its_error() -> None:
    verdict = judge_pump_fit(line_through_origin(RUNS, dosed(noise=0.3)))[0]
    assert verdict.code == "slope_uncertain"
    assert "±" in verdict.what


def test_a_pump_whose_volume_falls_blocks() -> None:
    assert only(
        judge_pump_fit(line_through_origin([1, 2, 3], [-1, -2, -3])), "volume_does_not_grow"
    ).blocks


# -- stirring ----------------------------------------------------------------------------

DUTIES = [40.0, 35.0, 30.0, 25.0, 20.0]


def test_a_whole_sweep_is_left_alone() -> None:
    assert judge_sweep(DUTIES * 3, [dc * 16 for dc in DUTIES * 3]) == []


def test_a_sweep_that_saw_nothing_blocks() -> None:
    verdict = only(judge_sweep(DUTIES, [0.0] * 5), "no_rpm")
    assert verdict.blocks
    assert "none of 5 points" in verdict.what
    assert only(judge_sweep([], []), "no_rpm").blocks


def test_a_sweep_that_saw_some_zeros_tells_where() -> None:
    rpms = [dc * 16 if dc > 20 else 0.0 for dc in DUTIES * 3]
    verdict = only(judge_sweep(DUTIES * 3, rpms), "zero_rpm")
    assert verdict.what == "3 of 15 points saw no RPM, at 20 % duty cycle"
    assert not verdict.blocks


def test_a_sweep_with_too_little_left_blocks() -> None:
    rpms = [dc * 16 if dc > 30 else 0.0 for dc in DUTIES * 3]
    assert only(judge_sweep(DUTIES * 3, rpms), "zero_rpm").blocks
    assert only(judge_sweep([30, 31, 30, 31, 30], [500] * 5), "too_few_points").blocks


# -- curves ------------------------------------------------------------------------------


def test_a_curve_that_turns_is_told_where_and_by_how_much() -> None:
    fit = akima([0, 1, 2, 3, 4], [0, 1, 2, 1.5, 1.2])
    verdict = only(judge_rising(fit, "OD", "V"), "not_monotonic")
    assert "falls by 0.8" in verdict.what
    assert "to 4 OD" in verdict.what
    assert not verdict.blocks
    assert judge_rising(fit, "OD", "V", blocks=True)[0].blocks


def test_a_curve_that_rises_is_left_alone_and_one_that_should_fall_is_told() -> None:
    fit = spline_auto([0, 0.5, 1, 2, 3], [0, 0.4, 0.7, 1.1, 1.2])
    assert judge_rising(fit, "OD", "V") == []
    verdict = only(judge_rising(fit, "OD", "V", falling=True), "not_monotonic")
    assert "rises" in verdict.what
    assert "should fall" in verdict.what
    down = poly_fixed([0, 1, 2], [3, 2, 1], 1)
    assert judge_rising(down, "OD", "V", falling=True) == []


def test_a_point_far_from_the_others_is_told_alone() -> None:
    x = [float(i) for i in range(10)]
    y = [2 * value + 0.01 * (-1) ** i for i, value in enumerate(x)]
    assert judge_outliers(poly_fixed(x, y, 1), "s", "mL") == []
    y[6] += 4
    verdict = only(judge_outliers(poly_fixed(x, y, 1), "s", "mL"), "outlier")
    assert "at 6 s reads 16.01 mL" in verdict.what


# -- standards ---------------------------------------------------------------------------


def test_standards_in_any_order_of_measuring_are_left_alone() -> None:
    assert judge_standards([1, 0.1, 2, 0], [0.5, 0.1, 0.9, 0.04], "90°") == []
    assert judge_standards([1, 0.1, 2, 0], [1.5, 2.1, 0.9, 2.2], "180°", falling=True) == []


STRAIGHT = (2.0, 1.0, 0.5, 0.25, 0.1, 0.0)


def in_light(ods: Sequence[float], noise: random.Random | None = None) -> list[float]:
    """What a photodiode sees, with the shade of each cell on the others; 2 % off with noise."""
    parts = [1 + (noise.gauss(0, 0.02) if noise else 0) for _ in ods]
    return [(0.2 + 0.375 * od / (1 + od / 10)) * part for od, part in zip(ods, parts, strict=True)]


@pytest.mark.parametrize(("at", "believed"), [(2, 0.7), (1, 1.5), (3, 0.4), (0, 1.2)])
def test_a_standard_of_a_wrong_od_is_told_though_all_are_in_order(at: int, believed: float) -> None:
    readings = in_light(STRAIGHT)
    typed = [believed if i == at else od for i, od in enumerate(STRAIGHT)]
    assert judge_standards(typed, readings, "90°") == []
    verdict = only(judge_stray_standard(typed, readings, "90°"), "stray_standard")
    assert f"OD {believed:g}" in verdict.what
    assert not verdict.blocks


def test_standards_that_were_made_with_care_are_left_alone() -> None:
    noise = random.Random(1)
    sessions = [in_light(STRAIGHT, noise) for _ in range(300)]
    doubted = [seen for seen in sessions if judge_stray_standard(STRAIGHT, seen, "90°")]
    assert len(doubted) <= 9


def test_a_standard_beside_a_blank_alone_cannot_stray() -> None:
    assert judge_stray_standard([1, 0], [0.5, 0.2], "90°") == []
    assert judge_stray_standard([1], [0.5], "90°") == []


def test_swapped_standards_are_told() -> None:
    verdict = only(judge_standards([0.5, 1], [0.61, 0.52], "90°"), "standards_out_of_order")
    assert verdict.what.startswith("OD 0.5 reads 0.61 and OD 1 reads 0.52 at 90°")
    assert only(
        judge_standards([0.5, 1], [0.52, 0.61], "180°", falling=True), "standards_out_of_order"
    )


def test_standards_that_read_alike_are_told() -> None:
    only(judge_standards([0.5, 0.51], [0.610, 0.611], "90°"), "standards_indistinguishable")
    only(judge_standards([0.5, 1], [0.0, 0.0], "90°"), "standards_indistinguishable")


def test_repeated_standards_are_averaged() -> None:
    assert judge_standards([0.5, 1, 0.5, 1], [0.50, 0.9, 0.52, 0.93], "90°") == []


def test_too_few_standards_are_told() -> None:
    assert only(judge_number_of_standards([]), "too_few_standards").blocks
    assert only(judge_number_of_standards([1, 1]), "too_few_standards").blocks
    few = only(judge_number_of_standards([0, 1, 2]), "few_standards")
    assert "2 or more" in few.mend
    assert not few.blocks
    assert judge_number_of_standards([0, 0.5, 1, 2, 3]) == []


def test_a_blank_that_is_none_blocks() -> None:
    verdict = only(judge_blank(0.6, [0.5, 1]), "blank_not_thinnest")
    assert verdict.blocks
    assert judge_blank(0, [0.5, 1]) == []
    assert judge_blank(0.5, [0.5, 1])[0].blocks


# -- fused OD ----------------------------------------------------------------------------


def test_the_levels_that_the_model_lacks_are_told() -> None:
    assert "Measure 2 more standards" in judge_levels([0.1, 0.1, 1])[0].mend
    assert "Measure 1 more standard of" in judge_levels([0.1, 0.5, 1])[0].mend
    assert judge_levels([0.1, 0.5, 1, 2]) == []


def offset_verdicts(
    standards: Sequence[float], estimates: Sequence[float], scale: float = 1.0
) -> list[Verdict]:
    moved = LogAffine(scale, 0.0)
    return judge_offset(moved, standards, estimates, min_logc=-2, max_logc=0.5)


def test_a_sound_offset_is_left_alone() -> None:
    assert offset_verdicts([0.1, 1], [0.11, 0.9]) == []


def test_doubtful_offsets_are_told() -> None:
    verdict = only(offset_verdicts([0.1, 5], [0.11, 10**0.5]), "beyond_the_model")
    assert "0.01 to 3.16" in verdict.what
    only(offset_verdicts([0.5, 0.7], [0.5, 0.7]), "standards_too_close")
    only(offset_verdicts([0.1, 1], [0.1, 1], scale=2.5), "large_correction")


# -- telling -----------------------------------------------------------------------------


def test_only_what_blocks_is_refused_and_with_all_its_reasons() -> None:
    harmless = Verdict("a", "a is odd", "Look at a.")
    first, second = (Verdict(c, f"{c} fails", "Repeat.", blocks=True) for c in "bc")
    refuse_blocking([])
    refuse_blocking([harmless])
    with pytest.raises(UnusableMeasurement, match=r"^b fails; c fails$") as refusal:
        refuse_blocking([harmless, first, second])
    assert refusal.value.status == 400
    assert refusal.value.remediation == "Repeat."


def test_verdicts_are_told_a_line_each_and_as_json() -> None:
    one, two = Verdict("a", "a is odd", "Look at a."), Verdict("b", "b too", "Look at b.", True)
    assert told([one, two]) == "Note: a is odd. Look at a.\nNote: b too. Look at b."
    assert told([]) == ""
    assert two.view() == {"code": "b", "what": "b too", "mend": "Look at b.", "blocks": True}


FINITE = st.floats(-1e30, 1e30)
POSITIVE = st.floats(0, 1e30, exclude_min=True)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE), max_size=8), POSITIVE, POSITIVE)
def test_finite_numbers_are_judged_without_an_error(
    points: list[tuple[float, float]], one: float, other: float
) -> None:
    x, y = [x for x, _ in points], [y for _, y in points]
    verdicts = [
        *judge_tracer(one, x or [other], tracer_s=1, longest_s=280),
        *judge_tracer(one, [other], tracer_s=1, longest_s=280),
        *judge_doses(x, y, tracer_ml_per_s=one),
        *judge_doses([abs(value) + 1e-9 for value in x], y),
        *judge_sweep(x, y),
        *judge_standards(x, y, "90°"),
        *judge_number_of_standards(x),
        *judge_blank(one, x),
        *judge_levels(x),
        *judge_offset(LogAffine(one, other), [one, other], [other, one], min_logc=-30, max_logc=30),
    ]
    for fit in (spline_auto, akima, line_through_origin):
        try:
            fitted = fit(x, y)
        except UnusablePoints:
            continue
        verdicts += judge_rising(fitted, "x", "y")
        verdicts += judge_outliers(fitted, "x", "y")
        if fit is line_through_origin:
            verdicts += judge_pump_fit(fitted)
    for verdict in verdicts:
        assert verdict.what
        assert not verdict.what.endswith(".")
        assert verdict.mend.endswith(".")


# -- charts ------------------------------------------------------------------------------


def test_a_chart_is_what_leaders_pages_draw() -> None:
    spline = SplineCurve((0.0, 1.0), ((0.0, 2.0, 0.0, 0.0),))
    drawn = chart(
        "Title",
        "OD600",
        "Voltage (V)",
        [
            Series("1", "Channel 1 (90°)", [0, 1], [0.1, 0.5]),
            Series("2", "Channel 2", [], [], spline),
            Series("3", "Channel 3", [], [], PolyCurve((1.0, 0.0))),
        ],
    )
    assert drawn == {
        "title": "Title",
        "x_label": "OD600",
        "y_label": "Voltage (V)",
        "series": [
            {
                "id": "1",
                "label": "Channel 1 (90°)",
                "points": [{"x": 0, "y": 0.1}, {"x": 1, "y": 0.5}],
                "curve": None,
            },
            {
                "id": "2",
                "label": "Channel 2",
                "points": [],
                "curve": {
                    "type": "spline",
                    "knots": [0.0, 1.0],
                    "coefficients": [[0.0, 2.0, 0.0, 0.0]],
                },
            },
            {
                "id": "3",
                "label": "Channel 3",
                "points": [],
                "curve": {"type": "poly", "coefficients": [1.0, 0.0]},
            },
        ],
    }


def test_a_table_has_a_cell_for_each_column() -> None:
    assert table("Recorded", ["Standard", "OD600"], [["1", 0.5], ["2", 1.0]]) == {
        "title": "Recorded",
        "columns": ["Standard", "OD600"],
        "rows": [["1", 0.5], ["2", 1.0]],
    }
    with pytest.raises(ValueError, match="2 columns, and a row of 1 cells"):
        table("Recorded", ["Standard", "OD600"], [["1"]])
