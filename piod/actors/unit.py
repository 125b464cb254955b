"""The unit as a job's factory sees it: where a job gets its parts from."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import asdict, dataclass, replace

from piod.actors.actor import Life, Ref
from piod.actors.buses.bus import ASK_TIMEOUT_S, AllReleased
from piod.actors.buses.gpio import EdgeCounter, GpioBus, LeasedLine, LeaseLine, WatchedLine
from piod.actors.buses.i2c import BusAccess, I2cBus
from piod.actors.buses.led import LedBus
from piod.actors.buses.led_lease import LeasedLeds, LeaseLeds
from piod.actors.buses.pwm import LeasedPwm, LeasePwm, PwmBus
from piod.actors.experiment_liquids import ExperimentLiquids
from piod.actors.heater import HeaterInterlock
from piod.actors.hub import Hub, Lagged
from piod.actors.job import JobRecord, Publisher
from piod.actors.leased_heater import LeasedHeater
from piod.actors.model import ModelKey, UnitModel
from piod.actors.volumes import VolumeLedger
from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.records import Calibration
from piod.calibrations.store import CalibrationStore, EstimatorStore
from piod.clock import Clock
from piod.config import Config
from piod.errors import ConfigurationError, PiodError
from piod.events import (
    LATEST_UNIX_S,
    READING_UNITS,
    Event,
    JsonValue,
    PidStepped,
    ReadingTaken,
)
from piod.host import Host
from piod.hw.drivers import analog_inputs, thermometer
from piod.hw.models import Limits
from piod.hw.ports import AnalogInputs, Thermometer
from piod.hw.wiring import Wiring
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
from piod.jobs.job import EdgeInput, JobLog, Publish, PwmOutput
from piod.jobs.liquids import Liquids
from piod.storage.ledger import Ledger
from piod.storage.memory import ExperimentMemory

LED_CHANNELS = "ABCD"
CONFIRM_OFF_S = 2.5
"""Wall time that an errand waits for its outputs to be off: above the longest timed list."""


class JobUnit:
    """The parts of this unit for one life of one job; what it leases ends with that life."""

    def __init__(
        self,
        *,
        record: JobRecord,
        life: Life,
        lost: Callable[[PiodError], None],
        publisher: Publisher,
        pwm: Ref[PwmBus],
        gpio: Ref[GpioBus],
        i2c: Ref[I2cBus],
        leds: Ref[LedBus],
        wiring: Wiring,
        calibrations: CalibrationStore,
        estimators: EstimatorStore,
        hub: Hub,
        ledger: Ledger,
        host: Host,
        health: Callable[[], Awaitable[Sequence[str]]],
        heater: Ref[HeaterInterlock],
        model: UnitModel,
        volumes: Ref[VolumeLedger],
        clock: Clock,
    ) -> None:
        self._record = record
        self._life = life
        self._lost = lost
        self._publish: Publish = publisher
        self._pwm = pwm
        self._gpio = gpio
        self._i2c = i2c
        self._leds = leds
        self._wiring = wiring
        self._calibrations = calibrations
        self._estimators = estimators
        self._hub = hub
        self._ledger = ledger
        self._host = host
        self._health = health
        self._heater = heater
        self._model = model
        self._volumes = volumes
        self._clock = clock
        self._light = _Light(life, hub, clock)

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def config(self) -> Config:
        return self._record.config

    @property
    def publish(self) -> Publish:
        return self._publish

    @property
    def log(self) -> JobLog:
        name = f"piod.jobs.{self._record.row.job_name}"
        return logging.LoggerAdapter(logging.getLogger(name), {"job": self._record.identity})

    @property
    def hall_sensor(self) -> EdgeInput:
        return EdgeCounter(self._gpio, self._wiring.hall_pin)

    @property
    def adc(self) -> AnalogInputs:
        return analog_inputs(BusAccess(self._i2c), self._wiring)

    @property
    def thermometer(self) -> Thermometer:
        return thermometer(BusAccess(self._i2c), self._wiring)

    @property
    def age_s(self) -> float:
        return self._clock.monotonic() - self._record.started_s

    @property
    def is_resumed(self) -> bool:
        return self._record.is_resumed

    def led_channel(self, role: str) -> str:
        channel = self.config.led_roles().get(role)
        if channel is None or channel not in tuple(LED_CHANNELS):
            raise ConfigurationError(
                f"no LED channel has the role {role!r}"
                if channel is None
                else f"[leds] gives the role {role!r} to {channel!r}, which is no LED channel",
                remediation=f"Give one of {', '.join(LED_CHANNELS)} the role in the section "
                f"[leds], such as A={role}.",
            )
        return channel

    async def lease_leds(self, channels: str) -> LedOutputs:
        message = LeaseLeds(channels, self._life, self._lost)
        return LeasedLeds(self._leds, await self._leds.ask(message, timeout=ASK_TIMEOUT_S))

    @property
    def experiment(self) -> str:
        return self._record.row.experiment

    @property
    def memory(self) -> Memory:
        return ExperimentMemory(self._ledger, self.experiment, self._clock.time)

    @property
    def liquids(self) -> Liquids:
        return ExperimentLiquids(self._volumes, self._record.identity, self._life)

    @property
    def peers(self) -> Peers:
        return _Peers(self._hub)

    @property
    def host(self) -> Host:
        return self._host

    async def health(self) -> Sequence[str]:
        return await self._health()

    @property
    def button(self) -> LevelInput:
        return WatchedLine(self._gpio, self._wiring.button_pin)

    def events(self) -> Events:
        return _Events(self._hub, self.log)

    def record(
        self,
        kind: str,
        value: float,
        channel: str | None = None,
        *,
        at: float | None = None,
        **details: JsonValue,
    ) -> None:
        if kind not in READING_UNITS:
            raise ValueError(f"{kind!r} is no kind of reading")
        if not math.isfinite(value):
            raise ValueError(f"a reading of {kind} must be a finite number, not {value}")
        at = self._clock.time() if at is None else at
        if not 0 <= at <= LATEST_UNIX_S:
            raise ValueError(f"a reading of {kind} cannot have been taken at {at} Unix seconds")
        _check_text_of_reading(kind, channel, details)
        reading = ReadingTaken(self._record.identity, kind, float(value), channel, details, at)
        if kind == "led":
            self._light.note(reading)
        self._hub.publish(reading)

    async def lease_pcb_led(self) -> DigitalOutput:
        line = self._wiring.led_pin
        await self._gpio.ask(LeaseLine(line, self._life), timeout=ASK_TIMEOUT_S)
        return LeasedLine(self._gpio, line, self._life)

    @property
    def limits(self) -> ReactorLimits:
        return _ReactorLimits(**asdict(self._model.limits), key=self._model.key)

    async def lease_heater(self) -> Heater:
        heater = LeasedHeater(self._heater)
        await heater.lease(self._life, self._lost)
        return heater

    async def lease_pwm(self, role: str, *, hz: float) -> PwmOutput:
        if role == "heating":
            raise ConfigurationError(
                "the heater is not a PWM output like others: its interlock drives it",
                remediation="Lease it with lease_heater.",
            )
        channel = self.config.pwm_roles().get(role)
        if channel is None:
            raise ConfigurationError(
                f"no PWM channel has the role {role!r}",
                remediation=f"Give a channel the role in the section [PWM], such as 1={role}.",
            )
        heater = self._wiring.heater_pwm_channel
        if channel == heater:
            raise ConfigurationError(
                f"[PWM] gives the role {role!r} to channel {channel}; the heater is wired to "
                f"channel {heater}, and that channel drives nothing else",
                remediation="Correct the section [PWM] of the configuration.",
            )
        pin = self._wiring.pwm_pins.get(channel)
        if pin is None:
            known = ", ".join(self._wiring.pwm_pins)
            raise ConfigurationError(
                f"[PWM] gives the role {role!r} to channel {channel}, which this HAT does not have",
                remediation=f"The channels of this HAT are: {known}.",
            )
        message = LeasePwm(pin, hz, self._life, self._lost)
        lease = await self._pwm.ask(message, timeout=ASK_TIMEOUT_S)
        return LeasedPwm(self._pwm, lease)

    async def active_calibration(self, device: str) -> Calibration | None:
        return await self._calibrations.active_calibration(device)

    async def active_estimator(self, device: str) -> FusedEstimator | None:
        return await self._estimators.active(device)

    def part(self, publish: Publish) -> JobUnit:
        part = copy(self)
        part._publish = publish
        return part

    @asynccontextmanager
    async def errand(self, publish: Publish) -> AsyncIterator[JobUnit]:
        """See :meth:`piod.jobs.job.Unit.errand`; its outputs are off at once, then confirmed."""
        errand = self.part(publish)
        errand._life = life = Life(self._life.name)
        errand._light = _Light(life, self._hub, self._clock)
        self._life.at_end(life.end)
        try:
            yield errand
        finally:
            life.end()
            for bus in (self._pwm, self._leds):
                try:
                    await bus.ask(AllReleased(life.name), timeout=CONFIRM_OFF_S)
                except PiodError as refusal:  # the bus goes on trying, and says so
                    self.log.debug("outputs are not confirmed to be off: %s", refusal.message)

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
        proportional, integral, derivative = terms
        self._hub.publish(
            PidStepped(
                self._record.identity,
                target_name,
                setpoint=setpoint,
                output_limits=output_limits,
                gains=gains,
                proportional=proportional,
                integral=integral,
                derivative=derivative,
                latest_input=latest_input,
                latest_output=latest_output,
                at=self._clock.time(),
            )
        )


def _check_text_of_reading(kind: str, channel: object, details: Mapping[str, JsonValue]) -> None:
    """Raises ValueError for what could be neither kept nor sent."""
    if not isinstance(channel, str | None):
        raise ValueError(f"the channel of a reading of {kind} must be text, not {channel!r}")
    try:
        json.dumps([channel, details], allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the details of a reading of {kind} are no JSON: {error}") from None


@dataclass(frozen=True)
class _ReactorLimits(Limits):
    """The limits of the unit's model, with its key."""

    key: ModelKey | None


class _Light:
    """The light that a life records: its end, too, which nobody else would record."""

    def __init__(self, life: Life, hub: Hub, clock: Clock) -> None:
        self._life = life
        self._hub = hub
        self._clock = clock
        self._last: dict[str | None, ReadingTaken] = {}
        """By channel."""

    def note(self, reading: ReadingTaken) -> None:
        if not self._last:
            self._life.at_end(self._end)
        self._last[reading.channel] = reading

    def _end(self) -> None:
        for last in self._last.values():
            if last.value:
                self._hub.publish(replace(last, value=0.0, at=self._clock.time()))


class _Events:
    """Each iteration is a subscription to the hub; what is missed is told in the job's log."""

    def __init__(self, hub: Hub, log: JobLog) -> None:
        self._hub = hub
        self._log = log

    async def __aiter__(self) -> AsyncIterator[Event]:
        with self._hub.subscribe() as subscription:
            async for event in subscription:
                if isinstance(event, Lagged):
                    self._log.warning("%d events were missed: the job is too slow", event.missed)
                else:
                    yield event


class _Peers:
    """The running jobs as the hub knows them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def settings(self, job_name: str) -> Mapping[str, JsonValue] | None:
        return self._hub.settings_of(job_name)
