"""The start of a unit whose import was interrupted."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest

from piod import launch
from piod.storage import imports
from piod.storage.archives import check_archive
from tests.trees import NEW, OLD, UNIT, write_tree, zip_of


def test_a_start_completes_an_import_that_was_cut_off_and_outputs_are_off_by_its_wiring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when the old wiring was taken away and the new one was not there yet."""
    root = tmp_path / "unit"
    write_tree(root, OLD)
    wiring = 'pwm_to_pin:\n  "1": 26\n'
    archive = check_archive(
        BytesIO(zip_of(NEW | {"hardware/hats/1.2/pwm.yaml": wiring})), UNIT, force=False
    )
    list(imports.unpack(archive, root, "now"))
    real_rename = os.rename

    class Killed(BaseException):
        pass

    def rename(source: Path, target: Path) -> None:
        real_rename(source, target)
        if source == root / "hardware":
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(Killed):
            imports.install(root, "now")
    assert not (root / "hardware").exists()
    turned_off: list[launch.Outputs] = []
    real_turn_off = launch.turn_outputs_off

    def turn_off(data_dir: Path, outputs: launch.Outputs, **options: bool) -> object:
        turned_off.append(outputs)
        return real_turn_off(data_dir, outputs, **options)

    monkeypatch.setattr(launch, "turn_outputs_off", turn_off)
    lock_fd = launch.lock(root)
    try:
        decided = launch.decide(
            root,
            lock_fd,
            simulate=True,
            host=None,
            port=None,
            unit_name=UNIT,
            leader_name=None,
            hat="1.2",
            model=None,
            time_scale=1,
            seed=1,
            verbose=False,
        )
    finally:
        os.close(lock_fd)
    assert (root / "hardware/hats/1.2/pwm.yaml").read_text() == wiring
    assert (root / "storage/notes.txt").read_text() == NEW["storage/notes.txt"]
    assert decided.outputs_not_off == []
    # at once, by what can be guessed; and when the wiring is there, by that
    assert [26 in outputs.pins for outputs in turned_off] == [False, True]
