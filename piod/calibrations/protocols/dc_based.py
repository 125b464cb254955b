"""``dc_based``: the stirrer's speed at each duty cycle.

One sweep of the hardware, no inputs of the person. Source: handbook unit-api §4.5.
"""

from __future__ import annotations

from piod.calibrations.charts import Series, chart
from piod.calibrations.devices import STIRRING
from piod.calibrations.fits import spline_auto
from piod.calibrations.protocols.protocol import CalibrationProtocol, refuse_while_running
from piod.calibrations.protocols.steps import Step, image
from piod.calibrations.protocols.turn import Data, Facts, Turn
from piod.calibrations.records import RecordedData, StirringCalibration
from piod.calibrations.verdicts import judge_rising, judge_sweep, refuse_blocking
from piod.events import JsonValue
from piod.jobs.calibrating import aux_voltage, stirring_sweep
from piod.jobs.calibrating.aux_voltage import AuxVoltage
from piod.jobs.calibrating.stirring_sweep import StirringSweep

TURNING = image("stirring.svg", "A vial in the reactor, its stir bar turning")


async def sweep(turn: Turn) -> str:
    """Measure, fit, save, complete."""
    swept = await turn.run(
        stirring_sweep.run, StirringSweep(_limit(turn, "min_dc"), _limit(turn, "max_dc"))
    )
    still = [0.0] * len(swept.still_percent)
    verdicts = judge_sweep([*swept.duty_percent, *swept.still_percent], [*swept.rpm, *still])
    refuse_blocking(verdicts)
    fit = spline_auto(swept.duty_percent, swept.rpm)
    verdicts += judge_rising(fit, "%", "RPM", blocks=True)
    refuse_blocking(verdicts)
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
            "verdicts": list[JsonValue](verdict.view() for verdict in verdicts),
            "doubts": [] if rail.doubt is None else [rail.doubt],
        }
    )


def _limit(turn: Turn, key: str) -> float | None:
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
        # named now, so that a sweep which is done again after a power cut replaces its own
        name = f"stirring-calibration-{facts.now:%Y-%m-%d_%H-%M}"
        return {"calibration_name": name, "overwrite": True, "min_dc": None, "max_dc": None}

    steps = (
        Step(
            "intro",
            "info",
            "Calibrate the stirrer",
            "Put a vial with a stir bar and as much liquid as in an experiment into the reactor.",
            metadata={"image": image("intro-stirring.svg", "A vial with a stir bar")},
            then="run_calibration",
        ),
        Step(
            "run_calibration",
            "action",
            "Measure the speed",
            "When you go on, the unit stirs at 15 duty cycles and measures the speed at each; that "
            "takes a little more than a minute.",
            metadata={"image": TURNING, "loading_images": [TURNING]},
            then=sweep,
        ),
    )
