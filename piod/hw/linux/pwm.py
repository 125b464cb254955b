"""The PWM outputs of a Raspberry Pi (PwmPort).

Each pin is driven by the best there is: a PWM channel of the kernel, else
lgpio, else a timed thread (with a warning that names the overlay to enable).
All of it happens in one bus thread, which also keeps the off-times, whatever
the event loop does; the guard is told of each output before it is turned on
and after it was turned off.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from piod.errors import BusError, DeviceMissing
from piod.hw.header import SYSFS_PWM, gpio_chip, kernel_pwm
from piod.hw.linux.bus_thread import BusThread
from piod.hw.linux.gpio import LineSpec, OpenLine, open_periphery_line
from piod.hw.linux.refusals import bus_error
from piod.hw.linux.software_pwm import LgpioPwm, TimedPwm, load_lgpio
from piod.hw.linux.sysfs_pwm import SysfsPwm

log = logging.getLogger(__name__)

MIN_HZ = 0.1
MAX_HZ = 10_000.0
EXPORT_TIMEOUT_S = 10.0
"""How long udev may take to hand over the files of an exported channel."""

POLL_S = 0.05
RETRY_S = 0.05
"""Pause between attempts to turn an output off that the hardware refused."""

CLOSE_TRIES = 10


class OutputGuard(Protocol):
    """What is used of :class:`piod.hw.guard.GuardLink`."""

    def register(self, output: str, recipe: str) -> None: ...
    def on(self, output: str, deadline_monotonic_s: float | None = None) -> None: ...
    def off(self, output: str) -> None: ...


class Driver(Protocol):
    """One way to make PWM on one pin, used within the bus thread. May raise OSError."""

    recipe: str

    def claim(self) -> bool: ...
    def drive(self, duty_percent: float, hz: float) -> None: ...
    def off(self) -> None: ...
    def release(self) -> None: ...


def output_key(pin: int) -> str:
    """What the guard calls the PWM output on ``pin``."""
    return f"pwm:{pin}"


class LinuxPwm:
    """PWM on ``pins`` (GPIO numbers); see :class:`piod.hw.ports.PwmPort`.

    ``guard``: None where nothing is to be guarded (tools, tests). ``chip``: the
    character device of the header's GPIO lines, found by its label if None.
    """

    def __init__(
        self,
        pins: Sequence[int],
        guard: OutputGuard | None,
        sysfs_root: Path = Path(SYSFS_PWM),
        *,
        chip: str | None = None,
        open_line: OpenLine = open_periphery_line,
        export_timeout_s: float = EXPORT_TIMEOUT_S,
    ) -> None:
        self._pins = tuple(pins)
        self._guard = guard
        self._sysfs_root = sysfs_root
        self._chip = chip
        self._open_line = open_line
        self._export_timeout_s = export_timeout_s
        self._outputs: _Outputs | None = None
        self._closing: _Outputs | None = None

    @property
    def pins(self) -> Sequence[int]:
        return self._pins

    async def open(self) -> None:
        """Claim every pin and drive it to 0: those that are there, even if one is missing.

        Waits for udev, ``export_timeout_s`` at most. Raises DeviceMissing, which
        names the pins, or BusError; nothing is claimed then.
        """
        await self.close()
        outputs = _Outputs(BusThread("PWM"), self._guard)
        run = outputs.thread.run
        try:
            missing = await run(self._find_drivers_for(outputs))
            waiting = await run(lambda: outputs.claim(outputs.pins))
            until = time.monotonic() + self._export_timeout_s
            while waiting and time.monotonic() < until:
                await asyncio.sleep(POLL_S)
                still = waiting
                waiting = await run(lambda: outputs.claim(still))  # noqa: B023  # awaited here
            if waiting:
                raise DeviceMissing(
                    f"The kernel's PWM of {_gpios(waiting)} cannot be written to.",
                    remediation="Let the user of piod write to /sys/class/pwm; on Raspberry "
                    "Pi OS the members of the group gpio may.",
                )
            if missing:
                raise DeviceMissing(
                    f"There is no PWM for {_gpios(missing)}: neither one of the kernel, in "
                    f"{self._sysfs_root}, nor a GPIO chip to make it with.",
                    remediation=f"Add '{_overlay(missing[0])}' to /boot/firmware/config.txt, "
                    "then reboot.",
                )
        except BaseException:
            await self._let_go(outputs)
            raise
        self._outputs = outputs

    async def close(self) -> None:
        """Drive every pin to 0 and let go of it.

        Raises BusError if one refuses; the port is closed all the same, and the
        guard goes on trying.
        """
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            self._closing = outputs
            refused = await self._let_go(outputs)
            self._closing = None
            if refused:
                raise BusError(f"The PWM of {_gpios(refused)} could not be turned off.")

    async def set_duty(
        self, pin: int, duty_percent: float, *, hz: float, off_after_s: float | None = None
    ) -> None:
        """See :meth:`piod.hw.ports.PwmPort.set_duty`; the off-time counts from the change.

        After a BusError the output is off, or is being turned off again and again.
        Raises ValueError for a pin that is not one of ``pins`` and for numbers
        out of range (percent 0–100, ``hz`` MIN_HZ–MAX_HZ, seconds ≥ 0).
        """
        if pin not in self._pins:
            raise ValueError(f"GPIO {pin} is not a PWM output of this unit")
        # written so that NaN is refused too
        if not 0 <= duty_percent <= 100:
            raise ValueError(f"duty cycle must be 0–100 %, got {duty_percent}")
        if duty_percent > 0 and not MIN_HZ <= hz <= MAX_HZ:
            raise ValueError(f"PWM frequency must be {MIN_HZ:g}–{MAX_HZ:g} Hz, got {hz}")
        if off_after_s is not None and not 0 <= off_after_s < math.inf:
            raise ValueError(f"off_after_s must be 0 or more, got {off_after_s}")
        outputs = self._outputs
        if outputs is None:
            raise BusError("The PWM bus is closed.")
        if duty_percent == 0:
            await outputs.thread.run(lambda: outputs.turn_off(pin))
        else:
            cuts = outputs.cuts[pin]
            await outputs.thread.run(
                lambda: outputs.drive(pin, duty_percent, hz, off_after_s, cuts)
            )

    def cut(self, pin: int) -> None:
        """See :meth:`piod.hw.ports.PwmPort.cut`; what is queued for ``pin`` is refused then."""
        outputs = self._outputs
        if outputs is not None and pin in outputs.cuts:
            outputs.cuts[pin] += 1
            outputs.thread.post(lambda: outputs.off_or_retry(pin), first=True)

    async def answer(self) -> None:
        """See :meth:`piod.hw.ports.PwmPort.answer`; a thread that hangs as it closes counts."""
        outputs = self._outputs or self._closing
        if outputs is None:
            raise BusError("The PWM bus is closed.")
        await outputs.thread.run(lambda: None)

    def _find_drivers_for(self, outputs: _Outputs) -> Callable[[], list[int]]:
        """Work for the bus thread: a driver for each pin; returns the pins without."""

        def find() -> list[int]:
            channels = kernel_pwm(self._pins, str(self._sysfs_root))
            for pin, (chip, channel) in channels.items():
                outputs.add(pin, SysfsPwm(chip, channel))
            software = [pin for pin in self._pins if pin not in channels]
            gpios = (self._chip or gpio_chip()) if software else None
            if gpios is None:
                return software
            for pin in software:
                outputs.add(pin, self._software_driver(gpios, pin))
            return []

        return find

    def _software_driver(self, chip: str, pin: int) -> Driver:
        driver: Driver
        lgpio = load_lgpio()
        if lgpio is not None:
            driver = LgpioPwm(lgpio, chip, pin)
        else:
            try:
                line = self._open_line(chip, LineSpec(pin, "out"))
            except OSError as error:
                raise _bus_error(pin, "could not be claimed", error) from error
            driver = TimedPwm(line, chip, pin)
        log.warning(
            "The PWM of GPIO %d is made in this process (%s). For even pulses add '%s' to "
            "/boot/firmware/config.txt, then reboot.",
            pin,
            driver,
            _overlay(pin),
        )
        return driver

    @staticmethod
    async def _let_go(outputs: _Outputs) -> list[int]:
        """All off and released, the thread ended; the pins that refused to the end."""
        for _ in range(CLOSE_TRIES):
            refused = await outputs.thread.run(outputs.release)
            if not refused:
                break
            await asyncio.sleep(RETRY_S)
        await outputs.thread.stop()
        return refused


class _Outputs:
    """The claimed outputs, from open to close. Lives in the bus thread."""

    def __init__(self, thread: BusThread, guard: OutputGuard | None) -> None:
        self.thread = thread
        self.cuts: dict[int, int] = {}
        """How often each pin was cut; written by the callers of ``cut`` alone."""
        self._guard = guard
        self._drivers: dict[int, Driver] = {}
        self._failing: set[int] = set()  # these refuse to go off

    @property
    def pins(self) -> Sequence[int]:
        return tuple(self._drivers)

    def add(self, pin: int, driver: Driver) -> None:
        self._drivers[pin] = driver
        self.cuts[pin] = 0
        if self._guard is not None:
            self._guard.register(output_key(pin), driver.recipe)

    def claim(self, pins: Sequence[int]) -> list[int]:
        """Claim and drive to 0; the pins whose files udev still holds back.

        All are tried before BusError is raised for the first that failed.
        """
        waiting = []
        failure: BusError | None = None
        for pin in pins:
            try:
                if not self._drivers[pin].claim():
                    waiting.append(pin)
            except OSError as error:
                failure = failure or _bus_error(pin, "could not be claimed", error)
        if failure is not None:
            raise failure
        return waiting

    def drive(
        self, pin: int, duty_percent: float, hz: float, off_after_s: float | None, cuts: int
    ) -> None:
        """Raises BusError, also when ``pin`` was cut since ``cuts`` was read."""
        if cuts != self.cuts[pin] or pin not in self._drivers:
            raise BusError(f"GPIO {pin} was cut before its new duty cycle could be set.")
        self._failing.discard(pin)  # if it refuses again, the guard has to hear it again
        deadline = None if off_after_s is None else time.monotonic() + off_after_s
        if self._guard is not None:
            self._guard.on(output_key(pin), deadline)
        if deadline is None:
            self.thread.cancel(pin)
        else:
            self.thread.at(pin, deadline, lambda: self.off_or_retry(pin))
        try:
            self._drivers[pin].drive(duty_percent, hz)
        except OSError as error:
            self.off_or_retry(pin)
            raise _bus_error(pin, "could not be driven", error) from error

    def turn_off(self, pin: int) -> None:
        """Raises BusError when that fails; it is then tried again every RETRY_S."""
        driver = self._drivers.get(pin)
        if driver is None:
            return  # released, and turned off with that
        try:
            driver.off()
        except OSError as error:
            self.thread.at(pin, time.monotonic() + RETRY_S, lambda: self.off_or_retry(pin))
            self._refused(pin, error)
            raise _bus_error(pin, "could not be turned off", error) from error
        self.thread.cancel(pin)
        self._is_off(pin)

    def off_or_retry(self, pin: int) -> None:
        try:
            self.turn_off(pin)
        except BusError:
            pass  # logged, and a timer is set for the next attempt

    def release(self) -> list[int]:
        """Turn off and let go of every output; the pins that refuse, still claimed."""
        refused = []
        for pin, driver in list(self._drivers.items()):
            try:
                driver.off()
                driver.release()
            except OSError as error:
                self._refused(pin, error)
                refused.append(pin)
            else:
                del self._drivers[pin]
                self._is_off(pin)
        return refused

    def _refused(self, pin: int, error: OSError) -> None:
        if pin not in self._failing:
            self._failing.add(pin)
            log.error("GPIO %d could not be turned off, trying again: %s", pin, error)
            if self._guard is not None:
                # another process may succeed, for instance when this one is out of files
                self._guard.on(output_key(pin), time.monotonic())

    def _is_off(self, pin: int) -> None:
        if self._guard is not None:
            self._guard.off(output_key(pin))
        if pin in self._failing:
            self._failing.discard(pin)
            log.warning("GPIO %d is off at last.", pin)


def _bus_error(pin: int, what: str, error: OSError) -> BusError:
    return bus_error(f"The PWM of GPIO {pin} {what}", error)


def _gpios(pins: Sequence[int]) -> str:
    return ", ".join(f"GPIO {pin}" for pin in pins)


def _overlay(pin: int) -> str:
    if pin in (12, 13):
        return "dtoverlay=pwm-2chan,pin=12,func=4,pin2=13,func2=4"
    return f"dtoverlay=pwm-gpio,gpio={pin}"
