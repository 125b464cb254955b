"""What the chips of the simulated unit measure and drive: the plant, and the LEDs' silicon."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from piod.clock import SimulatedClock

from .chips import AnalogInput
from .optics import ANGLES, CHANNELS
from .plant import Plant
from .plant_file import PlantFile
from .pwm import OutputGuard
from .silicon import SiliconFile

HUMLESS = "ADS1114"
"""It sits beside its photodiode: no hum of the mains comes in on the way."""

AUX = "aux"

USUAL_ANGLES: Mapping[str, str] = MappingProxyType({"pd1": "REF", "pd2": "90"})
"""By signal of the wiring, as upstream ships ``[od_config.photodiode_channel]``."""


class PlantSurroundings:
    """The plant as the chips see it.

    ``angles``: of the photodiode on each signal of the wiring (``pd1``: ``"REF"``,
    ``pd2``: ``"90"``); at a signal without one there is no photodiode. A level of
    an LED is in ``silicon`` before it is in the plant; to ``guard`` it is
    ``led:<channel>``, watched until the silicon's file shows it off.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        plant: Plant,
        angles: Mapping[str, str],
        silicon: SiliconFile | None,
        plant_file: PlantFile | None,
        guard: OutputGuard | None,
    ) -> None:
        self._clock = clock
        self._plant = plant
        self._angles = angles
        self._silicon = silicon
        self._plant_file = plant_file
        self._guard = guard
        self._off_unwritten = set(CHANNELS)
        """Channels that are off while the silicon's file may still show them on."""
        plant.set_leds({}, clock.monotonic())  # making it is its power-on
        if silicon is not None:
            told_before = silicon.written

            def written() -> None:
                told_before()
                self._tell_guard_what_is_off()

            silicon.written = written
        if silicon is None or silicon.is_written:
            self._tell_guard_what_is_off()

    def analog_input(self, signal: str, kind: str) -> AnalogInput:
        plant = self._plant
        if signal == AUX:
            return plant.aux_volts
        if not signal.startswith("pd"):
            return lambda now_s: 0.0
        angle, hum = self._angles.get(signal), kind != HUMLESS
        return lambda now_s: plant.photodiode_volts(angle, now_s, hum=hum)

    def pcb_celsius(self, now_s: float) -> float:
        return self._plant.pcb_sensor_celsius(now_s)

    def set_led(self, channel: str, percent: float, now_s: float) -> None:
        if channel not in CHANNELS:
            raise ValueError(f"there is no LED channel {channel!r}")
        if percent > 0:
            self._off_unwritten.discard(channel)
            if self._guard is not None:
                self._guard.on(f"led:{channel}", None)
        try:
            if self._silicon is not None:
                self._silicon.hold("led", channel, percent)
            self._plant.set_led(channel, percent, now_s)
        finally:
            if self._plant.optics.levels[channel] == 0:
                self._tell_guard_off(channel)
        if self._plant_file is not None:
            self._plant_file.changed()

    def _tell_guard_off(self, channel: str) -> None:
        """Once the silicon's file shows it; until then the guard has to watch it."""
        self._off_unwritten.add(channel)
        if self._silicon is None or self._silicon.is_written:
            self._tell_guard_what_is_off()

    def _tell_guard_what_is_off(self) -> None:
        for channel in self._off_unwritten:
            if self._guard is not None:
                self._guard.off(f"led:{channel}")
        self._off_unwritten.clear()


def photodiode_angles(channels: Mapping[str, str]) -> dict[str, str]:
    """By signal of the wiring: the angle that ``[od_config.photodiode_channel]`` gives.

    Channels that are empty, or say something that no photodiode can be at, have
    none: jobs refuse such a configuration, the hardware does not care.
    """
    return {f"pd{channel}": angle for channel, angle in channels.items() if angle in ANGLES}
