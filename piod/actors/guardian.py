"""The guardian: the daemon's side of the guard process (:mod:`piod.hw.guard`).

It beats from the event loop, so that a hung loop is noticed; it starts the guard
anew when it dies; and when the guard has turned outputs off it ends every lease,
so that no job goes on believing that its output is on. ``others`` are the buses beside pwm.

Message: :class:`GuardState`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

from piod.actors.actor import Actor, Message, Ref
from piod.actors.buses.bus import ASK_TIMEOUT_S, OutputBus, RevokeAll
from piod.actors.buses.pwm import PwmBus, Revoke
from piod.errors import PiodError
from piod.hw.guard import BEAT_EVERY_S, GuardLink

log = logging.getLogger(__name__)

RESTART_PAUSE_S = (0.05, 5.0)
"""First and longest pause before a dead guard is started anew, wall time."""

MAX_UNANSWERED = 6
"""Beats without an answer after which a guard counts as hung."""


@dataclass(frozen=True)
class GuardReport:
    """How the guard is doing."""

    alive: bool
    restarts: int


@dataclass(frozen=True)
class GuardState(Message["Guardian", GuardReport]):
    """Whether the guard lives, and how often it had to be started anew."""


class Guardian(Actor[GuardState]):
    """Keeps the guard alive and listens to it. ``keep_fds`` go to a new guard, too."""

    def __init__(
        self,
        link: GuardLink,
        pwm: Ref[PwmBus],
        keep_fds: Sequence[int],
        others: Sequence[Ref[OutputBus]] = (),
    ) -> None:
        super().__init__("guardian")
        self._link = link
        self._pwm = pwm
        self._others = tuple(others)
        self._keep_fds = keep_fds
        self._restarts = 0
        self._pause = RESTART_PAUSE_S[0]
        self._readable = asyncio.Event()

    async def starting(self) -> None:
        self.spawn(self._beat())
        self.spawn(self._listen())

    async def receive(self, message: GuardState) -> object:
        return GuardReport(self._link.alive, self._restarts)

    async def _beat(self) -> None:
        while True:
            self._link.beat()
            if self._link.unanswered_beats > MAX_UNANSWERED:
                log.error("the guard process does not answer; it is replaced")
                self._link.dismiss()
            await asyncio.sleep(BEAT_EVERY_S)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            watched = self._link.report_fd
            loop.add_reader(watched, self._readable.set)
            try:
                while self._link.alive:
                    await self._readable.wait()
                    self._readable.clear()
                    for report in self._link.read_reports():
                        await self._hear(report)
                    if self._link.unanswered_beats == 0:
                        self._pause = RESTART_PAUSE_S[0]
            finally:
                loop.remove_reader(watched)
            log.error("the guard process has died; it is started anew")
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, RESTART_PAUSE_S[1])
            try:
                self._link.restart(self._keep_fds)
            except OSError as error:
                log.critical("the guard process cannot be started: %s", error)
            else:
                self._restarts += 1

    async def _hear(self, report: str) -> None:
        what, _, rest = report.partition(" ")
        if what != "fired":
            log.critical("the guard could not turn an output off: %s", rest)
            return
        log.critical("the guard has turned outputs off (%s)", rest)
        why, _, output = rest.partition(" ")
        if why == "deadline" and output.startswith("pwm:"):
            message = Revoke("the guard turned it off, its time was over", int(output[4:]))
            await self._end_leases(self._pwm.ask(message, timeout=ASK_TIMEOUT_S))
            return
        all_off = RevokeAll("the daemon hung, and the guard turned every output off")
        for bus in (self._pwm, *self._others):
            await self._end_leases(bus.ask(all_off, timeout=ASK_TIMEOUT_S))

    async def _end_leases(self, asked: Coroutine[object, object, None]) -> None:
        try:
            await asked
        except PiodError as refusal:
            log.error("leases could not be ended: %s", refusal.message)
