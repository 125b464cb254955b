"""Plugins over HTTP: the list, the files, installing and uninstalling."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from piod.clock import SimulatedClock
from piod.jobs.registry import JOBS
from tests.unit import Unit, running_unit

INSTALL = "/unit_api/plugins/install"
UNINSTALL = "/unit_api/plugins/uninstall"
INSTALLED = "/unit_api/plugins/installed"
BLINK = Path(__file__).resolve().parents[2] / "docs" / "examples" / "blink.py"

JOB = """
import asyncio

from piod.jobs.job import Job

class {class_name}(Job):
    job_name = "{job_name}"

    @classmethod
    async def create(cls, unit, options):
        return cls()

    async def run(self):
        await asyncio.Event().wait()
"""


def a_job(job_name: str, class_name: str = "One") -> str:
    return JOB.format(job_name=job_name, class_name=class_name)


def put_plugin(data_dir: Path, name: str, text: str) -> Path:
    folder = data_dir / "plugins"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def assert_refusal(answer: tuple[int, Any], status: int, *words: str) -> None:
    got, body = answer
    assert got == status, body
    assert set(body) == {"error", "error_info"}
    assert body["error_info"]["status"] == status
    for word in words:
        assert word in json.dumps(body)


async def install(unit: Unit, name: str, **options: object) -> dict[str, Any]:
    return await unit.post(INSTALL, {"args": [name], "options": options})


async def job_names(unit: Unit) -> list[str]:
    """The jobs that the unit can run; of piod's own, stirring alone."""
    others = {kind.job_name for kind in JOBS.values()} - {"stirring"}
    jobs = (await unit.get("/unit_api/capabilities"))["jobs"]
    return [job["job_name"] for job in jobs if job["job_name"] not in others]


async def duties_over(unit: Unit, seconds: float) -> set[float]:
    seen = set()
    for _ in range(int(seconds / 0.05)):
        await unit.clock.sleep(0.05)
        seen.add(unit.duty)
    return seen


# -- the example --------------------------------------------------------------------


async def test_the_example_is_installed_run_set_and_uninstalled(unit: Unit) -> None:
    task = await install(unit, "blink", source=str(BLINK))
    assert task["status"] == "complete", task
    assert task["result"]["ok"] is True
    assert "plugins/blink.py" in task["result"]["output"]
    [listed] = await unit.get(INSTALLED)
    assert listed["name"] == "blink"
    assert listed["version"] == "1.0.0"
    assert listed["description"] == "Turns the stirrer on and off."
    assert listed["source"] == "plugins/blink.py"
    assert listed["homepage"].endswith("/unit_api/plugins/installed/blink.py")
    assert listed["jobs"] == ["blink"]
    assert listed["error"] is None
    assert await job_names(unit) == ["blink", "stirring"]

    job_id = await unit.run("blink", options={"period_s": "1"})
    assert await duties_over(unit, 2) == {0.0, 20.0}
    status, body = await unit.change(job_id, duty_cycle=55)
    assert (status, body["settings"]) == (200, {"duty_cycle": "55"})
    await unit.clock.sleep(1)
    assert await duties_over(unit, 2) == {0.0, 55.0}

    task = await unit.post(UNINSTALL, {"args": ["blink"]})
    assert task["status"] == "complete"
    assert await unit.get(INSTALLED) == []
    assert await job_names(unit) == ["stirring"]
    assert_refusal(await unit.request("POST", "/unit_api/jobs/run/job_name/blink"), 404, "blink")
    [running] = await unit.get("/unit_api/jobs/running")
    assert running["job_name"] == "blink", "what runs goes on"
    await unit.post("/unit_api/jobs/stop/all")
    assert await duties_over(unit, 2) == {0.0}


async def test_a_setting_of_the_example_is_checked(unit: Unit) -> None:
    await install(unit, "blink", source=str(BLINK))
    run = "/unit_api/jobs/run/job_name/blink"
    assert_refusal(
        await unit.request("POST", run, {"options": {"period_s": 0}}), 400, "period_s", "0.2"
    )
    assert_refusal(await unit.request("POST", run, {"options": {"hz": 1}}), 400, "period_s")
    job_id = await unit.run("blink")
    assert_refusal(await unit.change(job_id, duty_cycle=101), 400, "duty_cycle")


