"""led_automation: the family of automations that turn LEDs on and off by themselves.

An automation leases its LEDs for as long as it runs (:func:`lease_lights`), so nobody else
drives them meanwhile; asleep it keeps them at 0. :class:`Lights` drives leased LEDs and
keeps each change in the history of the experiment.
"""

from __future__ import annotations

from collections.abc import Mapping

from piod.errors import Conflict
from piod.jobs.automation import Automation
from piod.jobs.instruments import LedOutputs
from piod.jobs.job import Unit

LEASE_ATTEMPTS = 6
LEASE_PAUSE_S = 0.5
"""LEDs that another job has are asked for again: it may be about to end."""


class LedAutomation(Automation):
    """Base of all LED automations."""

    job_name = "led_automation"
    resumable = True


class Lights:
    """Leased LEDs whose changes are recorded, as coming from ``source``."""

    def __init__(self, unit: Unit, leds: LedOutputs, source: str) -> None:
        self._unit = unit
        self._leds = leds
        self._source = source
        self._shown = dict.fromkeys(leds.channels, 0.0)

    async def show(self, percent: float, *, recorded: bool = True) -> None:
        """All of them at ``percent``; returns when the chip holds it. BusError."""
        await self._leds.set_levels(dict.fromkeys(self._leds.channels, percent))
        for channel, before in self._shown.items():
            if percent != before and recorded:
                self._unit.record("led", percent, channel, source_of_event=self._source)
            self._shown[channel] = percent

    async def release(self) -> None:
        """Give the LEDs back, dark."""
        await self._leds.release()


async def lease_lights(unit: Unit, channels: str, source: str) -> Lights:
    """Lease LEDs, such as ``"CD"``; waits a little for those that another job has. Conflict."""
    for attempt in range(1, LEASE_ATTEMPTS + 1):
        try:
            return Lights(unit, await unit.lease_leds(channels), source)
        except Conflict as taken:
            if attempt == LEASE_ATTEMPTS:
                raise
            unit.log.debug("%s; trying again", taken.message)
            await unit.clock.sleep(LEASE_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


def minutes(options: Mapping[str, object], name: str, default: float) -> float:
    """An option that is a number, or its default."""
    given = options.get(name)
    return float(given) if isinstance(given, int | float) else default
