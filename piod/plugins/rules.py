"""What a plugin's job must look like before the unit takes it on.

piod's own jobs are checked by mypy and by their tests; a plugin's may be neither.
What would go wrong only while the job runs is refused when it is loaded.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import get_args

from piod.calibrations.devices import RESERVED
from piod.calibrations.names import check_name
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.steps import Step
from piod.errors import BadRequest
from piod.jobs.automation import Automation
from piod.jobs.job import RESTARTS, STATE, Datatype, Job, Option, OptionType, Setting
from piod.restarts import RestartPolicy

RESERVED_NAMES = frozenset(
    {"run", "dosing_events", "leds", "led_change_events", "unit_label", "pwm", "assignment"}
)
"""Upstream publishes other things under these names (handbook jobs-and-hardware §2.0)."""

_JOB_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_SETTING_NAME = re.compile(r"(?=.{1,63}$)[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_COROUTINES = ("create", "refuse", "start", "run", "sleep", "wake", "changed")
_PLAIN = ("check", "change", "update")


def problem_with(kind: type[Job]) -> str | None:
    """Why ``kind`` cannot be a job of this unit; None when it can."""
    return next(_problems(kind), None)


def problem_with_protocol(protocol: type[CalibrationProtocol]) -> str | None:
    """Why ``protocol`` cannot be a calibration protocol of this unit; None when it can."""
    return next(_protocol_problems(protocol), None)


def _protocol_problems(protocol: type[CalibrationProtocol]) -> Iterator[str]:
    name: object = getattr(protocol, "name", None)
    if not isinstance(name, str) or not _JOB_NAME.fullmatch(name):
        yield (
            f"the name of {protocol.__name__}, {name!r:.80}, is not made of lower-case letters, "
            "digits and '_', at most 63"
        )
    for attribute in ("title", "description"):
        if not isinstance(getattr(protocol, attribute, None), str):
            yield f"{attribute} of the protocol {name!r} is missing, or is not text"
    for attribute in ("devices", "requirements", "aliases"):
        texts = getattr(protocol, attribute, None)
        if not isinstance(texts, tuple) or not all(isinstance(one, str) for one in texts):
            yield f"{attribute} of the protocol {name!r} is not a tuple of texts"
            return
    for device in protocol.devices:
        try:
            check_name(device, "the device")
        except BadRequest as refusal:
            yield f"{refusal.message} (protocol {name!r})"
        if device == RESERVED:
            yield f"no device may be called {RESERVED!r} (protocol {name!r})"
    if not isinstance(getattr(protocol, "priority", None), int):
        yield f"priority of the protocol {name!r} is not a whole number"
    yield from _step_problems(name, getattr(protocol, "steps", None))


def _step_problems(name: object, steps: object) -> Iterator[str]:
    if not isinstance(steps, tuple) or not steps or not all(isinstance(s, Step) for s in steps):
        yield f"steps of the protocol {name!r} is not a tuple of Step, at least one"
        return
    ids = [step.id for step in steps]
    for step in steps:
        if ids.count(step.id) > 1:
            yield f"the protocol {name!r} has two steps {step.id!r}"
        if isinstance(step.then, str) and step.then not in ids:
            yield f"step {step.id!r} of the protocol {name!r} leads to {step.then!r}: no such step"
        elif callable(step.then) and not inspect.iscoroutinefunction(step.then):
            yield f"then of the step {step.id!r} of the protocol {name!r} is not 'async def'"


def _problems(kind: type[Job]) -> Iterator[str]:
    name: object = getattr(kind, "job_name", None)
    if not isinstance(name, str) or not _JOB_NAME.fullmatch(name):
        yield (
            f"the job_name of {kind.__name__}, {name!r:.80}, is not made of lower-case letters, "
            "digits and '_', at most 63"
        )
    if name in RESERVED_NAMES:
        yield f"the job name {name!r} is reserved"
    if issubclass(kind, Automation):
        automation = getattr(kind, "automation_name", None)
        if not isinstance(automation, str) or not _JOB_NAME.fullmatch(automation):
            yield (
                f"the automation_name of {kind.__name__}, {automation!r:.80}, is not made of "
                "lower-case letters, digits and '_', at most 63"
            )
            return
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        yield f"the job {name!r} does not define {missing}"
    for method in _COROUTINES:
        if not inspect.iscoroutinefunction(getattr(kind, method)):
            yield f"{method} of the job {name!r} is not 'async def'"
    for method in _PLAIN:
        if inspect.iscoroutinefunction(getattr(kind, method)):
            yield f"{method} of the job {name!r} is 'async def', so its refusals would be lost"
    if not isinstance(_declared(kind, "restart_policy"), RestartPolicy):
        yield f"restart_policy of the job {name!r} is not a RestartPolicy"
    if not isinstance(_declared(kind, "stop_first"), int):
        yield f"stop_first of the job {name!r} is not a whole number"
    if not isinstance(_declared(kind, "help"), str):
        yield f"help of the job {name!r} is not text"
    yield from _option_problems(name, _declared(kind, "options"))
    yield from _setting_problems(name, _declared(kind, "settings"))


def _declared(kind: type[Job], attribute: str) -> object:
    """An attribute of the class as it is, whatever its annotation promises."""
    value: object = getattr(kind, attribute)
    return value


def _option_problems(job_name: object, options: object) -> Iterator[str]:
    if not isinstance(options, tuple | list):
        yield f"options of the job {job_name!r} is not a tuple of Option"
        return
    seen: set[str] = set()
    for option in options:
        if not isinstance(option, Option):
            yield f"options of the job {job_name!r} holds something that is not an Option"
            return
        what = f"option {option.name!r} of the job {job_name!r}"
        if not _matches(_OPTION_NAME, option.name):
            yield f"{what} is not named with letters, digits and '_'"
        if option.name in seen:
            yield f"{what} is declared twice"
        if option.type not in get_args(OptionType):
            yield f"{what} has the type {option.type!r}; there are {_listed(OptionType)}"
        if not isinstance(_as_object(option.help), str):
            yield f"the help of {what} is not text"
        yield from _range_problems(what, option.minimum, option.maximum)
        seen.add(option.name)


def _setting_problems(job_name: object, settings: object) -> Iterator[str]:
    if not isinstance(settings, tuple | list):
        yield f"settings of the job {job_name!r} is not a tuple of Setting"
        return
    seen = {STATE.name, RESTARTS.name}
    for setting in settings:
        if not isinstance(setting, Setting):
            yield f"settings of the job {job_name!r} holds something that is not a Setting"
            return
        what = f"setting {setting.name!r} of the job {job_name!r}"
        if setting.name in seen:
            yield f"{what} is declared twice, or by every job"
        elif not _matches(_SETTING_NAME, setting.name):
            yield f"{what} is not named with letters and digits joined by '_'"
        if setting.datatype not in get_args(Datatype):
            yield f"{what} has the datatype {setting.datatype!r}; there are {_listed(Datatype)}"
        if not isinstance(_as_object(setting.unit), str | None):
            yield f"the unit of {what} is not text"
        yield from _range_problems(what, setting.minimum, setting.maximum)
        seen.add(setting.name)


def _range_problems(what: str, minimum: object, maximum: object) -> Iterator[str]:
    for bound in (minimum, maximum):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
            yield f"a bound of {what} is not a number"
            return
    if (
        isinstance(minimum, int | float)
        and isinstance(maximum, int | float)
        and not minimum <= maximum
    ):
        yield f"{what} has a minimum above its maximum"


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.fullmatch(name) is not None


def _as_object(value: object) -> object:
    return value


def _listed(literal: object) -> str:
    return ", ".join(get_args(literal))
