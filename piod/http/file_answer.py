"""Sending a file: whole, in part, or not at all when the client has it already.

What aiohttp brings for this opens paths by itself (and would answer ``x`` with
``x.gz``), so the file comes open and judged: :class:`piod.storage.tree.OpenFile`.
Conditions and ranges are those of RFC 9110, 13 and 14; of a list of ranges the
whole file is sent, which the RFC allows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote

from aiohttp import hdrs, web

from piod.storage.tree import OpenFile

CHUNK_BYTES = 256 * 1024

Hold = Callable[[], AbstractContextManager[None]]

_LATEST_UNIX_S = 253_402_300_799
"""The end of the year 9999."""

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ -]")


async def send_file(request: web.Request, file: OpenFile, hold: Hold) -> web.StreamResponse:
    """Answer ``request`` with ``file`` as plain text, and close it."""
    try:
        # a file may bear any time, HTTP only those with four digits in the year
        unix_s = min(max(int(file.modified_at), 0), _LATEST_UNIX_S)
        modified_at = format_datetime(datetime.fromtimestamp(unix_s, UTC), usegmt=True)
        headers: dict[str, str] = {
            hdrs.ETAG: f'"{file.tag}"',
            hdrs.LAST_MODIFIED: modified_at,
            hdrs.CACHE_CONTROL: "no-cache",
            hdrs.ACCEPT_RANGES: "bytes",
        }
        if _client_has_it(request, file):
            return web.Response(status=304, headers=headers)
        headers[hdrs.CONTENT_TYPE] = "text/plain; charset=utf-8"
        headers[hdrs.CONTENT_DISPOSITION] = _inline(file.name)
        headers["X-Content-Type-Options"] = "nosniff"
        response = web.StreamResponse(headers=headers)
        start, end = 0, file.size_bytes
        wanted = _range(request, file, modified_at)
        if wanted is not None:
            start, end = wanted
            response.set_status(206)
            response.headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{end - 1}/{file.size_bytes}"
        response.content_length = end - start
        await response.prepare(request)
        if request.method != hdrs.METH_HEAD:
            await _copy(request, response, file, start, end, hold)
        await response.write_eof()
        return response
    finally:
        file.stream.close()


async def _copy(
    request: web.Request,
    response: web.StreamResponse,
    file: OpenFile,
    start: int,
    end: int,
    hold: Hold,
) -> None:
    def read(size: int) -> bytes:
        return file.stream.read(size)

    file.stream.seek(start)
    left = end - start
    while left > 0:
        with hold():
            chunk = await asyncio.to_thread(read, min(left, CHUNK_BYTES))
        if not chunk:
            # it was cut short meanwhile: what was promised cannot be kept
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError
        left -= len(chunk)
        await response.write(chunk)


def _client_has_it(request: web.Request, file: OpenFile) -> bool:
    known = request.if_none_match
    if known is not None:
        return any(tag.value in ("*", file.tag) for tag in known)
    since = request.if_modified_since
    return since is not None and int(file.modified_at) <= since.timestamp()


def _range(request: web.Request, file: OpenFile, modified_at: str) -> tuple[int, int] | None:
    """The part that is wanted, from (inclusive) to (exclusive); None: the whole."""
    condition = request.headers.get(hdrs.IF_RANGE)
    if condition is not None and condition not in (f'"{file.tag}"', modified_at):
        return None
    found = _RANGE.fullmatch(request.headers.get(hdrs.RANGE, "").strip())
    if found is None or not (found[1] or found[2]):
        return None
    size = file.size_bytes
    if found[1]:
        start, end = int(found[1]), min(int(found[2] or size), size - 1) + 1
        if found[2] and int(found[2]) < start:
            return None  # no range at all
    else:
        start, end = max(size - int(found[2]), 0), size
    if start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(
            text=f"The range lies outside of the file, which has {size} bytes.",
            headers={hdrs.CONTENT_RANGE: f"bytes */{size}"},
        )
    return start, end


def _inline(name: str) -> str:
    """``Content-Disposition`` for any file name (RFC 6266)."""
    plain = _NOT_PLAIN.sub("_", name)
    encoded = quote(name.encode("utf-8", "surrogateescape"), safe="")
    return f"inline; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
