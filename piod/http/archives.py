"""The data directory as an archive: exported, imported."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack, closing
from typing import TypeVar

from aiohttp import web
from marshmallow import Schema, fields

from piod.actors.actor import Ref
from piod.actors.gate import no_new_jobs
from piod.actors.jobs import JobFilter, Jobs, Stop
from piod.actors.tasks import IMPORT_LOCK, Launch
from piod.clock import Clock, timestamp
from piod.errors import PiodError, TooManyRequests
from piod.events import JsonValue
from piod.http.downloads import send_zip
from piod.http.tasks import TaskHandlers
from piod.http.upload import receive_archive
from piod.storage import imports
from piod.storage.archives import Archive, check_archive
from piod.storage.exports import export_entries, metadata
from piod.storage.ledger import Ledger
from piod.storage.tree import Tree
from piod.storage.zips import ZipEntry

STOP_TIMEOUT_S = 30.0
STOP_REASON = "an import replaced the files of the unit"

SLICE_S = 0.1
"""Wall time for which an import keeps a thread at most."""

MAX_EXPORTS = 2
"""At a time: each holds copies of the databases while its reader dawdles."""

MAX_UPLOADS = 2
"""At a time: each fills the disk while its sender dawdles."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class ImportForm(Schema):
    archive = fields.Raw(
        required=True,
        metadata={"type": "file", "description": "What zipped_dot_pioreactor has given."},
    )
    force = fields.String(
        metadata={
            "description": 'With "true", the archive of another unit, or one that does not say '
            "whose it is, is imported too."
        }
    )


class ArchiveHandlers:
    """``/unit_api/zipped_dot_pioreactor`` and ``/unit_api/import_zipped_dot_pioreactor``.

    ``reload`` is awaited when an import has changed the files; ``imported`` is called when
    its task is complete.
    """

    def __init__(
        self,
        *,
        tree: Tree,
        tasks: TaskHandlers,
        jobs: Ref[Jobs],
        ledger: Ledger,
        unit_name: str,
        leader_name: str,
        version: str,
        clock: Clock,
        reload: Callable[[], Awaitable[None]],
        imported: Callable[[], None],
    ) -> None:
        self._tree = tree
        self._tasks = tasks
        self._jobs = jobs
        self._ledger = ledger
        self._unit_name = unit_name
        self._leader_name = leader_name
        self._version = version
        self._clock = clock
        self._reload = reload
        self._imported = imported
        self._exports = 0
        self._uploads = 0
        self._swaps = 0
        """Grows before and after each exchange of the trees."""

    async def export(self, request: web.Request) -> web.StreamResponse:
        """All of the data directory, as it is read."""
        await self._refuse_if_disallowed()
        about = metadata(
            unit_name=self._unit_name,
            leader_name=self._leader_name,
            app_version=self._version,
            exported_at_utc=timestamp(self._clock.time()),
        )
        if self._exports >= MAX_EXPORTS:
            raise TooManyRequests(
                f"{self._exports} exports of this unit are under way already",
                cause="each holds copies of its databases on the disk",
                remediation="Wait until one of them is over.",
            )
        self._exports += 1
        try:
            return await send_zip(
                request,
                f"{self._unit_name}_dot_pioreactor.zip",
                self._of_one_tree(export_entries(self._tree.root, about)),
                self._clock.hold,
            )
        finally:
            self._exports -= 1

    async def import_archive(self, request: web.Request) -> web.Response:
        """Receive and check an archive, then put it in place in the background.

        The lock is taken only then: no sender, however slow, keeps others waiting for it.
        """
        await self._refuse_if_disallowed()
        busy = await self._tasks.busy(IMPORT_LOCK)  # before gigabytes come for nothing
        if busy is not None:
            return busy
        if self._uploads >= MAX_UPLOADS:
            raise TooManyRequests(
                f"{self._uploads} archives are being uploaded to this unit already",
                cause="each of them takes room on its disk",
                remediation="Wait until one of them is over.",
            )
        self._uploads += 1
        try:
            upload = await receive_archive(request, self._tree.root, self._clock.hold)
        finally:
            self._uploads -= 1
        with ExitStack() as until_taken:
            until_taken.callback(upload.file.close)
            with self._clock.hold():
                archive = await asyncio.to_thread(
                    check_archive, upload.file, self._unit_name, force=upload.force
                )

            async def work() -> JsonValue:
                with upload.file:
                    await self._import(archive)
                return True

            launched = await self._tasks.begin(
                Launch("import of files", work, lock=IMPORT_LOCK, then=self._imported)
            )
            if not launched.busy:
                until_taken.pop_all()  # its work closes it
        return self._tasks.accepted(launched)

    async def _refuse_if_disallowed(self) -> None:
        with self._clock.hold():
            await asyncio.to_thread(self._tree.refuse_if_disallowed)

    def _of_one_tree(self, entries: Generator[ZipEntry, None, None]) -> Iterator[ZipEntry]:
        """``entries``, cut off when the trees are exchanged: no archive is a mixture."""
        swaps = self._swaps
        with closing(entries):
            for entry in entries:
                if self._swaps != swaps:
                    raise ConnectionAbortedError("an import replaced the files during the export")
                yield entry

    async def _import(self, archive: Archive) -> None:
        data_dir = self._tree.root
        stamp = imports.stamp_for(archive, self._clock.time())
        # should an earlier one have got stuck
        await imports.settle(data_dir, self._ledger, self._clock.hold)
        try:
            await self._in_slices(imports.unpack(archive, data_dir, stamp))
            # only now: a damaged archive has cost no experiment
            async with no_new_jobs(self._jobs, "an import replaces the files of the unit"):
                await self._exchange(stamp)
        except PiodError:
            await self._clear()
            raise
        await self._clear()

    async def _exchange(self, stamp: str) -> None:
        """End the jobs, put the new tree in place, and read what is kept of it in memory."""
        data_dir = self._tree.root
        stop = Stop(JobFilter(long_running=False), STOP_REASON)
        await self._jobs.ask(stop, timeout=STOP_TIMEOUT_S)
        self._swaps += 1
        try:
            await self._in_thread(lambda: imports.install(data_dir, stamp))
        finally:
            self._swaps += 1
        await imports.settle(data_dir, self._ledger, self._clock.hold)
        _log.warning("the files of this unit were replaced by an import")
        await self._reload()

    async def _clear(self) -> None:
        try:
            await self._in_slices(imports.clear(self._tree.root))
        except PiodError as refusal:
            _log.error("%s (%s); the next start tries again", refusal.message, refusal.cause)

    async def _in_slices(self, steps: Generator[None, None, None]) -> None:
        """Run ``steps`` in threads, for so short a time each that the daemon can end."""

        def some() -> bool:
            until = time.monotonic() + SLICE_S
            return any(time.monotonic() > until for _ in steps)

        with closing(steps):
            while await self._in_thread(some):
                pass

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """What ``function`` gives; when this is cancelled, not before it has returned."""
        with self._clock.hold():
            call = asyncio.ensure_future(asyncio.to_thread(function))
            try:
                return await asyncio.shield(call)
            finally:
                await asyncio.wait([call])
