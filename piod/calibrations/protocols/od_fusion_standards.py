"""``od_fusion_standards``: one OD from three angles, fitted to standards. Not built yet."""

from __future__ import annotations

from piod.calibrations.estimators import FUSED_DEVICE
from piod.calibrations.protocols.protocol import CalibrationProtocol

XR = "A Pioreactor XR with photodiodes at 45°, 90° and 135°"


class OdFusionStandards(CalibrationProtocol):
    """Voltages at three angles to one OD."""

    name = "od_fusion_standards"
    devices = (FUSED_DEVICE,)
    priority = 1
    title = "Fused OD by standards"
    description = (
        "Read vials of known OD at three angles, several times each, and fit the model "
        "that makes one OD of the three."
    )
    requirements = (
        XR,
        "At least four standards of known OD; a blank is none of them",
        "Stir bars",
    )
    steps = ()
