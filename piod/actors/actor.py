"""The actor kernel: messages, refs, lives.

An actor owns something (a job, a bus, a session) and handles one message at a
time. Others hold its :class:`Ref` and talk to it with ``await ref.ask(...)``;
there is no other way to send. The kernel keeps these promises:

- a message names its target and its reply type; mypy checks both;
- every wait has a deadline, in wall time;
- an ask fails at once when its actor dies, is stopped, or is not there;
- an ask that expired in the queue is never handled;
- a refusal (:class:`piod.errors.PiodError`) goes to the asker and the actor
  lives on; anything else that escapes ends the actor, and its supervisor
  decides what follows;
- when an actor's end begins, its :class:`Life` ends before anything else
  happens: what was leased to it is turned off, then its children are cancelled.

Receiving stays short. Longer work is a child (:meth:`Actor.spawn`), and a reply
that takes time is a future (:meth:`Actor.later`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar, cast

from piod.errors import PiodError, Unavailable

log = logging.getLogger(__name__)

M = TypeVar("M")
A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
A_co = TypeVar("A_co", covariant=True)
A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)

MAILBOX_LIMIT = 1000
"""Asks that may wait for one actor; more are refused at once."""


class ActorGone(Unavailable):
    """The actor that was asked died, was stopped, or is not running."""


class AskTimeout(Unavailable):
    """The actor did not answer in time; what was asked may still happen."""


class Message(Generic[A_contra, R_co]):
    """A question to an actor of type ``A`` that is answered with an ``R``.

    Subclasses are frozen dataclasses: ``class SetDuty(Message["PwmBus", None])``.
    Messages set absolute values, since an ask that timed out may still land.
    """


class Life:
    """One incarnation of an actor, as seen by those who lent it something."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False
        self._at_end: list[Callable[[], None]] = []
        self._at_last: list[Callable[[], None]] = []
        self._is_over = False

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call back, at once and synchronously, when this life ends."""
        if self.ended:
            callback()
        else:
            self._at_end.append(callback)

    def at_last(self, callback: Callable[[], None]) -> None:
        """Call back, synchronously, when the actor's children have ended, too.

        What they still had to tell when they were cancelled has been told by then.
        """
        if self._is_over:
            callback()
        else:
            self._at_last.append(callback)

    def end(self) -> None:
        """End it, wholly. Only the first call has an effect."""
        self.begin_to_end()
        self._is_over = True
        callbacks, self._at_last = self._at_last, []
        self._call(callbacks)

    def begin_to_end(self) -> None:
        """Its end begins: what was lent is taken back. Only the first call has an effect."""
        if self.ended:
            return
        self.ended = True
        callbacks, self._at_end = self._at_end, []
        self._call(callbacks)

    def _call(self, callbacks: list[Callable[[], None]]) -> None:
        for callback in callbacks:
            try:
                callback()
            except Exception:  # the outputs behind the other callbacks must go off, too
                log.exception("an output of %s may not have been turned off", self.name)


class Ref(Generic[A_co]):
    """The address of an actor; stays valid over restarts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._why_gone = f"{name} has not been started"
        self._queue: deque[tuple[object, asyncio.Future[object]]] | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._open_asks: set[asyncio.Future[object]] = set()

    @property
    def alive(self) -> bool:
        """Whether an ask would be queued now."""
        return self._queue is not None

    async def ask(self, message: Message[A_co, R], *, timeout: float) -> R:
        """Send ``message``; return its reply, or raise what the actor refused it with.

        ``timeout`` in wall seconds. Raises ActorGone, AskTimeout or the refusal.
        """
        if self._queue is None:
            raise ActorGone(self._why_gone)
        if len(self._queue) >= MAILBOX_LIMIT:
            raise Unavailable(f"{self.name} is too busy: {MAILBOX_LIMIT} requests are waiting")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self._queue.append((message, answer))
        self._wake()
        self._open_asks.add(answer)
        deadline = loop.call_later(timeout, self._expire, answer, message, timeout)
        try:
            return cast(R, await answer)
        finally:
            deadline.cancel()
            self._open_asks.discard(answer)

    def _expire(self, answer: asyncio.Future[object], message: object, timeout: float) -> None:
        if not answer.done():
            what = type(message).__name__
            answer.set_exception(
                AskTimeout(f"{self.name} did not answer {what} within {timeout:g} s")
            )

    # -- for the actor behind it --------------------------------------------------

    def _open(self) -> None:
        self._queue = deque()

    def _close(self, why: str) -> None:
        self._why_gone = why
        self._queue = None
        self._wake()
        for answer in tuple(self._open_asks):
            if not answer.done():
                answer.set_exception(ActorGone(why))

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def _next(self) -> tuple[object, asyncio.Future[object]] | None:
        """The next ask that somebody still waits for; None when the ref was closed."""
        while True:
            queue = self._queue
            if queue is None:
                return None
            while queue:
                message, answer = queue.popleft()
                if not answer.done():
                    return message, answer
            self._arrived = asyncio.get_running_loop().create_future()
            try:
                await self._arrived
            finally:
                self._arrived = None


