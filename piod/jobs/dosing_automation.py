"""dosing_automation: the family of automations that pump liquid by themselves.

An automation is one class: its settings, and what it does each ``duration`` minutes::

    class Feast(DosingAutomation):
        automation_name = "feast"
        pumps = ("media", "waste")
        settings = (Setting("portion_ml", "float", settable=True, unit="mL", minimum=0),)

        async def execute(self) -> None:
            moved = await self.exchange(
                media_ml=self.number("portion_ml"), waste_ml=self.number("portion_ml")
            )
            self.tell("DilutionEvent", f"fed {moved.media_ml:.2f} mL")

Each settable setting is an option too, and is published and changed by the base. How much is
in the vial is known by the one ledger of volumes (:mod:`.liquids`): the automation shows what
that says, and what is set here is set there.

The pumps are leased for each dose, in the automation's life: they stop when it sleeps, is
stopped, or crashes. A dose that the ledger refuses, as the vial would be too full, puts the
automation to sleep, with the reason in ``latest_event``. It is never started again by itself.
A reading that is missing only makes it wait: it says so, and goes on when there is one.

Source: handbook jobs-and-hardware.md §2.6.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import asdict
from typing import ClassVar

from piod.errors import (
    BadRequest,
    Conflict,
    LeaseTaken,
    StorageFailed,
    StorageFull,
    Unavailable,
    VolumeInDoubt,
)
from piod.events import JsonValue, ReadingTaken, VolumesChanged
from piod.jobs.automation import Automation, wait_for
from piod.jobs.dosing.exchange import Exchanged, ExchangeSettings, exchange
from piod.jobs.dosing.signals import NoSignal, Signals
from piod.jobs.job import FallAsleep, Option, Options, OptionValue, Setting, Unit
from piod.jobs.liquids import PumpRole, Volumes
from piod.jobs.pump_rate import NotCalibrated
from piod.jobs.pumping import open_pump
from piod.restarts import NEVER

SECTION = "dosing_automation.config"
FIRST_RUN_S = 2.0
IN_USE_S, IN_USE_PAUSE_S = 60.0, 0.5
"""So long a dose waits for a pump that somebody else uses."""
DEFAULT_DURATION_MIN = 60.0
MAX_MINUTES = 525_600
"""A year."""
MAX_ML = 100.0
"""Of a volume that is exchanged at once: more than any vial holds."""

VOLUME_OPTIONS = {
    "alt_media_fraction": "alt_media_fraction",
    "current_volume_ml": "current_volume_ml",
    "max_working_volume_ml": "efflux_tube_volume_ml",
}
"""Options and settings that are the ledger's, and what they are called there."""

SHOWN = {
    **VOLUME_OPTIONS,
    "media_throughput": "cumulative_media_added_ml",
    "alt_media_throughput": "cumulative_alt_media_added_ml",
}
"""Settings that show what the ledger says, and what they are called there."""

DURATION = Setting(
    "duration", "float", settable=True, unit="min", minimum=0.01, maximum=MAX_MINUTES
)
VOLUMES = (
    Setting("alt_media_fraction", "float", settable=True, minimum=0, maximum=1),
    Setting("current_volume_ml", "float", settable=True, unit="mL", persist=True, minimum=0),
    Setting("max_working_volume_ml", "float", settable=True, unit="mL", persist=True, minimum=0),
    Setting("media_throughput", "float", unit="mL", persist=True),
    Setting("alt_media_throughput", "float", unit="mL", persist=True),
)


