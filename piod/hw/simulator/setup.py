"""A complete simulated unit: plant, board, and the files that outlive the daemon."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from piod.clock import SimulatedClock
from piod.config import DEFAULT_LED_ROLES, Config
from piod.errors import ConfigurationError
from piod.hw.guard import GuardLink
from piod.hw.off import simulated_recipe
from piod.hw.wiring import Wiring

from .board import SimulatedBoard
from .chips import chips_of
from .plant import Plant
from .plant_file import PlantFile
from .run_on import LED_CHANNELS, OUTPUTS_FILE, Resumed, output_names
from .silicon import SiliconFile
from .surroundings import USUAL_ANGLES, photodiode_angles

log = logging.getLogger(__name__)

FAST_FLUSH_S = 0.01
"""Above real time, the files are written at most this often (wall time)."""
VOLUME_FRACTION = 0.75
"""A fresh vial is filled to 15 of 20 mL, 30 of 40 mL (handbook §6.1)."""
PHOTODIODES = "od_config.photodiode_channel"


@asynccontextmanager
async def simulated_unit(
    data_dir: Path,
    clock: SimulatedClock,
    *,
    wiring: Wiring,
    roles: Mapping[str, str],
    capacity_ml: float,
    max_fill_ml: float | None = None,
    config: Config | None = None,
    resumed: Resumed | None,
    seed: int,
    guard: GuardLink | None,
) -> AsyncIterator[tuple[SimulatedBoard, SiliconFile]]:
    """The board of a simulated unit on ``data_dir``; ``roles`` are those of ``[PWM]``.

    ``config`` says how full the vial is, how deep the efflux tube, and what light
    and photodiodes are where; what it does not say, or says wrongly, is as usual.
    ``resumed`` is the plant of an earlier run, already brought up to now.
    """
    directory = data_dir / "simulator"
    config = config or Config()
    volume_ml, efflux_ml = _volumes(config, capacity_ml)
    plant = None if resumed is None else resumed.plant
    if plant is None or plant.vial.capacity_ml != capacity_ml or plant.seed != seed:
        plant = Plant(seed=seed, stirring_pin=None, volume_ml=volume_ml, capacity_ml=capacity_ml)
    plant.vial.efflux_ml = efflux_ml
    if max_fill_ml is not None:
        plant.vial.max_fill_ml = max_fill_ml
    pins = {
        role: wiring.pwm_pins[role_channel]
        for role, role_channel in roles.items()
        if role_channel in wiring.pwm_pins
    }
    plant.wire(
        pins.get("stirring"),
        wiring.pwm_pins[wiring.heater_pwm_channel],
        pins,
        _ir_channel(config),
    )
    interval_s = 0.0 if clock.scale is not None and clock.scale <= 1 else FAST_FLUSH_S
    silicon = SiliconFile(directory, interval_s)
    plant_file = PlantFile(directory, plant, clock, interval_s)
    pwm_pins = tuple(wiring.pwm_pins.values())
    if guard is not None:
        known = output_names(pwm_pins)
        for output in known:
            path = str(directory / OUTPUTS_FILE)
            guard.register(output, simulated_recipe(path, output, known))
    board = SimulatedBoard(
        clock,
        plant=plant,
        pwm_pins=pwm_pins,
        led_channels=LED_CHANNELS,
        hall_line=wiring.hall_pin,
        button_line=wiring.button_pin,
        led_line=wiring.led_pin,
        i2c_chips=chips_of(wiring),
        angles=_angles(config),
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


def _volumes(config: Config, capacity_ml: float) -> tuple[float, float]:
    """How much is in a fresh vial, and how much the efflux tube leaves in it, mL."""

    def volume(*keys: str) -> float:
        for key in keys:
            try:
                found = config.number("bioreactor", key, None, minimum=0, maximum=capacity_ml)
            except ConfigurationError as refusal:
                log.warning("The simulated vial takes its usual volume: %s", refusal.message)
                break
            if found is not None:
                return found
        return VOLUME_FRACTION * capacity_ml

    return volume("initial_volume_ml"), volume("efflux_tube_volume_ml", "max_working_volume_ml")


def _ir_channel(config: Config) -> str | None:
    """The LED channel of the IR LED; as usual if the configuration cannot be read."""
    try:
        roles = config.led_roles()
    except ConfigurationError:
        roles = DEFAULT_LED_ROLES
    channel = roles.get("IR", "")
    return channel if channel in tuple(LED_CHANNELS) else None


def _angles(config: Config) -> Mapping[str, str]:
    if not config.has(PHOTODIODES):
        return USUAL_ANGLES
    return photodiode_angles(config.items(PHOTODIODES))
