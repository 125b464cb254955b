"""silent: does nothing, every ``duration`` minutes; a place to hold for an automation to come."""

from __future__ import annotations

import asyncio

from piod.clock import Clock
from piod.events import JsonValue
from piod.jobs.automation import wait_for
from piod.jobs.job import Options, Publish, Setting, Unit
from piod.jobs.led_automation import LedAutomation, minutes


class Silent(LedAutomation):
    """See the module."""

    automation_name = "silent"
    help = "Leave the LEDs alone."
    settings = (
        Setting(
            "duration",
            "float",
            settable=True,
            unit="min",
            minimum=0.01,
            maximum=525_600,
            kept=True,
        ),
    )

    def __init__(
        self, *, clock: Clock, publish: Publish, duration_min: float, skip_first: bool
    ) -> None:
        super().__init__(publish)
        self._clock = clock
        self._publish = publish
        self._duration_min = duration_min
        self._last_s = clock.monotonic() - (0 if skip_first else 60 * duration_min)
        self._changed = asyncio.Event()

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Silent:
        return cls(
            clock=unit.clock,
            publish=unit.publish,
            duration_min=minutes(options, "duration", 60.0),
            skip_first=bool(options.get("skip_first_run")),
        )

    async def start(self) -> None:
        await super().start()
        self._publish("duration", self._duration_min)

    async def run(self) -> None:
        while True:
            self._changed.clear()
            wait_s = self._last_s + 60 * self._duration_min - self._clock.monotonic()
            if wait_s > 0 and await wait_for(self._changed, self._clock, wait_s):
                continue  # one schedule, whatever was changed
            self._last_s = self._clock.monotonic()
            self.tell("NoEvent", "the LEDs are left alone")

    def change(self, setting: str, value: JsonValue) -> None:
        match setting, value:
            case "duration", int() | float():
                self._duration_min = float(value)
                self._publish("duration", self._duration_min)
                self._changed.set()
            case _:
                super().change(setting, value)
