"""``duration_based``: how much a pump moves in how many seconds.

The person lets the pump run from water into a vessel, weighs each run, and types the volume in:
a tracer of one second, from which the runs are planned (short, middling and long ones around
the volumes that matter), then the runs. The line through the origin is the calibration. When
something is odd about it, it is shown at ``confirm_fit`` before it is saved, where it may be kept
or the last run be done again: good runs never lead there. Source: handbook unit-api §4.4.
"""

from __future__ import annotations

from piod.calibrations.charts import Series, chart
from piod.calibrations.devices import PUMPS
from piod.calibrations.fits import Fit, line_through_origin
from piod.calibrations.protocols.inputs import Number, Numbers, YesNo
from piod.calibrations.protocols.protocol import CalibrationProtocol, pwm_channel
from piod.calibrations.protocols.steps import Action, Step, image, name_steps
from piod.calibrations.protocols.turn import Data, Facts, Turn, View
from piod.calibrations.records import PumpCalibration, RecordedData
from piod.calibrations.verdicts import (
    Verdict,
    judge_doses,
    judge_pump_fit,
    judge_runs,
    judge_tracer,
    refuse_blocking,
    told,
)
from piod.calibrations.writing import artifact_json
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.calibrating import aux_voltage, pump_run
from piod.jobs.calibrating.aux_voltage import AuxVoltage
from piod.jobs.calibrating.pump_run import LONGEST_S, PumpRun, role_of

TRACER_S = 1.0
LEAST_ML = 0.0001
"""What any scale may show; less is a slip of the finger."""
MOST_ML = 1000.0
BELOW, ABOVE = 0.8, 1.1
"""The runs go from so much of the least volume wanted to so much of the greatest."""
SHORT_RUNS, MIDDLE_RUNS, LONG_RUNS = 4, 2, 4

TUBING = image("tubing-ends-in-water.svg", "Both ends of the tubing in a vessel of water")
MEASURING = image("tracer-run.svg", "The outlet of the tubing over a vessel on a scale")


def planned_runs(targets_ml: list[float], tracer_ml: float) -> list[float]:
    """The seconds of each run, by what ran in TRACER_S."""
    shortest = min(targets_ml) * BELOW / tracer_ml * TRACER_S
    longest = max(targets_ml) * ABOVE / tracer_ml * TRACER_S
    middle = (shortest + longest) / 2
    return [shortest] * SHORT_RUNS + [middle] * MIDDLE_RUNS + [longest] * LONG_RUNS


async def settle_pwm(turn: Turn) -> str:
    if turn.number("dc") <= 0:
        raise BadRequest("dc must be above 0: a pump at 0 % moves nothing")
    return "tubing_into_water"


async def prime(turn: Turn) -> str:
    await run_pump(turn, turn.number("prime_duration_s"))
    return "tracer_run"


async def run_tracer(turn: Turn) -> str:
    await run_pump(turn, TRACER_S)
    return "tracer_volume"


async def plan(turn: Turn) -> str:
    targets, tracer_ml = turn.numbers("mls_to_calibrate_for"), turn.number("volume_ml")
    verdicts = judge_tracer(tracer_ml, targets, tracer_s=TRACER_S, longest_s=LONGEST_S)
    refuse_blocking(verdicts, "volume_ml")
    runs = planned_runs(targets, tracer_ml)
    turn.data["tracer_volume_ml"] = turn.data.pop("volume_ml")
    turn.data["durations_to_test"] = list[JsonValue](runs)
    turn.data["volumes_ml"] = []
    return "test_run"


async def run_test(turn: Turn) -> str:
    await run_pump(turn, next_duration(turn))
    return "test_volume"


async def redo_last(turn: Turn) -> str:
    volumes = turn.numbers("volumes_ml")
    if not volumes:
        raise BadRequest("action redo_last: there is no run yet that could be done again")
    turn.data["volumes_ml"] = list[JsonValue](volumes[:-1])
    return await run_test(turn)


async def note_volume(turn: Turn) -> str:
    volumes = [*turn.numbers("volumes_ml"), turn.number("volume_ml")]
    turn.data["volumes_ml"] = list[JsonValue](volumes)
    del turn.data["volume_ml"]
    if len(volumes) < len(turn.numbers("durations_to_test")):
        return "test_run"
    verdicts = judge(turn)
    refuse_blocking(verdicts)
    return "confirm_fit" if verdicts else await finish(turn)


