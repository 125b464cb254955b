from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from piod.errors import StorageFailed, StorageFull
from piod.storage import files
from piod.storage.files import make_folder, remove_file, remove_temporary_files, write_file


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0o002)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("content", [b"\x00\xff\r\n", "température: 30 °C\n", ""])
def test_a_file_holds_exactly_what_was_written(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "new" / "folder" / "pump.yaml"
    for _ in range(2):
        write_file(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert os.listdir(path.parent) == ["pump.yaml"]


@pytest.mark.usefixtures("umask")
def test_a_new_file_is_writable_by_its_group_and_an_old_one_keeps_its_mode(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.ini"
    write_file(path, "one")
    assert mode(path) == 0o664
    path.chmod(0o600)
    write_file(path, "two")
    assert mode(path) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
def test_a_file_keeps_its_group(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    write_file(path, "one")
    os.chown(path, -1, 1234)
    write_file(path, "two")
    assert path.stat().st_gid == 1234


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    link = tmp_path / "link"
    link.symlink_to(outside)
    write_file(link, "new")
    assert outside.read_text() == "untouched"
    assert not link.is_symlink()
    assert link.read_text() == "new"


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_file(path, "x")
    assert path.read_text() == "x"


def test_bytes_and_then_the_name_are_flushed_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order on disk is the promise; only the calls to the kernel can show it."""
    path = tmp_path / "a.yaml"
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def seen_fsync(file: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file"
        size = "" if kind == "folder" else f" of {os.fstat(file).st_size} bytes"
        events.append(f"flush {kind}{size}")
        fsync(file)

    def seen_replace(old: Path, new: Path) -> None:
        events.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "replace", seen_replace)
    write_file(path, "12345")
    assert events == ["flush file of 5 bytes", "rename", "flush folder"]
    events.clear()
    write_file(tmp_path / "new" / "b.yaml", "1")
    assert events == ["flush folder", "flush file of 1 bytes", "rename", "flush folder"]
    events.clear()
    assert remove_file(path)
    assert events == ["flush folder"]


@pytest.mark.parametrize(
    ("number", "refusal"),
    [(errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageFailed)],
)
def test_a_disk_that_refuses_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, refusal: type[Exception]
) -> None:
    path = tmp_path / "pump.yaml"
    write_file(path, "old")

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(refusal, match=os.strerror(number)) as refused:
        write_file(path, "new")
    assert type(refused.value) is refusal
    assert str(path) in str(refused.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["pump.yaml"]


def test_a_really_full_disk_is_told() -> None:
    with pytest.raises(StorageFailed, match="could not be written"):
        write_file(Path("/proc/self/pump.yaml"), "x")
    full = OSError(errno.ENOSPC, "No space left on device")
    assert files.storage_error("it failed", full).status == 507


def test_a_folder_in_place_of_the_file_is_refused_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageFailed, match="directory"):
        write_file(tmp_path / "taken", "x")
    with pytest.raises(StorageFailed, match="directory"):
        remove_file(tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"]


def test_removing_what_is_not_there_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert not remove_file(path)
    write_file(path, "x")
    assert remove_file(path)
    assert not path.exists()


def test_folders_are_made_once(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    write_file(tmp_path / "file", "x")
    with pytest.raises(StorageFailed):
        make_folder(tmp_path / "file" / "below")


STORM = """
import sys
from pathlib import Path
from piod.storage.files import write_file
path = Path(sys.argv[1])
for n in range(10**9):
    write_file(path, f"{n}\\n" * 20000)
    print(n, flush=True)
"""


def test_a_kill_while_writing_leaves_a_whole_file_and_a_leftover_that_is_cleared(
    tmp_path: Path,
) -> None:
    path = tmp_path / "devices" / "pump.yaml"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", STORM, str(path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        ) as storm:
            assert storm.stdout is not None
            acknowledged = [int(storm.stdout.readline()) for _ in range(20)]
            storm.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in storm.stdout if line.endswith(b"\n")]
        lines = path.read_text().splitlines()
        assert len(lines) == 20000
        assert len(set(lines)) == 1
        assert int(lines[0]) >= acknowledged[-1]
    (path.parent / f"{files.TEMPORARY_PREFIX}0123").write_text("half a fi")
    assert remove_temporary_files(tmp_path) >= 1
    assert os.listdir(path.parent) == ["pump.yaml"]
