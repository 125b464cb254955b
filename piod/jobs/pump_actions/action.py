"""What all pump actions share.

An action is accepted when its first pump turns. It can be put to sleep: its pumps are off at
once, and what was left is not pumped, not even when it wakes: then it ends. Nothing starts it
again, neither after a crash nor after an outage.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import ClassVar

from piod.errors import BadRequest
from piod.jobs.job import Job, Option, Options, OptionValue, Unit
from piod.restarts import NEVER

ANSWERED_S = 0.1
"""In which whoever woke it gets the answer, before it ends."""

LONGEST_SOURCE = 200
"""Characters."""


@dataclass(frozen=True)
class _Source(Option):
    """A short text."""

    def parse(self, value: object) -> OptionValue:
        text = super().parse(value)
        if isinstance(text, str) and len(text) > LONGEST_SOURCE:
            raise BadRequest(
                f"option {self.name} must be {LONGEST_SOURCE} characters at most, got {len(text)}"
            )
        return text


SOURCE = _Source("source_of_event", "text", "who asks for it, for the history")


class PumpAction(Job):
    """Base of the pump actions."""

    one_at_a_time = False
    stop_first: ClassVar[int] = 30
    restart_policy = NEVER

    def __init__(self, unit: Unit, options: Options) -> None:
        self._unit = unit
        self._log = unit.log
        self._source = str(options.get("source_of_event") or "CLI")
        self._begun: AsyncExitStack | None = None

    @abstractmethod
    async def begin(self, runs: AsyncExitStack) -> None:
        """Enter the first runs, their pumps on; refuse what cannot be done."""

    @abstractmethod
    async def go_on(self, runs: AsyncExitStack) -> None:
        """Pump to the end."""

    async def start(self) -> None:
        async with AsyncExitStack() as runs:
            await self.begin(runs)
            self._begun = runs.pop_all()

    async def run(self) -> None:
        runs, self._begun = self._begun, None
        if runs is None:
            self._log.warning("what was left when it fell asleep is not pumped")
            await self._unit.clock.sleep(ANSWERED_S)
            return
        async with runs:
            await self.go_on(runs)
