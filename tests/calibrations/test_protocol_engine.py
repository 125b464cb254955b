"""How sessions go on, with a protocol of four steps and a bench that only notes what is asked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from piod.calibrations.protocols import PROTOCOLS, CalibrationProtocol, find_protocol
from piod.calibrations.protocols.engine import StepGone, advance, begin, render
from piod.calibrations.protocols.inputs import (
    Choice,
    Field,
    Name,
    Number,
    Numbers,
    Text,
    WholeNumber,
    YesNo,
    read_inputs,
)
from piod.calibrations.protocols.steps import Action, Step, name_steps
from piod.calibrations.protocols.turn import Artifact, Facts, Routine, Turn
from piod.calibrations.records import PumpCalibration
from piod.config import Config
from piod.errors import BadRequest, BusError, PiodError
from piod.jobs.calibrating import Progress
from piod.jobs.job import Unit
from piod.storage.sessions import SessionRow

Q = TypeVar("Q")
R = TypeVar("R")

FACTS = Facts("pio01", Config(), now_unix_s=1_790_000_000.0)
LATER = Facts("pio01", Config(), now_unix_s=1_790_000_060.0)
DEVICE = "media_pump"


@dataclass(frozen=True)
class Weighing:
    seconds: float


async def weigh(unit: Unit, request: Weighing, progress: Progress) -> float:
    raise NotImplementedError  # the bench answers


class NotingBench:
    """Answers measurements with what it is given; knows names that are taken."""

    def __init__(self, *answers: float | PiodError, taken: frozenset[str] = frozenset()) -> None:
        self.answers = list(answers)
        self.taken = taken
        self.asked: list[object] = []
        self.saved: list[tuple[Artifact, str, bool]] = []

    async def run(self, routine: Routine[Q, R], request: Q) -> R:
        self.asked.append(request)
        answer: Any = self.answers.pop(0)
        if isinstance(answer, PiodError):
            raise answer
        return answer  # type: ignore[no-any-return] # the routines of this file give floats

    async def exists(self, artifact_type: type[Artifact], device: str, name: str) -> bool:
        return name in self.taken

    async def save(self, artifact: Artifact, device: str, *, may_replace: bool) -> str:
        self.saved.append((artifact, device, may_replace))
        return f"/{device}.yaml"


async def run_it(turn: Turn) -> str:
    turn.data["weighed"] = "half-way"
    turn.data["weighed"] = await turn.run(weigh, Weighing(turn.number("seconds")))
    return "judge"


async def again(turn: Turn) -> str:
    if "weighed" not in turn.data:
        raise BadRequest("action again: nothing was weighed")
    return await run_it(turn)


async def done(turn: Turn) -> str:
    return turn.complete({"title": "Weighed", "grams": turn.data["weighed"]})


class Scale(CalibrationProtocol):
    """Weigh once."""

    name = "scale"
    devices = (DEVICE,)
    title = "Scale"
    description = "Weigh with the {device}."
    steps = (
        *name_steps(
            PumpCalibration, "run", default=lambda view: f"{view.device}-{view.facts.date}"
        ),
        Step(
            "run",
            "form",
            lambda view: f"Run the {view.device_words}",
            fields=(Number("seconds", "Seconds", minimum=1, maximum=10, max_error_msg="too long"),),
            then=run_it,
        ),
        Step(
            "judge",
            "action",
            "Judge",
            actions=(Action("again", "Again", again, shown=lambda view: "weighed" in view.data),),
            then=done,
        ),
    )


def session() -> SessionRow:
    return begin(Scale, DEVICE, "s1", FACTS)


async def at(step_id: str, bench: NotingBench | None = None) -> SessionRow:
    """A session that was brought to that step."""
    one = session()
    for inputs in ({"calibration_name": "mine"}, {"seconds": 2}):
        if one.step_id == step_id:
            break
        one = await advance(Scale, one, inputs, bench or NotingBench(1.5), LATER)
    assert one.step_id == step_id
    return one


def shown(one: SessionRow) -> dict[str, Any]:
    step = render(Scale, one, FACTS)
    assert step is not None
    json.dumps(step, allow_nan=False)
    return dict(step)


async def test_a_session_begins_at_the_first_step_and_tells_all_keys_of_it() -> None:
    one = session()
    assert (one.status, one.step_id, one.created_at) == (
        "in_progress",
        "name_input",
        "2026-09-21T14:13:20.000Z",
    )
    step = shown(one)
    assert set(step) == {"step_id", "step_type", "title", "body", "fields", "metadata"}
    assert step["fields"] == [
        {
            "name": "calibration_name",
            "label": "Name",
            "field_type": "string",
            "required": True,
            "default": "media_pump-2026-09-21",
            "options": None,
            "minimum": None,
            "maximum": None,
            "min_error_msg": None,
            "max_error_msg": None,
            "help_text": None,
        }
    ]


async def test_accepted_inputs_are_kept_and_others_ignored() -> None:
    inputs = {"calibration_name": " mine ", "confirm": True, "seconds": 99}
    after = await advance(Scale, session(), inputs, NotingBench(), LATER)
    assert after.step_id == "run"
    assert after.data == {"calibration_name": "mine", "overwrite": False}
    assert after.updated_at == "2026-09-21T14:14:20.000Z"
    assert shown(after)["title"] == "Run the media pump"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "seconds is missing"),
        ("", "seconds is missing"),
        ("  ", "seconds is missing"),
        ("two", "seconds must be a number"),
        ("1_0", "seconds must be a finite number"),
        (True, "seconds must be a number"),
        ([2], "seconds must be a number"),
        (float("nan"), "seconds must be a finite number"),
        ("inf", "seconds must be a finite number"),
        (10**400, "seconds must be a finite number"),
        (0.99, "seconds must be at least 1, got 0.99"),
        (10.1, "seconds: too long"),
    ],
)
async def test_a_wrong_input_is_named_and_runs_nothing(seconds: object, said: str) -> None:
    one = await at("run")
    bench = NotingBench(1.5)
    with pytest.raises(BadRequest) as refusal:
        await advance(Scale, one, {"seconds": seconds}, bench, LATER)
    assert refusal.value.message.startswith(said)
    assert bench.asked == []


@pytest.mark.parametrize(
    "name", ["../up", "", "  ", ".hidden", "-x", "a/b", "é", "a  b", "x" * 251]
)
async def test_a_name_that_is_none_is_refused_at_its_own_step(name: str) -> None:
    with pytest.raises(BadRequest, match="calibration_name"):
        await advance(Scale, session(), {"calibration_name": name}, NotingBench(), LATER)


async def test_a_taken_name_is_only_replaced_when_that_is_said() -> None:
    bench = NotingBench(taken=frozenset({"mine"}))
    asked = await advance(Scale, session(), {"calibration_name": "mine"}, bench, LATER)
    assert asked.step_id == "name_overwrite_confirm"
    assert shown(asked)["fields"][0]["options"] == ["yes", "no"]
    back = await advance(Scale, asked, {"overwrite": "no"}, bench, LATER)
    assert back.step_id == "name_input"
    on = await advance(Scale, asked, {"overwrite": "yes"}, bench, LATER)
    assert (on.step_id, on.data["overwrite"]) == ("run", True)
    # another name later does not inherit the permission
    renamed = await advance(
        Scale,
        SessionRow(**{**_fields(on), "step_id": "name_input"}),
        {"calibration_name": "other"},
        bench,
        LATER,
    )
    assert renamed.data["overwrite"] is False


def _fields(one: SessionRow) -> dict[str, Any]:
    return {name: getattr(one, name) for name in SessionRow.__dataclass_fields__}


async def test_what_hardware_refuses_leaves_the_session_as_it_was() -> None:
    one = await at("run")
    before = json.dumps(dict(one.data))
    with pytest.raises(BusError):
        await advance(Scale, one, {"seconds": 2}, NotingBench(BusError("no answer")), LATER)
    assert json.dumps(dict(one.data)) == before
    after = await advance(Scale, one, {"seconds": 3}, NotingBench(2.5), LATER)
    assert (after.step_id, after.data["weighed"]) == ("judge", 2.5)


async def test_an_action_takes_no_fields_and_refuses_what_it_cannot_do() -> None:
    one = await at("judge")
    assert shown(one)["metadata"]["actions"] == [{"label": "Again", "inputs": {"action": "again"}}]
    bench = NotingBench(7.0)
    after = await advance(Scale, one, {"action": "again"}, bench, LATER)
    assert (after.step_id, after.data["weighed"]) == ("judge", 7.0)
    assert bench.asked == [Weighing(2.0)]
    with pytest.raises(BadRequest, match="action must be one of again"):
        await advance(Scale, one, {"action": "explode"}, NotingBench(), LATER)
    unweighed = SessionRow(**{**_fields(one), "data": {"seconds": 2.0}})
    assert "actions" not in shown(unweighed)["metadata"]
    with pytest.raises(BadRequest, match="nothing was weighed"):
        await advance(Scale, unweighed, {"action": "again"}, NotingBench(), LATER)


async def test_a_finished_session_tells_its_result_and_changes_no_more() -> None:
    complete = await advance(Scale, await at("judge"), {}, NotingBench(), FACTS)
    assert (complete.status, complete.step_id) == ("complete", "complete")
    assert complete.result == {"title": "Weighed", "grams": 1.5}
    step = shown(complete)
    assert (step["step_type"], step["title"]) == ("result", "Weighed")
    assert step["metadata"]["result"] == complete.result
    assert await advance(Scale, complete, {"seconds": 2}, NotingBench(), LATER) is complete


async def test_a_step_that_is_gone_is_told() -> None:
    lost = SessionRow(**{**_fields(session()), "step_id": "of_last_year"})
    with pytest.raises(StepGone, match="of_last_year"):
        shown(lost)
    with pytest.raises(StepGone):
        await advance(Scale, lost, {}, NotingBench(), LATER)


async def test_a_protocol_that_leads_nowhere_is_a_bug_not_a_step() -> None:
    class Lost(Scale):
        steps = (Step("run", "info", "Run", then="nowhere"),)

    with pytest.raises(LookupError, match="nowhere"):
        await advance(Lost, begin(Lost, DEVICE, "s1", FACTS), {}, NotingBench(), LATER)


@pytest.mark.parametrize(
    ("field", "given", "value"),
    [
        (Text("t", "T"), " a b ", "a b"),
        (Text("t", "T", default="x", required=False), " ", "x"),
        (Name("t", "T"), "a.b", "a.b"),
        (Number("t", "T"), "2.5", 2.5),
        (Number("t", "T"), 2, 2.0),
        (WholeNumber("t", "T"), "3", 3),
        (YesNo("t", "T"), True, True),
        (YesNo("t", "T"), "Y", True),
        (YesNo("t", "T"), 0, False),
        (YesNo("t", "T"), "no", False),
        (Choice("t", "T", options=("a", "b")), " b ", "b"),
        (Numbers("t", "T"), [1, "2.5"], [1.0, 2.5]),
        (Numbers("t", "T"), "0.5, 1,", [0.5, 1.0]),
        (Numbers("t", "T"), 3, [3.0]),
    ],
)
def test_inputs_are_typed(field: Field, given: object, value: object) -> None:
    assert read_inputs((field,), {"t": given}) == {"t": value}


@pytest.mark.parametrize(
    ("field", "given"),
    [
        (Text("t", "T"), 5),
        (Text("t", "T"), "a\nb"),
        (Text("t", "T"), "x" * 1001),
        (WholeNumber("t", "T"), 2.5),
        (YesNo("t", "T"), "maybe"),
        (YesNo("t", "T"), 2),
        (YesNo("t", "T"), ["yes"]),
        (Choice("t", "T", options=("a", "b")), "c"),
        (Choice("t", "T", options=("a", "b")), 1),
        (Numbers("t", "T"), []),
        (Numbers("t", "T"), ","),
        (Numbers("t", "T"), [1, None]),
        (Numbers("t", "T"), [True]),
        (Numbers("t", "T"), "1, x"),
        (Numbers("t", "T", above=0), [1, 0]),
        (Numbers("t", "T", above=0), [-1]),
        (Numbers("t", "T", maximum=5), [6]),
        (Numbers("t", "T"), [1.0] * 101),
        (Numbers("t", "T"), {"a": 1}),
    ],
)
def test_what_does_not_fit_names_the_field(field: Field, given: object) -> None:
    with pytest.raises(BadRequest, match=r"\bt\b"):
        read_inputs((field,), {"t": given})


def every_step() -> list[Any]:
    return [
        pytest.param(protocol, step, id=f"{protocol.name}-{step.id}")
        for protocol in PROTOCOLS
        for step in protocol.steps
    ]


@pytest.mark.parametrize(("protocol", "step"), every_step())
def test_what_a_step_leads_to_is_there(protocol: type[CalibrationProtocol], step: Step) -> None:
    assert [one.id for one in protocol.steps].count(step.id) == 1
    if isinstance(step.then, str):
        assert protocol.step(step.then) is not None


def test_a_protocol_is_found_by_its_name_or_alias_and_device() -> None:
    assert find_protocol([Scale], "scale", DEVICE, Config()) is Scale
    with pytest.raises(BadRequest, match="protocol_name 'x' is none of the protocols"):
        find_protocol([Scale], "x", DEVICE, Config())
    with pytest.raises(BadRequest, match="target_device 'y'"):
        find_protocol([Scale], "scale", "y", Config())
