"""What is calibrated, and with which type of calibration.

The devices that piod knows; plugins may add others under any name, and of those
nothing is known.
"""

from __future__ import annotations

import re

from piod.calibrations.estimators import FUSED_DEVICE
from piod.calibrations.records import (
    Calibration,
    OD600Calibration,
    ODCalibration,
    PumpCalibration,
    StirringCalibration,
)
from piod.errors import BadRequest

PUMPS = ("media_pump", "alt_media_pump", "waste_pump")
STIRRING = "stirring"
OD = "od"
"""All photodiodes together; legacy."""

RESERVED = "sessions"
"""A segment of the API's paths, so no device may be called so."""

_OD_DEVICE = re.compile(r"od[0-9]*")
_OD_TYPES = (ODCalibration.calibration_type, OD600Calibration.calibration_type)


def od_device(angle: str) -> str:
    """The device of the photodiode at ``angle`` (``45``)."""
    return f"{OD}{angle}"


def check_fits(calibration: Calibration, device: str) -> None:
    """BadRequest when ``device`` is not calibrated with that type of calibration."""
    if device == RESERVED:
        raise BadRequest(
            f"no device may be called {RESERVED!r}",
            remediation="Send the calibration to the device that it is for.",
        )
    if device == FUSED_DEVICE:
        raise BadRequest(f"{FUSED_DEVICE} takes no calibrations, only estimators")
    fitting = _types_for(device)
    if fitting and calibration.calibration_type not in fitting:
        raise BadRequest(
            f"calibration_type {calibration.calibration_type!r} does not fit the device "
            f"{device!r}, which takes {' or '.join(fitting)}",
            remediation="Send the calibration to the device that it is for.",
        )


def _types_for(device: str) -> tuple[str, ...]:
    """The types that fit; empty when nothing is known of the device."""
    if device.endswith("_pump"):
        return (PumpCalibration.calibration_type,)
    if device == STIRRING:
        return (StirringCalibration.calibration_type,)
    return _OD_TYPES if _OD_DEVICE.fullmatch(device) else ()
