"""piod's side of the two files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from updater_process import Updater

from piod.errors import Unavailable
from piod.system import UpdateRequest
from piod.update_files import UpdateFiles, current_boot_id


def test_a_request_replaces_the_one_before_whole(updater: Updater) -> None:
    updater.files().write_request(UpdateRequest("one", version="0.2.0"))
    updater.files().write_request(UpdateRequest("two", no_deps=True))
    written = json.loads(updater.request.read_text())
    assert written["request_id"] == "two"
    assert written["version"] is None
    assert written["no_deps"] is True
    assert [path.name for path in updater.request.parent.iterdir()] == ["update.json"]


def test_where_piod_is_no_service_the_refusal_says_how_to_update(tmp_path: Path) -> None:
    files = UpdateFiles(tmp_path / "no" / "update.json", tmp_path / "outcome.json")
    with pytest.raises(Unavailable) as refused:
        files.write_request(UpdateRequest("one"))
    assert "update.json could not be written: No such file" in refused.value.message
    assert "apt install" in refused.value.remediation


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"updates": [1]}',
        '{"updates": [{"state": "running"}]}',
        '{"updates": [{"state": ["running"]}]}',
    ],
)
def test_an_outcome_that_cannot_be_understood_is_not_taken_for_none(
    updater: Updater, content: str
) -> None:
    updater.outcome.write_text(content)
    with pytest.raises(Unavailable) as refused:
        updater.files().read_outcome("one")
    assert "journalctl -u piod-update.service" in refused.value.remediation


def test_this_boot_has_a_name() -> None:
    assert current_boot_id() == current_boot_id() != ""
