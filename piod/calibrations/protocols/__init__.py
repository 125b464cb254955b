"""Calibration protocols: what a session walks a person through.

- :mod:`.protocol`: what a protocol is; each stands in a module of its own name;
- :mod:`.steps`, :mod:`.inputs`: what it is made of;
- :mod:`.turn`: what a step sees and may do;
- :mod:`.engine`: how a session goes on;
- :mod:`.registry`, :mod:`.listing`: which there are.

Pure: the world is reached through a :class:`~.turn.Bench` alone.
"""

from __future__ import annotations

from piod.calibrations.protocols.listing import Protocol, calibration_protocols, find_protocol
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.registry import PROTOCOLS, ProtocolRegistry

__all__ = [
    "PROTOCOLS",
    "CalibrationProtocol",
    "Protocol",
    "ProtocolRegistry",
    "calibration_protocols",
    "find_protocol",
]
