"""pip, run as a process: what it is told, what becomes of what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from piod.errors import Forbidden, Unavailable
from piod.plugins.packages import Package
from piod.plugins.pip_installer import KEPT_BYTES, Environment, InstallFailed, PipInstaller
from piod.plugins.requests import PackageRequest

SEES_PIP = sys.prefix == sys.base_prefix and PathFinder.find_spec("pip") is not None
"""Whether the environment for plugins is made without pip, as under Debian: that is quick."""

INSTALLED = any(one.metadata["Name"] == "piod" for one in metadata.distributions())


def fake_python(folder: Path, script: str) -> Environment:
    """An environment whose Python is the shell script ``script``."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return Environment(python, folder)


def wheel(folder: Path, name: str, version: str, requires: Sequence[str] = ()) -> Path:
    """A package of one module that offers itself as a plugin."""
    module = name.replace("-", "_")
    about = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{module}.py", f"VERSION = {version!r}\n")
        file.writestr(
            f"{about}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: Tries.\n{needs}",
        )
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/entry_points.txt", f"[piod.plugins]\nit = {module}\n")
        file.writestr(f"{about}/RECORD", "")
    return path


def alive(process_id: int) -> bool:
    try:
        status = Path(f"/proc/{process_id}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def written(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


async def process_id_in(file: Path) -> int:
    for _ in range(500):
        text = written(file)
        if text:
            return int(text)
        await asyncio.sleep(0.01)
    raise AssertionError("the fake pip has not started")


async def gone(process_id: int) -> bool:
    for _ in range(200):
        if not alive(process_id):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("request_", "requirement"),
    [
        (PackageRequest("some-plugin"), "some-plugin"),
        (PackageRequest("some-plugin", "1.2"), "some-plugin==1.2"),
        (PackageRequest("x", None, "https://a.org/x.whl"), "x @ https://a.org/x.whl"),
        (PackageRequest("x", None, "/a b/$(touch y);x.whl"), "x @ file:///a%20b/"),
    ],
)
async def test_pip_gets_one_requirement_and_no_shell_sees_it(
    tmp_path: Path, request_: PackageRequest, requirement: str
) -> None:
    environment = fake_python(tmp_path, 'printf "%s\\n" "$@"')
    output = await PipInstaller(environment).install(request_)
    arguments = output.splitlines()
    assert arguments[:3] == ["-P", "-m", "pip"]
    assert arguments[-2] == "--"
    assert arguments[-1].startswith(requirement)


async def test_the_last_of_a_long_output_is_kept(tmp_path: Path) -> None:
    environment = fake_python(
        tmp_path, 'head -c 300000 /dev/zero | tr "\\0" x; printf "\\377"; echo done'
    )
    output = await PipInstaller(environment).install(PackageRequest("x"))
    assert output.endswith("x�done\n")
    assert len(output) <= KEPT_BYTES


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("echo 'ERROR: Cannot install x'; echo 'ERROR: ResolutionImpossible'", "Cannot install x"),
        ("echo collecting; echo 'no space left' >&2; echo", "no space left"),
        ("true", "status 3"),
    ],
)
async def test_a_failure_tells_its_reason(tmp_path: Path, printed: str, reason: str) -> None:
    environment = fake_python(tmp_path, f"{printed}; exit 3")
    with pytest.raises(InstallFailed, match=f"^some-plugin could not be installed: .*{reason}"):
        await PipInstaller(environment).install(PackageRequest("some-plugin"))


