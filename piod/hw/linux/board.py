"""The real board: the buses of one Raspberry Pi, made together."""

from __future__ import annotations

from collections.abc import Sequence

from piod.hw.linux.gpio import LineSpec, LinuxGpio
from piod.hw.linux.i2c import LinuxI2c
from piod.hw.linux.pwm import LinuxPwm, OutputGuard


class LinuxBoard:
    """The ports of a Raspberry Pi with the given wiring; nothing is touched before their open.

    ``pwm_pins`` and ``lines`` must not overlap. ``guard`` is told of all PWM outputs.
    """

    def __init__(
        self, *, pwm_pins: Sequence[int], lines: Sequence[LineSpec], guard: OutputGuard | None
    ) -> None:
        self.pwm = LinuxPwm(pwm_pins, guard)
        self.gpio = LinuxGpio(lines)
        self.i2c = LinuxI2c()
