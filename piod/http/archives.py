"""The data directory as an archive: exported, imported."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import closing
from typing import TypeVar

from aiohttp import web
from marshmallow import Schema, fields

from piod.actors.actor import Ref
from piod.actors.jobs import JobFilter, Jobs, Stop
from piod.actors.tasks import Launch
from piod.clock import Clock, timestamp
from piod.errors import PiodError, StorageFailed, TooManyRequests
from piod.events import JsonValue
from piod.http.downloads import send_zip
from piod.http.tasks import TaskHandlers
from piod.http.upload import UPLOAD_TIMEOUT_S, Upload, receive_archive
from piod.storage import imports
from piod.storage.archives import Archive, check_archive
from piod.storage.exports import export_entries, metadata
from piod.storage.ledger import Ledger
from piod.storage.tree import Tree
from piod.storage.zips import ZipEntry

IMPORT_LOCK = "import-dot-pioreactor-lock"
STOP_TIMEOUT_S = 30.0
STOP_REASON = "an import replaced the files of the unit"

SLICE_S = 0.1
"""Wall time for which an import keeps a thread at most."""

MAX_EXPORTS = 2
"""At a time: each holds copies of the databases while its reader dawdles."""

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

    ``reload`` is awaited when an import has changed the files.
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
        self._exports = 0
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
        """Check the uploaded archive, then put it in place in the background."""
        await self._refuse_if_disallowed()
        upload: Upload | None = None
        archive: Archive | None = None

        async def receive_and_check() -> None:
            nonlocal upload, archive
            try:
                upload = await receive_archive(request, self._tree.root, self._clock.hold)
                with self._clock.hold():
                    archive = await asyncio.to_thread(
                        check_archive, upload.file, self._unit_name, force=upload.force
                    )
            except PiodError:
                raise
            except Exception as bug:  # it would end the actor of all tasks, not this one alone
                _log.exception("an uploaded archive could not be checked")
                raise StorageFailed("the archive could not be checked: an error in piod") from bug

        async def work() -> JsonValue:
            assert upload is not None
            assert archive is not None
            try:
                await self._import(archive)
            finally:
                upload.file.close()
            return True

        try:
            return await self._tasks.launch(
                Launch("import of files", work, lock=IMPORT_LOCK, check=receive_and_check),
                timeout_s=UPLOAD_TIMEOUT_S + 60,
            )
        except BaseException:
            if upload is not None:
                upload.file.close()
            raise

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
        data_dir, hold = self._tree.root, self._clock.hold
        stamp = imports.stamp_for(archive, self._clock.time())
        await imports.settle(data_dir, self._ledger, hold)  # should an earlier one have got stuck
        try:
            await self._in_slices(imports.unpack(archive, data_dir, stamp))
            # only now: a damaged archive has cost no experiment
            await self._jobs.ask(
                Stop(JobFilter(long_running=False), STOP_REASON), timeout=STOP_TIMEOUT_S
            )
            self._swaps += 1
            try:
                await self._in_thread(lambda: imports.install(data_dir, stamp))
            finally:
                self._swaps += 1
            await imports.settle(data_dir, self._ledger, hold)
        except PiodError:
            await self._clear()
            raise
        _log.warning("the files of this unit were replaced by an import")
        await self._clear()
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
