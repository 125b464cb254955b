"""light_dark_cycle: LEDs C and D on for some minutes, off for some minutes, again and again.

It begins with light. The cycle is counted in minutes of time from the start of the job, by
the monotonic clock: not in runs of a timer, and a crash or a sleep in between does not
shift it. New durations count from that start, too; a new intensity counts at once.

A job that is resumed after an outage goes on in its cycle: the experiment keeps when the
cycle began, in Unix seconds. That is corrected when the clock has jumped, so that
it is right by the clock that counts now. An instant that cannot be is not believed.

``duration`` is what upstream's timer is told. It has no part in the cycle here, but with
``skip_first_run`` the cycle begins that many minutes later.

Source: handbook jobs-and-hardware.md §2.5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from piod.clock import Clock
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.automation import wait_for
from piod.jobs.instruments import Memory
from piod.jobs.job import Option, Options, Publish, Setting, Unit
from piod.jobs.led_automation import LedAutomation, Lights, lease_lights, minutes

CHANNELS = "CD"
MAX_MINUTES = 525_600
"""A year."""
BEGAN = "light_dark_cycle_began"
"""Key in the memory of the experiment: Unix seconds."""
JUMP_S = 2.0
"""A clock that says so much more or less than was kept has jumped."""
LOOK_EVERY_S = 60.0
"""How often it is looked whether it has."""
MIN_WAIT_S = 0.001
"""A wait that rounding made shorter would not get on."""


class LightDarkCycle(LedAutomation):
    """See the module."""

    automation_name = "light_dark_cycle"
    help = "Light and dark in turn, as by day and night."
    options = (
        Option("duration", "float", "minutes", minimum=0.01, maximum=MAX_MINUTES),
        Option("light_intensity", "float", "%", required=True, minimum=0, maximum=100),
        Option("light_duration_minutes", "integer", required=True, minimum=0, maximum=MAX_MINUTES),
        Option("dark_duration_minutes", "integer", required=True, minimum=0, maximum=MAX_MINUTES),
    )
    settings = (
        Setting("duration", "float", unit="min"),
        Setting(
            "light_intensity",
            "float",
            settable=True,
            unit="%",
            minimum=0,
            maximum=100,
            kept=True,
        ),
        Setting(
            "light_duration_minutes",
            "integer",
            settable=True,
            unit="min",
            minimum=0,
            maximum=MAX_MINUTES,
            kept=True,
        ),
        Setting(
            "dark_duration_minutes",
            "integer",
            settable=True,
            unit="min",
            minimum=0,
            maximum=MAX_MINUTES,
            kept=True,
        ),
    )

    def __init__(
        self,
        *,
        lights: Lights,
        memory: Memory,
        clock: Clock,
        publish: Publish,
        begins_at_s: float,
        duration_min: float,
        intensity_percent: float,
        light_min: float,
        dark_min: float,
    ) -> None:
        super().__init__(publish)
        self._lights = lights
        self._memory = memory
        self._clock = clock
        self._publish = publish
        self._begins_at_s = begins_at_s
        """Start of the first cycle, on the clock's monotonic scale."""
        self._duration_min = duration_min
        self._intensity_percent = intensity_percent
        self._light_min = light_min
        self._dark_min = dark_min
        self._shown_percent = 0.0
        self._kept_unix_s: float | None = None
        self._changed = asyncio.Event()

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> LightDarkCycle:
        duration_min = minutes(options, "duration", 1.0)
        light_min = minutes(options, "light_duration_minutes", 0)
        dark_min = minutes(options, "dark_duration_minutes", 0)
        _check_cycle(light_min, dark_min)
        delay_s = 60 * duration_min if options.get("skip_first_run") else 0.0
        lights = await lease_lights(unit, CHANNELS, cls.job_name)
        begins_at_s = await _resumed(unit, delay_s) if unit.is_resumed else None
        if begins_at_s is None:
            begins_at_s = unit.clock.monotonic() - unit.age_s + delay_s
        return cls(
            lights=lights,
            memory=unit.memory,
            clock=unit.clock,
            publish=unit.publish,
            begins_at_s=begins_at_s,
            duration_min=duration_min,
            intensity_percent=minutes(options, "light_intensity", 0.0),
            light_min=light_min,
            dark_min=dark_min,
        )

    async def start(self) -> None:
        await super().start()
        self._publish("duration", self._duration_min)
        self._publish("light_intensity", self._intensity_percent)
        self._publish("light_duration_minutes", self._light_min)
        self._publish("dark_duration_minutes", self._dark_min)
        self._changed.clear()
        self._kept_unix_s = self._begins_at_unix_s
        await self._memory.keep(BEGAN, self._kept_unix_s)
        await self._follow_cycle()

    async def run(self) -> None:
        while True:
            self._changed.clear()
            wait_s = await self._follow_cycle()
            await wait_for(self._changed, self._clock, min(wait_s, LOOK_EVERY_S))
            self._look_for_jump()

    async def sleep(self) -> None:
        await self._show(0.0)

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        light, dark = (
            changes.get("light_duration_minutes", self._light_min),
            changes.get("dark_duration_minutes", self._dark_min),
        )
        if isinstance(light, int | float) and isinstance(dark, int | float):
            _check_cycle(light, dark)

    def change(self, setting: str, value: JsonValue) -> None:
        match setting, value:
            case "light_intensity", int() | float():
                self._intensity_percent = float(value)
            case "light_duration_minutes", int() | float():
                self._light_min = value
            case "dark_duration_minutes", int() | float():
                self._dark_min = value
            case _:
                super().change(setting, value)
        self._publish(setting, value)
        self._changed.set()

    @property
    def _begins_at_unix_s(self) -> float:
        return self._clock.time() - self._clock.monotonic() + self._begins_at_s

    def _look_for_jump(self) -> None:
        began, kept = self._begins_at_unix_s, self._kept_unix_s
        if kept is None or abs(began - kept) > JUMP_S:
            self._kept_unix_s = began
            self._memory.keep_later(BEGAN, began)

    async def _follow_cycle(self) -> float:
        """Light or dark, as it is time for; seconds until that changes."""
        since_s = self._clock.monotonic() - self._begins_at_s
        if since_s < 0:
            await self._show(0.0)
            return -since_s
        light_s, cycle_s = 60 * self._light_min, 60 * (self._light_min + self._dark_min)
        at_s = since_s % cycle_s
        is_light = at_s < light_s
        await self._show(self._intensity_percent if is_light else 0.0)
        return max(MIN_WAIT_S, (light_s if is_light else cycle_s) - at_s)

    async def _show(self, percent: float) -> None:
        if percent == self._shown_percent:
            return
        await self._lights.show(percent)
        self._shown_percent = percent
        self.tell(
            "ChangedLedIntensity",
            f"LEDs {', '.join(CHANNELS)} at {percent:g} %",
            {"channels": list(CHANNELS), "intensity": percent},
        )


async def _resumed(unit: Unit, delay_s: float) -> float | None:
    """When the resumed cycle began, on the clock's monotonic scale; None: nobody knows."""
    kept = await unit.memory.recall(BEGAN)
    if not isinstance(kept, int | float):
        return None
    ago_s = unit.clock.time() - kept
    if ago_s < -delay_s - JUMP_S:
        unit.log.warning("the cycle begins anew: the clock says that it began in the future")
        return None
    return unit.clock.monotonic() - ago_s


def _check_cycle(light_min: float, dark_min: float) -> None:
    if light_min + dark_min <= 0:
        raise BadRequest(
            "light_duration_minutes and dark_duration_minutes cannot both be 0",
            remediation="Give at least one of them a duration of 1 minute or more.",
        )
