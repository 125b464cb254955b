"""The machine's actor: power, clock, services, updates.

Messages of :class:`System`: :class:`CheckSystem`, :class:`CheckPower`,
:class:`Reboot`, :class:`PowerOff`, :class:`SetTime`, :class:`SynchroniseClock`,
:class:`UnitStates`, :class:`RestartUnits`, :class:`CheckUpdate`,
:class:`Update`, :class:`AwaitUpdate`.

Before the machine goes down, no job starts any more, every job is ended, every output
is off, and what is known is on disk. The ``Check…`` messages refuse what can be seen
to fail, or comes too soon, before anything is accepted.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, assert_never

from piod.actors.actor import Actor, Life, Message, Ref
from piod.actors.buses.bus import OutputBus, RevokeAll
from piod.actors.gate import Hold, no_new_jobs
from piod.actors.jobs import JobFilter, Jobs, Running, Stop
from piod.errors import Conflict, PiodError, TooManyRequests, Unavailable
from piod.storage.ledger import Ledger
from piod.system import SystemPort, UpdateFailed, UpdateRequest

log = logging.getLogger(__name__)

R = TypeVar("R")

POWER, UPDATE = "reboot or shutdown", "update"
UPDATING = "piod is being updated, which restarts it"
POWER_EVERY_S = 15.0
"""At most one reboot or shutdown is taken in this time (wall)."""
UPDATE_EVERY_S = 10.0
LEADER_DELAY_S = 5.0
"""A leader waits so long (wall) before it goes down: it passes the command on to others."""
GONE_WITHIN_S = 120.0
"""Wall time after which a machine that was to go down, and has not, takes jobs again."""

CALL_TIMEOUT_S = 30.0
RESTART_TIMEOUT_S = 120.0
SYNCHRONISE_TIMEOUT_S = 120.0
ASK_TIMEOUT_S = 5.0
END_JOBS_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 180.0
"""For asks of what ends or restarts something: more than all of the above together."""
UPDATE_TIMEOUT_S = 2 * 3600.0
"""For asks of an update, as above."""
HUNG_UPDATE_S = UPDATE_TIMEOUT_S - COMMAND_TIMEOUT_S
"""Wall time after which an update counts as hung."""
REST_OF_UPDATE_S = 900.0
"""Wall time for which a daemon that starts in the middle of an update lets no job start.

