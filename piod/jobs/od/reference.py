"""The brightness of the IR LED, as the REF photodiode sees it, to divide signals by.

An LED dims as it warms and ages; REF sees only that, the culture does not reach it. The
tracker smooths REF and holds still while REF is unsteady. Source: handbook
jobs-and-hardware §2.2.

* ``unity``: OD = V·R₀/m, in volts, R₀ being the first REF of the experiment: it survives
  a restart (:class:`FirstReference`).
* ``classic``: OD = V/m, a ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from piod.calibrations.fields import read_mapping, read_number, required, wrong
from piod.errors import BadRequest, ConfigurationError, Unavailable
from piod.events import JsonValue
from piod.jobs.exponential import ExponentialMean, ExponentialStd

_STD_KEEP, _STD_MEAN_KEEP, _FIRST_STD = 0.95, 0.8, 0.001
_STEADY_STD = 0.025
"""Largest steady spread, at one reading each 5 s; it grows with the root of the interval."""
_USUAL_INTERVAL_S = 5.0


class Normalization(Enum):
    """``[od_reading.config] ref_normalization``."""

    UNITY = "unity"
    CLASSIC = "classic"

    @classmethod
    def named(cls, name: str) -> Normalization:
        """Raises ConfigurationError for a name that is neither."""
        try:
            return cls(name.strip().lower())
        except ValueError:
            raise ConfigurationError(
                f"[od_reading.config] ref_normalization must be unity or classic, not {name!r}"
            ) from None


class ReferenceLost(Unavailable):
    """REF sees no light, so nothing can be divided by it."""

    default_remediation = (
        "Check that the IR LED and the REF photodiode are connected as [leds] and "
        "[od_config.photodiode_channel] say."
    )


@dataclass(frozen=True)
class FirstReference:
    """The first REF voltage of an experiment: what ``unity`` counts as 1."""

    volts: float

    def to_json(self) -> JsonValue:
        return {"volts": self.volts}

    @classmethod
    def from_json(cls, value: object) -> FirstReference:
        """Raises BadRequest if ``value`` is not what :meth:`to_json` gives."""
        volts = read_number(required(read_mapping(value, "first_reference"), "volts"), "volts")
        if volts <= 0:
            raise wrong("volts", "must be above 0", volts)
        return cls(volts)


class ReferenceTracker:
    """Follows REF and divides signals by it.

    ``ema_keep`` is ``pd_reference_ema``, the weight of the old mean; ``first`` what an
    earlier run of the experiment kept, for ``unity``. Raises ConfigurationError or
    BadRequest for numbers that cannot be.
    """

    def __init__(
        self,
        normalization: Normalization,
        *,
        interval_s: float,
        ema_keep: float = 0.75,
        first: FirstReference | None = None,
    ) -> None:
        if not 0 <= ema_keep < 1:
            raise ConfigurationError(
                f"[od_reading.config] pd_reference_ema must be from 0 to below 1, not {ema_keep}"
            )
        if not 0 < interval_s < math.inf:
            raise BadRequest(f"the interval of OD readings must be above 0 s, not {interval_s}")
        self.first = first
        """What to keep for the next run; None until REF was seen, and for ``classic``."""
        self._unity = normalization is Normalization.UNITY
        self._interval_s = interval_s
        self._brightness = ExponentialMean(ema_keep)
        self._spread = ExponentialStd(_STD_KEEP, _STD_MEAN_KEEP, variance=_FIRST_STD**2)

    @property
    def brightness(self) -> float | None:
        """m: relative to the first REF (``unity``) or in volts; None before the first REF."""
        return self._brightness.mean

    def update(self, ref_volts: float) -> bool:
        """Follow a REF reading. False: it is unsteady, and the brightness is held.

        Raises ReferenceLost, changing nothing, if REF is not above 0.
        """
        if not 0 < ref_volts < math.inf:
            raise ReferenceLost(f"the REF photodiode reads {ref_volts} V: it sees no light")
        if self._unity and self.first is None:
            self.first = FirstReference(ref_volts)
        value = ref_volts / self.first.volts if self._unity and self.first else ref_volts
        limit = _STEADY_STD * math.sqrt(self._interval_s / _USUAL_INTERVAL_S)
        if self._spread.update(value) > limit and self._brightness.mean is not None:
            self._spread.reset()
            return False
        self._brightness.update(value)
        return True

    def normalise(self, volts: float) -> float:
        """The OD of a signal of ``volts``. Raises ReferenceLost before the first REF."""
        if self._brightness.mean is None:
            raise ReferenceLost("the REF photodiode has not been read yet")
        return volts / self._brightness.mean

    def retime(self, interval_s: float) -> None:
        """Readings come every ``interval_s`` from now on. Raises BadRequest unless above 0."""
        if not 0 < interval_s < math.inf:
            raise BadRequest(f"the interval of OD readings must be above 0 s, not {interval_s}")
        self._interval_s = interval_s

    def relight(self, factor: float) -> None:
        """The LED was set to ``factor`` times its intensity: expect REF to follow at once.

        Otherwise the mean would lag, and every OD would jump with the light. Raises
        BadRequest unless ``factor`` is above 0.
        """
        if not 0 < factor < math.inf:
            raise BadRequest(f"the light cannot change by a factor of {factor}")
        if self._brightness.mean is not None:
            self._brightness.mean *= factor
        self._spread.reset()
