"""Warms the culture gently until it is warm, then never again: a temperature automation.

See docs/plugins.md.
"""

from __future__ import annotations

from piod.jobs.temperature_automation import TemperatureAutomation

__plugin_name__ = "cool_down"
__plugin_version__ = "1.0.0"
__plugin_summary__ = "Warms a culture to 30 °C once, then lets it cool."
__plugin_author__ = "The authors of piod"

WARM_CELSIUS = 30.0
GENTLE_PERCENT = 15.0


class CoolDown(TemperatureAutomation):
    """The interlock below it turns the heater off whatever this decides."""

    automation_name = "cool_down"
    help = "Warm the culture to 30 °C once, then let it cool."

    was_warm = False

    async def decide(self, liquid_celsius: float, duty_percent: float) -> None:
        self.was_warm = self.was_warm or liquid_celsius >= WARM_CELSIUS
        if self.was_warm:
            self.tell("NoEvent", f"it cools down: {liquid_celsius:.1f} °C")
        else:
            got = await self.heat(GENTLE_PERCENT)
            self.tell("UpdatedHeaterDC", f"the heater is at {got:g} %")
