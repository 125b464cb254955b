"""only_record_temperature: knows the temperature of the liquid, and never heats."""

from __future__ import annotations

from piod.jobs.temperature_automation import TemperatureAutomation


class OnlyRecordTemperature(TemperatureAutomation):
    """See the module."""

    automation_name = "only_record_temperature"
    help = "Record the temperature of the culture, without heating."

    async def decide(self, liquid_celsius: float, duty_percent: float) -> None:
        self.tell("NoEvent", f"the liquid is at {liquid_celsius:.2f} °C")
