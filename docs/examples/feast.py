"""Feeds the culture when it is hungry: a dosing automation, as a plugin.

Each ``duration`` minutes it looks at the growth rate. Below ``hungry_below`` it exchanges
``portion_ml`` of the culture for fresh media. See docs/plugins.md.
"""

from __future__ import annotations

from piod.jobs.dosing.signals import GROWTH_RATE
from piod.jobs.dosing_automation import DosingAutomation
from piod.jobs.job import Option, Setting

__plugin_name__ = "feast"
__plugin_version__ = "1.0.0"
__plugin_summary__ = "Feeds the culture when it grows slowly."
__plugin_author__ = "The authors of piod"


class Feast(DosingAutomation):
    """See the module."""

    automation_name = "feast"
    help = "Feed the culture when it grows slowly."
    pumps = ("media", "waste")
    options = (Option("portion_ml", "float", "mL", required=True, minimum=0.1, maximum=5),)
    settings = (
        Setting("portion_ml", "float", settable=True, unit="mL", minimum=0.1, maximum=5),
        Setting("hungry_below", "float", settable=True, unit="1/h", minimum=0),
    )
    defaults = {"hungry_below": 0.1}

    async def execute(self) -> None:
        growth_rate = self.signals.latest(GROWTH_RATE)
        if growth_rate >= self.number("hungry_below"):
            self.tell("NoEvent", f"it grows by {growth_rate:.2f} per hour: not hungry")
            return
        portion_ml = self.number("portion_ml")
        moved = await self.exchange(media_ml=portion_ml, waste_ml=portion_ml)
        self.tell("DilutionEvent", f"fed {moved.media_ml:.2f} mL")
