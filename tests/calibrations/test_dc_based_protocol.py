"""``dc_based``: what a sweep makes, and what is said where it can be run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from piod.calibrations.protocols.dc_based import DcBased
from piod.calibrations.protocols.protocol import NotNow
from piod.calibrations.records import StirringCalibration
from piod.errors import BadRequest
from piod.jobs.calibrating.aux_voltage import AuxVoltage, AuxVoltageRead
from piod.jobs.calibrating.stirring_sweep import NotTurning, StirringSwept
from tests.calibrations.played import Played, facts

CONFIG = "[PWM]\n1=stirring\n[stirring.config]\ninitial_duty_cycle=30\n"
NAME = "stirring-calibration-2026-09-21_14-13"
DUTIES = (39.9, 34.875, 29.85, 24.825, 19.8)
RPMS = (652.0, 575.0, 490.0, 400.0, 302.0)


def swept(
    rpms: tuple[float, ...] = RPMS, still: tuple[float, ...] = (), times: int = 3
) -> StirringSwept:
    turning = DUTIES[: len(rpms)]
    return StirringSwept(turning * times, rpms * times, still * times, 200.0)


class Stirrer:
    """Gives one sweep after the other."""

    def __init__(self, *sweeps: object, rail: AuxVoltageRead | None = None) -> None:
        self.sweeps = list(sweeps)
        self.rail = rail or AuxVoltageRead(12.0, None)

    def __call__(self, request: object) -> object:
        return self.rail if isinstance(request, AuxVoltage) else self.sweeps.pop(0)


def session(tmp_path: Path, *sweeps: object, rail: AuxVoltageRead | None = None) -> Played:
    return Played(DcBased, "stirring", facts(tmp_path, CONFIG), Stirrer(*sweeps, rail=rail))


async def test_a_sweep_makes_a_calibration(tmp_path: Path) -> None:
    one = session(tmp_path, swept())
    assert one.data == {"min_dc": None, "max_dc": None}
    assert await one.go() == "run_calibration"
    assert await one.go(confirm=True) == "complete"
    assert one.page["metadata"]["chart"]["series"][0]["curve"]["type"] == "spline"
    assert one.result["calibrations"] == [
        {"device": "stirring", "calibration_name": NAME, "path": f"/stirring/{NAME}.yaml"}
    ]
    assert one.result["verdicts"] == []
    made = one.saved["stirring", NAME]
    assert isinstance(made, StirringCalibration)
    assert (made.pwm_hz, made.voltage, made.x, made.y) == (200.0, 12.0, "DC %", "RPM")
    assert made.recorded_data.x == DUTIES * 3
    assert made.x_to_y(29.85) == pytest.approx(490, abs=5)
    assert made.y_to_x(490.0, enforce_bounds=True) == pytest.approx(29.85, abs=0.3)


async def test_a_name_that_is_taken_is_counted_on(tmp_path: Path) -> None:
    first = session(tmp_path, swept())
    await first.walk({}, "complete")
    second = session(tmp_path, NotTurning("no turn"), swept())
    second.others = first.saved
    await second.go()
    with pytest.raises(NotTurning):
        await second.go()
    await second.go()
    assert set(second.saved) == {("stirring", f"{NAME}-2")}


async def test_a_name_that_is_taken_while_it_sweeps_is_counted_on(tmp_path: Path) -> None:
    first, second = session(tmp_path, swept()), session(tmp_path, swept())
    await second.go()
    await first.walk({}, "complete")
    second.others = first.saved
    assert await second.go() == "complete"
    assert set(second.saved) == {("stirring", f"{NAME}-2")}


@pytest.mark.parametrize(
    ("sweep", "about"),
    [
        (swept(RPMS[:1], DUTIES[1:]), "saw no RPM"),
        (swept((500.0, 580.0, 490.0, 400.0, 302.0)), "falls by .* where it should rise"),
        (swept(tuple(reversed(RPMS))), "falls by"),
        (swept(RPMS[:2], (), 1), "2 points at 2 duty cycles"),
    ],
)
async def test_a_sweep_that_makes_no_curve_is_run_again(
    tmp_path: Path, sweep: StirringSwept, about: str
) -> None:
    one = session(tmp_path, sweep, swept())
    await one.go()
    await one.refused(about)
    assert one.at == "run_calibration"
    assert one.saved == {}
    assert await one.go() == "complete"


ODD = {
    "zero_rpm": swept(RPMS[:4], DUTIES[4:]),
    "outlier": StirringSwept(DUTIES * 3, (*RPMS, *RPMS, 552.0, *RPMS[1:]), (), 200.0),
}


@pytest.mark.parametrize("code", ODD)
async def test_an_odd_sweep_is_shown_before_it_is_saved(tmp_path: Path, code: str) -> None:
    one = session(tmp_path, ODD[code], ODD[code], swept())
    await one.go()
    assert await one.go() == "confirm_fit"
    assert one.saved == {}
    page = one.page
    assert page["body"].startswith("Note: ")
    assert page["metadata"]["chart"]["series"][0]["curve"]["type"] == "spline"
    await one.refused("keep is missing")
    assert await one.go(keep=False) == "run_calibration"
    assert await one.go() == "confirm_fit"
    await one.go(keep="no")
    assert await one.go() == "complete"
    assert one.result["verdicts"] == []
    assert set(one.saved) == {("stirring", NAME)}


async def test_what_is_odd_but_kept_is_told_with_the_result(tmp_path: Path) -> None:
    doubt = "the PWM rail reads 0.2 V"
    one = session(
        tmp_path, swept(RPMS[:4], DUTIES[4:]), rail=AuxVoltageRead(volts=0.2, doubt=doubt)
    )
    await one.walk({"confirm_fit": {"keep": True}}, "complete")
    assert [verdict["code"] for verdict in one.result["verdicts"]] == ["zero_rpm"]
    assert one.result["doubts"] == [doubt]


@pytest.mark.parametrize(
    ("config", "running", "about"),
    [
        (CONFIG, ["stirring"], "stirring runs"),
        ("[PWM]\n1=media\n", [], "no PWM channel has the role 'stirring'"),
        ("[PWM]\n1=stirring\n[stirring.config]\ninitial_duty_cycle=0\n", [], "above 0"),
    ],
)
def test_what_keeps_it_from_starting_is_said(
    tmp_path: Path, config: str, running: list[str], about: str
) -> None:
    with pytest.raises(BadRequest, match=about) as refusal:
        DcBased.start("stirring", facts(tmp_path, config, *running))
    assert refusal.value.remediation != BadRequest.default_remediation
    assert refusal.value.remediation != NotNow.default_remediation
