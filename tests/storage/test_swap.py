"""An import that is interrupted at each of its steps, by a kill and by the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.errors import PiodError, StorageFailed
from piod.storage import imports, swap
from piod.storage.archives import check_archive
from piod.storage.ledger import Ledger
from tests.trees import NEW, OLD, UNIT, fingerprint, names_in, write_tree, zip_of

STAMP = "20260131T124500Z"


class Killed(BaseException):
    """What no code of ours catches: the process would be gone."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "unit"
    write_tree(root, OLD)
    write_tree(root, {"storage/piod.sqlite": "the ledger", "piod.lock": "", "simulator/x": "x"})
    return root


def run_import(root: Path) -> None:
    """All of an import but the ledger's part."""
    archive = check_archive(BytesIO(zip_of(NEW)), UNIT, force=False)
    for _ in imports.unpack(archive, root, STAMP):
        pass
    imports.install(root, STAMP)


@pytest.fixture
def whole_new(tmp_path: Path) -> str:
    """The fingerprint of the tree when an import was not interrupted."""
    other = tmp_path / "other"
    write_tree(other, OLD)
    run_import(other)
    return fingerprint(other)


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int, what: Callable[[], None]) -> list[int]:
    """Have ``what`` happen before the ``at``-th change of the disk's names; counts them."""
    calls = [0]

    def wrap(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            calls[0] += 1
            if calls[0] == at:
                what()
            return function(*args, **kwargs)

        return wrapped

    for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))
    return calls


def kill() -> None:
    raise Killed


def test_an_import_replaces_the_tree_and_keeps_what_is_not_its_own(root: Path) -> None:
    run_import(root)
    kept = ["hardware/hats/1.2/pwm.yaml", "piod.lock", "simulator/x", "storage/piod.sqlite"]
    kept += ["ui/jobs/stirring.yaml"]
    swap.finish(root)
    swap.recover(root)
    assert names_in(root) == sorted([*NEW, *kept, "pioreactor_export_metadata.json"])
    assert (root / "config.ini").read_text() == NEW["config.ini"]
    assert (root / "storage/piod.sqlite").read_text() == "the ledger"


def test_a_kill_before_any_change_of_names_leaves_the_old_or_the_new_tree(
    root: Path, tmp_path: Path, whole_new: str
) -> None:
    """Not at random: at every one."""
    whole_old = fingerprint(root)
    outcomes: list[str] = []
    at = 0
    while True:
        at += 1
        copy = tmp_path / f"copy{at}"
        write_tree(copy, OLD)
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, at, kill)
            try:
                run_import(copy)
            except Killed:
                pass
            else:
                break
        # the next start may be killed too
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, 1 + at % 7, kill)
            try:
                swap.recover(copy)
            except Killed:
                pass
        is_new = swap.recover(copy)
        assert fingerprint(copy) == (whole_new if is_new else whole_old), at
        assert (swap.facts(copy) is not None) == is_new
        if is_new:
            swap.finish(copy)
            swap.recover(copy)
        assert not (copy / ".piod-import").exists()
        outcomes.append("new" if is_new else "old")
    assert outcomes == sorted(outcomes, reverse=True)  # first the old, from some step on the new
    assert outcomes.count("new") > 10
    assert outcomes.count("old") > 10


def test_a_disk_that_refuses_any_step_leaves_the_old_or_the_new_tree(
    root: Path, tmp_path: Path, whole_new: str
) -> None:
    whole_old = fingerprint(root)

    def refuse() -> None:
        raise OSError(errno.EIO, "Input/output error")

    at, failures = 0, 0
    while True:
        at += 1
        copy = tmp_path / f"copy{at}"
        write_tree(copy, OLD)
        with pytest.MonkeyPatch.context() as patch:
            calls = interrupt(patch, at, refuse)
            try:
                run_import(copy)
            except PiodError:
                failures += 1
                # at once, without a restart; or the journal is there and a restart does it
                settled = fingerprint(copy) == whole_old
                assert settled or (copy / ".piod-import/journal.json").exists(), at
            else:
                assert fingerprint(copy) == whole_new
            if calls[0] < at:
                break
        is_new = swap.recover(copy)
        assert fingerprint(copy) == (whole_new if is_new else whole_old), at
    assert failures > 20