async def confirm(turn: Turn) -> str:
    if turn.flag("keep"):
        return await finish(turn)
    turn.data["volumes_ml"] = list[JsonValue](turn.numbers("volumes_ml")[:-1])
    return "test_run"


async def finish(turn: Turn) -> str:
    """Save, complete."""
    fit, verdicts = fitted(turn), judge(turn)
    slope, seconds = fit.parameter("slope"), fit.x
    rail = await turn.run(aux_voltage.run, AuxVoltage())
    calibration = PumpCalibration(
        calibration_name=turn.text("calibration_name"),
        calibrated_on_pioreactor_unit=turn.facts.unit_name,
        created_at=turn.facts.now,
        curve_data_=fit.curve,
        x=PumpCalibration.default_x,
        y=PumpCalibration.default_y,
        recorded_data=RecordedData(fit.x, fit.y),
        raw={},
        hz=turn.number("hz"),
        dc=turn.number("dc"),
        voltage=rail.volts,
    )
    link = await turn.save(calibration)
    return turn.complete(
        {
            "title": f"The {turn.device_words} is calibrated",
            "calibration": artifact_json(calibration),
            "calibration_link": link,
            "stats": {
                "slope": slope.value,
                "bias": 0.0,
                "std_slope": slope.std_error,
                "std_bias": 0.0,
            },
            "recommended_volume_range_ml": [
                slope.value * min(seconds),
                slope.value * max(seconds),
            ],
            **measured(turn, fit),
            "fit": fit.view(),
            "verdicts": [verdict.view() for verdict in verdicts],
            "doubts": [] if rail.doubt is None else [rail.doubt],
        }
    )


async def run_pump(turn: Turn, seconds: float) -> None:
    request = PumpRun(turn.device, seconds, hz=turn.number("hz"), duty_percent=turn.number("dc"))
    await turn.run(pump_run.run, request)


def next_duration(view: View) -> float:
    return view.numbers("durations_to_test")[len(view.numbers("volumes_ml"))]


def run_count(view: View) -> str:
    done, all_runs = len(view.numbers("volumes_ml")), len(view.numbers("durations_to_test"))
    return f"Run {done + 1} of {all_runs}"


def fitted(view: View) -> Fit:
    """The line through all runs."""
    return line_through_origin(view.numbers("durations_to_test"), view.numbers("volumes_ml"))


def judge(view: View) -> list[Verdict]:
    """What is odd about all runs, the last one included, and about their line."""
    fit = fitted(view)
    return [*judge_last_dose(view), *judge_runs(fit.x, fit.y), *judge_pump_fit(fit)]


def judge_last_dose(view: View) -> list[Verdict]:
    volumes = view.numbers("volumes_ml")
    seconds = view.numbers("durations_to_test")[: len(volumes)]
    rate = view.number("tracer_volume_ml") / TRACER_S
    return judge_doses(seconds, volumes, tracer_ml_per_s=rate)


def measured(view: View, fit: Fit | None = None) -> Data:
    """The chart of what was measured so far, and its line; nothing before the first run."""
    volumes = view.numbers("volumes_ml")
    if not volumes:
        return {}
    seconds = view.numbers("durations_to_test")[: len(volumes)]
    curve = None if fit is None else fit.curve
    series = Series("measured", "Measured", seconds, volumes, curve)
    return {"chart": chart("Volume by running time", "Seconds", "mL", [series])}


def doubts(view: View) -> str:
    """What is odd so far, while it can be mended: of the tracer, then of the last run."""
    if view.numbers("volumes_ml"):
        return told(judge_last_dose(view))
    return told(
        judge_tracer(
            view.number("tracer_volume_ml"),
            view.numbers("mls_to_calibrate_for"),
            tracer_s=TRACER_S,
            longest_s=LONGEST_S,
        )
    )


