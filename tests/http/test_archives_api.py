"""Exporting and importing the data directory over HTTP."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from piod.clock import SimulatedClock
from piod.http import upload
from piod.storage import imports
from tests.trees import ABOUT, METADATA, NEW, OLD, UNIT, fingerprint, write_tree, zip_of
from tests.unit import Unit, running_unit

EXPORT = "/unit_api/zipped_dot_pioreactor"
IMPORT = "/unit_api/import_zipped_dot_pioreactor"
CALIBRATION = """\
calibration_type: simple_stirring
calibration_name: new
calibrated_on_pioreactor_unit: pio01
created_at: 2026-01-31T12:45:00.000000Z
curve_data_: {type: poly, coefficients: [15.0, 0.5]}
x: DC
y: RPM
pwm_hz: 200.0
voltage: 12.0
recorded_data: {x: [], y: []}
"""


def assert_refusal(answer: tuple[int, Any], status: int, *words: str) -> None:
    got, body = answer
    assert got == status, body
    assert set(body) == {"error", "error_info"}
    assert body["error_info"]["status"] == status
    text = json.dumps(body)
    for word in words:
        assert word in text, text


def form(packed: bytes | None, **fields: str) -> aiohttp.FormData:
    data = aiohttp.FormData()
    for name, value in fields.items():
        data.add_field(name, value)
    if packed is not None:
        data.add_field("archive", BytesIO(packed), filename="x.zip", content_type="application/zip")
    return data


async def send(unit: Unit, data: Any, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with unit.client.post(IMPORT, data=data, headers=named) as answer:
        return answer.status, await answer.json()


async def send_zip(unit: Unit, files: Mapping[str, str | bytes], **fields: str) -> dict[str, Any]:
    """An import that must be accepted; its finished task."""
    status, accepted = await send(unit, form(zip_of(files), **fields))
    assert status == 202, accepted
    assert set(accepted) == {"unit", "task_id", "result_url_path"}
    return await unit.task(accepted)


async def export(unit: Unit) -> zipfile.ZipFile:
    async with unit.client.get(EXPORT) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/zip"
        assert answer.headers["Cache-Control"] == "no-cache"
        disposition = answer.headers["Content-Disposition"]
        assert disposition == 'attachment; filename="pio01_dot_pioreactor.zip"'
        archive = zipfile.ZipFile(BytesIO(await answer.read()))
    assert archive.testzip() is None
    return archive


@pytest.fixture
async def old(unit: Unit) -> AsyncIterator[Unit]:
    """A unit with the old tree; nothing of an import is left when the test ends."""
    write_tree(unit.data_dir, OLD)
    yield unit
    assert not (unit.data_dir / ".piod-import").exists()


# -- export -------------------------------------------------------------------------


async def test_an_export_holds_the_tree_and_says_whose_it_is(old: Unit) -> None:
    archive = await export(old)
    assert {*OLD, "storage/", "storage/piod.sqlite"} <= set(archive.namelist())
    assert archive.namelist()[-1] == METADATA
    about = json.loads(archive.read(METADATA))
    assert about["name"] == UNIT
    assert about["leader_hostname"] == "leader01"
    assert about["is_leader"] is False
    assert about["exported_at_utc"].endswith("Z")


async def test_asking_for_the_head_of_an_export_makes_none(old: Unit) -> None:
    async with old.client.head(EXPORT) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/zip"


async def test_a_reader_that_goes_away_leaves_nothing_behind(old: Unit) -> None:
    (old.data_dir / "large.bin").write_bytes(bytes(range(256)) * 40_000)
    async with old.client.get(EXPORT) as answer:
        await answer.content.read(100)
    await asyncio.sleep(0.05)
    assert not list((old.data_dir / "storage").glob(".piod-unfinished*"))
    assert METADATA in (await export(old)).namelist()


async def test_an_export_goes_round(old: Unit) -> None:
    first = await export(old)
    assert first.fp is not None
    first.fp.seek(0)
    status, accepted = await send(old, form(first.fp.read()))
    assert status == 202
    assert (await old.task(accepted))["result"] is True
    second = await export(old)
    names = [name for name in second.namelist() if not name.startswith("storage/imported-")]
    assert names == first.namelist()
    assert second.namelist().count(METADATA) == 1
    for name in OLD:
        assert second.read(name) == first.read(name)


async def test_an_export_that_an_import_overtakes_is_cut_off(old: Unit) -> None:
    """So that no archive is half old and half new."""
    # more than any buffer on the way holds, and nothing that deflates: it waits for its reader
    noise = random.Random(1)
    for n in range(100):
        write_tree(old.data_dir, {f"a/{n:03}.bin": noise.randbytes(400_000)})
    async with old.client.get(EXPORT) as answer:
        await answer.content.read(100)
        assert (await send_zip(old, NEW))["result"] is True
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


# -- import -------------------------------------------------------------------------


async def test_an_import_replaces_the_tree_but_not_the_ledger(old: Unit) -> None:
    await old.run("stirring")
    history = await old.history()
    task = await send_zip(old, NEW)
    assert (task["status"], task["result"]) == ("complete", True)
    for name, text in NEW.items():
        assert (old.data_dir / name).read_text() == text
    for name in ("unit_config.ini", "plugins/old.py", "storage/estimators/od/old.yaml"):
        assert not (old.data_dir / name).exists()
    # ui and hardware stay when the archive lacks them
    assert (old.data_dir / "ui/jobs/stirring.yaml").read_text() == OLD["ui/jobs/stirring.yaml"]
    assert (old.data_dir / "hardware/hats/1.2/pwm.yaml").exists()
    assert [row["job_id"] for row in await old.history()] == [row["job_id"] for row in history]
    assert await old.daemon.ledger.get_meta("volumes_unconfirmed") == "1"
    assert (await old.task({"result_url_path": task["result_url_path"]}))["result"] is True


async def test_running_jobs_have_ended_before_the_import_is_complete(old: Unit) -> None:
    await old.run("stirring")
    assert old.duty > 0
    await send_zip(old, NEW)
    assert old.duty == 0
    assert await old.get("/unit_api/jobs/running") == []
    [row] = await old.history()
    assert "import" in row["reason"]


async def test_the_configuration_of_the_archive_is_in_force_afterwards_as_it_was_written(
    old: Unit,
) -> None:
    """Upstream lower-cases its keys, loses its comments and sets temporary_cache."""
    text = "# Mine\n[leds]\nA=IR\n[storage]\ntemporary_cache=/x\n[ui_basic_auth]\napi_key=Zm9v\n"
    await send_zip(old, {"config.ini": text})
    assert (old.data_dir / "config.ini").read_text() == text
    assert_refusal(await old.request("POST", "/unit_api/jobs/stop/all"), 401)


async def test_the_archive_brings_its_active_pointers(old: Unit, tmp_path: Path) -> None:
    """Those of piod from its ledger, those of upstream from its cache."""
    await old.daemon.ledger.put_meta("active_calibration:od90", "old")
    with closing(sqlite3.connect(tmp_path / "cache")) as cache:
        cache.execute("CREATE TABLE cache_active_calibrations (key TEXT, value TEXT)")
        cache.execute("INSERT INTO cache_active_calibrations VALUES ('stirring', 'new')")
        cache.execute("INSERT INTO cache_active_calibrations VALUES ('od', 'missing')")
        cache.execute("INSERT INTO cache_active_calibrations VALUES ('../x', 5)")
        cache.commit()
    files = {
        "storage/calibrations/stirring/new.yaml": CALIBRATION,
        "storage/local_persistent_pioreactor_metadata.sqlite": (tmp_path / "cache").read_bytes(),
    }
    await send_zip(old, files)
    assert await old.daemon.ledger.metas("active_") == {"active_calibration:stirring": "new"}
    active = await old.get("/unit_api/active_calibrations")
    assert active["stirring"]["calibration_name"] == "new"

    exported = await export(old)
    await old.request("DELETE", "/unit_api/active_calibrations/stirring")
    assert exported.fp is not None
    exported.fp.seek(0)
    status, accepted = await send(old, form(exported.fp.read()))
    assert status == 202
    assert (await old.task(accepted))["status"] == "complete"
    assert await old.daemon.ledger.metas("active_") == {"active_calibration:stirring": "new"}
    [imported] = (old.data_dir / "storage").glob("imported-*.sqlite")
    with closing(sqlite3.connect(imported)) as database:
        assert database.execute("SELECT count(*) FROM meta").fetchone()[0] > 0


async def test_a_hostile_database_in_the_archive_tells_of_no_pointers(old: Unit) -> None:
    endless = sqlite3.connect(":memory:")
    endless.execute(
        "CREATE VIEW meta AS WITH RECURSIVE n(key) AS (SELECT 1 UNION ALL SELECT key + 1 FROM n) "
        "SELECT 'active_calibration:' || key AS key, 'x' AS value FROM n WHERE key < 0"
    )
    with closing(endless):
        files = NEW | {"storage/piod.sqlite": endless.serialize()}
    assert (await send_zip(old, files))["status"] == "complete"
    assert (await send_zip(old, NEW | {"storage/piod.sqlite": "no database"}))["result"] is True
    assert await old.daemon.ledger.metas("active_") == {}


async def test_fences_stay_and_forbid_what_they_forbid(old: Unit) -> None:
    (old.data_dir / "DISALLOW_UI_INSTALLS").touch()
    await send_zip(old, NEW | {"DISALLOW_UI_UPLOADS": ""})
    assert (old.data_dir / "DISALLOW_UI_INSTALLS").exists()
    assert (old.data_dir / "DISALLOW_UI_UPLOADS").exists()
    assert (old.data_dir / "plugins/old.py").exists()
    assert not (old.data_dir / "plugins/new.py").exists()


async def test_what_an_archive_says_of_piods_own_files_is_ignored(old: Unit) -> None:
    files = {
        "piod.lock": "x",
        "piod.sock": "x",
        "simulator/outputs.json": "{}",
        ".piod-import/journal.json": "x",
        ".plugin_env/x": "x",
        "storage/piod.sqlite-shm": "x",
    }
    before = fingerprint(old.data_dir / "simulator")
    assert (await send_zip(old, NEW | files))["result"] is True
    assert not (old.data_dir / "piod.lock").exists()
    assert not (old.data_dir / ".plugin_env").exists()
    assert fingerprint(old.data_dir / "simulator") == before
    assert await old.get("/unit_api/jobs") == []


# -- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"../x": "x"}, ["outside"]),
        ({"/x": "x"}, ["absolute"]),
        ({"a": b"\0" * 3_000_000}, ["200 times"]),
    ],
)
async def test_a_bad_archive_is_400_at_once_and_changes_nothing(
    old: Unit, files: dict[str, str | bytes], words: list[str]
) -> None:
    before = fingerprint(old.data_dir)
    await old.run("stirring")
    assert_refusal(await send(old, form(zip_of(files))), 400, *words)
    assert fingerprint(old.data_dir) == before
    assert old.duty > 0, "it cost no experiment"
    assert (await send_zip(old, NEW))["result"] is True, "the lock is free again"


async def test_the_archive_of_another_unit_is_only_imported_by_force(old: Unit) -> None:
    other = zip_of(NEW, about=b'{"name": "pio02"}')
    for packed in (other, zip_of(NEW, about=None)):
        assert_refusal(await send(old, form(packed)), 400, "force")
        assert_refusal(await send(old, form(packed, force="false")), 400, "force")
    assert_refusal(await send(old, form(other, force="perhaps")), 400, "force", "perhaps")
    status, accepted = await send(old, form(other, force="true"))
    assert status == 202
    assert (await old.task(accepted))["result"] is True


async def test_damage_within_fails_the_task_and_leaves_the_old_tree_and_the_jobs(
    old: Unit,
) -> None:
    before = fingerprint(old.data_dir)
    await old.run("stirring")
    packed = bytearray(zip_of(NEW, method=zipfile.ZIP_STORED))
    position = packed.index(b"new notes")
    packed[position] ^= 0xFF
    status, accepted = await send(old, form(bytes(packed)))
    assert status == 202
    task = await old.task(accepted)
    assert task["status"] == "failed"
    assert "damaged" in task["error"]
    assert task["error_info"]["status"] == 400
    assert fingerprint(old.data_dir) == before
    assert old.duty > 0


async def test_a_full_disk_fails_the_task_with_507(
    old: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(old.data_dir)
    monkeypatch.setattr(imports, "SPARE_BYTES", 2**62)
    task = await send_zip(old, NEW)
    assert task["status"] == "failed"
    assert task["error_info"]["status"] == 507
    assert fingerprint(old.data_dir) == before


def raw_form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


ARCHIVE = b'Content-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'


MULTIPART = "multipart/form-data; boundary=x"
WRONG_FORMS: list[tuple[bytes, str | None, list[str]]] = [
    (b"", None, ["multipart"]),
    (b"{}", "application/json", ["multipart"]),
    (b"null", "application/json", ["multipart"]),
    (b"archive=x", "application/x-www-form-urlencoded", ["multipart"]),
    (b"", "multipart/form-data", ["multipart"]),
    (b"", MULTIPART, ["multipart"]),
    (b"\xff\0\r\n" * 100, MULTIPART, ["multipart"]),
    (b"x", f"multipart/form-data; boundary={'x' * 100}", ["multipart"]),
    (raw_form(), MULTIPART, ["archive", "missing"]),
    (
        raw_form(b'Content-Disposition: form-data; name="other"\r\n\r\nx'),
        MULTIPART,
        ["archive", "missing"],
    ),
    (
        raw_form(b'Content-Disposition: form-data; name="archive"\r\n\r\nx'),
        MULTIPART,
        ["archive", "file"],
    ),
    (
        raw_form(b'Content-Disposition: form-data; name="archive"; filename=""\r\n\r\nx'),
        MULTIPART,
        ["archive", "file"],
    ),
    (raw_form(ARCHIVE), MULTIPART, ["empty"]),
    (raw_form(ARCHIVE + b"x"), MULTIPART, ["zip"]),
    (
        raw_form(ARCHIVE + b"x", ARCHIVE + b"y"),
        MULTIPART,
        ["archive", "twice"],
    ),
    (raw_form(b"no header\r\n\r\nx"), MULTIPART, ["form"]),
    (
        raw_form(b"Content-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n"),
        MULTIPART,
        ["form"],
    ),
    (
        raw_form(b'Content-Disposition: form-data; name="force"\r\n\r\n' + b"x" * 5000),
        MULTIPART,
        ["force", "longer"],
    ),
    (
        raw_form(*[b'Content-Disposition: form-data; name="%d"\r\n\r\nx' % n for n in range(40)]),
        MULTIPART,
        ["fields"],
    ),
    (
        raw_form(b'Content-Disposition: form-data; name="force"\r\n\r\n\xff'),
        MULTIPART,
        ["form"],
    ),
]


async def test_a_wrong_form_is_400(old: Unit) -> None:
    for body, content_type, words in WRONG_FORMS:
        headers = {} if content_type is None else {"Content_Type": content_type}
        assert_refusal(await send(old, body, **headers), 400, *words)


@pytest.mark.filterwarnings("ignore::aiohttp.multipart.BadContentDispositionHeader")
async def test_a_form_that_ends_early_is_400(old: Unit) -> None:
    before = fingerprint(old.data_dir)
    body = raw_form(ARCHIVE + zip_of(NEW))
    for cut in (10, 40, 200, len(body) // 2, len(body) - 12):
        answer = await send(old, body[:cut], Content_Type=MULTIPART)
        assert_refusal(answer, 400)
    assert fingerprint(old.data_dir) == before


async def test_a_sender_that_falls_silent_is_given_up_and_the_lock_is_free(
    old: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "IDLE_TIMEOUT_S", 0.05)
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield raw_form(ARCHIVE + zip_of(NEW))[:300]
        await never.wait()

    answer = await send(old, body(), Content_Type=MULTIPART)
    assert_refusal(answer, 400, "in time")
    assert (await send_zip(old, NEW))["result"] is True


async def test_a_sender_that_goes_away_frees_the_lock(old: Unit) -> None:
    body = raw_form(ARCHIVE + zip_of(NEW))
    _, writer = await asyncio.open_connection(old.client.host, old.client.port)
    head = f"POST {IMPORT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
    writer.write(body[:200])
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert (await send_zip(old, NEW))["result"] is True


async def test_a_large_archive_is_taken_and_a_large_json_body_elsewhere_is_not(old: Unit) -> None:
    large = bytes(range(256)) * 16 * 1024 * 15  # 60 MiB
    packed = zip_of({"large.bin": large}, method=zipfile.ZIP_STORED)
    status, accepted = await send(old, form(packed))
    assert status == 202
    assert (await old.task(accepted))["result"] is True
    assert (old.data_dir / "large.bin").stat().st_size == len(large)
    answer = await old.client.post("/unit_api/system/remove_file", data=BytesIO(packed))
    assert answer.status == 413
    answer.close()


async def test_an_archive_over_the_limit_is_413(old: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_ARCHIVE_BYTES", 1000)
    assert_refusal(await send(old, form(zip_of(NEW))), 413)

    async def unannounced() -> AsyncIterator[bytes]:
        yield raw_form(ARCHIVE + zip_of(NEW | {"x": bytes(range(256)) * 20}, method=0))

    headers = {"Content_Type": MULTIPART}
    assert_refusal(await send(old, unannounced(), **headers), 413)


async def test_of_two_imports_at_once_the_second_is_told_of_the_first(old: Unit) -> None:
    packed = zip_of(NEW)
    first, second = await asyncio.gather(send(old, form(packed)), send(old, form(packed)))
    assert (first[0], second[0]) == (202, 202)
    started, busy = sorted((first[1], second[1]), key=lambda answer: "lock" in answer)
    assert "lock" not in started
    assert busy["status"] == "in_progress"
    assert busy["lock"] == "import-dot-pioreactor-lock"
    assert busy["task_id"] == started["task_id"]
    assert (await old.task(started))["result"] is True


async def test_patch_is_no_import(old: Unit) -> None:
    assert_refusal(await old.request("PATCH", IMPORT), 405, "POST")


async def test_an_import_that_was_cut_short_is_completed_by_the_next_start(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    """The trees are exchanged, the ledger does not know it yet, the daemon dies."""
    from piod.storage.archives import check_archive

    root = tmp_path / "unit"
    write_tree(root, OLD)
    archive = check_archive(BytesIO(zip_of(NEW, about=ABOUT)), UNIT, force=False)
    list(imports.unpack(archive, root, "now"))
    imports.install(root, "now")
    async with running_unit(root, clock) as unit:
        assert await unit.daemon.ledger.get_meta("volumes_unconfirmed") == "1"
        assert (root / "config.ini").read_text() == NEW["config.ini"]
        assert not (root / ".piod-import").exists()
