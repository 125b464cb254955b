"""Pictures for the steps of calibration sessions."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.pictures import MAX_AGE_S, MEDIA, PictureHandlers
from piod.http.routes import GET, Answer, Route


def picture_routes(pictures: PictureHandlers) -> Iterator[Route]:
    """The routes of this module's title."""
    yield Route(
        GET,
        "/unit_api/static/{name}",
        pictures.show,
        tag="Calibration sessions",
        summary="A picture of a session's step",
        description="The metadata of a step names them: image, loading_images.",
        path_params={"name": "Of the file, such as place-standard.svg."},
        answers={
            200: Answer("The drawing.", "<svg/>", media=MEDIA),
            304: Answer("The client has it already.", "", media=MEDIA),
        },
        errors=(404,),
        max_age_s=MAX_AGE_S,
    )
