"""A complete simulated unit: plant, board, and the files that outlive the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from piod.clock import SimulatedClock
from piod.hw.guard import GuardLink
from piod.hw.off import simulated_recipe
from piod.hw.wiring import Wiring

from .board import SimulatedBoard
from .i2c import chips_of
from .plant import Plant
from .plant_file import PlantFile
from .run_on import LED_CHANNELS, OUTPUTS_FILE, Resumed, output_names
from .silicon import SiliconFile

FAST_FLUSH_S = 0.01
"""Above real time, the files are written at most this often (wall time)."""
VOLUME_FRACTION = 0.75
"""A fresh vial is filled to 15 of 20 mL, 30 of 40 mL (handbook §6.1)."""


@asynccontextmanager
async def simulated_unit(
    data_dir: Path,
    clock: SimulatedClock,
    *,
    wiring: Wiring,
    roles: Mapping[str, str],
    capacity_ml: float,
    resumed: Resumed | None,
    seed: int,
    guard: GuardLink | None,
) -> AsyncIterator[tuple[SimulatedBoard, SiliconFile]]:
    """The board of a simulated unit on ``data_dir``; ``roles`` are those of ``[PWM]``.

    ``resumed`` is the plant of an earlier run, already brought up to now.
    """
    directory = data_dir / "simulator"
    stirring_pin = wiring.pwm_pins.get(roles.get("stirring", ""))
    plant = None if resumed is None else resumed.plant
    if plant is None or plant.vial.capacity_ml != capacity_ml or plant.seed != seed:
        plant = Plant(
            seed=seed,
            stirring_pin=stirring_pin,
            volume_ml=VOLUME_FRACTION * capacity_ml,
            capacity_ml=capacity_ml,
        )
    plant.stirring_pin = stirring_pin
    interval_s = 0.0 if clock.scale is not None and clock.scale <= 1 else FAST_FLUSH_S
    silicon = SiliconFile(directory, interval_s)
    plant_file = PlantFile(directory, plant, clock, interval_s)
    pins = tuple(wiring.pwm_pins.values())
    if guard is not None:
        known = output_names(pins)
        for output in known:
            path = str(directory / OUTPUTS_FILE)
            guard.register(output, simulated_recipe(path, output, known))
    board = SimulatedBoard(
        clock,
        plant=plant,
        pwm_pins=pins,
        led_channels=LED_CHANNELS,
        hall_line=wiring.hall_pin,
        button_line=wiring.button_pin,
        led_line=wiring.led_pin,
        i2c_chips=chips_of(wiring),
        silicon=silicon,
        plant_file=plant_file,
        guard=guard,
    )
    saving = asyncio.create_task(plant_file.keep_saving())
    try:
        yield board, silicon
    finally:
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
        board.close()
