"""What is in the vial: a culture that grows, or a standard of a fixed OD.

Numbers: handbook, simulator recipe 6.1. Biomass X in OD units, substrate S, and the
fraction a that is alt media, which brings the inhibitor I::

    µ = 0.6/h · S/(0.15 + S) · θ(T) · 1/(1 + (I/1.0)²) · m(rpm) · (1 − e^(−age/1 h))
    dX/dt = µX − 0.005/h · X        dS/dt = −µX/0.5        I = 5.0 · a

and dilution by what joins the bulk of the vial. Integrated by the classical
Runge-Kutta method in steps of which each is short against every rate:
:meth:`Culture.longest_step_s`. A day of growth is right to 1e-6 of its value.
"""

from __future__ import annotations

import math

from .fields import Fields

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_S = 3600.0

MAX_GROWTH_PER_S = 0.6 / HOUR_S
HALF_SATURATION = 0.15
DEATH_PER_S = 0.005 / HOUR_S
BIOMASS_PER_SUBSTRATE = 0.5
LAG_S = 1.0 * HOUR_S
MIN_CELSIUS, BEST_CELSIUS, MAX_CELSIUS = 10.0, 37.0, 46.0
MEDIA_SUBSTRATE = 10.0
INHIBITOR_IN_ALT_MEDIA = 5.0
INHIBITION = 1.0
UNSTIRRED_GROWTH = 0.6
WELL_STIRRED_RPM = 200.0

FIRST_BIOMASS = 0.1

EXTINCT = 1e-12
"""OD below this is less than one cell in a vial."""
EXHAUSTED = 1e-9
SMALLEST_BULK_ML = 0.05
"""The first drop into an empty vial."""

PRECISION = 0.1
"""A step is at most so long against the time in which something changes e-fold."""

CULTURE, STANDARD = "culture", "standard"
MAX_BIOMASS = 1000.0
MAX_AGE_S = 1e12


