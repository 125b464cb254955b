"""The clock watch: notices when the unit's wall clock cannot be trusted.

Nothing in piod waits by the wall clock: schedules, deadlines and rate limits are
monotonic. But timestamps are wall time, and so is the length of an outage. A
clock that jumped, or that no time server sets, is logged once and shown in health.

Messages: :class:`ClockState`, :class:`AwaitTrust`.

A jump is told whoever made it, piod's own user included: readings before and
after it do not lie on one time axis. It stops being a problem after an hour;
the last one stays on show.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from piod.actors.actor import Actor, Message
from piod.clock import Clock, timestamp
from piod.errors import PiodError
from piod.storage.ledger import Ledger
from piod.system import SystemPort

log = logging.getLogger(__name__)

CHECK_EVERY_S = 10.0
"""How often the clocks are compared, wall time."""
JUMP_S = 2.0
"""A change of wall against monotonic time, between two checks, that counts as a jump.

A time server that is near slews, which moves both clocks alike.
"""
ASK_EVERY_S = 60.0
"""How often the machine is asked whether its clock is synchronised until it is, wall time."""
ASK_AGAIN_EVERY_S = 3600.0
"""As above, once it is: for each question systemd starts a service, with lines in the journal.

After a jump it is asked at once.
"""
ASK_TIMEOUT_S = 10.0
PROBLEM_S = 3600.0
"""How long a jump counts as a problem, of the unit's own time."""
PATIENCE_S = 180.0
"""How long :class:`AwaitTrust` waits for a time server, wall time: some asks of the machine."""
READ_WITHIN_S = 0.1
"""Two clocks that were read further apart than this, in seconds, say nothing."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT_KEY = "boot_id"
"""Key in the ledger: the boot of the machine in which piod last ran."""


@dataclass(frozen=True)
class ClockJump:
    """``at``: timestamp after the jump; ``seconds``: how far, negative into the past."""

    at: str
    seconds: float


@dataclass(frozen=True)
class ClockReport:
    """What is known of the clock; ``synchronised`` None: the machine does not tell."""

    synchronised: bool | None
    last_jump: ClockJump | None
    problems: tuple[str, ...]
    """In words, for health."""


@dataclass(frozen=True)
class ClockState(Message["ClockWatch", ClockReport]):
    """What is known of the clock now; answered at once."""


@dataclass(frozen=True)
class AwaitTrust(Message["ClockWatch", bool]):
    """Whether the clock can be compared with times noted before this start of piod.

    Yes within one boot of the machine, and after a boot when the clock is
    synchronised or nobody can tell; else this waits PATIENCE_S for a time server
    and then answers no. A machine without a clock chip wakes at some time of the past.
    """


class ClockWatch(Actor[ClockState | AwaitTrust]):
    """Compares the wall clock with the monotonic one, and asks the machine about it.

    ``rebooted``: what :func:`rebooted_since` said.
    """

    def __init__(self, clock: Clock, system: SystemPort, *, rebooted: bool) -> None:
        super().__init__("clock watch")
        self._clock = clock
        self._system = system
        self._rebooted = rebooted
        self._offset_s = _offset(clock)
        self._synchronised: bool | None = None
        self._asked = asyncio.Condition()
        """Notified whenever the machine has told."""
        self._asks = 0
        self._jumped = asyncio.Event()
        """Set at a jump, until the machine is asked about it."""
        self._jump: ClockJump | None = None
        self._jumped_at = 0.0

    async def starting(self) -> None:
        self.spawn(self._compare())
        self.spawn(self._ask())

    async def receive(self, message: ClockState | AwaitTrust) -> object:
        match message:
            case ClockState():
                return ClockReport(self._synchronised, self._jump, tuple(self._problems()))
            case AwaitTrust():
                return self.later(self._trust())
            case _:
                assert_never(message)

    def _problems(self) -> list[str]:
        problems = []
        if self._synchronised is False:
            problems.append(
                "the clock is not synchronised with a time server: timestamps may be wrong"
            )
        if self._jump is not None and self._clock.monotonic() < self._jumped_at + PROBLEM_S:
            problems.append(
                f"the clock jumped by {self._jump.seconds:+.1f} s at {self._jump.at}: "
                "timestamps before and after it do not agree"
            )
        return problems

    async def _compare(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            offset_s = _offset(self._clock)
            if offset_s is None:
                continue  # too busy a moment to read two clocks at once
            before_s, self._offset_s = self._offset_s, offset_s
            if before_s is None or abs(offset_s - before_s) <= JUMP_S:
                continue
            self._jump = ClockJump(timestamp(self._clock.time()), round(offset_s - before_s, 3))
            self._jumped_at = self._clock.monotonic()
            self._jumped.set()
            log.warning(
                "the clock jumped by %+.1f s; schedules go on unchanged, timestamps before and "
                "after it do not agree",
                offset_s - before_s,
            )

    async def _ask(self) -> None:
        while True:
            self._jumped.clear()
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    told = await self._system.clock_synchronised()
            except (PiodError, TimeoutError) as refusal:
                log.debug("whether the clock is synchronised is not known: %r", refusal)
                told = None
            if told is False and self._synchronised is not False:
                log.warning("the clock is not synchronised with a time server")
            elif told and self._synchronised is False:
                log.info("the clock is synchronised with a time server")
            async with self._asked:
                self._synchronised = told
                self._asks += 1
                self._asked.notify_all()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_EVERY_S if told else ASK_EVERY_S):
                    await self._jumped.wait()

    async def _trust(self) -> bool:
        if not self._rebooted:
            return True
        try:
            async with asyncio.timeout(PATIENCE_S), self._asked:
                await self._asked.wait_for(
                    lambda: self._asks > 0 and self._synchronised is not False
                )
        except TimeoutError:
            return False
        return True


async def rebooted_since(ledger: Ledger) -> bool:
    """Whether the machine has booted since piod last ran on this ledger; notes this boot.

    True when that is not known. Raises StorageFull or StorageFailed.
    """
    boot = _boot()
    if boot is not None and await ledger.get_meta(BOOT_KEY) == boot:
        return False
    await ledger.put_meta(BOOT_KEY, boot or "")
    return True


def _boot() -> str | None:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return None


def _offset(clock: Clock) -> float | None:
    """Unix time at monotonic 0; None if this thread was held up between the two readings."""
    began = time.monotonic()
    offset_s = clock.time() - clock.monotonic()
    return offset_s if time.monotonic() - began < READ_WITHIN_S else None
