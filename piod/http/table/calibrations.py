"""Calibrations, estimators, which of them are active, and the protocols."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.calibrations import (
    CALIBRATION_EXAMPLE,
    ESTIMATOR_EXAMPLE,
    PROTOCOL_EXAMPLE,
    ByDevice,
    CalibrationHandlers,
    CalibrationSchema,
    CalibrationView,
    EstimatorHandlers,
    EstimatorView,
)
from piod.http.downloads import ZIP_MEDIA
from piod.http.routes import DELETE, GET, PATCH, POST, Answer, Route
from piod.http.sessions import (
    ABORTED_EXAMPLE,
    STARTED_EXAMPLE,
    InputsSchema,
    SessionAnswer,
    SessionHandlers,
    StartSchema,
)

DEVICE = {"device": "What is calibrated: media_pump, stirring, od90, …"}
CALIBRATION = {**DEVICE, "cal_name": "Name of the calibration."}
ESTIMATOR = {"device": "What is estimated: od_fused.", "estimator_name": "Name of the estimator."}

DONE = {200: Answer("It is so, and on disk.", {"status": "success"})}
MAX_AGE_S = 10


def session_routes(sessions: SessionHandlers) -> Iterator[Route]:
    """Calibration sessions. To stand before the other calibration routes: ``sessions`` is no
    device."""
    path, tag = "/unit_api/calibrations/sessions", "Calibration sessions"
    one = f"{path}/{{session_id}}"
    session_id = {"session_id": "The session_id that its start answered."}
    shown = Answer("The session and its step.", STARTED_EXAMPLE, SessionAnswer)
    yield Route(
        POST,
        path,
        sessions.start,
        tag=tag,
        summary="Start a calibration session",
        description="400 when there is no such protocol for the device, or it cannot be run on "
        "this unit now, with the reason.",
        body=StartSchema,
        answers={201: Answer("It is on disk.", STARTED_EXAMPLE, SessionAnswer)},
        errors=(500, 503, 507),
    )
    yield Route(
        GET,
        one,
        sessions.show,
        tag=tag,
        summary="A calibration session",
        description="Answered at once, also while its hardware works; progress tells how far "
        "that is. 409 when its protocol is gone, with its plugin, say.",
        path_params=session_id,
        answers={200: shown},
        errors=(404, 409, 500, 503),
    )
    yield Route(
        POST,
        f"{one}/inputs",
        sessions.advance,
        tag=tag,
        summary="Advance a calibration session",
        description="Checks the inputs, then does what the step does: that may take minutes. The "
        "answer has the next step, and is on disk. After a refusal the session is where it was, "
        "and the step can be taken again. 400 names the input that is wrong. 409: another advance "
        "is under way, the hardware is in use (by which job is said), or the session was aborted "
        "meanwhile. Advancing a finished session changes nothing.",
        path_params=session_id,
        body=InputsSchema,
        answers={200: shown},
        errors=(404, 409, 500, 503, 507),
    )
    yield Route(
        POST,
        f"{one}/abort",
        sessions.abort,
        tag=tag,
        summary="Abort a calibration session",
        description="Its hardware is off at once, and an advance that waits is refused (409). "
        "Aborting a finished session changes nothing.",
        path_params=session_id,
        answers={200: Answer("It has ended.", ABORTED_EXAMPLE, SessionAnswer)},
        errors=(404, 500, 503, 507),
    )


def calibration_routes(calibrations: CalibrationHandlers) -> Iterator[Route]:
    """Calibrations and protocols."""
    api, tag = "/unit_api", "Calibrations"
    yield Route(
        GET,
        f"{api}/calibration_protocols",
        calibrations.protocols,
        tag=tag,
        summary="The protocols that this unit offers",
        description="By device, priority and title. Of OD, those of the photodiodes that the "
        "configuration names. unavailable_because tells why a session would be refused now.",
        answers={200: Answer("The protocols.", [PROTOCOL_EXAMPLE])},
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        GET,
        f"{api}/calibrations",
        calibrations.all,
        tag=tag,
        summary="All calibrations, by device",
        description="A file that cannot be used is left out; the log says why.",
        answers={200: Answer("Lists by device.", {"od90": [CALIBRATION_EXAMPLE]}, ByDevice)},
        errors=(404, 500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        GET,
        f"{api}/calibrations/{{device}}",
        calibrations.of_device,
        tag=tag,
        summary="Calibrations of a device",
        description="A file that cannot be used is left out; the log says why.",
        path_params=DEVICE,
        answers={200: Answer("By file name.", [CALIBRATION_EXAMPLE], CalibrationView(many=True))},
        errors=(404, 500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        POST,
        f"{api}/calibrations/{{device}}",
        calibrations.create,
        tag=tag,
        summary="Upload a calibration",
        description="The text is kept as it is, under the name that stands in it; one of that "
        "name is replaced. It is on disk when the answer comes.",
        path_params=DEVICE,
        body=CalibrationSchema,
        answers={
            201: Answer(
                "It is on disk.",
                {
                    "msg": "Calibration created successfully.",
                    "path": "/home/pioreactor/.pioreactor/storage/calibrations/od90/cal_1.yaml",
                },
            )
        },
        errors=(500, 503, 507),
    )
    yield Route(
        GET,
        f"{api}/calibrations/{{device}}/{{cal_name}}",
        calibrations.one,
        tag=tag,
        summary="One calibration",
        description="500 when its file cannot be used.",
        path_params=CALIBRATION,
        answers={200: Answer("The calibration.", CALIBRATION_EXAMPLE, CalibrationView)},
        errors=(404, 500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        DELETE,
        f"{api}/calibrations/{{device}}/{{cal_name}}",
        calibrations.delete,
        tag=tag,
        summary="Delete a calibration",
        description="If it was the active one, none is active afterwards.",
        path_params=CALIBRATION,
        answers={
            200: Answer(
                "It is gone.",
                {"msg": "Calibration 'cal_1' for device 'od90' deleted successfully."},
            )
        },
        errors=(404, 500, 503, 507),
    )
    yield Route(
        GET,
        f"{api}/active_calibrations",
        calibrations.active,
        tag=tag,
        summary="Active calibrations, by device",
        description="Devices whose active calibration cannot be used are left out.",
        answers={200: Answer("One by device.", {"od90": CALIBRATION_EXAMPLE}, ByDevice)},
        errors=(404, 500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        PATCH,
        f"{api}/active_calibrations/{{device}}/{{cal_name}}",
        calibrations.activate,
        tag=tag,
        summary="Make a calibration the active one",
        description="409 when its file cannot be used.",
        path_params=CALIBRATION,
        answers=DONE,
        errors=(404, 409, 500, 503, 507),
    )
    yield Route(
        DELETE,
        f"{api}/active_calibrations/{{device}}",
        calibrations.deactivate,
        tag=tag,
        summary="Make no calibration the active one",
        path_params=DEVICE,
        answers=DONE,
        errors=(500, 503, 507),
    )
    yield Route(
        GET,
        f"{api}/zipped_calibrations",
        calibrations.archive,
        tag=tag,
        summary="All calibration files as a zip",
        description="Names in the archive are <device>/<name>.yaml.",
        answers={200: Answer("The archive.", "(binary zip)", media=ZIP_MEDIA)},
        errors=(404,),
    )


def estimator_routes(estimators: EstimatorHandlers) -> Iterator[Route]:
    """Estimators."""
    api, tag = "/unit_api", "Estimators"
    active_example = {key: value for key, value in ESTIMATOR_EXAMPLE.items() if key != "device"}
    yield Route(
        GET,
        f"{api}/estimators",
        estimators.all,
        tag=tag,
        summary="All estimators, by device",
        description="A file that cannot be used is left out; the log says why.",
        answers={200: Answer("Lists by device.", {"od_fused": [ESTIMATOR_EXAMPLE]}, ByDevice)},
        errors=(500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        GET,
        f"{api}/estimators/{{device}}",
        estimators.of_device,
        tag=tag,
        summary="Estimators of a device",
        description="A file that cannot be used is left out; the log says why.",
        path_params={"device": ESTIMATOR["device"]},
        answers={200: Answer("By file name.", [ESTIMATOR_EXAMPLE], EstimatorView(many=True))},
        errors=(500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        GET,
        f"{api}/estimators/{{device}}/{{estimator_name}}",
        estimators.one,
        tag=tag,
        summary="One estimator",
        description="500 when its file cannot be used.",
        path_params=ESTIMATOR,
        answers={200: Answer("The estimator.", ESTIMATOR_EXAMPLE, EstimatorView)},
        errors=(404, 500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        DELETE,
        f"{api}/estimators/{{device}}/{{estimator_name}}",
        estimators.delete,
        tag=tag,
        summary="Delete an estimator",
        description="If it was the active one, none is active afterwards.",
        path_params=ESTIMATOR,
        answers={
            200: Answer(
                "It is gone.",
                {"msg": "Estimator 'est_1' for device 'od_fused' deleted successfully."},
            )
        },
        errors=(404, 500, 503, 507),
    )
    yield Route(
        GET,
        f"{api}/active_estimators",
        estimators.active,
        tag=tag,
        summary="Active estimators, by device",
        description="Devices whose active estimator cannot be used are left out.",
        answers={200: Answer("One by device.", {"od_fused": active_example}, ByDevice)},
        errors=(500, 503),
        max_age_s=MAX_AGE_S,
    )
    yield Route(
        PATCH,
        f"{api}/active_estimators/{{device}}/{{estimator_name}}",
        estimators.activate,
        tag=tag,
        summary="Make an estimator the active one",
        description="409 when its file cannot be used.",
        path_params=ESTIMATOR,
        answers=DONE,
        errors=(404, 409, 500, 503, 507),
    )
    yield Route(
        DELETE,
        f"{api}/active_estimators/{{device}}",
        estimators.deactivate,
        tag=tag,
        summary="Make no estimator the active one",
        path_params={"device": ESTIMATOR["device"]},
        answers=DONE,
        errors=(500, 503, 507),
    )
