"""Lists of artifacts, for which only files that have changed are parsed.

:class:`Listing` keeps what each file was rendered to together with the file's
identity. A thousand unchanged records cost a thousand ``stat``; what can be kept
is bounded, and beyond the bound the least recently listed are parsed again.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from piod.calibrations.names import check_name
from piod.calibrations.store import SUFFIX, ArtifactStore
from piod.errors import BadRequest, PiodError
from piod.storage.files import storage_error

logger = logging.getLogger(__name__)

R = TypeVar("R")
T = TypeVar("T")

MAX_RECORDS = 5000
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rendered:
    """One artifact of a device, as the listing's ``render`` made it."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class _Known:
    """What a file was; ``content`` is None when it could not be used."""

    identity: tuple[int, ...]
    content: bytes | None


class Listing(Generic[R]):
    """What there is in ``store``, each record as the bytes that ``render`` makes of it.

    Files that cannot be used are left out, with one line in the log for each
    state of the file. Order is that of the names. Raises StorageFailed.
    """

    def __init__(
        self,
        store: ArtifactStore[R],
        render: Callable[[R], bytes],
        *,
        max_records: int = MAX_RECORDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._store = store
        self._render = render
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._bytes = 0
        self._scanning = asyncio.Lock()  # the threads share what is known

    async def everything(self) -> dict[str, list[Rendered]] | None:
        """By device, those that have any; None when the directory is missing."""
        return await self._in_thread(self._everything)

    async def of_device(self, device: str) -> list[Rendered] | None:
        """Those of ``device``; None when it has no directory. BadRequest when it is no name."""
        check_name(device, "device")
        return await self._in_thread(lambda: self._of_device(device))

    async def of(self, names: Iterable[tuple[str, str]]) -> dict[str, Rendered]:
        """Of (device, name) pairs, one for each device, those that can be used."""
        return await self._in_thread(lambda: dict(self._of(names)))

    # -- in the thread ----------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        async with self._scanning:
            with self._store.hold():
                return await asyncio.to_thread(work)

    def _everything(self) -> dict[str, list[Rendered]] | None:
        devices = _names_in(self._store.directory)
        if devices is None:
            return None
        listed = ((device, self._of_device(device)) for device in devices)
        return {device: rendered for device, rendered in listed if rendered}

    def _of_device(self, device: str) -> list[Rendered] | None:
        files = _names_in(self._store.directory / device)
        if files is None:
            return None
        names = [file.removesuffix(SUFFIX) for file in files if file.endswith(SUFFIX)]
        return [rendered for _, rendered in self._of((device, name) for name in names)]

    def _of(self, names: Iterable[tuple[str, str]]) -> Iterator[tuple[str, Rendered]]:
        for device, name in names:
            content = self._content(device, name)
            if content is not None:
                yield device, Rendered(name, content)

    def _content(self, device: str, name: str) -> bytes | None:
        key = (device, name)
        path = self._store.directory / device / f"{name}{SUFFIX}"
        try:
            status = os.stat(path)
        except OSError:
            return None  # it has just been deleted, or is a link to nothing
        # before it is read: a change after this shows the next time
        identity = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        known = self._known.get(key)
        if known is not None and known.identity == identity:
            self._known.move_to_end(key)
            return known.content
        content: bytes | None = None
        try:
            content = self._render(self._store.read_file(self._store.path_of(device, name)))
        except PiodError as error:
            logger.warning("%s is not listed: %s", path, error.message)
            if not isinstance(error, BadRequest):
                return None  # the disk, not the file: it may be fine the next time
        self._keep(key, _Known(identity, content))
        return content

    def _keep(self, key: tuple[str, str], known: _Known) -> None:
        self._forget(self._known.pop(key, None))
        self._known[key] = known
        self._bytes += len(known.content or b"")
        while len(self._known) > self._max_records or self._bytes > self._max_bytes:
            self._forget(self._known.popitem(last=False)[1])

    def _forget(self, known: _Known | None) -> None:
        if known is not None:
            self._bytes -= len(known.content or b"")


def _names_in(folder: Path) -> list[str] | None:
    """The names in ``folder``, sorted; None when there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(f"{folder} could not be listed", error) from error
