"""Estimators: what an estimator file says, and the OD that it makes of readings.

There is one type, :class:`FusedEstimator` (``od_fused_estimator``, device
``od_fused``): a model of what the photodiodes at several angles read at each
OD. :func:`parse_estimator` reads the YAML text of one. Source: handbook
unit-api.md §3.3 and §3.5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import ClassVar

from piod.calibrations.curves import AkimaCurve, BrokenCurve, CurveError, SplineCurve
from piod.calibrations.fields import (
    Fields,
    InvalidRecord,
    parse_fields,
    read_choice,
    read_curve,
    read_instant,
    read_json,
    read_list,
    read_mapping,
    read_number,
    read_text,
    required,
)

FUSED_DEVICE = "od_fused"
ANGLES = ("45", "90", "135")

LOW_DENSITY_SCALES: Mapping[str, float] = {"45": 10.0, "90": 4.0, "135": 0.04}
"""How much wider an angle's spread counts in a thin culture: 135° is the one to go by there."""

_THIN_LOGC, _DENSE_LOGC = -2.5, -0.1
"""Where those scales hold, and from where on none does; between them they fade (log10 OD)."""

_LEAST_READING = 1e-12
_LEAST_SLOPE = 0.05  # a flat model tells little, but not nothing
_GRID_POINTS = 256
_REFINED_MINIMA = 4
_GOLDEN_STEPS = 64
_NARROW_LOGC = 1e-6
_MAX_LOGC = 30  # beyond any culture, and 10^x stays a number
_GOLDEN = (math.sqrt(5) - 1) / 2


class MissingAngle(CurveError):
    """The estimator goes by an angle that was not read."""

    default_remediation = (
        "Connect photodiodes at all angles of the estimator, or use another estimator."
    )


@dataclass(frozen=True)
class FusedEstimator:
    """A fused OD estimator. Names are those of the file.

    Curves go from log10 OD, within ``min_logc`` to ``max_logc``, to the mean of
    ln(reading) (``mu_splines``) and to the ln of its spread
    (``sigma_splines_log``), by angle. ``raw`` is the whole record as it was
    read, with keys that piod does not know.
    """

    estimator_type: ClassVar[str] = "od_fused_estimator"

    estimator_name: str
    calibrated_on_pioreactor_unit: str
    created_at: datetime
    ir_led_intensity: float
    angles: tuple[str, ...]
    mu_splines: Mapping[str, SplineCurve]
    sigma_splines_log: Mapping[str, SplineCurve]
    min_logc: float
    max_logc: float
    sigma_floor: float
    recorded_data: Mapping[str, object]
    y: str
    low_conc_scales: Mapping[str, float]
    raw: Fields

    def estimate(self, readings: Mapping[str, float]) -> float:
        """The OD at which ``readings`` (by angle; other angles are ignored) are most likely.

        It lies within 10^min_logc to 10^max_logc. Raises MissingAngle, and
        BrokenCurve when the model cannot be evaluated.
        """
        observed = [self._observed(readings, angle) for angle in self.angles]
        grid = self._grid
        costs = [_cost(observed, expected) for _, expected in grid]
        last = len(grid) - 1
        minima = [
            index
            for index, cost in enumerate(costs)
            if cost <= costs[max(index - 1, 0)] and cost <= costs[min(index + 1, last)]
        ]
        minima = sorted(minima, key=lambda index: costs[index])[:_REFINED_MINIMA]
        refined = [
            self._refined(observed, grid[max(index - 1, 0)][0], grid[min(index + 1, last)][0])
            for index in minima
        ]
        best = min(refined, key=lambda logc: _cost(observed, self._expected(logc)))
        return math.pow(10.0, best)

    def _observed(self, readings: Mapping[str, float], angle: str) -> float:
        reading = readings.get(angle, math.nan)
        if not math.isfinite(reading):
            raise MissingAngle(f"the estimator {self.estimator_name!r} needs a reading at {angle}°")
        return math.log(max(reading, _LEAST_READING))

    @cached_property
    def _grid(self) -> Sequence[tuple[float, _Expected]]:
        """What is expected at equal steps of log10 OD; it does not depend on readings."""
        if not self.angles:
            raise BrokenCurve(f"the estimator {self.estimator_name!r} has no angles")
        if not -_MAX_LOGC <= self.min_logc < self.max_logc <= _MAX_LOGC:
            raise BrokenCurve(
                f"min_logc of the estimator {self.estimator_name!r} must be less than max_logc, "
                f"both within ±{_MAX_LOGC}"
            )
        step = (self.max_logc - self.min_logc) / (_GRID_POINTS - 1)
        places = [self.min_logc + index * step for index in range(_GRID_POINTS)]
        return [(logc, self._expected(logc)) for logc in places]

    def _refined(self, observed: Sequence[float], low: float, high: float) -> float:
        """The place of the least cost between ``low`` and ``high``, by golden section."""
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        at_left, at_right = (_cost(observed, self._expected(logc)) for logc in (left, right))
        for _ in range(_GOLDEN_STEPS):
            if high - low <= _NARROW_LOGC:
                break
            if at_left < at_right:
                high, right, at_right = right, left, at_left
                left = high - _GOLDEN * (high - low)
                at_left = _cost(observed, self._expected(left))
            else:
                low, left, at_left = left, right, at_right
                right = low + _GOLDEN * (high - low)
                at_right = _cost(observed, self._expected(right))
        return (low + high) / 2

    def _expected(self, logc: float) -> _Expected:
        """Mean of ln(reading), and its spread in terms of log10 OD, for each angle."""
        expected = []
        for angle in self.angles:
            mu, sigma_log = self.mu_splines.get(angle), self.sigma_splines_log.get(angle)
            if mu is None or sigma_log is None:
                raise BrokenCurve(
                    f"the estimator {self.estimator_name!r} lacks a curve for {angle}°"
                )
            try:
                spread = max(math.exp(sigma_log.evaluate(logc)), self.sigma_floor)
            except OverflowError as error:
                raise BrokenCurve("sigma_splines_log has no finite value here") from error
            slope = max(abs(mu.slope(logc)), _LEAST_SLOPE)
            spread = spread / slope * self._scale(angle, logc)
            if not spread > 0:
                raise BrokenCurve(
                    f"the spread of the estimator {self.estimator_name!r} is not above 0"
                )
            expected.append((mu.evaluate(logc), spread))
        return expected

    def _scale(self, angle: str, logc: float) -> float:
        """A file that brings its own scales was made for them to fade over its own range."""
        if self.low_conc_scales:
            thin, dense = self.min_logc, self.max_logc
            low = self.low_conc_scales.get(angle, LOW_DENSITY_SCALES[angle])
        else:
            thin, dense = _THIN_LOGC, _DENSE_LOGC
            low = LOW_DENSITY_SCALES[angle]
        faded = min(max((logc - thin) / (dense - thin), 0.0), 1.0)
        return low + (1.0 - low) * faded


