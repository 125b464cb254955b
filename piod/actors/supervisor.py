"""Supervision: a crashed child is made anew, a bounded number of times.

A child is restarted from its factory, never from the same object, one for one.
Restarts wait out an exponential back-off; more than ``max_restarts`` within
``within_s`` and the child is visibly ``failed``. Stopping all children goes in
the reverse order of their start, each within a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from piod.actors.actor import Actor, Ref
from piod.clock import Clock
from piod.errors import PiodError
from piod.restarts import RestartPolicy

log = logging.getLogger(__name__)

A = TypeVar("A")
M = TypeVar("M")

ChildState = Literal["running", "restarting", "ended", "failed", "stopped"]


class Child(Generic[A]):
    """One supervised actor over all its lives."""

    def __init__(self, name: str) -> None:
        self.ref: Ref[A] = Ref(name)
        self.state: ChildState = "running"
        self.restarts = 0
        self.error: BaseException | None = None
        """What the last life died of."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when no further life will follow."""
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        """A stop has been asked for. The cancellation alone is not enough: before
        Python 3.13 a task group that fails while it is cancelled swallows it."""


class Supervisor:
    """Starts, restarts and stops children."""

    def __init__(self, clock: Clock, *, stop_timeout_s: float = 2.0) -> None:
        self._clock = clock
        self._stop_timeout_s = stop_timeout_s
        self._children: list[Child[object]] = []

    def start(
        self,
        name: str,
        factory: Callable[[], Actor[M]],
        policy: RestartPolicy,
        *,
        may_restart: Callable[[], bool] = lambda: True,
        on_change: Callable[[Child[object]], None] = lambda child: None,
    ) -> Child[object]:
        """Start a child. ``factory`` makes each of its lives.

        ``may_restart`` can veto a restart after a crash; ``on_change`` is told of
        each change of the child's state.
        """
        child: Child[object] = Child(name)
        self._children.append(child)
        child._task = asyncio.create_task(
            self._watch(child, factory, policy, may_restart, on_change), name=name
        )
        child._task.add_done_callback(lambda task: self._settle(child, task))
        return child

    async def stop(self, child: Child[object]) -> None:
        """End a child; returns when it has ended, or has been given up on (logged)."""
        task = child._task
        if task is None or task.done():
            return
        child._stopping = True
        task.cancel()
        _, pending = await asyncio.wait({task}, timeout=self._stop_timeout_s)
        if pending:
            log.error(
                "%s did not end within %g s and was abandoned", child.ref.name, self._stop_timeout_s
            )
            child.state = "stopped"
            self._forget(child)

    async def stop_all(self) -> None:
        """End all children, the last started first."""
        for child in reversed(self._children.copy()):
            await self.stop(child)

    async def _watch(
        self,
        child: Child[object],
        factory: Callable[[], Actor[M]],
        policy: RestartPolicy,
        may_restart: Callable[[], bool],
        on_change: Callable[[Child[object]], None],
    ) -> None:
        crashes: deque[float] = deque()

        def change(state: ChildState) -> None:
            child.state = state
            on_change(child)

        try:
            while True:
                try:
                    await factory().live(child.ref)
                    change("ended")
                    return
                except Exception as error:  # a crash: what supervision is for
                    child.error = root_cause(error)
                    if isinstance(child.error, PiodError):  # it says all there is to say
                        log.error("%s failed: %s", child.ref.name, child.error.message)
                    else:
                        log.error("%s crashed", child.ref.name, exc_info=child.error)
                if child._stopping:
                    change("stopped")
                    return
                now = self._clock.monotonic()
                crashes.append(now)
                while now - crashes[0] > policy.within_s:
                    crashes.popleft()
                exhausted = policy.max_restarts is not None and len(crashes) > policy.max_restarts
                if exhausted or not may_restart():
                    change("failed")
                    return
                pause = policy.pause_before(len(crashes))
                log.warning("%s is restarted in %g s", child.ref.name, pause)
                change("restarting")
                await self._clock.sleep(pause)
                child.restarts += 1
                change("running")
        except asyncio.CancelledError:
            change("stopped")
            raise

    def _settle(self, child: Child[object], task: asyncio.Task[None]) -> None:
        if task.cancelled():
            child.state = "stopped"
        elif (error := task.exception()) is not None:
            child.state, child.error = "failed", error
            log.error("the supervision of %s failed", child.ref.name, exc_info=error)
        self._forget(child)

    def _forget(self, child: Child[object]) -> None:
        if child in self._children:
            self._children.remove(child)
        if not child.ended.done():
            child.ended.set_result(None)


def root_cause(error: BaseException) -> BaseException:
    """The first real error inside (nested) exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
