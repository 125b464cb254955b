"""``standards``: one curve for each photodiode, and what is said while a vial is still at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from piod.calibrations.protocols.protocol import NotNow
from piod.calibrations.protocols.standards import AGAIN, BLANK, Standards
from piod.calibrations.records import OD600Calibration
from piod.errors import BadRequest, BusError, Conflict, StorageFull
from piod.jobs.calibrating.od_standards import OdStandard, OdStandardSeen
from piod.jobs.calibrating.photometer import Reference
from tests.calibrations.played import Played, facts

ONE = "[od_config.photodiode_channel]\n1=REF\n2=90\n"
TWO = "[od_config.photodiode_channel]\n1=REF\n2=90\n3=45\n"
LIGHT = Reference(80.0, 0.127)
USUAL: dict[str, dict[str, object]] = {
    "name_input": {"calibration_name": "mine"},
    "name_overwrite_confirm": {"overwrite": True},
    "rpm_input": {"rpm": 500},
}


class Photodiodes:
    """Sees the vial that is in; ``volts``: of an OD, by angle."""

    def __init__(self, *, gains: Mapping[str, float] | None = None) -> None:
        self.od = 0.0
        self.gains = gains or {"45": 1.6, "90": 1.0, "180": -0.05}
        self.broken = False

    def volts(self, angle: str) -> float:
        return 0.2 + self.gains[angle] * 0.375 * self.od / (1 + self.od / 10)

    def __call__(self, request: object) -> object:
        assert isinstance(request, OdStandard)
        if self.broken:
            return BusError("no answer")
        volts = {channel: self.volts(angle) for channel, angle in request.angles.items()}
        return OdStandardSeen(volts, dict.fromkeys(volts, 0.001), request.rpm, 80.0, LIGHT)


def session(tmp_path: Path, device: str = "od90", config: str = ONE) -> tuple[Played, Photodiodes]:
    seen = Photodiodes()
    return Played(Standards, device, facts(tmp_path, config), seen), seen


async def standards(one: Played, seen: Photodiodes, *ods: float) -> None:
    """Measure standards of those ODs, from wherever the session is before the first."""
    for od in ods:
        if one.at == "another_standard":
            await one.go(next_action=AGAIN)
        await one.walk(USUAL, "measure_standard")
        seen.od = od
        assert await one.go(od600_value=od) == "another_standard"


async def blank(one: Played, seen: Photodiodes, told: float = 0.0, true: float = 0.0) -> str:
    await one.go(next_action=BLANK)
    await one.go()
    seen.od = true
    return await one.go(od600_blank=told)


async def test_each_channel_gets_a_curve_of_its_own(tmp_path: Path) -> None:
    one, seen = session(tmp_path, "od", TWO)
    await one.go()
    assert await one.go(calibration_name="mine") == "channel_confirm"
    assert "Channel 2: 90°\nChannel 3: 45°" in one.page["body"]
    await standards(one, seen, 2.0, 1.0, 0.5, 0.25, 0.1)
    assert await blank(one, seen) == "complete"
    drawn = one.page["metadata"]["chart"]["series"]
    assert [series["curve"]["type"] for series in drawn] == ["spline", "spline"]
    assert [link["device"] for link in one.result["calibrations"]] == ["od90", "od45"]
    assert set(one.saved) == {("od45", "mine"), ("od90", "mine")}
    for angle, channel in (("90", "2"), ("45", "3")):
        made = one.saved[f"od{angle}", "mine"]
        assert isinstance(made, OD600Calibration)
        assert (made.angle, made.pd_channel, made.ir_led_intensity) == (angle, channel, 80.0)
        assert made.recorded_data.x == (2.0, 1.0, 0.5, 0.25, 0.1, 0.0)
        seen.od = 0.7
        assert made.y_to_x(seen.volts(angle), enforce_bounds=True) == pytest.approx(0.7, rel=0.02)
    assert all(verdicts == [] for verdicts in one.result["verdicts"].values())


async def test_one_channel_needs_no_confirmation(tmp_path: Path) -> None:
    one, _ = session(tmp_path)
    await one.go()
    assert await one.go(calibration_name="mine") == "rpm_input"
    assert one.page["fields"][0]["default"] == 500.0


async def test_a_name_that_any_of_the_devices_has_is_asked_about(tmp_path: Path) -> None:
    one, _ = session(tmp_path, "od", TWO)
    first, seen = session(tmp_path, "od45", TWO)
    await standards(first, seen, 1.0, 0.5)
    await blank(first, seen)
    one.others = first.saved
    await one.go()
    assert await one.go(calibration_name="mine") == "name_overwrite_confirm"
    assert await one.go(overwrite=False) == "name_input"
    await one.go(calibration_name="mine")
    assert await one.go(overwrite="yes") == "channel_confirm"


async def test_all_standards_are_seen_in_the_light_of_the_first(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0, 0.5)
    await blank(one, seen)
    assert [request.reference for request in one.asked] == [None, LIGHT, LIGHT]


@pytest.mark.parametrize(
    ("step_id", "inputs", "about"),
    [
        ("name_input", {}, "calibration_name is missing"),
        ("name_input", {"calibration_name": "../up"}, "calibration_name"),
        ("rpm_input", {}, "rpm is missing"),
        ("rpm_input", {"rpm": "fast"}, "rpm must be a number"),
        ("rpm_input", {"rpm": -1}, "rpm must be at least 0"),
        ("rpm_input", {"rpm": 10_001}, "rpm must be at most"),
        ("rpm_input", {"rpm": 6000}, "rpm must be at most 5000"),
        ("measure_standard", {}, "od600_value is missing"),
        ("measure_standard", {"od600_value": "nan"}, "od600_value must be a finite number"),
        ("measure_standard", {"od600_value": -0.1}, "od600_value must be at least 0"),
        ("measure_standard", {"od600_value": 0}, "blank, which comes last"),
        ("measure_standard", {"od600_value": 101}, "od600_value must be at most 100"),
        ("place_standard", {"action": "back"}, "no standard yet"),
        ("another_standard", {}, "next_action is missing"),
        ("another_standard", {"next_action": "stop"}, "next_action must be one of"),
        ("another_standard", {"action": "undo"}, "action must be one of redo_last"),
        ("measure_blank", {}, "od600_blank is missing"),
        ("measure_blank", {"od600_blank": 101}, "od600_blank must be at most 100"),
        ("measure_blank", {"od600_blank": True}, "od600_blank must be a number"),
        ("measure_blank", {"od600_blank": 0.6}, "blank is said to have an OD of 0.6"),
        ("confirm_fit", {"keep": "perhaps"}, "keep must be yes or no"),
    ],
)
async def test_a_wrong_input_is_named_where_it_is_typed(
    tmp_path: Path, step_id: str, inputs: dict[str, Any], about: str
) -> None:
    one, seen = session(tmp_path)
    if step_id in ("another_standard", "measure_blank", "confirm_fit"):
        await standards(one, seen, 1.0, 0.5)
    if step_id == "measure_blank":
        await one.go(next_action=BLANK)
        await one.go()
    if step_id == "confirm_fit":
        await blank(one, seen, true=0.8)
    await one.walk(USUAL, step_id)
    asked = len(one.asked)
    await one.refused(about, **inputs)
    assert len(one.asked) == asked
    assert one.at == step_id


async def test_a_standard_that_is_there_already_is_refused_before_it_is_measured(
    tmp_path: Path,
) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0)
    await one.go(next_action=AGAIN)
    await one.go()
    await one.refused("od600_value: a standard of OD600 1 ", od600_value="1.0")
    assert len(one.asked) == 1


async def test_the_last_standard_can_be_done_again(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0, 0.5)
    assert await one.go(action="redo_last") == "place_standard"
    assert one.page["title"] == "Standard 2"
    assert one.data["od600_values"] == [1.0]
    await one.go()
    seen.od = 0.4
    await one.go(od600_value=0.4)
    assert one.data["voltages_by_channel"]["2"][1] == pytest.approx(seen.volts("90"))
    assert await one.go(action="redo_last") == "place_standard"


@pytest.mark.parametrize("at", ["place_blank", "measure_blank"])
async def test_the_blank_may_be_put_off(tmp_path: Path, at: str) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0, 0.5)
    await one.go(next_action=BLANK)
    await one.walk({}, at)
    assert await one.go(action="back") == "another_standard"
    await one.go(next_action=BLANK)
    await one.walk({}, at)
    assert await one.go(action="redo_last") == "place_standard"
    assert one.data["od600_values"] == [1.0]


@pytest.mark.parametrize("at", ["place_standard", "measure_standard"])
async def test_another_standard_that_there_is_not_may_be_left_out(tmp_path: Path, at: str) -> None:
    one, seen = session(tmp_path)
    await one.walk(USUAL, at)
    assert "actions" not in one.page["metadata"]
    await standards(one, seen, 1.0, 0.5)
    await one.go(next_action=AGAIN)
    await one.walk({}, at)
    assert await one.go(**one.page["metadata"]["actions"][0]["inputs"]) == "another_standard"
    assert await blank(one, seen) == "complete"


async def test_a_wrong_od_that_keeps_the_order_is_told_before_it_is_saved(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 2.0, 1.0)
    await one.go(next_action=AGAIN)
    await one.go()
    seen.od = 0.5
    await one.go(od600_value=0.75)
    await standards(one, seen, 0.25, 0.1)
    assert await blank(one, seen) == "confirm_fit"
    assert "OD 0.75" in one.page["body"]


async def test_a_name_taken_meanwhile_is_told_before_the_blank_and_before_the_first_save(
    tmp_path: Path,
) -> None:
    other, seen = session(tmp_path, "od90", TWO)
    await standards(other, seen, 1.0, 0.5)
    await blank(other, seen)
    one, seen = session(tmp_path, "od", TWO)
    await standards(one, seen, 2.0, 1.0, 0.5, 0.25)
    await one.go(next_action=BLANK)
    await one.go()
    one.others = other.saved
    asked = len(one.asked)
    with pytest.raises(Conflict, match="'mine' of od90 "):
        await one.go(od600_blank=0)
    assert len(one.asked) == asked
    one.others = {}
    seen.od = 0.8  # it is doubted
    assert await one.go(od600_blank=0) == "confirm_fit"
    one.others = other.saved
    with pytest.raises(Conflict, match="nothing has been saved"):
        await one.go(keep=True)
    assert one.saved == {}
    one.others = {}
    assert await one.go(keep=True) == "complete"


async def test_a_save_that_fails_half_way_names_what_is_saved_and_can_be_repeated(
    tmp_path: Path,
) -> None:
    one, seen = session(tmp_path, "od", TWO)
    await standards(one, seen, 2.0, 1.0, 0.5, 0.25)
    one.full = "od45"
    with pytest.raises(StorageFull) as refusal:
        await blank(one, seen)
    assert refusal.value.message.endswith("(saved and active already: od90)")
    one.full, one.others = None, dict(one.saved)
    assert await one.go(od600_blank=0) == "complete"
    assert set(one.saved) == {("od45", "mine"), ("od90", "mine")}


async def test_what_hardware_refuses_can_be_measured_again(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0)
    await one.go(next_action=AGAIN)
    await one.go()
    seen.broken = True
    with pytest.raises(BusError):
        await one.go(od600_value=0.5)
    seen.broken = False
    await standards(one, seen, 0.5)
    assert one.data["od600_values"] == [1.0, 0.5]


async def test_odd_standards_are_told_before_the_next_one(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0)
    await one.go(next_action=AGAIN)
    await one.go()
    seen.od = 1.5  # the vials are swapped
    await one.go(od600_value=0.5)
    assert "OD 0.5 reads" in one.page["body"]
    assert "should read more" in one.page["body"]
    await one.go(action="redo_last")
    await one.go()
    seen.od = 1.001
    await one.go(od600_value=2.0)
    assert "cannot be told apart" in one.page["body"]
    chart = one.page["metadata"]["chart"]
    assert [point["x"] for point in chart["series"][0]["points"]] == [1.0, 2.0]


async def test_few_standards_are_told_while_there_can_be_more(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 1.0)
    assert "with 2 different ODs" in one.page["body"]
    await standards(one, seen, 0.7, 0.4, 0.2)
    assert "different ODs" not in one.page["body"]


async def test_a_doubtful_blank_may_be_kept_or_measured_again(tmp_path: Path) -> None:
    one, seen = session(tmp_path)
    await standards(one, seen, 2.0, 1.0, 0.5, 0.25)
    assert await blank(one, seen, true=0.8) == "confirm_fit"  # a vial that is none
    page = one.page
    assert "OD 0 reads" in page["body"]
    assert page["metadata"]["chart"]["series"][0]["curve"]["type"] == "spline"
    assert one.saved == {}
    assert await one.go(keep="no") == "another_standard"
    assert one.data["od600_values"] == [2.0, 1.0, 0.5, 0.25]
    assert await blank(one, seen, true=0.8) == "confirm_fit"
    assert await one.go(keep="yes") == "complete"
    codes = {verdict["code"] for verdict in one.result["verdicts"]["2"]}
    assert "standards_out_of_order" in codes
    assert set(one.saved) == {("od90", "mine")}


async def test_at_180_degrees_denser_is_darker(tmp_path: Path) -> None:
    one, seen = session(tmp_path, "od", "[od_config.photodiode_channel]\n1=REF\n2=180\n")
    await standards(one, seen, 2.0, 1.0, 0.5, 0.25)
    assert await blank(one, seen) == "complete"
    assert set(one.saved) == {("od180", "mine")}


@pytest.mark.parametrize(
    ("device", "config", "running", "about"),
    [
        ("od90", f"{ONE}[od_reading.config]\nir_led_intensity=auto\n", [], "is auto"),
        ("od90", f"{ONE}[od_reading.config]\nir_led_intensity=abc\n", [], "ir_led_intensity"),
        ("od90", f"{ONE}[od_reading.config]\nir_led_intensity=0\n", [], "ir_led_intensity"),
        ("od90", ONE, ["stirring"], "stirring runs"),
        ("od90", ONE, ["od_reading", "stirring"], "stirring and od_reading run"),
        ("od90", "[od_config.photodiode_channel]\n2=90\n", [], "REF"),
        ("od90", "[od_config.photodiode_channel]\n1=REF\n", [], "sees the vial"),
        ("od45", ONE, [], "no photodiode is configured for od45"),
        ("od90", f"{ONE}3=90\n", [], "two channels are configured for one angle"),
        ("od90", f"{ONE}3=91\n", [], "a photodiode's angle is"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    tmp_path: Path, device: str, config: str, running: list[str], about: str
) -> None:
    with pytest.raises(BadRequest, match=about) as refusal:
        Standards.start(device, facts(tmp_path, config, *running))
    assert refusal.value.remediation != NotNow.default_remediation


def test_a_photodiode_that_is_not_wired_keeps_it_from_starting(tmp_path: Path) -> None:
    known = replace(facts(tmp_path, TWO), adc_signals=frozenset({"pd1", "pd2"}))
    with pytest.raises(BadRequest, match="no photodiode channel '3'"):
        Standards.start("od90", known)
    Standards.start("od90", replace(known, adc_signals=frozenset({"pd1", "pd2", "pd3"})))
