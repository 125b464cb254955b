"""The exchange of liquid: fresh media in, as much and more of the old out.

An exchange is made in parts of at most ``max_subdose_ml`` of inflow, so that the level never
rises by more than that. In each part the inflows come first and the waste follows, and then
``waste_multiplier`` times as much waste again: what it draws below the end of the efflux tube
is air, so the level ends where the tube does. When a part would bring the vial near its
maximum, the waste leads.

Source: handbook jobs-and-hardware.md §2.6. Unlike upstream, no part drops the surplus of waste,
and what is answered is what the pumps have moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from piod.clock import Clock
from piod.errors import BadRequest
from piod.jobs.liquids import PumpRole, Volumes

NEAR_FULL = 0.95
"""Of the maximum fill volume: from there on, waste leads."""
AFTER_WASTE_S = 0.05
SAME_ML = 1e-9


class Dispenser(Protocol):
    """What an exchange asks of the unit."""

    async def dose(self, role: PumpRole, volume_ml: float) -> float:
        """Pump; the volume that was moved, mL. What it raises ends the exchange."""
        ...

    async def volumes(self) -> Volumes:
        """What is in the vial now."""
        ...


@dataclass(frozen=True)
class Exchanged:
    """What an exchange has moved, mL; ``waste_ml`` without the extra."""

    media_ml: float = 0.0
    alt_media_ml: float = 0.0
    waste_ml: float = 0.0


@dataclass(frozen=True)
class ExchangeSettings:
    """``[dosing_automation.config]``, and the vial."""

    max_fill_ml: float
    max_subdose_ml: float = 1.0
    pause_s: float = 5.0
    """After each inflow, for the stirrer to mix it in."""
    waste_multiplier: float = 2.0


async def exchange(
    dispenser: Dispenser,
    clock: Clock,
    settings: ExchangeSettings,
    *,
    media_ml: float = 0.0,
    alt_media_ml: float = 0.0,
    waste_ml: float,
    moved: Callable[[Exchanged], None] = lambda so_far: None,
) -> Exchanged:
    """Make an exchange; ``moved`` hears what has been moved so far, after each pump.

    BadRequest if a volume is negative or no number, or less goes out than comes in: the vial
    would fill up.
    """
    inflow_ml = media_ml + alt_media_ml
    for name, volume_ml in (("media", media_ml), ("alt media", alt_media_ml), ("waste", waste_ml)):
        if not (math.isfinite(volume_ml) and volume_ml >= 0):
            raise BadRequest(f"an exchange of {volume_ml} mL of {name} is not possible")
    if waste_ml < inflow_ml - SAME_ML:
        raise BadRequest(
            f"an exchange must take out what it brings in: {waste_ml:g} mL of waste is less "
            f"than {inflow_ml:g} mL of media"
        )
    parts = max(1, math.ceil(inflow_ml / settings.max_subdose_ml - SAME_ML))
    inflows: tuple[tuple[PumpRole, float], ...] = (
        ("media", media_ml / parts),
        ("alt_media", alt_media_ml / parts),
    )
    done = dict.fromkeys(("media", "alt_media", "waste"), 0.0)

    async def pump(role: PumpRole, volume_ml: float, *, counts: bool = True) -> None:
        if volume_ml <= SAME_ML:
            return
        was_moved = await dispenser.dose(role, volume_ml)
        if counts:
            done[role] += was_moved
            moved(_exchanged(done))

    async def waste() -> None:
        await pump("waste", waste_ml / parts)
        await clock.sleep(AFTER_WASTE_S)

    for _ in range(parts):
        highest_ml = (await dispenser.volumes()).highest_ml
        waste_leads = highest_ml + inflow_ml / parts >= NEAR_FULL * settings.max_fill_ml
        if waste_leads:
            await waste()
        for role, volume_ml in inflows:
            if volume_ml > SAME_ML:
                await pump(role, volume_ml)
                await clock.sleep(settings.pause_s)
        if not waste_leads:
            await waste()
        await pump("waste", settings.waste_multiplier * waste_ml / parts, counts=False)
        await clock.sleep(AFTER_WASTE_S)
    return _exchanged(done)


def _exchanged(done: dict[str, float]) -> Exchanged:
    return Exchanged(done["media"], done["alt_media"], done["waste"])
