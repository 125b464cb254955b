"""What a job is: options, published settings, behaviour.

A job is one class in one module. It declares its options (what a run may name)
and its settings (what it publishes, and which of them may be changed while it
runs), is made by :meth:`Job.create` from the parts of the unit that it uses, and
behaves in :meth:`Job.start`, :meth:`Job.run` and :meth:`Job.sleep`. Its host,
the job actor, keeps its state, its leases and its row in the ledger.

The smallest job::

    class Blink(Job):
        job_name = "blink"
        help = "Turn the stirrer on and off."
        settings = (Setting("duty_cycle", "float", unit="%", settable=True),)

        def __init__(self, pwm: PwmOutput, clock: Clock, publish: Publish) -> None: ...

        @classmethod
        async def create(cls, unit: Unit, options: Options) -> "Blink":
            return cls(await unit.lease_pwm("stirring", hz=200), unit.clock, unit.publish)

        async def run(self) -> None:
            while True: ...
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.unit import EdgeInput, JobLog, Publish, PwmOutput, Unit
from piod.restarts import RestartPolicy

__all__ = [
    "RESTARTS",
    "STATE",
    "Datatype",
    "EdgeInput",
    "FallAsleep",
    "Job",
    "JobLog",
    "Option",
    "OptionType",
    "OptionValue",
    "Options",
    "Publish",
    "PwmOutput",
    "Setting",
    "Unit",
    "boolean_from",
    "number_from",
    "range_text",
    "setting_text",
]

OptionValue: TypeAlias = str | float | int | bool | None
Options: TypeAlias = Mapping[str, OptionValue]

OptionType = Literal["text", "float", "integer", "boolean", "float range", "integer range"]


def number_from(value: object, what: str) -> float:
    """A finite number from a JSON number or its text; BadRequest naming ``what``."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise BadRequest(f"{what} must be a number, got {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{what} must be a number, got {value!r}")
    if not math.isfinite(value):
        raise BadRequest(f"{what} must be a finite number, got {value}")
    return float(value)


def boolean_from(value: object, what: str) -> bool:
    """True or False from a JSON boolean, 0/1, or the usual words."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word in ("1", "true", "yes", "on", "y", "t"):
        return True
    if word in ("0", "false", "no", "off", "n", "f"):
        return False
    raise BadRequest(f"{what} must be true or false, got {value!r}")


def _number(value: object, what: str, kind: str) -> float | int:
    number = number_from(value, what)
    if not kind.startswith("integer"):
        return number
    if not number.is_integer():
        raise BadRequest(f"{what} must be a whole number, got {value!r}")
    return int(number)


def _json_from(value: object, what: str) -> JsonValue:
    """An object or a list, native or as its text."""
    native = value
    if isinstance(value, str):
        try:
            native = json.loads(value)
        except ValueError:
            native = None
    if not isinstance(native, dict | list):
        raise BadRequest(f"{what} must be a JSON object or list, got {value!r}")
    return native


def range_text(minimum: float | None, maximum: float | None, unit: str | None = None) -> str:
    """``0 to 100 %``, ``at least 0`` … for messages."""
    tail = f" {unit}" if unit else ""
    if minimum is not None and maximum is not None:
        return f"{minimum:g} to {maximum:g}{tail}"
    if minimum is not None:
        return f"at least {minimum:g}{tail}"
    return f"at most {maximum:g}{tail}"


@dataclass(frozen=True)
class Option:
    """One option of a run. ``clamp``: out of range is pulled in, not refused.

    ``flag``: how clients write it, where that is not its name with dashes.
    """

    name: str
    type: OptionType
    help: str = ""
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    clamp: bool = False
    flag: str | None = None

    def parse(self, value: object) -> OptionValue:
        """The typed value of ``value``; BadRequest that names the option and what it takes."""
        what = f"option {self.name}"
        if value is None:
            if self.type == "boolean":
                return True  # a bare flag
            raise BadRequest(f"{what} needs a value ({self.type})")
        if self.type == "boolean":
            return boolean_from(value, what)
        if self.type == "text":
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise BadRequest(f"{what} must be text, got {value!r}")
            return str(value)
        number = _number(value, what, self.type)
        low, high = self.minimum, self.maximum
        if (low is None or number >= low) and (high is None or number <= high):
            return number
        if self.clamp:
            number = number if high is None else min(number, high)
            return number if low is None else max(number, low)
        raise BadRequest(f"{what} must be {range_text(low, high)}, got {number:g}")


Datatype = Literal[
    "string",
    "text",
    "float",
    "integer",
    "boolean",
    "json",
    "MeasuredRPM",
    "GrowthRate",
    "ODFiltered",
    "ODReadings",
    "ODReading",
    "RawODReading",
    "CalibratedODReading",
    "ODFused",
    "KalmanFilterOutput",
    "Voltage",
    "AutomationEvent",
    "Temperature",
]


@dataclass(frozen=True)
class Setting:
    """One published setting.

    ``kept``: the value is a person's choice and is given back to the job when it
    is restarted after a crash. ``persist``: stays published after the end.
    """

    name: str
    datatype: Datatype
    settable: bool = False
    unit: str | None = None
    persist: bool = False
    minimum: float | None = None
    maximum: float | None = None
    kept: bool = False

    def parse(self, value: object) -> JsonValue:
        """The typed value of ``value``; BadRequest that names the setting and what it takes."""
        what = f"setting {self.name}"
        match self.datatype:
            case "boolean":
                return boolean_from(value, what)
            case "float" | "integer":
                number = _number(value, what, self.datatype)
                low, high = self.minimum, self.maximum
                if (low is not None and number < low) or (high is not None and number > high):
                    allowed = range_text(low, high, self.unit)
                    raise BadRequest(f"{what} must be {allowed}, got {number:g}")
                return number
            case "json":
                return _json_from(value, what)
            case _:
                if not isinstance(value, str):
                    raise BadRequest(f"{what} must be text, got {value!r}")
                return value


def setting_text(value: JsonValue) -> str:
    """A setting's value as the API answers it: text; structures as JSON text.

    A whole number prints without a fraction; booleans as upstream prints them.
    """
    match value:
        case str():
            return value
        case bool():
            return str(value)
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case int() | float():
            return str(value)
        case _:
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class FallAsleep(Exception):
    """Raised by :meth:`Job.run`: the job goes to sleep, for the reason that its text says."""


STATE = Setting("$state", "text", settable=True)
RESTARTS = Setting("restarts", "integer")


class Job(ABC):
    """Base of all jobs. See the module's docstring for the smallest one."""

    job_name: ClassVar[str]
    help: ClassVar[str] = ""
    options: ClassVar[Sequence[Option]] = ()
    settings: ClassVar[Sequence[Setting]] = ()
    is_long_running: ClassVar[bool] = False
    """Long-running jobs belong to the daemon: "stop all" leaves them alone."""
    starts_with_daemon: ClassVar[bool] = False
    """Whether the daemon runs one, without options, when it starts."""
    one_at_a_time: ClassVar[bool] = True
    """Whether a second one of the same name is refused."""
    stop_first: ClassVar[int] = 0
    """Order within "stop all": higher first; pumps and heater above the rest."""
    resumable: ClassVar[bool] = False
    """Whether [piod] resume_jobs may start it again after an outage. Never a pump."""
    restart_policy: ClassVar[RestartPolicy] = RestartPolicy()

    @classmethod
    @abstractmethod
    async def create(cls, unit: Unit, options: Options) -> Job:
        """Make the job from the parts that it uses. ``options`` are parsed; absent if not given."""

    async def start(self) -> None:  # noqa: B027 # not every job has a start-up
        """All that must be done before the job is *ready*."""

    @abstractmethod
    async def run(self) -> None:
        """What the job does while it is ready. Returning ends the job.

        Cancelled when the job is put to sleep, and called again when it wakes. It may put
        itself to sleep: FallAsleep.
        """

    async def sleep(self) -> None:  # noqa: B027 # not every job holds an output
        """Outputs to 0; the leases stay.

        A job that is restarted asleep is not started before: :meth:`start` comes first when
        it wakes, then :meth:`wake`.
        """

    async def wake(self) -> None:  # noqa: B027
        """From sleep back to ready; :meth:`run` follows."""

    def check(self, changes: Mapping[str, JsonValue]) -> None:  # noqa: B027
        """Refuse ``changes``, typed values by setting, as a whole (BadRequest). Changes nothing."""

    def change(self, setting: str, value: JsonValue) -> None:
        """Take a new value of a settable setting, checked before; publish it."""
        raise BadRequest(f"setting {setting} of {self.job_name} cannot be changed")

    async def changed(self) -> None:  # noqa: B027
        """Do what the settings just changed ask for, before that is answered.

        For what may be refused only now (PiodError), or must have been done by then.
        """

    @classmethod  # noqa: B027 # most jobs have nothing to refuse
    async def refuse(cls, unit: Unit, options: Options) -> None:
        """Refuse (PiodError), before a run is accepted, what can be seen not to work.

        Of ``unit`` nothing is leased or published here. It may become otherwise until the job
        starts, so :meth:`start` has to see to it all the same.
        """

    @classmethod
    def update(cls, options: Options) -> Mapping[str, JsonValue] | None:
        """The settings that a run changes when such a job runs already; None: it is refused."""
        return None

    @classmethod
    def kind_name(cls) -> str:
        """Under which name the unit knows this class: of an automation more than ``job_name``."""
        return cls.job_name

    @classmethod
    def all_options(cls) -> Sequence[Option]:
        """The declared options, and those that come by themselves."""
        return cls.options

    @classmethod
    def all_settings(cls) -> tuple[Setting, ...]:
        """The declared settings and those that every job has."""
        return (*cls.settings, RESTARTS, STATE)

    @classmethod
    def parse_options(cls, given: Mapping[str, object]) -> dict[str, OptionValue]:
        """Typed options; BadRequest that names the option and what is allowed."""
        known = {option.name: option for option in cls.all_options()}
        flags = {option.flag: option for option in known.values() if option.flag is not None}
        parsed: dict[str, OptionValue] = {}
        for key, value in given.items():
            option = known.get(key.replace("-", "_"), flags.get(key))
            if option is None:
                allowed = ", ".join(known) or "none"
                raise BadRequest(
                    f"{cls.job_name} has no option {key!r}",
                    remediation=f"The options of {cls.job_name} are: {allowed}.",
                    cause=f"unknown option {key!r}; allowed: {allowed}",
                )
            if option.name in parsed:
                raise BadRequest(f"option {option.name} is given twice")
            parsed[option.name] = option.parse(value)
        missing = [name for name, option in known.items() if option.required and name not in parsed]
        if missing:
            raise BadRequest(f"{cls.job_name} needs the option {missing[0]}")
        return parsed
