"""The simulated unit's board: the ports that piod sees, on one plant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from piod.clock import SimulatedClock

from .faults import Faults, StirrerStall
from .gpio import SimulatedGpio
from .i2c import SimulatedI2c
from .plant import Plant
from .plant_file import PlantFile
from .pwm import OutputGuard, SimulatedPwm
from .silicon import SiliconFile


class SimulatedBoard:
    """Ports on ``plant``, whose time scale becomes ``clock.monotonic()``.

    Making the board is its power-on: every output is off from then on, in the
    plant and in ``silicon``. Without ``silicon`` and ``plant_file`` nothing is
    kept; without ``guard`` nobody else turns an output off. To the guard the
    outputs are ``pwm:<GPIO>``. ``i2c_chips``: those of :func:`.i2c.chips_of`.
    """

    def __init__(
        self,
        clock: SimulatedClock,
        *,
        plant: Plant,
        pwm_pins: Sequence[int],
        led_channels: str = "ABCD",
        hall_line: int,
        button_line: int,
        led_line: int,
        i2c_chips: Mapping[int, str] | None = None,
        silicon: SiliconFile | None = None,
        plant_file: PlantFile | None = None,
        guard: OutputGuard | None = None,
    ) -> None:
        self._clock = clock
        self._plant = plant
        self._plant_file = plant_file
        self._silicon = silicon
        self.faults = Faults(self._faults_changed)
        plant.call_now(clock.monotonic())
        plant.set_outputs(dict.fromkeys(pwm_pins, 0.0), clock.monotonic())
        if silicon is not None:
            silicon.wire(pwm_pins, led_channels)
        if plant_file is not None:
            plant_file.changed()
        self.pwm = SimulatedPwm(clock, plant, pwm_pins, self.faults, silicon, plant_file, guard)
        self.gpio = SimulatedGpio(
            clock,
            plant,
            self.faults,
            hall_line=hall_line,
            button_line=button_line,
            led_line=led_line,
        )
        self.i2c = SimulatedI2c(i2c_chips or {}, self.faults)

    def truth(self) -> dict[str, object]:
        """The plant as it is at this instant, and what is on the board."""
        self._plant.advance_to(self._clock.monotonic())
        return {**self._plant.truth(), "pcb_led_on": self.gpio.led_on}

    def patch(self, changes: object) -> dict[str, object]:
        """Change the plant at this instant and return the truth; BadRequest, and no change."""
        self._plant.advance_to(self._clock.monotonic())
        self._plant.patch(changes)
        if self._plant_file is not None:
            self._plant_file.changed()
        return self.truth()

    def close(self) -> None:
        """Write both files a last time, and write no more by itself.

        It turns nothing off: closing :attr:`pwm` does.
        """
        if self._silicon is not None:
            self._silicon.close()
        if self._plant_file is not None:
            self._plant_file.close()

    def _faults_changed(self) -> None:
        self._plant.jam_stirrer(bool(self.faults.of(StirrerStall)), self._clock.monotonic())
        self.gpio.sense_button()
