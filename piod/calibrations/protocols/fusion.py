"""What the two protocols of the fused OD have in common: what they need, and how they look.

A look is four samples of one standard, at three angles and four speeds. Source: handbook
unit-api §4.7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from piod.calibrations.estimators import ANGLES
from piod.calibrations.protocols.light import (
    PHOTODIODES,
    angle_map,
    angles_of,
    check_intensity,
    keep_light,
    photodiodes_of,
    reference_of,
)
from piod.calibrations.protocols.protocol import NotNow, refuse_while_running
from piod.calibrations.protocols.steps import image
from piod.calibrations.protocols.turn import Facts, Turn
from piod.events import JsonValue
from piod.jobs.calibrating import od_fusion
from piod.jobs.calibrating.od_fusion import FusionObservation

XR = "A Pioreactor XR with photodiodes at 45°, 90° and 135°"
XR_SUFFIX = "_XR"
SAMPLES = 4
USUAL_RPM = 500.0

STANDARDS = image("standards.svg", "Vials of rising optical density")
PLACE = image("place-standard.svg", "A vial with a standard and a stir bar, above the reactor")
REMOVE = image("remove-vial.svg", "The vial is taken out of the reactor")
MEASURING = image("measuring.svg", "A vial in the reactor, in the light of the IR LED")

PLACE_TEXT = "Put the vial with the standard and a stir bar into the reactor."
LOOK_TEXT = (
    "When you go on, the unit stirs at several speeds and looks at the standard; that takes half "
    "a minute. Leave the vial where it is meanwhile."
)


def start_checks(facts: Facts) -> dict[str, JsonValue]:
    """The photodiodes (angle by channel) of a unit that can fuse them; NotNow, with what to do."""
    check_intensity(facts.config)
    refuse_while_running(facts, "stirring", "od_reading")
    if facts.model_name is None or not facts.model_name.endswith(XR_SUFFIX):
        model = "of no known model" if facts.model_name is None else f"a {facts.model_name}"
        raise NotNow(
            f"this unit is {model}; a fused OD needs the photodiodes of a Pioreactor XR",
            remediation="Use the protocol standards for the photodiodes of this unit; if it is an "
            "XR, correct its model in the inventory of its leader.",
        )
    angles = {
        channel: angle
        for channel, angle in photodiodes_of(facts.config, facts.adc_signals).angles.items()
        if angle in ANGLES
    }
    missing = [f"{angle}°" for angle in ANGLES if angle not in angles.values()]
    if missing:
        raise NotNow(
            f"no photodiode is configured at {', '.join(missing)}; a fused OD needs "
            f"{', '.join(f'{angle}°' for angle in ANGLES)}",
            remediation=f"Name their channels in [{PHOTODIODES}], such as 2=90.",
        )
    return angle_map(angles)


async def look(turn: Turn) -> Sequence[Mapping[str, float]]:
    """See the standard in the vial: volts by angle, one of each sample."""
    request = FusionObservation(
        turn.number("rpm"), angles_of(turn), repeats=SAMPLES, reference=reference_of(turn)
    )
    seen = await turn.run(od_fusion.run, request)
    keep_light(turn, seen.reference, seen.ir_led_intensity)
    return seen.samples


def same_od(one: float, other: float) -> bool:
    """Whether two ODs are one, but for how they were typed."""
    return math.isclose(one, other, rel_tol=1e-6)
