"""Automations: jobs of one name of which a run chooses one, such as a light-dark cycle.

``led_automation``, ``temperature_automation`` and ``dosing_automation`` are families. An
automation is a job like any other: one class in one file, here or in a plugin. It derives
from its family (:class:`piod.jobs.led_automation.LedAutomation` …), names itself, and
declares its own options and settings::

    class Sunrise(LedAutomation):
        automation_name = "sunrise"
        settings = (Setting("peak", "float", settable=True, unit="%", minimum=0, maximum=100),)

        @classmethod
        async def create(cls, unit: Unit, options: Options) -> "Sunrise": ...

        async def run(self) -> None: ...

A run names it with the option ``automation_name``. Each settable setting is an option,
too, unless the class declares one of that name itself. Published besides its own settings:
``automation_name``, and ``latest_event`` (:meth:`Automation.tell`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

from piod.clock import Clock
from piod.errors import BadRequest, NotFound
from piod.events import JsonValue
from piod.jobs.job import Job, Option, OptionType, Publish, Setting

NAME_OPTION = "automation_name"

COMMON_OPTIONS = (
    Option(NAME_OPTION, "text", "which automation", required=True),
    Option("skip_first_run", "boolean", "wait for one duration before the first run"),
)
COMMON_SETTINGS = (
    Setting("automation_name", "string"),
    Setting("latest_event", "AutomationEvent"),
)


class Automation(Job):
    """Base of all automations; ``publish`` is that of the unit."""

    automation_name: ClassVar[str]

    def __init__(self, publish: Publish) -> None:
        self._publish_setting = publish

    async def start(self) -> None:
        self._publish_setting("automation_name", self.automation_name)

    def tell(
        self, event_name: str, message: str, data: Mapping[str, JsonValue] | None = None
    ) -> None:
        """Publish what it has just done as ``latest_event``: a name such as ``DilutionEvent``."""
        event: dict[str, JsonValue] = {"event_name": event_name, "message": message}
        event["data"] = dict(data or {})
        self._publish_setting("latest_event", event)

    @classmethod
    def kind_name(cls) -> str:
        return f"{cls.job_name}/{cls.automation_name}"

    @classmethod
    def all_options(cls) -> Sequence[Option]:
        own = (*COMMON_OPTIONS, *cls.options)
        named = {option.name for option in own}
        return (
            *own,
            *(
                _option(setting)
                for setting in cls.settings
                if setting.settable and setting.name not in named
            ),
        )

    @classmethod
    def all_settings(cls) -> tuple[Setting, ...]:
        return (*COMMON_SETTINGS, *super().all_settings())


def find_kind(
    kinds: Mapping[str, type[Job]], job_name: str, options: Mapping[str, object]
) -> type[Job]:
    """Which of ``kinds`` (by their ``kind_name``) a run means.

    NotFound: there is no such job; BadRequest: it has automations, and ``options`` name
    none of them.
    """
    kind = kinds.get(job_name)
    if kind is not None and kind.kind_name() == kind.job_name:
        return kind
    family = {
        each.automation_name: each
        for each in kinds.values()
        if issubclass(each, Automation) and each.job_name == job_name
    }
    if not family:
        known = ", ".join(sorted({each.job_name for each in kinds.values()}))
        raise NotFound(
            f"there is no job named {job_name!r}",
            remediation=f"The jobs of this unit are: {known}.",
        )
    named = {key.replace("-", "_"): value for key, value in options.items()}.get(NAME_OPTION)
    automation = family.get(named) if isinstance(named, str) else None
    if automation is None:
        known = ", ".join(sorted(family))
        wrong = "needs the option automation_name" if named is None else f"has no {named!r:.80}"
        raise BadRequest(
            f"{job_name} {wrong}; there are: {known}",
            remediation=f"Set the option automation_name to one of: {known}.",
        )
    return automation


async def wait_for(changed: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Wait until ``changed`` is set, for ``seconds`` at most; whether it is."""
    waiting = asyncio.ensure_future(changed.wait())
    timer = clock.call_at(clock.monotonic() + seconds, partial(_cancel, waiting))
    try:
        await asyncio.wait({waiting})
    finally:
        timer.cancel()
        waiting.cancel()
    return changed.is_set()


def _cancel(waiting: asyncio.Future[Literal[True]]) -> None:
    waiting.cancel()


def _option(setting: Setting) -> Option:
    """The option that gives ``setting`` its first value."""
    types: Mapping[str, OptionType] = {
        "float": "float",
        "integer": "integer",
        "boolean": "boolean",
    }
    return Option(
        setting.name,
        types.get(setting.datatype, "text"),
        minimum=setting.minimum,
        maximum=setting.maximum,
    )
