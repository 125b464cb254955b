"""The readings of the unit as CSV, and what kinds of them there are."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypedDict

from aiohttp import hdrs, web

from piod.clock import timestamp
from piod.errors import BadRequest, NotFound
from piod.events import LATEST_UNIX_S, READING_UNITS
from piod.http.answers import json_answer, json_bytes
from piod.http.decode import Decoded, StrictText, decode_query
from piod.storage.readings import Reading, Readings

CSV_MEDIA = "text/csv"
COLUMNS = ("timestamp", "unit", "experiment", "kind", "channel", "value", "units", "details")
CSV_EXAMPLE = (
    ",".join(COLUMNS) + "\r\n"
    '2026-01-31T12:45:00.000Z,pio01,Exp001,od,2,0.0412,OD,"{""angle"":""90""}"\r\n'
)
KINDS_EXAMPLE = {
    "od": {
        "readings": 17280,
        "units": "OD",
        "first": "2026-01-31T12:45:00.000Z",
        "last": "2026-02-01T12:44:55.000Z",
    }
}


class _ReadingsQuery(TypedDict):
    experiment: str | None
    since: str | None
    until: str | None


class ReadingsQuery(Decoded[_ReadingsQuery]):
    experiment = StrictText(
        load_default=None, metadata={"description": "Of this experiment alone."}
    )
    since = StrictText(
        load_default=None,
        metadata={
            "description": "From this time on: ISO 8601 (UTC if it has no zone), or Unix seconds."
        },
    )
    until = StrictText(
        load_default=None, metadata={"description": "Before this time; written as since."}
    )


class ReadingsHandlers:
    """``/unit_api/readings``."""

    def __init__(self, readings: Readings, unit_name: str) -> None:
        self._readings = readings
        self._unit_name = unit_name

    async def kinds(self, request: web.Request) -> web.Response:
        """What there is, by kind."""
        kinds = await self._readings.kinds()
        return json_answer(
            {
                kind: {
                    "readings": count.readings,
                    "units": READING_UNITS.get(kind, ""),
                    "first": timestamp(count.first_at),
                    "last": timestamp(count.last_at),
                }
                for kind, count in kinds.items()
            }
        )

    async def export(self, request: web.Request) -> web.StreamResponse:
        """The readings of one kind, sent as they are read."""
        kind = request.match_info["kind"]
        query = decode_query(request, ReadingsQuery)
        since, until = _unix_s(query["since"], "since"), _unix_s(query["until"], "until")
        if since is not None and until is not None and since > until:
            raise BadRequest("since must not be later than until")
        if kind not in READING_UNITS and kind not in await self._readings.kinds():
            raise NotFound(
                f"there are no readings of kind {kind!r}",
                remediation=f"The kinds are: {', '.join(READING_UNITS)}.",
            )
        pages = self._readings.pages(kind, experiment=query["experiment"], since=since, until=until)
        page = await anext(pages, None)  # what can be refused is refused before the answer begins
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: f"{CSV_MEDIA}; charset=utf-8",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{self._unit_name}_{kind}.csv"',
                hdrs.CACHE_CONTROL: "no-cache",
            }
        )
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await response.write(_csv([COLUMNS]))
            while page is not None:
                await response.write(_csv([_row(reading) for reading in page]))
                page = await anext(pages, None)
        await response.write_eof()
        return response


def _row(reading: Reading) -> Sequence[str]:
    return (
        timestamp(reading.at),
        reading.unit,
        reading.experiment,
        reading.kind,
        reading.channel or "",
        repr(reading.value),
        READING_UNITS.get(reading.kind, ""),
        json_bytes(reading.details).decode() if reading.details else "",
    )


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _unix_s(text: str | None, field: str) -> float | None:
    """Unix seconds of ISO 8601 or of Unix seconds as text; BadRequest naming ``field``."""
    if text is None:
        return None
    unix_s: float | None = None
    # in a query, the + of a zone that was not escaped has become a blank
    for spelling in (text, "+".join(text.rsplit(" ", 1))):
        try:
            unix_s = float(spelling)
        except ValueError:
            try:
                moment = datetime.fromisoformat(spelling)
            except ValueError:
                continue
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            unix_s = aware.timestamp()
        break
    if unix_s is None or not 0 <= unix_s <= LATEST_UNIX_S:
        raise BadRequest(
            f"{field} must be a time as ISO 8601 or Unix seconds, got {text[:40]!r}",
            remediation="Write it as 2026-01-31T12:45:00Z, or as 1769863500.",
        )
    return unix_s
