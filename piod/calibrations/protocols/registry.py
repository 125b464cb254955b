"""The protocols of a unit: built in, and added by plugins while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from piod.calibrations.protocols.dc_based import DcBased
from piod.calibrations.protocols.duration_based import DurationBased
from piod.calibrations.protocols.od_fusion_offset import OdFusionOffset
from piod.calibrations.protocols.od_fusion_standards import OdFusionStandards
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.standards import Standards

PROTOCOLS: tuple[type[CalibrationProtocol], ...] = (
    DurationBased,
    DcBased,
    Standards,
    OdFusionStandards,
    OdFusionOffset,
)
"""Those that piod comes with."""


class ProtocolRegistry:
    """Every protocol, by its name and the device it is for.

    What plugins add may be replaced at any time; whoever looks one up sees the newest.
    """

    def __init__(self, built_in: Sequence[type[CalibrationProtocol]] = PROTOCOLS) -> None:
        self.built_in = tuple(built_in)
        self._all = self.built_in

    def set_added(self, added: Sequence[type[CalibrationProtocol]]) -> None:
        """Let ``added``, in place of what was added before, stand beside the built-in ones."""
        self._all = (*self.built_in, *added)

    def __iter__(self) -> Iterator[type[CalibrationProtocol]]:
        return iter(self._all)
