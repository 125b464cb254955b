"""temperature_automation: the family of automations that know, and lead, the temperature.

The sensor sits on the heater's board. So in each cycle the heater is paused, the board is
read while it cools, the liquid's temperature is inferred (:mod:`.temperature.inference`),
and the automation decides what the heater does until the next pause. The heater is behind
the interlock of its bus, which turns it off whatever an automation thinks.

Nothing here remembers a duty cycle: after a sleep, a crash, a trip of the interlock or a
cycle whose inference failed, the heater is off until a new inference has been judged.

An automation is one class::

    class NightCooling(TemperatureAutomation):
        automation_name = "night_cooling"

        async def decide(self, liquid_celsius: float, duty_percent: float) -> None:
            await self.heat(duty_percent / 2)
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping

from piod.clock import timestamp
from piod.errors import BadRequest, BusError
from piod.events import JsonValue
from piod.jobs.automation import Automation
from piod.jobs.instruments import Heater, HeaterTripped
from piod.jobs.job import Options, Setting, Unit
from piod.jobs.temperature.board import BoardExcess
from piod.jobs.temperature.inference import InferenceFailed, inference_for

FIRST_PAUSE_S = 95.0
"""From the start, or waking, to the first pause of the heater."""
READS = 6
READ_EVERY_S = 0.05
"""One sample of the board is the mean of so many readings."""
REST_S = 10.0
REST_K = 0.05
"""A board that cools by less than this in REST_S is as warm as the liquid, to half a kelvin."""
OK = "ok"
"""What the setting ``interlock`` is while it lets the heater be driven."""


class TemperatureAutomation(Automation):
    """Base of all temperature automations. Subclasses decide after each inference."""

    job_name = "temperature_automation"
    stop_first = 20
    resumable = True

    def __init__(self, unit: Unit, heater: Heater, *, skip_first_run: bool) -> None:
        super().__init__(unit.publish)
        self._unit = unit
        self._clock = unit.clock
        self._log = unit.log
        self._heater = heater
        key = unit.limits.key
        self.inference = inference_for(*key) if key is not None else inference_for("", "")
        self._excess = BoardExcess()
        self._skip_first_run = skip_first_run
        self._asleep = False
        self._reset = asyncio.Event()
        self._told_trip: str | None = None
        heater.on_change(self._heater_changed)

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> TemperatureAutomation:
        return cls(
            unit,
            await unit.lease_heater(),
            skip_first_run=options.get("skip_first_run") is True,
        )

    @classmethod
    def all_settings(cls) -> tuple[Setting, ...]:
        return (
            Setting("temperature", "Temperature", unit="℃"),
            Setting("heater_duty_cycle", "float", unit="%"),
            Setting("interlock", "string"),
            Setting("reset_interlock", "boolean", settable=True),
            *super().all_settings(),
        )

    @property
    def pause_s(self) -> float:
        """How long the heater is paused for one inference."""
        return self.inference.sample_count * (READS * READ_EVERY_S + self.inference.pause_s)

    @property
    def target_celsius(self) -> float | None:
        """What the automation wants the liquid to be at, if it does."""
        return None

    @abstractmethod
    async def decide(self, liquid_celsius: float, duty_percent: float) -> None:
        """What follows from an inference. The heater is off; it was at ``duty_percent``."""

    def forget(self) -> None:
        """The liquid was not looked after for a while: what was learned may be wrong."""

    async def heat(self, duty_percent: float) -> float:
        """Drive the heater until the next pause; the duty cycle that it has got."""
        got = await self._heater.set_duty(round(min(max(duty_percent, 0.0), 100.0), 2))
        self._excess.driven(got, self._clock.monotonic())
        return got

    # -- the life of the job ----------------------------------------------------------

    async def start(self) -> None:
        await super().start()
        self._publish_setting("reset_interlock", False)
        self._publish_setting("heater_duty_cycle", 0.0)
        self._told_trip = self._heater.trip
        self._publish_setting("interlock", self._told_trip or OK)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reset_when_told())
            group.create_task(self._cycles())

    async def sleep(self) -> None:
        self._asleep = True
        await self.heat(0.0)

    async def wake(self) -> None:
        self._asleep = False
        self.forget()

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        if changes.get("reset_interlock") and self._asleep:
            raise BadRequest(
                "the interlock cannot be reset while temperature_automation sleeps",
                remediation="Set $state to ready first.",
            )

    def change(self, setting: str, value: JsonValue) -> None:
        if setting != "reset_interlock":
            super().change(setting, value)
        elif value:
            self._reset.set()

    async def _reset_when_told(self) -> None:
        while True:
            await self._reset.wait()
            self._reset.clear()
            await self._heater.reset()

    def _heater_changed(self) -> None:
        self._excess.driven(self._heater.duty_percent, self._clock.monotonic())
        self._publish_setting("heater_duty_cycle", self._heater.duty_percent)
        if self._heater.trip != self._told_trip:
            self._told_trip = self._heater.trip
            self._publish_setting("interlock", self._told_trip or OK)

    # -- its cycles -------------------------------------------------------------------

    async def _cycles(self) -> None:
        due_s = self._clock.monotonic() + FIRST_PAUSE_S
        if not self._skip_first_run:
            await self._attempt(self._look_at_once)
        while True:
            await self._clock.sleep(due_s - self._clock.monotonic())
            due_s += self.inference.cycle_s
            await self._attempt(self._infer)

    async def _attempt(self, look: Callable[[float], Awaitable[float | None]]) -> None:
        """One look at the liquid and what follows; off and without consequence if it fails."""
        duty_percent = self._heater.duty_percent
        try:
            await self.heat(0.0)
            celsius = await look(duty_percent)
            if celsius is None:
                return
            self._publish_temperature(celsius)
            await self.decide(celsius, duty_percent)
        except HeaterTripped as refusal:
            self._tell_error(refusal.message)
        except (BusError, InferenceFailed) as refusal:
            self.forget()
            self._log.error("the temperature is not known, the heater stays off: %s", refusal)
            self._tell_error(refusal.message)

    async def _look_at_once(self, duty_percent: float) -> float | None:
        """The liquid, °C, by a board at rest; None: it is not at rest."""
        before = await self._sample()
        await self._clock.sleep(REST_S)
        celsius = await self._sample()
        return celsius if celsius > before - REST_K else None

    async def _infer(self, duty_percent: float) -> float:
        """The liquid, °C, at the end of a pause of the heater."""
        samples = []
        for _ in range(self.inference.sample_count):
            samples.append(await self._sample())
            sampled_s = self._clock.monotonic()
            await self._clock.sleep(self.inference.pause_s)
        celsius = self.inference.liquid_celsius(samples, duty_percent)
        return self._excess.bounded(celsius, samples[-1], sampled_s)

    async def _sample(self) -> float:
        total = 0.0
        for _ in range(READS):
            total += await self._heater.board_celsius()
            await self._clock.sleep(READ_EVERY_S)
        return total / READS

    def _publish_temperature(self, celsius: float) -> None:
        at = self._clock.time()
        self._publish_setting(
            "temperature", {"temperature": round(celsius, 2), "timestamp": timestamp(at)}
        )
        self._unit.record("temperature", round(celsius, 2), at=at)

    def _tell_error(self, message: str) -> None:
        self.tell("ErrorOccurred", message)
