"""The vial: how much liquid is in it, how much of that is not mixed in yet.

Numbers: handbook, simulator recipe 6.1. The waste pump takes what stands above the
end of the efflux tube and nothing below. What rises above the rim is spilled. Without
stirring, what was pumped in joins the rest with a lag of 30 s.

Flows are constant within a step, and no step goes beyond the next event (the level
reaches tube or rim): levels are exact.
"""

from __future__ import annotations

import math

from .fields import Fields

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CAPACITY_ML = 10_000.0
MIXING_TAU_S = 30.0
LEVEL_ML = 1e-9
"""Levels that differ by less are the same."""
MIXED_ML = 1e-6
"""What is left of a layer counts as mixed in."""
LAYER_STEP_S = 1.0
SAFE_FRACTION = 0.9
"""Of the capacity: up to there a vial may be filled if nobody says otherwise."""
TUBE_FRACTION = 0.75


class Vial:
    """Volumes of one vial, mL. ``efflux_ml``: what is below the end of the tube."""

    STATE = (
        "volume_ml",
        "capacity_ml",
        "efflux_ml",
        "max_fill_ml",
        "highest_ml",
        "spilled_ml",
        "unmixed_media_ml",
        "unmixed_alt_media_ml",
    )
    PATCHABLE = ("volume_ml", "efflux_ml")

    def __init__(
        self,
        volume_ml: float,
        capacity_ml: float,
        efflux_ml: float | None = None,
        max_fill_ml: float | None = None,
    ) -> None:
        if not 0 <= volume_ml <= capacity_ml <= MAX_CAPACITY_ML:
            raise ValueError(f"a vial of {capacity_ml} mL cannot hold {volume_ml} mL")
        self.volume_ml = volume_ml
        self.capacity_ml = capacity_ml
        self.efflux_ml = TUBE_FRACTION * capacity_ml if efflux_ml is None else efflux_ml
        self.max_fill_ml = SAFE_FRACTION * capacity_ml if max_fill_ml is None else max_fill_ml
        self.highest_ml = volume_ml
        """The highest level since somebody set it."""
        self.spilled_ml = 0.0
        self.unmixed_ml = [0.0, 0.0]
        """Of media and of alt media."""

    @property
    def bulk_ml(self) -> float:
        """What is mixed."""
        return max(0.0, self.volume_ml - sum(self.unmixed_ml))

    @property
    def has_layer(self) -> bool:
        """Something is not mixed in."""
        return self.unmixed_ml != [0.0, 0.0]

    def mix_layer(self) -> tuple[float, float, float]:
        """Mix all in at once: the bulk before that, the media and alt media that join it, mL."""
        bulk_ml, (media_ml, alt_media_ml) = self.bulk_ml, self.unmixed_ml
        self.unmixed_ml = [0.0, 0.0]
        return bulk_ml, media_ml, alt_media_ml

    def layer_step_s(self, media: float, alt_media: float) -> float:
        """How long a step may be while nobody stirs; theirs are the flows, mL/s."""
        goals = media * MIXING_TAU_S, alt_media * MIXING_TAU_S
        off_ml = max(abs(has - goal) for has, goal in zip(self.unmixed_ml, goals, strict=True))
        return LAYER_STEP_S if off_ml > MIXED_ML else math.inf

    def outflow_ml_per_s(self, inflow: float, waste: float) -> float:
        """What the waste pump, that could take ``waste``, gets while ``inflow`` comes in."""
        above_ml = self.volume_ml - self.efflux_ml
        if above_ml > LEVEL_ML:
            return waste
        return min(waste, inflow) if above_ml > -LEVEL_ML else 0.0

    def event_s(self, inflow: float, outflow: float) -> float:
        """How long these flows can go on as they are."""
        net = inflow - outflow
        levels = (self.efflux_ml, self.capacity_ml)
        if net > 0:
            ahead = [level for level in levels if level > self.volume_ml + LEVEL_ML]
            return (min(ahead) - self.volume_ml) / net if ahead else math.inf
        if net < 0:
            return (self.volume_ml - self.efflux_ml) / -net
        return math.inf

    def flow(self, seconds: float, inflow: float, outflow: float) -> None:
        """Let the flows go on; for at most :meth:`event_s`."""
        volume_ml = self.volume_ml + (inflow - outflow) * seconds
        for level in (self.efflux_ml, self.capacity_ml):
            if abs(volume_ml - level) <= LEVEL_ML:
                volume_ml = level
        if volume_ml > self.capacity_ml:
            self.spilled_ml += volume_ml - self.capacity_ml
            volume_ml = self.capacity_ml
        self.volume_ml = max(0.0, volume_ml)
        self.highest_ml = max(self.highest_ml, self.volume_ml)

    def mix(
        self, seconds: float, media: float, alt_media: float, stirred: bool
    ) -> tuple[float, float]:
        """How much of media and of alt media joins the bulk within ``seconds``, mL.

        Theirs are the flows, mL/s, with which they come in meanwhile. To be called
        before :meth:`flow`.
        """
        joined = []
        for index, inflow in enumerate((media, alt_media)):
            layer_ml = self.unmixed_ml[index]
            left_ml = 0.0
            if not stirred and (layer_ml > MIXED_ML or inflow > 0):
                goal_ml = inflow * MIXING_TAU_S
                left_ml = goal_ml + (layer_ml - goal_ml) * math.exp(-seconds / MIXING_TAU_S)
            self.unmixed_ml[index] = left_ml
            joined.append(layer_ml + inflow * seconds - left_ml)
        return joined[0], joined[1]

    def truth(self) -> dict[str, object]:
        return {
            "volume_ml": self.volume_ml,
            "capacity_ml": self.capacity_ml,
            "efflux_ml": self.efflux_ml,
            "max_fill_ml": self.max_fill_ml,
            "highest_ml": self.highest_ml,
            "overflow": self.highest_ml > self.max_fill_ml + LEVEL_ML,
            "spilled_ml": self.spilled_ml,
            "unmixed_ml": sum(self.unmixed_ml),
        }

    def patch(self, fields: Fields) -> Callable[[], None]:
        """What to call to make the change that ``fields`` asks for; BadRequest."""
        efflux_ml, fill_to_ml = self.efflux_ml, None
        if "volume_ml" in fields:
            fill_to_ml = fields.number("volume_ml", 0, self.capacity_ml)
        if "efflux_ml" in fields:
            efflux_ml = fields.number("efflux_ml", 0, self.capacity_ml)

        def apply() -> None:
            self.efflux_ml = efflux_ml
            if fill_to_ml is not None:
                self.fill(fill_to_ml)

        return apply

    def fill(self, volume_ml: float) -> None:
        """There is so much in it, all of it mixed; what was spilled is wiped up."""
        self.volume_ml = self.highest_ml = volume_ml
        self.spilled_ml = 0.0
        self.unmixed_ml = [0.0, 0.0]

    def to_json(self) -> dict[str, object]:
        return {
            "volume_ml": self.volume_ml,
            "capacity_ml": self.capacity_ml,
            "efflux_ml": self.efflux_ml,
            "max_fill_ml": self.max_fill_ml,
            "highest_ml": self.highest_ml,
            "spilled_ml": self.spilled_ml,
            "unmixed_media_ml": self.unmixed_ml[0],
            "unmixed_alt_media_ml": self.unmixed_ml[1],
        }

    @classmethod
    def from_json(cls, state: object) -> Vial:
        fields = Fields(state, "vial", cls.STATE)
        capacity_ml = fields.number("capacity_ml", 0, MAX_CAPACITY_ML)
        vial = cls(
            fields.number("volume_ml", 0, capacity_ml),
            capacity_ml,
            fields.number("efflux_ml", 0, capacity_ml),
            fields.number("max_fill_ml", 0, capacity_ml),
        )
        vial.highest_ml = fields.number("highest_ml", 0, capacity_ml)
        vial.spilled_ml = fields.number("spilled_ml", 0, 1e12)
        vial.unmixed_ml = [
            fields.number("unmixed_media_ml", 0, capacity_ml),
            fields.number("unmixed_alt_media_ml", 0, capacity_ml),
        ]
        return vial
