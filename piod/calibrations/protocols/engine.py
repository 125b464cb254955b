"""How a session goes on: start, show, advance. What a protocol declares, this does.

A session is a :class:`~piod.storage.sessions.SessionRow`; each function takes one and returns
the next, and what an advance asks of the world goes through a
:class:`~piod.calibrations.protocols.turn.Bench`. A refusal changes nothing, so the same step
can be taken again; a finished session stays as it is.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

from piod.calibrations.protocols.inputs import read_inputs
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.steps import ACTION, Step
from piod.calibrations.protocols.turn import COMPLETE, Bench, Data, Facts, Turn, View
from piod.clock import timestamp
from piod.errors import BadRequest, Conflict
from piod.events import JsonValue
from piod.storage.sessions import SessionRow

COMPLETE_TITLE = "Calibration complete"


class StepGone(Conflict):
    """The protocol is not what it was when the session was at it last."""

    default_remediation = "Abort the session and start a new one."


def begin(
    protocol: type[CalibrationProtocol], device: str, session_id: str, facts: Facts
) -> SessionRow:
    """A new session. Raises BadRequest when the unit does not fulfil what it needs."""
    data = protocol.start(device, facts)
    if not protocol.steps:
        raise BadRequest(f"the protocol {protocol.name} has no steps yet in this version of piod")
    now = timestamp(facts.now_unix_s)
    return SessionRow(
        session_id=session_id,
        protocol_name=protocol.name,
        target_device=device,
        status="in_progress",
        step_id=protocol.steps[0].id,
        data=data,
        created_at=now,
        updated_at=now,
    )


def render(
    protocol: type[CalibrationProtocol], session: SessionRow, facts: Facts
) -> dict[str, JsonValue] | None:
    """The step that the session is at, as a page is told of it; None when it was aborted.

    Raises StepGone.
    """
    if session.status == "complete":
        return complete_step(session)
    if session.status != "in_progress":
        return None
    view = View(session.target_device, deepcopy(dict(session.data)), facts)
    return _step(protocol, session).render(view)


def complete_step(session: SessionRow) -> dict[str, JsonValue]:
    """The last page of a session: its result; its ``chart`` also where pages look for one."""
    result = dict(session.result or {})
    metadata: Data = {"result": result}
    if "chart" in result:
        metadata["chart"] = result["chart"]
    title = result.get("title")
    return {
        "step_id": COMPLETE,
        "step_type": "result",
        "title": title if isinstance(title, str) else COMPLETE_TITLE,
        "body": None,
        "fields": [],
        "metadata": metadata,
    }


async def advance(
    protocol: type[CalibrationProtocol],
    session: SessionRow,
    inputs: Mapping[str, object],
    bench: Bench,
    facts: Facts,
) -> SessionRow:
    """Take the step that ``session`` is at, with ``inputs``; the session afterwards.

    Raises what refuses it: BadRequest that names an input, what the hardware or the disk
    refused, StepGone.
    """
    if session.status != "in_progress":
        return session
    step = _step(protocol, session)
    data: Data = deepcopy(dict(session.data))
    turn = Turn(session.target_device, data, facts, bench)
    chosen = inputs.get(ACTION)
    action = next((each for each in step.actions if each.name == chosen), None)
    if action is not None:
        next_id = await action.take(turn)
    elif step.actions and chosen not in (None, ""):
        known = ", ".join(each.name for each in step.actions)
        raise BadRequest(f"{ACTION} must be one of {known}, got {reprlib.repr(chosen)}")
    else:
        data.update(read_inputs(step.fields_now(turn), inputs))
        next_id = await step.take(turn)
    after = replace(
        session, step_id=next_id, data=turn.data, updated_at=timestamp(facts.now_unix_s)
    )
    if next_id == COMPLETE:
        return replace(after, status="complete", result=turn.result or {})
    if protocol.step(next_id) is None:
        raise LookupError(f"{protocol.name} has no step {next_id!r}")
    return after


def _step(protocol: type[CalibrationProtocol], session: SessionRow) -> Step:
    step = protocol.step(session.step_id)
    if step is None:
        raise StepGone(
            f"{protocol.name} has no step {session.step_id!r} any more: the protocol has changed "
            "since this session was begun"
        )
    return step
