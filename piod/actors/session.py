"""The actor of one calibration session.

Messages: :class:`Show`, :class:`Advance`, :class:`Abort`. An advance may take minutes, while
its hardware works; meanwhile the others are answered, and a second advance is refused.

The session is on disk after each accepted step. What a step asks of the hardware is leased in
the session's name, for that step alone: it is off when the step is over, however that is, and
at once when the session is aborted or all jobs are stopped. A step that was interrupted was
not accepted; its hardware runs again when it is taken again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from piod.actors.actor import Actor, Message
from piod.actors.session_bench import SessionBench, Workshop
from piod.calibrations.protocols.engine import advance, complete_step, render
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.turn import Facts
from piod.clock import timestamp
from piod.errors import Conflict, NotFound, PiodError
from piod.events import JsonValue
from piod.storage.sessions import SessionRow

log = logging.getLogger(__name__)

ABORTED = "The calibration was aborted by the user."


class SessionBusy(Conflict):
    """The session is being advanced already."""

    default_remediation = "Wait until the step is over, or abort the session."


class SessionAborted(Conflict):
    """The session was aborted while its step ran."""

    default_remediation = "Start a new session."


class StepFailed(PiodError):
    """A bug in a protocol; the session is where it was."""


@dataclass(frozen=True)
class SessionView:
    """A session and the step that it is at; ``step`` None: it was aborted.

    ``progress`` of a step that is being taken, 0 to 1; None: none is.
    """

    session: SessionRow
    step: Mapping[str, JsonValue] | None
    progress: float | None


@dataclass(frozen=True)
class Show(Message["SessionActor", SessionView]):
    """The session as it is now."""


@dataclass(frozen=True)
class Advance(Message["SessionActor", SessionView]):
    """Take the step that the session is at; answered with the next one, when it is on disk.

    Refused with what the inputs or the hardware are to blame for; SessionBusy;
    SessionAborted or StepInterrupted meanwhile. A finished session stays as it is.
    """

    inputs: Mapping[str, object]


@dataclass(frozen=True)
class Abort(Message["SessionActor", SessionView]):
    """End the session; what it had on is off at once. A finished one stays as it is."""


SessionMessage = Show | Advance | Abort
FindProtocol = Callable[[SessionRow], type[CalibrationProtocol]]
"""The protocol of a session; Conflict: it is gone."""


def no_session(session_id: str) -> NotFound:
    """The refusal of an id that no session has."""
    return NotFound(
        f"there is no calibration session {session_id[:80]!r}",
        remediation="Start a new one; finished and abandoned ones expire.",
    )


@dataclass(frozen=True)
class _Taking:
    """A step that is being taken."""

    bench: SessionBench
    over: asyncio.Future[None]


class SessionActor(Actor[SessionMessage]):
    """One session, from the disk until nobody has asked for it for a while."""

    def __init__(
        self,
        session_id: str,
        *,
        workshop: Workshop,
        find_protocol: FindProtocol,
        facts: Callable[[], Facts],
    ) -> None:
        super().__init__(f"calibration session {session_id}")
        self._session_id = session_id
        self._workshop = workshop
        self._find_protocol = find_protocol
        self._facts = facts
        self._session: SessionRow | None = None
        self._taking: _Taking | None = None
        self._aborting = False

    async def starting(self) -> None:
        self._session = await self._workshop.sessions.get(self._session_id)

    async def receive(self, message: SessionMessage) -> object:
        session = self._session
        if session is None:
            raise no_session(self._session_id)
        match message:
            case Show():
                return self._view(session)
            case Advance(inputs):
                return self._advance(session, inputs)
            case Abort():
                if self._taking is not None:
                    self._taking.bench.life.end()  # before anything else
                return self.later(self._abort())
            case _:
                assert_never(message)

    def _view(self, session: SessionRow) -> SessionView:
        progress = None if self._taking is None else self._taking.bench.progress
        if session.status == "complete":
            return SessionView(session, complete_step(session), progress)
        if session.status != "in_progress":
            return SessionView(session, None, progress)
        protocol = self._find_protocol(session)
        try:
            return SessionView(session, render(protocol, session, self._facts()), progress)
        except PiodError:
            raise
        except Exception as error:  # a plugin's protocol may raise anything
            raise self._bug(session) from error

    # -- advancing ----------------------------------------------------------------

    def _advance(self, session: SessionRow, inputs: Mapping[str, object]) -> object:
        if session.status != "in_progress":
            return self._view(session)
        if self._aborting:
            raise SessionAborted(f"{self.name} is being aborted")
        if self._taking is not None:
            raise SessionBusy(f"{self.name} is taking the step {session.step_id} already")
        protocol = self._find_protocol(session)
        bench = SessionBench(self._workshop, session)
        self.life.at_end(bench.life.end)
        self._taking = _Taking(bench, asyncio.get_running_loop().create_future())
        return self.later(self._take(protocol, session, inputs, self._taking))

    async def _take(
        self,
        protocol: type[CalibrationProtocol],
        session: SessionRow,
        inputs: Mapping[str, object],
        taking: _Taking,
    ) -> SessionView:
        bench = taking.bench
        try:
            after = await self._stepped(protocol, session, inputs, bench)
            if self._aborting and after.status == "in_progress":
                raise SessionAborted(f"{self.name} was aborted at the step {session.step_id}")
            view = replace(self._view(after), progress=None)
            await self._workshop.sessions.put(after)
            self._session = after
            log.info("%s goes on from %s to %s", self.name, session.step_id, after.step_id)
            return view
        except PiodError as refusal:
            # what it has begun to write is known from now on, whatever became of the step
            self._session = replace(session, saves=bench.saves)
            if self._aborting and not isinstance(refusal, SessionAborted):
                raise SessionAborted(
                    f"{self.name} was aborted while its step {session.step_id} ran"
                ) from refusal
            raise
        finally:
            bench.life.end()
            self._taking = None
            taking.over.set_result(None)

    async def _stepped(
        self,
        protocol: type[CalibrationProtocol],
        session: SessionRow,
        inputs: Mapping[str, object],
        bench: SessionBench,
    ) -> SessionRow:
        try:
            after = await advance(protocol, session, inputs, bench, self._facts())
            return replace(after, saves=bench.saves)
        except PiodError:
            raise
        except Exception as error:  # a plugin's protocol may raise anything
            raise self._bug(session) from error

    def _bug(self, session: SessionRow) -> StepFailed:
        log.exception("the protocol %s has a bug", session.protocol_name)
        return StepFailed(
            f"the step {session.step_id} of {session.protocol_name} failed by a bug in the protocol"
        )

    # -- aborting -----------------------------------------------------------------

    async def _abort(self) -> SessionView:
        self._aborting = True
        try:
            if self._taking is not None:
                await asyncio.wait({self._taking.over})
            session = self._session
            if session is None or session.status != "in_progress":
                # the step that was being taken was the last, and is on disk
                assert session is not None  # it was there when the message came
                return self._view(session)
            now = timestamp(self._facts().now_unix_s)
            aborted = replace(session, status="aborted", error=ABORTED, updated_at=now)
            await self._workshop.sessions.put(aborted)
            self._session = aborted
            log.info("%s was aborted at %s", self.name, session.step_id)
            return self._view(aborted)
        finally:
            self._aborting = False