def test_a_disk_that_refuses_for_good_is_told_and_the_next_start_puts_it_right(
    root: Path, tmp_path: Path, whole_new: str
) -> None:
    real_rename = os.rename
    renames = [0]

    def rename(source: str, target: str) -> None:
        renames[0] += 1
        if renames[0] > 5:
            raise OSError(errno.EROFS, "Read-only file system")
        real_rename(source, target)

    whole_old = fingerprint(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(StorageFailed, match="next start"):
            run_import(root)
        with pytest.raises(StorageFailed, match="next start"):
            swap.recover(root)
        assert fingerprint(root) not in (whole_old, whole_new)
    swap.recover(root)
    assert fingerprint(root) == whole_old
    assert not (root / ".piod-import").exists() or not swap.recover(root)


def test_a_damaged_journal_stops_the_start_and_says_where_the_files_are(root: Path) -> None:
    write_tree(root, {".piod-import/journal.json": "{", ".piod-import/old/config.ini": "mine"})
    with pytest.raises(StorageFailed) as refusal:
        swap.recover(root)
    assert str(root / ".piod-import/old") in refusal.value.remediation
    assert list(swap.clear(root)) == []
    assert (root / ".piod-import/old/config.ini").read_text() == "mine"


def test_what_somebody_writes_where_an_entry_was_just_taken_away_is_in_nobodys_way(
    root: Path, whole_new: str
) -> None:
    real_rename = os.rename

    def rename(source: Path, target: Path) -> None:
        real_rename(source, target)
        late = root / "storage/calibrations"
        if source == late and Path(target).name == late.name:
            write_tree(root, {"storage/calibrations/stirring/late.yaml": "late"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", rename)
        run_import(root)
    assert fingerprint(root) == whole_new


def test_recovering_where_nothing_happened_changes_nothing(root: Path) -> None:
    before = fingerprint(root)
    assert swap.recover(root) is False
    assert swap.recover(root.parent / "missing") is False
    assert fingerprint(root) == before


def test_a_link_in_the_place_of_the_work_folder_is_removed_not_followed(root: Path) -> None:
    write_tree(root.parent, {"outside/x.txt": "x"})
    (root / ".piod-import").symlink_to(root.parent / "outside")
    swap.recover(root)
    assert (root.parent / "outside/x.txt").exists()
    assert not (root / ".piod-import").is_symlink()


async def test_the_pointers_are_settled_by_the_next_start(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    """Killed after the trees were exchanged, before the ledger knew."""
    root = tmp_path / "unit"
    write_tree(root, OLD)
    other = await Ledger.open(tmp_path / "archived.sqlite", clock.hold)
    await other.put_meta("active_calibration:stirring", "new")
    await other.put_meta("active_calibration:media_pump", "../../x")
    await other.put_meta("active_estimator:od", "gone")
    await other.close()
    ledger = await Ledger.open(root / "storage/piod.sqlite", clock.hold)
    await ledger.put_meta("active_calibration:waste_pump", "old")
    await ledger.put_meta("alive_at", "now")
    packed = zip_of(NEW | {"storage/piod.sqlite": (tmp_path / "archived.sqlite").read_bytes()})
    archive = check_archive(BytesIO(packed), UNIT, force=False)
    list(imports.unpack(archive, root, STAMP))
    imports.install(root, STAMP)
    assert (root / f"storage/imported-{STAMP}.sqlite").exists()
    try:
        assert await imports.settle(root, ledger, clock.hold) is True
        assert await ledger.metas("") == {
            "active_calibration:stirring": "new",
            "alive_at": "now",
            "pointers_taken_over": "import",
            "volumes_unconfirmed": "1",
        }
        assert await imports.settle(root, ledger, clock.hold) is False
        assert not (root / ".piod-import").exists()
    finally:
        await ledger.close()


def test_an_archive_that_the_disk_has_no_room_for_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "SPARE_BYTES", 2**62)
    with pytest.raises(PiodError, match="no room") as refusal:
        run_import(root)
    assert refusal.value.status == 507
