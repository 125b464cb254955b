"""led_intensity: LEDs at levels that a person chose.

The job lives while any LED that it set is on, and running it again changes its levels
rather than being refused. It leases each channel when it is first named, and gives it back,
dark, when it is set to 0. When the last one is, the job ends. Stopping it turns them off.

Source: handbook jobs-and-hardware.md §2.8.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from piod.errors import BadRequest, BusError, PiodError
from piod.events import JsonValue
from piod.jobs.job import Job, Option, Options, OptionValue, Publish, Setting, Unit
from piod.jobs.led_automation import Lights

CHANNELS = "ABCD"


class LedIntensity(Job):
    """See the module."""

    job_name = "led_intensity"
    help = "Set the intensity of LEDs."
    options = (
        *(
            Option(
                channel.lower(),
                "float range",
                f"intensity of LED {channel}, %",
                minimum=0,
                maximum=100,
                flag=channel,
            )
            for channel in CHANNELS
        ),
        Option("source_of_event", "text", "who asks for it, for the history"),
        Option("no_log", "boolean", "leave it out of the history"),
    )
    settings = tuple(
        Setting(channel, "float", settable=True, unit="%", minimum=0, maximum=100, kept=True)
        for channel in CHANNELS
    )

    def __init__(
        self,
        *,
        unit: Unit,
        publish: Publish,
        levels: Mapping[str, float],
        source: str,
        recorded: bool,
    ) -> None:
        self._unit = unit
        self._publish = publish
        self._asked = dict(levels)
        """Percent by channel, not yet taken over."""
        self._levels: dict[str, float] = {}
        """What was taken over, of the leased channels."""
        self._lights: dict[str, Lights] = {}
        self._source = source
        self._recorded = recorded
        self._asleep = False
        self._failure: BusError | None = None
        self._was_changed = asyncio.Event()

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> LedIntensity:
        source = options.get("source_of_event")
        return cls(
            unit=unit,
            publish=unit.publish,
            levels=_levels(options),
            source=str(source) if source else "CLI",
            recorded=not options.get("no_log"),
        )

    @classmethod
    def parse_options(cls, given: Mapping[str, object]) -> dict[str, OptionValue]:
        parsed = super().parse_options(given)
        if not _levels(parsed):
            raise BadRequest(
                f"led_intensity needs at least one of the options {', '.join(CHANNELS)}"
            )
        return parsed

    @classmethod
    def update(cls, options: Options) -> Mapping[str, JsonValue] | None:
        return dict(_levels(options))

    async def start(self) -> None:
        await self._take_over()

    async def run(self) -> None:
        while any(self._levels.values()):
            await self._was_changed.wait()
            self._was_changed.clear()
            if self._failure is not None:
                raise self._failure

    async def sleep(self) -> None:
        self._asleep = True
        if self._asked:
            await self._take_over()  # it was restarted asleep
        for lights in self._lights.values():
            await lights.show(0.0, recorded=self._recorded)

    async def wake(self) -> None:
        self._asleep = False
        for channel, lights in self._lights.items():
            await lights.show(self._levels[channel], recorded=self._recorded)

    def change(self, setting: str, value: JsonValue) -> None:
        if setting not in tuple(CHANNELS) or not isinstance(value, int | float):
            super().change(setting, value)
            return
        self._asked[setting] = float(value)

    async def changed(self) -> None:
        try:
            await self._take_over()
        except BusError as error:
            self._failure = error  # nobody knows what shines: the job ends, and it is dark
            raise
        finally:
            self._was_changed.set()

    async def _take_over(self) -> None:
        """Lease what was asked for, all or none, and let it shine."""
        asked, self._asked = self._asked, {}
        leased: dict[str, Lights] = {}
        try:
            for channel in asked:
                if channel not in self._lights:
                    leds = await self._unit.lease_leds(channel)
                    leased[channel] = Lights(self._unit, leds, self._source)
        except PiodError:
            for lights in leased.values():
                await lights.release()
            raise
        self._lights.update(leased)
        for channel, percent in asked.items():
            if not self._asleep:
                await self._lights[channel].show(percent, recorded=self._recorded)
            self._levels[channel] = percent
            self._publish(channel, percent)
            if percent == 0:
                await self._lights.pop(channel).release()


def _levels(options: Options) -> dict[str, float]:
    given = {channel: options.get(channel.lower()) for channel in CHANNELS}
    return {
        channel: float(percent)
        for channel, percent in given.items()
        if isinstance(percent, int | float)
    }
