"""An archive that comes as a multipart form, on its way to the disk.

Larger than the JSON bodies may be: it is never in memory. The file has no name,
so nothing is left of it when the daemon dies.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from piod.errors import BadRequest, PayloadTooLarge
from piod.storage.archives import MAX_ARCHIVE_BYTES
from piod.storage.files import storage_error

UPLOAD_TIMEOUT_S = 3600.0
IDLE_TIMEOUT_S = 30.0
"""Wall time without a byte after which a sender is given up."""
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
    if request.content_length is not None and request.content_length > MAX_ARCHIVE_BYTES * 1.1:
        raise _too_large()
    try:
        # closed below, or by whoever gets it
        file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
    except OSError as error:
        raise storage_error("the archive could not be kept", error) from error
    upload = Upload(file)
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT_S):
            await _receive(request, upload, hold)
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


async def _receive(request: web.Request, upload: Upload, hold: Hold) -> None:
    reader = await request.multipart()
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
            await _receive_file(part, upload, hold)
        elif name == "force":
            upload.force = _flag(await _field(part))
        else:
            await _field(part)
    else:
        raise BadRequest(f"the form has more than {MAX_FIELDS} fields", remediation=_FORM)
    if "archive" not in seen:
        raise BadRequest("the field archive is missing", remediation=_FORM)


async def _receive_file(part: BodyPartReader, upload: Upload, hold: Hold) -> None:
    if not part.filename:
        raise BadRequest("the field archive must be a file with a name", remediation=_FORM)
    size_bytes = 0
    batch = bytearray()
    while chunk := await _chunk(part):
        batch += chunk
        size_bytes += len(chunk)
        if size_bytes > MAX_ARCHIVE_BYTES:
            raise _too_large()
        if len(batch) >= BATCH_BYTES:
            with hold():
                await asyncio.to_thread(upload.file.write, batch)
            batch = bytearray()
    with hold():
        await asyncio.to_thread(upload.file.write, batch)
        await asyncio.to_thread(upload.file.flush)
    if size_bytes == 0:
        raise BadRequest("the file in the field archive is empty", remediation=_FORM)


async def _field(part: BodyPartReader) -> str:
    text = bytearray()
    while chunk := await _chunk(part):
        text += chunk
        if len(text) > MAX_FIELD_BYTES:
            raise BadRequest(
                f"the field {(part.name or '')[:80]!r} is longer than {MAX_FIELD_BYTES} bytes"
            )
    return text.decode()


async def _chunk(part: BodyPartReader) -> bytes:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        return bytes(await part.read_chunk(CHUNK_BYTES))


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in ("true", "false", ""):
        raise BadRequest(f'the field force must be "true" or "false", not {text[:80]!r}')
    return word == "true"


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes")
