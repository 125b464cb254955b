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
import reprlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import assert_never, cast

from piod.actors.actor import Actor, Message
from piod.actors.session_bench import SessionBench, Workshop
from piod.calibrations.protocols.engine import advance, complete_step, render
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.turn import Facts
from piod.clock import timestamp
from piod.errors import Conflict, NotFound, PiodError
from piod.events import JsonValue
from piod.storage.sessions import SessionRow, as_kept, json_value

log = logging.getLogger(__name__)

STEP_ENDS_WITHIN_S = 2.0
"""Wall time for a step that is stopped to end; then for one that is cancelled."""
ABORTED = "The calibration was aborted by the user."


class SessionBusy(Conflict):
    """The session is being advanced already."""

    default_remediation = "Wait until the step is over, or abort the session."


class SessionAborted(Conflict):
    """The session was aborted while its step ran."""

    default_remediation = "Start a new session."


class StepFailed(PiodError):
    """A bug in a protocol; the session is where it was."""

    default_remediation = "Tell the author of the protocol; its traceback is in the log."


@contextmanager
def bugs_refused(what: str) -> Iterator[None]:
    """A protocol's code runs inside: whatever a plugin's raises becomes StepFailed.

    Refusals pass. ``what`` begins a sentence: such as ``the step weigh of one_dose``.
    """
    try:
        yield
    except PiodError:
        raise
    except (Exception, asyncio.CancelledError) as error:  # a plugin's code may raise anything
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise  # that was no bug
        log.exception("%s has a bug", what)
        raise StepFailed(
            f"{what} failed by a bug in the protocol: {reprlib.repr(str(error))}",
            cause=type(error).__name__,
        ) from error


def page_of(
    protocol: type[CalibrationProtocol], session: SessionRow, facts: Facts
) -> Mapping[str, JsonValue] | None:
    """The step that ``session`` is at, as plain JSON; StepFailed, StepGone."""
    with bugs_refused(f"the page {session.step_id} of {session.protocol_name}"):
        page = json_value(render(protocol, session, facts))
        assert page is None or isinstance(page, dict)  # what render gives
        return page


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
    late: asyncio.Future[None]
    """Done: it was stopped, and should have ended by itself by now."""


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
        self._aborts = 0
        """Those that are not answered yet: no step is taken meanwhile."""

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
                # here, as the next message may be an advance
                self._aborts += 1
                if self._taking is not None:
                    self._taking.bench.life.end()
                return self.later(self._abort())
            case _:
                assert_never(message)

    def _view(self, session: SessionRow) -> SessionView:
        progress = None if self._taking is None else self._taking.bench.progress
        if session.status == "complete":
            return SessionView(session, complete_step(session), progress)
        if session.status != "in_progress":
            return SessionView(session, None, progress)
        page = page_of(self._find_protocol(session), session, self._facts())
        return SessionView(session, page, progress)

    # -- advancing ----------------------------------------------------------------

    def _advance(self, session: SessionRow, inputs: Mapping[str, object]) -> object:
        if session.status != "in_progress":
            return self._view(session)
        if self._aborts:
            raise SessionAborted(f"{self.name} is being aborted")
        if self._taking is not None:
            raise SessionBusy(f"{self.name} is taking the step {session.step_id} already")
        protocol = self._find_protocol(session)
        bench = SessionBench(self._workshop, session)
        self.life.at_end(bench.life.end)
        loop = asyncio.get_running_loop()
        self._taking = _Taking(bench, loop.create_future(), loop.create_future())
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
            after = await self._stepped(protocol, session, inputs, taking)
            if self._aborts and after.status == "in_progress":
                raise SessionAborted(f"{self.name} was aborted at the step {session.step_id}")
            view = replace(self._view(after), progress=None)
            await self._workshop.sessions.put(after)
            self._session = after
            log.info("%s goes on from %s to %s", self.name, session.step_id, after.step_id)
            return view
        except PiodError as refusal:
            # what it has begun to write is known from now on, whatever became of the step
            self._session = replace(session, saves=bench.saves)
            if self._aborts and not isinstance(refusal, SessionAborted):
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
        taking: _Taking,
    ) -> SessionRow:
        """The session after the step; its task is its own, as a plugin's may never end."""
        what = f"the step {session.step_id} of {session.protocol_name}"

        async def step() -> SessionRow:
            with bugs_refused(what):
                after = await advance(protocol, session, inputs, taking.bench, self._facts())
                return replace(as_kept(after), saves=taking.bench.saves)

        work = asyncio.create_task(step(), name=f"{self.name}: {what}")
        work.add_done_callback(_seen)
        try:
            done = cast("asyncio.Future[None]", work)  # only to be waited for
            await asyncio.wait({done, taking.late}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work}, timeout=STEP_ENDS_WITHIN_S)
        except asyncio.CancelledError:  # this actor ends
            work.cancel()
            await asyncio.wait({work}, timeout=STEP_ENDS_WITHIN_S)
            raise
        if work.cancelled():
            if taking.late.done():
                raise SessionAborted(f"{self.name} was aborted, and {what} cancelled")
            raise StepFailed(f"{what} cancelled itself: that is a bug in the protocol")
        if work.done():
            return work.result()
        taking.bench.give_up()
        log.error("%s of %s does not end, not even cancelled: it is left alone", what, self.name)
        raise SessionAborted(f"{self.name} was aborted; {what} does not end and is left alone")

    # -- aborting -----------------------------------------------------------------

    async def _abort(self) -> SessionView:
        try:
            if self._taking is not None:
                await self._end_step(self._taking)
            session = self._session
            assert session is not None  # it was there when the message came
            if session.status != "in_progress":
                # the step that was being taken was the last, and is on disk
                return self._view(session)
            now = timestamp(self._facts().now_unix_s)
            aborted = replace(session, status="aborted", error=ABORTED, updated_at=now)
            await self._workshop.sessions.put(aborted)
            self._session = aborted
            log.info("%s was aborted at %s", self.name, session.step_id)
            return self._view(aborted)
        finally:
            self._aborts -= 1

    async def _end_step(self, taking: _Taking) -> None:
        """Returns when the step is over. Its hardware is off by then: its life has ended."""
        taking.bench.life.end()
        while not taking.over.done():
            await asyncio.wait({taking.over}, timeout=STEP_ENDS_WITHIN_S)
            if not taking.over.done() and not taking.bench.saving and not taking.late.done():
                taking.late.set_result(None)


def _seen(work: asyncio.Task[SessionRow]) -> None:
    """Nobody may wait for it any more; what it raised is in the log."""
    if not work.cancelled():
        work.exception()
