"""A calibration protocol in one file: one run of a pump, weighed.

Copy it to ``plugins/`` in the data directory. A session is started with
``{"protocol_name": "one_run", "target_device": "media_pump"}``.
"""

from piod.calibrations.curves import PolyCurve
from piod.calibrations.protocols.inputs import Number
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.steps import Step, name_steps
from piod.calibrations.protocols.turn import Turn
from piod.calibrations.records import PumpCalibration, RecordedData
from piod.jobs.calibrating import pump_run
from piod.jobs.calibrating.pump_run import PumpRun

__plugin_summary__ = "Calibrates a pump with a single run."

RUN_S = 20.0
HZ, DUTY_PERCENT = 250.0, 100.0


async def run(turn: Turn) -> str:
    await turn.run(pump_run.run, PumpRun(turn.device, RUN_S, hz=HZ, duty_percent=DUTY_PERCENT))
    return "weigh"


async def finish(turn: Turn) -> str:
    volume_ml = turn.number("volume_ml")
    link = await turn.save(
        PumpCalibration(
            calibration_name=turn.text("calibration_name"),
            calibrated_on_pioreactor_unit=turn.facts.unit_name,
            created_at=turn.facts.now,
            curve_data_=PolyCurve((volume_ml / RUN_S, 0.0)),
            x="Duration",
            y="Volume",
            recorded_data=RecordedData((RUN_S,), (volume_ml,)),
            raw={},
            hz=HZ,
            dc=DUTY_PERCENT,
            voltage=12.0,
        )
    )
    return turn.complete({"title": "Calibrated by one run", "calibrations": [link]})


class OneRun(CalibrationProtocol):
    name = "one_run"
    devices = ("media_pump", "alt_media_pump", "waste_pump")
    title = "Volume by one run"
    description = "Run the {device} once, weigh what it moved: quick, and less sure."
    requirements = ("A scale",)
    priority = 100
    steps = (
        *name_steps(PumpCalibration, "run", default=lambda view: f"one-run-{view.facts.date}"),
        Step("run", "action", "Run", f"The pump runs for {RUN_S:g} s when you go on.", then=run),
        Step(
            "weigh",
            "form",
            "Weigh",
            "1 g of water is 1 mL.",
            fields=(Number("volume_ml", "Volume (mL)", minimum=0.01),),
            then=finish,
        ),
    )
