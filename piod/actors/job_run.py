"""One run of a job, from its acceptance to its end, and how it ends.

Used by :mod:`.jobs` alone. When a job has ended, for whatever reason, its outputs are
confirmed to be off before its row says so; where they are not, the row says that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from piod.actors.actor import ActorGone, AskTimeout, Ref
from piod.actors.buses.bus import AllReleased, OutputBus
from piod.actors.hub import Hub
from piod.actors.job import JobActor, JobRecord, Publisher, State
from piod.actors.resume import title
from piod.actors.supervisor import Child
from piod.clock import Clock, timestamp
from piod.errors import Conflict, PiodError
from piod.events import JobEnded
from piod.storage.ledger import Ledger

log = logging.getLogger(__name__)

OFF_TIMEOUT_S = 2.0
"""Wall time in which the outputs of an ended job are expected to be confirmed off."""
NOT_CONFIRMED = "its outputs are not confirmed to be off; piod keeps trying"


class JobRun:
    """A job of this unit. ``child`` is its actor over all restarts; None: not begun.

    ``ready`` becomes its id, or the reason why it is not ready; ``ended`` is done when
    nothing of it is left to do.
    """

    def __init__(self, record: JobRecord) -> None:
        self.record = record
        self.child: Child[object] | None = None
        self.stop_reason: str | None = None
        self.stopping = False
        self.confirmed_off = True
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[str] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    @property
    def ref(self) -> Ref[JobActor]:
        if self.child is None:
            return Ref(title(self.record.row))
        return self.child.ref  # type: ignore[return-value] # its factory makes JobActors

    def close(self, why_not_ready: PiodError) -> None:
        """Nothing is left to do: whoever waits for it goes on."""
        if not self.ready.done():
            self.ready.set_exception(why_not_ready)
            self.ready.exception()  # the asker may be gone
        self.ended.set_result(None)


class Endings:
    """Tells the ends of jobs: their rows in the ledger, their events, the log."""

    def __init__(
        self, *, outputs: Sequence[Ref[OutputBus]], ledger: Ledger, hub: Hub, clock: Clock
    ) -> None:
        self._outputs = tuple(outputs)
        self._ledger = ledger
        self._hub = hub
        self._clock = clock

    async def tell(
        self, job: JobRun, publisher: Publisher, error: BaseException | None
    ) -> PiodError:
        """``job`` runs no more; ``error`` is what it died of. Why it will not be ready any more.

        Waits OFF_TIMEOUT_S at most for its outputs. What the ledger refuses is logged.
        """
        record = job.record
        about = {"job": record.identity}
        if job.child is not None:
            job.confirmed_off = await self._await_off(job.child.ref.name)
        failed = error is not None and not job.stopping
        reason = reason_of(error) if error is not None and failed else job.stop_reason
        if not job.confirmed_off:
            reason = f"{reason}; {NOT_CONFIRMED}" if reason else NOT_CONFIRMED
        state: State = "lost" if failed else "disconnected"
        publisher.take_back()
        publisher.state(state)
        at = self._clock.time()
        row = replace(record.row, ended_at=timestamp(at), state=state, reason=reason)
        try:
            await self._ledger.end_job(row.job_id, timestamp(at), state, reason)
        except PiodError as refusal:
            log.error(
                "the end of job %s could not be kept: %s", row.job_id, refusal.message, extra=about
            )
        record.row = row
        self._hub.publish(JobEnded(record.identity, state, reason, at))
        log.info("%s has ended%s", title(row), f": {reason}" if reason else "", extra=about)
        if isinstance(error, PiodError) and failed:
            return error
        return Conflict(f"{title(row)} {reason or 'was stopped'} before it was ready")

    async def _await_off(self, owner: str) -> bool:
        """Whether the outputs of ``owner`` are confirmed to be off; waits a little."""
        until = time.monotonic() + OFF_TIMEOUT_S
        while (left_s := until - time.monotonic()) > 0:
            try:
                for bus in self._outputs:
                    await bus.ask(AllReleased(owner), timeout=left_s)
            except ActorGone:
                await asyncio.sleep(0.05)  # its bus starts anew, and turns everything off first
            except AskTimeout:
                break
            else:
                return True
        log.critical("the outputs of %s are not confirmed to be off; the bus tries on", owner)
        return False


def reason_of(error: BaseException) -> str:
    """What ended a job, as its row says it."""
    if isinstance(error, PiodError):
        return error.message
    return f"crashed: {type(error).__name__}: {error}"
