"""What is in the vial: the bioreactor variables of an experiment."""

from __future__ import annotations

from typing import TypedDict, cast

from aiohttp import web

from piod.actors.actor import Ref
from piod.actors.bioreactor import OLDER_NAMES, VARIABLES, variables
from piod.actors.volumes import (
    LEDGER_TIMEOUT_S,
    ChangeVolumes,
    LookAtVolumes,
    LookForDoses,
    VolumeLedger,
)
from piod.errors import BadRequest
from piod.http.answers import json_answer
from piod.http.decode import Decoded, Object, StrictNumber, StrictText, decode_json, plain_text
from piod.jobs.liquids import Volumes

VOLUMES_EXAMPLE: dict[str, object] = {
    "values": {
        "current_volume_ml": 14.0,
        "efflux_tube_volume_ml": 14.0,
        "alt_media_fraction": 0.25,
        "cumulative_media_added_ml": 30.5,
        "cumulative_alt_media_added_ml": 10.0,
        "cumulative_waste_removed_ml": 41.0,
    },
    "range_ml": {"lowest": 14.0, "highest": 14.06},
    "doubt": None,
    "doses_under_way": [],
}


class _ChangeBody(TypedDict):
    values: dict[str, object]


class VolumesSchema(Decoded[_ChangeBody]):
    example = {"values": {"current_volume_ml": 14, "alt_media_fraction": 0}}
    values = Object(
        keys=StrictText(),
        values=StrictNumber(),
        required=True,
        metadata={
            "description": f"New values by variable, all or none: {', '.join(VARIABLES)}; "
            f"{', '.join(OLDER_NAMES)} is an older name of {', '.join(OLDER_NAMES.values())}."
        },
    )


class BioreactorHandlers:
    """``/unit_api/bioreactor``."""

    def __init__(self, volumes: Ref[VolumeLedger]) -> None:
        self._volumes = volumes

    async def look(self, request: web.Request) -> web.Response:
        """The variables of one experiment, and how sure they are."""
        message = LookAtVolumes(_experiment(request))
        volumes = await self._volumes.ask(message, timeout=LEDGER_TIMEOUT_S)
        return json_answer(await self._answer(volumes))

    async def change(self, request: web.Request) -> web.Response:
        """Set variables, all or none."""
        experiment = _experiment(request)
        body = await decode_json(request, VolumesSchema)
        # StrictNumber has let nothing else through
        values = cast("dict[str, float]", body["values"])
        if not values:
            raise BadRequest("values must name at least one variable")
        message = ChangeVolumes(experiment, values)
        changed = await self._volumes.ask(message, timeout=LEDGER_TIMEOUT_S)
        return json_answer({"status": "success", **await self._answer(changed)})

    async def _answer(self, volumes: Volumes) -> dict[str, object]:
        doses = await self._volumes.ask(LookForDoses(), timeout=LEDGER_TIMEOUT_S)
        return {
            "values": variables(volumes),
            "range_ml": {"lowest": volumes.lowest_ml, "highest": volumes.highest_ml},
            "doubt": volumes.doubt,
            "doses_under_way": list(doses),
        }


def _experiment(request: web.Request) -> str:
    return plain_text(request.match_info["experiment"], "experiment")
