"""``dc_based``: the stirrer's speed at each duty cycle.

The unit does it alone, in about a minute: it sweeps duty cycles down, up and down again and
counts the turns. The curve from duty cycle to RPM is what ``stirring`` starts from. A sweep that
makes no curve is refused at the step that ran it, and can be run again there. Source: handbook
unit-api §4.5.
"""

from __future__ import annotations

from itertools import count

from piod.calibrations.charts import Series, chart
from piod.calibrations.devices import STIRRING
from piod.calibrations.fits import spline_auto
from piod.calibrations.protocols.protocol import CalibrationProtocol, NotNow, refuse_while_running
from piod.calibrations.protocols.steps import Step, image
from piod.calibrations.protocols.turn import Data, Facts, Turn
from piod.calibrations.records import RecordedData, StirringCalibration
from piod.calibrations.verdicts import (
    judge_outliers,
    judge_rising,
    judge_sweep,
    refuse_blocking,
)
from piod.errors import ConfigurationError
from piod.jobs.calibrating import aux_voltage, stirring_sweep
from piod.jobs.calibrating.aux_voltage import AuxVoltage
from piod.jobs.calibrating.stirring_sweep import StirringSweep

ROLE = "stirring"
TURNING = image("stirring.svg", "A vial in the reactor, its stir bar turning")


async def settle_name(turn: Turn) -> str:
    """Once, and before the sweep: the calibration of a step that is repeated has one name."""
    base = f"stirring-calibration-{turn.facts.now:%Y-%m-%d_%H-%M}"
    name = base
    for number in count(2):
        if not await turn.exists(StirringCalibration, turn.device, name):
            break
        name = f"{base}-{number}"
    turn.data["calibration_name"] = name
    return "run_calibration"


async def sweep(turn: Turn) -> str:
    """Sweep, fit, save, complete."""
    swept = await turn.run(
        stirring_sweep.run, StirringSweep(_end(turn, "min_dc"), _end(turn, "max_dc"))
    )
    still = swept.still_percent
    verdicts = judge_sweep((*swept.duty_percent, *still), (*swept.rpm, *(0.0 for _ in still)))
    refuse_blocking(verdicts)
    fit = spline_auto(swept.duty_percent, swept.rpm)
    verdicts += judge_rising(fit, "%", "RPM", blocks=True)
    refuse_blocking(verdicts)
    verdicts += judge_outliers(fit, "%", "RPM")
    rail = await turn.run(aux_voltage.run, AuxVoltage())
    calibration = StirringCalibration(
        calibration_name=turn.text("calibration_name"),
        calibrated_on_pioreactor_unit=turn.facts.unit_name,
        created_at=turn.facts.now,
        curve_data_=fit.curve,
        x=StirringCalibration.default_x,
        y=StirringCalibration.default_y,
        recorded_data=RecordedData(swept.duty_percent, swept.rpm),
        raw={},
        pwm_hz=swept.pwm_hz,
        voltage=rail.volts,
    )
    link = await turn.save(calibration)
    series = Series("measured", "Measured", fit.x, fit.y, fit.curve)
    return turn.complete(
        {
            "title": "The stirrer is calibrated",
            "calibrations": [link],
            "chart": chart("Speed by duty cycle", "Duty cycle (%)", "RPM", [series]),
            "fit": fit.view(),
            "verdicts": [verdict.view() for verdict in verdicts],
            "doubts": [] if rail.doubt is None else [rail.doubt],
        }
    )


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
        if ROLE not in facts.config.pwm_roles():
            raise NotNow(
                f"no PWM channel has the role {ROLE!r}, so there is no stirrer to calibrate",
                remediation=f"Give a channel the role in the section [PWM], such as 1={ROLE}.",
            )
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
    )
