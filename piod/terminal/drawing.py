"""Pages, tables, charts and results as text of a given width.

Charts are plots where plotext is installed (the extra ``terminal``), tables of their points
elsewhere: it is in no Debian release, and nothing of a calibration hangs on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from textwrap import TextWrapper

from piod.calibrations.charts import Series
from piod.calibrations.curves import CurveError
from piod.terminal.pages import Chart, Object, Offer, Page, Table
from piod.terminal.unit_client import plain

PLOT_HEIGHT, SMALL_PLOT_HEIGHT = 18, 12
"""In lines: of a result, and of a page that still asks something."""
MOST_PLOT_WIDTH = 90
PLACES = 120
"""At how many x a curve is drawn."""
MARKERS = "o+x*#@"


def fill(text: str, width: int, *, indent: str = "") -> str:
    """``text`` wrapped, addresses left whole; ``indent`` before each line."""
    return TextWrapper(
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    ).fill(text)


def paragraphs(text: str, width: int) -> str:
    """``text`` wrapped, line by line."""
    return "\n".join(fill(line, width) for line in text.split("\n"))


def page_text(page: Page, width: int, unit_url: str) -> str:
    """What a page shows, but for what it asks."""
    parts = [f"== {page.title} ==", paragraphs(page.body, width)]
    if page.picture is not None and page.picture.alt:
        parts.append(fill(f"(picture: {page.picture.alt}, {unit_url}{page.picture.path})", width))
    if page.table is not None:
        parts.append(table_text(page.table))
    if page.chart is not None:
        parts.append(chart_text(page.chart, width, SMALL_PLOT_HEIGHT))
    return "\n\n".join(part for part in parts if part)


def offers_text(offers: Sequence[Offer], width: int) -> str:
    """What a unit can calibrate, and what it cannot now, with why."""
    lines = []
    for offer in offers:
        lines.append(f"{offer.device}  --protocol {offer.protocol}  ({offer.title})")
        if offer.unavailable_because is not None:
            lines.append(_indented(f"not now: {offer.unavailable_because}", width))
    return "\n".join(lines)


def offer_text(offer: Offer, width: int) -> str:
    """What a protocol does and needs."""
    needs = [_indented(f"- {line}", width) for line in offer.requirements]
    have = ["", "Have ready:", *needs] if needs else []
    return "\n".join([fill(f"{offer.title}: {offer.description}", width), *have])


def table_text(table: Table) -> str:
    """The table, in columns."""
    rows = [table.columns, *table.rows]
    count = max(len(row) for row in rows)
    padded = [[*row, *[""] * (count - len(row))] for row in rows]
    widths = [max(len(row[column]) for row in padded) for column in range(count)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in padded
    ]
    return "\n".join([table.title, *lines] if table.title else lines)


def chart_text(chart: Chart, width: int, height: int = PLOT_HEIGHT) -> str:
    """A plot of ``chart`` with plotext, or the table of its points."""
    plot = _plot(chart, width, height)
    return points_text(chart) if plot is None else plot


def points_text(chart: Chart) -> str:
    """The points of ``chart``, and what the curves say there."""
    tables = []
    for series in chart.series:
        columns = [chart.x_label, chart.y_label]
        rows = [[f"{x:.5g}", f"{y:.5g}"] for x, y in zip(series.x, series.y, strict=True)]
        if series.curve is not None:
            columns.append("Curve")
            for row, x in zip(rows, series.x, strict=True):
                row.append(_at(series, x))
        tables.append(
            table_text(Table(series.label, tuple(columns), tuple(tuple(row) for row in rows)))
        )
    return "\n\n".join(part for part in [chart.title, *tables] if part)


def _plot(chart: Chart, width: int, height: int) -> str | None:
    """The chart as plotext draws it; None when there is no plotext that does."""
    try:
        plotext = importlib.import_module("plotext")
        figure = plotext.figure
    except (ImportError, AttributeError):
        return None  # not installed, or one of before 6.0, which has another interface
    if not any(len(series.x) for series in chart.series):
        return None
    figure.clear()
    figure.plot_size(min(width, MOST_PLOT_WIDTH), height)
    figure.theme("colorless")
    figure.title(chart.title)
    figure.label(chart.x_label, "x")
    legend = []
    for number, series in enumerate(chart.series):
        drawn = list(_drawn(series))
        if drawn:
            x, y = zip(*drawn, strict=True)
            figure.draw(figure.signal(list(x), list(y), marker="braille").lines())
        marker = MARKERS[number % len(MARKERS)]
        figure.draw(figure.signal(list(series.x), list(series.y), marker=marker))
        legend.append(f"{marker} {series.label}")
    plot = str(figure.build().string(colorless=True)).rstrip("\n")
    return f"{chart.y_label}\n{plot}\n{'   '.join(legend)}"


def _drawn(series: Series) -> Iterator[tuple[float, float]]:
    """Points of the curve over what was recorded."""
    if series.curve is None:
        return
    low, high = min(series.x), max(series.x)
    for place in range(PLACES + 1):
        x = low + (high - low) * place / PLACES
        try:
            yield x, series.curve.evaluate(x)
        except CurveError:
            continue


def _at(series: Series, x: float) -> str:
    try:
        return "" if series.curve is None else f"{series.curve.evaluate(x):.5g}"
    except CurveError:
        return "-"


def result_text(result: Object, width: int) -> str:
    """What a result says of itself: what was saved, how well it fits, what is odd about it."""
    lines = [
        f"Saved and active: {link['device']} {name} ({link.get('path')})"
        for link in links(result)
        if (name := link.get("calibration_name") or link.get("estimator_name"))
    ]
    reach = result.get("recommended_volume_range_ml")
    if isinstance(reach, list | tuple) and len(reach) == 2:
        lines.append(f"Good for doses of {reach[0]:.3g} to {reach[1]:.3g} mL.")
    fits = result.get("fits")
    for label, fit in [("", result.get("fit")), *(fits.items() if isinstance(fits, dict) else ())]:
        lines += _fit_lines(f"{label}: " if label else "", fit)
    doubts = result.get("doubts")
    if isinstance(doubts, list):
        lines += [fill(f"Note: {doubt}", width) for doubt in doubts]
    for verdict in verdicts(result.get("verdicts")):
        lines.append(fill(f"Note: {verdict.get('what')}. {verdict.get('mend')}", width))
    return plain("\n".join(lines))


def links(result: Object) -> list[Object]:
    """What a result says it has saved, each with ``device`` and a name."""
    several = result.get("calibrations")
    told = [*(several if isinstance(several, list) else ()), result.get("calibration_link"), result]
    return [one for one in told if isinstance(one, dict) and isinstance(one.get("device"), str)]


def verdicts(told: object) -> Iterator[Object]:
    """Those of a result, which may keep them by channel."""
    if isinstance(told, dict) and "what" not in told:
        told = list(told.values())
    match told:
        case dict():
            yield told
        case list():
            for one in told:
                yield from verdicts(one)


def _fit_lines(label: str, fit: object) -> Iterator[str]:
    if not isinstance(fit, dict):
        return
    rmse = fit.get("rmse")
    if isinstance(rmse, int | float):
        yield f"{label}typical distance of the points from the curve: {rmse:.3g}"
    parameters = fit.get("parameters")
    few = isinstance(parameters, list) and len(parameters) <= 2
    for parameter in parameters if isinstance(parameters, list) and few else ():
        value, error = parameter.get("value"), parameter.get("std_error")
        if isinstance(value, int | float):
            unsure = f" ± {error:.2g}" if isinstance(error, int | float) else ""
            yield f"{label}{parameter.get('name')}: {value:.4g}{unsure}"


def _indented(text: str, width: int) -> str:
    return fill(text, width, indent="  ")
