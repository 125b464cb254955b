"""``od_fusion_offset``: a fused model that exists, shifted and stretched to this unit.

The person chooses a model of this unit or of another, and measures two standards; what the model
makes of them, against what they have, moves it along log10 OD. What would spoil that is said
while the standard is still at hand: at the OD that is typed in, and after each look. Source:
handbook unit-api §4.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from piod.calibrations.estimators import (
    ANGLES,
    FUSED_DEVICE,
    FusedEstimator,
    estimator_from_json,
)
from piod.calibrations.fits import LogAffine, two_point_offset
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
from piod.calibrations.protocols.inputs import Choice, Field, Number
from piod.calibrations.protocols.light import refuse_too_fast
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.steps import Action, Step, StepType, name_steps
from piod.calibrations.protocols.turn import Data, Facts, Turn, View
from piod.calibrations.verdicts import Verdict, judge_offset, told
from piod.calibrations.writing import artifact_json
from piod.errors import BadRequest, PiodError
from piod.events import JsonValue
from piod.jobs.od.calibrated import SAME_PERCENT
from piod.jobs.stirring_settings import SECTION as STIRRING_SECTION

STANDARDS_NEEDED = 2
LEAST_OD = 1e-6


# -- the model to start from --------------------------------------------------------------


async def ask_units(turn: Turn) -> str:
    turn.data["source_units"] = list[JsonValue](await turn.cluster.units())
    return "select_worker"


async def ask_estimators(turn: Turn) -> str:
    """What the chosen unit has; why there is nothing to choose, the next page says."""
    unit, problem = turn.text("source_unit"), None
    names: Sequence[str] = ()
    try:
        names = await turn.cluster.estimator_names(unit)
    except PiodError as refusal:
        problem = f"{refusal.message}. {refusal.remediation}"
    if not names and problem is None:
        problem = f"{unit} has no fused OD estimator."
    turn.data["source_estimators"] = list[JsonValue](names)
    turn.data["source_problem"] = problem
    return "select_estimator"


async def take_over(turn: Turn) -> str:
    """Keep the chosen model: its unit may be gone by the time that it is needed."""
    if nothing_to_choose(turn):
        return "select_worker"
    unit, name = turn.text("source_unit"), turn.text("source_estimator_name")
    source = await turn.cluster.estimator(unit, name)
    if sorted(source.angles, key=int) != list(ANGLES):
        angles = ", ".join(f"{angle}°" for angle in source.angles) or "no angle"
        raise BadRequest(
            f"source_estimator_name: {name!r} goes by {angles}; a model for this unit goes by "
            f"{', '.join(f'{angle}°' for angle in ANGLES)}",
            remediation="Choose another estimator.",
        )
    source.estimate(dict.fromkeys(ANGLES, 1.0))  # refused if it cannot be evaluated
    turn.data["source_estimator"] = artifact_json(source)
    return "name"


def nothing_to_choose(view: View) -> bool:
    return not view.data.get("source_estimators")


def estimator_page(view: View) -> StepType:
    return "info" if nothing_to_choose(view) else "form"


def estimator_text(view: View) -> str:
    if nothing_to_choose(view):
        return f"{view.text('source_problem')}\nGo on to choose another unit."
    return f"Choose the fused OD estimator of {view.text('source_unit')} to start from."


def estimator_fields(view: View) -> tuple[Field, ...]:
    names = texts(view, "source_estimators")
    if not names:
        return ()
    return (Choice("source_estimator_name", "Estimator", default=names[0], options=names),)


def unit_fields(view: View) -> tuple[Field, ...]:
    units = texts(view, "source_units")
    return (Choice("source_unit", "Unit", default=units[0], options=units),)


def texts(view: View, key: str) -> tuple[str, ...]:
    values = view.data[key]
    assert isinstance(values, list)
    return tuple(str(value) for value in values)


def source_of(view: View) -> FusedEstimator:
    return estimator_from_json(view.data["source_estimator"])


# -- the two standards --------------------------------------------------------------------


async def settle_rpm(turn: Turn) -> str:
    refuse_too_fast(turn.number("rpm"))
    turn.data["standards"] = []
    return "place_standard"


async def settle_od(turn: Turn) -> str:
    od = turn.number("standard_od")
    if any(same_od(od, before) for before in ods_of(turn, "standard_od")):
        raise BadRequest(
            f"standard_od: the first standard has an OD of {od:g} too",
            remediation="Use two standards that differ, best by a factor of ten.",
        )
    return "record_observation"


async def observe(turn: Turn) -> str:
    source, samples = source_of(turn), await look(turn)
    estimates = [source.estimate(sample) for sample in samples]
    seen: Data = {
        "standard_od": turn.number("standard_od"),
        "estimated_od": fmean(estimates),
        "estimated_ods": list[JsonValue](estimates),
        "observations": [dict[str, JsonValue](sample) for sample in samples],
    }
    turn.data["standards"] = [*standards_of(turn), seen]
    moved_by(turn)  # refused here, where the vial can be changed and looked at again
    return "remove_standard"


async def correct_od(turn: Turn) -> str:
    return "standard_od"


async def redo_last(turn: Turn) -> str:
    standards = standards_of(turn)
    if not standards:
        raise BadRequest("action redo_last: there is no standard yet that could be done again")
    turn.data["standards"] = list[JsonValue](standards[:-1])
    return "place_standard"


async def removed(turn: Turn) -> str:
    return "place_standard" if moved_by(turn) is None else await finish(turn)


def standards_of(view: View) -> list[Data]:
    """Those that were measured."""
    standards = view.data["standards"]
    assert isinstance(standards, list)
    return [standard for standard in standards if isinstance(standard, dict)]


def ods_of(view: View, key: str) -> list[float]:
    found = [standard[key] for standard in standards_of(view)]
    return [float(od) for od in found if isinstance(od, int | float)]


def moved_by(view: View) -> LogAffine | None:
    """How the two standards move the model; None: there are not two yet. UnusablePoints."""
    true, estimated = ods_of(view, "standard_od"), ods_of(view, "estimated_od")
    if len(true) < STANDARDS_NEEDED:
        return None
    return two_point_offset((estimated[0], estimated[1]), (true[0], true[1]))


async def finish(turn: Turn) -> str:
    """Move the model, save it, complete."""
    source, moved = source_of(turn), moved_by(turn)
    assert moved is not None
    unit = turn.text("source_unit")
    standards: list[JsonValue] = [*standards_of(turn)]
    transform: Data = {
        "type": "logc_affine",
        "scale_logc": moved.scale,
        "offset_logc": moved.offset,
        "source_unit": unit,
        "source_estimator_name": source.estimator_name,
        "source_ir_led_intensity": source.ir_led_intensity,
    }
    estimator = replace(
        source,
        estimator_name=turn.text("estimator_name"),
        calibrated_on_pioreactor_unit=turn.facts.unit_name,
        created_at=turn.facts.now,
        ir_led_intensity=turn.number("ir_led_intensity"),
        mu_splines={angle: moved.curve(mu) for angle, mu in source.mu_splines.items()},
        sigma_splines_log={
            angle: moved.curve(sigma) for angle, sigma in source.sigma_splines_log.items()
        },
        min_logc=moved.place(source.min_logc),
        max_logc=moved.place(source.max_logc),
        recorded_data={
            "transform": transform,
            "standards": standards,
            "base_recorded_data": dict(source.recorded_data),
        },
        raw={},
    )
    link = await turn.save(estimator)
    return turn.complete(
        {
            "title": "The fused OD is corrected",
            **link,
            "source_unit": unit,
            "source_estimator": source.estimator_name,
            "scale_logc": moved.scale,
            "offset_logc": moved.offset,
            "verdicts": [verdict.view() for verdict in judge(turn)],
        }
    )


def judge(view: View) -> list[Verdict]:
    """What is odd about the standards so far."""
    true, estimated = ods_of(view, "standard_od"), ods_of(view, "estimated_od")
    if not true:
        return []
    source, moved = source_of(view), moved_by(view)
    verdicts = judge_offset(
        moved or LogAffine(1.0, 0.0),
        true,
        estimated,
        min_logc=source.min_logc,
        max_logc=source.max_logc,
    )
    if moved is None:  # one standard tells only of its own place
        verdicts = [verdict for verdict in verdicts if verdict.code == "beyond_the_model"]
    return [*other_light(view, source), *verdicts]


def other_light(view: View, source: FusedEstimator) -> list[Verdict]:
    here, there = view.number("ir_led_intensity"), source.ir_led_intensity
    if math.isclose(here, there, abs_tol=SAME_PERCENT):
        return []
    return [
        Verdict(
            "other_intensity",
            f"the model was made with the IR LED at {there:g} %, here it is at {here:g} %",
            "Two standards make up for that in part only; set ir_led_intensity to that of the "
            "model, then start again.",
        )
    ]


def seen_so_far(view: View) -> str:
    standard = standards_of(view)[-1]
    return (
        "Take the standard out of the reactor. "
        f"The model makes {standard['estimated_od']:.3g} of its OD of "
        f"{standard['standard_od']:g}.\n{told(judge(view))}"
    ).strip()


def standard_number(view: View) -> str:
    return f"Standard {len(standards_of(view)) + 1} of {STANDARDS_NEEDED}"


class OdFusionOffset(CalibrationProtocol):
    """A fused model that exists, corrected at two points."""

    name = "od_fusion_offset"
    devices = (FUSED_DEVICE,)
    priority = 2
    title = "Fused OD corrected at two points"
    description = (
        "Take a fused model that exists, of this unit or another, and shift and scale "
        "it by what two standards read here."
    )
    requirements = (
        XR,
        "A fused OD estimator on this unit or on another of the cluster",
        "Two standards of known and different OD",
    )

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        angles = start_checks(facts)
        target = facts.config.number(STIRRING_SECTION, "initial_target_rpm", USUAL_RPM, minimum=0)
        return {
            "channel_angle_map": angles,
            "source_unit": facts.unit_name,
            "rpm": target,
            "standards": [],
        }

    steps = (
        Step(
            "intro",
            "info",
            "Correct a fused OD",
            "You choose a fused OD estimator that there is, and put two standards of known OD "
            "into the reactor. The model is shifted and stretched so that it reads both right.\n"
            "Best are two that differ by a factor of ten, well within the range of the model.",
            metadata={"image": STANDARDS},
            then=ask_units,
        ),
        Step(
            "select_worker",
            "form",
            "Whose model?",
            "Choose the unit that has the estimator to start from.",
            fields=unit_fields,
            then=ask_estimators,
        ),
        Step(
            "select_estimator",
            estimator_page,
            "Which model?",
            estimator_text,
            fields=estimator_fields,
            then=take_over,
        ),
        *name_steps(
            FusedEstimator,
            "rpm",
            default=lambda view: f"{view.text('source_estimator_name')}-offset-{view.facts.date}",
            field_name="estimator_name",
            step_ids=("name", "name_overwrite"),
            title="Name the estimator",
        ),
        Step(
            "rpm",
            "form",
            "How fast to stir",
            "Stir as in the experiments that will use the estimator.",
            fields=lambda view: (
                Number("rpm", "Speed (RPM)", default=view.data["rpm"], minimum=0),
            ),
            then=settle_rpm,
        ),
        Step(
            "place_standard",
            "action",
            standard_number,
            PLACE_TEXT,
            metadata={"image": PLACE},
            then="standard_od",
        ),
        Step(
            "standard_od",
            "form",
            standard_number,
            fields=(Number("standard_od", "OD of this standard", minimum=LEAST_OD),),
            then=settle_od,
        ),
        Step(
            "record_observation",
            "action",
            standard_number,
            lambda view: f"OD {view.number('standard_od'):g}. {LOOK_TEXT}",
            metadata={"image": MEASURING, "loading_images": [MEASURING]},
            actions=(
                Action("correct_od", "Correct the OD", correct_od),
                Action(
                    "redo_last",
                    "Do the first standard again",
                    redo_last,
                    shown=lambda view: bool(standards_of(view)),
                ),
            ),
            then=observe,
        ),
        Step(
            "remove_standard",
            "action",
            "Take the vial out",
            seen_so_far,
            metadata={"image": REMOVE},
            actions=(Action("redo_last", "Do this standard again", redo_last),),
            then=removed,
        ),
    )
