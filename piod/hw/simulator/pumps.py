"""The peristaltic pumps: how fast each really is.

Numbers: handbook, simulator recipe 6.1 and §2.7. Nominally 0.0911 mL/s at full duty,
in proportion to the duty. The seed draws each pump within 20 % of that, so that
calibrating is worth it. A run, from off to off, begins with a dead time; its rate is
off by up to 1 %, drawn by the run's number, and by the wear of the tube: up to 2 %
less, half of it after ten hours of pumping. An *ideal* pump has neither.
"""

from __future__ import annotations

import math
import random

from .fields import Fields

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Callable

MEDIA, ALT_MEDIA, WASTE = "media", "alt_media", "waste"
ROLES = (MEDIA, ALT_MEDIA, WASTE)
"""As ``[PWM]`` calls them."""

NOMINAL_ML_PER_S = 0.0911
SPREAD = 0.2
RUN_SPREAD = 0.01
WEAR = 0.02
HALF_WORN_S = 36_000.0
DEAD_TIME_S = 0.05

MAX_ML_PER_S = 10.0


class Pump:
    """One pump; ``role``: what it pumps."""

    PATCHABLE = ("ml_per_s", "ideal")
    STATE = ("ml_per_s", "ideal", "runs", "run_s", "pumped_s", "pumped_ml")

    def __init__(self, seed: int, role: str) -> None:
        self._seed = seed
        self.role = role
        spread = random.Random(f"{seed}:pump:{role}").uniform(1 - SPREAD, 1 + SPREAD)
        self.ml_per_s = NOMINAL_ML_PER_S * spread
        """At full duty, new and on the average."""
        self.ideal = False
        """It pumps just that, from the first instant on."""
        self.duty_percent = 0.0
        self.broken = False
        """It turns, and pumps nothing."""
        self.pumped_ml = 0.0
        """Into or, whatever was there to pump, out of the vial."""
        self._runs = 0
        self._run_s = 0.0
        self._pumped_s = 0.0
        self._factor = self._factor_of_run()

    @property
    def flow_ml_per_s(self) -> float:
        """What it pumps now, if there is something to pump."""
        if self.duty_percent == 0 or self.broken or self.dead_s > 0:
            return 0.0
        return self.ml_per_s * self._factor * self.duty_percent / 100

    @property
    def dead_s(self) -> float:
        """For how long a pump that is on does not pump yet."""
        if self.duty_percent == 0 or self.ideal:
            return 0.0
        return max(0.0, DEAD_TIME_S - self._run_s)

    def drive(self, duty_percent: float) -> None:
        """The duty changes now."""
        if duty_percent > 0 and self.duty_percent == 0:
            self._runs += 1
            self._run_s = 0.0
            self._factor = self._factor_of_run()
        self.duty_percent = duty_percent

    def advance(self, seconds: float, pumped_ml: float) -> None:
        """``pumped_ml`` was there to be pumped meanwhile."""
        if self.duty_percent > 0:
            dead_s = self.dead_s
            # exactly over: what is left of a sum would be a step of its own
            self._run_s = DEAD_TIME_S if seconds == dead_s else self._run_s + seconds
            self._pumped_s += seconds
            self.pumped_ml += pumped_ml

    def truth(self) -> dict[str, object]:
        return {
            "ml_per_s": self.ml_per_s,
            "ideal": self.ideal,
            "flow_ml_per_s": self.flow_ml_per_s,
            "pumped_ml": self.pumped_ml,
        }

    def patch(self, value: object) -> Callable[[], None]:
        """What to call to make the change that ``value`` asks for; BadRequest."""
        fields = Fields(value, f"pumps.{self.role}", self.PATCHABLE)
        ml_per_s, ideal = self.ml_per_s, self.ideal
        if "ml_per_s" in fields:
            ml_per_s = fields.number("ml_per_s", 0, MAX_ML_PER_S)
        if "ideal" in fields:
            ideal = fields.flag("ideal")

        def apply() -> None:
            self.ml_per_s, self.ideal = ml_per_s, ideal
            self._factor = self._factor_of_run()

        return apply

    def to_json(self) -> dict[str, object]:
        """Everything that time has made; the duty is the plant's to keep."""
        return {
            "ml_per_s": self.ml_per_s,
            "ideal": self.ideal,
            "runs": self._runs,
            "run_s": self._run_s,
            "pumped_s": self._pumped_s,
            "pumped_ml": self.pumped_ml,
        }

    @classmethod
    def from_json(cls, state: object, seed: int, role: str, duty_percent: float) -> Pump:
        """As it was left, at ``duty_percent``; BadRequest."""
        fields = Fields(state, f"pumps.{role}", cls.STATE)
        pump = cls(seed, role)
        pump.ml_per_s = fields.number("ml_per_s", 0, MAX_ML_PER_S)
        pump.ideal = fields.flag("ideal")
        pump.pumped_ml = fields.number("pumped_ml", 0, 1e12)
        pump._runs = fields.integer("runs", 0, 10**12)
        pump._run_s = fields.number("run_s", 0, 1e12)
        pump._pumped_s = fields.number("pumped_s", 0, 1e12)
        pump.duty_percent = duty_percent
        pump._factor = pump._factor_of_run()
        return pump

    def _factor_of_run(self) -> float:
        """The same for the whole run, so that a long one has a steady state."""
        if self.ideal:
            return 1.0
        drawn = random.Random(f"{self._seed}:pump:{self.role}:{self._runs}")
        worn = 1 - math.pow(0.5, (self._pumped_s - self._run_s) / HALF_WORN_S)
        return drawn.uniform(1 - RUN_SPREAD, 1 + RUN_SPREAD) * (1 - WEAR * worn)