async def test_after_the_deadline_pip_and_what_it_started_are_killed(tmp_path: Path) -> None:
    environment = fake_python(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; echo hm; wait")
    with pytest.raises(InstallFailed, match=r"not done within 0\.3 s") as refusal:
        async with asyncio.timeout(5):
            await PipInstaller(environment, timeout_s=0.3).install(PackageRequest("x"))
    assert refusal.value.cause == "hm"
    assert await gone(await process_id_in(tmp_path / "child"))


async def test_pip_is_killed_when_the_daemon_ends(tmp_path: Path) -> None:
    environment = fake_python(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    task = asyncio.create_task(PipInstaller(environment).install(PackageRequest("x")))
    child = await process_id_in(tmp_path / "child")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert await gone(child)


async def test_pip_is_killed_even_while_it_is_being_started(tmp_path: Path) -> None:
    environment = fake_python(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; wait")
    task = asyncio.create_task(PipInstaller(environment).install(PackageRequest("x")))
    for _ in range(500):
        await asyncio.sleep(0.001)
        if len(asyncio.all_tasks()) == 3:
            break  # there is the task that starts it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    child = written(tmp_path / "child")
    assert not child or await gone(int(child))


async def test_what_pip_leaves_behind_with_its_output_open_is_killed_too(tmp_path: Path) -> None:
    environment = fake_python(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child")
    with pytest.raises(InstallFailed, match="not done within"):
        async with asyncio.timeout(5):
            await PipInstaller(environment, timeout_s=0.3).install(PackageRequest("x"))
    assert await gone(await process_id_in(tmp_path / "child"))


async def test_a_python_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    installer = PipInstaller(Environment(tmp_path / "nowhere", tmp_path))
    with pytest.raises(InstallFailed, match=r"some-plugin could not be installed: .*cannot be run"):
        await installer.install(PackageRequest("some-plugin"))


@pytest.mark.skipif(not INSTALLED, reason="piod runs from its sources: nothing says what it needs")
@pytest.mark.parametrize("name", ["aiohttp", "AioHTTP", "marshmallow", "pip"])
async def test_what_piod_needs_is_neither_replaced_nor_removed(tmp_path: Path, name: str) -> None:
    installer = PipInstaller(fake_python(tmp_path, "touch ran"))
    with pytest.raises(Forbidden, match="not a plugin"):
        await installer.install(PackageRequest(name))
    with pytest.raises(Forbidden, match="not a plugin"):
        await installer.uninstall(name)


async def test_only_what_lies_in_the_environment_is_removed(tmp_path: Path) -> None:
    installer = PipInstaller(fake_python(tmp_path, "echo removed"))
    with pytest.raises(Forbidden, match="not installed by piod"):
        await installer.uninstall("pytest")
    assert await installer.uninstall("no-such-package") is None


async def install_try_and_uninstall(data_dir: Path) -> None:
    installer = PipInstaller(Environment.within(data_dir))
    path = wheel(data_dir, "piod-try", "1.0")
    output = await installer.install(PackageRequest("piod-try", None, str(path)))
    assert "Successfully installed piod-try-1.0" in output
    found = await asyncio.to_thread(installer.found)
    assert Package("piod-try", "1.0", "Tries.", entries=(("it", "piod_try"),)) in found

    demanding = wheel(data_dir, "piod-try", "1.1", ["aiohttp<3"])
    with pytest.raises(InstallFailed, match="piod-try could not be installed"):
        await installer.install(PackageRequest("piod-try", None, str(demanding)))
    other = wheel(data_dir, "piod-other", "1.0")
    with pytest.raises(InstallFailed):
        await installer.install(PackageRequest("piod-try", None, str(other)))

    assert "uninstalled" in str(await installer.uninstall("Piod_Try"))
    assert await installer.uninstall("piod-try") is None


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index; and sys.path as it was, afterwards."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.skipif(not SEES_PIP, reason="makes an environment with its own pip: slow")
@pytest.mark.usefixtures("offline")
async def test_a_wheel_goes_into_the_environment_of_the_unit(tmp_path: Path) -> None:
    await install_try_and_uninstall(tmp_path)


@pytest.mark.long
@pytest.mark.usefixtures("offline")
async def test_the_environment_is_made_with_pip_where_there_is_none_to_see(tmp_path: Path) -> None:
    await install_try_and_uninstall(tmp_path)


async def test_an_environment_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "unit"
    within = Environment.within(data_dir)
    python = fake_python(tmp_path, f"mkdir -p {within.folder}/bin; echo no ensurepip; exit 1")
    monkeypatch.setattr(sys, "executable", str(python.python))
    with pytest.raises(Unavailable, match="could not be made: no ensurepip"):
        await PipInstaller(within).install(PackageRequest("x"))
    assert not (data_dir / ".plugin_env").exists()
