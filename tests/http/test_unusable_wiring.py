"""What a unit's wiring cannot do is told in the list of protocols, and where a session begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from tests.unit import running_unit

API = "/unit_api/calibrations/sessions"
SENSORS = "[od_config.photodiode_channel]\n1=REF\n2=90\n"


@pytest.mark.parametrize(
    ("config", "protocol", "device", "about"),
    [
        ("[PWM]\n9=media\n", "duration_based", "media_pump", "channel 9"),
        ("[PWM]\n5=waste\n", "duration_based", "waste_pump", "channel 5"),
        ("[PWM]\n5=stirring\n", "dc_based", "stirring", "channel 5"),
        (f"{SENSORS}3=135\n", "standards", "od90", "no photodiode channel '3'"),
    ],
)
async def test_it_is_listed_with_why_and_refused_at_the_start(
    tmp_path: Path, clock: SimulatedClock, config: str, protocol: str, device: str, about: str
) -> None:
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        offers = {offer["id"]: offer for offer in await unit.get("/unit_api/calibration_protocols")}
        assert about in offers[f"{device}_{protocol}"]["unavailable_because"]
        body = {"protocol_name": protocol, "target_device": device}
        status, answer = await unit.request("POST", API, body)
        assert status == 400
        assert about in answer["error"]
