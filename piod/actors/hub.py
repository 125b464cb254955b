"""The event hub: what happens on the unit, for whoever subscribes.

Publishing never waits. A subscriber that falls behind loses its oldest events
and is told how many (:class:`Lagged`); it never slows a job.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from types import TracebackType

from piod.events import Event


@dataclass(frozen=True)
class Lagged:
    """``missed`` events were lost here because this subscriber was slow."""

    missed: int


class Subscription:
    """An async iterator over events, from the moment it was made until closed."""

    def __init__(self, hub: Hub, capacity: int) -> None:
        self._hub = hub
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._missed = 0
        self._arrived: asyncio.Future[None] | None = None

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Receive nothing more; the iteration ends after what has arrived."""
        self._hub._subscriptions.discard(self)
        self._wake()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event | Lagged:
        while True:
            if self._missed:
                missed, self._missed = self._missed, 0
                return Lagged(missed)
            if self._events:
                return self._events.popleft()
            if self not in self._hub._subscriptions:
                raise StopAsyncIteration
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived

    def _offer(self, event: Event) -> None:
        if len(self._events) >= self._capacity:
            self._events.popleft()
            self._missed += 1
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class Hub:
    """Where jobs and buses publish."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Event) -> None:
        """Hand ``event`` to every subscriber, now, without waiting."""
        for subscription in self._subscriptions:
            subscription._offer(event)

    def subscribe(self, capacity: int = 1000) -> Subscription:
        """Receive every event from now on; at most ``capacity`` wait to be read."""
        subscription = Subscription(self, capacity)
        self._subscriptions.add(subscription)
        return subscription
