"""silent: pumps nothing; for an experiment whose volumes are to be shown."""

from __future__ import annotations

from piod.jobs.dosing_automation import DosingAutomation


class SilentDosing(DosingAutomation):
    """See the module."""

    automation_name = "silent"
    help = "Pump nothing."

    async def execute(self) -> None:
        self.tell("NoEvent", "never dosing in silent mode")
