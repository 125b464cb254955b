"""The monitor: how the computer and the unit are, the button, and the blinking PCB LED.

It belongs to the daemon, which runs it from its start. At its start and every
``[monitor.config] self_check_interval_hours`` it looks at the network, the disk, the CPU's
temperature, the chips of the HAT, the photodiodes, the voltage of the PWM rail, the heating
PCB, and what health tells. What is wrong is logged, and blinked on the LED of the PCB: once
2 s on, then as many short blinks as its code:

====  ==========================  ====  ====================================
code  meaning                     code  meaning
====  ==========================  ====  ====================================
1     no network                  5     an input of an ADC is too high
3     the disk is almost full     6     the CPU or the heating PCB is too hot
4     the stirrer has stalled     7     voltage problem
====  ==========================  ====  ====================================

4, and 5 while OD is read, are blinked at once. A HAT or a heating PCB that is missing has
no code: it is logged, and the four double flashes that say "all is well" are left out. Of
upstream's codes there is no 8, web server offline: the server is the process that this
runs in, and systemd's watchdog ends it when it hangs.

It is no safety function: the heater's interlock is in its bus, and the watchdog is
systemd's. Source: handbook jobs-and-hardware §2.11.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from piod import __version__
from piod.clock import timestamp
from piod.config import Config
from piod.errors import BadRequest, PiodError
from piod.events import JsonValue, SettingPublished
from piod.host import HostReport
from piod.hw.ports import Sample
from piod.jobs.instruments import DigitalOutput
from piod.jobs.job import Job, Options, Setting, Unit
from piod.jobs.od.light import Glare, glare
from piod.restarts import FOR_EVER

FIRST_CHECK_S = 5.0
CHECK_EVERY_H = 12.0
STATISTICS_EVERY_S = 600.0
RETRY_S = 30.0
DEBOUNCE_S = 0.05

DISK_FULL_PERCENT = 80.0
CPU_HOT_CELSIUS = 80.0
RAIL_LOW_VOLTS = 4.80

RAIL_SIGNAL = "aux"
RAIL_DIVIDER = 0.134
"""Of the rail's voltage, what the ADC sees (handbook §1.4)."""
RAIL_STEP_VOLTS = 0.05
"""It is not known more exactly."""

NO_NETWORK, DISK_ALMOST_FULL, STIRRING_FAILED = 1, 3, 4
INPUT_TOO_HIGH, TOO_HOT, LOW_VOLTAGE = 5, 6, 7

TOO_BRIGHT = ("too much light", "end of its ADC's range", "ADC may be harmed")
"""How od_reading's ``problem`` tells of an input that is too high."""

Pattern = Sequence[tuple[bool, float]]
"""Levels of the LED and how long each lasts, seconds."""

ALL_IS_WELL: Pattern = 4 * ((True, 0.14), (False, 0.14), (True, 0.14), (False, 0.45))

Problem = tuple[int | None, str]
"""What is wrong: its code, if it has one, and in words."""

VERSIONS = ("app", "hat", "firmware", "hat_serial", "rpi_machine")


def blinks_of(code: int) -> Pattern:
    """How an error code is blinked (handbook §2.11)."""
    return ((True, 2.0), (False, 0.25), *(code * ((True, 0.25), (False, 0.25))), (False, 5.0))


