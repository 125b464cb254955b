"""Which protocols a unit offers."""

from __future__ import annotations

import pytest

from piod.calibrations.protocols import calibration_protocols

ALWAYS = [
    "alt_media_pump_duration_based",
    "media_pump_duration_based",
    "od_fused_od_fusion_standards",
    "od_fused_od_fusion_offset",
    "stirring_dc_based",
    "waste_pump_duration_based",
]


@pytest.mark.parametrize(
    ("photodiodes", "devices"),
    [
        ([], []),
        (["REF", ""], []),
        (["REF", "180"], []),
        (["REF", "90"], ["od90"]),
        (["REF", "135", "45"], ["od", "od135", "od45"]),
        (["45", "90", "135"], ["od", "od135", "od45", "od90"]),
    ],
)
def test_standards_are_offered_for_the_photodiodes_that_there_are(
    photodiodes: list[str], devices: list[str]
) -> None:
    protocols = calibration_protocols(photodiodes)
    assert [p.target_device for p in protocols if p.protocol_name == "standards"] == devices
    assert [p.id for p in protocols if p.protocol_name != "standards"] == ALWAYS


def test_they_are_in_the_order_of_device_priority_and_title() -> None:
    protocols = calibration_protocols(["45", "90", "135"])
    keys = [(p.target_device, p.priority, p.title) for p in protocols]
    assert keys == sorted(keys)
    assert len({p.id for p in protocols}) == len(protocols)


def test_texts_name_the_device() -> None:
    by_id = {p.id: p for p in calibration_protocols(["45", "90"])}
    assert "alt media pump" in by_id["alt_media_pump_duration_based"].description
    assert "at 45°" in by_id["od45_standards"].description
    for protocol in by_id.values():
        assert protocol.title
        assert protocol.requirements
        assert "_" not in protocol.description