_Expected = Sequence[tuple[float, float]]


def _cost(observed: Sequence[float], expected: _Expected) -> float:
    """How unlikely what was observed is; of outliers, only in proportion to their distance."""
    cost = 0.0
    for value, (mean, spread) in zip(observed, expected, strict=True):
        cost += math.hypot(1.0, (value - mean) / spread) - 1.0 + math.log(spread)
    return cost


def parse_estimator(text: str) -> FusedEstimator:
    """The estimator that ``text`` (YAML) describes.

    Whether its curves can be evaluated is not checked. Raises InvalidRecord.
    """
    return _estimator(parse_fields(text, "the estimator"))


def estimator_from_json(told: object) -> FusedEstimator:
    """The estimator that a unit has told as JSON; see :func:`parse_estimator`."""
    if not isinstance(told, dict):
        raise InvalidRecord(f"an estimator must be a JSON object, got {type(told).__name__}")
    raw: dict[str, object] = {str(key): value for key, value in told.items()}
    created_at = raw.get("created_at")
    if isinstance(created_at, str):
        try:
            raw["created_at"] = datetime.fromisoformat(created_at)
        except ValueError as error:
            raise InvalidRecord(f"created_at is no time: {created_at[:80]!r}") from error
    return _estimator(raw)


def _estimator(raw: Fields) -> FusedEstimator:
    kinds = (FusedEstimator.estimator_type,)
    read_choice(required(raw, "estimator_type"), "estimator_type", kinds)
    unit = "calibrated_on_pioreactor_unit"
    recorded_data = read_mapping(required(raw, "recorded_data"), "recorded_data")
    return FusedEstimator(
        estimator_name=read_text(required(raw, "estimator_name"), "estimator_name"),
        calibrated_on_pioreactor_unit=read_text(required(raw, unit), unit),
        created_at=read_instant(required(raw, "created_at"), "created_at"),
        ir_led_intensity=read_number(required(raw, "ir_led_intensity"), "ir_led_intensity"),
        angles=tuple(
            read_choice(angle, f"angles[{index}]", ANGLES)
            for index, angle in enumerate(read_list(required(raw, "angles"), "angles"))
        ),
        mu_splines=_curves(raw, "mu_splines"),
        sigma_splines_log=_curves(raw, "sigma_splines_log"),
        min_logc=read_number(required(raw, "min_logc"), "min_logc"),
        max_logc=read_number(required(raw, "max_logc"), "max_logc"),
        sigma_floor=read_number(required(raw, "sigma_floor"), "sigma_floor"),
        recorded_data={
            key: read_json(value, f"recorded_data.{key}") for key, value in recorded_data.items()
        },
        y=read_text(raw.get("y", "log(Voltage)"), "y"),
        low_conc_scales={
            read_choice(angle, "low_conc_scales", ANGLES): read_number(
                scale, f"low_conc_scales.{angle}", minimum=0
            )
            for angle, scale in _by_angle(raw.get("low_conc_scales", {}), "low_conc_scales")
        },
        raw=raw,
    )


def _curves(raw: Fields, key: str) -> Mapping[str, SplineCurve]:
    curves: dict[str, SplineCurve] = {}
    for angle, value in _by_angle(required(raw, key), key):
        curve = read_curve(value, f"{key}.{angle}", (AkimaCurve.type,))
        assert isinstance(curve, AkimaCurve)
        curves[angle] = curve
    return curves


def _by_angle(value: object, where: str) -> Sequence[tuple[str, object]]:
    return [
        (read_choice(angle, f"{where}: a key", ANGLES), item)
        for angle, item in read_mapping(value, where).items()
    ]
