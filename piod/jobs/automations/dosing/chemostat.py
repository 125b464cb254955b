"""chemostat: exchanges a volume each ``duration``, whatever the culture does.

The dilution rate is exchange volume / (volume of the vial · duration).
"""

from __future__ import annotations

from piod.jobs.dosing_automation import MAX_ML, DosingAutomation
from piod.jobs.job import Option, Setting


class Chemostat(DosingAutomation):
    """See the module."""

    automation_name = "chemostat"
    help = "Exchange a volume of the culture at regular times."
    pumps = ("media", "waste")
    options = (
        Option("exchange_volume_ml", "float", "mL", required=True, minimum=0, maximum=MAX_ML),
    )
    settings = (
        Setting("exchange_volume_ml", "float", settable=True, unit="mL", minimum=0, maximum=MAX_ML),
    )

    async def execute(self) -> None:
        volume_ml = self.number("exchange_volume_ml")
        if volume_ml == 0:
            self.tell("NoEvent", "exchange_volume_ml is 0")
            return
        moved = await self.exchange(media_ml=volume_ml, waste_ml=volume_ml)
        self.tell(
            "DilutionEvent",
            f"exchanged {moved.media_ml:.2f} mL",
            {
                "exchange_volume_ml": volume_ml,
                "volume_actually_cycled_ml": round(moved.waste_ml, 4),
            },
        )
