"""``standards``: what each photodiode sees of vials of known OD600. Not all steps are built yet.

``od`` stands for all photodiodes. Source: handbook unit-api §4.6.
"""

from __future__ import annotations

from collections.abc import Sequence

from piod.calibrations.devices import OD, od_device
from piod.calibrations.estimators import ANGLES
from piod.calibrations.protocols.protocol import CalibrationProtocol, NotNow, refuse_while_running
from piod.calibrations.protocols.turn import Data, Facts
from piod.config import Config
from piod.events import JsonValue
from piod.jobs.stirring_settings import SECTION as STIRRING_SECTION

PHOTODIODES = "od_config.photodiode_channel"
OD_SECTION = "od_reading.config"
REFERENCE = "REF"
USUAL_RPM = 500.0


def photodiode_angles(config: Config) -> dict[str, str]:
    """Angle by channel, of the photodiodes that see the culture."""
    return {channel: seen for channel, seen in config.items(PHOTODIODES).items() if seen in ANGLES}


def refuse_auto_intensity(config: Config) -> None:
    """Raises NotNow: a calibration holds for one intensity of the IR LED."""
    if config.text(OD_SECTION, "ir_led_intensity", "") == "auto":
        raise NotNow(
            "ir_led_intensity is auto; a calibration holds for one intensity of the IR LED",
            remediation=f"Set a number as ir_led_intensity in [{OD_SECTION}], such as 80.",
        )


class Standards(CalibrationProtocol):
    """OD600 to voltage, for each photodiode."""

    name = "standards"
    aliases = ("od_calibration",)
    title = "OD600 by standards"
    description = (
        "Read vials of known OD600, the blank last, with {sensor}, and fit the "
        "curve from OD600 to voltage for each channel."
    )
    requirements = (
        "Standards of known OD600, one of them the blank",
        "A vial for each standard, or one to be rinsed in between",
        "Stir bars",
    )
    steps = ()

    @classmethod
    def devices_of(cls, config: Config) -> Sequence[str]:
        there = photodiode_angles(config).values()
        single = [od_device(angle) for angle in ANGLES if angle in there]
        return [*single, OD] if len(single) > 1 else single

    @classmethod
    def takes(cls, device: str, config: Config) -> bool:
        # of one photodiode, "all" is offered to nobody, but may be asked for
        return device in cls.devices_of(config) or (
            device == OD and bool(photodiode_angles(config))
        )

    @classmethod
    def describe(cls, device: str) -> dict[str, str]:
        angle = device.removeprefix(OD)
        return {"sensor": f"the photodiode at {angle}°" if angle else "all photodiodes"}

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        config = facts.config
        refuse_auto_intensity(config)
        refuse_while_running(facts, "stirring", "od_reading")
        if REFERENCE not in config.items(PHOTODIODES).values():
            raise NotNow(
                "no photodiode looks at the IR LED itself (REF), so what it gives is not known",
                remediation=f"Name the channel of the reference in [{PHOTODIODES}], such as 1=REF.",
            )
        angles = photodiode_angles(config)
        wanted = device.removeprefix(OD)
        channels: dict[str, JsonValue] = {
            channel: angle for channel, angle in angles.items() if wanted in ("", angle)
        }
        if not channels:
            raise NotNow(
                f"no photodiode is configured for {device}",
                remediation=f"Name the channel of its angle in [{PHOTODIODES}].",
            )
        return {
            "channel_angle_map": channels,
            "od600_values": [],
            "voltages_by_channel": {channel: [] for channel in channels},
            "rpm": config.number(STIRRING_SECTION, "initial_target_rpm", USUAL_RPM, minimum=0),
        }
