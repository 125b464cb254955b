"""The data directory of an existing Pioreactor installation: its pointers and its permissions."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml as _yaml  # noqa: F401 - piod imports it late, and as_piod needs it before

from piod import launch
from piod.errors import ConfigurationError
from piod.storage import imports
from piod.storage.archived_pointers import UPSTREAM_CACHE
from piod.storage.archives import check_archive
from piod.storage.files import make_folder, write_file
from piod.storage.installation import take_over_pointers
from piod.storage.ledger import Ledger
from piod.storage.permissions import check_permissions
from piod.storage.pointers import ActivePointers
from tests.trees import NEW, UNIT, write_tree, zip_of

# -- active pointers ----------------------------------------------------------------------


def make_cache(path: Path, *, wal: bool = True) -> sqlite3.Connection:
    """The persistent cache as upstream has it, open."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
    for table in ("cache_active_calibrations", "cache_active_estimators", "cache_od_blank"):
        connection.execute(f"CREATE TABLE {table} (key BLOB PRIMARY KEY, value BLOB)")
    insert = "INSERT INTO cache_active_{} VALUES (?, ?)"
    connection.execute(insert.format("calibrations"), ("media_pump", "pump-1"))
    connection.execute(insert.format("calibrations"), ("waste_pump", "deleted-since"))
    connection.execute(insert.format("estimators"), ("od_fused", "fused-1"))
    return connection


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """With two artifacts, and no cache yet."""
    write_file(tmp_path / "storage/calibrations/media_pump/pump-1.yaml", "curve: old\n")
    write_file(tmp_path / "storage/estimators/od_fused/fused-1.yaml", "kind: fused\n")
    return tmp_path


@pytest.fixture
async def ledger(data_dir: Path) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(data_dir / "storage" / "piod.sqlite", nullcontext)
    yield ledger
    await ledger.close()


async def take_over(data_dir: Path, ledger: Ledger, configured: str | None = None) -> str | None:
    return await take_over_pointers(data_dir, configured, ledger, nullcontext)


async def active(ledger: Ledger) -> dict[str, str]:
    pointers = ActivePointers(ledger)
    return {**await pointers.all("calibration"), **await pointers.all("estimator")}


TAKEN = {"media_pump": "pump-1", "od_fused": "fused-1"}


@pytest.mark.parametrize("wal", [True, False], ids=["wal", "rollback journal"])
@pytest.mark.parametrize("in_use", [True, False])
async def test_what_was_active_is_active_and_the_cache_is_left_untouched(
    data_dir: Path, ledger: Ledger, in_use: bool, wal: bool
) -> None:
    cache = data_dir / "storage" / UPSTREAM_CACHE
    with closing(make_cache(cache, wal=wal)) as upstream:
        if not in_use:
            upstream.close()
        before = {p.name: p.stat().st_mtime_ns for p in cache.parent.glob(f"{UPSTREAM_CACHE}*")}
        assert (f"{UPSTREAM_CACHE}-wal" in before) == (in_use and wal)
        assert await take_over(data_dir, ledger) is None
        assert await active(ledger) == TAKEN
        left = {p.name: p.stat().st_mtime_ns for p in cache.parent.glob(f"{UPSTREAM_CACHE}*")}
        assert left == before
        if in_use:
            upstream.execute("DELETE FROM cache_active_calibrations")


async def test_a_pointer_that_was_cleared_since_is_not_taken_again(
    data_dir: Path, ledger: Ledger
) -> None:
    make_cache(data_dir / "storage" / UPSTREAM_CACHE).close()
    await take_over(data_dir, ledger)
    for device, kind in (("media_pump", "calibration"), ("od_fused", "estimator")):
        await ActivePointers(ledger).remove(kind, device)
    await take_over(data_dir, ledger)
    assert await active(ledger) == {}


async def test_pointers_of_piod_win(data_dir: Path, ledger: Ledger) -> None:
    await ActivePointers(ledger).set("calibration", "stirring", "mine")
    make_cache(data_dir / "storage" / UPSTREAM_CACHE).close()
    await take_over(data_dir, ledger)
    assert await active(ledger) == {"stirring": "mine"}
    await ActivePointers(ledger).remove("calibration", "stirring")
    await take_over(data_dir, ledger)
    assert await active(ledger) == {}


