"""The calibration sessions of the unit: starting, finding, forgetting them.

Messages of :class:`CalibrationSessions`: :class:`StartSession`, :class:`ShowSession`,
:class:`AdvanceSession`, :class:`AbortSession`, :class:`ListSessions`.

A session is on disk. It has an actor (:mod:`piod.actors.session`) from the first message for it
until it has been left alone for a while. At most MAX_IN_PROGRESS are neither finished nor
aborted. Those that nobody touches any more are forgotten: finished ones after ``[piod]
keep_finished_sessions_days`` (30), the others after ``keep_abandoned_sessions_days`` (7); and not
before piod has seen for a day that they are so old. For the clock of a unit may leap by weeks when
it is set after a boot, and a session that somebody is at must not be gone then.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar, assert_never, cast

from piod.actors.actor import Actor, Message, Ref
from piod.actors.session import (
    Abort,
    Advance,
    SessionActor,
    SessionView,
    Show,
    bugs_refused,
    no_session,
    page_of,
)
from piod.actors.session_bench import Workshop
from piod.actors.supervisor import Child, Supervisor
from piod.calibrations.protocols.engine import begin
from piod.calibrations.protocols.listing import find_protocol
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.turn import Facts
from piod.clock import Clock, timestamp
from piod.errors import BadRequest, Conflict, PiodError
from piod.restarts import NEVER
from piod.storage.sessions import SessionRow, as_kept

log = logging.getLogger(__name__)

T = TypeVar("T")

ADVANCE_TIMEOUT_S = 300.0
"""For so long leaders wait for a step."""
ASK_TIMEOUT_S = 25.0
"""And so long, or a little longer, for all else."""
IDLE_S = 600.0
"""Wall time after which a session that nobody asks for has no actor any more."""
MAX_IN_PROGRESS = 200
"""Sessions that may be open at once; each is a person's work of an hour."""
DAY_S = 86_400.0
GRACE_S = DAY_S
"""Wall time for which a session is seen to be too old before it is forgotten."""


@dataclass(frozen=True)
class StartSession(Message["CalibrationSessions", SessionView]):
    """Begin a session; answered when it is on disk. BadRequest, with why, when it cannot be."""

    protocol_name: str
    target_device: str


@dataclass(frozen=True)
class ShowSession(Message["CalibrationSessions", SessionView]):
    """The session of that id; NotFound."""

    session_id: str


@dataclass(frozen=True)
class AdvanceSession(Message["CalibrationSessions", SessionView]):
    """See :class:`piod.actors.session.Advance`; NotFound."""

    session_id: str
    inputs: Mapping[str, object]


@dataclass(frozen=True)
class AbortSession(Message["CalibrationSessions", SessionView]):
    """See :class:`piod.actors.session.Abort`; NotFound."""

    session_id: str


@dataclass(frozen=True)
class ListSessions(Message["CalibrationSessions", list[SessionRow]]):
    """All that are kept, the one that was touched last first."""


SessionsMessage = StartSession | ShowSession | AdvanceSession | AbortSession | ListSessions


@dataclass
class _Open:
    """A session with an actor."""

    child: Child[object]
    asks: int = 0
    used_s: float = 0.0

    @property
    def ref(self) -> Ref[SessionActor]:
        return cast("Ref[SessionActor]", self.child.ref)  # its factory makes those


