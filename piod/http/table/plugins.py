"""Plugins."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.plugins import (
    FILE_EXAMPLE,
    INSTALLED,
    PLUGIN_EXAMPLE,
    InstallSchema,
    PluginHandlers,
    UninstallSchema,
)
from piod.http.routes import COMMAND, GET, Answer, Route
from piod.http.tasks import LAUNCHED


def plugin_routes(plugins: PluginHandlers) -> Iterator[Route]:
    """The routes of this module's title."""
    yield Route(
        GET,
        INSTALLED,
        plugins.installed,
        tag="Plugins",
        summary="Installed plugins",
        description="With the jobs that each one adds; error says why one, or a part of it, "
        "is not used.",
        answers={200: Answer("The plugins.", [PLUGIN_EXAMPLE])},
        max_age_s=5,
    )
    yield Route(
        GET,
        f"{INSTALLED}/{{filename}}",
        plugins.file,
        tag="Plugins",
        summary="Text of a plugin file",
        path_params={"filename": "Name of a file in plugins/, ending in .py."},
        answers={200: Answer("The file.", FILE_EXAMPLE, media="text/plain")},
        errors=(404,),
        max_age_s=5,
    )
    yield Route(
        COMMAND,
        "/unit_api/plugins/install",
        plugins.install,
        tag="Plugins",
        summary="Install or upgrade a plugin",
        description="403 where the file DISALLOW_UI_INSTALLS lies, or when the allow-list does "
        "not hold it. The task's result has the output of the installer; it fails when the "
        "plugin cannot be loaded. Its jobs can be run at once.",
        body=InstallSchema,
        answers=LAUNCHED,
        errors=(409, 503, 507),
    )
    yield Route(
        COMMAND,
        "/unit_api/plugins/uninstall",
        plugins.uninstall,
        tag="Plugins",
        summary="Uninstall a plugin",
        description="A plugin file of that name is removed, else the package. Jobs of it that "
        "run go on until they are stopped. 403 where the file DISALLOW_UI_INSTALLS lies.",
        body=UninstallSchema,
        answers=LAUNCHED,
        errors=(409, 503, 507),
    )
