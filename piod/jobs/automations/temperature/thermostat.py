"""thermostat: keeps the liquid at ``target_temperature``.

After each inference the duty cycle changes by the output of a PID controller, ±25 % at
most. A controller alone overshoots by 2 K, since the liquid answers slowly: so the duty
cycle is also kept where the next inference will find the liquid near its target, as far as
that can be foreseen (:mod:`piod.jobs.temperature.control`). The first duty cycle, and that
after a sleep or a fault, is the one that would hold the target, changed by the controller.
"""

from __future__ import annotations

from collections.abc import Mapping

from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.instruments import Heater
from piod.jobs.job import Option, Options, OptionValue, Setting, Unit, range_text
from piod.jobs.pid import Pid
from piod.jobs.temperature.control import LiquidEstimate
from piod.jobs.temperature_automation import TemperatureAutomation

SECTION = "temperature_automation.thermostat"
STEP_LIMIT_PERCENT = 25.0
"""Largest change of the duty cycle by one update of the controller."""


class Thermostat(TemperatureAutomation):
    """See the module."""

    automation_name = "thermostat"
    help = "Keep the culture at a temperature."
    options = (Option("target_temperature", "float", "the temperature to keep, ℃", minimum=0),)
    settings = (
        Setting("target_temperature", "float", settable=True, unit="℃", minimum=0, kept=True),
    )

    def __init__(
        self, unit: Unit, heater: Heater, *, skip_first_run: bool, target_celsius: float, pid: Pid
    ) -> None:
        super().__init__(unit, heater, skip_first_run=skip_first_run)
        self._pid = pid
        self._target = target_celsius
        self._highest_target = unit.limits.max_temp_to_reduce_heating
        self._estimate: LiquidEstimate | None = None
        self._stirring_is_missed = False

    @classmethod
    def parse_options(cls, given: Mapping[str, object]) -> dict[str, OptionValue]:
        parsed = super().parse_options(given)
        if "target_temperature" not in parsed:
            raise BadRequest(
                "a thermostat needs the option target_temperature",
                remediation="Set the option target_temperature, in ℃.",
            )
        return parsed

    @classmethod
    async def refuse(cls, unit: Unit, options: Options) -> None:
        _target(unit, options)

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Thermostat:
        target = _target(unit, options)
        config = unit.config
        pid = Pid(
            kp=config.number(SECTION, "Kp", 2.6),
            ki=config.number(SECTION, "Ki", 0.0),
            kd=config.number(SECTION, "Kd", 4.6),
            setpoint=target,
            low=-STEP_LIMIT_PERCENT,
            high=STEP_LIMIT_PERCENT,
        )
        return cls(
            unit,
            await unit.lease_heater(),
            skip_first_run=options.get("skip_first_run") is True,
            target_celsius=target,
            pid=pid,
        )

    async def start(self) -> None:
        await super().start()
        self._publish_setting("target_temperature", self._target)

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        super().check(changes)
        target = changes.get("target_temperature")
        if isinstance(target, int | float):
            _check_target(target, self._highest_target)

    def change(self, setting: str, value: JsonValue) -> None:
        if setting == "target_temperature" and isinstance(value, int | float):
            self._target = float(value)
            self._publish_setting(setting, self._target)
        else:
            super().change(setting, value)

    def forget(self) -> None:
        self._estimate = None

    async def decide(self, liquid_celsius: float, duty_percent: float) -> None:
        self._look_for_stirring()
        estimate = self._estimate
        if estimate is None:
            estimate = self._estimate = LiquidEstimate(
                liquid_celsius, cycle_s=self.inference.cycle_s, pause_s=self.pause_s
            )
            self._pid.reset(self._target)
            duty_percent = estimate.holding_duty(self._target)
        else:
            estimate.observe(liquid_celsius, duty_percent)
        self._pid.setpoint = estimate.aim(self._target)
        step = self._pid.update(estimate.celsius)
        self._unit.pid_stepped(
            "target_temperature",
            setpoint=self._pid.setpoint,
            output_limits=(self._pid.low, self._pid.high),
            gains=(self._pid.kp, self._pid.ki, self._pid.kd),
            terms=self._pid.terms,
            latest_input=estimate.celsius,
            latest_output=step,
        )
        wanted = estimate.within_sight(duty_percent + step, self._target)
        got = await self.heat(wanted)
        self.tell(
            "UpdatedHeaterDC",
            f"delta_dc={got - duty_percent:.2f}",
            {
                "current_dc": got,
                "delta_dc": round(got - duty_percent, 2),
                "target_temperature": self._target,
                "latest_temperature": round(liquid_celsius, 2),
            },
        )

    def _look_for_stirring(self) -> None:
        missed = self._unit.peers.settings("stirring") is None
        if missed and not self._stirring_is_missed:
            self._log.warning(
                "stirring is off: without it the liquid is not evenly warm, and the temperature "
                "that is inferred is not that of all of it"
            )
        self._stirring_is_missed = missed


def _target(unit: Unit, options: Options) -> float:
    target = options["target_temperature"]
    assert isinstance(target, int | float)  # its option is a number
    _check_target(target, unit.limits.max_temp_to_reduce_heating)
    return float(target)


def _check_target(celsius: float, highest: float) -> None:
    if not 0 <= celsius <= highest:
        raise BadRequest(
            f"target_temperature must be {range_text(0, highest, '℃')} on this reactor, "
            f"got {celsius:g}"
        )
