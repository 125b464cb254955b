"""Installing packages with pip, into piod's own environment.

That is where piod itself is installed, when piod may write there and the
operating system does not manage it. Else, as under Debian, it is a virtual
environment in the data directory that sees the system's packages.

pip never changes piod or what piod needs: both are pinned to what is installed.
No shell is involved.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.machinery
import os
import re
import shutil
import signal
import site
import sys
import sysconfig
import tempfile
from asyncio import StreamReader
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from piod.errors import Forbidden, PiodError, Unavailable
from piod.plugins.packages import Package, entry_point_packages
from piod.plugins.requests import PackageRequest, normal_name

PLUGIN_ENVIRONMENT = ".plugin_env"
"""Folder of the virtual environment in the data directory."""
TIMEOUT_S = 600.0
KEPT_BYTES = 20_000
"""How much of what pip prints is kept: the last of it."""

_PIP = ("-m", "pip", "--no-input", "--disable-pip-version-check", "--no-color")
_REQUIRED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class InstallFailed(PiodError):
    """pip said no."""

    status = 500
    default_remediation = "Look at the cause: it is the last of what pip printed."


@dataclass(frozen=True)
class Environment:
    """Where packages go: ``python -m pip`` installs into ``site_packages``.

    ``folder``: the virtual environment that piod makes when it is needed first;
    None when piod's interpreter itself is used.
    """

    python: Path
    site_packages: Path
    folder: Path | None = None

    @classmethod
    def of_piod(cls) -> Environment:
        """The environment that piod itself runs in."""
        return cls(Path(sys.executable), Path(sysconfig.get_path("purelib")))

    @classmethod
    def within(cls, data_dir: Path) -> Environment:
        """The virtual environment of the unit ``data_dir``, made or not."""
        folder = data_dir / PLUGIN_ENVIRONMENT
        home = {"base": str(folder), "platbase": str(folder)}
        purelib = sysconfig.get_path("purelib", "venv", home)
        return cls(folder / "bin" / "python", Path(purelib), folder)

    @property
    def is_there(self) -> bool:
        """Whether it is made, and for this version of Python."""
        return self.site_packages.is_dir() and self.python.exists()


def choose_environment(data_dir: Path) -> Environment:
    """piod's own environment if pip may write to it, else that of the unit."""
    own = Environment.of_piod()
    in_venv = sys.prefix != sys.base_prefix
    managed = not in_venv and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()
    has_pip = _has_pip()
    if has_pip and not managed and os.access(own.site_packages, os.W_OK):
        return own
    return Environment.within(data_dir)


