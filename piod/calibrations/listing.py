"""What artifacts there are, for which only files that have changed are parsed.

:class:`Listing` keeps what each file was rendered to together with the file's
identity. A thousand unchanged records cost a thousand ``stat``, and not even
these when the last look was a moment ago.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from piod.calibrations.store import SUFFIX, ArtifactStore
from piod.errors import BadRequest, PiodError, StorageFailed
from piod.storage.files import storage_error

logger = logging.getLogger(__name__)

R = TypeVar("R")

MAX_RECORDS = 5000
MAX_BYTES = 16 * 1024 * 1024

FRESH_S = 0.05
"""Wall time for which an existing file is taken to be unchanged. Files that come and go show at
once, and so does every change that piod itself makes."""

Contents: TypeAlias = Mapping[str, Mapping[str, bytes]]
"""Rendered artifacts by name, by device: every folder, and in it every file that can be used."""


@dataclass(frozen=True, slots=True)
class _File:
    """What a file was; ``content`` is None when it could not be used."""

    identity: tuple[int, ...]
    content: bytes | None


@dataclass(slots=True)
class _Kept:
    """Files for the next look, within bounds; ``all`` tells whether there was room for all."""

    records_left: int
    bytes_left: int
    files: dict[str, _File] = field(default_factory=dict)
    all: bool = True

    def put(self, path: str, file: _File) -> None:
        """Keep ``file``, if there is room."""
        size = len(file.content or b"")
        if self.records_left > 0 and size <= self.bytes_left:
            self.files[path] = file
            self.records_left -= 1
            self.bytes_left -= size
        else:
            self.all = False


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen, when, after how many changes by piod, and in which folders."""

    contents: Contents
    looked_at: float
    changes: int
    folders: Sequence[tuple[str, int]]

    def holds(self, changes: int) -> bool:
        """Whether it can be taken for what there is now."""
        return (
            changes == self.changes
            and time.monotonic() < self.looked_at + FRESH_S
            # the folders have just been read: this does not wait for the disk
            and all(_changed_ns(folder) == then for folder, then in self.folders)
        )


class Listing(Generic[R]):
    """What there is in ``store``, each record as the bytes that ``render`` makes of it.

    Files that cannot be used are left out, with one line in the log for each
    state of the file. What is kept from one look to the next is bounded; files
    beyond the bounds are parsed at every look.
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
        self._files: dict[str, _File] = {}
        self._last: _Look | None = None
        self._looking = asyncio.Lock()

    async def contents(self) -> Contents | None:
        """What there is, devices and names in the order of paths; None without a folder.

        The same object as long as nothing was looked at anew. Raises StorageFailed.
        """
        if self._last is not None and self._last.holds(self._store.changes):
            return self._last.contents
        async with self._looking:
            if self._last is not None and self._last.holds(self._store.changes):
                return self._last.contents  # somebody has looked while this waited
            with self._store.hold():
                return await asyncio.to_thread(self._look, self._store.changes)

    # -- in a thread, one at a time -----------------------------------------------------

    def _look(self, changes: int) -> Contents | None:
        looked_at = time.monotonic()
        root = str(self._store.directory)
        folders = [(root, _changed_ns(root))]
        devices = _names_in(root)
        if devices is None:
            self._last = None
            return None
        kept = _Kept(self._max_records, self._max_bytes)
        seen: dict[str, Mapping[str, bytes]] = {}
        for device in devices:
            folder = f"{root}/{device}"
            changed_ns = _changed_ns(folder)
            rendered = self._look_into(folder, kept)
            if rendered is not None:
                folders.append((folder, changed_ns))
                seen[device] = rendered
        self._files = kept.files
        last = self._last
        contents = last.contents if last is not None and last.contents == seen else seen
        self._last = _Look(contents, looked_at, changes, folders) if kept.all else None
        return contents

    def _look_into(self, folder: str, kept: _Kept) -> Mapping[str, bytes] | None:
        """The usable files in the folder of a device; None when it is no folder."""
        try:
            names = _names_in(folder)
        except StorageFailed as error:
            logger.warning("%s", error.message)
            return None
        if names is None:
            return None
        rendered: dict[str, bytes] = {}
        for name in names:
            if not name.endswith(SUFFIX):
                continue
            path = f"{folder}/{name}"
            file = self._file(path)
            if file is None:
                continue
            kept.put(path, file)
            if file.content is not None:
                rendered[name.removesuffix(SUFFIX)] = file.content
        return rendered

    def _file(self, path: str) -> _File | None:
        """The file at ``path``; None when it is gone or the disk fails, which is not kept."""
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
        known = self._files.get(path)
        if known is not None and known.identity == identity:
            return known
        content: bytes | None = None
        try:
            # its path is made anew, which refuses names that the API could not ask for
            device, name = Path(path).parent.name, Path(path).stem
            content = self._render(self._store.read_file(self._store.path_of(device, name)))
        except PiodError as error:
            logger.warning("%s is not listed: %s", path, error.message)
            if not isinstance(error, BadRequest):
                return None
        return _File(identity, content)


def _names_in(folder: str) -> list[str] | None:
    """The names in ``folder``, sorted; None when there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(f"{folder} could not be listed", error) from error


def _changed_ns(folder: str) -> int:
    """When something in ``folder`` came or went; 0 when it is gone."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0
