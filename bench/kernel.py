"""Round trips of an ask, against the least that asyncio needs for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from bench.figures import Figure
from piod.actors.actor import Actor, Message, Ref

ROUNDS = 9
ROUND_TRIPS = 10_000


@dataclass(frozen=True)
class Echo(Message["Echoing", int]):
    """Answered with ``number``."""

    number: int


class Echoing(Actor[Echo]):
    """Answers."""

    async def receive(self, message: Echo) -> object:
        return message.number


def measure() -> Iterator[Figure]:
    asks, queues = asyncio.run(_measure())
    yield Figure(
        "ask round trips",
        "/s",
        asks,
        "asyncio.Queue and a future",
        queues,
        note="an ask has a deadline besides, and fails at once when its actor dies",
    )


async def _measure() -> tuple[list[float], list[float]]:
    ref: Ref[Echoing] = Ref("echoing")
    living = asyncio.create_task(Echoing("echoing").live(ref))
    await asyncio.sleep(0)  # it opens its mailbox
    queue: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue()
    serving = asyncio.create_task(_serve(queue))
    loop = asyncio.get_running_loop()

    async def ask(number: int) -> None:
        await ref.ask(Echo(number), timeout=5.0)

    async def put(number: int) -> None:
        answer: asyncio.Future[int] = loop.create_future()
        queue.put_nowait((number, answer))
        await answer

    asks, queues = [], []
    for _ in range(ROUNDS):
        asks.append(await _per_s(ask))
        queues.append(await _per_s(put))
    for task in (serving, living):
        task.cancel()
    await asyncio.gather(serving, living, return_exceptions=True)
    return asks, queues


async def _serve(queue: asyncio.Queue[tuple[int, asyncio.Future[int]]]) -> None:
    while True:
        number, answer = await queue.get()
        answer.set_result(number)


async def _per_s(trip: Callable[[int], Awaitable[None]]) -> float:
    started_s = time.perf_counter()
    for number in range(ROUND_TRIPS):
        await trip(number)
    return ROUND_TRIPS / (time.perf_counter() - started_s)
