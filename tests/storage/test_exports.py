from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sqlite3
import sys
import zipfile
from contextlib import closing
from io import BytesIO
from pathlib import Path

import pytest

from piod.clock import SimulatedClock
from piod.storage import imports
from piod.storage.archives import check_archive
from piod.storage.exports import export_entries, metadata
from piod.storage.ledger import Ledger
from piod.storage.zips import ZipStream
from tests.trees import METADATA, UNIT, fingerprint, write_tree

FILES = {
    "config.ini": "[a]\nb = 1\n",
    "plugins/x.py": "X = 1\n",
    "storage/calibrations/stirring/a.yaml": "a\n",
    "ü/ß.txt": "ü\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "unit"
    write_tree(root, FILES)
    (root / "empty").mkdir()
    return root


async def export(root: Path, clock: SimulatedClock) -> zipfile.ZipFile:
    packed = BytesIO()

    async def write(chunk: bytes) -> None:
        packed.write(chunk)

    about = metadata(unit_name=UNIT, leader_name="", app_version="1", exported_at_utc="now")
    await ZipStream(export_entries(root, about), clock.hold).send(write)
    archive = zipfile.ZipFile(packed)
    assert archive.testzip() is None
    return archive


def rows(archive: zipfile.ZipFile, name: str, tmp_path: Path) -> list[tuple[object, ...]]:
    """The table ``t`` of a database in the archive."""
    folder = tmp_path / "extracted"
    shutil.rmtree(folder, ignore_errors=True)
    with closing(sqlite3.connect(archive.extract(name, folder))) as database:
        return database.execute("SELECT * FROM t").fetchall()


async def test_everything_is_in_it_sorted_with_folders_and_the_metadata_last(
    root: Path, clock: SimulatedClock
) -> None:
    archive = await export(root, clock)
    assert archive.namelist() == [
        "config.ini",
        "empty/",
        "plugins/",
        "plugins/x.py",
        "storage/",
        "storage/calibrations/",
        "storage/calibrations/stirring/",
        "storage/calibrations/stirring/a.yaml",
        "ü/",
        "ü/ß.txt",
        METADATA,
    ]
    assert all(archive.read(name) == text.encode() for name, text in FILES.items())
    assert archive.getinfo("config.ini").compress_type == zipfile.ZIP_DEFLATED
    assert json.loads(archive.read(METADATA)) == {
        "metadata_version": 1,
        "name": UNIT,
        "leader_hostname": "unknown",
        "is_leader": False,
        "app_version": "1",
        "exported_at_utc": "now",
    }


async def test_what_is_of_this_machine_or_of_this_moment_is_left_out(
    root: Path, clock: SimulatedClock
) -> None:
    before = set((await export(root, clock)).namelist())
    write_tree(
        root,
        {
            "piod.lock": "",
            ".piod-import/new/x": "",
            "storage/.piod-unfinished-0123": "",
            "simulator/outputs.json.12.new": "",
            "simulator/outputs.json": "{}",
            ".plugin_env/lib/x.py": "",
            "storage/pioreactor.sqlite.backup": "",
            METADATA: "of an earlier import",
        },
    )
    archive = await export(root, clock)
    assert set(archive.namelist()) - before == {"simulator/", "simulator/outputs.json"}
    assert json.loads(archive.read(METADATA))["name"] == UNIT


async def test_links_that_lead_out_are_left_out_and_others_are_their_content(
    root: Path, clock: SimulatedClock
) -> None:
    write_tree(root.parent, {"outside/secret.txt": "secret"})
    (root / "file").symlink_to("plugins/x.py")
    (root / "folder").symlink_to("plugins")
    (root / "plugins/again").symlink_to("../storage")
    (root / "storage/up").symlink_to("..")
    (root / "storage/self").symlink_to(".")
    (root / "broken").symlink_to("nowhere")
    (root / "circle").symlink_to("circle")
    (root / "out").symlink_to(root.parent / "outside")
    (root / "out.txt").symlink_to("../outside/secret.txt")
    (root / "lock").symlink_to("piod.lock")
    write_tree(root, {"piod.lock": ""})
    names = (await export(root, clock)).namelist()
    assert {"file", "folder/", "folder/x.py", "plugins/again/calibrations/"} <= set(names)
    for left_out in ("broken", "circle", "out", "lock", "storage/up", "storage/self"):
        assert not any(name.startswith(left_out) for name in names)
    assert len(names) == len(set(names))
    assert "folder/again/" not in names  # a link within a link


async def test_pipes_sockets_and_names_that_are_no_text_are_left_out(
    root: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    before = (await export(root, clock)).namelist()
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff.txt")).write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "piod.sock"))
        assert (await export(root, clock)).namelist() == before
    assert "pipe" in caplog.text


async def test_a_live_database_is_whole_with_what_is_only_in_its_log(
    root: Path, clock: SimulatedClock, tmp_path: Path
) -> None:
    path = root / "storage/metrics"  # known by its content
    with closing(sqlite3.connect(path, isolation_level=None)) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("CREATE TABLE t (x)")
        live.execute("INSERT INTO t VALUES (1)")
        live.execute("BEGIN IMMEDIATE")
        live.execute("INSERT INTO t VALUES (2)")  # not committed
        before = sorted(os.listdir(root / "storage"))
        archive = await export(root, clock)
        assert sorted(os.listdir(root / "storage")) == before
        live.execute("COMMIT")
    names = [name for name in archive.namelist() if name.startswith("storage/m")]
    assert names == ["storage/metrics"]
    assert rows(archive, "storage/metrics", tmp_path) == [(1,)]


async def test_a_database_at_rest_is_exported_without_a_trace(
    root: Path, clock: SimulatedClock, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(root / "storage/x.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (x)")
    before = fingerprint(root)
    archive = await export(root, clock)
    assert fingerprint(root) == before
    assert rows(archive, "storage/x.sqlite", tmp_path) == []


async def test_the_ledger_is_in_it_and_can_be_opened(
    root: Path, clock: SimulatedClock, tmp_path: Path
) -> None:
    ledger = await Ledger.open(root / "storage/piod.sqlite", clock.hold)
    await ledger.put_meta("a", "b")
    os.link(root / "storage/piod.sqlite", root / "twin")
    archive = await export(root, clock)
    await ledger.put_meta("c", "d")  # the locks of the open one still hold
    await ledger.close()
    assert [name for name in archive.namelist() if "piod" in name] == ["storage/piod.sqlite"]
    assert "twin" not in archive.namelist()
    (tmp_path / "copy").mkdir()
    copied = tmp_path / "copy/piod.sqlite"
    copied.write_bytes(archive.read("storage/piod.sqlite"))
    copy = await Ledger.open(copied, clock.hold)
    assert await copy.get_meta("a") == "b"
    assert copy.database.replaced_corrupt is None
    await copy.close()


async def test_another_process_does_not_take_the_log_of_the_ledger_away_after_an_export(
    root: Path, clock: SimulatedClock
) -> None:
    """It would, if the export had opened and closed the file by itself."""
    ledger = await Ledger.open(root / "storage/piod.sqlite", clock.hold)
    await ledger.put_meta("a", "b")
    await export(root, clock)
    script = (
        "import sqlite3, sys; shell = sqlite3.connect(sys.argv[1]); "
        "shell.execute('SELECT * FROM meta').fetchall(); shell.close()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(root / "storage/piod.sqlite")
    )
    assert await process.wait() == 0
    assert (root / "storage/piod.sqlite-wal").exists()
    await ledger.put_meta("c", "d")
    await ledger.close()
    again = await Ledger.open(root / "storage/piod.sqlite", clock.hold)
    assert await again.metas("") == {"a": "b", "c": "d"}
    await again.close()


async def test_a_damaged_database_is_in_it_such_as_it_is(
    root: Path, clock: SimulatedClock, tmp_path: Path
) -> None:
    damaged = b"SQLite format 3\0" + b"\xff" * 5000
    write_tree(root, {"storage/bad.sqlite": damaged, "storage/bad.sqlite-wal": b"its log"})
    archive = await export(root, clock)
    assert archive.read("storage/bad.sqlite") == damaged
    assert archive.read("storage/bad.sqlite-wal") == b"its log"
    assert not list((root / "storage").glob(".piod-*"))


async def test_an_export_that_is_given_up_leaves_no_copy(root: Path) -> None:
    with closing(sqlite3.connect(root / "storage/x.sqlite")) as database:
        database.execute("CREATE TABLE t (x)")
    entries = export_entries(root, {})
    for entry in entries:
        if entry.name == "storage/x.sqlite":
            break
    assert list((root / "storage").glob(".piod-*"))
    entries.close()
    assert not list((root / "storage").glob(".piod-*"))


async def test_an_export_can_be_imported_and_gives_the_same_tree(
    root: Path, clock: SimulatedClock, tmp_path: Path
) -> None:
    os.chmod(root / "config.ini", 0o640)
    other = tmp_path / "other"
    other.mkdir()
    archive = await export(root, clock)
    assert archive.fp is not None
    checked = check_archive(archive.fp, UNIT, force=False)  # type: ignore[arg-type] # a BytesIO
    list(imports.unpack(checked, other, "now"))
    imports.install(other, "now")
    (other / METADATA).unlink()
    assert fingerprint(other) == fingerprint(root)
    assert (other / "config.ini").stat().st_mode & 0o777 == 0o640
