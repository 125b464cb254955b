"""A unit whose pumps are calibrated, and ways to look at its vial."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.unit import Unit

PUMPS = ("media", "alt_media", "waste")


async def calibrate_pumps(unit: Unit, roles: Iterable[str] = PUMPS) -> None:
    """Make calibrations active that tell the truth about the unit's pumps, but for the wear."""
    for role in roles:
        rate = unit.plant.pumps[role].ml_per_s
        text = (
            "calibration_type: simple_peristaltic_pump\n"
            f"calibration_name: {role}-true\n"
            "calibrated_on_pioreactor_unit: pio01\n"
            "created_at: 2026-03-04T09:15:30.250Z\n"
            f"curve_data_: {{type: poly, coefficients: [{rate}, 0.0]}}\n"
            "x: Duration\ny: Volume\n"
            f"recorded_data: {{x: [0.0, 30.0], y: [0.0, {30 * rate}]}}\n"
            "hz: 250.0\ndc: 100.0\nvoltage: 12.0\n"
        )
        status, body = await unit.request(
            "POST",
            f"/unit_api/calibrations/{role}_pump",
            {"calibration_data": text, "set_as_active": True},
        )
        assert status == 201, body
        path = f"/unit_api/active_calibrations/{role}_pump/{role}-true"
        status, body = await unit.request("PATCH", path)
        assert status == 200, body


async def set_volumes(unit: Unit, **values: float) -> None:
    """Say what is in the vial of the experiment without a name."""
    status, body = await unit.request(
        "PATCH", "/unit_api/bioreactor/experiments/$experiment", {"values": values}
    )
    assert status == 200, body


async def volumes(unit: Unit) -> dict[str, Any]:
    """What the unit believes to be in it."""
    body = await unit.get("/unit_api/bioreactor/experiments/$experiment")
    return dict(body["values"])


def flowing(unit: Unit) -> set[str]:
    """The pumps that are on."""
    return {role for role in PUMPS if unit.plant.pumps[role].duty_percent}
