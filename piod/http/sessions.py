"""Calibration sessions: start, show, advance, abort. Each answers the session and its step."""

from __future__ import annotations

from typing import TypedDict

from aiohttp import web
from marshmallow import Schema, fields

from piod.actors.actor import Ref
from piod.actors.session import SessionView
from piod.actors.sessions import (
    ADVANCE_TIMEOUT_S,
    ASK_TIMEOUT_S,
    AbortSession,
    AdvanceSession,
    CalibrationSessions,
    ShowSession,
    StartSession,
)
from piod.http.answers import json_answer
from piod.http.decode import Decoded, Object, StrictText, decode_json, plain_text

MARGIN_S = 2.0
"""By which the deadline here lies behind that of what is asked, whose refusal says more."""


class _StartBody(TypedDict):
    target_device: str
    protocol_name: str


class StartSchema(Decoded[_StartBody]):
    example = {"protocol_name": "duration_based", "target_device": "media_pump"}
    target_device = StrictText(
        required=True, metadata={"description": "What is to be calibrated: media_pump, od90, …"}
    )
    protocol_name = StrictText(
        required=True,
        metadata={
            "description": "How: one of GET /unit_api/calibration_protocols for that device."
        },
    )


class _InputsBody(TypedDict):
    inputs: dict[str, object]


class InputsSchema(Decoded[_InputsBody]):
    example = {"inputs": {"volume_ml": 10}}
    inputs = Object(
        keys=StrictText(),
        load_default=dict,
        metadata={
            "description": "Values by the names of the step's fields. What no field asks for is "
            "ignored; a step without fields takes {}."
        },
    )


SESSION_EXAMPLE: dict[str, object] = {
    "session_id": "0d0ad6b1-4c1e-4f6f-9f0e-0f2c6d6d2a55",
    "protocol_name": "duration_based",
    "target_device": "media_pump",
    "status": "in_progress",
    "step_id": "tracer_volume",
    "data": {"calibration_name": "media_pump-2026-03-04", "hz": 250.0, "dc": 100.0},
    "created_at": "2026-03-04T09:15:30.250Z",
    "updated_at": "2026-03-04T09:21:02.007Z",
    "result": None,
    "error": None,
    "progress": None,
}
STEP_EXAMPLE: dict[str, object] = {
    "step_id": "tracer_volume",
    "step_type": "form",
    "title": "How much was it?",
    "body": "Weigh the water of the run, then empty and dry the vessel.",
    "fields": [
        {
            "name": "volume_ml",
            "label": "Volume (mL)",
            "field_type": "float",
            "required": True,
            "default": None,
            "options": None,
            "minimum": 0.0001,
            "maximum": None,
            "min_error_msg": None,
            "max_error_msg": None,
            "help_text": None,
        }
    ],
    "metadata": {},
}
STARTED_EXAMPLE = {"session": SESSION_EXAMPLE, "step": STEP_EXAMPLE}
ABORTED_EXAMPLE = {
    "session": {
        **SESSION_EXAMPLE,
        "status": "aborted",
        "error": "The calibration was aborted by the user.",
    },
    "step": None,
}


def _about(text: str) -> dict[str, str]:
    return {"description": text}


class _Session(Schema):
    session_id = fields.String(metadata=_about("Opaque."))
    protocol_name = fields.String(metadata=_about("How it is calibrated."))
    target_device = fields.String(metadata=_about("What is calibrated."))
    status = fields.String(metadata=_about("in_progress, complete or aborted."))
    step_id = fields.String(metadata=_about("Where it is; of an aborted one, where it was."))
    data = fields.Dict(metadata=_about("What the steps have kept so far."))
    created_at = fields.String(metadata=_about("UTC."))
    updated_at = fields.String(metadata=_about("UTC; of the last accepted step, or the abort."))
    result = fields.Dict(allow_none=True, metadata=_about("Of a complete one."))
    error = fields.String(allow_none=True, metadata=_about("Why it is not complete."))
    progress = fields.Float(
        allow_none=True,
        metadata=_about("Of the step that is being taken now, 0 to 1; null: none is."),
    )


class SessionAnswer(Schema):
    """A session and the step that it is at."""

    session = fields.Nested(_Session, metadata=_about("The session."))
    step = fields.Dict(
        allow_none=True,
        metadata=_about(
            "The page to be shown: step_id, step_type (info, form, action, result), title, body, "
            "fields, metadata (image, loading_images, chart, table, actions, result). Null once "
            "the session was aborted."
        ),
    )


class SessionHandlers:
    """The four doors of the sessions."""

    def __init__(self, sessions: Ref[CalibrationSessions]) -> None:
        self._sessions = sessions

    async def start(self, request: web.Request) -> web.Response:
        """Begin a session."""
        body = await decode_json(request, StartSchema)
        message = StartSession(body["protocol_name"], body["target_device"])
        return _answer(
            await self._sessions.ask(message, timeout=ASK_TIMEOUT_S + MARGIN_S), status=201
        )

    async def show(self, request: web.Request) -> web.Response:
        """The session as it is now."""
        return _answer(await self._show(request))

    async def advance(self, request: web.Request) -> web.Response:
        """Take its step."""
        await self._show(request)  # whether it is there comes before what is wrong with the body
        body = await decode_json(request, InputsSchema)
        message = AdvanceSession(_session_id(request), body["inputs"])
        return _answer(await self._sessions.ask(message, timeout=ADVANCE_TIMEOUT_S + MARGIN_S))

    async def abort(self, request: web.Request) -> web.Response:
        """End it."""
        message = AbortSession(_session_id(request))
        return _answer(await self._sessions.ask(message, timeout=ASK_TIMEOUT_S + MARGIN_S))

    async def _show(self, request: web.Request) -> SessionView:
        message = ShowSession(_session_id(request))
        return await self._sessions.ask(message, timeout=ASK_TIMEOUT_S + MARGIN_S)


def _session_id(request: web.Request) -> str:
    return plain_text(request.match_info["session_id"], "session_id")


def _answer(view: SessionView, status: int = 200) -> web.Response:
    session = view.session
    told = {
        "session_id": session.session_id,
        "protocol_name": session.protocol_name,
        "target_device": session.target_device,
        "status": session.status,
        "step_id": session.step_id,
        "data": session.data,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "result": session.result,
        "error": session.error,
        "progress": view.progress,
    }
    return json_answer({"session": told, "step": view.step}, status=status)
