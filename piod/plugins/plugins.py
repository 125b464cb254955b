"""The plugins of a unit: loading all, installing and uninstalling one.

They come from packages with entry points of the group ``piod.plugins`` and from
the files ``plugins/*.py`` in the data directory, packages first, each by name.
What changed on the disk is loaded anew by :meth:`Plugins.load`; the rest stays.
A job that runs keeps the class it started with.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.registry import ProtocolRegistry
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.job import Job
from piod.plugins.files import (
    FOLDER,
    PluginFile,
    copy_source,
    fetch_source,
    file_named,
    plugin_files,
    read_bytes,
    read_plugin,
)
from piod.plugins.loading import LOAD_TIMEOUT_S, Loaded, forget, load_within
from piod.plugins.packages import Package, PackageInstaller
from piod.plugins.registry import JobRegistry
from piod.plugins.requests import (
    FileRequest,
    InstallRequest,
    PackageRequest,
    install_request,
    refuse_if_disallowed,
    refuse_unlisted,
)
from piod.storage.files import remove_file, storage_error, write_file

T = TypeVar("T")

log = logging.getLogger(__name__)

ALL_LOADED_S = 20.0
"""Wall time that all plugins together may take; those that come later are left out."""

Origin = Package | PluginFile


@dataclass(frozen=True)
class Plugin:
    """One plugin, for the list. ``about`` has what it says of itself.

    ``error``: what was wrong with it, or with one of its jobs; None when all is well.
    """

    key: str
    source: str
    about: dict[str, str]
    jobs: tuple[str, ...]
    error: str | None


class Plugins:
    """Finds, loads, installs and uninstalls; adds the jobs to ``registry``, and the calibration
    protocols to ``protocols``.

    ``skip``: load none at all (the environment variable SKIP_PLUGINS). ``hold``
    keeps simulated time standing while a thread works.
    """

    def __init__(
        self,
        data_dir: Path,
        registry: JobRegistry,
        installer: PackageInstaller,
        hold: Callable[[], AbstractContextManager[None]],
        *,
        skip: bool = False,
        protocols: ProtocolRegistry | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._registry = registry
        self._protocols = protocols or ProtocolRegistry()
        self._installer = installer
        self._hold = hold
        self._skip = skip
        self._changing = asyncio.Lock()
        self._loaded: list[tuple[Origin, Loaded]] = []
        self._installed: Sequence[Plugin] = ()

    @property
    def installed(self) -> Sequence[Plugin]:
        """The plugins, as they were loaded last."""
        return self._installed

    async def load(self) -> None:
        """Load what is new or has changed, let go of what is gone."""
        if self._skip:
            return
        async with self._changing:
            before = {origin.key: (origin, loaded) for origin, loaded in self._loaded}
            now: list[tuple[Origin, Loaded]] = []
            until = time.monotonic() + ALL_LOADED_S
            for origin in await self._in_thread(self._find):
                known, loaded = before.get(origin.key, (None, None))
                if loaded is None or known != origin:
                    if loaded is not None:
                        forget(loaded)
                    loaded = await self._load_one(origin, until - time.monotonic())
                before.pop(origin.key, None)
                now.append((origin, loaded))
            for _, loaded in before.values():
                forget(loaded)
            self._loaded = now
            self._register()

    async def read(self, file_name: str) -> str:
        """The text of the plugin file ``file_name``, a valid name; NotFound."""
        return await self._in_thread(lambda: read_plugin(self._data_dir, file_name))

    # -- installing and uninstalling ------------------------------------------------

    async def refuse_if_disallowed(self) -> None:
        """Forbidden where a person has ruled out changes over HTTP."""
        await self._in_thread(lambda: refuse_if_disallowed(self._data_dir))

    async def check_install(self, wanted: str, source: str | None) -> InstallRequest:
        """What ``wanted`` from ``source`` means; BadRequest, and Forbidden by the allow-list."""

        def check() -> InstallRequest:
            request = install_request(wanted, source)
            refuse_unlisted(self._data_dir, wanted, request)
            return request

        return await self._in_thread(check)

    async def install(self, request: InstallRequest) -> JsonValue:
        """Install it and load it; the result of the task. PiodError when either fails."""
        if isinstance(request, FileRequest):
            output = await self._install_file(request)
        else:
            output = await self._install_package(request)
        if self._skip:
            output += "\nSKIP_PLUGINS is set: no plugin is loaded."
        return {"ok": True, "output": output}

    async def uninstall(self, name: str) -> JsonValue:
        """Remove the file of that stem, else the package; the result of the task."""
        path = await self._in_thread(lambda: file_named(self._data_dir, name))
        if path is not None:
            await self._in_thread(lambda: remove_file(path))
            output: str | None = f"removed {FOLDER}/{path.name}"
        else:
            output = await self._installer.uninstall(name)
        if output is None:
            return {"ok": True, "output": "", "msg": f"No plugin named {name!r} is installed."}
        await self.load()
        return {"ok": True, "output": output}

    async def _install_file(self, request: FileRequest) -> str:
        """All or nothing: a file that cannot be loaded does not replace one that can."""
        if request.url is not None:
            content = await fetch_source(request.url)
        else:
            content = await self._in_thread(lambda: copy_source(Path(request.source)))
        path = self._data_dir / FOLDER / request.file_name
        before = await self._in_thread(lambda: _content_of(path))
        await self._put(path, content)
        plugin = self._plugin(f"{FOLDER}/{request.file_name}")
        error = None if plugin is None else plugin.error
        if error is not None:
            await self._put(path, before)
            raise BadRequest(f"{request.file_name} was not installed: {error}", cause=error)
        return f"copied {request.source} to {FOLDER}/{request.file_name}"

    async def _install_package(self, request: PackageRequest) -> str:
        try:
            output = await self._installer.install(request)
        finally:
            await self.load()
        plugin = self._plugin(Package(request.name, "").key)
        if plugin is None and not self._skip:
            output += f"\n{request.name} has no entry point for piod: it adds nothing."
        elif plugin is not None and plugin.error is not None:
            raise BadRequest(
                f"{request.name} is installed, but not all of it can be used: {plugin.error}",
                cause=plugin.error,
                remediation="Uninstall it, or install a version that suits this unit.",
            )
        return output

    async def _put(self, path: Path, content: bytes | None) -> None:
        """Let ``path`` hold ``content`` (None: nothing), and load what has changed."""

        def put() -> None:
            if content is None:
                remove_file(path)
            else:
                write_file(path, content)

        await self._in_thread(put)
        await self.load()

    # -- loading --------------------------------------------------------------------

    def _find(self) -> list[Origin]:
        return [*self._installer.found(), *plugin_files(self._data_dir)]

    async def _load_one(self, origin: Origin, left_s: float) -> Loaded:
        if left_s <= 0:
            return Loaded(problems=("it was not loaded: those before it took too long",))
        with self._hold():
            return await load_within(origin.key, origin.load, min(left_s, LOAD_TIMEOUT_S))

    def _register(self) -> None:
        """Jobs by name, first come first served; what the list says of each plugin."""
        owners = dict.fromkeys(self._registry.built_in, "piod itself")
        families = {
            kind.job_name
            for kind in self._registry.built_in.values()
            if kind.kind_name() != kind.job_name
        }
        owners.update(dict.fromkeys(families, "the automations of piod itself"))
        added: dict[str, type[Job]] = {}
        protocols: list[type[CalibrationProtocol]] = []
        taken = {(one.name, device) for one in self._protocols.built_in for device in one.devices}
        installed: list[Plugin] = []
        for origin, loaded in self._loaded:
            problems = list(loaded.problems)
            jobs: list[str] = []
            for kind in loaded.kinds:
                name = kind.kind_name()
                if name != kind.job_name and kind.job_name not in families:
                    problems.append(f"{kind.job_name!r} has no automations")
                    continue
                if name in owners:
                    problems.append(f"the job name {name!r} is taken by {owners[name]}")
                    continue
                owners[name] = origin.source if origin.source != "entry_points" else origin.key
                added[name] = kind
                jobs.append(name)
            for protocol in loaded.protocols:
                for device in protocol.devices:
                    if (protocol.name, device) in taken:
                        problems.append(
                            f"there is a protocol {protocol.name!r} for {device} already"
                        )
                        break
                else:
                    taken.update((protocol.name, device) for device in protocol.devices)
                    protocols.append(protocol)
            error = "; ".join(problems) or None
            before = self._plugin(origin.key)
            if error is not None and (before is None or before.error != error):
                log.warning("plugin %s: %s", origin.key, error)
            about = {**origin.about, **loaded.about}
            installed.append(Plugin(origin.key, origin.source, about, tuple(jobs), error))
        self._registry.set_added(added)
        self._protocols.set_added(protocols)
        self._installed = installed

    def _plugin(self, key: str) -> Plugin | None:
        return next((plugin for plugin in self._installed if plugin.key == key), None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with self._hold():
            return await asyncio.to_thread(work)


def _content_of(path: Path) -> bytes | None:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:  # what cannot be read cannot be put back
        what = f"{path.name}, which is there already, cannot be read"
        raise storage_error(what, error) from error
