"""The simulated unit's board: the ports that piod sees, on one plant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from piod.clock import SimulatedClock

from .chips import ChipWiring, Surroundings, build_chips
from .faults import (
    Bubbles,
    Faults,
    HeaterFailure,
    HeaterStuck,
    PumpFailure,
    StirrerStall,
    TemperatureOffset,
    TemperatureRunaway,
    TemperatureStuck,
)
from .gpio import SimulatedGpio
from .i2c import SimulatedI2c
from .plant import Plant
from .plant_file import PlantFile
from .pwm import OutputGuard, SimulatedPwm
from .silicon import SiliconFile
from .surroundings import USUAL_ANGLES, PlantSurroundings


class SimulatedBoard:
    """Ports on ``plant``, whose time scale becomes ``clock.monotonic()``.

    Making the board is its power-on: every output is off from then on, in the
    plant and in ``silicon``. Without ``silicon`` and ``plant_file`` nothing is
    kept; without ``guard`` nobody else turns an output off. To the guard the
    outputs are ``pwm:<GPIO>`` and ``led:<channel>``. ``i2c_chips``: those of
    :func:`.chips.chips_of`; they see the plant, with photodiodes at ``angles``
    (by signal of the wiring), unless there are other ``surroundings``.
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
        i2c_chips: Mapping[int, ChipWiring] | None = None,
        angles: Mapping[str, str] = USUAL_ANGLES,
        surroundings: Surroundings | None = None,
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
        if surroundings is None:
            surroundings = PlantSurroundings(clock, plant, angles, silicon, plant_file, guard)
        chips = build_chips(i2c_chips or {}, surroundings, clock.monotonic())
        self.i2c = SimulatedI2c(chips, self.faults, clock)

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
        self._break_plant(self._plant, self._clock.monotonic())
        self.gpio.sense_button()
        self.i2c.faults_changed()

    def _break_plant(self, plant: Plant, now_s: float) -> None:
        """Of faults that exclude each other the last one counts; those that add up do."""
        faults = self.faults
        plant.jam_stirrer(bool(faults.of(StirrerStall)), now_s)
        heater: list[float] = [fault.duty_percent for fault in faults.of(HeaterStuck)]
        heater += [0.0 for _ in faults.of(HeaterFailure)]
        plant.break_heater(heater[-1] if heater else None, now_s)
        plant.break_pumps({fault.pump for fault in faults.of(PumpFailure)}, now_s)
        stuck = faults.of(TemperatureStuck)
        plant.break_sensor(
            now_s,
            stuck=bool(stuck),
            stuck_celsius=stuck[-1].celsius if stuck else None,
            offset_k=sum(fault.celsius for fault in faults.of(TemperatureOffset)),
            drift_k_per_s=sum(f.celsius_per_minute for f in faults.of(TemperatureRunaway)) / 60,
        )
        bubbles = faults.of(Bubbles)
        plant.set_bubbles(bubbles[-1].probability if bubbles else None, now_s)
