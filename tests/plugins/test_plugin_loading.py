"""What is loaded, what is refused, and that neither harms anything else."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from piod.jobs.job import Job, Option, Setting
from piod.jobs.registry import JOBS
from piod.plugins import plugins as service
from piod.plugins.files import plugin_files
from piod.plugins.loading import load_file, load_within
from piod.plugins.packages import Package, entry_point_packages
from piod.plugins.plugins import Plugins
from piod.plugins.registry import JobRegistry
from piod.plugins.requests import PackageRequest
from piod.plugins.rules import problem_with
from piod.plugins.simulated import SimulatedInstaller

JOB = """
from piod.jobs.job import Job

class One(Job):
    job_name = "{name}"
    help = "{help}"

    @classmethod
    async def create(cls, unit, options):
        return cls()

    async def run(self):
        pass
"""


class Good(Job):
    job_name = "good"

    @classmethod
    async def create(cls, unit, options):
        return cls()

    async def run(self):
        pass


def a_job(name: str, help: str = "") -> str:
    return JOB.format(name=name, help=help)


def put(data_dir: Path, name: str, text: str) -> Path:
    folder = data_dir / "plugins"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def registry() -> JobRegistry:
    return JobRegistry(JOBS)


@pytest.fixture
def plugins(tmp_path: Path, registry: JobRegistry) -> Plugins:
    return Plugins(tmp_path, registry, SimulatedInstaller(tmp_path, nullcontext), nullcontext)


# -- rules --------------------------------------------------------------------------


def test_a_proper_job_is_taken() -> None:
    assert problem_with(Good) is None
    for kind in JOBS.values():
        assert problem_with(kind) is None


async def plain(self) -> None:
    """A coroutine function."""


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"job_name": None}, "job_name"),
        ({"job_name": 3}, "job_name"),
        ({"job_name": ""}, "job_name"),
        ({"job_name": "Good"}, "job_name"),
        ({"job_name": "a b"}, "job_name"),
        ({"job_name": "../a"}, "job_name"),
        ({"job_name": "a" * 64}, "job_name"),
        ({"job_name": "1a"}, "job_name"),
        ({"job_name": "pwm"}, "reserved"),
        ({"run": lambda self: None}, "run of the job 'good' is not 'async def'"),
        ({"sleep": lambda self: None}, "sleep"),
        ({"create": classmethod(lambda cls, unit, options: cls())}, "create"),
        ({"change": plain}, "change"),
        ({"help": None}, "help"),
        ({"stop_first": "no"}, "stop_first"),
        ({"restart_policy": None}, "restart_policy"),
        ({"options": None}, "options"),
        ({"options": "period"}, "options"),
        ({"options": ("period",)}, "not an Option"),
        ({"options": (Option("a", "float"), Option("a", "float"))}, "twice"),
        ({"options": (Option("a-b", "float"),)}, "'a-b'"),
        ({"options": (Option("a", "double"),)}, "'double'"),
        ({"options": (Option("a", "float", help=None),)}, "help"),
        ({"options": (Option("a", "float", minimum="0"),)}, "bound"),
        ({"options": (Option("a", "float", minimum=2, maximum=1),)}, "minimum"),
        ({"options": (Option("a", "float", minimum=float("nan"), maximum=1),)}, "minimum"),
        ({"settings": {}}, "settings"),
        ({"settings": (Option("a", "float"),)}, "not a Setting"),
        ({"settings": (Setting("a__b", "float"),)}, "'a__b'"),
        ({"settings": (Setting("$state", "text"),)}, "by every job"),
        ({"settings": (Setting("restarts", "integer"),)}, "by every job"),
        ({"settings": (Setting("a", "double"),)}, "'double'"),
        ({"settings": (Setting("a", "float", unit=3),)}, "unit"),
    ],
)
def test_an_improper_job_is_refused(attributes: dict[str, object], words: str) -> None:
    kind = type("Bad", (Good,), attributes)
    problem = problem_with(kind)
    assert problem is not None
    assert words in problem


def test_a_job_without_a_loop_or_a_name_is_refused_and_a_base_is_passed_over(
    tmp_path: Path,
) -> None:
    text = a_job("mine").replace("async def run", "async def running")
    path = put(tmp_path, "a.py", text)
    assert load_file(path).problems == ("the job 'mine' does not define run",)
    path = put(tmp_path, "b.py", a_job("x").replace('job_name = "x"', ""))
    assert "job_name of One, None" in load_file(path).problems[0]
    path = put(tmp_path, "c.py", "from piod.jobs.job import Job\nclass Base(Job): pass\n")
    loaded = load_file(path)
    assert (loaded.kinds, loaded.problems) == ((), ())


def test_a_job_that_is_only_imported_is_not_added(tmp_path: Path) -> None:
    path = put(tmp_path, "a.py", "from piod.jobs.stirring import Stirring\n" + a_job("mine"))
    assert [kind.job_name for kind in load_file(path).kinds] == ["mine"]


# -- loading one --------------------------------------------------------------------


def test_a_file_may_use_dataclasses_and_leaves_no_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "from typing import ClassVar\n@dataclass\nclass A:\n    b: ClassVar[int] = 1\n"
    assert load_file(put(tmp_path, "a.py", text)).problems == ()
    assert [path.name for path in (tmp_path / "plugins").iterdir()] == ["a.py"]


async def test_a_plugin_that_hangs_is_left_behind(
    tmp_path: Path, plugins: Plugins, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "LOAD_TIMEOUT_S", 0.2)
    done = tmp_path / "done"
    hang = f"import os, time\nwhile not os.path.exists({str(done)!r}): time.sleep(0.005)\n"
    put(tmp_path, "a_hang.py", hang + a_job("hanging"))
    put(tmp_path, "b_good.py", a_job("good"))
    began = time.monotonic()
    await plugins.load()
    assert time.monotonic() - began < 2
    hanging, good = plugins.installed
    assert hanging.error == "it was not loaded within 0.2 s"
    assert (good.jobs, good.error) == (("good",), None)
    done.touch()
    await asyncio.sleep(0.05)
    await plugins.load()
    assert "hanging" not in registry, "it came too late"


async def test_when_the_time_for_all_is_over_the_rest_is_not_loaded(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ALL_LOADED_S", 0.05)
    put(tmp_path, "a.py", "import time; time.sleep(0.1)")
    put(tmp_path, "b.py", a_job("good"))
    await plugins.load()
    assert "took too long" in str(plugins.installed[1].error)
    await asyncio.sleep(0.1)


async def test_what_a_plugin_prints_does_not_reach_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path, "a.py", "print('hello')")
    await load_within("a", lambda: load_file(path))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


async def test_odd_files_are_passed_over(tmp_path: Path, plugins: Plugins) -> None:
    put(tmp_path, ".hidden.py", "raise SystemExit")
    put(tmp_path, "notes.txt", "")
    (tmp_path / "plugins" / "folder.py").mkdir()
    (tmp_path / "plugins" / "nowhere.py").symlink_to("no such file")
    os.mkfifo(tmp_path / "plugins" / "pipe.py")
    put(tmp_path, "large.py", "#" * (1024 * 1024 + 1))
    put(tmp_path, "nul.py", "\0")
    await plugins.load()
    large, nul = plugins.installed
    assert "larger than" in str(large.error)
    assert "null bytes" in str(nul.error)


async def test_a_name_or_version_of_any_kind_is_told_as_text(
    tmp_path: Path, plugins: Plugins
) -> None:
    put(tmp_path, "a.py", "__plugin_name__ = 'x' * 5000\n__plugin_version__ = (1, 2)")
    text = "class Odd:\n    def __str__(self): raise ValueError\n__plugin_author__ = Odd()"
    put(tmp_path, "b.py", text + "\n" + a_job("b"))
    await plugins.load()
    long, odd = plugins.installed
    assert len(long.about["name"]) == 1000
    assert long.about["version"] == "(1, 2)"
    assert "ValueError" in str(odd.error)


# -- loading anew -------------------------------------------------------------------


async def test_only_what_changed_is_loaded_anew(
    tmp_path: Path, plugins: Plugins, registry: JobRegistry
) -> None:
    put(tmp_path, "a.py", a_job("a"))
    put(tmp_path, "b.py", a_job("b", "old"))
    await plugins.load()
    a, b = registry["a"], registry["b"]
    modules = {a.__module__, b.__module__}
    assert modules <= set(sys.modules)
    put(tmp_path, "b.py", a_job("b", "newer"))
    await plugins.load()
    assert registry["a"] is a
    assert registry["b"] is not b
    assert (b.help, registry["b"].help) == ("old", "newer")
    assert set(registry) == {*JOBS, "a", "b"}
    (tmp_path / "plugins" / "b.py").unlink()
    (tmp_path / "plugins" / "a.py").unlink()
    await plugins.load()
    assert set(registry) == set(JOBS)
    assert not modules & set(sys.modules)


async def test_a_problem_is_logged_once(
    tmp_path: Path, plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "a.py", "import no_such_module")
    await plugins.load()
    put(tmp_path, "b.py", "")
    await plugins.load()
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "plugin plugins/a.py: ModuleNotFoundError: No module named 'no_such_module' (line 1)"
    ]


def test_the_files_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    assert plugin_files(tmp_path) == []
    for name in ("b.py", "a.py", "B.py"):
        put(tmp_path, name, "")
    assert [file.path.name for file in plugin_files(tmp_path)] == ["B.py", "a.py", "b.py"]


# -- packages -----------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.startswith("tried_plugin")]:
        del sys.modules[name]


def installed_package(site: Path, version: str, entries: str, help: str = "") -> None:
    """One package: a module that takes its job from another of its modules."""
    package = site / "tried_plugin"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("from tried_plugin.jobs import One\n")
    (package / "jobs.py").write_text(a_job("tried", help))
    for old in site.glob("*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    about = site / f"tried_plugin-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: tried-plugin\nVersion: {version}\nSummary: UNKNOWN\n"
        "Author: A. Uthor\nProject-URL: Docs, https://d\nProject-URL: Homepage, https://h\n"
    )
    (about / "entry_points.txt").write_text(f"[piod.plugins]\n{entries}\n")


async def test_a_package_adds_the_jobs_of_its_entry_points(
    site: Path, plugins: Plugins, registry: JobRegistry
) -> None:
    installed_package(site, "1.0", "all = tried_plugin\none = tried_plugin.jobs:One", "old")
    await plugins.load()
    [plugin] = plugins.installed
    assert plugin.about == {
        "name": "tried-plugin",
        "version": "1.0",
        "description": "UNKNOWN",
        "homepage": "https://h",
        "author": "A. Uthor",
    }
    assert (plugin.source, plugin.jobs, plugin.error) == ("entry_points", ("tried",), None)


async def test_an_upgraded_package_is_loaded_anew_and_what_it_needs_is_not(
    site: Path, plugins: Plugins, registry: JobRegistry
) -> None:
    (site / "needed_by_it.py").write_text("")
    installed_package(site, "1.0", "all = tried_plugin", 'old"; import needed_by_it; x = "')
    await plugins.load()
    old, needed = registry["tried"], sys.modules["needed_by_it"]
    installed_package(site, "1.1", "all = tried_plugin", "newer")
    await plugins.load()
    assert (old.help, registry["tried"].help) == ("old", "newer")
    assert sys.modules.pop("needed_by_it") is needed


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("x = no_such_module", "no_such_module"),
        ("x = tried_plugin:nothing", "nothing"),
        ("x = tried_plugin.jobs:__name__", "neither a module nor a job"),
        ("x = asyncio", None),
    ],
)
async def test_a_wrong_entry_point_is_told(
    site: Path, plugins: Plugins, registry: JobRegistry, entry: str, words: str | None
) -> None:
    installed_package(site, "1.0", entry)
    await plugins.load()
    [plugin] = plugins.installed
    assert words is None or words in str(plugin.error)
    assert set(registry) == set(JOBS)
    (site / "tried_plugin-1.0.dist-info" / "entry_points.txt").unlink()
    await plugins.load()
    assert plugins.installed == []
    assert "asyncio" in sys.modules, "only what a plugin brought is forgotten"


def test_other_packages_are_no_plugins() -> None:
    assert entry_point_packages() == []


# -- the simulated installer --------------------------------------------------------


async def test_a_record_that_cannot_be_read_is_started_anew(tmp_path: Path) -> None:
    installer = SimulatedInstaller(tmp_path, nullcontext)
    (tmp_path / "simulator").mkdir()
    for text in ("{", "[]", "7"):
        (tmp_path / "simulator" / "packages.json").write_text(text)
        assert installer.found() == []
    await installer.install(PackageRequest("a", "1.0"))
    await installer.install(PackageRequest("A"))
    await installer.install(PackageRequest("b", None, "/x/b.whl"))
    assert installer.found() == [Package("A", "Unknown"), Package("b", "Unknown")]
    assert await installer.uninstall("B") is not None
    assert await installer.uninstall("B") is None
