"""The unit as a job's factory sees it: where its parts come from.

:class:`Unit` is what :meth:`piod.jobs.job.Job.create` is given; :mod:`piod.actors.unit`
implements it. Whatever is leased there goes off when the job ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.records import Calibration
from piod.clock import Clock
from piod.config import Config
from piod.events import JsonValue
from piod.host import Host
from piod.hw.ports import AnalogInputs, Thermometer
from piod.jobs.instruments import (
    DigitalOutput,
    Events,
    Heater,
    LedOutputs,
    LevelInput,
    Memory,
    Peers,
    ReactorLimits,
)
from piod.jobs.liquids import Liquids

Publish: TypeAlias = Callable[[str, JsonValue], None]


class PwmOutput(Protocol):
    """A leased PWM output."""

    async def set_duty(self, duty_percent: float, *, off_after_s: float | None = None) -> None:
        """Drive it; returns when the hardware holds ``duty_percent`` (0 to 100).

        After ``off_after_s`` it is off, whatever becomes of the event loop.
        """
        ...

    async def release(self) -> bool:
        """Give it back before the job's end; whether the hardware confirms that it is off.

        False: it refuses, so the output may be on, and piod goes on trying: see :meth:`off`.
        """
        ...

    async def off(self) -> None:
        """Once given back: return when the hardware confirms that it is off, however late."""
        ...


class EdgeInput(Protocol):
    """A line whose edges can be recorded."""

    async def record_edges(self, window_s: float) -> Sequence[float]:
        """The times in seconds of the falling edges within ``window_s`` from now."""
        ...


class Unit(Protocol):
    """The unit as the factory of a job sees it: where its parts come from.

    What is leased here is the job's until it ends, and is turned off then.
    """

    @property
    def clock(self) -> Clock:
        """The clock that the job lives by."""
        ...

    @property
    def config(self) -> Config:
        """The configuration that the job started with, its overrides applied."""
        ...

    @property
    def publish(self) -> Publish:
        """Publishes a setting of the job: ``publish("target_rpm", 500.0)``."""
        ...

    @property
    def log(self) -> JobLog:
        """Where the job tells what happens to it."""
        ...

    @property
    def hall_sensor(self) -> EdgeInput:
        """One falling edge for each turn of the stirrer."""
        ...

    @property
    def experiment(self) -> str:
        """The experiment that the job runs in."""
        ...

    @property
    def memory(self) -> Memory:
        """What jobs of this experiment remember beyond their lives."""
        ...

    @property
    def liquids(self) -> Liquids:
        """What is in the vial of the experiment; every pump asks it before it turns."""
        ...

    @property
    def peers(self) -> Peers:
        """The other jobs of the unit."""
        ...

    @property
    def host(self) -> Host:
        """The computer that piod runs on."""
        ...

    async def health(self) -> Sequence[str]:
        """What is wrong with the unit now, in words."""
        ...

    @property
    def button(self) -> LevelInput:
        """The button on the PCB; high while it is pressed."""
        ...

    @property
    def adc(self) -> AnalogInputs:
        """The photodiodes and the other signals that the ADCs measure."""
        ...

    @property
    def thermometer(self) -> Thermometer:
        """The temperature sensor of the heating PCB."""
        ...

    @property
    def age_s(self) -> float:
        """Seconds since the job was started, before any crash: what a cycle is counted from."""
        ...

    @property
    def is_resumed(self) -> bool:
        """Whether the job goes on with what an outage ended: what that kept is its own.

        The outage was short, and the clock can be compared with instants noted before it.
        """
        ...

    def led_channel(self, role: str) -> str:
        """The LED channel that ``[leds]`` gives the role, such as IR. ConfigurationError."""
        ...

    async def lease_leds(self, channels: str) -> LedOutputs:
        """Lease LED channels, such as ``"CD"``, dark; Conflict names who has one of them."""
        ...

    def events(self) -> Events:
        """What happens on the unit, from the begin of an iteration over it to its end."""
        ...

    def record(
        self,
        kind: str,
        value: float,
        channel: str | None = None,
        *,
        at: float | None = None,
        **details: JsonValue,
    ) -> None:
        """Publish a reading, and keep it in the history of the experiment.

        ``kind``: of :data:`piod.events.READING_UNITS`, which tells its unit; ``at``: Unix
        seconds, None: now; ``details``: what else is to be known, JSON. ValueError for
        another kind, a value that is no number, or anything that could not be kept.
        """
        ...

    async def lease_pcb_led(self) -> DigitalOutput:
        """Lease the LED of the PCB, dark; Conflict if another job has it."""
        ...

    @property
    def limits(self) -> ReactorLimits:
        """What the reactor model allows, as far as it is known now."""
        ...

    async def lease_heater(self) -> Heater:
        """Lease the heater, at 0 %; behind its interlock, and the only way to it."""
        ...

    async def lease_pwm(self, role: str, *, hz: float) -> PwmOutput:
        """Lease the PWM output that ``[PWM]`` gives the role ``role``, at 0 %."""
        ...

    async def active_calibration(self, device: str) -> Calibration | None:
        """The active calibration of ``device``, if there is one."""
        ...

    async def active_estimator(self, device: str) -> FusedEstimator | None:
        """The active estimator of ``device``, if there is one."""
        ...

    def part(self, publish: Publish) -> Unit:
        """The same unit, for a job that this one runs as a part of itself.

        What that leases is this job's; what it publishes goes to ``publish`` instead.
        """
        ...

    def errand(self, publish: Publish) -> AbstractAsyncContextManager[Unit]:
        """The same unit for a measurement that ends before its owner does.

        As :meth:`part`, but what is leased there is given back, off, at the end of the
        context, whatever ends it.
        """
        ...

    def pid_stepped(
        self,
        target_name: str,
        *,
        setpoint: float,
        output_limits: tuple[float | None, float | None],
        gains: tuple[float, float, float],
        terms: tuple[float, float, float],
        latest_input: float,
        latest_output: float,
    ) -> None:
        """Publish one update of a PID controller."""
        ...


class JobLog(Protocol):
    """The part of a logger that jobs use."""

    def debug(self, msg: object, *args: object) -> None: ...
    def info(self, msg: object, *args: object) -> None: ...
    def warning(self, msg: object, *args: object) -> None: ...
    def error(self, msg: object, *args: object) -> None: ...
