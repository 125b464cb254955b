"""What the protocols of photodiodes have in common: which there are, and the light they see by.

All standards of a session are seen in the light of its first one: the data keep that as
``reference``, and every later measurement is told it.
"""

from __future__ import annotations

from collections.abc import Collection

from piod.calibrations.protocols.protocol import NotNow
from piod.calibrations.protocols.turn import Turn, View
from piod.config import Config
from piod.errors import BadRequest, ConfigurationError
from piod.events import JsonValue
from piod.jobs.calibrating.photometer import Reference
from piod.jobs.od.photodiodes import CHANNELS, Photodiodes, signal_of
from piod.jobs.od.photodiodes import SECTION as PHOTODIODES
from piod.jobs.od_reading import AUTO, USUAL_PERCENT
from piod.jobs.stirring_settings import MAX_TARGET_RPM

OD_SECTION = "od_reading.config"


def photodiodes_of(config: Config, adc_signals: Collection[str] | None = None) -> Photodiodes:
    """As od_reading takes the configuration. Raises ConfigurationError.

    ``adc_signals``: those that are wired; None: not known, or not asked about.
    """
    every = [signal_of(channel) for channel in CHANNELS]
    return Photodiodes.of(config, every if adc_signals is None else adc_signals)


def angles_there(config: Config) -> dict[str, str]:
    """Angle by channel, of the photodiodes that see the vial; none if that makes no sense."""
    try:
        return dict(photodiodes_of(config).angles)
    except ConfigurationError:
        return {}


def check_intensity(config: Config) -> None:
    """Raises NotNow: a calibration holds for one intensity of the IR LED; ConfigurationError."""
    if config.text(OD_SECTION, "ir_led_intensity", "").strip().lower() == AUTO:
        raise NotNow(
            "ir_led_intensity is auto; a calibration holds for one intensity of the IR LED",
            remediation=f"Set a number as ir_led_intensity in [{OD_SECTION}], such as 80.",
        )
    config.number(OD_SECTION, "ir_led_intensity", USUAL_PERCENT, minimum=1, maximum=100)


def refuse_too_fast(rpm: float) -> None:
    """Raises BadRequest, here and not only at the first standard."""
    if rpm > MAX_TARGET_RPM:
        raise BadRequest(f"rpm must be at most {MAX_TARGET_RPM:g}, got {rpm:g}")


def angle_map(angles: dict[str, str]) -> dict[str, JsonValue]:
    """``angles`` as the data keep them."""
    return {channel: angles[channel] for channel in sorted(angles)}


def angles_of(view: View) -> dict[str, str]:
    """Angle by channel, of the photodiodes that this session calibrates."""
    angles = view.data["channel_angle_map"]
    assert isinstance(angles, dict)
    return {channel: str(angle) for channel, angle in angles.items()}


def reference_of(view: View) -> Reference | None:
    """The light of the first standard; None: there was none yet."""
    light = view.data.get("reference")
    if not isinstance(light, dict):
        return None
    percent, volts = light["percent"], light["volts"]
    assert isinstance(percent, int | float)
    assert volts is None or isinstance(volts, int | float)
    return Reference(percent, volts)


def keep_light(turn: Turn, reference: Reference, ir_led_intensity: float) -> None:
    """Keep the light that a standard was seen in, for the next one and for the result."""
    turn.data["reference"] = {"percent": reference.percent, "volts": reference.volts}
    turn.data["ir_led_intensity"] = ir_led_intensity


__all__ = [
    "OD_SECTION",
    "PHOTODIODES",
    "angle_map",
    "angles_of",
    "angles_there",
    "check_intensity",
    "keep_light",
    "photodiodes_of",
    "reference_of",
    "refuse_too_fast",
]
