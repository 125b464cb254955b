"""``od_fusion_standards``: one OD from three angles, fitted to standards.

The person puts one standard after the other into the reactor; each is looked at several times.
What is typed in, and what was seen, is judged after each standard, where it can still be done
again. Source: handbook unit-api §4.7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from piod.calibrations.charts import Series, chart, table
from piod.calibrations.estimators import ANGLES, FUSED_DEVICE, FusedEstimator
from piod.calibrations.fits import FUSED_LEVELS, FusedRecord, fit_fused
from piod.calibrations.protocols.fusion import (
    LOOK_TEXT,
    MEASURING,
    PLACE,
    PLACE_TEXT,
    REMOVE,
    STANDARDS,
    USUAL_RPM,
    XR,
    look,
    same_od,
    start_checks,
)
from piod.calibrations.protocols.inputs import Number, YesNo
from piod.calibrations.protocols.light import refuse_too_fast
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.steps import Action, Step, name_steps
from piod.calibrations.protocols.turn import Data, Facts, Turn, View
from piod.calibrations.verdicts import (
    Verdict,
    judge_levels,
    judge_standards,
    refuse_blocking,
    told,
)
from piod.errors import BadRequest
from piod.events import JsonValue

LEAST_OD = 0.0001
Y = "log(Voltage)"


def records_of(view: View) -> list[FusedRecord]:
    """Every sample so far, in the order of measuring."""
    records = view.data["records"]
    assert isinstance(records, list)
    found: list[FusedRecord] = []
    for record in records:
        assert isinstance(record, list)
        angle, logc, log_volts = record
        assert isinstance(logc, int | float)
        assert isinstance(log_volts, int | float)
        found.append((str(angle), float(logc), float(log_volts)))
    return found


def keep(turn: Turn, ods: Sequence[float], records: Sequence[FusedRecord]) -> None:
    turn.data["standards"] = list[JsonValue](ods)
    turn.data["records"] = [list(record) for record in records]


async def settle_rpm(turn: Turn) -> str:
    refuse_too_fast(turn.number("rpm"))
    return "place_standard"


async def settle_od(turn: Turn) -> str:
    od = turn.number("od_value")
    if any(same_od(od, before) for before in turn.numbers("standards")):
        raise BadRequest(
            f"od_value: a standard of OD {od:g} has been measured already",
            remediation="Enter the OD of the vial that is in the reactor; to measure the last one "
            "again, redo it.",
        )
    return "record_observation"


async def observe(turn: Turn) -> str:
    od = turn.number("od_value")
    seen = [
        (angle, math.log10(od), math.log(volts))
        for sample in await look(turn)
        for angle, volts in sample.items()
    ]
    keep(turn, [*turn.numbers("standards"), od], [*records_of(turn), *seen])
    return "remove_observation"


async def correct_od(turn: Turn) -> str:
    return "measure_standard"


async def redo_last(turn: Turn) -> str:
    ods = turn.numbers("standards")
    if not ods:
        raise BadRequest("action redo_last: there is no standard yet that could be done again")
    last = math.log10(ods[-1])
    keep(turn, ods[:-1], [record for record in records_of(turn) if record[1] != last])
    return "place_standard"


async def choose_next(turn: Turn) -> str:
    return "place_standard" if turn.flag("another") else await finish(turn)


async def finish(turn: Turn) -> str:
    """Fit, save, complete; refused while more standards can be measured."""
    refuse_blocking(judge_levels(turn.numbers("standards")))
    fit = fit_fused(records_of(turn))
    estimator = FusedEstimator(
        estimator_name=turn.text("estimator_name"),
        calibrated_on_pioreactor_unit=turn.facts.unit_name,
        created_at=turn.facts.now,
        ir_led_intensity=turn.number("ir_led_intensity"),
        angles=fit.angles,
        mu_splines=fit.mu_splines,
        sigma_splines_log=fit.sigma_splines_log,
        min_logc=fit.min_logc,
        max_logc=fit.max_logc,
        sigma_floor=fit.sigma_floor,
        recorded_data={"by_angle": fit.by_angle},
        y=Y,
        low_conc_scales={},
        raw={},
    )
    link = await turn.save(estimator)
    return turn.complete(
        {
            "title": "The fused OD is calibrated",
            **link,
            "fits": {angle: one.view() for angle, one in fit.fits.items()},
            "std_errors": {angle: list(errors) for angle, errors in fit.std_errors.items()},
            "verdicts": [verdict.view() for verdict in judge(turn)],
        }
    )


def judge(view: View) -> list[Verdict]:
    """What is odd about what each angle saw so far."""
    found: list[Verdict] = []
    for angle in ANGLES:
        samples = [(logc, seen) for at, logc, seen in records_of(view) if at == angle]
        ods = [10**logc for logc, _ in samples]
        found += judge_standards(ods, [math.exp(seen) for _, seen in samples], f"{angle}°")
    return found


def so_far(view: View) -> str:
    """How many standards there are, and what is odd about them."""
    ods = view.numbers("standards")
    count = f"{len(ods)} {'standard' if len(ods) == 1 else 'standards'} measured"
    missing = FUSED_LEVELS - len(ods)
    if missing > 0:
        count += f"; the model needs {FUSED_LEVELS}, so at least {missing} more"
    return f"{count}.\n{told(judge(view))}".strip()


def drawn(view: View) -> Data:
    """What every angle saw so far; nothing before the first standard."""
    records = records_of(view)
    series = [
        Series(
            angle,
            f"{angle}°",
            [logc for at, logc, _ in records if at == angle],
            [seen for at, _, seen in records if at == angle],
        )
        for angle in ANGLES
    ]
    if not records:
        return {}
    return {"chart": chart("Voltage by OD", "log10 of OD", "ln of voltage", series)}


def listed(view: View) -> Data:
    """The standards so far; nothing before the first."""
    ods = view.numbers("standards")
    if not ods:
        return {}
    rows = [(str(number), od) for number, od in enumerate(ods, start=1)]
    return {"table": table("Recorded standards", ["Standard", "OD"], rows)}


def standard_number(view: View) -> str:
    return f"Standard {len(view.numbers('standards')) + 1}"


class OdFusionStandards(CalibrationProtocol):
    """Voltages at three angles to one OD."""

    name = "od_fusion_standards"
    devices = (FUSED_DEVICE,)
    priority = 1
    title = "Fused OD by standards"
    description = (
        "Read vials of known OD at three angles, several times each, and fit the model "
        "that makes one OD of the three."
    )
    requirements = (
        XR,
        "At least four standards of known OD; a blank is none of them",
        "Stir bars",
    )

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        return {"channel_angle_map": start_checks(facts), "records": [], "standards": []}

    steps = (
        Step(
            "intro",
            "info",
            "Calibrate the fused OD",
            "You put standards of known OD into the reactor, one after the other; the unit looks "
            "at each from three angles and at several speeds.\n"
            f"Have ready at least {FUSED_LEVELS} standards that span the range of your cultures; "
            "six are better. A blank is none of them: an OD of 0 has no logarithm.",
            metadata={"image": STANDARDS},
            then="name",
        ),
        *name_steps(
            FusedEstimator,
            "rpm",
            default=lambda view: f"od-fused-estimator-{view.facts.date}",
            field_name="estimator_name",
            step_ids=("name", "name_overwrite"),
            title="Name the estimator",
        ),
        Step(
            "rpm",
            "form",
            "How fast to stir",
            "Stir as in the experiments that will use the estimator.",
            fields=(Number("rpm", "Speed (RPM)", default=USUAL_RPM, minimum=0),),
            then=settle_rpm,
        ),
        Step(
            "place_standard",
            "action",
            standard_number,
            PLACE_TEXT,
            metadata={"image": PLACE},
            then="measure_standard",
        ),
        Step(
            "measure_standard",
            "form",
            standard_number,
            "Each standard needs another OD.",
            fields=(
                Number(
                    "od_value",
                    "OD of this standard",
                    minimum=LEAST_OD,
                    min_error_msg=f"at least {LEAST_OD:g}: a blank has no logarithm",
                ),
            ),
            metadata=listed,
            then=settle_od,
        ),
        Step(
            "record_observation",
            "action",
            standard_number,
            lambda view: f"OD {view.number('od_value'):g}. {LOOK_TEXT}",
            metadata={"image": MEASURING, "loading_images": [MEASURING]},
            actions=(Action("correct_od", "Correct the OD", correct_od),),
            then=observe,
        ),
        Step(
            "remove_observation",
            "action",
            "Take the vial out",
            "Take the standard out of the reactor.",
            metadata={"image": REMOVE},
            then="another_standard",
        ),
        Step(
            "another_standard",
            "form",
            "Another standard?",
            so_far,
            fields=(YesNo("another", "Measure another standard", default=True),),
            metadata=drawn,
            actions=(Action("redo_last", "Do the last standard again", redo_last),),
            then=choose_next,
        ),
    )