class Monitor(Job):
    """Watches over the computer and the unit."""

    job_name = "monitor"
    help = "Watch over the computer and the unit; blink, and listen to the button."
    is_long_running = True
    starts_with_daemon = True
    restart_policy = FOR_EVER
    settings = (
        Setting("computer_statistics", "json"),
        Setting("button_down", "boolean"),
        Setting("versions", "json", settable=True),
        Setting("voltage_on_pwm_rail", "Voltage", unit="V"),
        Setting("ipv4", "string"),
        Setting("wlan_mac_address", "string"),
        Setting("eth_mac_address", "string"),
    )

    def __init__(self, unit: Unit) -> None:
        config = unit.config
        self._unit = unit
        self._clock = unit.clock
        self._log = unit.log
        self._button_enabled = _button_enabled(config)
        self._check_every_s = 3600 * config.number(
            "monitor.config", "self_check_interval_hours", CHECK_EVERY_H, minimum=0.01
        )
        self._versions: dict[str, JsonValue] = {"app": __version__}
        self._led: DigitalOutput | None = None
        self._blinking = asyncio.Lock()
        self._pressed = False

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Monitor:
        return cls(unit)

    async def start(self) -> None:
        self._publish_versions()
        self._unit.publish("button_down", False)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell_statistics())
            tasks.create_task(self._check_again_and_again())
            tasks.create_task(self._follow_jobs())
            if self._button_enabled:
                tasks.create_task(self._listen_to_button())

    # -- settings -----------------------------------------------------------------

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        if "versions" in changes:
            _known_versions(changes["versions"])

    def change(self, setting: str, value: JsonValue) -> None:
        if setting != "versions":
            super().change(setting, value)
        self._versions.update(_known_versions(value))
        self._publish_versions()

    def _publish_versions(self) -> None:
        now = timestamp(self._clock.time())
        self._unit.publish("versions", {**self._versions, "timestamp": now})

    # -- the computer -------------------------------------------------------------

    async def _tell_statistics(self) -> None:
        while True:
            self._publish_report(await self._unit.host.examine())
            await self._clock.sleep(STATISTICS_EVERY_S)

    def _publish_report(self, report: HostReport) -> None:
        publish = self._unit.publish
        publish(
            "computer_statistics",
            {
                "disk_usage_percent": report.disk_usage_percent,
                "cpu_temperature_celcius": report.cpu_celsius,  # spelled so by its readers
                "timestamp": timestamp(self._clock.time()),
            },
        )
        publish("ipv4", report.ipv4)
        publish("wlan_mac_address", report.wlan_mac_address)
        publish("eth_mac_address", report.eth_mac_address)
        if report.model is not None and report.model != self._versions.get("rpi_machine"):
            self._versions["rpi_machine"] = report.model
            self._publish_versions()

    async def _check_again_and_again(self) -> None:
        await self._clock.sleep(FIRST_CHECK_S)
        while True:
            problems = await self._check()
            codes = [code for code, _ in problems if code is not None]
            well = [] if problems else [ALL_IS_WELL]
            await self._blink(*map(blinks_of, dict.fromkeys(codes)), *well)
            await self._clock.sleep(self._check_every_s)

    async def _check(self) -> list[Problem]:
        """Look at everything; what is wrong."""
        report = await self._unit.host.examine()
        self._publish_report(report)
        problems = [*_of_computer(report)]
        try:
            adc = self._unit.adc
            looks = await adc.sample([(0.0, signal) for signal in adc.signals])
            samples = dict(zip(adc.signals, looks, strict=True))
        except PiodError as error:
            problems.append((None, f"the chips of the HAT do not answer: {error.message}"))
        else:
            problems += _of_photodiodes(samples)
            problems += _of_rail(report, self._rail_volts(samples))
        problems += await self._of_heating_pcb()
        for _, problem in problems:
            self._log.warning("%s", problem)
        for told in await self._unit.health():
            self._log.warning("health: %s", told)
        return problems

    async def _of_heating_pcb(self) -> list[Problem]:
        try:
            celsius = await self._unit.thermometer.read_celsius()
        except PiodError as error:
            return [(None, f"the heating PCB does not answer: {error.message}")]
        if celsius <= self._unit.limits.max_temp_to_disable_heating:
            return []
        return [(TOO_HOT, f"the heating PCB is at {celsius:g} °C")]

    def _rail_volts(self, samples: Mapping[str, Sample]) -> float | None:
        if RAIL_SIGNAL not in samples:
            return None
        rail_volts = samples[RAIL_SIGNAL].volts / RAIL_DIVIDER
        volts = round(rail_volts / RAIL_STEP_VOLTS) * RAIL_STEP_VOLTS
        now = timestamp(self._clock.time())
        self._unit.publish("voltage_on_pwm_rail", {"voltage": round(volts, 2), "timestamp": now})
        return volts

    # -- LED and button -----------------------------------------------------------

    async def _follow_jobs(self) -> None:
        async for event in self._unit.events():
            match event:
                case SettingPublished(job, "stalled", True) if job.job_name == "stirring":
                    await self._blink(blinks_of(STIRRING_FAILED))
                case SettingPublished(job, "problem", str(problem)) if (
                    job.job_name == "od_reading" and any(words in problem for words in TOO_BRIGHT)
                ):
                    await self._blink(blinks_of(INPUT_TOO_HIGH))

    async def _listen_to_button(self) -> None:
        button = self._unit.button
        while True:
            try:
                await button.await_level(not self._pressed)
            except PiodError as error:
                self._log.warning("the button cannot be read: %s", error.message)
                await self._clock.sleep(RETRY_S)
                continue
            self._pressed = not self._pressed
            self._unit.publish("button_down", self._pressed)
            await self._light(self._pressed)
            await self._clock.sleep(DEBOUNCE_S)

    async def _blink(self, *patterns: Pattern) -> None:
        """Blink one after the other; nothing while it blinks already, or the button is down."""
        if self._blinking.locked():
            return
        async with self._blinking:
            for level, seconds in (step for pattern in patterns for step in pattern):
                await self._light(level or self._pressed)
                await self._clock.sleep(seconds)

    async def _light(self, level: bool) -> None:
        """The LED on or off; one that cannot be driven is not worth more than a line."""
        try:
            if self._led is None:
                self._led = await self._unit.lease_pcb_led()
            await self._led.set_level(level)
        except PiodError as error:
            self._led = None
            self._log.debug("the LED of the PCB cannot be driven: %s", error.message)

    async def sleep(self) -> None:
        await self._light(False)


