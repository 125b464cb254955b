"""The calibration protocols that a unit offers, as a client lists them.

:func:`calibration_protocols` is pure: what is offered depends on the photodiodes
that the configuration names. Source: handbook unit-api.md §4.1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from piod.calibrations.devices import OD, PUMPS, STIRRING, od_device
from piod.calibrations.estimators import ANGLES, FUSED_DEVICE


@dataclass(frozen=True)
class Protocol:
    """One protocol for one device. Of several for a device, that of the least ``priority``
    comes first."""

    target_device: str
    protocol_name: str
    priority: int
    title: str
    description: str
    requirements: tuple[str, ...]

    @property
    def id(self) -> str:
        """Device and protocol in one text."""
        return f"{self.target_device}_{self.protocol_name}"


def calibration_protocols(photodiodes: Collection[str]) -> Sequence[Protocol]:
    """The protocols, by device, priority and title.

    ``photodiodes``: what the channels see (``REF``, ``45``, ``90``, …), as
    ``[od_config.photodiode_channel]`` has it. A pump or fused protocol is there
    even when the unit cannot run it: starting it then tells why.
    """
    angles = [angle for angle in ANGLES if angle in photodiodes]
    od_devices = [od_device(angle) for angle in angles]
    if len(angles) >= 2:
        od_devices.append(OD)
    protocols: Iterable[Protocol] = (
        *(_pump(device) for device in PUMPS),
        _STIRRING,
        *(_standards(device) for device in od_devices),
        _FUSED,
        _FUSED_OFFSET,
    )
    return sorted(protocols, key=lambda p: (p.target_device, p.priority, p.title))


def _pump(device: str) -> Protocol:
    pump = device.replace("_", " ")
    return Protocol(
        target_device=device,
        protocol_name="duration_based",
        priority=99,
        title="Volume by running time",
        description=f"Run the {pump} for a few lengths of time, measure what it moved, and fit "
        "the line from seconds to millilitres.",
        requirements=(
            f"A PWM channel with the role of the {pump}, and the pump connected to it",
            "A vial, and a container of clean water",
            "A scale or a graduated cylinder",
        ),
    )


_STIRRING = Protocol(
    target_device=STIRRING,
    protocol_name="dc_based",
    priority=99,
    title="Speed by duty cycle",
    description="Step the stirrer through duty cycles, measure its speed at each, and fit the "
    "curve from duty cycle to RPM.",
    requirements=(
        "A vial with a stir bar, holding as much liquid as in an experiment",
        "The vial in the Pioreactor",
    ),
)


def _standards(device: str) -> Protocol:
    sensor = "all photodiodes" if device == OD else f"the photodiode at {device[len(OD) :]}°"
    return Protocol(
        target_device=device,
        protocol_name="standards",
        priority=99,
        title="OD600 by standards",
        description=f"Read vials of known OD600, the blank last, with {sensor}, and fit the "
        "curve from OD600 to voltage for each channel.",
        requirements=(
            "Standards of known OD600, one of them the blank",
            "A vial for each standard, or one to be rinsed in between",
            "Stir bars",
        ),
    )


_XR = "A Pioreactor XR with photodiodes at 45°, 90° and 135°"

_FUSED = Protocol(
    target_device=FUSED_DEVICE,
    protocol_name="od_fusion_standards",
    priority=1,
    title="Fused OD by standards",
    description="Read vials of known OD at three angles, several times each, and fit the model "
    "that makes one OD of the three.",
    requirements=(
        _XR,
        "At least four standards of known OD; a blank is none of them",
        "Stir bars",
    ),
)

_FUSED_OFFSET = Protocol(
    target_device=FUSED_DEVICE,
    protocol_name="od_fusion_offset",
    priority=2,
    title="Fused OD corrected at two points",
    description="Take a fused model that exists, of this unit or another, and shift and scale "
    "it by what two standards read here.",
    requirements=(
        _XR,
        "A fused OD estimator on this unit or on another of the cluster",
        "Two standards of known and different OD",
    ),
)
