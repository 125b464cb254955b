"""What keeps users of the API out stays shut whichever door they try."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import zipfile
from pathlib import Path

import aiohttp

from piod.clock import SimulatedClock
from piod.storage.archived_pointers import archived_pointers
from tests.unit import Unit, running_unit

EXPORT = "/unit_api/zipped_dot_pioreactor"
IMPORT = "/unit_api/import_zipped_dot_pioreactor"


def archive(files: dict[str, str]) -> bytes:
    """A zip that says it comes from this unit."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for name, text in files.items():
            zipped.writestr(name, text)
        about = {"metadata_version": 1, "name": "pio01"}
        zipped.writestr("pioreactor_export_metadata.json", json.dumps(about))
    return content.getvalue()


async def import_archive(unit: Unit, content: bytes) -> dict[str, object]:
    form = aiohttp.FormData()
    form.add_field("archive", content, filename="unit.zip")
    async with unit.client.post(IMPORT, data=form) as answer:
        assert answer.status == 202
        return await unit.task(await answer.json())


async def test_an_import_brings_no_plugin_past_the_allow_list(unit: Unit) -> None:
    plugins = unit.data_dir / "plugins"
    plugins.mkdir(exist_ok=True)
    (plugins / "api_plugins_allowlist.json").write_text('["good"]')
    task = await import_archive(unit, archive({"plugins/evil.py": "x = 1\n", "a.txt": "b"}))
    assert task["status"] == "complete"
    assert (unit.data_dir / "a.txt").exists()
    assert [path.name for path in plugins.glob("*.*")] == ["api_plugins_allowlist.json"]


async def test_no_plugin_is_removed_as_a_file_while_installs_are_disallowed(unit: Unit) -> None:
    (unit.data_dir / "plugins").mkdir(exist_ok=True)
    (unit.data_dir / "plugins" / "keep.py").write_text("x = 1\n")
    (unit.data_dir / "DISALLOW_UI_INSTALLS").touch()
    body = {"filepath": "plugins/keep.py"}
    status, refusal = await unit.request("POST", "/unit_api/system/remove_file", body)
    assert status == 403
    assert "DISALLOW_UI_INSTALLS" in refusal["error_info"]["cause"]


async def test_an_export_with_the_key_in_it_needs_the_key(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    config = "[ui_basic_auth]\napi_key=c2VjcmV0\n"
    async with running_unit(tmp_path, clock, config_ini=config) as unit:
        assert (await unit.request("GET", EXPORT))[0] == 401
        headers = {"Authorization": "Basic c2VjcmV0"}
        async with unit.client.get(EXPORT, headers=headers) as answer:
            assert answer.status == 200


async def test_copies_of_the_configuration_are_masked(unit: Unit) -> None:
    for name in ("config.bak", "old_config.ini", "#config.ini#"):
        (unit.data_dir / name).write_text("[mqtt]\npassword = hunter2\n")
        path = f"/unit_api/system/path/{name}".replace("#", "%23")
        async with unit.client.get(path) as answer:
            assert "hunter2" not in await answer.text()


async def test_only_so_many_exports_at_a_time(unit: Unit) -> None:
    # more than the buffers on the way hold, and nothing that deflates
    (unit.data_dir / "large.bin").write_bytes(random.Random(1).randbytes(30_000_000))
    async with unit.client.get(EXPORT) as one, unit.client.get(EXPORT) as two:
        assert (one.status, two.status) == (200, 200)
        async with unit.client.get(EXPORT) as three:
            assert three.status == 429
        assert len(await one.read()) > 30_000_000
        assert len(await two.read()) > 30_000_000
    async with unit.client.get(EXPORT) as four:
        assert four.status == 200
        await four.read()


async def test_copies_that_a_kill_left_are_gone_at_the_next_start(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    left = tmp_path / "storage" / ".piod-unfinished-1234"
    left.parent.mkdir()
    left.write_bytes(b"half")
    async with running_unit(tmp_path, clock):
        assert not left.exists()


def test_an_archived_ledger_cannot_make_values_of_any_size(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    database = sqlite3.connect(tmp_path / "storage" / "piod.sqlite")
    database.execute(
        "CREATE VIEW meta AS SELECT 'active_calibration:od' AS key, "
        "hex(zeroblob(50000000)) AS value"
    )
    database.commit()
    database.close()
    storage = tmp_path / "storage"
    assert archived_pointers(storage, storage / "piod.sqlite") == {}
