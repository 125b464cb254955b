"""Where this Raspberry Pi's kernel keeps the pins of the 40-pin header.

Numbers of ``pwmchip`` and ``gpiochip`` change with the model, the kernel and
the order of probing, so both are told by the device that stands behind them.
Shared by the Linux board and ``piod safe-outputs``: few imports.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

SYSFS_PWM = "/sys/class/pwm"

_HARDWARE_CHANNELS = {
    # The address of the PWM block that reaches the header, which ends its device name:
    # BCM2835 to BCM2711 (Pi Zero to 4), and RP1 (Pi 5), whose other block drives the fan.
    "20c000.pwm": {12: 0, 13: 1, 18: 0, 19: 1},
    "98000.pwm": {12: 0, 13: 1, 18: 2, 19: 3},
}
_STANDS_IN_FOR = {18: 12, 19: 13}
_CHIP_LABELS = ("pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835")
_GET_CHIPINFO = 0x8044B401  # <linux/gpio.h>: struct gpiochip_info {name[32], label[32], lines}


def kernel_pwm(pins: Collection[int], sysfs_root: str = SYSFS_PWM) -> dict[int, tuple[str, int]]:
    """The PWM of the kernel for each of ``pins`` that has one: (chip directory, channel).

    A ``pwm-gpio`` chip (one per overlay, also the PIO one of a Pi 5) names its
    pin in the device tree. A hardware channel can come out on two pins of which
    the overlay chooses one: GPIO 18 and 19 are taken for it only where 12 and 13
    are not wired, so that one channel never stands for two outputs.
    """
    found: dict[int, tuple[str, int]] = {}
    hardware: dict[int, tuple[str, int]] = {}
    for name in sorted(_names(sysfs_root)):
        if not name.startswith("pwmchip"):
            continue
        chip = os.path.join(sysfs_root, name)
        pin = _gpio_behind(chip)
        if pin is not None:
            found[pin] = (chip, 0)
            continue
        device = os.path.basename(os.path.realpath(os.path.join(chip, "device")))
        for ending, channels in _HARDWARE_CHANNELS.items():
            if device.endswith(ending):
                hardware.update({pin: (chip, channel) for pin, channel in channels.items()})
    for pin, place in hardware.items():
        if _STANDS_IN_FOR.get(pin) not in pins:
            found.setdefault(pin, place)
    return {pin: place for pin, place in found.items() if pin in pins}


def channel_directory(chip: str, channel: int) -> str:
    """The directory of an exported channel."""
    return os.path.join(chip, f"pwm{channel}")


def gpio_chip(dev: str = "/dev", label_of: Callable[[str], str] | None = None) -> str | None:
    """The character device of the header's GPIO lines; None: there is none."""
    for name in sorted(_names(dev)):
        if name.startswith("gpiochip"):
            path = os.path.join(dev, name)
            try:
                label = (label_of or _chip_label)(path)
            except OSError:
                continue  # no permission, or just unplugged: not a chip for us
            if label in _CHIP_LABELS:
                return path
    return None


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []  # no such class on this machine


def _gpio_behind(chip: str) -> int | None:
    """The pin of a chip that makes PWM on a GPIO: the second cell of ``<&gpio pin flags>``."""
    try:
        with open(os.path.join(chip, "device", "of_node", "gpios"), "rb") as cells:
            value = cells.read()
    except OSError:
        return None
    return int.from_bytes(value[4:8], "big") if len(value) >= 8 else None


def _chip_label(path: str) -> str:
    info = bytearray(68)
    device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _GET_CHIPINFO, info, True)
    finally:
        os.close(device)
    return bytes(info[32:64]).rstrip(b"\0").decode("ascii", "replace")
