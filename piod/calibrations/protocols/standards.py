"""``standards``: what each photodiode sees of vials of known OD600.

The person puts one standard after the other into the reactor and types its OD600 in; the blank
comes last. Each channel gets a curve from OD600 to volts, as the device of its angle; the
device ``od`` stands for all of them. Source: handbook unit-api §4.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from piod.calibrations.charts import Series, chart, table
from piod.calibrations.devices import OD, od_device
from piod.calibrations.fits import Fit, spline_auto
from piod.calibrations.protocols.inputs import Choice, Number
from piod.calibrations.protocols.protocol import CalibrationProtocol, NotNow, refuse_while_running
from piod.calibrations.protocols.steps import Action, Step, image, name_steps
from piod.calibrations.protocols.turn import Data, Facts, Turn, View
from piod.calibrations.records import ANGLES, OD600Calibration, RecordedData
from piod.calibrations.verdicts import (
    Verdict,
    judge_blank,
    judge_number_of_standards,
    judge_rising,
    judge_standards,
    refuse_blocking,
    told,
)
from piod.config import Config
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.calibrating import od_standards
from piod.jobs.calibrating.od_standards import OdStandard, OdStandardSeen
from piod.jobs.calibrating.photometer import Reference
from piod.jobs.stirring_settings import SECTION as STIRRING_SECTION

PHOTODIODES = "od_config.photodiode_channel"
OD_SECTION = "od_reading.config"
REFERENCE = "REF"
FALLING_ANGLE = "180"
"""There, denser is darker."""
USUAL_RPM, MOST_RPM = 500.0, 10_000.0

AGAIN, BLANK = "record another standard", "continue to blank"

PLACE = image("place-standard.svg", "A vial with a standard and a stir bar, above the reactor")
PLACE_BLANK = image("place-blank.svg", "A vial of clear medium with a stir bar, above the reactor")
MEASURING = image("measuring.svg", "A vial in the reactor, in the light of the IR LED")


def photodiode_angles(config: Config) -> dict[str, str]:
    """Angle by channel, of the photodiodes that see the culture."""
    channels = config.items(PHOTODIODES)
    return {channel: seen for channel, seen in sorted(channels.items()) if seen in ANGLES}


def refuse_auto_intensity(config: Config) -> None:
    """Raises NotNow: a calibration holds for one intensity of the IR LED."""
    if config.text(OD_SECTION, "ir_led_intensity", "") == "auto":
        raise NotNow(
            "ir_led_intensity is auto; a calibration holds for one intensity of the IR LED",
            remediation=f"Set a number as ir_led_intensity in [{OD_SECTION}], such as 80.",
        )


def angles_of(view: View) -> dict[str, str]:
    """Angle by channel."""
    angles = view.data["channel_angle_map"]
    assert isinstance(angles, dict)
    return {channel: str(angle) for channel, angle in angles.items()}


def volts_of(view: View) -> dict[str, list[float]]:
    """What each channel saw of each standard so far."""
    volts = view.data["voltages_by_channel"]
    assert isinstance(volts, dict)
    return {
        channel: [float(one) for one in seen if isinstance(one, int | float)]
        for channel, seen in volts.items()
        if isinstance(seen, list)
    }


def keep(turn: Turn, ods: Sequence[float], volts: Mapping[str, Sequence[float]]) -> None:
    turn.data["od600_values"] = list(ods)
    turn.data["voltages_by_channel"] = {channel: list(seen) for channel, seen in volts.items()}


def devices_named(view: View) -> list[str]:
    """The devices that get a calibration of the chosen name."""
    return sorted({od_device(angle) for angle in angles_of(view).values()})


async def name_settled(turn: Turn) -> str:
    return "channel_confirm" if len(angles_of(turn)) > 1 else "rpm_input"


async def measure(turn: Turn, od600: float) -> OdStandardSeen:
    """See the standard in the vial, and add it to the data."""
    light = turn.data.get("reference")
    reference = None
    if isinstance(light, dict):
        percent, volts = light["percent"], light["volts"]
        assert isinstance(percent, int | float)
        assert volts is None or isinstance(volts, int | float)
        reference = Reference(percent, volts)
    request = OdStandard(turn.number("rpm"), angles_of(turn), reference)
    seen = await turn.run(od_standards.run, request)
    turn.data["reference"] = {"percent": seen.reference.percent, "volts": seen.reference.volts}
    turn.data["ir_led_intensity"] = seen.ir_led_intensity
    before = volts_of(turn)
    volts_by_channel = {channel: [*before[channel], seen.volts[channel]] for channel in before}
    keep(turn, [*turn.numbers("od600_values"), od600], volts_by_channel)
    return seen


async def measure_standard(turn: Turn) -> str:
    od600 = turn.number("od600_value")
    if od600 in turn.numbers("od600_values"):
        raise BadRequest(
            f"od600_value: a standard of OD600 {od600:g} has been measured already",
            remediation="Enter the OD600 of the vial that is in the reactor; to measure the same "
            "one again, redo it.",
        )
    await measure(turn, od600)
    return "another_standard"


async def choose_next(turn: Turn) -> str:
    return "place_standard" if turn.text("next_action") == AGAIN else "place_blank"


async def redo_last(turn: Turn) -> str:
    ods = turn.numbers("od600_values")
    if not ods:
        raise BadRequest("action redo_last: there is no standard yet that could be done again")
    keep(turn, ods[:-1], {channel: seen[:-1] for channel, seen in volts_of(turn).items()})
    return "place_standard"


async def measure_blank(turn: Turn) -> str:
    od600 = turn.number("od600_blank")
    standards = turn.numbers("od600_values")
    refuse_blocking(judge_blank(od600, standards))
    refuse_blocking(judge_number_of_standards([*standards, od600]))
    await measure(turn, od600)
    return await finish(turn)


async def finish(turn: Turn) -> str:
    """Fit all channels, then save each, then complete."""
    ods, volts, angles = turn.numbers("od600_values"), volts_of(turn), angles_of(turn)
    fits = {channel: spline_auto(ods, volts[channel]) for channel in angles}
    verdicts = {channel: judge(turn, channel, fits[channel]) for channel in angles}
    refuse_blocking([each for one in verdicts.values() for each in one])
    links: list[JsonValue] = []
    for channel, angle in angles.items():
        calibration = OD600Calibration(
            calibration_name=turn.text("calibration_name"),
            calibrated_on_pioreactor_unit=turn.facts.unit_name,
            created_at=turn.facts.now,
            curve_data_=fits[channel].curve,
            x=OD600Calibration.default_x,
            y=OD600Calibration.default_y,
            recorded_data=RecordedData(tuple(ods), tuple(volts[channel])),
            raw={},
            ir_led_intensity=turn.number("ir_led_intensity"),
            angle=angle,
            pd_channel=channel,
        )
        links.append(await turn.save(calibration, od_device(angle)))
    return turn.complete(
        {
            "title": "The photodiodes are calibrated",
            "calibrations": links,
            "fits": {channel: fit.view() for channel, fit in fits.items()},
            "verdicts": {
                channel: [verdict.view() for verdict in found]
                for channel, found in verdicts.items()
            },
        }
    )


def judge(view: View, channel: str, fit: Fit | None = None) -> list[Verdict]:
    """What is odd about what a channel saw so far, and about its curve once there is one."""
    angle = angles_of(view)[channel]
    falling = angle == FALLING_ANGLE
    ods, volts = view.numbers("od600_values"), volts_of(view)[channel]
    found = judge_standards(ods, volts, f"{angle}°", falling=falling)
    if fit is not None:
        found += judge_number_of_standards(ods)
        found += judge_rising(fit, "OD600", "V", falling=falling)
    return found


def doubts(view: View) -> str:
    return told([verdict for channel in angles_of(view) for verdict in judge(view, channel)])


def drawn(view: View) -> Data:
    """What every channel saw so far; nothing before the first standard."""
    ods, volts = view.numbers("od600_values"), volts_of(view)
    if not ods:
        return {}
    series = [
        Series(channel, f"Channel {channel}, {angle}°", ods, volts[channel])
        for channel, angle in angles_of(view).items()
    ]
    return {"chart": chart("Voltage by OD600", "OD600", "V", series)}


def listed(view: View) -> Data:
    """The standards so far; nothing before the first."""
    ods = view.numbers("od600_values")
    if not ods:
        return {}
    rows = [(str(number), od600) for number, od600 in enumerate(ods, start=1)]
    return {"table": table("Recorded standards", ["Standard", "OD600"], rows)}


def standard_number(view: View) -> int:
    return len(view.numbers("od600_values")) + 1


def channels_told(view: View) -> str:
    return "\n".join(f"Channel {channel}: {angle}°" for channel, angle in angles_of(view).items())


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

    @classmethod
    def devices_of(cls, config: Config) -> Sequence[str]:
        there = photodiode_angles(config).values()
        single = [od_device(angle) for angle in ANGLES[:3] if angle in there]
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
                "no photodiode looks at the IR LED itself (REF), so its light is not known",
                remediation=f"Name the channel of the reference in [{PHOTODIODES}], such as 1=REF.",
            )
        wanted = device.removeprefix(OD)
        channels = {
            channel: angle
            for channel, angle in photodiode_angles(config).items()
            if wanted in ("", angle)
        }
        if not channels:
            raise NotNow(
                f"no photodiode is configured for {device}",
                remediation=f"Name the channel of its angle in [{PHOTODIODES}].",
            )
        if len(set(channels.values())) < len(channels):
            raise NotNow(
                "two channels are configured for one angle, so one calibration would replace "
                "the other",
                remediation=f"Leave one of them out of [{PHOTODIODES}].",
            )
        return {
            "channel_angle_map": dict[str, JsonValue](channels),
            "channel_summary": ", ".join(f"{c}: {angle}°" for c, angle in channels.items()),
            "devices_for_name_check": list[JsonValue](
                sorted(od_device(angle) for angle in channels.values())
            ),
            "od600_values": [],
            "voltages_by_channel": {channel: [] for channel in channels},
            "rpm": config.number(STIRRING_SECTION, "initial_target_rpm", USUAL_RPM, minimum=0),
        }

    steps = (
        Step(
            "intro",
            "info",
            "Calibrate the optical density",
            "You put standards of known OD600 into the reactor, one after the other and the blank "
            "last; the unit looks at each.\n"
            "Have at least two standards and the blank ready, of the volume of an experiment. "
            "Wipe the vials dry, and leave the reactor where it is meanwhile.",
            metadata={"image": image("standards.svg", "Vials of rising optical density")},
            then="name_input",
        ),
        *name_steps(
            OD600Calibration,
            name_settled,
            default=lambda view: f"od-cal-{view.facts.date}",
            devices=devices_named,
            title="Name the calibration",
        ),
        Step(
            "channel_confirm",
            "info",
            "These photodiodes are calibrated",
            channels_told,
            then="rpm_input",
        ),
        Step(
            "rpm_input",
            "form",
            "How fast to stir",
            "Stir as in the experiments that will use the calibration.",
            fields=lambda view: (
                Number("rpm", "Speed (RPM)", default=view.data["rpm"], minimum=0, maximum=MOST_RPM),
            ),
            then="place_standard",
        ),
        Step(
            "place_standard",
            "info",
            lambda view: f"Standard {standard_number(view)}",
            "Put the vial with the standard and a stir bar into the reactor.",
            metadata={"image": PLACE},
            then="measure_standard",
        ),
        Step(
            "measure_standard",
            "form",
            lambda view: f"Standard {standard_number(view)}",
            "When you go on, the unit stirs and looks at the standard; that takes half a minute.",
            fields=(Number("od600_value", "OD600 of this standard", minimum=0),),
            metadata=lambda view: {"loading_images": [MEASURING], **listed(view)},
            then=measure_standard,
        ),
        Step(
            "another_standard",
            "form",
            "What comes next",
            lambda view: f"The blank comes last, after all standards.\n{doubts(view)}".strip(),
            fields=(Choice("next_action", "Next", default=AGAIN, options=(AGAIN, BLANK)),),
            metadata=drawn,
            actions=(Action("redo_last", "Do the last standard again", redo_last),),
            then=choose_next,
        ),
        Step(
            "place_blank",
            "info",
            "The blank",
            "Put the vial with the blank, clear medium and a stir bar, into the reactor.",
            metadata={"image": PLACE_BLANK},
            then="measure_blank",
        ),
        Step(
            "measure_blank",
            "form",
            "The blank",
            "When you go on, the unit looks at the blank, fits the curves and uses them from then "
            "on.",
            fields=(Number("od600_blank", "OD600 of the blank", default=0, minimum=0),),
            metadata=lambda view: {
                "loading_images": [MEASURING],
                **listed(view),
                **drawn(view),
            },
            then=measure_blank,
        ),
    )