class PipInstaller:
    """Runs pip."""

    def __init__(self, environment: Environment, *, timeout_s: float = TIMEOUT_S) -> None:
        self._environment = environment
        self._timeout_s = timeout_s

    def found(self) -> list[Package]:
        environment = self._environment
        folder = str(environment.site_packages)
        if environment.folder is not None and environment.is_there and folder not in sys.path:
            site.addsitedir(folder)  # at the end: piod's own packages come first
        importlib.invalidate_caches()
        return entry_point_packages()

    async def install(self, request: PackageRequest) -> str:
        pins = await asyncio.to_thread(_needed_by_piod)
        self._refuse_own(request.name, pins)
        await self._make_environment()
        constraints = await asyncio.to_thread(_write_constraints, pins)
        try:
            return await self._run(
                f"{request.name} could not be installed",
                self._environment.python,
                *_PIP,
                "install",
                "--upgrade",
                f"--constraint={constraints}",
                "--",
                request.requirement,
            )
        finally:
            constraints.unlink(missing_ok=True)

    async def uninstall(self, name: str) -> str | None:
        pins = await asyncio.to_thread(_needed_by_piod)
        self._refuse_own(name, pins)
        folder = await asyncio.to_thread(_folder_of, name)
        if folder is None:
            return None
        if folder != self._environment.site_packages.resolve():
            raise Forbidden(
                f"the package {name!r} was not installed by piod, so piod does not remove it",
                cause=f"it lies in {folder}",
                remediation="Remove it with the package manager of the operating system.",
            )
        return await self._run(
            f"{name} could not be uninstalled",
            self._environment.python,
            *_PIP,
            "uninstall",
            "--yes",
            "--",
            name,
        )

    @staticmethod
    def _refuse_own(name: str, pins: dict[str, str]) -> None:
        if normal_name(name) in pins:
            raise Forbidden(
                f"{name!r} belongs to piod or to what piod needs; it is not a plugin",
                remediation="Update piod with /unit_api/system/update/app.",
            )

    async def _make_environment(self) -> None:
        environment, folder = self._environment, self._environment.folder
        if folder is None or await asyncio.to_thread(lambda: environment.is_there):
            return
        # under Debian pip is the system's, which the environment sees; ensurepip may be missing
        sees_pip = sys.prefix == sys.base_prefix and _has_pip()
        without = ("--without-pip",) if sees_pip else ()
        try:
            await self._run(
                "the environment for plugins could not be made",
                Path(sys.executable),
                *("-m", "venv", "--system-site-packages", *without),
                str(folder),
            )
        except InstallFailed as failure:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise Unavailable(
                failure.message,
                cause=failure.cause,
                remediation="Install the packages python3-pip and python3-venv on this unit.",
            ) from failure

    async def _run(self, failed: str, python: Path, *arguments: str) -> str:
        """Run Python to its end; the last of what it printed.

        Raises InstallFailed, whose message begins with ``failed``.
        """
        printed = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                # -P: nothing is imported from where the daemon happens to stand
                _running(python, "-P", *arguments) as (process, stdout),
            ):
                while chunk := await stdout.read(65536):
                    printed += chunk
                    del printed[:-KEPT_BYTES]
                status = await process.wait()
        except TimeoutError:
            raise InstallFailed(
                f"{failed}: pip was not done within {self._timeout_s:g} s",
                cause=_last_lines(printed),
            ) from None
        except OSError as error:
            raise InstallFailed(f"{failed}: {python} cannot be run: {error.strerror}") from error
        output = printed.decode(errors="replace").replace("\0", "")
        if status != 0:
            why = _reason(output) or f"pip left with the status {status}"
            raise InstallFailed(f"{failed}: {why}", cause=_last_lines(printed))
        return output


@asynccontextmanager
async def _running(python: Path, *arguments: str) -> AsyncIterator[tuple[Process, StreamReader]]:
    """A process and what it prints; it is killed, with all it started, if left too early."""
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            python,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    )
    try:
        process = await asyncio.shield(starting)
        assert process.stdout is not None
        yield process, process.stdout
    finally:
        process = await starting  # cancelled meanwhile, it has started all the same
        if process.returncode is None or not (process.stdout and process.stdout.at_eof()):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended
            await process.communicate()


def _reason(output: str) -> str:
    """The line that tells most: pip's first error, which later ones only sum up; or the last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return next(iter(errors or reversed(lines)), "")


def _last_lines(printed: bytearray) -> str:
    return printed[-2000:].decode(errors="replace").replace("\0", "").strip()


def _needed_by_piod() -> dict[str, str]:
    """piod, all that it needs, and pip, by normal name, with their versions. Blocks."""
    from importlib import metadata  # heavy: not before it is needed

    versions: dict[str, str] = {}
    pending = ["piod", "pip"]
    while pending:
        name = normal_name(pending.pop())
        if name in versions:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # run from its sources, or a need of another platform
        versions[name] = distribution.version
        for requirement in distribution.requires or ():
            needed = _REQUIRED_NAME.match(requirement)
            if needed is not None and "extra ==" not in requirement:
                pending.append(needed.group())
    return versions


def _write_constraints(pins: dict[str, str]) -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="piod-pins-", suffix=".txt", delete=False) as file:
        file.writelines(f"{name}=={version}\n" for name, version in pins.items())
    return Path(file.name)


def _folder_of(name: str) -> Path | None:
    """Where the package ``name`` is installed; None if it is not. Blocks."""
    from importlib import metadata  # heavy: not before it is needed

    try:
        return Path(str(metadata.distribution(name).locate_file(""))).resolve()
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _has_pip() -> bool:
    """Whether this interpreter has pip.

    Looked for on the path alone: setuptools hooks the import system, and answers a
    look for pip by throwing distutils out of this process.
    """
    return importlib.machinery.PathFinder.find_spec("pip") is not None
