"""``od_fusion_offset``: a fused model shifted and scaled to this unit. Not built yet."""

from __future__ import annotations

from piod.calibrations.estimators import FUSED_DEVICE
from piod.calibrations.protocols.od_fusion_standards import XR
from piod.calibrations.protocols.protocol import CalibrationProtocol


class OdFusionOffset(CalibrationProtocol):
    """A fused model that exists, corrected at two points."""

    name = "od_fusion_offset"
    devices = (FUSED_DEVICE,)
    priority = 2
    title = "Fused OD corrected at two points"
    description = (
        "Take a fused model that exists, of this unit or another, and shift and scale "
        "it by what two standards read here."
    )
    requirements = (
        XR,
        "A fused OD estimator on this unit or on another of the cluster",
        "Two standards of known and different OD",
    )
    steps = ()
