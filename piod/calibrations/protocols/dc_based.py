"""``dc_based``: the stirrer's speed at each duty cycle. Its steps are not built yet."""

from __future__ import annotations

from piod.calibrations.devices import STIRRING
from piod.calibrations.protocols.protocol import CalibrationProtocol, refuse_while_running
from piod.calibrations.protocols.turn import Data, Facts


class DcBased(CalibrationProtocol):
    """Duty cycle to RPM."""

    name = "dc_based"
    devices = (STIRRING,)
    title = "Speed by duty cycle"
    description = (
        "Step the stirrer through duty cycles, measure its speed at each, and fit the "
        "curve from duty cycle to RPM."
    )
    requirements = (
        "A vial with a stir bar, holding as much liquid as in an experiment",
        "The vial in the Pioreactor",
    )
    steps = ()

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        refuse_while_running(facts, "stirring")
        return {"min_dc": None, "max_dc": None}
