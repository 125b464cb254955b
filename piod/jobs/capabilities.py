"""What this unit can run, as ``GET /unit_api/capabilities`` tells it.

``jobs`` is the list that upstream's leaders and tools read (handbook,
jobs-and-hardware §3.5); ``settings`` is the same settings as a flat list.
"""

from __future__ import annotations

from collections.abc import Iterable

from piod.events import JsonValue
from piod.jobs.automation import NAME_OPTION, Automation
from piod.jobs.job import Job, Setting


def capabilities(kinds: Iterable[type[Job]]) -> dict[str, JsonValue]:
    """``{"jobs": […], "settings": […]}``, sorted by job name."""
    ordered = sorted(kinds, key=lambda kind: kind.kind_name())
    settings: list[JsonValue] = [
        {**_named(kind), "setting": setting.name, **_published(setting)}
        for kind in ordered
        for setting in kind.all_settings()
    ]
    return {"jobs": [_job(kind) for kind in ordered], "settings": settings}


def _job(kind: type[Job]) -> JsonValue:
    options: list[JsonValue] = [
        {
            "name": option.name,
            "long_flag": option.flag or option.name.replace("_", "-"),
            "help": option.help,
            "required": option.required,
            "multiple": False,
            "default": None,
            "type": option.type,
        }
        for option in kind.all_options()
        if option.name != NAME_OPTION
    ]
    chosen = f" --automation-name {kind.automation_name}" if issubclass(kind, Automation) else ""
    return {
        **_named(kind),
        "help": kind.help,
        "arguments": [],
        "options": options,
        "published_settings": {
            setting.name: _published(setting) for setting in kind.all_settings()
        },
        "cli_example": f"pio run {kind.job_name}{chosen} [OPTIONS]",
    }


def _named(kind: type[Job]) -> dict[str, JsonValue]:
    if issubclass(kind, Automation):
        return {"job_name": kind.job_name, NAME_OPTION: kind.automation_name}
    return {"job_name": kind.job_name}


def _published(setting: Setting) -> dict[str, JsonValue]:
    described: dict[str, JsonValue] = {
        "datatype": setting.datatype,
        "settable": setting.settable,
    }
    if setting.unit is not None:
        described["unit"] = setting.unit
    if setting.persist:
        described["persist"] = True
    return described
