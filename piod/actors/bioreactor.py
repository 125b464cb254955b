"""The variables of the bioreactor: what the API and ``[bioreactor]`` call them, their bounds.

Handbook jobs-and-hardware §4.2; volumes in mL.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from piod.config import Config
from piod.errors import BadRequest
from piod.jobs.liquids import Volumes

VARIABLES = (
    "current_volume_ml",
    "efflux_tube_volume_ml",
    "alt_media_fraction",
    "cumulative_media_added_ml",
    "cumulative_alt_media_added_ml",
    "cumulative_waste_removed_ml",
)
"""The variables of the API."""
OLDER_NAMES = {"max_working_volume_ml": "efflux_tube_volume_ml"}
DEFAULT_VOLUME_ML = 14.0


def variables(volumes: Volumes) -> dict[str, float]:
    """The variables of the API, by name."""
    return {name: getattr(volumes, name) for name in VARIABLES}


def checked_values(
    given: Mapping[str, float], capacity_ml: float, max_fill_ml: float
) -> dict[str, float]:
    """``given`` by today's names; BadRequest that names what is unknown or out of bounds."""
    if not given:
        raise BadRequest(
            "values must name at least one variable",
            remediation=f"The variables are: {', '.join(VARIABLES)}.",
        )
    values: dict[str, float] = {}
    for name, value in given.items():
        today = OLDER_NAMES.get(name, name)
        if today not in VARIABLES:
            raise BadRequest(
                f"there is no bioreactor variable {name!r}",
                remediation=f"The variables are: {', '.join(VARIABLES)}.",
            )
        maximum = {"alt_media_fraction": 1.0}.get(
            today, math.inf if today.startswith("cumulative_") else capacity_ml
        )
        if not (math.isfinite(value) and 0 <= value <= maximum):
            allowed = "at least 0" if maximum == math.inf else f"0 to {maximum:g}"
            raise BadRequest(f"{name} must be {allowed}, got {value:g}")
        if today == "efflux_tube_volume_ml" and value >= max_fill_ml:
            raise BadRequest(
                f"{name} must be below {max_fill_ml:g}, the maximum fill volume, got {value:g}",
                remediation="Push the efflux tube further into the vial.",
            )
        if values.setdefault(today, float(value)) != value:
            older = next(older for older, newer in OLDER_NAMES.items() if newer == today)
            raise BadRequest(f"{older} is an older name of {today}, and the two differ")
    return values


def initial_volumes(config: Config, capacity_ml: float) -> Volumes:
    """What an experiment begins with: ``[bioreactor]``. ConfigurationError names the key."""

    def number(key: str, default: float, maximum: float | None = None) -> float:
        return config.number("bioreactor", key, default, minimum=0, maximum=maximum)

    volume_ml = number("initial_volume_ml", DEFAULT_VOLUME_ML, capacity_ml)
    efflux_key = "efflux_tube_volume_ml"
    if not config.has("bioreactor", efflux_key):
        efflux_key = "max_working_volume_ml"
    return Volumes(
        current_volume_ml=volume_ml,
        lowest_ml=volume_ml,
        highest_ml=volume_ml,
        efflux_tube_volume_ml=number(efflux_key, DEFAULT_VOLUME_ML, capacity_ml),
        alt_media_fraction=number("initial_alt_media_fraction", 0.0, 1.0),
        cumulative_media_added_ml=number("initial_cumulative_media_added_ml", 0.0),
        cumulative_alt_media_added_ml=number("initial_cumulative_alt_media_added_ml", 0.0),
        cumulative_waste_removed_ml=number("initial_cumulative_waste_removed_ml", 0.0),
    )