class Culture:
    """A young culture in fresh media, until something else is put in."""

    PATCHABLE = ("biomass", "od", "substrate", "alt_media_fraction", "age_h", "vial")
    STATE = ("content", "biomass", "substrate", "alt_media_fraction", "age_s")

    def __init__(self) -> None:
        self.content = CULTURE
        self.biomass = FIRST_BIOMASS
        self.substrate = MEDIA_SUBSTRATE
        self.alt_media_fraction = 0.0
        self.age_s = 0.0

    def growth_per_s(self, warmth: float, stirred: float) -> float:
        """µ now; ``warmth`` is θ(T), ``stirred`` is m(rpm)."""
        if self.content == STANDARD:
            return 0.0
        lag = -math.expm1(-self.age_s / LAG_S)
        return _growth_per_s(self.substrate, self.alt_media_fraction) * warmth * stirred * lag

    def rests(self, warmth: float) -> bool:
        """Without inflow, nothing but decay can happen, at that temperature."""
        idle = self.substrate == 0 or self.biomass == 0 or warmth == 0
        return idle or self.content == STANDARD

    def longest_step_s(self, warmth: float) -> float:
        """How long a step may be without inflow."""
        if self.rests(warmth):
            return PRECISION / DEATH_PER_S
        hunger = HALF_SATURATION / (HALF_SATURATION + self.substrate) ** 2
        use_per_s = MAX_GROWTH_PER_S * self.biomass * hunger / BIOMASS_PER_SUBSTRATE
        young_s = PRECISION * LAG_S if self.age_s < 20 * LAG_S else math.inf
        return min(PRECISION / (MAX_GROWTH_PER_S * warmth + DEATH_PER_S + use_per_s), young_s)

    def decay(self, seconds: float) -> None:
        """What happens without inflow while it rests; any time."""
        self.age_s += seconds
        if self.content == CULTURE:
            self._set_biomass(self.biomass * math.exp(-DEATH_PER_S * seconds))

    def hold(self, seconds: float) -> None:
        """Nothing changes any more; any time."""
        self.age_s += seconds

    def join(self, bulk_ml: float, media_ml: float, alt_media_ml: float) -> None:
        """Mix media and alt media into a bulk of ``bulk_ml`` at once."""
        added_ml = media_ml + alt_media_ml
        total_ml = bulk_ml + added_ml
        if total_ml > 0:
            self._set_biomass(self.biomass * bulk_ml / total_ml)
            self.alt_media_fraction = (self.alt_media_fraction * bulk_ml + alt_media_ml) / total_ml
            self.substrate = (self.substrate * bulk_ml + MEDIA_SUBSTRATE * added_ml) / total_ml

    def advance(
        self,
        seconds: float,
        warmth: tuple[float, float, float],
        stirred: float,
        bulk_ml: float,
        bulk_change_ml: float,
        media_ml: float,
        alt_media_ml: float,
    ) -> float:
        """One step. ``warmth``: θ(T) at its beginning, middle and end.

        Within it media and alt media join the bulk evenly, which changes by
        ``bulk_change_ml``, and what leaves leaves mixed. Returns by how much the
        step changed what changed most, as a fraction of it.
        """
        alive = self.content == CULTURE
        death = DEATH_PER_S if alive else 0.0
        inflow, alt_inflow = (media_ml + alt_media_ml) / seconds, alt_media_ml / seconds

        def rates(
            at_s: float, theta: float, biomass: float, substrate: float, alt: float
        ) -> tuple[float, float, float]:
            growth = 0.0
            if alive and substrate > 0:
                lag = -math.expm1(-(self.age_s + at_s) / LAG_S)
                growth = _growth_per_s(substrate, alt) * theta * stirred * lag
            if inflow == 0:
                dilution = alt_dilution = 0.0
            else:
                present_ml = max(SMALLEST_BULK_ML, bulk_ml + bulk_change_ml * at_s / seconds)
                dilution, alt_dilution = inflow / present_ml, alt_inflow / present_ml
            return (
                (growth - death - dilution) * biomass,
                dilution * (MEDIA_SUBSTRATE - substrate) - growth * biomass / BIOMASS_PER_SUBSTRATE,
                alt_dilution - dilution * alt,
            )

        x, s, a = self.biomass, self.substrate, self.alt_media_fraction
        half = seconds / 2
        x1, s1, a1 = rates(0.0, warmth[0], x, s, a)
        x2, s2, a2 = rates(half, warmth[1], x + half * x1, s + half * s1, a + half * a1)
        x3, s3, a3 = rates(half, warmth[1], x + half * x2, s + half * s2, a + half * a2)
        x4, s4, a4 = rates(seconds, warmth[2], x + seconds * x3, s + seconds * s3, a + seconds * a3)
        sixth = seconds / 6
        self._set_biomass(x + sixth * (x1 + 2 * x2 + 2 * x3 + x4))
        substrate = s + sixth * (s1 + 2 * s2 + 2 * s3 + s4)
        self.substrate = 0.0 if substrate < EXHAUSTED else substrate
        self.alt_media_fraction = min(1.0, max(0.0, a + sixth * (a1 + 2 * a2 + 2 * a3 + a4)))
        self.age_s += seconds
        now = self.biomass, self.substrate, self.alt_media_fraction
        return max(
            abs(new - old) / max(abs(old), EXTINCT) for new, old in zip(now, (x, s, a), strict=True)
        )

    def truth(self, warmth: float, stirred: float) -> dict[str, object]:
        growth = self.growth_per_s(warmth, stirred)
        death = DEATH_PER_S if self.content == CULTURE else 0.0
        return {
            "content": self.content,
            "biomass": self.biomass,
            "od": self.biomass,
            "substrate": self.substrate,
            "alt_media_fraction": self.alt_media_fraction,
            "inhibitor": INHIBITOR_IN_ALT_MEDIA * self.alt_media_fraction,
            "age_h": self.age_s / HOUR_S,
            "mu_per_h": growth * HOUR_S,
            "net_growth_per_h": (growth - death) * HOUR_S,
        }

    def patch(self, fields: Fields) -> Callable[[], None]:
        """What to call to make the change that ``fields`` asks for; BadRequest."""
        new = Culture()
        if "vial" in fields:
            new._put_in(fields.value("vial"))
        else:
            new.content, new.age_s = self.content, self.age_s
            new.biomass, new.substrate = self.biomass, self.substrate
            new.alt_media_fraction = self.alt_media_fraction
        for name in ("biomass", "od"):
            if name in fields:
                new.biomass = fields.number(name, 0, MAX_BIOMASS)
        if "substrate" in fields:
            new.substrate = fields.number("substrate", 0, 1000)
        if "alt_media_fraction" in fields:
            new.alt_media_fraction = fields.number("alt_media_fraction", 0, 1)
        if "age_h" in fields:
            new.age_s = fields.number("age_h", 0, 1e6) * HOUR_S
        return lambda: self.__dict__.update(new.__dict__)

    def _put_in(self, value: object) -> None:
        vial = Fields(value, "vial", ("standard_od", "biomass"))
        if "standard_od" in vial:
            Fields(value, "vial of a standard", ("standard_od",))
            self.content, self.substrate = STANDARD, 0.0
            self.biomass = vial.number("standard_od", 0, MAX_BIOMASS)
        elif "biomass" in vial:
            self.biomass = vial.number("biomass", 0, MAX_BIOMASS)

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.STATE}

    @classmethod
    def from_json(cls, state: object) -> Culture:
        fields = Fields(state, "culture", cls.STATE)
        culture = cls()
        culture.content = fields.choice("content", (CULTURE, STANDARD))
        culture.biomass = fields.number("biomass", 0, MAX_BIOMASS)
        culture.substrate = fields.number("substrate", 0, 1000)
        culture.alt_media_fraction = fields.number("alt_media_fraction", 0, 1)
        culture.age_s = fields.number("age_s", 0, MAX_AGE_S)
        return culture

    def _set_biomass(self, biomass: float) -> None:
        self.biomass = 0.0 if biomass < EXTINCT else biomass


def warmth_of(celsius: float) -> float:
    """θ(T): how well it grows at that temperature, 1 at the best."""
    if not MIN_CELSIUS < celsius < MAX_CELSIUS:
        return 0.0
    if celsius > BEST_CELSIUS:
        return (MAX_CELSIUS - celsius) / (MAX_CELSIUS - BEST_CELSIUS)
    return ((celsius - MIN_CELSIUS) / (BEST_CELSIUS - MIN_CELSIUS)) ** 2


def stirring_of(rpm: float) -> float:
    """m(rpm): how well it grows at that speed."""
    return UNSTIRRED_GROWTH + (1 - UNSTIRRED_GROWTH) * min(1.0, rpm / WELL_STIRRED_RPM)


def _growth_per_s(substrate: float, alt: float) -> float:
    """µ but for temperature, stirring and lag."""
    inhibition = alt * INHIBITOR_IN_ALT_MEDIA / INHIBITION
    fed = substrate / (HALF_SATURATION + substrate)
    return MAX_GROWTH_PER_S * fed / (1 + inhibition * inhibition)
