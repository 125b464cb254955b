"""The unit as a job's factory sees it: where a job gets its parts from."""

from __future__ import annotations

import logging
from collections.abc import Callable

from piod.actors.actor import Life, Ref
from piod.actors.buses.bus import ASK_TIMEOUT_S
from piod.actors.buses.gpio import EdgeCounter, GpioBus
from piod.actors.buses.pwm import LeasedPwm, LeasePwm, PwmBus
from piod.actors.hub import Hub
from piod.actors.job import JobRecord, Publisher
from piod.calibrations.records import Calibration
from piod.calibrations.store import CalibrationStore
from piod.clock import Clock
from piod.config import Config
from piod.errors import ConfigurationError, PiodError
from piod.events import PidStepped
from piod.hw.wiring import Wiring
from piod.jobs.job import EdgeInput, JobLog, Publish, PwmOutput


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
        wiring: Wiring,
        calibrations: CalibrationStore,
        hub: Hub,
        clock: Clock,
    ) -> None:
        self._record = record
        self._life = life
        self._lost = lost
        self._publisher = publisher
        self._pwm = pwm
        self._gpio = gpio
        self._wiring = wiring
        self._calibrations = calibrations
        self._hub = hub
        self._clock = clock

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def config(self) -> Config:
        return self._record.config

    @property
    def publish(self) -> Publish:
        return self._publisher

    @property
    def log(self) -> JobLog:
        name = f"piod.jobs.{self._record.row.job_name}"
        return logging.LoggerAdapter(logging.getLogger(name), {"job": self._record.identity})

    @property
    def hall_sensor(self) -> EdgeInput:
        return EdgeCounter(self._gpio, self._wiring.hall_pin)

    async def lease_pwm(self, role: str, *, hz: float) -> PwmOutput:
        channel = self.config.pwm_roles().get(role)
        if channel is None:
            raise ConfigurationError(
                f"no PWM channel has the role {role!r}",
                remediation=f"Give a channel the role in the section [PWM], such as 1={role}.",
            )
        heater = self._wiring.heater_pwm_channel
        if (channel == heater) != (role == "heating"):
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