async def test_a_job_keeps_its_class_while_its_plugin_is_replaced(
    unit: Unit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    source = tmp_path / "blink.py"
    source.write_text(BLINK.read_text())
    await install(unit, "blink", source=str(source))
    await unit.run("blink", options={"period_s": 1})
    # the same length, within the same second: only its inode tells it from the old file
    source.write_text(BLINK.read_text().replace("duty_percent = 20.0", "duty_percent = 30.0"))
    assert (await install(unit, "blink", source=str(source)))["status"] == "complete"
    assert await duties_over(unit, 2) == {0.0, 20.0}
    await unit.post("/unit_api/jobs/stop/all")
    await unit.run("blink", options={"period_s": 2})
    assert await duties_over(unit, 3) == {0.0, 30.0}


async def test_a_plugin_outlives_a_restart(tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock) as unit:
        await install(unit, "blink", source=str(BLINK))
    async with running_unit(tmp_path, clock) as unit:
        assert await job_names(unit) == ["blink", "stirring"]
        await unit.run("blink")


# -- the list -----------------------------------------------------------------------


async def test_broken_plugins_are_listed_with_their_reason_and_harm_nothing(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    broken = {
        "a_syntax.py": ("def (", "SyntaxError"),
        "b_import.py": ("\n\nimport no_such_module", "No module named 'no_such_module' (line 3)"),
        "c_exit.py": ("raise SystemExit(3)", "SystemExit"),
        "d_recursion.py": ("def f(): f()\nf()", "RecursionError"),
        "e_interrupt.py": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        "f_taken.py": (a_job("stirring"), "'stirring' is taken by piod itself"),
        "g_name.py": (a_job("Blink"), "job_name"),
        "h_reserved.py": (a_job("leds"), "reserved"),
    }
    for name, (text, _) in broken.items():
        put_plugin(tmp_path, name, text)
    put_plugin(tmp_path, "z_good.py", a_job("good"))
    async with running_unit(tmp_path, clock) as unit:
        listed = {item["source"]: item for item in await unit.get(INSTALLED)}
        assert set(listed) == {f"plugins/{name}" for name in (*broken, "z_good.py")}
        for name, (_, reason) in broken.items():
            item = listed[f"plugins/{name}"]
            assert reason in item["error"]
            assert item["name"] == name.removesuffix(".py")
            assert item["version"] == item["author"] == item["description"] == "Unknown"
            assert item["jobs"] == []
        assert listed["plugins/z_good.py"]["error"] is None
        assert await job_names(unit) == ["good", "stirring"]
        await unit.run("good")
        await unit.run("stirring")


async def test_of_two_plugins_with_one_job_name_the_first_file_has_it(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    put_plugin(tmp_path, "b.py", a_job("one") + a_job("two", "Two"))
    put_plugin(tmp_path, "a.py", a_job("one"))
    async with running_unit(tmp_path, clock) as unit:
        first, second = await unit.get(INSTALLED)
        assert (first["source"], first["jobs"], first["error"]) == ("plugins/a.py", ["one"], None)
        assert second["jobs"] == ["two"]
        assert "'one' is taken by plugins/a.py" in second["error"]
        # uninstalling the first frees the name
        await unit.post(UNINSTALL, {"args": ["a"]})
        [left] = await unit.get(INSTALLED)
        assert (left["jobs"], left["error"]) == (["one", "two"], None)


async def test_the_list_reads_upstreams_variables(tmp_path: Path, clock: SimulatedClock) -> None:
    put_plugin(
        tmp_path,
        "cell_counter.py",
        '__plugin_name__ = "cell-counter"\n__plugin_version__ = 1.5\n'
        '__plugin_author__ = "UNKNOWN"\n__plugin_homepage__ = "https://example.org"\n',
    )
    async with running_unit(tmp_path, clock) as unit, unit.client.get(INSTALLED) as response:
        assert response.headers["Cache-Control"] == "public, max-age=5"
        assert await response.json() == [
            {
                "name": "cell-counter",
                "version": "1.5",
                "description": "Unknown",
                "homepage": "https://example.org",
                "source": "plugins/cell_counter.py",
                "author": None,
                "jobs": [],
                "error": None,
            }
        ]


async def test_skip_plugins_disables_all(
    tmp_path: Path, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKIP_PLUGINS", "1")
    put_plugin(tmp_path, "good.py", a_job("good"))
    async with running_unit(tmp_path, clock) as unit:
        assert await unit.get(INSTALLED) == []
        assert await job_names(unit) == ["stirring"]
        task = await install(unit, "blink", source=str(BLINK))
        assert "SKIP_PLUGINS" in task["result"]["output"]
        assert await job_names(unit) == ["stirring"]


# -- the files ----------------------------------------------------------------------


async def test_a_file_is_shown_as_plain_text(tmp_path: Path, clock: SimulatedClock) -> None:
    put_plugin(tmp_path, "mine.py", "# pH µ\nx = 1\n")
    (tmp_path / "plugins" / "latin.py").write_bytes(b"# \xb5 \xff\n")
    async with running_unit(tmp_path, clock) as unit:
        async with unit.client.get(f"{INSTALLED}/mine.py") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert response.headers["Cache-Control"] == "public, max-age=5"
            assert await response.text() == "# pH µ\nx = 1\n"
        async with unit.client.get(f"{INSTALLED}/latin.py") as response:
            assert response.status == 200
            assert "�" in await response.text()


async def test_only_plugin_files_are_shown(tmp_path: Path, clock: SimulatedClock) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("password")
    put_plugin(tmp_path, "notes.txt", "notes")
    (tmp_path / "plugins" / "link.py").symlink_to(secret)
    (tmp_path / "plugins" / "folder.py").mkdir()
    os.mkfifo(tmp_path / "plugins" / "pipe.py")
    names = ["missing.py", "notes.txt", "link.py", "folder.py", "pipe.py", "py", "mine.py.bak"]
    async with running_unit(tmp_path, clock) as unit:
        for name in names:
            assert_refusal(await unit.request("GET", f"{INSTALLED}/{name}"), 404, name)


ODD_NAMES = [
    "..%2Fsecret.py",
    "..%5Csecret.py",
    "%2e%2e%2fsecret.py",
    "a%00.py",
    "%FF.py",
    "%2Fetc%2Fpasswd",
    "plugins%2Fmine.py",
    "é.py",
    "-x.py",
    ".hidden.py",
    "x" * 300 + ".py",
    "a%20%20b.py",
    "a%0Ab.py",
]


async def test_odd_file_names_are_refused(unit: Unit) -> None:
    (unit.data_dir / "secret.py").write_text("password")
    for name in ODD_NAMES:
        assert_refusal(await unit.request("GET", f"{INSTALLED}/{name}"), 400)


# -- installing packages --------------------------------------------------------------


async def test_the_documented_example_works_on_a_fresh_unit(unit: Unit) -> None:
    status, accepted = await unit.request(
        "POST", INSTALL, {"options": {}, "args": ["pioreactor-my-plugin"]}
    )
    assert status == 202
    assert set(accepted) == {"unit", "task_id", "result_url_path"}
    task = await unit.task(accepted)
    assert task["status"] == "complete"
    assert task["result"]["ok"] is True
    assert "pioreactor-my-plugin" in task["result"]["output"]
    [listed] = await unit.get(INSTALLED)
    assert listed["name"] == "pioreactor-my-plugin"
    assert listed["source"] == "entry_points"
    status, accepted = await unit.request("PATCH", UNINSTALL, {"args": ["Pioreactor_My.Plugin"]})
    assert (await unit.task(accepted))["status"] == "complete"
    assert await unit.get(INSTALLED) == []


async def test_uninstalling_what_is_not_there_completes_and_says_so(unit: Unit) -> None:
    task = await unit.post(UNINSTALL, {"args": ["pioreactor-my-plugin"]})
    assert task["status"] == "complete"
    assert task["result"]["ok"] is True
    assert "No plugin named 'pioreactor-my-plugin'" in task["result"]["msg"]


async def test_a_recorded_package_outlives_a_restart(tmp_path: Path, clock: SimulatedClock) -> None:
    async with running_unit(tmp_path, clock) as unit:
        await install(unit, "some-plugin==2.1.0")
    async with running_unit(tmp_path, clock) as unit:
        [listed] = await unit.get(INSTALLED)
        assert (listed["name"], listed["version"]) == ("some-plugin", "2.1.0")


async def test_of_two_installs_at_once_one_is_told_who_holds_the_lock(unit: Unit) -> None:
    answers = await asyncio.gather(
        unit.request("POST", INSTALL, {"args": ["one"]}),
        unit.request("POST", UNINSTALL, {"args": ["two"]}),
    )
    assert [status for status, _ in answers] == [202, 202]
    [first] = [body for _, body in answers if "status" not in body]
    [busy] = [body for _, body in answers if "status" in body]
    assert busy["status"] == "in_progress"
    assert busy["lock"] == "plugins-lock"
    assert busy["task_id"] == first["task_id"]
    await unit.task(first)


# -- installing files -----------------------------------------------------------------


async def test_a_file_that_cannot_be_loaded_changes_nothing(unit: Unit, tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(a_job("mine"))
    assert (await install(unit, "mine", source=str(source)))["status"] == "complete"
    source.write_text("import no_such_module")
    task = await install(unit, "mine", source=str(source))
    assert task["status"] == "failed"
    assert "mine.py was not installed" in task["error"]
    assert "no_such_module" in task["error"]
    assert (unit.data_dir / "plugins" / "mine.py").read_text() == a_job("mine")
    assert await job_names(unit) == ["mine", "stirring"]

    other = tmp_path / "other.py"
    other.write_text(a_job("mine"))
    task = await install(unit, "other", source=str(other))
    assert task["status"] == "failed"
    assert "taken by plugins/mine.py" in task["error"]
    assert not (unit.data_dir / "plugins" / "other.py").exists()
    assert len(await unit.get(INSTALLED)) == 1


async def test_a_file_is_fetched_from_a_url(unit: Unit) -> None:
    async def blink(request: web.Request) -> web.Response:
        return web.Response(text=BLINK.read_text())

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=b"#" * (1024 * 1024 + 1))

    site = web.Application()
    site.router.add_get("/blink.py", blink)
    site.router.add_get("/large.py", large)
    async with TestServer(site) as server:
        task = await install(unit, "blink", source=str(server.make_url("/blink.py?v=2")))
        assert task["status"] == "complete", task
        task = await install(unit, "large", source=str(server.make_url("/large.py")))
        assert "larger than" in task["error"]
        task = await install(unit, "lost", source=str(server.make_url("/lost.py")))
        assert "404" in task["error"]
        gone = str(server.make_url("/gone.py"))
    task = await install(unit, "gone", source=gone)
    assert task["status"] == "failed"
    assert "could not be fetched" in task["error"]
    assert await job_names(unit) == ["blink", "stirring"]


async def test_a_plugin_file_is_uninstalled_by_any_spelling_of_its_stem(unit: Unit) -> None:
    put_plugin(unit.data_dir, "cell_counter.py", a_job("cells"))
    task = await unit.post(UNINSTALL, {"args": ["cell-counter"]})
    assert task["result"]["output"] == "removed plugins/cell_counter.py"
    assert not (unit.data_dir / "plugins" / "cell_counter.py").exists()


# -- who forbids it -------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize("path", [INSTALL, UNINSTALL])
async def test_the_marker_forbids_before_anything_else(unit: Unit, path: str, method: str) -> None:
    (unit.data_dir / "DISALLOW_UI_INSTALLS").touch()
    assert_refusal(
        await unit.request(method, path, {"args": []}), 403, "DISALLOW_UI_INSTALLS", "over HTTP"
    )
    assert_refusal(await unit.request(method, path, {"args": ["x"]}), 403)


@pytest.mark.parametrize("listed", ['["My_Plugin"]', '{"plugins": ["my-plugin"], "version": 1}'])
async def test_the_allow_list_is_enforced(unit: Unit, listed: str) -> None:
    put_plugin(unit.data_dir, "api_plugins_allowlist.json", listed)
    assert (await install(unit, "my-plugin"))["status"] == "complete"
    assert_refusal(
        await unit.request("POST", INSTALL, {"args": ["other"]}), 403, "'other'", "allow-list"
    )


async def test_with_an_allow_list_a_source_must_be_what_is_listed(
    unit: Unit, tmp_path: Path
) -> None:
    put_plugin(unit.data_dir, "api_plugins_allowlist.json", '["blink"]')
    evil = tmp_path / "evil.py"
    evil.write_text("")
    for source in (str(evil), "https://example.org/blink.py"):
        body = {"args": ["blink"], "options": {"source": source}}
        assert_refusal(await unit.request("POST", INSTALL, body), 403, "allow-list")
    assert (await install(unit, "blink", source=str(BLINK)))["status"] == "complete"


async def test_a_broken_allow_list_refuses_everything(unit: Unit) -> None:
    for listed in ("", "{", "7", '["a", 1]', '{"a": 1}', "[" * 100_000, "null", '"a"'):
        put_plugin(unit.data_dir, "api_plugins_allowlist.json", listed)
        answer = await unit.request("POST", INSTALL, {"args": ["a"]})
        assert_refusal(answer, 403, "allow-list", "cannot be read")


# -- bad input ------------------------------------------------------------------------


BAD_BODIES = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"args": null}',
    b'{"args": "blink"}',
    b'{"args": []}',
    b'{"args": ["a", "b"]}',
    b'{"args": [1]}',
    b'{"args": [null]}',
    b'{"args": [""]}',
    b'{"args": [["a"]]}',
    b'{"args": ["a\\u0000b"]}',
    b'{"args": ["\\ud800"]}',
    b'{"args": ["../x"]}',
    b'{"args": ["/etc/passwd"]}',
    b'{"args": ["--index-url=http://x"]}',
    b'{"args": ["-r"]}',
    b'{"args": ["."]}',
    b'{"args": ["a; rm -rf /"]}',
    b'{"args": ["$(reboot)"]}',
    b'{"args": ["a @ http://x/y.whl"]}',
    b'{"args": ["a>=1"]}',
    b'{"args": ["a[extra]"]}',
    b'{"args": ["' + b"a" * 300 + b'"]}',
    b"\xff\xfe",
    b"[" * 200_000,
    b"args=blink",
]


@pytest.mark.parametrize("path", [INSTALL, UNINSTALL])
async def test_bad_bodies_are_refused(unit: Unit, path: str) -> None:
    for body in BAD_BODIES:
        async with unit.client.post(path, data=body) as response:
            assert_refusal((response.status, await response.json()), 400)
    assert await unit.get(INSTALLED) == []


BAD_SOURCES = [
    7,
    "",
    True,
    ["/x.py"],
    "blink.py",
    "./blink.py",
    "../blink.py",
    "~/blink.py",
    "/no/such/blink.py",
    "/no/such/" + "b" * 5000 + ".py",
    "/etc/passwd",
    "/etc",
    "file:///etc/passwd.py",
    "ftp://example.org/x.py",
    "git+https://example.org/x",
    "http://",
    "http:///x.py",
    "https://[/x.py",
    "https://example.org/x y.py",
    "https://example.org/x.py\n",
    "https://example.org/",
    "https://example.org/x.exe",
    "https://example.org/%2e%2e%2f.py",
    "https://example.org/-r.py",
    "--index-url=http://x",
    "/dev/zero",
]


async def test_bad_sources_are_refused(unit: Unit) -> None:
    for source in BAD_SOURCES:
        body = {"args": ["blink"], "options": {"source": source}}
        assert_refusal(await unit.request("POST", INSTALL, body), 400, "source")


async def test_a_link_does_not_make_a_plugin_of_another_file(unit: Unit, tmp_path: Path) -> None:
    (tmp_path / "secret.ini").write_text("x = 1")
    link = tmp_path / "mine.py"
    link.symlink_to(tmp_path / "secret.ini")
    body = {"args": ["mine"], "options": {"source": str(link)}}
    assert_refusal(await unit.request("POST", INSTALL, body), 400, "options.source")


async def test_a_version_and_a_source_exclude_each_other(unit: Unit) -> None:
    body = {"args": ["blink==1.0"], "options": {"source": str(BLINK)}}
    assert_refusal(await unit.request("POST", INSTALL, body), 400, "version")


async def test_options_must_be_an_object_and_a_null_source_is_none(unit: Unit) -> None:
    body: dict[str, object] = {"args": ["some-plugin"], "options": []}
    assert_refusal(await unit.request("POST", INSTALL, body), 400, "options")
    body = {"args": ["some-plugin"], "options": {"source": None, "else": 1}}
    assert (await unit.post(INSTALL, body))["status"] == "complete"


@pytest.mark.parametrize("path", [INSTALL, UNINSTALL])
async def test_other_verbs_are_refused(unit: Unit, path: str) -> None:
    async with unit.client.put(path) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "PATCH,POST"
