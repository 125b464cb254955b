"""The files of the unit: looked at, read, removed."""

from __future__ import annotations

import asyncio
from typing import TypedDict

from aiohttp import web

from piod.actors.tasks import Launch
from piod.events import JsonValue
from piod.http.answers import json_answer
from piod.http.decode import Decoded, StrictText, decode_json
from piod.http.file_answer import Hold, send_file
from piod.http.tasks import TaskHandlers
from piod.storage.tree import Listing, Tree

PATH = "/unit_api/system/path"
LISTING_EXAMPLE = {
    "current": "/home/pioreactor/.pioreactor",
    "dirs": ["storage"],
    "files": ["config.ini"],
}


class _RemoveBody(TypedDict):
    filepath: str


class RemoveSchema(Decoded[_RemoveBody]):
    example = {"filepath": "storage/cache.txt"}
    filepath = StrictText(
        required=True,
        metadata={
            "description": "Relative to the data directory, or absolute and inside it; ~ is "
            "piod's home."
        },
    )


class FileHandlers:
    """``/unit_api/system/path`` and ``/unit_api/system/remove_file``."""

    def __init__(self, tree: Tree, tasks: TaskHandlers, hold: Hold) -> None:
        self._tree = tree
        self._tasks = tasks
        self._hold = hold

    async def to_root(self, request: web.Request) -> web.Response:
        """The data directory itself has the path that ends with a slash."""
        raise web.HTTPPermanentRedirect(f"{PATH}/")

    async def look(self, request: web.Request) -> web.StreamResponse:
        """A listing, or the bytes of a file."""
        requested = request.match_info["req_path"]
        with self._hold():
            await asyncio.to_thread(self._tree.refuse_if_disallowed)
            found = await asyncio.to_thread(self._tree.look, requested)
        if not isinstance(found, Listing):
            return await send_file(request, found, self._hold)
        return json_answer({"current": found.path, "dirs": found.dirs, "files": found.files})

    async def remove(self, request: web.Request) -> web.Response:
        """Delete one file; the result is false when there is none."""
        with self._hold():
            await asyncio.to_thread(self._tree.refuse_if_disallowed)
        filepath = (await decode_json(request, RemoveSchema))["filepath"]
        with self._hold():
            await asyncio.to_thread(self._tree.check_removal, filepath)

        async def remove() -> JsonValue:
            with self._hold():
                return await asyncio.to_thread(self._tree.remove, filepath)

        return await self._tasks.launch(Launch("remove a file", remove))