An update that works is over some seconds after it has restarted piod.
"""
RECOVER_AFTER_S, RECOVER_AFTER_AT_MOST_S = 10.0, 3600.0
"""Wall time between two tries to put right what was left half done."""


@dataclass(frozen=True)
class CheckSystem(Message["System", None]):
    """Refuse, with the reason, while the machine cannot be asked for anything."""


@dataclass(frozen=True)
class CheckPower(Message["System", None]):
    """Refuse a reboot or shutdown that cannot be, or comes too soon after another."""


@dataclass(frozen=True)
class Reboot(Message["System", None]):
    """End all jobs, turn every output off, reboot the machine."""


@dataclass(frozen=True)
class PowerOff(Message["System", None]):
    """End all jobs, turn every output off, shut the machine down."""


@dataclass(frozen=True)
class SetTime(Message["System", None]):
    """Make ``unix_s`` the time of now; ``ntp`` as in :class:`~piod.system.SystemPort`."""

    unix_s: float
    ntp: bool | None = None


@dataclass(frozen=True)
class SynchroniseClock(Message["System", None]):
    """Set the clock by a time server."""


@dataclass(frozen=True)
class UnitStates(Message["System", Mapping[str, str]]):
    """The states of systemd units, by name."""

    names: Sequence[str]


@dataclass(frozen=True)
class RestartUnits(Message["System", None]):
    """Restart systemd units."""

    names: Sequence[str]


@dataclass(frozen=True)
class CheckUpdate(Message["System", None]):
    """Refuse an update that cannot be, comes too soon, or, unless ``force``, meets a job."""

    force: bool


@dataclass(frozen=True)
class Update(Message["System", None]):
    """Update piod, as :class:`CheckUpdate` allows; no job starts meanwhile.

    Answered when it has succeeded, refused with the reason when it has failed.
    """

    request: UpdateRequest
    force: bool


@dataclass(frozen=True)
class AwaitUpdate(Message["System", None]):
    """As :class:`Update` is answered, for one that a daemon before this one has started.

    No job starts meanwhile, for REST_OF_UPDATE_S at most.
    """

    request_id: str


SystemMessage = (
    CheckSystem
    | CheckPower
    | Reboot
    | PowerOff
    | SetTime
    | SynchroniseClock
    | UnitStates
    | RestartUnits
    | CheckUpdate
    | Update
    | AwaitUpdate
)


class System(Actor[SystemMessage]):
    """Owns the connection to the machine. ``is_leader``: others go down by its word."""

    def __init__(
        self,
        port: SystemPort,
        *,
        is_leader: bool,
        jobs: Ref[Jobs],
        outputs: Sequence[Ref[OutputBus]],
        ledger: Ledger,
    ) -> None:
        super().__init__("system")
        self._port = port
        self._is_leader = is_leader
        self._jobs = jobs
        self._outputs = tuple(outputs)
        self._ledger = ledger
        self._begun_at: dict[str, float] = {}
        """Wall times of the last power action and the last update."""

    async def starting(self) -> None:
        self.spawn(self._recover())

    async def receive(self, message: SystemMessage) -> object:
        match message:
            case CheckSystem():
                return self.later(self._call("answer", self._port.check()))
            case CheckPower():
                return self.later(self._check_power())
            case Reboot():
                reboot = self._go_down("reboot", "the unit was rebooted", self._port.reboot)
                return self.later(reboot)
            case PowerOff():
                off = self._go_down("shut down", "the unit was shut down", self._port.power_off)
                return self.later(off)
            case SetTime(unix_s, ntp):
                return self.later(self._call("set the clock", self._port.set_time(unix_s, ntp)))
            case SynchroniseClock():
                work = self._port.synchronise_clock()
                return self.later(self._call("synchronise the clock", work, SYNCHRONISE_TIMEOUT_S))
            case UnitStates(names):
                return self.later(self._call("tell of its services", self._port.unit_states(names)))
            case RestartUnits(names):
                work = self._port.restart_units(names)
                return self.later(self._call("restart services", work, RESTART_TIMEOUT_S))
            case CheckUpdate(force):
                return self.later(self._check_update(force))
            case Update(request, force):
                return self.later(self._update(request, force))
            case AwaitUpdate(request_id):
                return self.later(self._rest_of_update(request_id))
            case _:
                assert_never(message)

    async def _call(
        self, what: str, work: Coroutine[object, object, R], timeout_s: float | None = None
    ) -> R:
        """One call of the machine, with a deadline: CALL_TIMEOUT_S, unless another is given."""
        timeout_s = timeout_s or CALL_TIMEOUT_S
        try:
            async with asyncio.timeout(timeout_s):
                return await work
        except TimeoutError:
            raise Unavailable(f"the machine did not {what} within {timeout_s:g} s") from None

    def _refuse_too_soon(self, what: str, every_s: float) -> None:
        wait_s = self._begun_at.get(what, -math.inf) + every_s - time.monotonic()
        if wait_s > 0:
            raise TooManyRequests(
                f"another {what} began less than {every_s:g} s ago",
                remediation=f"Wait {wait_s:.0f} s, then try again if it is still needed.",
            )

    async def _recover(self) -> None:
        wait_s = RECOVER_AFTER_S
        while True:
            try:
                return await self._call("put itself right", self._port.recover())
            except PiodError as refusal:
                log.error("the machine is left as it was, to be tried again: %s", refusal.message)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RECOVER_AFTER_AT_MOST_S)

    # -- power ------------------------------------------------------------------------

    async def _check_power(self) -> None:
        await self._call("answer", self._port.check())
        self._refuse_too_soon(POWER, POWER_EVERY_S)

    async def _go_down(
        self, what: str, reason: str, call: Callable[[], Coroutine[object, object, None]]
    ) -> None:
        """``what`` the unit is about to do; ``reason``, why the jobs ended."""
        self._begun_at[POWER] = time.monotonic()
        until_down = Life(f"about to {what}")
        self.life.at_end(until_down.end)
        try:
            hold = Hold(f"the unit is about to {what}", until_down)
            await self._try(self._jobs.ask(hold, timeout=ASK_TIMEOUT_S))
            if self._is_leader:
                await asyncio.sleep(LEADER_DELAY_S)
            log.warning("jobs end: %s", reason)
            await self._try(self._jobs.ask(Stop(JobFilter(), reason), timeout=END_JOBS_TIMEOUT_S))
            # whoever else holds an output: a machine that goes down leaves nothing on
            for bus in self._outputs:
                await self._try(bus.ask(RevokeAll(reason), timeout=ASK_TIMEOUT_S))
            await self._try(self._ledger.database.flush())
            await self._call("go down", call())
        except BaseException:  # whatever it was, the unit stays up, and may be used
            until_down.end()
            raise
        self.spawn(self._go_on_if_up(what, until_down))

    async def _go_on_if_up(self, what: str, until_down: Life) -> None:
        await asyncio.sleep(GONE_WITHIN_S)
        log.error(
            "the unit was to %s %g s ago and is still up: jobs start again", what, GONE_WITHIN_S
        )
        until_down.end()

    async def _try(self, work: Coroutine[object, object, object]) -> None:
        """One step of going down. If it fails, the next one matters all the more."""
        try:
            await work
        except PiodError as refusal:
            log.critical("the machine goes down all the same: %s", refusal.message)

    # -- updates ----------------------------------------------------------------------

    async def _check_update(self, force: bool) -> None:
        await self._call("answer", self._port.check())
        if not force:
            await self._refuse_while_jobs_run()
        self._refuse_too_soon(UPDATE, UPDATE_EVERY_S)

    async def _refuse_while_jobs_run(self) -> None:
        which = JobFilter(long_running=False)
        running = await self._jobs.ask(Running(which), timeout=ASK_TIMEOUT_S)
        if running:
            names = ", ".join(f"{view.row.job_name} (job {view.row.job_id})" for view in running)
            raise Conflict(
                f"an update would interrupt what is running: {names}",
                remediation="Stop these jobs first, or send the option force to update all "
                "the same.",
            )

    async def _update(self, request: UpdateRequest, force: bool) -> None:
        self._begun_at[UPDATE] = time.monotonic()
        async with no_new_jobs(self._jobs, UPDATING):
            if not force:  # one may have started since it was checked
                await self._refuse_while_jobs_run()
            await self._call("start an update", self._port.start_update(request))
            await self._await_update(request.request_id)

    async def _rest_of_update(self, request_id: str) -> None:
        until_over = Life("the rest of an update")
        self.life.at_end(until_over.end)
        opening = asyncio.get_running_loop().call_later(REST_OF_UPDATE_S, until_over.end)
        try:
            hold = Hold(UPDATING, until_over)
            await self._jobs.ask(hold, timeout=ASK_TIMEOUT_S)
        except PiodError as refusal:  # what becomes of the update is to be known all the same
            log.error("jobs may start in the middle of an update: %s", refusal.message)
        try:
            await self._await_update(request_id)
        finally:
            opening.cancel()
            until_over.end()

    async def _await_update(self, request_id: str) -> None:
        work = self._port.update_outcome(request_id)
        outcome = await self._call("finish the update", work, HUNG_UPDATE_S)
        if outcome is None:
            raise UpdateFailed(
                "piod ended before the update was started: nothing was changed",
                remediation="Send the command again.",
            )
        if not outcome.succeeded:
            raise UpdateFailed(f"the update failed: {outcome.message or 'it did not say why'}")
