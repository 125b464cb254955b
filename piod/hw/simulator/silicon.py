"""``outputs.json``: what the simulated outputs hold, as silicon would.

``{"pwm": {"<GPIO>": duty_percent}, "led": {"A": percent, …}}``: every wired
output, always; 0 when off. The file is the output: while it cannot be written,
the output has not changed, and the change fails as on a broken bus. It outlives
the daemon, and the guard or ``safe-outputs`` may turn off what it holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from piod.errors import BusError

from .replaced_file import ReplacedFile
from .run_on import OUTPUTS_FILE


class SiliconFile:
    """The outputs of one unit in ``<directory>/outputs.json``.

    ``flush_interval_s``: 0 writes each change at once; more (wall time) is for
    time scales at which that would be too often. Then ``written`` is called when
    the file has caught up, and :meth:`flush` makes it.
    """

    def __init__(self, directory: Path, flush_interval_s: float = 0.0) -> None:
        self._file = ReplacedFile(
            directory / OUTPUTS_FILE, flush_interval_s, self._render, lambda: self.written()
        )
        self._held: dict[str, dict[str, float]] = {"pwm": {}, "led": {}}
        self.written: Callable[[], None] = lambda: None

    @property
    def is_written(self) -> bool:
        """The file shows all that the outputs hold."""
        return self._file.is_written

    def wire(self, pwm_pins: Iterable[int], led_channels: Iterable[str]) -> None:
        """These outputs exist, and all are off from now on.

        Does not raise: what cannot be written now is written by :meth:`flush`.
        """
        self._held = {
            "pwm": {str(pin): 0.0 for pin in pwm_pins},
            "led": dict.fromkeys(led_channels, 0.0),
        }
        try:
            self._file.changed()
        except OSError:
            pass  # logged; opening the bus fails until it can be written

    def hold(self, kind: str, output: str, percent: float) -> None:
        """The output holds ``percent`` from now on; ``kind``: pwm or led.

        Raises BusError, and the output is as before, if that has to be written
        now and cannot.
        """
        outputs = self._held[kind]
        before = outputs[output]
        if percent == before:
            return
        outputs[output] = percent
        try:
            self._file.changed()
        except OSError as error:
            outputs[output] = before
            raise self._refusal(error) from error

    def flush(self) -> None:
        """Write what is not written yet; nothing to do costs nothing. BusError."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._refusal(error) from error

    def close(self) -> None:
        """Write what is not written yet, and write no more by itself."""
        self._file.close()

    def _render(self) -> str:
        return json.dumps(self._held) + "\n"

    def _refusal(self, error: OSError) -> BusError:
        return BusError(
            f"The simulated outputs cannot be written to {self._file.path}.",
            cause=error.strerror or str(error),
            remediation="Check the disk and the permissions of the data directory.",
        )
