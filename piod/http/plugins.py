"""The plugins of the unit: their list, their files, installing and uninstalling."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import quote

from aiohttp import web
from marshmallow import fields

from piod.actors.tasks import PLUGINS_LOCK, Launch
from piod.errors import BadRequest
from piod.http.answers import json_answer
from piod.http.decode import Decoded, Object, StrictText, component, decode_json
from piod.http.tasks import TaskHandlers
from piod.plugins.plugins import Plugin, Plugins

INSTALLED = "/unit_api/plugins/installed"
UNKNOWN = "Unknown"
_TOLD = ("name", "version", "description", "homepage", "source", "author")


class _InstallBody(TypedDict):
    args: list[str]
    options: dict[str, object]


class InstallSchema(Decoded[_InstallBody]):
    example = {"options": {}, "args": ["pioreactor-my-plugin"]}
    args = fields.List(
        StrictText(),
        required=True,
        metadata={"description": "Exactly one: the name of the package, or name==version."},
    )
    options = Object(
        keys=StrictText(),
        load_default=dict,
        metadata={
            "description": "source: absolute path on the unit, or http(s) URL, of a plugin file "
            "(.py) or a package (.whl, .tar.gz, .zip). Without it, the package index is asked."
        },
    )


class _UninstallBody(TypedDict):
    args: list[str]


class UninstallSchema(Decoded[_UninstallBody]):
    example = {"args": ["pioreactor-my-plugin"]}
    args = fields.List(
        StrictText(),
        required=True,
        metadata={
            "description": "Exactly one: the name of a package, or of a plugin file without .py."
        },
    )


PLUGIN_EXAMPLE = {
    "name": "pioreactor-my-plugin",
    "version": "0.1.0",
    "description": "Unknown",
    "homepage": "Unknown",
    "source": "entry_points",
    "author": "Unknown",
    "jobs": ["my_job"],
    "error": None,
}
FILE_EXAMPLE = 'def my_plugin_entry():\n    return "ok"\n'


class PluginHandlers:
    """``/unit_api/plugins``."""

    def __init__(self, plugins: Plugins, tasks: TaskHandlers) -> None:
        self._plugins = plugins
        self._tasks = tasks

    async def installed(self, request: web.Request) -> web.Response:
        """What is installed, with the reason where a plugin could not be used."""
        unit = f"{request.scheme}://{request.host}"
        return json_answer([_told(plugin, unit) for plugin in self._plugins.installed])

    async def file(self, request: web.Request) -> web.Response:
        """The text of one plugin file."""
        name = component(request.match_info["filename"], "filename")
        text = await self._plugins.read(name)
        return web.Response(text=text, content_type="text/plain", charset="utf-8")

    async def install(self, request: web.Request) -> web.Response:
        """Check what can be checked now, then install in the background."""
        await self._plugins.refuse_if_disallowed()
        body = await decode_json(request, InstallSchema)
        wanted = await self._plugins.check_install(_only(body["args"]), _source(body["options"]))
        return await self._tasks.launch(
            Launch("install a plugin", lambda: self._plugins.install(wanted), lock=PLUGINS_LOCK)
        )

    async def uninstall(self, request: web.Request) -> web.Response:
        """Uninstall in the background."""
        await self._plugins.refuse_if_disallowed()
        body = await decode_json(request, UninstallSchema)
        name = component(_only(body["args"]), "args[0]")
        return await self._tasks.launch(
            Launch("uninstall a plugin", lambda: self._plugins.uninstall(name), lock=PLUGINS_LOCK)
        )


def _only(args: list[str]) -> str:
    if len(args) != 1:
        raise BadRequest(
            f"args must hold exactly one name of a plugin, not {len(args)}",
            remediation="Send one request for each plugin.",
        )
    return args[0]


def _source(options: dict[str, object]) -> str | None:
    source = options.get("source")
    if source is not None and not (isinstance(source, str) and source):
        raise BadRequest("options.source must be text: a path on the unit or an http(s) URL")
    return source


def _told(plugin: Plugin, unit: str) -> dict[str, object]:
    """One item of the list. Upstream's convention: nothing said is Unknown, UNKNOWN is null."""
    about = {"source": plugin.source, **plugin.about}
    if plugin.source != "entry_points":
        about.setdefault("homepage", f"{unit}{INSTALLED}/{quote(plugin.source.split('/')[-1])}")
    told = {key: about.get(key, UNKNOWN) for key in _TOLD}
    return {
        **{key: None if text == "UNKNOWN" else text for key, text in told.items()},
        "jobs": list(plugin.jobs),
        "error": plugin.error,
    }
