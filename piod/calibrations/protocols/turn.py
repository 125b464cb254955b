"""What a step of a protocol sees and may do.

- :class:`View`: to render a step: the device, what the session knows so far, the time.
- :class:`Turn`: to take a step: a view with the inputs just accepted, whose changes of the
  data count once the step is done, and with what may be asked of the world
  (:meth:`Turn.run`, :meth:`Turn.save`, :meth:`Turn.exists`, :attr:`Turn.cluster`).

A step does nothing to the world but through its turn. So a protocol can be run, and tested,
on any :class:`Bench`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias, TypeVar

from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.records import Calibration
from piod.clock import timestamp
from piod.config import Config
from piod.events import JsonValue
from piod.jobs.calibrating import Progress
from piod.jobs.job import Unit

Q = TypeVar("Q")
R = TypeVar("R")

Data: TypeAlias = dict[str, JsonValue]
Routine: TypeAlias = Callable[[Unit, Q, Progress], Awaitable[R]]
"""A measurement such as :func:`piod.jobs.calibrating.pump_run.run`: unit, request, progress."""
Artifact: TypeAlias = Calibration | FusedEstimator

COMPLETE = "complete"
"""The step behind the last one."""


@dataclass(frozen=True)
class Facts:
    """What is true of the unit now: what start checks and texts go by.

    ``running_jobs``: names. ``model_name``: such as ``pioreactor_20ml``; None: not known.
    ``pwm_channels``: those of the HAT that a role may have, so without the heater's;
    ``adc_signals``: such as ``pd1``, that are wired. None: not known, nothing is refused by it.
    """

    unit_name: str
    config: Config
    now_unix_s: float
    running_jobs: frozenset[str] = frozenset()
    model_name: str | None = None
    pwm_channels: frozenset[str] | None = None
    adc_signals: frozenset[str] | None = None

    @property
    def now(self) -> datetime:
        """The time, UTC, as an artifact carries it: to the millisecond."""
        return datetime.fromisoformat(timestamp(self.now_unix_s))

    @property
    def date(self) -> str:
        """The date, UTC: ``2026-01-31``."""
        return self.now.date().isoformat()


@dataclass
class View:
    """A session as its steps see it. ``data`` is what earlier steps kept."""

    device: str
    data: Data
    facts: Facts

    @property
    def device_words(self) -> str:
        """The device as a person calls it: ``media pump``."""
        return self.device.replace("_", " ")

    def number(self, key: str) -> float:
        """A number of the data."""
        value = self.data[key]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{key} of the session is {value!r}, not a number")
        return float(value)

    def numbers(self, key: str) -> list[float]:
        """A list of numbers of the data, a new one."""
        values = self.data[key]
        if not isinstance(values, list):
            raise TypeError(f"{key} of the session is {values!r}, not a list")
        return [float(value) for value in values if isinstance(value, int | float)]

    def text(self, key: str) -> str:
        """A text of the data."""
        value = self.data[key]
        if not isinstance(value, str):
            raise TypeError(f"{key} of the session is {value!r}, not text")
        return value

    def flag(self, key: str) -> bool:
        """Whether the data say yes; no when they say nothing."""
        return self.data.get(key) is True


class Cluster(Protocol):
    """The fused OD estimators of this unit and of others. Each raises a PiodError in time."""

    async def units(self) -> Sequence[str]:
        """The units that may have one: this one first, then the others by name.

        This one alone when the leader does not say which others there are.
        """
        ...

    async def estimator_names(self, unit_name: str) -> Sequence[str]:
        """Those that ``unit_name`` has, sorted."""
        ...

    async def estimator(self, unit_name: str, name: str) -> FusedEstimator:
        """One of them."""
        ...


class Bench(Protocol):
    """What a turn reaches the world through. Each raises a PiodError when it is refused."""

    @property
    def cluster(self) -> Cluster:
        """What other units have."""
        ...

    async def run(self, routine: Routine[Q, R], request: Q) -> R:
        """Measure; what was on for it is off when this returns or raises."""
        ...

    async def exists(self, artifact_type: type[Artifact], device: str, name: str) -> bool:
        """Whether there is an artifact of that name, other than this session has put there."""
        ...

    async def save(self, artifact: Artifact, device: str, *, may_replace: bool) -> str:
        """Keep it, durably, as the active one of ``device``; its path.

        Conflict when one of that name is there, unless it ``may_replace`` it or this session
        has put it there.
        """
        ...


@dataclass
class Turn(View):
    """One step being taken. ``data`` is a copy: a refusal leaves the session as it was."""

    bench: Bench
    result: Data | None = field(default=None, init=False)

    async def run(self, routine: Routine[Q, R], request: Q) -> R:
        """Let ``routine`` measure: ``await turn.run(pump_run.run, PumpRun(…))``.

        Raises its refusal; the step can be taken again then.
        """
        return await self.bench.run(routine, request)

    @property
    def cluster(self) -> Cluster:
        """The fused OD estimators of this unit and of others."""
        return self.bench.cluster

    async def exists(self, artifact_type: type[Artifact], device: str, name: str) -> bool:
        """Whether ``device`` has a calibration (or estimator) of that name.

        One that this session has saved, in a step whose end a power cut hid, does not count.
        """
        return await self.bench.exists(artifact_type, device, name)

    async def save(self, artifact: Artifact, device: str | None = None) -> Data:
        """Keep ``artifact`` and make it the active one of ``device`` (of the session, if None).

        Returns the link of it that results carry. When this session has been done with that
        step before, unseen (a power cut), its own file is replaced: nothing is doubled.
        """
        device = self.device if device is None else device
        path = await self.bench.save(artifact, device, may_replace=self.flag("overwrite"))
        if isinstance(artifact, FusedEstimator):
            return {"device": device, "estimator_name": artifact.estimator_name, "path": path}
        return {"device": device, "calibration_name": artifact.calibration_name, "path": path}

    def complete(self, result: Data) -> str:
        """End the session with ``result``: ``return turn.complete({…})``.

        ``result["title"]``, if it is there, becomes the title of the last page.
        """
        self.result = result
        return COMPLETE
