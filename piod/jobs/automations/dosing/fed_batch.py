"""fed_batch: adds a volume each ``duration``, and takes nothing out.

It ends up asleep when the next dose would bring the vial to its maximum.
"""

from __future__ import annotations

from piod.jobs.dosing_automation import MAX_ML, DosingAutomation
from piod.jobs.job import Option, Setting


class FedBatch(DosingAutomation):
    """See the module."""

    automation_name = "fed_batch"
    help = "Add media at regular times, and remove nothing."
    pumps = ("media",)
    options = (Option("dosing_volume_ml", "float", "mL", required=True, minimum=0, maximum=MAX_ML),)
    settings = (
        Setting("dosing_volume_ml", "float", settable=True, unit="mL", minimum=0, maximum=MAX_ML),
    )

    async def execute(self) -> None:
        volume_ml = self.number("dosing_volume_ml")
        if volume_ml == 0:
            self.tell("NoEvent", "dosing_volume_ml is 0")
            return
        moved_ml = await self.dose("media", volume_ml)
        self.tell(
            "AddMediaEvent",
            f"added {moved_ml:.2f} mL of media",
            {"volume_actually_moved_ml": round(moved_ml, 4)},
        )
