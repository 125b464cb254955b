"""Archives that are sent while they are made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from aiohttp import hdrs, web

from piod.storage.zips import ZipEntry, ZipStream

ZIP_MEDIA = "application/zip"

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


async def send_zip(
    request: web.Request,
    file_name: str,
    entries: Iterable[ZipEntry],
    hold: Callable[[], AbstractContextManager[None]],
) -> web.StreamResponse:
    """Answer with the archive of ``entries`` (:class:`piod.storage.zips.ZipStream`).

    A browser saves it as ``file_name``. What can be refused must be refused
    before: once the answer has begun, a failure can only close the connection.
    """
    headers = {
        hdrs.CONTENT_TYPE: ZIP_MEDIA,
        hdrs.CONTENT_DISPOSITION: f'attachment; filename="{_NOT_PLAIN.sub("_", file_name)}"',
        hdrs.CACHE_CONTROL: "no-cache",
    }
    if request.method == hdrs.METH_HEAD:
        return web.Response(headers=headers)
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await ZipStream(entries, hold).send(response.write)
    await response.write_eof()
    return response
