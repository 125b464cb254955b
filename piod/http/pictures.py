"""The drawings that the steps of calibration sessions show: files of ``static/``.

A page may ask for the same few again and again, so they are read once and then known to the
browser by their ETag. A name is looked up among those read; no path is made of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import hdrs, web

from piod.errors import NotFound

STATIC = Path(__file__).with_name("static")
MEDIA = "image/svg+xml"
MAX_AGE_S = 86_400

_HEADERS: Mapping[str, str] = {
    hdrs.CONTENT_TYPE: MEDIA,
    # opened by itself, a drawing is a document: it may do nothing
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class _Drawing:
    content: bytes
    tag: str


class PictureHandlers:
    """``/unit_api/static``."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder
        self._drawings: Mapping[str, _Drawing] | None = None

    async def show(self, request: web.Request) -> web.Response:
        """One drawing; 304 when the client has it already."""
        if self._drawings is None:
            self._drawings = await asyncio.to_thread(_read, self._folder)
        name = request.match_info["name"]
        drawing = self._drawings.get(name)
        if drawing is None:
            raise NotFound(f"there is no picture {name[:80]!r}")
        headers: dict[str, str] = {hdrs.ETAG: f'"{drawing.tag}"'}
        known = request.if_none_match or ()
        if any(tag.value in ("*", drawing.tag) for tag in known):
            headers[hdrs.CACHE_CONTROL] = f"public, max-age={MAX_AGE_S}"
            return web.Response(status=304, headers=headers)
        headers.update(_HEADERS)
        return web.Response(body=drawing.content, headers=headers)


def _read(folder: Path) -> dict[str, _Drawing]:
    contents = {path.name: path.read_bytes() for path in folder.glob("*.svg")}
    return {
        name: _Drawing(content, hashlib.sha256(content).hexdigest()[:16])
        for name, content in contents.items()
    }
