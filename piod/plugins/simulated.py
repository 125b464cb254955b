"""Installing packages on a simulated unit: nothing runs, and it is remembered."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from piod.plugins.packages import Package, entry_point_packages
from piod.plugins.requests import PackageRequest, normal_name
from piod.storage.files import write_file

T = TypeVar("T")

log = logging.getLogger(__name__)

UNKNOWN_VERSION = "Unknown"


class SimulatedInstaller:
    """Records what it was asked for in ``<data-dir>/simulator/packages.json``.

    A recorded package stands in the list of plugins and adds no job. Plugins that
    really are on this machine are found beside it, so that a plugin in the making
    can be tried on a simulated unit.
    """

    def __init__(self, data_dir: Path, hold: Callable[[], AbstractContextManager[None]]) -> None:
        self._file = data_dir / "simulator" / "packages.json"
        self._hold = hold

    def found(self) -> list[Package]:
        real = entry_point_packages()
        recorded = [Package(*item) for item in self._recorded().items()]
        known = {package.key for package in real}
        return [*real, *(package for package in recorded if package.key not in known)]

    async def install(self, request: PackageRequest) -> str:
        recorded = await self._in_thread(self._recorded)
        recorded = self._without(recorded, request.name)
        recorded[request.name] = request.version or UNKNOWN_VERSION
        await self._in_thread(lambda: self._record(recorded))
        return f"simulated: pip would install {request.requirement}"

    async def uninstall(self, name: str) -> str | None:
        recorded = await self._in_thread(self._recorded)
        left = self._without(recorded, name)
        if left == recorded:
            return None
        await self._in_thread(lambda: self._record(left))
        return f"simulated: pip would uninstall {name}"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with self._hold():
            return await asyncio.to_thread(work)

    @staticmethod
    def _without(recorded: dict[str, str], name: str) -> dict[str, str]:
        return {
            known: version
            for known, version in recorded.items()
            if normal_name(known) != normal_name(name)
        }

    def _recorded(self) -> dict[str, str]:
        """Versions by name."""
        try:
            recorded = json.loads(self._file.read_bytes())
            return {str(name): str(version) for name, version in recorded.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            log.warning("%s cannot be read, so no package is installed: %s", self._file, error)
            return {}

    def _record(self, recorded: dict[str, str]) -> None:
        write_file(self._file, json.dumps(recorded, indent=1) + "\n")
