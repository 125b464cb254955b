"""One PWM channel of the kernel, driven through its files in sysfs.

The files and their rules are those of the kernel's
``Documentation/driver-api/pwm.rst``: a channel appears when its number is
written to ``export``; times are nanoseconds; a duty longer than the period is
refused, also on the way from one pair to another.
"""

from __future__ import annotations

import os

from piod.hw import off
from piod.hw.header import channel_directory

NS_PER_S = 1_000_000_000


class SysfsPwm:
    """Channel ``channel`` of the PWM chip whose sysfs directory is ``chip``.

    Every method may raise OSError.
    """

    def __init__(self, chip: str, channel: int) -> None:
        self._chip = chip
        self._channel = channel
        self._directory = channel_directory(chip, channel)
        self.recipe = off.pwm_recipe(self._directory)

    def __str__(self) -> str:
        return self._directory

    def claim(self) -> bool:
        """Export the channel and stop it; False when udev is not yet done with its files.

        Never waits: to be repeated until it returns True.
        """
        if not os.path.isdir(self._directory):
            try:
                off.write_attribute(os.path.join(self._chip, "export"), str(self._channel))
            except PermissionError:
                return False
            except OSError:
                # EBUSY: exported meanwhile by somebody else, which is as good
                if not os.path.isdir(self._directory):
                    raise
        names = ("period", "duty_cycle", "enable")
        if not all(os.access(os.path.join(self._directory, name), os.W_OK) for name in names):
            return False
        self.off()
        return True

    def drive(self, duty_percent: float, hz: float) -> None:
        """Make pulses; 100 % is a level, without any gap."""
        period_ns = int(NS_PER_S / hz)
        duty_ns = int(period_ns * duty_percent / 100)
        period_before_ns = self._read_period()
        if period_before_ns != period_ns:
            if period_before_ns != 0:  # a new channel has none, and refuses any duty
                self._set("duty_cycle", 0)
            self._set("period", period_ns)
        self._set("duty_cycle", duty_ns)
        self._set("enable", 1)

    def off(self) -> None:
        """No pulses: the pin is low."""
        off.turn_off(self.recipe)

    def release(self) -> None:
        """Stays exported: without its files nobody else could turn it off."""

    def _read_period(self) -> int | None:
        try:
            with open(os.path.join(self._directory, "period")) as attribute:
                return int(attribute.read())
        except (OSError, ValueError):
            return None  # write it, then

    def _set(self, name: str, value: int) -> None:
        off.write_attribute(os.path.join(self._directory, name), str(value))
