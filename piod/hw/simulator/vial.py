"""The vial and what is in it."""

from __future__ import annotations

from .fields import Fields

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CAPACITY_ML = 10_000.0


class Vial:
    """A volume of liquid, mL, within the vial's capacity, mL."""

    STATE = ("volume_ml", "capacity_ml")
    PATCHABLE = ("volume_ml",)

    def __init__(self, volume_ml: float, capacity_ml: float) -> None:
        if not 0 <= volume_ml <= capacity_ml <= MAX_CAPACITY_ML:
            raise ValueError(f"a vial of {capacity_ml} mL cannot hold {volume_ml} mL")
        self.volume_ml = volume_ml
        self.capacity_ml = capacity_ml

    def patch(self, fields: Fields) -> Callable[[], None]:
        """What to call to make the change that ``fields`` asks for; BadRequest."""
        volume_ml = self.volume_ml
        if "volume_ml" in fields:
            volume_ml = fields.number("volume_ml", 0, self.capacity_ml)

        def apply() -> None:
            self.volume_ml = volume_ml

        return apply

    def to_json(self) -> dict[str, object]:
        return {"volume_ml": self.volume_ml, "capacity_ml": self.capacity_ml}

    @classmethod
    def from_json(cls, state: object) -> Vial:
        fields = Fields(state, "vial", cls.STATE)
        capacity_ml = fields.number("capacity_ml", 0, MAX_CAPACITY_ML)
        return cls(fields.number("volume_ml", 0, capacity_ml), capacity_ml)
