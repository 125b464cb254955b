"""``dc_based``: the stirrer's speed at each duty cycle.

The unit does it alone, in about a minute: it sweeps duty cycles down, up and down again and
counts the turns. The curve from duty cycle to RPM is what ``stirring`` starts from. A sweep that
makes no curve is refused at the step that ran it, and can be run again there. One that makes a
doubtful curve, such as after points without RPM, is shown at ``confirm_fit`` before it is saved:
it may be kept, or swept again; a good sweep never leads there. Source: handbook unit-api §4.5.
"""

from __future__ import annotations

from itertools import count

from piod.calibrations.charts import Series, chart
from piod.calibrations.devices import STIRRING
from piod.calibrations.fits import Fit, spline_auto
from piod.calibrations.protocols.inputs import YesNo
from piod.calibrations.protocols.protocol import (
    CalibrationProtocol,
    NotNow,
    pwm_channel,
    refuse_while_running,
)
from piod.calibrations.protocols.steps import Step, image
from piod.calibrations.protocols.turn import Data, Facts, Turn, View
from piod.calibrations.records import RecordedData, StirringCalibration
from piod.calibrations.verdicts import (
    Verdict,
    judge_outliers,
    judge_rising,
    judge_sweep,
    refuse_blocking,
    told,
)
from piod.errors import ConfigurationError
from piod.events import JsonValue
from piod.jobs.calibrating import aux_voltage, stirring_sweep
from piod.jobs.calibrating.aux_voltage import AuxVoltage
from piod.jobs.calibrating.stirring_sweep import StirringSweep

ROLE = "stirring"
TURNING = image("stirring.svg", "A vial in the reactor, its stir bar turning")


async def settle_name(turn: Turn) -> str:
    """The name by the time; whether it is taken is seen when the curve is saved."""
    turn.data["calibration_name"] = f"stirring-calibration-{turn.facts.now:%Y-%m-%d_%H-%M}"
    return "run_calibration"


async def sweep(turn: Turn) -> str:
    """Sweep and fit; then save, unless there are doubts."""
    swept = await turn.run(
        stirring_sweep.run, StirringSweep(_end(turn, "min_dc"), _end(turn, "max_dc"))
    )
    turn.data["duty_percent"] = list[JsonValue](swept.duty_percent)
    turn.data["rpm"] = list[JsonValue](swept.rpm)
    turn.data["still_percent"] = list[JsonValue](swept.still_percent)
    turn.data["pwm_hz"] = swept.pwm_hz
    refuse_blocking(judge_points(turn))
    verdicts = judge(turn)
    refuse_blocking(verdicts)
    rail = await turn.run(aux_voltage.run, AuxVoltage())
    turn.data["voltage"], turn.data["voltage_doubt"] = rail.volts, rail.doubt
    return "confirm_fit" if verdicts else await finish(turn)


async def confirm(turn: Turn) -> str:
    return await finish(turn) if turn.flag("keep") else "run_calibration"


async def finish(turn: Turn) -> str:
    """Save, complete."""
    fit, doubt = fitted(turn), turn.data["voltage_doubt"]
    calibration = StirringCalibration(
        calibration_name=await free_name(turn),
        calibrated_on_pioreactor_unit=turn.facts.unit_name,
        created_at=turn.facts.now,
        curve_data_=fit.curve,
        x=StirringCalibration.default_x,
        y=StirringCalibration.default_y,
        recorded_data=RecordedData(fit.x, fit.y),
        raw={},
        pwm_hz=turn.number("pwm_hz"),
        voltage=turn.number("voltage"),
    )
    link = await turn.save(calibration)
    return turn.complete(
        {
            "title": "The stirrer is calibrated",
            "calibrations": [link],
            **drawn(turn),
            "fit": fit.view(),
            "verdicts": [verdict.view() for verdict in judge(turn)],
            "doubts": [] if doubt is None else [doubt],
        }
    )


async def free_name(turn: Turn) -> str:
    """That of the session, or the next by number that nobody else has taken meanwhile."""
    base = name = turn.text("calibration_name")
    for number in count(2):
        if not await turn.exists(StirringCalibration, turn.device, name):
            break
        name = f"{base}-{number}"
    return name


def fitted(view: View) -> Fit:
    """The curve through the points at which it turned. Raises UnusablePoints."""
    return spline_auto(view.numbers("duty_percent"), view.numbers("rpm"))


def judge_points(view: View) -> list[Verdict]:
    """What is odd about the points, those at which it stood still among them."""
    turning, still = view.numbers("duty_percent"), view.numbers("still_percent")
    return judge_sweep([*turning, *still], [*view.numbers("rpm"), *(0.0 for _ in still)])


def judge(view: View) -> list[Verdict]:
    """What is odd about the points and the curve."""
    fit = fitted(view)
    return [
        *judge_points(view),
        *judge_rising(fit, "%", "RPM", blocks=True),
        *judge_outliers(fit, "%", "RPM"),
    ]


def drawn(view: View) -> Data:
    fit = fitted(view)
    series = Series("measured", "Measured", fit.x, fit.y, fit.curve)
    return {"chart": chart("Speed by duty cycle", "Duty cycle (%)", "RPM", [series])}


def _end(turn: Turn, key: str) -> float | None:
    """Of the range; None, as browsers leave it: around [stirring.config] initial_duty_cycle."""
    return None if turn.data[key] is None else turn.number(key)


class DcBased(CalibrationProtocol):
    """Duty cycle to RPM."""

    name = "dc_based"
    devices = (STIRRING,)
    title = "Speed by duty cycle"
    description = (
        "Step the stirrer through duty cycles, measure its speed at each, and fit the "
        "curve from duty cycle to RPM."
    )
    requirements = (
        "A vial with a stir bar, holding as much liquid as in an experiment",
        "The vial in the Pioreactor",
    )

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        refuse_while_running(facts, "stirring")
        pwm_channel(facts, ROLE, STIRRING)
        try:
            stirring_sweep.duties(StirringSweep(), facts.config)
        except ConfigurationError as refusal:
            raise NotNow(
                refusal.message, remediation="Set it to a number of percent, such as 30."
            ) from refusal
        return {"min_dc": None, "max_dc": None}

    steps = (
        Step(
            "intro",
            "info",
            "Calibrate the stirrer",
            "piod measures how fast the stirrer turns at each duty cycle, so that it comes to a "
            "speed at once.\n"
            "Put a vial with a stir bar and as much liquid as in your experiments into the "
            "reactor.",
            metadata={"image": image("intro-stirring.svg", "A vial with a stir bar")},
            then=settle_name,
        ),
        Step(
            "run_calibration",
            "action",
            "Measure the speed",
            "When you go on, the unit stirs at 15 duty cycles and measures the speed at each; that "
            "takes a little more than a minute. Leave the vial where it is meanwhile.",
            metadata={"image": TURNING, "loading_images": [TURNING]},
            then=sweep,
        ),
        Step(
            "confirm_fit",
            "form",
            "Is this curve right?",
            lambda view: f"{told(judge(view))}\nKeep the curve as it is, or sweep again.",
            fields=(YesNo("keep", "Keep it", default=False),),
            metadata=drawn,
            then=confirm,
        ),
    )
