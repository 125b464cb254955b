"""The thread in which one bus does its blocking calls, and keeps its deadlines.

Work comes through :meth:`BusThread.run` (from the event loop, with an answer)
or :meth:`BusThread.post` (from anywhere, without) and is done one by one, in
order. Within the thread, work may set timers (:meth:`~BusThread.at`) and watch
files (:meth:`~BusThread.watch`). Due timers go before queued work, and none of
it depends on the event loop: a blocked loop blocks no deadline.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import TypeVar

from piod.errors import BusError

log = logging.getLogger(__name__)

MAX_WAIT_S = 3600.0
"""A later timer is looked at again then: poll takes 24 days at most, and fails above."""

T = TypeVar("T")
Work = Callable[[], None]


class BusThread:
    """Started when it is made; ``name`` is what its errors call the bus."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._queue: deque[Work] = deque()
        self._timers: dict[Hashable, tuple[float, Work]] = {}
        self._watched: dict[int, Work] = {}
        self._poller = select.poll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poller.register(self._wake_fd, select.POLLIN)
        self._lock = threading.Lock()  # of the queue and of whether it is open
        self._open = True
        self._stopping = False
        # A daemon thread: a process that forgets to close must still be able to end.
        self._thread = threading.Thread(target=self._main, name=f"piod-{name}", daemon=True)
        self._thread.start()

    # -- from other threads -----------------------------------------------------

    async def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the thread and return what it returns, or raise what it raises.

        Work that is queued is done even if its caller is cancelled meanwhile.
        Raises BusError when the thread has been stopped.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def do() -> None:
            try:
                result = work()
            except Exception as error:  # whatever it is, it belongs to the caller
                tell(loop, partial(fail, answer, error))
            else:
                tell(loop, partial(resolve, answer, result))

        if not self.post(do):
            raise BusError(f"The {self.name} bus is closed.")
        return await answer

    def post(self, work: Work, *, first: bool = False) -> bool:
        """Queue ``work``, at its head if ``first``; False when the thread has been stopped."""
        with self._lock:
            if not self._open:
                return False
            if first:
                self._queue.appendleft(work)
            else:
                self._queue.append(work)
            os.eventfd_write(self._wake_fd, 1)
        return True

    async def stop(self) -> None:
        """Let the queued work finish, then end the thread. Timers are forgotten."""
        if self._open:
            await self.run(self._stop)
        self._thread.join()

    # -- within the thread --------------------------------------------------------

    def at(self, key: Hashable, when_s: float, work: Work) -> None:
        """Do ``work`` when ``time.monotonic()`` reaches ``when_s``; one timer per key."""
        self._timers[key] = (when_s, work)

    def cancel(self, key: Hashable) -> None:
        """Forget the timer of ``key``, if there is one."""
        self._timers.pop(key, None)

    def watch(self, fd: int, work: Work) -> None:
        """Do ``work`` whenever ``fd`` is readable; it must read."""
        self._watched[fd] = work
        self._poller.register(fd, select.POLLIN | select.POLLPRI)

    def unwatch(self, fd: int) -> None:
        """Stop watching ``fd``, if it is watched."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def _stop(self) -> None:
        with self._lock:
            self._open = False
        self._stopping = True

    def _main(self) -> None:
        while not (self._stopping and not self._queue):
            self._do_due_timers()
            with self._lock:
                work = self._queue.popleft() if self._queue else None
            if work is not None:
                self._do(work)
            else:
                self._wait()
        os.close(self._wake_fd)

    def _do_due_timers(self) -> None:
        if not self._timers:
            return
        now = time.monotonic()
        for key, (when_s, work) in list(self._timers.items()):
            if when_s <= now and self._timers.get(key) == (when_s, work):
                del self._timers[key]
                self._do(work)

    def _wait(self) -> None:
        timeout_ms = None
        if self._timers:
            due = min(when_s for when_s, _ in self._timers.values())
            wait_s = min(due - time.monotonic(), MAX_WAIT_S)
            timeout_ms = max(0, math.ceil(wait_s * 1000))
        for fd, _ in self._poller.poll(timeout_ms):
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif (work := self._watched.get(fd)) is not None:
                self._do(work)

    def _do(self, work: Work) -> None:
        try:
            work()
        except Exception:
            # A bug in one piece of work must not take with it the thread that
            # keeps the deadlines of all other outputs.
            log.exception("The thread of the %s bus goes on after a bug.", self.name)


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call back on the event loop, from any thread; a closed loop hears nothing."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        log.debug("The event loop was closed before it got an answer.")


def resolve(answer: asyncio.Future[T], result: T) -> None:
    """Give ``answer`` its result, unless nobody waits for it any more."""
    if not answer.done():
        answer.set_result(result)


def fail(answer: asyncio.Future[T], error: Exception) -> None:
    """Give ``answer`` its error, unless nobody waits for it any more."""
    if not answer.done():
        answer.set_exception(error)
