"""Wrong inputs at every step of every protocol: 400 with the field, and nothing has changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from piod.calibrations.protocols.registry import PROTOCOLS
from piod.clock import SimulatedClock
from tests.http.test_calibrations_api import assert_refusal
from tests.person import Person
from tests.unit import Unit
from tests.walks import CONFIG, FUSED, OFFSET, PHOTODIODES, PUMP, STIRRER, Walk, take, walk_to, xr

pytestmark = pytest.mark.long  # walks and processes that wait: too slow for the fast tests

NESTED: tuple[object, ...] = ({}, {"value": 1}, [[1.0]], [{"value": [None]}])
NO_NUMBERS = ("ten", "1,5", "1_0", "0x10", "nan", "inf", "-Infinity", True, False, [1.0], *NESTED)
WRONG: Mapping[str, tuple[object, ...]] = {
    "float": NO_NUMBERS,
    "int": (*NO_NUMBERS, 1.5),
    "float_list": ("a, b", ",", [], [None], [True], ["nan"], [1, "x"], True, [1.0] * 101, *NESTED),
    "string": (
        *(5, 1.5, True, "  ", "x" * 300, "two\nlines", "mü"),
        *("../up", "..", "a/b", "/etc", "a\\b", ".hidden", "-x", "%2e%2e"),
        *NESTED,
    ),
    "bool": ("perhaps", "../up", 2, -1, 0.5, *NESTED),
    "choice": ("no such one", "../up", 5, True, *NESTED),
}
ALSO_WRONG: Mapping[tuple[str, str], tuple[tuple[str, object], ...]] = {
    ("duration_based", "volume_targets"): (
        ("mls_to_calibrate_for", 0),
        ("mls_to_calibrate_for", [1, -1]),
    ),
    ("duration_based", "pwm_settings"): (("dc", 0), ("hz", 1e300)),
    ("duration_based", "prime_pump_duration"): (("prime_duration_s", 281),),
    ("duration_based", "tracer_volume"): (("volume_ml", 0), ("volume_ml", 0.0001)),
    ("duration_based", "test_volume"): (("volume_ml", 0), ("volume_ml", -1)),
    ("standards", "rpm_input"): (("rpm", 5001),),
    ("standards", "another_standard"): (("next_action", "record"),),
    ("od_fusion_standards", "rpm"): (("rpm", 5001),),
    ("od_fusion_offset", "rpm"): (("rpm", 5001),),
    ("od_fusion_offset", "select_worker"): (("source_unit", "localhost:1/x?"),),
}
"""Beyond what the page tells of its fields."""

ODD_STANDARDS = replace(PHOTODIODES, ods=(2.0, 0.4, 1.0))
"""Typed so; but the vials come in their usual order, so that the curves turn."""


def wrong_values(view: Mapping[str, Any]) -> list[object]:
    """Of one field, by what the page tells of it."""
    values = list(WRONG[view["field_type"]])
    if view["minimum"] is not None:
        values += [math.nextafter(view["minimum"], -math.inf), view["minimum"] - 1, "-1e300"]
    if view["maximum"] is not None:
        values += [math.nextafter(view["maximum"], math.inf), view["maximum"] + 1, 1e300]
    return values


async def refuse(person: Person, inputs: Mapping[str, object], *words: str) -> None:
    assert_refusal(await person.post(**inputs), 400, *words)


async def refuse_all(person: Person, walk: Walk) -> None:
    """Post all that is wrong at this page."""
    right = walk.inputs(person.answer)
    assert right.keys() == {view["name"] for view in person.step["fields"]}
    wrong: list[tuple[str, object]] = []
    for view in person.step["fields"]:
        wrong += [(view["name"], value) for value in wrong_values(view)]
        wrong += [(view["name"], None), (view["name"], "")]
        others = {name: value for name, value in right.items() if name != view["name"]}
        await refuse(person, others, view["name"], "missing")
    wrong += ALSO_WRONG.get((walk.protocol, person.step_id), ())
    for name, value in wrong:
        await refuse(person, {**right, name: value}, name)
    if "actions" in person.step["metadata"]:
        for action in ("explode", 5, True, ["redo_last"], *NESTED):
            await refuse(person, {**right, "action": action}, "action")
    path = f"{person.path}/inputs"
    for body in (None, [], {"inputs": []}, {"inputs": "x"}, {"inputs": None}, {"inputs": math.nan}):
        assert_refusal(await person.unit.request("POST", path, body), 400)
    for name in right:
        for number in (math.nan, math.inf, -math.inf, 10**30):
            for value in (number, [1, number], {"deep": number}):
                answer = await person.unit.request("POST", path, {"inputs": {**right, name: value}})
                assert_refusal(answer, 400, f"inputs.{name}")


def nothing_is_on(unit: Unit) -> bool:
    return not any(unit.plant.duties.values()) and not any(unit.plant.optics.levels.values())


@pytest.mark.parametrize(
    "walk", [PUMP, STIRRER, ODD_STANDARDS, FUSED, OFFSET], ids=lambda walk: walk.protocol
)
async def test_wrong_inputs_at_every_step_are_400_with_the_field_and_change_nothing(
    tmp_path: Path, clock: SimulatedClock, walk: Walk
) -> None:
    async with xr(tmp_path, clock) as unit:
        if walk is STIRRER:  # at the least duty cycles it stands still
            (tmp_path / "config.ini").write_text(f"{CONFIG}initial_duty_cycle=10\n")
        person, seen = await Person.begin(unit, walk.protocol, walk.device), set[str]()
        while person.step_id != "complete":
            if person.step_id not in seen:
                before = await unit.get(person.path)
                await clock.sleep(1)  # a change would be seen by its time
                since_s = clock.monotonic()
                await refuse_all(person, walk)
                assert await unit.get(person.path) == before
                assert nothing_is_on(unit)
                assert clock.monotonic() - since_s < 60
            seen.add(person.step_id)
            await take(person, walk, PHOTODIODES if walk is ODD_STANDARDS else None)
        (protocol,) = (each for each in PROTOCOLS if each.name == walk.protocol)
        assert seen == {step.id for step in protocol.steps}
        storage = tmp_path / "storage"
        names = {path.name for path in storage.rglob("*.yaml")}
        assert names - {"mine.yaml", "theirs.yaml"} == (
            {Path(person.result["calibrations"][0]["path"]).name} if walk is STIRRER else set()
        )


@pytest.mark.parametrize(
    ("walk", "step_id", "again"),
    [
        (PUMP, "test_run", None),
        (PHOTODIODES, "another_standard", "place_standard"),
        (FUSED, "another_standard", "place_standard"),
        (OFFSET, "record_observation", None),
        (OFFSET, "remove_standard", "place_standard"),
    ],
    ids=lambda value: getattr(value, "protocol", value),
)
async def test_a_redo_undoes_one_standard_and_with_none_it_is_400(
    tmp_path: Path, clock: SimulatedClock, walk: Walk, step_id: str, again: str | None
) -> None:
    async with xr(tmp_path, clock) as unit:
        person = await Person.begin(unit, walk.protocol, walk.device)
        await walk_to(person, walk, step_id)
        if again is None:
            await person.refused("redo_last", action="redo_last")
            assert nothing_is_on(unit)
        else:
            await person.go(action="redo_last")
            assert (person.step_id, person.data[walk.standards_key]) == (again, [])
            await walk_to(person, walk, step_id)
            assert len(person.data[walk.standards_key]) == 1
