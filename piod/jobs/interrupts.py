"""Waiting that ends at once when a person changes a setting."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from piod.clock import Clock

T = TypeVar("T")


class Interrupts:
    """Whether something was changed that whoever waits has to follow."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    @property
    def pending(self) -> bool:
        """Whether there was one since :meth:`clear`."""
        return self._event.is_set()

    def set(self) -> None:
        """Something was changed: whoever waits goes on."""
        self._event.set()

    def clear(self) -> None:
        """All that was changed is followed from here on."""
        self._event.clear()

    async def wait(self, seconds: float) -> bool:
        """Whether ``seconds`` went by without an interruption."""
        if seconds <= 0:
            return not self.pending
        return await self.unless(self._slept(seconds)) is not None

    async def unless(self, work: Coroutine[object, object, T]) -> T | None:
        """The result of ``work``, or None when it was interrupted."""
        doing = asyncio.ensure_future(work)
        interrupted = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({doing, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() and not self.pending else None
        finally:
            doing.cancel()
            interrupted.cancel()
            await asyncio.gather(doing, interrupted, return_exceptions=True)

    async def _slept(self, seconds: float) -> bool:
        await self._clock.sleep(seconds)
        return True
