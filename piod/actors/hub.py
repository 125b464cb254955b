"""The event hub: what happens on the unit, for whoever subscribes.

Publishing never waits. A subscriber that falls behind loses its oldest events
and is told how many (:class:`Lagged`); it never slows a job.

The hub also knows what running jobs publish now: :meth:`Hub.settings_of`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from piod.events import Event, JsonValue, SettingPublished


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
        self._settings: dict[str, dict[str, JsonValue]] = {}
        """Of jobs that live, native values by job id and setting."""
        self._ids: dict[str, list[str]] = {}
        """Of the same jobs by name, the oldest first."""

    def publish(self, event: Event) -> None:
        """Hand ``event`` to every subscriber, now, without waiting."""
        if isinstance(event, SettingPublished):
            self._retain(event)
        for subscription in self._subscriptions:
            subscription._offer(event)

    def settings_of(self, job_name: str) -> Mapping[str, JsonValue] | None:
        """What the job of that name publishes now, of several the newest; None: none lives."""
        ids = self._ids.get(job_name)
        return dict(self._settings[ids[-1]]) if ids else None

    @property
    def running_jobs(self) -> frozenset[str]:
        """The names of the jobs that live."""
        return frozenset(name for name, ids in self._ids.items() if ids)

    def forget_jobs(self) -> None:
        """No job lives any more."""
        self._settings.clear()
        self._ids.clear()

    def _retain(self, event: SettingPublished) -> None:
        job_id, job_name = event.job.job_id, event.job.job_name
        if event.setting == "$state" and event.value in ("disconnected", "lost"):
            if self._settings.pop(job_id, None) is not None:
                self._ids[job_name].remove(job_id)
            return
        if job_id not in self._settings:
            if event.value is None:
                return
            self._settings[job_id] = {}
            self._ids.setdefault(job_name, []).append(job_id)
        if event.value is None:
            self._settings[job_id].pop(event.setting, None)
        else:
            self._settings[job_id][event.setting] = event.value

    def subscribe(self, capacity: int = 1000) -> Subscription:
        """Receive every event from now on; at most ``capacity`` wait to be read."""
        subscription = Subscription(self, capacity)
        self._subscriptions.add(subscription)
        return subscription