def _of_computer(report: HostReport) -> Iterator[Problem]:
    if report.ipv4 is None:
        yield NO_NETWORK, "the unit has no network address"
    if report.disk_usage_percent > DISK_FULL_PERCENT:
        yield DISK_ALMOST_FULL, f"{report.disk_usage_percent:g} % of the disk are in use"
    if report.cpu_celsius is not None and report.cpu_celsius > CPU_HOT_CELSIUS:
        yield TOO_HOT, f"the CPU is at {report.cpu_celsius:g} °C"


def _of_photodiodes(samples: Mapping[str, Sample]) -> Iterator[Problem]:
    for signal, sample in samples.items():
        is_photodiode = signal.startswith("pd")
        if is_photodiode and (sample.saturated or glare(sample.volts) is not Glare.NONE):
            yield (
                INPUT_TOO_HIGH,
                f"photodiode {signal[2:]} reads {sample.volts:.2f} V: keep light away from it",
            )


def _of_rail(report: HostReport, rail_volts: float | None) -> Iterator[Problem]:
    supply_is_weak = report.under_voltage is not False  # not every computer tells
    if rail_volts is not None and rail_volts <= RAIL_LOW_VOLTS and supply_is_weak:
        yield (
            LOW_VOLTAGE,
            f"the PWM rail has {rail_volts:.2f} V: use a stronger supply, or shorter cables",
        )


def _button_enabled(config: Config) -> bool:
    if config.text("monitor.config", "enable_button", "auto").lower() == "auto":
        return True
    return config.boolean("monitor.config", "enable_button", True)


def _known_versions(value: JsonValue) -> dict[str, JsonValue]:
    """Texts of known versions; others are left out, as upstream does it. BadRequest."""
    if not isinstance(value, dict):
        raise BadRequest('setting versions must be an object, such as {"firmware": "0.7"}')
    known = {name: version for name, version in value.items() if name in VERSIONS}
    for name, version in known.items():
        if not isinstance(version, str):
            raise BadRequest(f"setting versions: {name} must be text, got {version!r}")
    return known
