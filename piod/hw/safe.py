"""Every output off, from outside the daemon: what ``piod safe-outputs`` does.

It runs after a crash (``ExecStopPost``), at boot, or by hand, with the imports
of the guard and no more. It claims nothing that is not free: a PWM channel that
nobody has exported is off, a line that somebody holds is left to its holder.
"""

from __future__ import annotations

import os
import time

from piod.hw import off
from piod.hw.header import SYSFS_PWM, channel_directory, gpio_chip, kernel_pwm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PATIENCE_S = 0.7
RETRY_S = 0.05

FAILED = "could not turn off"
"""How the line of an output begins that may still be on."""


def linux_recipes(
    pins: Collection[int], sysfs_root: str = SYSFS_PWM, chip: str | None = None
) -> dict[str, str]:
    """Recipes for the PWM outputs on ``pins`` (GPIO numbers) of this Raspberry Pi.

    ``chip``: the character device of the header's lines, found by its label if
    None; without one, pins that have no PWM in the kernel are left out: nothing
    can drive them.
    """
    found = kernel_pwm(pins, sysfs_root)
    chip = chip or gpio_chip()
    recipes = {}
    for pin in pins:
        if pin in found:
            recipes[f"pwm:{pin}"] = off.pwm_recipe(channel_directory(*found[pin]))
        elif chip is not None:
            recipes[f"pwm:{pin}"] = off.line_recipe(chip, pin)
    return recipes


def led_recipes(chip: str, address: int) -> dict[str, str]:
    """Recipes for the LEDs behind ``chip`` (RP2040, DAC43608) on the bus of this Raspberry Pi."""
    return {f"led:{channel}": off.led_recipe(chip, address, channel) for channel in "ABCD"}


def simulated_recipes(data_dir: str, outputs: Collection[str]) -> dict[str, str]:
    """The recipe for all simulated outputs (``pwm:17``, ``led:A``) of a data directory."""
    path = os.path.join(data_dir, "simulator", "outputs.json")
    return {"simulated outputs": off.simulated_recipe(path, off.EVERY, outputs)}


def turn_all_off(recipes: Mapping[str, str]) -> list[str]:
    """Carry all recipes (by output) out, within a second; what to tell the user, a line each.

    Each output is tried at once, those that may be slow last, then the failing ones
    again for PATIENCE_S. The line of one that could not be turned off begins with FAILED.
    """
    done: list[str] = []
    until = time.monotonic() + PATIENCE_S
    left = dict(sorted(recipes.items(), key=lambda item: off.is_slow(item[1])))
    while True:
        failures: dict[str, Exception] = {}
        for output, recipe in left.items():
            try:
                if off.is_slow(recipe) and time.monotonic() > until:
                    raise TimeoutError("the I2C bus is too slow")
                off.turn_off(recipe)
            except (OSError, ValueError) as error:
                failures[output] = error
            else:
                done.append(f"{output}: off")
        left = {output: left[output] for output in failures}
        if not left or time.monotonic() > until:
            break
        time.sleep(RETRY_S)
    return done + [f"{FAILED} {output}: {error}" for output, error in failures.items()]
