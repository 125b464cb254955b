"""What the unit has measured and done."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.readings import (
    CSV_EXAMPLE,
    CSV_MEDIA,
    KINDS_EXAMPLE,
    ReadingsHandlers,
    ReadingsQuery,
)
from piod.http.routes import GET, Answer, Route

TAG = "Readings"


def readings_routes(readings: ReadingsHandlers) -> Iterator[Route]:
    """The routes of this module's title."""
    path = "/unit_api/readings"
    yield Route(
        GET,
        path,
        readings.kinds,
        tag=TAG,
        summary="What kinds of readings there are",
        description="By kind: how many are kept, their units, the first and the last time.",
        answers={200: Answer("The kinds that there are readings of.", KINDS_EXAMPLE)},
        errors=(503,),
    )
    yield Route(
        GET,
        f"{path}/{{kind}}",
        readings.export,
        tag=TAG,
        summary="Readings of one kind, as CSV",
        description="In the order of their times, sent while they are read. How long they are "
        "kept, [piod] keep_readings_days and keep_readings_rows say.",
        path_params={"kind": "Such as od, growth_rate, temperature, rpm, led, dosing."},
        query=ReadingsQuery,
        answers={
            200: Answer(
                "A line of titles, then one for each reading.", CSV_EXAMPLE, media=CSV_MEDIA
            )
        },
        errors=(404, 503),
    )
