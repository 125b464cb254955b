"""PWM made in this process, for pins to which no overlay gives a kernel PWM.

Second best: with lgpio, a thread of a C library makes the pulses; without it, a
timed Python thread does, whose pulses wobble when the process is busy. In both
cases the pin keeps its level when the process is hung, so that the guard must
kill it to free the line (``piod.hw.off``, recipe ``line``).
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from typing import Protocol

from piod.hw import off

log = logging.getLogger(__name__)


class OutputLine(Protocol):
    """What is used of an open output line."""

    def write(self, value: bool) -> None: ...
    def close(self) -> None: ...


class Lgpio(Protocol):
    """What is used of the module ``lgpio``; its calls raise ``lgpio.error``."""

    error: type[Exception]

    def gpiochip_open(self, gpiochip: int) -> int: ...
    def gpiochip_close(self, handle: int) -> int: ...
    def gpio_claim_output(self, handle: int, gpio: int, level: int) -> int: ...
    def gpio_write(self, handle: int, gpio: int, level: int) -> int: ...
    def tx_pwm(self, handle: int, gpio: int, hz: float, duty_percent: float) -> int: ...


def load_lgpio() -> Lgpio | None:
    """The module, if it is installed and works here."""
    # It makes a pipe in its work directory as soon as it is imported; that of a
    # service is seldom writable, and the import would fail.
    os.environ.setdefault("LG_WD", tempfile.gettempdir())
    try:
        import lgpio
    except ImportError:
        return None
    except Exception as error:  # its own class, which cannot be imported either
        log.warning("lgpio is installed and does not start: %s", error)
        return None
    module: Lgpio = lgpio
    return module


class LgpioPwm:
    """A pin that lgpio drives. Every method may raise OSError."""

    def __init__(self, lgpio: Lgpio, chip: str, pin: int) -> None:
        self._lgpio = lgpio
        self._chip = chip
        self._pin = pin
        self._handle: int | None = None
        self.recipe = off.line_recipe(chip, pin)

    def __str__(self) -> str:
        return f"lgpio on {self._chip}"

    def claim(self) -> bool:
        """Claim the line, low."""
        try:
            handle = self._lgpio.gpiochip_open(int(self._chip.rpartition("gpiochip")[2]))
            try:
                self._lgpio.gpio_claim_output(handle, self._pin, 0)
            except self._lgpio.error:
                self._lgpio.gpiochip_close(handle)
                raise
        except self._lgpio.error as error:
            raise OSError(str(error)) from error
        self._handle = handle
        return True

    def drive(self, duty_percent: float, hz: float) -> None:
        """Make pulses, from the end of the running cycle on; 100 % is a level."""
        if duty_percent >= 100:
            self._level(1)
            return
        try:
            self._lgpio.tx_pwm(self._claimed(), self._pin, hz, duty_percent)
        except self._lgpio.error as error:
            raise OSError(str(error)) from error

    def off(self) -> None:
        """Low at once, in the middle of a cycle too."""
        self._level(0)

    def release(self) -> None:
        """Low, and the line free."""
        if self._handle is None:
            return
        try:
            self.off()
        finally:
            handle, self._handle = self._handle, None
            try:
                self._lgpio.gpiochip_close(handle)
            except self._lgpio.error as error:
                raise OSError(str(error)) from error

    def _level(self, level: int) -> None:
        handle = self._claimed()
        try:
            # 0 Hz ends the running pulse and forgets the queued ones
            self._lgpio.tx_pwm(handle, self._pin, 0, 0)
        except self._lgpio.error:
            pass  # there were no pulses to end; the level is what counts
        try:
            self._lgpio.gpio_write(handle, self._pin, level)
        except self._lgpio.error as error:
            raise OSError(str(error)) from error

    def _claimed(self) -> int:
        if self._handle is None:
            raise OSError(f"GPIO {self._pin} is not claimed")
        return self._handle


class TimedPwm:
    """A pin that a thread of this process drives. Every method may raise OSError.

    ``line``: an output line that is claimed already, low.
    """

    def __init__(self, line: OutputLine, chip: str, pin: int) -> None:
        self._line = line
        self._pin = pin
        self._changed = threading.Condition()  # guards the line and what follows
        self._on_s = 0.0
        self._off_s = 0.0
        self._thread: threading.Thread | None = None
        self.recipe = off.line_recipe(chip, pin)

    def __str__(self) -> str:
        return "a timed thread"

    def claim(self) -> bool:
        """Drive the line low."""
        self.off()
        return True

    def drive(self, duty_percent: float, hz: float) -> None:
        """Make pulses, from now on; 100 % is a level."""
        with self._changed:
            self._on_s = duty_percent / 100 / hz
            self._off_s = 1 / hz - self._on_s if duty_percent < 100 else 0.0
            self._line.write(True)
            if self._thread is None:
                name = f"piod-pwm-{self._pin}"
                self._thread = threading.Thread(target=self._pulse, name=name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def off(self) -> None:
        """Low, and no pulse after that."""
        with self._changed:
            self._on_s = 0.0
            self._changed.notify()
            thread, self._thread = self._thread, None
            self._line.write(False)
        if thread is not None:
            thread.join()

    def release(self) -> None:
        """Low, and the line free."""
        try:
            self.off()
        finally:
            self._line.close()

    def _pulse(self) -> None:
        with self._changed:
            edge_s = time.monotonic()
            level = True
            failed = False
            while self._on_s > 0:
                edge_s += self._on_s if level else self._off_s
                # after a stall, go on in step with the clock: no burst to catch up
                edge_s = max(edge_s, time.monotonic() - self._on_s - self._off_s)
                # the lock is only let go in this wait: nothing here writes after off()
                if self._changed.wait(max(0.0, edge_s - time.monotonic())):
                    edge_s, level = time.monotonic(), True
                    continue
                level = not level or self._off_s <= 0
                try:
                    self._line.write(level)
                except OSError as error:
                    # go on: the pin may be stuck high, and the next edge bring it down
                    if not failed:
                        log.error("GPIO %d cannot be driven: %s", self._pin, error)
                    failed = True
