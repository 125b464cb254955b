"""The time that jobs, schedules and the simulated plant live by.

Two clocks share one interface:

- :class:`WallClock`: real time, for real hardware.
- :class:`SimulatedClock`: discrete time. It stands still while anything is
  runnable on the event loop or a thread owes an answer (:meth:`Clock.hold`),
  then steps to the next due timer. A scale limits its pace to that many
  simulated seconds per wall second; without a scale it runs as fast as the
  machine goes, which is the virtual clock of the tests. A machine that cannot
  keep up falls behind and says so (:attr:`SimulatedClock.factor`); no timer is
  ever skipped.

The simulated clock has to know when the loop is idle. :class:`SteppingEventLoop`
is asyncio's own selector loop whose selector asks the clock before it blocks.

Deadlines of asks, HTTP, disk, rate limits and watchdogs are wall time and do
not use this module.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

MAX_LAG_WALL_S = 1.0
"""How far a scaled clock may trail its pace before the lag is written off."""

MAX_STARVATION_WALL_S = 0.05
"""How long a busy event loop may keep a due timer waiting, at a limited pace."""

SETTLE_TURNS = 100
"""Turns of a busy event loop after a step, before a due timer is stepped to all the same.

What the last timers began, a reading of a sensor and what follows from it, is done by
then: its own deadlines must not come first.
"""


def timestamp(unix_s: float) -> str:
    """UTC, ISO 8601, milliseconds, ``Z``: ``2026-01-31T12:45:00.123Z``."""
    seconds, microseconds = divmod(round(unix_s * 1_000_000), 1_000_000)
    return f"{_whole_second(seconds)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=8)
def _whole_second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat()[:19]


class Timer(Protocol):
    """A call that is due at some time."""

    def cancel(self) -> None:
        """Do not call. Harmless when it has been called already."""
        ...


class Clock(Protocol):
    """Time in seconds; what every job is given."""

    def monotonic(self) -> float:
        """Seconds on a scale that never goes back."""
        ...

    def time(self) -> float:
        """Unix time, seconds (UTC)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; zero or less lets others run once."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back when :meth:`monotonic` reaches ``when``."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Keep simulated time standing while something outside the loop works."""
        ...


class WallClock:
    """Real time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        loop = asyncio.get_running_loop()
        return loop.call_later(max(0.0, when - time.monotonic()), callback)

    def hold(self) -> AbstractContextManager[None]:
        return nullcontext()


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


class _SimulatedTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class SimulatedClock:
    """Discrete time on a :class:`SteppingEventLoop`.

    ``scale``: simulated seconds per wall second at most; None: no limit.
    ``start_time``: the Unix time at which it starts. Made on a running loop;
    one clock per loop.
    """

    def __init__(self, scale: float | None = None, start_time: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, SteppingEventLoop):
            raise RuntimeError("a SimulatedClock needs a SteppingEventLoop")
        if scale is not None and not scale > 0:
            raise ValueError(f"time scale must be above 0, got {scale}")
        loop.selector.clock = self
        self.scale = scale
        self.offset_s = time.time() if start_time is None else start_time
        """Unix time at monotonic 0; a simulated machine may set its clock by it."""
        self._now = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _SimulatedTimer]] = []
        self._holds = 0
        self._turns = 0
        """Of the event loop, since the last step."""
        self._unlimited_until = 0.0
        self._anchor_now = 0.0
        self._anchor_wall = time.monotonic()
        self._factor_now = 0.0
        self._factor_wall = self._anchor_wall

    def monotonic(self) -> float:
        return self._now

    def time(self) -> float:
        return self.offset_s + self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._now + seconds, lambda: _finish(done))
        try:
            await done
        finally:
            timer.cancel()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        timer = _SimulatedTimer(callback)
        heapq.heappush(self._timers, (max(when, self._now), next(self._order), timer))
        return timer

    @contextmanager
    def hold(self) -> Iterator[None]:
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass as fast as the machine goes, whatever the scale."""
        self._unlimited_until = max(self._unlimited_until, self._now + seconds)
        await self.sleep(seconds)

    @property
    def factor(self) -> float:
        """Simulated seconds per wall second, since this was last read."""
        wall = time.monotonic()
        passed = wall - self._factor_wall
        factor = (self._now - self._factor_now) / passed if passed > 0 else 0.0
        self._factor_now, self._factor_wall = self._now, wall
        return factor

    # -- called by the selector -------------------------------------------------

    def idle(self, timeout: float | None) -> float | None:
        """Step to the next due timer, if it may be; how long the loop may block.

        ``timeout`` is how long it would block (None: for ever).
        """
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if self._holds:
            return timeout
        due = timers[0][0] if timers else None
        paced = self._paced()
        if due is not None and (paced is None or due <= paced):
            self._step_to(due)
            return 0.0
        if paced is None or self.scale is None:
            return timeout
        self._now = max(self._now, paced)
        if due is None:
            return timeout
        wait = (due - paced) / self.scale
        return wait if timeout is None else min(wait, timeout)

    def woke(self) -> None:
        """The loop was woken from outside: time has gone on meanwhile."""
        paced = None if self._holds else self._paced()
        if paced is not None:
            due = self._timers[0][0] if self._timers else paced
            self._now = max(self._now, min(paced, due))

    def busy(self) -> None:
        """The loop has something to do.

        One that never comes to rest must not starve the schedules: a timer that is
        overdue by more than MAX_STARVATION_WALL_S is stepped to all the same.
        """
        self._turns += 1
        if self.scale is None or self._holds or not self._timers or self._turns < SETTLE_TURNS:
            return
        paced, due = self._paced(), self._timers[0][0]
        if paced is not None and paced - due > MAX_STARVATION_WALL_S * self.scale:
            self._step_to(due)

    def _paced(self) -> float | None:
        """The latest instant that the pace allows now; None: no limit."""
        if self.scale is None:
            return None
        wall = time.monotonic()
        if self._now < self._unlimited_until:
            self._anchor_now, self._anchor_wall = self._now, wall
            if self._timers and self._timers[0][0] <= self._unlimited_until:
                return None
            return self._now
        paced = self._anchor_now + (wall - self._anchor_wall) * self.scale
        if paced - self._now > MAX_LAG_WALL_S * self.scale:
            self._anchor_now, self._anchor_wall = self._now, wall
            paced = self._now
        return paced

    def _step_to(self, due: float) -> None:
        self._now = max(self._now, due)
        self._turns = 0
        loop = asyncio.get_running_loop()
        timers = self._timers
        while timers and timers[0][0] <= due:
            callback = heapq.heappop(timers)[2].callback
            if callback is not None:
                loop.call_soon(callback)


class _ClockSelector(selectors.BaseSelector):
    """A selector that lets simulated time step before the loop would block."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.clock: SimulatedClock | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.clock is None:
            return self._selector.select(timeout)
        if timeout is not None and timeout <= 0:
            self.clock.busy()
            return self._selector.select(timeout)
        events = self._selector.select(0)
        if events:
            self.clock.woke()
            self.clock.busy()
            return events
        wait = self.clock.idle(timeout)
        if wait == 0.0:
            return []
        events = self._selector.select(wait)
        self.clock.woke()
        return events

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self.clock = None
        self._selector.close()


class SteppingEventLoop(asyncio.SelectorEventLoop):
    """asyncio's selector loop, able to carry a :class:`SimulatedClock`."""

    def __init__(self) -> None:
        self.selector = _ClockSelector()
        super().__init__(self.selector)