class DosingAutomation(Automation):
    """Base of all dosing automations; see the module."""

    job_name = "dosing_automation"
    stop_first = 30
    restart_policy = NEVER
    pumps: ClassVar[Sequence[PumpRole]] = ()
    """The pumps that it uses: their calibrations must be active."""
    defaults: ClassVar[Mapping[str, OptionValue]] = {}
    """What its settings are where a run says nothing of them."""
    periodic: ClassVar[bool] = True
    """Whether :meth:`execute` is called each ``duration``; see :meth:`repeat` else."""

    def __init__(self, unit: Unit, options: Options) -> None:
        super().__init__(unit.publish)
        self.unit = unit
        self.clock = unit.clock
        self.signals = Signals(unit)
        self._log = unit.log
        given = {**self.defaults, **options}
        self._own = {setting.name: given.get(setting.name) for setting in self._settable()}
        self._duration_min = _number(options.get("duration", DEFAULT_DURATION_MIN))
        self._skip_first_run = options.get("skip_first_run") is True
        self._last_run_s: float | None = None
        self._rescheduled = asyncio.Event()
        self._to_keep: dict[str, float] = {
            name: _number(options[name]) for name in VOLUME_OPTIONS if name in options
        }
        self._to_apply: dict[str, JsonValue] = {}
        self._doses: set[asyncio.Future[float]] = set()
        self._mute: str | None = None
        """The missing signal that was told of."""
        self._source = f"{self.job_name}:{self.automation_name}"
        config = unit.config
        self._exchange_settings = ExchangeSettings(
            max_fill_ml=unit.limits.reactor_max_fill_volume_ml,
            max_subdose_ml=max(0.05, config.number(SECTION, "max_subdose", 1.0)),
            pause_s=max(0.0, config.number(SECTION, "pause_between_subdoses_seconds", 5.0)),
            waste_multiplier=max(0.0, config.number(SECTION, "waste_removal_multiplier", 2.0)),
        )

    # -- what a subclass uses ---------------------------------------------------------

    @abstractmethod
    async def execute(self) -> None:
        """Do once what the automation is for. NoSignal: it waits for a reading."""

    def number(self, setting: str) -> float:
        """The present value of one of its settings."""
        return _number(self._own[setting])

    def text(self, setting: str) -> str:
        """The present value of one of its settings."""
        return str(self._own[setting])

    async def exchange(
        self, *, media_ml: float = 0.0, alt_media_ml: float = 0.0, waste_ml: float
    ) -> Exchanged:
        """Fresh in, old out; see :func:`piod.jobs.dosing.exchange.exchange`."""
        planned: dict[str, JsonValue] = {
            "media_ml": media_ml,
            "alt_media_ml": alt_media_ml,
            "waste_ml": waste_ml,
        }
        self.tell("DosingStarted", "an exchange has begun", planned)
        moved = Exchanged()

        def note(so_far: Exchanged) -> None:
            nonlocal moved
            moved = so_far

        try:
            return await exchange(
                self,
                self.clock,
                self._exchange_settings,
                media_ml=media_ml,
                alt_media_ml=alt_media_ml,
                waste_ml=waste_ml,
                moved=note,
            )
        finally:
            self.tell("DosingStopped", "an exchange is over", _volumes_of(moved))

    async def dose(self, role: PumpRole, volume_ml: float) -> float:
        """Pump; the volume that was moved, mL. Waits a little for a pump that is in use.

        Several may be under way at once. What :meth:`execute` leaves behind is ended with it.
        """
        dose = asyncio.ensure_future(self._dose(role, volume_ml))
        self._doses.add(dose)
        dose.add_done_callback(self._doses.discard)
        return await dose

    async def _dose(self, role: PumpRole, volume_ml: float) -> float:
        pump = await open_pump(self.unit, role)
        until_s = self.clock.monotonic() + IN_USE_S
        while True:
            try:
                return await pump.dose(volume_ml, source=self._source)
            except LeaseTaken:
                if self.clock.monotonic() >= until_s:
                    raise
                await self.clock.sleep(IN_USE_PAUSE_S)

    async def volumes(self) -> Volumes:
        """What is in the vial now."""
        return await self.unit.liquids.volumes()

    @property
    def duration_min(self) -> float:
        """Minutes from one run to the next."""
        return self._duration_min

    # -- the life of the job ----------------------------------------------------------

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> DosingAutomation:
        await cls.refuse(unit, options)
        return cls(unit, options)

    @classmethod
    async def refuse(cls, unit: Unit, options: Options) -> None:
        _check_volumes(unit, options, "option")
        doubt = (await unit.liquids.volumes()).doubt
        if doubt is not None and "current_volume_ml" in options:
            raise VolumeInDoubt(
                f"the option current_volume_ml does not end a doubt: {doubt}",
                remediation="Look at the vial, then set current_volume_ml with "
                "PATCH /unit_api/bioreactor/experiments/…",
            )
        for role in cls.pumps:
            pump = await open_pump(unit, role)
            if pump.rate.calibration_name is None:
                raise NotCalibrated(
                    f"{cls.automation_name} needs an active calibration of {role}_pump",
                    remediation=f"Calibrate {role}_pump, or make one of its calibrations active.",
                )

    @classmethod
    def all_options(cls) -> Sequence[Option]:
        base = (
            Option("duration", "float", "minutes", minimum=0.01, maximum=MAX_MINUTES),
            Option("alt_media_fraction", "float", minimum=0, maximum=1),
            Option("current_volume_ml", "float", "mL", minimum=0),
            Option("max_working_volume_ml", "float", "mL", minimum=0),
        )
        own = super().all_options()
        named = {option.name for option in own}
        return (*own, *(option for option in base if option.name not in named))

    @classmethod
    def all_settings(cls) -> tuple[Setting, ...]:
        return (*((DURATION,) if cls.periodic else ()), *VOLUMES, *super().all_settings())

    @classmethod
    def _settable(cls) -> Sequence[Setting]:
        return [setting for setting in cls.settings if setting.settable]

    async def start(self) -> None:
        await super().start()
        if self._to_keep:
            await self.changed()
        for name, value in self._own.items():
            self._publish_setting(name, value)
        if self.periodic:
            self._publish_setting("duration", self._duration_min)
        self._show_volumes(asdict(await self.volumes()))

    async def run(self) -> None:
        await together(self._follow_events(), self.repeat())

    async def repeat(self) -> None:
        """Call :meth:`execute` each ``duration``, for ever."""
        if self._last_run_s is None and self._skip_first_run:
            self._last_run_s = self.clock.monotonic()
        while True:
            self._rescheduled.clear()
            now_s = self.clock.monotonic()
            wait_s = FIRST_RUN_S
            if self._last_run_s is not None:
                wait_s = max(0.0, self._last_run_s + 60 * self._duration_min - now_s)
            if wait_s > 0 and await wait_for(self._rescheduled, self.clock, wait_s):
                continue
            before_s, self._last_run_s = self._last_run_s, self.clock.monotonic()
            if not await self.attempt():
                self._last_run_s = before_s
                await self.signals.news()

    async def attempt(self) -> bool:
        """One :meth:`execute`, and what follows when it cannot be done.

        False: a reading is missing, and nothing was done.
        """
        try:
            await self.execute()
            self._mute = None
        except NoSignal as missing:
            self.wait_for_signal(missing)
            return False
        except (LeaseTaken, StorageFull, StorageFailed, Unavailable) as fault:
            self.tell("ErrorOccurred", fault.message)
            self._log.error("%s: not dosed; the next time is tried", fault.message)
        except (Conflict, BadRequest) as refusal:
            self.tell("ErrorOccurred", refusal.message)
            raise FallAsleep(refusal.message) from refusal
        finally:
            await self._end_doses()
        return True

    async def _end_doses(self) -> None:
        """No pump is on any more that :meth:`execute` did not wait for."""
        while doses := tuple(self._doses):
            for dose in doses:
                dose.cancel()
            await asyncio.wait(doses)

    def wait_for_signal(self, missing: NoSignal) -> None:
        """Say once that there is nothing to go by."""
        if self._mute is None:
            self._log.warning("%s: nothing is dosed until there is one", missing.message)
        if self._mute != missing.message.partition(":")[0]:
            self.tell("NoEvent", missing.message)
        self._mute = missing.message.partition(":")[0]

    # -- settings -----------------------------------------------------------------

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        _check_volumes(self.unit, changes, "setting")

    def change(self, setting: str, value: JsonValue) -> None:
        if setting in VOLUME_OPTIONS:
            self._to_keep[setting] = _number(value)
        elif setting == "duration" or setting in self._own:
            self._to_apply[setting] = value
        else:
            super().change(setting, value)

    async def changed(self) -> None:
        """All or none: what the ledger refuses keeps the other changes out, too."""
        to_keep, self._to_keep = self._to_keep, {}
        to_apply, self._to_apply = self._to_apply, {}
        if to_keep:
            await self.unit.liquids.change(
                {VOLUME_OPTIONS[name]: value for name, value in to_keep.items()}
            )
        for setting, value in to_apply.items():
            self.apply(setting, value)

    def apply(self, setting: str, value: JsonValue) -> None:
        """Take a new value of one of its settings, or of ``duration``; publish it."""
        if setting == "duration":
            self._duration_min = _number(value)
            self._rescheduled.set()
        else:
            self._own[setting] = value  # type: ignore[assignment] # parsed as that setting
        self._publish_setting(setting, value)

    async def _follow_events(self) -> None:
        async for event in self.unit.events():
            if isinstance(event, ReadingTaken):
                self.signals.take(event)
            elif isinstance(event, VolumesChanged) and event.experiment == self.unit.experiment:
                self._show_volumes(event.values)

    def _show_volumes(self, values: Mapping[str, JsonValue]) -> None:
        for setting, variable in SHOWN.items():
            self._publish_setting(setting, values[variable])


async def together(*coroutines: Coroutine[None, None, None]) -> None:
    """Run them until one ends or fails, as that one does; then none runs any more."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()


def _check_volumes(unit: Unit, values: Mapping[str, object], what: str) -> None:
    capacity_ml = unit.limits.reactor_capacity_ml
    for name in ("current_volume_ml", "max_working_volume_ml"):
        value = values.get(name)
        if isinstance(value, int | float) and value > capacity_ml:
            raise BadRequest(
                f"{what} {name} must be 0 to {capacity_ml:g} mL, which the vial holds; "
                f"got {value:g}"
            )


def _number(value: object) -> float:
    assert isinstance(value, int | float), value  # its option or setting is a number
    return float(value)


def _volumes_of(moved: Exchanged) -> dict[str, JsonValue]:
    return {
        "media_ml": round(moved.media_ml, 4),
        "alt_media_ml": round(moved.alt_media_ml, 4),
        "waste_ml": round(moved.waste_ml, 4),
    }