class CalibrationSessions(Actor[SessionsMessage]):
    """Knows every session. ``protocols`` are those that there are at the moment."""

    def __init__(
        self,
        *,
        protocols: Iterable[type[CalibrationProtocol]],
        workshop: Workshop,
        facts: Callable[[], Facts],
        clock: Clock,
    ) -> None:
        super().__init__("calibration sessions")
        self._protocols = protocols
        self._workshop = workshop
        self._facts = facts
        self._supervisor = Supervisor(clock)
        self._open: dict[str, _Open] = {}
        self._starting = asyncio.Lock()
        self._expired_since_s: dict[str, float] = {}
        """By session id, on the monotonic clock of this process, which does not leap."""

    async def starting(self) -> None:
        self.spawn(self._tidy())

    async def ended(self) -> None:
        await self._supervisor.stop_all()

    async def receive(self, message: SessionsMessage) -> object:
        match message:
            case StartSession(protocol_name, target_device):
                return self.later(self._start(protocol_name, target_device))
            case ShowSession(session_id):
                return self.later(self._ask(session_id, Show()))
            case AdvanceSession(session_id, inputs):
                return self.later(self._ask(session_id, Advance(inputs), ADVANCE_TIMEOUT_S))
            case AbortSession(session_id):
                return self.later(self._ask(session_id, Abort()))
            case ListSessions():
                return self.later(self._workshop.sessions.all())
            case _:
                assert_never(message)

    async def _start(self, protocol_name: str, device: str) -> SessionView:
        facts = self._facts()
        protocol = find_protocol(self._protocols, protocol_name, device, facts.config)
        with bugs_refused(f"the start of {protocol.name}"):
            begun = begin(protocol, device, str(uuid.uuid4()), facts)
            session = as_kept(replace(begun, protocol_name=protocol_name))  # or its alias
        page = page_of(protocol, session, facts)
        async with self._starting:
            open_ids = await self._workshop.sessions.ids_in_progress()
            if len(open_ids) >= MAX_IN_PROGRESS:
                raise Conflict(
                    f"{MAX_IN_PROGRESS} calibration sessions are in progress already",
                    remediation=f"Finish or abort some; {open_ids[0]} has been left alone for "
                    "longest. Abandoned ones go by themselves after some days.",
                )
            await self._workshop.sessions.put(session)
        log.info(
            "calibration session %s begins: %s of %s", session.session_id, protocol.name, device
        )
        return SessionView(session, page, progress=None)

    async def _ask(
        self, session_id: str, message: Message[SessionActor, T], timeout_s: float = ASK_TIMEOUT_S
    ) -> T:
        if session_id not in self._open and await self._workshop.sessions.get(session_id) is None:
            raise no_session(session_id)
        one = self._opened(session_id)
        one.asks += 1
        try:
            if not one.ref.alive:
                await asyncio.sleep(0)  # let its actor open its mailbox
            return await one.ref.ask(message, timeout=timeout_s)
        finally:
            one.asks -= 1
            one.used_s = time.monotonic()

    def _opened(self, session_id: str) -> _Open:
        one = self._open.get(session_id)
        if one is None or one.child.ended.done():
            child = self._supervisor.start(
                f"calibration session {session_id[:80]}",
                lambda: SessionActor(
                    session_id,
                    workshop=self._workshop,
                    find_protocol=self._protocol_of,
                    facts=self._facts,
                ),
                NEVER,
            )
            one = self._open[session_id] = _Open(child)
        return one

    def _protocol_of(self, session: SessionRow) -> type[CalibrationProtocol]:
        name, device = session.protocol_name, session.target_device
        try:
            return find_protocol(self._protocols, name, device, self._facts().config)
        except BadRequest as refusal:
            raise Conflict(
                f"the protocol {name} for {device}, which this session follows, is not there any "
                f"more: {refusal.message}",
                cause=refusal.message,
                remediation="Bring back its plugin or its photodiode, or abort the session.",
            ) from refusal

    # -- forgetting ---------------------------------------------------------------

    async def _tidy(self) -> None:
        while True:
            try:
                await self._forget_expired()
            except PiodError as refusal:
                log.error("old calibration sessions could not be forgotten: %s", refusal.message)
            await asyncio.sleep(IDLE_S)  # wall time: this is about persons
            await self._close_idle(time.monotonic() - IDLE_S)

    async def _forget_expired(self) -> None:
        facts = self._facts()
        finished_days, abandoned_days = (
            facts.config.number("piod", f"keep_{kind}_sessions_days", days, minimum=0.01)
            for kind, days in (("finished", 30.0), ("abandoned", 7.0))
        )
        expired = await self._workshop.sessions.expired(
            timestamp(facts.now_unix_s - finished_days * DAY_S),
            timestamp(facts.now_unix_s - abandoned_days * DAY_S),
        )
        now_s, before = time.monotonic(), self._expired_since_s
        self._expired_since_s = {
            row.session_id: before.get(row.session_id, now_s) for row in expired
        }
        due = [
            row
            for row in expired
            # one with an actor was asked for just now
            if row.session_id not in self._open
            and now_s - self._expired_since_s[row.session_id] >= GRACE_S
        ]
        if due:
            await self._workshop.sessions.forget(due)
            log.info("%d old calibration sessions were forgotten", len(due))

    async def _close_idle(self, used_before_s: float) -> None:
        idle = [
            session_id
            for session_id, one in self._open.items()
            if one.child.ended.done() or (not one.asks and one.used_s < used_before_s)
        ]
        for session_id in idle:
            # let go first: who asks from now on gets a new actor, and this one is at rest
            await self._supervisor.stop(self._open.pop(session_id).child)
