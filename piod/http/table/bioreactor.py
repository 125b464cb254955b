"""What is in the vial."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.bioreactor import VOLUMES_EXAMPLE, BioreactorHandlers, VolumesSchema
from piod.http.routes import GET, PATCH, Answer, Route

TAG = "Bioreactor"
PATH = "/unit_api/bioreactor/experiments/{experiment}"


def bioreactor_routes(bioreactor: BioreactorHandlers) -> Iterator[Route]:
    """The routes of this module's title."""
    path_params = {"experiment": "Name of the experiment."}
    yield Route(
        GET,
        PATH,
        bioreactor.look,
        tag=TAG,
        summary="What is in the vial of an experiment",
        description="Volumes in mL, without the doses under way. range_ml: the least and the most "
        "that can be in the vial. doubt: why nothing may be added until current_volume_ml is set "
        "or waste is removed down to the efflux tube; null: no doubt. doses_under_way: what is "
        "pumped now, by whom, in any experiment.",
        path_params=path_params,
        answers={200: Answer("The variables.", VOLUMES_EXAMPLE)},
        errors=(503,),
    )
    yield Route(
        PATCH,
        PATH,
        bioreactor.change,
        tag=TAG,
        summary="Correct what is in the vial of an experiment",
        description="All or none. Setting current_volume_ml says that somebody has looked: it "
        "ends a doubt. The volumes are not set while a pump runs (409).",
        path_params=path_params,
        body=VolumesSchema,
        answers={200: Answer("As they are now.", {"status": "success", **VOLUMES_EXAMPLE})},
        errors=(409, 503, 507),
    )
