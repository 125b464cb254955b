"""Turns the stirrer on and off: the smallest plugin that has everything.

One option, one setting that can be changed while it runs, and a loop. See
docs/plugins.md for what each part is for.
"""

from __future__ import annotations

from piod.clock import Clock
from piod.events import JsonValue
from piod.jobs.job import Job, Option, Options, Publish, PwmOutput, Setting, Unit

__plugin_name__ = "blink"
__plugin_version__ = "1.0.0"
__plugin_summary__ = "Turns the stirrer on and off."
__plugin_author__ = "The authors of piod"


class Blink(Job):
    """Half of each period on at ``duty_cycle``, half of it off."""

    job_name = "blink"
    help = "Turn the stirrer on and off."
    options = (
        Option("period_s", "float range", "length of one blink, s", minimum=0.2, maximum=3600),
    )
    settings = (
        Setting("duty_cycle", "float", settable=True, unit="%", minimum=0, maximum=100, kept=True),
    )

    def __init__(self, pwm: PwmOutput, clock: Clock, publish: Publish, period_s: float) -> None:
        self._pwm = pwm
        self._clock = clock
        self._publish = publish
        self._period_s = period_s
        self._duty_percent = 20.0

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Blink:
        # leased: it is off when this job ends, however it ends
        pwm = await unit.lease_pwm("stirring", hz=200)
        return cls(pwm, unit.clock, unit.publish, float(options.get("period_s") or 2.0))

    async def start(self) -> None:
        self._publish("duty_cycle", self._duty_percent)

    async def run(self) -> None:
        while True:
            await self._pwm.set_duty(self._duty_percent)
            await self._clock.sleep(self._period_s / 2)
            await self._pwm.set_duty(0)
            await self._clock.sleep(self._period_s / 2)

    async def sleep(self) -> None:
        await self._pwm.set_duty(0)

    def change(self, setting: str, value: JsonValue) -> None:
        match setting, value:
            case "duty_cycle", int() | float():
                self._duty_percent = float(value)
                self._publish("duty_cycle", self._duty_percent)
            case _:
                super().change(setting, value)
