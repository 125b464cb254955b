"""``standards``: what each photodiode sees of vials of known OD600.

The person puts one standard after the other into the reactor and types its OD600 in; the blank
comes last. Each channel gets a curve from OD600 to volts, as the device of its angle; the
device ``od`` stands for all of them. What was seen is judged after each standard; what only the
blank shows, such as a curve that turns, is shown at ``confirm_fit``, where it may be kept or
mended: a session without such doubts never comes there. Source: handbook unit-api §4.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from piod.calibrations.charts import Series, chart, table
from piod.calibrations.devices import OD, od_device
from piod.calibrations.fits import Fit, spline_auto
from piod.calibrations.protocols.inputs import Choice, Number, YesNo
from piod.calibrations.protocols.light import (
    PHOTODIODES,
    angle_map,
    angles_of,
    angles_there,
    check_intensity,
    keep_light,
    photodiodes_of,
    reference_of,
    refuse_too_fast,
)
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
    judge_stray_standard,
    refuse_blocking,
    told,
)
from piod.config import Config
from piod.errors import BadRequest, Conflict, PiodError
from piod.events import JsonValue
from piod.jobs.calibrating import od_standards
from piod.jobs.calibrating.od_standards import OdStandard
from piod.jobs.stirring_settings import SECTION as STIRRING_SECTION

FALLING_ANGLE = "180"
"""There, denser is darker."""
USUAL_RPM, MOST_RPM = 500.0, 10_000.0
MOST_OD600 = 100.0
"""Denser is no culture; more is a slip of the finger."""

BLANK_TO_COME = -1.0
"""Stands for the OD of the blank, which no standard has."""

AGAIN, BLANK = "record another standard", "continue to blank"

PLACE = image("place-standard.svg", "A vial with a standard and a stir bar, above the reactor")
PLACE_BLANK = image("place-blank.svg", "A vial of clear medium with a stir bar, above the reactor")
MEASURING = image("measuring.svg", "A vial in the reactor, in the light of the IR LED")


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


async def settle_rpm(turn: Turn) -> str:
    refuse_too_fast(turn.number("rpm"))
    return "place_standard"


async def measure(turn: Turn, od600: float) -> None:
    """See the standard in the vial, and add it to the data."""
    request = OdStandard(turn.number("rpm"), angles_of(turn), reference_of(turn))
    seen = await turn.run(od_standards.run, request)
    keep_light(turn, seen.reference, seen.ir_led_intensity)
    before = volts_of(turn)
    volts_by_channel = {channel: [*before[channel], seen.volts[channel]] for channel in before}
    keep(turn, [*turn.numbers("od600_values"), od600], volts_by_channel)


async def measure_standard(turn: Turn) -> str:
    od600 = turn.number("od600_value")
    if od600 == 0:
        raise BadRequest(
            "od600_value: an OD600 of 0 is that of the blank, which comes last",
            remediation="Put a standard in and enter its OD600; or go back and on to the blank.",
        )
    if any(math.isclose(od600, before) for before in turn.numbers("od600_values")):
        raise BadRequest(
            f"od600_value: a standard of OD600 {od600:g} has been measured already",
            remediation="Enter the OD600 of the vial that is in the reactor; to measure the same "
            "one again, redo it.",
        )
    await measure(turn, od600)
    return "another_standard"


async def choose_next(turn: Turn) -> str:
    return "place_standard" if turn.text("next_action") == AGAIN else "place_blank"


async def go_back(turn: Turn) -> str:
    if not turn.numbers("od600_values"):
        raise BadRequest("action back: there is no standard yet, so there is nothing to choose")
    return "another_standard"


async def redo_last(turn: Turn) -> str:
    if not turn.numbers("od600_values"):
        raise BadRequest("action redo_last: there is no standard yet that could be done again")
    drop_last(turn)
    return "place_standard"


def drop_last(turn: Turn) -> None:
    ods = turn.numbers("od600_values")
    keep(turn, ods[:-1], {channel: seen[:-1] for channel, seen in volts_of(turn).items()})


async def measure_blank(turn: Turn) -> str:
    od600 = turn.number("od600_blank")
    standards = turn.numbers("od600_values")
    refuse_blocking(judge_blank(od600, standards), "od600_blank")
    refuse_blocking(judge_number_of_standards([*standards, od600]))
    await refuse_taken(turn)
    await measure(turn, od600)
    verdicts = judge_curves(turn, fit_all(turn))
    refuse_blocking(verdicts)
    return "confirm_fit" if verdicts else await finish(turn)


async def confirm(turn: Turn) -> str:
    if turn.flag("keep"):
        return await finish(turn)
    drop_last(turn)
    return "another_standard"


async def refuse_taken(turn: Turn) -> None:
    """Raises Conflict when somebody else has used the name since it was chosen.

    Before the first of several curves is saved, or none of them is.
    """
    if turn.flag("overwrite"):
        return
    name = turn.text("calibration_name")
    taken = [
        device
        for device in devices_named(turn)
        if await turn.exists(OD600Calibration, device, name)
    ]
    if taken:
        raise Conflict(
            f"there is a calibration {name!r} of {' and '.join(taken)} since this session was "
            "begun; nothing has been saved",
            remediation="Delete that one, then take the step again.",
        )


async def finish(turn: Turn) -> str:
    """Save the curves of all channels, then complete."""
    await refuse_taken(turn)
    ods, volts, angles = turn.numbers("od600_values"), volts_of(turn), angles_of(turn)
    fits = fit_all(turn)
    few = judge_number_of_standards(ods)
    verdicts = {channel: [*few, *judge(turn, channel, fits[channel])] for channel in angles}
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
        try:
            links.append(await turn.save(calibration, od_device(angle)))
        except PiodError as refusal:
            if links:
                saved = ", ".join(od_device(one) for one in list(angles.values())[: len(links)])
                refusal.message += f" (saved and active already: {saved})"
            raise
    return turn.complete(
        {
            "title": "The photodiodes are calibrated",
            "calibrations": links,
            **drawn(turn, fits),
            "fits": {channel: fit.view() for channel, fit in fits.items()},
            "verdicts": {
                channel: [verdict.view() for verdict in found]
                for channel, found in verdicts.items()
            },
        }
    )


def fit_all(view: View) -> dict[str, Fit]:
    """The curve of each channel through all that it saw. Raises UnusablePoints."""
    ods = view.numbers("od600_values")
    return {channel: spline_auto(ods, seen) for channel, seen in volts_of(view).items()}


def judge(view: View, channel: str, fit: Fit | None = None) -> list[Verdict]:
    """What is odd about what a channel saw so far, and about its curve once there is one."""
    angle = angles_of(view)[channel]
    falling = angle == FALLING_ANGLE
    ods, volts = view.numbers("od600_values"), volts_of(view)[channel]
    found = judge_standards(ods, volts, f"{angle}°", falling=falling)
    if fit is None:
        return found
    found += judge_rising(fit, "OD600", "V", falling=falling)
    return found or judge_stray_standard(ods, volts, f"{angle}°")


def judge_curves(view: View, fits: Mapping[str, Fit]) -> list[Verdict]:
    return [verdict for channel, fit in fits.items() for verdict in judge(view, channel, fit)]


def doubts(view: View) -> str:
    """What is odd about the standards, with the blank that is to come counted as one."""
    found = [verdict for channel in angles_of(view) for verdict in judge(view, channel)]
    ods = [*view.numbers("od600_values"), BLANK_TO_COME]
    return told([*judge_number_of_standards(ods), *found])


def doubts_of_curves(view: View) -> str:
    return (
        f"{told(judge_curves(view, fit_all(view)))}\n"
        "Keep the curves as they are, or go back: then the last standard or the blank can be "
        "measured again, or others beside them."
    )


def drawn_curves(view: View) -> Data:
    return drawn(view, fit_all(view))


def drawn(view: View, fits: Mapping[str, Fit] | None = None) -> Data:
    """What every channel saw so far, and its curve; nothing before the first standard."""
    curves = {channel: fit.curve for channel, fit in (fits or {}).items()}
    ods, volts = view.numbers("od600_values"), volts_of(view)
    if not ods:
        return {}
    series = [
        Series(channel, f"Channel {channel}, {angle}°", ods, volts[channel], curves.get(channel))
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


BACK = Action(
    "back",
    "Back to what comes next",
    go_back,
    shown=lambda view: bool(view.numbers("od600_values")),
)
REDO_LAST = Action("redo_last", "Do the last standard again", redo_last)


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
        there = angles_there(config).values()
        single = [od_device(angle) for angle in ANGLES[:3] if angle in there]
        return [*single, OD] if len(single) > 1 else single

    @classmethod
    def takes(cls, device: str, config: Config) -> bool:
        # of one photodiode, "all" is offered to nobody, but may be asked for
        return device in cls.devices_of(config) or (device == OD and bool(angles_there(config)))

    @classmethod
    def describe(cls, device: str) -> dict[str, str]:
        angle = device.removeprefix(OD)
        return {"sensor": f"the photodiode at {angle}°" if angle else "all photodiodes"}

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        config = facts.config
        check_intensity(config)
        refuse_while_running(facts, "stirring", "od_reading")
        photodiodes = photodiodes_of(config, facts.adc_signals)
        if photodiodes.reference is None:
            raise NotNow(
                "no photodiode looks at the IR LED itself (REF), so its light is not known",
                remediation=f"Name the channel of the reference in [{PHOTODIODES}], such as 1=REF.",
            )
        wanted = device.removeprefix(OD)
        channels = {
            channel: angle for channel, angle in photodiodes.angles.items() if wanted in ("", angle)
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
            "channel_angle_map": angle_map(channels),
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
            then=settle_rpm,
        ),
        Step(
            "place_standard",
            "info",
            lambda view: f"Standard {standard_number(view)}",
            "Put the vial with the standard and a stir bar into the reactor.",
            metadata={"image": PLACE},
            actions=(BACK,),
            then="measure_standard",
        ),
        Step(
            "measure_standard",
            "form",
            lambda view: f"Standard {standard_number(view)}",
            "When you go on, the unit stirs and looks at the standard; that takes half a minute.",
            fields=(
                Number("od600_value", "OD600 of this standard", minimum=0, maximum=MOST_OD600),
            ),
            metadata=lambda view: {"loading_images": [MEASURING], **listed(view)},
            actions=(BACK,),
            then=measure_standard,
        ),
        Step(
            "another_standard",
            "form",
            "What comes next",
            lambda view: f"The blank comes last, after all standards.\n{doubts(view)}".strip(),
            fields=(Choice("next_action", "Next", default=AGAIN, options=(AGAIN, BLANK)),),
            metadata=drawn,
            actions=(REDO_LAST,),
            then=choose_next,
        ),
        Step(
            "place_blank",
            "info",
            "The blank",
            "Put the vial with the blank, clear medium and a stir bar, into the reactor.",
            metadata={"image": PLACE_BLANK},
            actions=(BACK, REDO_LAST),
            then="measure_blank",
        ),
        Step(
            "measure_blank",
            "form",
            "The blank",
            "When you go on, the unit looks at the blank, fits the curves and uses them from then "
            "on.",
            fields=(
                Number(
                    "od600_blank",
                    "OD600 of the blank",
                    minimum=0,
                    maximum=MOST_OD600,
                    help_text="0 for clear medium.",
                ),
            ),
            metadata=lambda view: {
                "loading_images": [MEASURING],
                **listed(view),
                **drawn(view),
            },
            actions=(BACK, REDO_LAST),
            then=measure_blank,
        ),
        Step(
            "confirm_fit",
            "form",
            "Are these curves right?",
            doubts_of_curves,
            fields=(YesNo("keep", "Keep them", default=False),),
            metadata=drawn_curves,
            then=confirm,
        ),
    )