class DurationBased(CalibrationProtocol):
    """Seconds to millilitres, for one pump."""

    name = "duration_based"
    devices = PUMPS
    title = "Volume by running time"
    description = (
        "Run the {device} for a few lengths of time, measure what it moved, and fit "
        "the line from seconds to millilitres."
    )
    requirements = (
        "A PWM channel with the role of the {device}, and the pump connected to it",
        "A vial, and a container of clean water",
        "A scale or a graduated cylinder",
    )

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        channel = pwm_channel(facts, role_of(device), device)
        return {"channel_pump_is_configured_for": channel}

    steps = (
        Step(
            "intro_confirm_1",
            "info",
            lambda view: f"Calibrate the {view.device_words}",
            "The pump will run for different lengths of time. You measure the water that each run "
            "moves, and piod works out how long to run for a volume.\n"
            "Take the ends of the tubing out of the vial and the bottles first: nothing that runs "
            "here is counted as dosing.",
            then="intro_confirm_2",
        ),
        Step(
            "intro_confirm_2",
            "info",
            "Water and a scale",
            "Have ready: a container of clean water, a dry vessel, and a scale (1 g of water is "
            "1 mL) or a graduated cylinder.",
            metadata={"image": TUBING},
            then="intro_confirm_3",
        ),
        Step(
            "intro_confirm_3",
            "info",
            "The tubing",
            lambda view: (
                f"Put the inlet of the {view.device_words} into the water, and hold its "
                "outlet so that water drips into the vessel and nowhere else."
            ),
            metadata={"image": MEASURING},
            then="name_input",
        ),
        *name_steps(
            PumpCalibration,
            "volume_targets",
            default=lambda view: f"{view.device}-{view.facts.date}",
            title="Name the calibration",
        ),
        Step(
            "volume_targets",
            "form",
            "Which volumes matter",
            "The runs are planned around the volumes that you will dose.",
            fields=(
                Numbers(
                    "mls_to_calibrate_for",
                    "Volumes (mL)",
                    default=[1.0],
                    above=0,
                    help_text="One or more, with commas between them.",
                ),
            ),
            then="pwm_settings",
        ),
        Step(
            "pwm_settings",
            "form",
            "How the pump is driven",
            "Doses that use this calibration are driven in the same way.",
            fields=(
                Number("hz", "Frequency (Hz)", default=250, minimum=0.1, maximum=10_000),
                Number("dc", "Duty cycle (%)", default=100, minimum=0, maximum=100),
            ),
            then=settle_pwm,
        ),
        Step(
            "tubing_into_water",
            "info",
            "Both ends into the water",
            "Put inlet and outlet into the water, so that the tubing fills.",
            metadata={"image": TUBING},
            then="prime_pump_duration",
        ),
        Step(
            "prime_pump_duration",
            "form",
            "Fill the tubing",
            "The pump runs as soon as you go on. There must be no air in the tubing afterwards.",
            fields=(
                Number(
                    "prime_duration_s",
                    "Run for (s)",
                    default=15,
                    minimum=5,
                    maximum=LONGEST_S,
                    min_error_msg="at least 5 s are needed to fill the tubing",
                ),
            ),
            metadata={"image": TUBING, "loading_images": [TUBING]},
            then=prime,
        ),
        Step(
            "tracer_run",
            "action",
            "A first, short run",
            f"Hold the outlet over the empty vessel. When you go on, the pump runs for "
            f"{TRACER_S:g} s.",
            metadata={"image": MEASURING},
            then=run_tracer,
        ),
        Step(
            "tracer_volume",
            "form",
            "How much was it?",
            "Weigh the water of the run, then empty and dry the vessel.",
            fields=(Number("volume_ml", "Volume (mL)", minimum=LEAST_ML, maximum=MOST_ML),),
            then=plan,
        ),
        Step(
            "test_run",
            "action",
            run_count,
            lambda view: (
                "Hold the outlet over the empty vessel. When you go on, the pump runs for "
                f"{next_duration(view):.2f} s.\n{doubts(view)}"
            ).strip(),
            metadata=lambda view: {"image": MEASURING, **measured(view)},
            actions=(
                Action(
                    "redo_last",
                    "Do the last run again",
                    redo_last,
                    shown=lambda view: bool(view.numbers("volumes_ml")),
                ),
            ),
            then=run_test,
        ),
        Step(
            "test_volume",
            "form",
            run_count,
            lambda view: (
                f"Weigh the water of the run of {next_duration(view):.2f} s, then empty and "
                "dry the vessel."
            ),
            fields=(Number("volume_ml", "Volume (mL)", minimum=LEAST_ML, maximum=MOST_ML),),
            metadata=measured,
            then=note_volume,
        ),
        Step(
            "confirm_fit",
            "form",
            "Is this line right?",
            lambda view: (
                f"{told(judge(view))}\n"
                "Keep the line as it is, or go back: then the last run is done again, and those "
                "before it can be."
            ),
            fields=(YesNo("keep", "Keep it", default=False),),
            metadata=lambda view: measured(view, fitted(view)),
            then=confirm,
        ),
    )
