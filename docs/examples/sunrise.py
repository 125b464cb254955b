"""A day with a sunrise and a sunset: an LED automation, as a plugin. See docs/plugins.md."""

from __future__ import annotations

import math

from piod.events import JsonValue
from piod.jobs.job import Options, Setting, Unit
from piod.jobs.led_automation import LedAutomation, Lights, lease_lights

__plugin_name__ = "sunrise"
__plugin_version__ = "1.0.0"
__plugin_summary__ = "Light that rises and falls as the sun does."
__plugin_author__ = "The authors of piod"

DAY_S = 86_400


class Sunrise(LedAutomation):
    """Light on channel D: dark at the start, brightest after half a day."""

    automation_name = "sunrise"
    help = "Light that rises and falls as the sun does."
    settings = (Setting("noon_percent", "float", settable=True, unit="%", minimum=0, maximum=100),)

    def __init__(self, unit: Unit, lights: Lights, noon_percent: float) -> None:
        super().__init__(unit.publish)
        self._unit = unit
        self._lights = lights
        self._noon_percent = noon_percent

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Sunrise:
        noon = options.get("noon_percent", 50.0)
        return cls(unit, await lease_lights(unit, "D", cls.job_name), float(noon or 0))

    async def start(self) -> None:
        await super().start()
        self._unit.publish("noon_percent", self._noon_percent)

    async def run(self) -> None:
        while True:
            turn = self._unit.age_s / DAY_S
            height = (1 - math.cos(2 * math.pi * turn)) / 2
            await self._lights.show(round(self._noon_percent * height))
            await self._unit.clock.sleep(60)

    async def sleep(self) -> None:
        await self._lights.show(0)

    def change(self, setting: str, value: JsonValue) -> None:
        match setting, value:
            case "noon_percent", int() | float():
                self._noon_percent = float(value)
                self._unit.publish(setting, value)
            case _:
                super().change(setting, value)
