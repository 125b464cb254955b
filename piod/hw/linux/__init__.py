"""The hardware ports on a real Raspberry Pi.

The only place where calls block: each bus does them in a thread of its own.
"""

from piod.hw.linux.board import LinuxBoard
from piod.hw.linux.gpio import LineSpec, LinuxGpio
from piod.hw.linux.i2c import LinuxI2c
from piod.hw.linux.pwm import LinuxPwm

__all__ = ["LineSpec", "LinuxBoard", "LinuxGpio", "LinuxI2c", "LinuxPwm"]
