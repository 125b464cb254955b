"""An archive that comes as a multipart form, on its way to the disk.

Larger than the JSON bodies may be: it is never in memory. The file has no name,
so nothing is left of it when the daemon dies. It never takes the last of the disk,
which the ledger needs, and a sender that dawdles is given up.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from piod.errors import BadRequest, PayloadTooLarge, StorageFull
from piod.storage.archives import MAX_ARCHIVE_BYTES
from piod.storage.files import storage_error

UPLOAD_TIMEOUT_S = 3600.0
IDLE_TIMEOUT_S = 30.0
"""Wall time without a byte after which a sender is given up."""
SLOWEST_BYTES_PER_S = 8 * 1024
"""What earns a sender its patience anew: a byte now and then keeps no place for long."""
RESERVE_BYTES = 64 * 1024 * 1024
"""Of the disk, what an upload leaves free."""
CHUNK_BYTES = 64 * 1024
BATCH_BYTES = 1024 * 1024
"""How much is gathered before it is handed to a thread."""
MAX_FIELD_BYTES = 1024
MAX_FIELDS = 16

_FORM = "Send a multipart/form-data body with the zip file in the field archive."

Hold = Callable[[], AbstractContextManager[None]]


@dataclass
class Upload:
    """What came. Whoever gets it closes ``file``."""

    file: BinaryIO
    force: bool = False


async def receive_archive(request: web.Request, folder: Path, hold: Hold) -> Upload:
    """The fields ``archive`` (a file) and ``force`` of the form in ``request``.

    The file lies on the disk of ``folder``. Raises BadRequest, PayloadTooLarge,
    StorageFull, StorageFailed; nothing else, whatever is sent or breaks.
    """
    if request.content_type != "multipart/form-data":
        raise BadRequest("the body must be a multipart form", remediation=_FORM)
    announced_bytes = request.content_length
    if announced_bytes is not None and announced_bytes > MAX_ARCHIVE_BYTES * 1.1:
        raise _too_large()
    try:
        with hold():
            await asyncio.to_thread(_refuse_if_full, folder, announced_bytes or 0)
        # closed below, or by whoever gets it
        file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
    except OSError as error:
        raise storage_error("the archive could not be kept", error) from error
    upload = Upload(file)
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            await _Receiver(request, upload, folder, hold).receive()
    except BaseException as error:
        file.close()
        if isinstance(error, TimeoutError):
            raise BadRequest("the archive did not arrive in time") from error
        if isinstance(error, (web.RequestPayloadError, HttpProcessingError, ConnectionError)):
            raise BadRequest("the form ended early or is malformed", remediation=_FORM) from error
        if isinstance(error, (ValueError, AssertionError, RuntimeError, LookupError)):
            # what aiohttp's reader of multipart bodies raises, by version
            raise BadRequest(
                "the body is no well-formed multipart form", cause=str(error), remediation=_FORM
            ) from error
        if isinstance(error, OSError):
            raise storage_error("the archive could not be kept", error) from error
        raise
    return upload


class _Receiver:
    """Reads one form."""

    def __init__(self, request: web.Request, upload: Upload, folder: Path, hold: Hold) -> None:
        self._request = request
        self._upload = upload
        self._folder = folder
        self._hold = hold
        self._patience_s = IDLE_TIMEOUT_S
        """How long the sender may still keep us waiting."""

    async def receive(self) -> None:
        reader = await self._request.multipart()
        seen: set[str] = set()
        for _ in range(MAX_FIELDS):
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                part = await reader.next()
            if part is None:
                break
            if isinstance(part, MultipartReader):
                raise BadRequest("a field of the form is a form itself", remediation=_FORM)
            name = part.name or ""
            if name in seen:
                raise BadRequest(f"the form has the field {name[:80]!r} twice", remediation=_FORM)
            seen.add(name)
            if name == "archive":
                await self._file(part)
            elif name == "force":
                self._upload.force = _flag(await self._field(part))
            else:
                await self._field(part)
        else:
            raise BadRequest(f"the form has more than {MAX_FIELDS} fields", remediation=_FORM)
        if "archive" not in seen:
            raise BadRequest("the field archive is missing", remediation=_FORM)

    async def _file(self, part: BodyPartReader) -> None:
        if not part.filename:
            raise BadRequest("the field archive must be a file with a name", remediation=_FORM)
        size_bytes = 0
        batch = bytearray()
        while chunk := await self._chunk(part):
            batch += chunk
            size_bytes += len(chunk)
            if size_bytes > MAX_ARCHIVE_BYTES:
                raise _too_large()
            if len(batch) >= BATCH_BYTES:
                await self._write(batch)
                batch = bytearray()
        await self._write(batch)
        if size_bytes == 0:
            raise BadRequest("the file in the field archive is empty", remediation=_FORM)

    async def _write(self, batch: bytearray) -> None:
        def write() -> None:
            _refuse_if_full(self._folder, len(batch))
            self._upload.file.write(batch)
            self._upload.file.flush()

        with self._hold():
            await asyncio.to_thread(write)

    async def _field(self, part: BodyPartReader) -> str:
        text = bytearray()
        while chunk := await self._chunk(part):
            text += chunk
            if len(text) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"the field {(part.name or '')[:80]!r} is longer than {MAX_FIELD_BYTES} bytes"
                )
        return text.decode()

    async def _chunk(self, part: BodyPartReader) -> bytes:
        begun_at = time.monotonic()
        async with asyncio.timeout(self._patience_s):
            chunk = bytes(await part.read_chunk(CHUNK_BYTES))
        left_s = self._patience_s - (time.monotonic() - begun_at)
        self._patience_s = min(IDLE_TIMEOUT_S, left_s + len(chunk) / SLOWEST_BYTES_PER_S)
        return chunk


def _refuse_if_full(folder: Path, more_bytes: int) -> None:
    """Raises StorageFull if ``more_bytes`` would leave less than RESERVE_BYTES free."""
    free_bytes = _free_bytes(folder)
    if free_bytes < more_bytes + RESERVE_BYTES:
        raise StorageFull(
            "the disk has no room for the archive",
            cause=f"{free_bytes} bytes are free, and {RESERVE_BYTES} of them are kept for the "
            "records of the unit",
        )


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false", ""):
        raise BadRequest(f'the field force must be "true" or "false", not {text[:80]!r}')
    return word == "true"


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes")