class _Finished(Exception):
    """The actor ended by itself, as it meant to."""


class Actor(Generic[M]):
    """Base of all actors; ``M`` is the union of its messages.

    Subclasses implement :meth:`receive` with one ``match`` over ``M``, and may
    implement :meth:`starting` and :meth:`ended`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = Life(name)
        self._ref: Ref[object] | None = None
        self._children: asyncio.TaskGroup | None = None

    async def starting(self) -> None:
        """Runs before the first message; asks wait meanwhile."""

    async def receive(self, message: M) -> object:
        """Handle one message and return its reply, or a future of it."""
        raise NotImplementedError

    async def ended(self) -> None:
        """Runs last, however the actor ended. Its leases are gone by then."""

    def spawn(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """Run ``work`` as a child: it ends with the actor, and if it fails, so does the actor."""
        if self._children is None:
            work.close()
            raise RuntimeError(f"{self.name} is not running")
        task = self._children.create_task(self._watched(work))
        task.add_done_callback(lambda _: work.close())  # it may never have begun
        return task

    def later(self, work: Coroutine[object, object, T]) -> asyncio.Future[T]:
        """Run ``work`` as a child whose result, or refusal, answers an ask."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.spawn(self._answering(work, answer))
        return answer

    def finish(self) -> None:
        """End this actor as soon as the message at hand is handled."""
        self._end(_Finished())

    async def live(self, ref: Ref[A]) -> None:
        """Be the actor behind ``ref`` until finished, cancelled or crashed.

        A crash leaves as an ExceptionGroup.
        """
        self._ref = cast(Ref[object], ref)
        ref._open()
        try:
            async with asyncio.TaskGroup() as self._children:
                try:
                    await self.starting()
                    await self._serve(ref)
                    raise _Finished
                except BaseException as error:  # whatever it is, the end has begun
                    self._end(error)
                    raise
        except* _Finished:
            pass
        finally:
            self._children = None
            self.life.end()
            await self.ended()

    async def _serve(self, ref: Ref[A]) -> None:
        while (asked := await ref._next()) is not None:
            message, answer = asked
            try:
                reply = await self.receive(cast(M, message))
            except PiodError as refusal:
                if not answer.done():
                    answer.set_exception(refusal)
                continue
            if isinstance(reply, asyncio.Future):
                _pass_on(reply, answer)
            elif not answer.done():
                answer.set_result(reply)

    def _end(self, error: BaseException) -> None:
        """The end has begun: outputs off, asks refused, in this order."""
        if self.life.ended:
            return
        try:
            self.life.begin_to_end()
        finally:
            if self._ref is not None:
                self._ref._close(_why(self.name, error))

    async def _watched(self, work: Coroutine[object, object, T]) -> T:
        try:
            return await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # something that it awaited was cancelled: a task group would not notice
            error = RuntimeError(f"a child of {self.name} was ended by another's cancellation")
            self._end(error)
            raise error from None
        except Exception as error:  # the end begins now, not when the task group notices
            self._end(error)
            raise

    async def _answering(
        self, work: Coroutine[object, object, T], answer: asyncio.Future[T]
    ) -> None:
        try:
            result = await work
        except PiodError as refusal:
            if not answer.done():
                answer.set_exception(refusal)
        except BaseException:  # nobody will answer any more
            answer.cancel()
            raise
        else:
            if not answer.done():
                answer.set_result(result)


def _why(name: str, error: BaseException) -> str:
    match error:
        case _Finished():
            return f"{name} has ended"
        case asyncio.CancelledError():
            return f"{name} was stopped"
        case PiodError():
            return f"{name} failed: {error.message}"
        case _:
            return f"{name} crashed: {type(error).__name__}: {error}"


def _pass_on(source: asyncio.Future[object], answer: asyncio.Future[object]) -> None:
    """Let ``answer`` become what ``source`` becomes, unless it was decided before."""

    def copy(done: asyncio.Future[object]) -> None:
        error = ActorGone("the work was cancelled") if done.cancelled() else done.exception()
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(done.result())

    source.add_done_callback(copy)
