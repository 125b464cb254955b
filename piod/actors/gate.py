"""What keeps new jobs out for a while: the unit goes down, or its files are exchanged.

The message :class:`Hold` is one of :class:`piod.actors.jobs.Jobs`. A hold is tied to
a :class:`~piod.actors.actor.Life`, as a lease is: it ends, without another message,
when that life does, and so cannot outlive what it was for.
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

    def hold(self, hold: Hold) -> None:
        """Closed until the life of ``hold`` ends."""
        self._holds[hold.life] = hold.reason
        hold.life.at_end(partial(self._open, hold.life))

    def _open(self, life: Life) -> None:
        self._holds.pop(life, None)

    def refuse_if_held(self, job_name: str) -> None:
        """Raises Conflict with the reason while a hold stands."""
        for reason in self._holds.values():
            raise Conflict(
                f"{job_name} does not start now: {reason}",
                remediation="Run it again when that is over. Jobs can be stopped all the while.",
            )
