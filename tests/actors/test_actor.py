"""The promises of the actor kernel, one test each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import assert_never

import pytest

from piod.actors.actor import Actor, ActorGone, AskTimeout, Message, Ref
from piod.errors import Conflict, Unavailable


@dataclass(frozen=True)
class Add(Message["Counter", int]):
    amount: int


@dataclass(frozen=True)
class Refuse(Message["Counter", None]):
    pass


@dataclass(frozen=True)
class Crash(Message["Counter", None]):
    pass


@dataclass(frozen=True)
class Slow(Message["Counter", str]):
    """Answered by a child after ``gate`` opens."""

    gate: asyncio.Event


@dataclass(frozen=True)
class Block(Message["Counter", None]):
    """Handled, without answering anything else, until ``gate`` opens."""

    gate: asyncio.Event


@dataclass(frozen=True)
class CrashChild(Message["Counter", None]):
    pass


@dataclass(frozen=True)
class Finish(Message["Counter", None]):
    pass


CounterMessage = Add | Refuse | Crash | Slow | Block | CrashChild | Finish


class Counter(Actor[CounterMessage]):
    def __init__(self) -> None:
        super().__init__("counter")
        self.total = 0
        self.order: list[str] = []
        self.life.at_end(lambda: self.order.append("life ended"))

    async def receive(self, message: CounterMessage) -> object:
        match message:
            case Add(amount):
                self.total += amount
                return self.total
            case Refuse():
                raise Conflict("no")
            case Crash():
                raise ZeroDivisionError("a bug")
            case Slow(gate):
                return self.later(self._slow(gate))
            case Block(gate):
                await gate.wait()
                return None
            case CrashChild():
                self.spawn(self._crash())
                return None
            case Finish():
                return self.finish()
            case _:
                assert_never(message)

    async def ended(self) -> None:
        self.order.append("ended")

    async def _slow(self, gate: asyncio.Event) -> str:
        try:
            await gate.wait()
        finally:
            self.order.append("child over")
        return "done"

    async def _crash(self) -> None:
        raise ZeroDivisionError("a child's bug")


@asynccontextmanager
async def running(actor: Counter) -> AsyncIterator[tuple[Ref[Counter], asyncio.Task[None]]]:
    ref: Ref[Counter] = Ref("counter")
    task = asyncio.ensure_future(actor.live(ref))
    await asyncio.sleep(0)
    try:
        yield ref, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def failure(work: Coroutine[object, object, object]) -> BaseException | None:
    return (await asyncio.gather(work, return_exceptions=True))[0]  # type: ignore[return-value]


async def test_an_ask_is_answered_with_the_reply() -> None:
    async with running(Counter()) as (ref, _):
        assert await ref.ask(Add(2), timeout=1) == 2
        assert await ref.ask(Add(3), timeout=1) == 5


async def test_a_refusal_reaches_the_asker_and_the_actor_lives_on() -> None:
    async with running(Counter()) as (ref, _):
        with pytest.raises(Conflict, match="no"):
            await ref.ask(Refuse(), timeout=1)
        assert await ref.ask(Add(1), timeout=1) == 1


async def test_every_ask_has_a_deadline() -> None:
    async with running(Counter()) as (ref, _):
        with pytest.raises(AskTimeout, match="counter did not answer Slow within"):
            await ref.ask(Slow(asyncio.Event()), timeout=0.01)


async def test_an_ask_that_expired_in_the_queue_is_skipped() -> None:
    counter = Counter()
    async with running(counter) as (ref, _):
        gate = asyncio.Event()
        blocked = asyncio.ensure_future(ref.ask(Block(gate), timeout=5))
        await asyncio.sleep(0)
        with pytest.raises(AskTimeout):
            await ref.ask(Add(100), timeout=0.01)
        gate.set()
        await blocked
        assert await ref.ask(Add(1), timeout=1) == 1


async def test_an_ask_whose_asker_was_cancelled_is_skipped() -> None:
    async with running(Counter()) as (ref, _):
        gate = asyncio.Event()
        blocked = asyncio.ensure_future(ref.ask(Block(gate), timeout=5))
        await asyncio.sleep(0)
        given_up = asyncio.ensure_future(ref.ask(Add(100), timeout=5))
        await asyncio.sleep(0)
        given_up.cancel()
        gate.set()
        await blocked
        assert await ref.ask(Add(1), timeout=1) == 1


async def test_short_asks_are_answered_during_a_slow_one() -> None:
    async with running(Counter()) as (ref, _):
        gate = asyncio.Event()
        slow = asyncio.ensure_future(ref.ask(Slow(gate), timeout=5))
        await asyncio.sleep(0)
        assert await ref.ask(Add(1), timeout=1) == 1
        gate.set()
        assert await slow == "done"


async def test_asks_in_flight_and_queued_fail_at_once_when_the_actor_crashes() -> None:
    async with running(Counter()) as (ref, task):
        slow = asyncio.ensure_future(ref.ask(Slow(asyncio.Event()), timeout=60))
        await asyncio.sleep(0)
        crash = asyncio.ensure_future(ref.ask(Crash(), timeout=60))
        queued = asyncio.ensure_future(ref.ask(Add(1), timeout=60))
        for ask in (slow, crash, queued):
            with pytest.raises(ActorGone, match="ZeroDivisionError: a bug"):
                await asyncio.wait_for(ask, 1)
        with pytest.raises(ExceptionGroup):
            await task


async def test_asks_in_flight_fail_at_once_when_the_actor_is_cancelled() -> None:
    async with running(Counter()) as (ref, task):
        blocked = asyncio.ensure_future(ref.ask(Block(asyncio.Event()), timeout=60))
        queued = asyncio.ensure_future(ref.ask(Add(1), timeout=60))
        await asyncio.sleep(0)
        task.cancel()
        for ask in (blocked, queued):
            with pytest.raises(ActorGone, match="counter was stopped"):
                await asyncio.wait_for(ask, 1)


async def test_asking_a_dead_actor_fails_at_once_with_the_reason() -> None:
    ref: Ref[Counter] = Ref("counter")
    with pytest.raises(ActorGone, match="has not been started"):
        await ref.ask(Add(1), timeout=60)
    async with running(Counter()) as (ref, task):
        assert isinstance(await failure(ref.ask(Crash(), timeout=60)), ActorGone)
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(ActorGone, match="crashed: ZeroDivisionError"):
            await ref.ask(Add(1), timeout=60)


async def test_a_crashing_child_ends_the_actor_and_its_asks() -> None:
    async with running(Counter()) as (ref, task):
        slow = asyncio.ensure_future(ref.ask(Slow(asyncio.Event()), timeout=60))
        await asyncio.sleep(0)
        await ref.ask(CrashChild(), timeout=1)
        with pytest.raises(ActorGone, match="a child's bug"):
            await asyncio.wait_for(slow, 1)
        with pytest.raises(ExceptionGroup):
            await task


async def test_the_life_ends_before_children_are_over_and_before_ended_runs() -> None:
    counter = Counter()
    async with running(counter) as (ref, task):
        slow = asyncio.ensure_future(ref.ask(Slow(asyncio.Event()), timeout=60))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, slow, return_exceptions=True)
    assert counter.order == ["life ended", "child over", "ended"]


async def test_an_actor_can_finish_by_itself() -> None:
    counter = Counter()
    async with running(counter) as (ref, task):
        await failure(ref.ask(Finish(), timeout=1))
        await asyncio.wait_for(task, 1)
        with pytest.raises(ActorGone, match="counter has ended"):
            await ref.ask(Add(1), timeout=1)


async def test_a_full_mailbox_refuses_instead_of_growing() -> None:
    async with running(Counter()) as (ref, _):
        asks = [asyncio.ensure_future(ref.ask(Add(1), timeout=5)) for _ in range(1500)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        refused = [result for result in results if isinstance(result, Unavailable)]
        assert len(refused) == 500
        assert "too busy" in refused[0].message
