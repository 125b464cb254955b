"""What is published on the unit: settings and states of jobs, outputs, logs.

These carry all that the ledger keeps and that the topics of a leader's broker
need (handbook, jobs-and-hardware §5.2): unit and experiment are in each event
of a job, timestamps are Unix seconds of the job's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """Which job an event is about."""

    unit: str
    experiment: str
    job_name: str
    job_id: str


@dataclass(frozen=True, slots=True)
class SettingPublished:
    """A job published a setting; ``$state`` is one of them.

    ``value`` is native, ``text`` is what the API answers and the ledger keeps.
    ``value`` None: the setting has no value any more.
    """

    job: JobIdentity
    setting: str
    value: JsonValue
    text: str | None
    persist: bool
    at: float


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has ended; its outputs are off. ``state`` is its last one."""

    job: JobIdentity
    state: str
    reason: str | None
    at: float


@dataclass(frozen=True, slots=True)
class PidStepped:
    """One update of a PID controller; the terms of handbook §5.3."""

    job: JobIdentity
    target_name: str
    setpoint: float
    output_limits: tuple[float | None, float | None]
    gains: tuple[float, float, float]
    proportional: float
    integral: float
    derivative: float
    latest_input: float
    latest_output: float
    at: float


@dataclass(frozen=True, slots=True)
class PwmChanged:
    """The duty cycles of all PWM pins that are on, in percent by GPIO number."""

    duty_percent: Mapping[int, float]
    at: float


@dataclass(frozen=True, slots=True)
class LedsChanged:
    """What every LED was told, in percent by channel: its owner's level, 0 without one."""

    percent: Mapping[str, float]
    at: float


@dataclass(frozen=True, slots=True)
class I2cCounts:
    """Accesses of one I2C chip since the start: all, those tried again, those that failed."""

    accesses: int
    retries: int
    failures: int


@dataclass(frozen=True, slots=True)
class I2cFailed:
    """An attempt to access a chip failed; ``again``: it is tried again."""

    address: int
    reason: str
    again: bool
    counts: I2cCounts
    at: float


@dataclass(frozen=True, slots=True)
class ReadingTaken:
    """A measurement, or what was done: what the history of an experiment consists of.

    ``kind``: see :data:`READING_UNITS`. ``channel``: of the photodiode, LED or pump.
    ``details``: what else is to be known, such as the angle or the source.
    """

    job: JobIdentity
    kind: str
    value: float
    channel: str | None
    details: Mapping[str, JsonValue]
    at: float


LATEST_UNIX_S = 253_402_300_799.0
"""The end of the year 9999: what can be written as a time."""

READING_UNITS: Mapping[str, str] = {
    "od": "OD",
    "raw_od": "V",
    "od_fused": "OD",
    "od_filtered": "OD",
    "growth_rate": "1/h",
    "temperature": "°C",
    "rpm": "RPM",
    "led": "%",
    "dosing": "mL",
}
"""The kinds of readings and the unit of their value."""


@dataclass(frozen=True, slots=True)
class DoseEnded:
    """A dose is over and its pump is off: what it moved, mL, as expected and as a range.

    ``event``: add_media, add_alt_media or remove_waste. ``finished``: False if its job ended
    before it had told how long the pump was on.
    """

    job: JobIdentity
    dose_id: str
    event: str
    volume_ml: float
    least_ml: float
    most_ml: float
    source: str
    finished: bool
    at: float


@dataclass(frozen=True, slots=True)
class VolumesChanged:
    """The variables of ``bioreactor/<variable>`` of an experiment, all of them."""

    unit: str
    experiment: str
    values: Mapping[str, float]
    at: float


@dataclass(frozen=True, slots=True)
class LogEmitted:
    """A log record, with the job it is about where there is one."""

    level: str
    message: str
    source: str
    job: JobIdentity | None
    at: float


Event: TypeAlias = (
    SettingPublished
    | JobEnded
    | PidStepped
    | PwmChanged
    | LedsChanged
    | I2cFailed
    | ReadingTaken
    | DoseEnded
    | VolumesChanged
    | LogEmitted
)
