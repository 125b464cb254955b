"""Zip archives that are made while they are sent, never whole in memory or on disk.

:class:`ZipStream` takes entries and hands the archive on, chunk by chunk::

    def entries() -> Iterator[ZipEntry]:        # runs in a thread: may touch the disk
        yield ZipEntry("storage/")              # a folder
        yield ZipEntry("config.ini", path)      # a file, opened when its turn comes
        yield ZipEntry("metadata.json", b"{}")  # bytes

    await ZipStream(entries(), clock.hold).send(response.write)

Reading and deflating happen in threads, a bounded piece at a time, and the next
piece is only begun when the last one has been taken: a slow reader slows the
work and costs no memory; a reader that is gone ends it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

logger = logging.getLogger(__name__)

CHUNK_BYTES = 64 * 1024
"""About how large a chunk is; memory stays within a few of them."""
STEP_BYTES = 1024 * 1024
"""How much is read at most before the thread is given back."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)
_LATEST = (2107, 12, 31, 23, 59, 58)


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One thing in an archive.

    ``name``: its path in the archive, with ``/``; that of a folder ends with
    one. ``source``: the file, followed if it is a link (leave out links that
    leave the tree), or the bytes; None for a folder.
    """

    name: str
    source: Path | bytes | None = None


class ZipStream:
    """The archive of ``entries``, in their order, deflated.

    ``entries`` is iterated in threads, one step at a time and not always in the
    same thread; if it is a generator, it is closed at the end, so it may clean
    up after itself. ``hold`` is :meth:`piod.clock.Clock.hold`. Names must be
    unique. A file that cannot be opened, is no regular file, or has a name that
    is not UTF-8 is left out with a line in the log. A file that grows meanwhile
    is taken at the length that it had when it was opened.
    """

    def __init__(
        self,
        entries: Iterable[ZipEntry],
        hold: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._entries = entries
        self._hold = hold

    async def send(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand every chunk to ``write``, the next when it has taken the last. Once only.

        Raises what ``write`` and ``entries`` raise, and OSError when a file fails
        in its middle: the archive is then cut short.
        """
        steps = _steps(self._entries)
        loop = asyncio.get_running_loop()
        try:
            while True:
                with self._hold():
                    step = loop.run_in_executor(None, next, steps, None)
                    try:
                        chunk = await asyncio.shield(step)
                    finally:
                        await asyncio.wait([step])  # nothing may close it while a thread is in it
                if chunk is None:
                    return
                if chunk:
                    await write(chunk)
        finally:
            await loop.run_in_executor(None, steps.close)


class _Sink:
    """What the archive is written to: it keeps what has not been taken yet.

    It has no ``tell``, so zipfile puts sizes and checksums behind each file
    instead of going back.
    """

    def __init__(self) -> None:
        self._kept = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._kept += data
        return len(data)

    def flush(self) -> None:
        """There is nothing below that could be told to write."""

    def close(self) -> None:
        """What was written can still be taken."""

    def __len__(self) -> int:
        return len(self._kept)

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._kept)
        self._kept.clear()
        return taken


def _steps(entries: Iterable[ZipEntry]) -> Generator[bytes, None, None]:
    """The archive in pieces; some are empty, so that no step takes long."""
    from zipfile import ZIP_DEFLATED, ZipFile  # a megabyte that most units never need

    sink = _Sink()
    try:
        with ZipFile(sink, "w", ZIP_DEFLATED) as archive:
            for entry in entries:
                for _ in _added(archive, entry, sink):
                    yield sink.take()
                if len(sink) >= CHUNK_BYTES:
                    yield sink.take()
        yield sink.take()
    finally:
        if isinstance(entries, Generator):
            entries.close()


def _added(archive: ZipFile, entry: ZipEntry, sink: _Sink) -> Iterator[None]:
    """Add ``entry``; yields whenever enough was read or written."""
    from zipfile import ZIP_DEFLATED, ZipInfo

    try:
        entry.name.encode()
    except UnicodeEncodeError:
        logger.warning("%a is left out of an archive: its name is not UTF-8", entry.name)
        return
    if not isinstance(entry.source, Path):
        info = ZipInfo(entry.name, _zip_time(time.time()))
        if entry.source is None:
            info.external_attr = (stat.S_IFDIR | 0o755) << 16 | 0x10  # 0x10: a folder for DOS
            info.CRC = 0  # Python 3.11 leaves it unset
            archive.mkdir(info)
        else:
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = ZIP_DEFLATED
            archive.writestr(info, entry.source)
        return
    try:
        stream = FileIO(entry.source, "rb", opener=_opened)
    except OSError as error:
        logger.warning("%s is left out of an archive: %s", entry.source, error.strerror)
        return
    with stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            logger.warning("%s is left out of an archive: it is not a file", entry.source)
            return
        info = ZipInfo(entry.name, _zip_time(status.st_mtime))
        info.external_attr = status.st_mode << 16
        info.compress_type = ZIP_DEFLATED
        info.file_size = status.st_size
        yield from _copied(archive, info, stream, sink)


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would keep one waiting for its writer


def _copied(archive: ZipFile, info: ZipInfo, stream: FileIO, sink: _Sink) -> Iterator[None]:
    left = info.file_size
    read = 0
    with archive.open(info, "w") as target:
        while left > 0 and (data := stream.read(min(CHUNK_BYTES, left))):
            target.write(data)
            left -= len(data)
            read += len(data)
            if len(sink) >= CHUNK_BYTES or read >= STEP_BYTES:
                read = 0
                yield


def _zip_time(unix_s: float) -> tuple[int, int, int, int, int, int]:
    """Local time, as zip archives have it, within what they can say."""
    local = time.localtime(unix_s)
    instant = (*local[:5], min(local.tm_sec, 59))
    return min(max(instant, _EARLIEST), _LATEST)
