"""What keeps new jobs out for a while: the unit goes down, or its files are exchanged.

The messages :class:`Hold` and :class:`Admit` are of :class:`piod.actors.jobs.Jobs`. A hold
is tied to a :class:`~piod.actors.actor.Life`, as a lease is: it ends, without another
message, when that life does, and so cannot outlive what it was for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from piod.actors.actor import Life, Message, Ref
from piod.errors import Conflict

if TYPE_CHECKING:
    from piod.actors.jobs import Jobs

HOLD_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Hold(Message["Jobs", None]):
    """Start no job until ``life`` ends: each is refused (Conflict) with ``reason``.

    ``reason`` ends a sentence, such as "the unit is about to reboot". Jobs that run,
    and stops, are left alone. Several holds may stand beside each other.
    """

    reason: str
    life: Life


@dataclass(frozen=True)
class Admit(Message["Jobs", None]):
    """Let something beside the jobs drive hardware: a calibration session, while it measures.

    Refused while a hold stands (Conflict). ``life`` is ended when all jobs are stopped, so
    that an emergency stop meets it, too. ``what`` begins a sentence.
    """

    what: str
    life: Life


@asynccontextmanager
async def no_new_jobs(jobs: Ref[Jobs], reason: str) -> AsyncIterator[None]:
    """While the context lasts, ``jobs`` starts none, as :class:`Hold` says."""
    life = Life(reason)
    try:
        await jobs.ask(Hold(reason, life), timeout=HOLD_TIMEOUT_S)
        yield
    finally:
        life.end()


class Gate:
    """Open unless it is held."""

    def __init__(self) -> None:
        self._holds: dict[Life, str] = {}
        self._admitted: set[Life] = set()

    def hold(self, hold: Hold) -> None:
        """Closed until the life of ``hold`` ends."""
        self._holds[hold.life] = hold.reason
        hold.life.at_end(partial(self._open, hold.life))

    def admit(self, admit: Admit) -> None:
        """Note ``admit.life``, unless a hold stands."""
        self.refuse_if_held(admit.what)
        self._admitted.add(admit.life)
        admit.life.at_end(partial(self._admitted.discard, admit.life))

    def end_admitted(self) -> None:
        """End the lives that were admitted: their outputs are off at once."""
        for life in tuple(self._admitted):
            life.end()

    def _open(self, life: Life) -> None:
        self._holds.pop(life, None)

    def refuse_if_held(self, job_name: str) -> None:
        """Raises Conflict with the reason while a hold stands."""
        for reason in self._holds.values():
            raise Conflict(
                f"{job_name} does not start now: {reason}",
                remediation="Run it again when that is over. Jobs can be stopped all the while.",
            )
