"""Which protocols a unit offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from piod.calibrations.protocols import PROTOCOLS, Protocol, calibration_protocols
from piod.calibrations.protocols.turn import Facts
from piod.config import ConfigFiles

ALWAYS = [
    "alt_media_pump_duration_based",
    "media_pump_duration_based",
    "od_fused_od_fusion_standards",
    "od_fused_od_fusion_offset",
    "stirring_dc_based",
    "waste_pump_duration_based",
]


def offered(directory: Path, photodiodes: Sequence[str], more: str = "") -> Sequence[Protocol]:
    """By a unit whose channels see that."""
    channels = "".join(f"{channel}={seen}\n" for channel, seen in enumerate(photodiodes, start=1))
    text = f"[od_config.photodiode_channel]\n{channels}{more}"
    (directory / "config.ini").write_text(text)
    config = ConfigFiles(directory).current()
    return calibration_protocols(PROTOCOLS, Facts("pio01", config, 1_790_000_000.0))


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
    tmp_path: Path, photodiodes: list[str], devices: list[str]
) -> None:
    protocols = offered(tmp_path, photodiodes)
    assert [p.target_device for p in protocols if p.protocol_name == "standards"] == devices
    assert [p.id for p in protocols if p.protocol_name != "standards"] == ALWAYS


def test_they_are_in_the_order_of_device_priority_and_title(tmp_path: Path) -> None:
    protocols = offered(tmp_path, ["45", "90", "135"])
    keys = [(p.target_device, p.priority, p.title) for p in protocols]
    assert keys == sorted(keys)
    assert len({p.id for p in protocols}) == len(protocols)


def test_texts_name_the_device(tmp_path: Path) -> None:
    by_id = {p.id: p for p in offered(tmp_path, ["45", "90"])}
    assert "alt media pump" in by_id["alt_media_pump_duration_based"].description
    assert "at 45°" in by_id["od45_standards"].description
    for protocol in by_id.values():
        assert protocol.title
        assert protocol.requirements
        assert "_" not in protocol.description


def test_one_that_cannot_be_run_now_tells_why(tmp_path: Path) -> None:
    pumps = "[PWM]\n2=media\n"
    by_id = {p.id: p for p in offered(tmp_path, ["45", "90"], pumps)}
    assert by_id["media_pump_duration_based"].unavailable_because is None
    assert "'waste'" in str(by_id["waste_pump_duration_based"].unavailable_because)
    assert "REF" in str(by_id["od45_standards"].unavailable_because)
    with_reference = {p.id: p for p in offered(tmp_path, ["REF", "90"], pumps)}
    assert with_reference["od90_standards"].unavailable_because is None