async def test_a_corrupt_cache_is_told_and_read_once_it_is_repaired(
    data_dir: Path, ledger: Ledger
) -> None:
    cache = data_dir / "storage" / UPSTREAM_CACHE
    cache.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    problem = await take_over(data_dir, ledger)
    assert problem is not None
    assert UPSTREAM_CACHE in problem
    assert await active(ledger) == {}
    cache.unlink()
    assert await take_over(data_dir, ledger) is None, "no cache is no problem"
    make_cache(cache).close()
    assert await take_over(data_dir, ledger) is None
    assert await active(ledger) == TAKEN


async def test_a_cache_in_another_place_is_found_by_the_configuration(
    data_dir: Path, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "cache.sqlite"
    make_cache(elsewhere).close()
    await take_over(data_dir, ledger, str(elsewhere))
    assert await active(ledger) == TAKEN


async def test_the_cache_that_an_import_brings_is_not_taken_over_a_second_time(
    tmp_path: Path, ledger: Ledger
) -> None:
    make_cache(tmp_path / "cache").close()
    cache = {f"storage/{UPSTREAM_CACHE}": (tmp_path / "cache").read_bytes()}
    calibration = {"storage/calibrations/media_pump/pump-1.yaml": "curve: old\n"}
    archive = check_archive(BytesIO(zip_of(NEW | cache | calibration)), UNIT, force=False)
    list(imports.unpack(archive, tmp_path, "now"))
    imports.install(tmp_path, "now")
    await imports.settle(tmp_path, ledger, nullcontext)
    assert await active(ledger) == {"media_pump": "pump-1"}
    await ActivePointers(ledger).remove("calibration", "media_pump")
    await take_over(tmp_path, ledger)
    assert await active(ledger) == {}


# -- permissions --------------------------------------------------------------------------

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as somebody else")

OWNER, GROUP = 4321, 4322
"""Of the installation."""
PIOD = 4323
"""User and group of piod; by the supplementary group GROUP it shares the files."""


@pytest.fixture
def installation() -> Iterator[Path]:
    """A data directory as an image makes it, where everybody may look."""
    top = Path(tempfile.mkdtemp())
    top.chmod(0o755)
    data_dir = top / "pioreactor" / ".pioreactor"
    write_tree(
        data_dir,
        dict.fromkeys(
            (
                "config.ini",
                "hardware/hats/1.2/pwm.yaml",
                "models/mine.yaml",
                "plugins/mine.py",
                "storage/piod.sqlite",
                "storage/calibrations/media_pump/pump-1.yaml",
                "storage/estimators/od_fused/fused-1.yaml",
            ),
            "",
        ),
    )
    for path in (data_dir.parent, data_dir, *data_dir.rglob("*")):
        os.chown(path, OWNER, GROUP)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    yield data_dir
    shutil.rmtree(top)


def as_piod(work: Callable[[], object], groups: tuple[int, ...] = (GROUP,)) -> Any:
    """What ``work`` returns (a JSON value) when piod's user does it, in a process of its own.

    Forked: that user may not even be able to read Python's own files.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgroups(groups)
            os.setgid(PIOD)
            os.setuid(PIOD)
            os.write(sending, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving, "rb") as stream:
        answer = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "it has crashed"
    return json.loads(answer)


def check(data_dir: Path, groups: tuple[int, ...] = (GROUP,)) -> dict[str, Any]:
    """What piod's user finds."""

    def found() -> dict[str, object]:
        files = (data_dir / "config.ini", data_dir / "unit_config.ini")
        try:
            problems = check_permissions(data_dir, files)
        except ConfigurationError as refusal:
            return {"problems": [], "refused": refusal.message, "remediation": refusal.remediation}
        return {"problems": problems, "refused": None, "remediation": None}

    return dict(as_piod(found, groups))


FINE = {"problems": [], "refused": None, "remediation": None}


@as_root
def test_a_shared_installation_is_fine_as_it_is(installation: Path) -> None:
    assert check(installation) == FINE


@as_root
@pytest.mark.parametrize(
    ("path", "mode", "what", "mend"),
    [
        (".", 0o2755, "may not write the folder", "chmod g+rwxs"),
        (".", 0o2700, "may not read and write and enter the folder", "chmod g+rwxs"),
        ("..", 0o700, "may not enter the folder", "chmod g+x"),
        ("config.ini", 0o600, "may not read the file", "chmod g+r"),
        ("storage", 0o2755, "may not write the folder", "chmod g+rwxs"),
        ("storage/piod.sqlite", 0o644, "may not write the file", "chmod g+rw"),
        ("hardware/hats/1.2/pwm.yaml", 0o600, "may not read the file", "chmod g+r"),
        ("hardware/hats", 0o2700, "may not read and enter the folder", "chmod g+rx"),
    ],
)
def test_without_these_piod_does_not_start_and_the_message_holds_the_command_that_mends_it(
    installation: Path, path: str, mode: int, what: str, mend: str
) -> None:
    path_there = Path(os.path.normpath(installation / path))
    path_there.chmod(mode)
    answer = check(installation)
    refused, remediation = answer["refused"], answer["remediation"]
    assert f"{what} {path_there} (" in str(refused)
    assert f"user {PIOD} in groups {GROUP}, {PIOD}" in str(refused)
    command = str(remediation).removeprefix("Run: ").partition(";")[0]
    assert command == f"sudo {mend} {path_there}"
    subprocess.run(command.removeprefix("sudo "), shell=True, check=True)
    assert check(installation) == FINE


@as_root
@pytest.mark.parametrize(
    ("path", "mode", "what"),
    [
        ("storage/calibrations/media_pump", 0o2755, "may not write the folder"),
        ("storage/calibrations/media_pump/pump-1.yaml", 0o600, "may not read the file"),
        ("storage/estimators", 0o2755, "may not write the folder"),
        ("models/mine.yaml", 0o600, "may not read the file"),
        ("plugins/mine.py", 0o600, "may not read the file"),
    ],
)
def test_without_these_piod_runs_and_says_so(
    installation: Path, path: str, mode: int, what: str
) -> None:
    (installation / path).chmod(mode)
    answer = check(installation)
    assert answer["refused"] is None
    [problem] = answer["problems"]
    assert f"{what} {installation / path}" in problem
    command = problem.partition("run: ")[2].partition(";")[0]
    subprocess.run(command.removeprefix("sudo "), shell=True, check=True)
    assert check(installation) == FINE


@as_root
def test_who_is_not_in_the_group_is_told_to_join_it(installation: Path) -> None:
    (installation / "config.ini").chmod(0o640)
    answer = check(installation, groups=())
    assert answer["remediation"] == (f"Run: sudo adduser {PIOD} {GROUP}; then start piod again.")
    assert f"user {PIOD} in group {PIOD}, may not write the folder {installation}" in str(
        answer["refused"]
    )


@as_root
def test_nobody_is_told_to_join_the_group_of_root(installation: Path) -> None:
    """Left by somebody who once ran piod with sudo."""
    folder = installation / "storage/calibrations/media_pump"
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    [problem] = check(installation)["problems"]
    where = shlex.quote(str(folder))
    assert f"run: sudo chgrp {GROUP} {where} && sudo chmod g+rwxs {where};" in problem


@as_root
def test_many_problems_of_one_cause_are_counted(installation: Path) -> None:
    for number in range(30):
        path = installation / f"models/{number}.yaml"
        path.touch(0o600)
    problems = check(installation)["problems"]
    assert len(problems) < 15
    assert "further" in problems[-1]


@as_root
@pytest.mark.parametrize("mode", [0o000, 0o644])
@pytest.mark.parametrize("closed", [".", "config.ini", "hardware", "hardware/hats/1.2/pwm.yaml"])
def test_nothing_that_is_closed_keeps_outputs_from_being_turned_off(
    installation: Path, closed: str, mode: int
) -> None:
    (installation / closed).chmod(mode)

    def pins() -> object:
        config = launch.configuration(installation).current()
        return launch.outputs_of(installation, config, simulate=False, hat=None, model=None).pins

    assert 17 in as_piod(pins, ())


@as_root
@pytest.mark.parametrize(
    ("mode", "is_there", "expected"),
    [
        (0o755, True, "the installation's"),
        (0o755, False, "the service's"),
        (0o700, True, "the installation's"),
    ],
    ids=["open", "not there", "its home is closed"],
)
def test_the_service_does_not_pass_over_an_installation(
    installation: Path, monkeypatch: pytest.MonkeyPatch, mode: int, is_there: bool, expected: str
) -> None:
    """That it may not enter its home is then refused, in words."""
    if not is_there:
        shutil.rmtree(installation)
    installation.parent.chmod(mode)
    monkeypatch.delenv("DOT_PIOREACTOR", raising=False)
    monkeypatch.setenv("INVOCATION_ID", "of systemd")
    monkeypatch.setattr(launch, "HOME_OF_PIOREACTOR", installation)
    names = {installation: "the installation's", launch.HOME_OF_SERVICE: "the service's"}
    assert as_piod(lambda: names[launch.default_data_dir()], ()) == expected


def test_whoever_may_write_the_service_s_data_directory_means_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So ``piod safe-outputs`` of an administrator reaches the service."""
    for name in ("DOT_PIOREACTOR", "INVOCATION_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "HOME_OF_PIOREACTOR", tmp_path / "no installation")
    monkeypatch.setattr(launch, "HOME_OF_SERVICE", tmp_path / "piod")
    assert launch.default_data_dir() == Path.home() / ".pioreactor"
    (tmp_path / "piod").mkdir()
    assert launch.default_data_dir() == tmp_path / "piod"


def test_a_fresh_data_directory_is_fine(tmp_path: Path) -> None:
    assert check_permissions(tmp_path, (tmp_path / "config.ini",)) == []


# -- what piod makes ------------------------------------------------------------------------


@pytest.fixture
def sharing() -> Iterator[None]:
    """The process as ``piod serve`` sets it up, from systemd's usual umask."""
    before = os.umask(0o022)
    launch.share_files_with_group()
    yield
    os.umask(before)


@pytest.mark.usefixtures("sharing")
async def test_what_piod_makes_is_the_groups_too(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    make_folder(shared / "storage" / "calibrations")
    write_file(shared / "storage" / "calibrations" / "pump-1.yaml", "curve: new\n")
    ledger = await Ledger.open(shared / "storage" / "piod.sqlite", nullcontext)
    await ledger.put_meta("written", "1")
    os.close(launch.lock(shared))
    made = list(shared.rglob("*"))
    assert {"piod.lock", "piod.sqlite", "piod.sqlite-wal", "piod.sqlite-shm"} < {
        path.name for path in made
    }
    for path in made:
        expected = 0o2775 if path.is_dir() else 0o664
        assert path.stat().st_mode & 0o7777 == expected, path
    await ledger.close()


@pytest.mark.usefixtures("sharing")
def test_what_an_import_brings_is_the_groups_too(tmp_path: Path) -> None:
    archive = check_archive(BytesIO(zip_of(NEW)), UNIT, force=False)
    list(imports.unpack(archive, tmp_path, "now"))
    imports.install(tmp_path, "now")
    made = [path for path in tmp_path.rglob("*") if ".piod-import" not in path.parts]
    assert made
    assert all(path.stat().st_mode & 0o060 == 0o060 for path in made)


def test_a_stricter_umask_keeps_others_out(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        launch.share_files_with_group()
        write_file(tmp_path / "new", "")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o660


@as_root
def test_a_file_of_another_user_stays_his_to_write_by_way_of_its_group(tmp_path: Path) -> None:
    for name, mode, expected in (("a", 0o644, 0o664), ("b", 0o600, 0o600), ("c", 0o444, 0o444)):
        path = tmp_path / name
        path.touch()
        os.chown(path, OWNER, GROUP)
        path.chmod(mode)
        write_file(path, "new")
        assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (GROUP, expected)
