"""The growth rate: an extended Kalman filter over normalised OD.

The state is the normalised OD N, which grows as dN/dt = rN, and the rate r per hour. A
photodiode sees N, the one at 180° e^{−(N−1)}. What the noise of each is, is learned on
the way. A reading far off (a bubble) is an outlier and moves the state little; a dose of
media changes N in truth, which the reading after it is flagged for.

Source: handbook jobs-and-hardware §2.4, with these differences:

* the reading after a dose moves N as far as it says, even beyond the limit of outliers,
  and leaves the learned noise alone (:attr:`FilterSettings.doses_override_outliers`);
* channels are known by name: readings, noise and angles cannot come out of step;
* readings that were missed count as so many steps of process noise, and after a gap
  longer than :data:`LONGEST_GAP_H` the OD starts anew at the reading;
* residuals that stay on one side say that the rate lags, and let it follow, but for a while
  after a dose (:attr:`FilterSettings.notices_lag`). Upstream learns the lag as noise of the
  photodiodes instead: two to three hours pass until the rate of a fresh culture is found, the
  more photodiodes the longer;
* outliers that do not end are believed. Upstream shuts itself out for ever when readings
  are smooth and its rate lags: the rate is frozen, the variance doubles until it is NaN;
* nothing grows without bound, and the covariance stays symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from piod.errors import BadRequest, ConfigurationError
from piod.jobs.exponential import ExponentialStd
from piod.jobs.growth.normalisation import UnusableReadings
from piod.jobs.growth.state import FASTEST_PER_H, LEAST_OD, MOST_OD, FilterState
from piod.jobs.linear import solve
from piod.jobs.pid import clamp

TRANSMISSION_ANGLE = "180"

LONGEST_GAP_H = 0.5
"""A rate carried on for longer than this says too little of the OD."""

_LARGEST_CORRELATION = 1 - 1e-9
"""Channels that agree to the last bit would leave nothing to solve."""
_FIRST_OD_STD, _FIRST_RATE_STD = 0.04, 0.01
_NOISE_KEEP = 0.97
_RESIDUAL_KEEP, _RESIDUAL_MEAN_KEEP = 0.975, 0.80
_UNKNOWN_STD = 10_000.0
"""What a spread of 0 counts as: no reading is an outlier yet."""
_LEAST_NOISE = 1e-10
_LEAST_VARIANCE = 1e-18
_LEAST_DOSE_VARIANCE = 1e-12
_DOSE_PART = 0.25
"""Variance that a dose adds, as a part of the squared OD."""
_SURPRISE = 9.0
"""Residual² over its expected variance above which the rate is taken to be changing."""
_LAG = 16.0
"""Mean residual² over the variance of that mean above which the rate lags."""
_LAG_GROWTH, _LAG_NOISE_AT_MOST = 1.1, 10.0
"""What the rate's noise grows by while it does, and up to, times its configured value."""
_LAG_UNDISTURBED = 120
"""So many readings after a dose its bubbles and its mixing still keep residuals on one side."""
_RATE_NOISE_RETURN = 0.05
_RATE_NOISE_AT_MOST = 1e6
"""Times its configured value; in between it may double at every surprise."""
_FAR_BELIEVED = 12
"""After so many outliers in a row it is the culture that has changed."""


@dataclass(frozen=True)
class Sensor:
    """A photodiode: its channel (``"1"`` to ``"4"``) and its angle in degrees."""

    channel: str
    angle: str


@dataclass(frozen=True)
class FilterSettings:
    """``[growth_rate_kalman]``, ``ekf_outlier_std_threshold`` and the time between readings.

    Raises ConfigurationError for values that cannot be.
    """

    expected_interval_h: float
    od_std: float = 0.0025
    rate_std: float = 0.25
    obs_std: float = 1.0
    outlier_std_threshold: float = 5.0
    doses_override_outliers: bool = True
    notices_lag: bool = True

    def __post_init__(self) -> None:
        for name, value in (
            ("the interval of OD readings", self.expected_interval_h),
            ("[growth_rate_kalman] od_std", self.od_std),
            ("[growth_rate_kalman] rate_std", self.rate_std),
            ("[growth_rate_kalman] obs_std", self.obs_std),
        ):
            if not 0 < value < math.inf:
                raise ConfigurationError(f"{name} must be above 0, not {value}")
        if not 2 < self.outlier_std_threshold < math.inf:
            raise ConfigurationError(
                "[growth_rate_calculating.config] ekf_outlier_std_threshold must be above 2, "
                f"not {self.outlier_std_threshold}: ordinary noise would count as outliers"
            )


@dataclass(frozen=True)
class Growth:
    """What one reading led to: normalised OD, rate per hour, and how the reading was taken."""

    od: float
    rate_per_h: float
    is_outlier: bool
    is_restart: bool
    """The OD starts anew here: the gap before was too long."""


class GrowthFilter:
    """Follows normalised OD and growth rate, one reading at a time.

    ``sensors`` are taken in the order of their channels, whatever order they come in;
    the first of them tells outliers. ``state`` comes from :meth:`fresh` or was kept.
    Raises BadRequest if the state is of another number of sensors.
    """

    def __init__(
        self, settings: FilterSettings, sensors: Sequence[Sensor], state: FilterState
    ) -> None:
        self._settings = settings
        self._sensors = sorted(sensors, key=lambda sensor: sensor.channel)
        if len(state.noise) != len(sensors):
            raise BadRequest(
                f"the kept state of growth is of {len(state.noise)} photodiodes, not {len(sensors)}"
            )
        self.state = state

    @classmethod
    def fresh(
        cls,
        settings: FilterSettings,
        sensors: Sequence[Sensor],
        variances: Mapping[str, float],
        *,
        od: float = 1.0,
        rate_per_h: float = 0.0,
    ) -> GrowthFilter:
        """A filter that knows ``od``, the rate, and the variance of each channel's OD.

        Raises BadRequest for channels without a variance and numbers that cannot be.
        """
        ordered = sorted(sensors, key=lambda sensor: sensor.channel)
        if not ordered or any(sensor.channel not in variances for sensor in ordered):
            raise BadRequest("growth needs the variance of each photodiode's OD")
        diagonal = [
            max(settings.obs_std**2 * variances[sensor.channel], _LEAST_NOISE) for sensor in ordered
        ]
        state = FilterState(
            od=od,
            rate_per_h=rate_per_h,
            od_variance=_FIRST_OD_STD**2,
            covariance=0.0,
            rate_variance=_FIRST_RATE_STD**2,
            noise=tuple(
                tuple(value if row == column else 0.0 for column in range(len(diagonal)))
                for row, value in enumerate(diagonal)
            ),
            rate_noise=(settings.rate_std * settings.expected_interval_h) ** 2,
            residual_variance=diagonal[0],
            residual_mean=None,
            far_in_a_row=0,
            undisturbed_in_a_row=_LAG_UNDISTURBED,
        )
        state.check()
        return cls(settings, ordered, state)

    def step(self, reading: Mapping[str, float], dt_h: float, *, dosed: bool = False) -> Growth:
        """Take in the normalised OD by channel, ``dt_h`` hours after the last one.

        ``dt_h`` is 0 for the first reading. ``dosed``: media was added or exchanged since
        the last one. Raises UnusableReadings, changing nothing, if a channel is missing,
        an OD is not above 0 or ``dt_h`` is below 0.
        """
        if not 0 <= dt_h < math.inf:
            raise UnusableReadings(f"an OD reading is {dt_h} h after the one before it")
        seen = [self._seen(reading, sensor) for sensor in self._sensors]
        if dt_h > LONGEST_GAP_H:
            return self._restart(seen)
        return self._filter(seen, dt_h, dosed)

    def _seen(self, reading: Mapping[str, float], sensor: Sensor) -> float:
        value = reading.get(sensor.channel)
        if value is None or not 0 < value <= MOST_OD:
            raise UnusableReadings(
                f"the normalised OD of channel {sensor.channel} is "
                f"{'missing' if value is None else value}"
            )
        return value

    def _restart(self, seen: Sequence[float]) -> Growth:
        ods = [
            1 - math.log(value) if sensor.angle == TRANSMISSION_ANGLE else value
            for sensor, value in zip(self._sensors, seen, strict=True)
        ]
        old = self.state
        self.state = FilterState(
            od=clamp(LEAST_OD, sum(ods) / len(ods), MOST_OD),
            rate_per_h=old.rate_per_h,
            od_variance=_FIRST_OD_STD**2,
            covariance=0.0,
            rate_variance=max(old.rate_variance, _FIRST_RATE_STD**2),
            noise=old.noise,
            rate_noise=old.rate_noise,
            residual_variance=old.residual_variance,
            residual_mean=old.residual_mean,
            far_in_a_row=0,
            undisturbed_in_a_row=0,
        )
        return Growth(self.state.od, self.state.rate_per_h, is_outlier=False, is_restart=True)

    def _filter(self, seen: Sequence[float], dt_h: float, dosed: bool) -> Growth:
        settings, old = self._settings, self.state

        # Predict. The derivative of (N·e^{r·dt}, r) is ((growth, lever), (0, 1)).
        growth = math.exp(old.rate_per_h * dt_h)
        od = clamp(LEAST_OD, old.od * growth, MOST_OD)
        lever = od * dt_h
        steps = max(1, round(dt_h / settings.expected_interval_h))
        od_noise = (settings.od_std * settings.expected_interval_h) ** 2
        if dosed:
            od_noise += max(_LEAST_DOSE_VARIANCE, _DOSE_PART * old.od**2)
        p_od = (
            growth**2 * old.od_variance
            + 2 * growth * lever * old.covariance
            + lever**2 * old.rate_variance
            + steps * od_noise
        )
        p_cross = growth * old.covariance + lever * old.rate_variance
        p_od = min(p_od, MOST_OD**2)
        p_rate = min(old.rate_variance + steps * old.rate_noise, FASTEST_PER_H**2)

        # Compare with what was seen.
        expected, slopes = self._expected(od)
        residuals = [value - mean for value, mean in zip(seen, expected, strict=True)]
        spread = ExponentialStd(
            _RESIDUAL_KEEP, _RESIDUAL_MEAN_KEEP, old.residual_variance, old.residual_mean
        )
        limit = settings.outlier_std_threshold * (spread.std or _UNKNOWN_STD)
        excused = dosed and settings.doses_override_outliers
        is_far = abs(residuals[0]) > limit and not excused
        is_outlier = is_far and old.far_in_a_row < _FAR_BELIEVED
        if not excused:
            spread.update(residuals[0])
        noise = old.noise
        if dosed:
            p_cross = 0.0
        elif is_outlier:
            p_od *= 2
        else:
            noise = _learned(noise, residuals)

        # Correct. The OD alone is observed, so the gain is (p_od, p_cross) times one vector.
        weights = _weights(noise, slopes, p_od)
        od_gains = [p_od * weight for weight in weights]
        rate_gains = [p_cross * weight for weight in weights]
        if is_outlier:
            od_gains[0] *= limit / abs(residuals[0])
            rate_gains[0] = 0.0
        od_pull = _dot(od_gains, slopes)
        rate_pull = _dot(rate_gains, slopes)
        rate = old.rate_per_h + _dot(rate_gains, residuals)

        # A gain cut down for one sensor of several, or rounding, must not make a variance 0.
        od_variance = max((1 - od_pull) * p_od, _LEAST_VARIANCE)
        rate_variance = max(p_rate - rate_pull * p_cross, _LEAST_VARIANCE)
        most = math.sqrt(od_variance * rate_variance)
        covariance = ((1 - od_pull) * p_cross + p_cross - rate_pull * p_od) / 2

        undisturbed = 0 if dosed else old.undisturbed_in_a_row + 1
        surprise = residuals[0] ** 2 / (slopes[0] ** 2 * p_od + noise[0][0])
        baseline = (settings.rate_std * settings.expected_interval_h) ** 2
        if surprise > _SURPRISE:
            rate_noise = min(2 * old.rate_noise, _RATE_NOISE_AT_MOST * baseline)
        elif (
            settings.notices_lag
            and old.rate_noise < _LAG_NOISE_AT_MOST * baseline
            and undisturbed > _LAG_UNDISTURBED
            and not is_outlier
            and _is_one_sided(spread)
        ):
            rate_noise = _LAG_GROWTH * old.rate_noise
        else:
            rate_noise = old.rate_noise + _RATE_NOISE_RETURN * (baseline - old.rate_noise)

        self.state = FilterState(
            od=clamp(LEAST_OD, od + _dot(od_gains, residuals), MOST_OD),
            rate_per_h=clamp(-FASTEST_PER_H, rate, FASTEST_PER_H),
            od_variance=od_variance,
            covariance=clamp(-most, covariance, most),
            rate_variance=rate_variance,
            noise=noise,
            rate_noise=rate_noise,
            residual_variance=spread.variance or 0.0,
            residual_mean=spread.mean,
            far_in_a_row=old.far_in_a_row + 1 if is_far else 0,
            undisturbed_in_a_row=undisturbed,
        )
        return Growth(self.state.od, self.state.rate_per_h, is_outlier, is_restart=False)

    def _expected(self, od: float) -> tuple[list[float], list[float]]:
        """What each sensor would see at ``od``, and how that changes with it."""
        through = math.exp(1 - od)
        sees_through = [sensor.angle == TRANSMISSION_ANGLE for sensor in self._sensors]
        return (
            [through if transmitted else od for transmitted in sees_through],
            [-through if transmitted else 1.0 for transmitted in sees_through],
        )


def _is_one_sided(residuals: ExponentialStd) -> bool:
    """Whether their mean is further from 0 than that of so much noise would be."""
    of_mean = (1 - _RESIDUAL_MEAN_KEEP) / (1 + _RESIDUAL_MEAN_KEEP) * (residuals.variance or 0.0)
    return (residuals.mean or 0.0) ** 2 > _LAG * of_mean


def _learned(
    noise: Sequence[Sequence[float]], residuals: Sequence[float]
) -> tuple[tuple[float, ...], ...]:
    """The covariance of the observations with these residuals in it."""
    learned = [
        [
            _NOISE_KEEP * value + (1 - _NOISE_KEEP) * (one * other)
            for value, other in zip(row, residuals, strict=True)
        ]
        for row, one in zip(noise, residuals, strict=True)
    ]
    for index, row in enumerate(learned):
        row[index] = max(row[index], _LEAST_NOISE)
    return tuple(map(tuple, learned))


def _weights(
    noise: Sequence[Sequence[float]], slopes: Sequence[float], od_variance: float
) -> list[float]:
    """S⁻¹h, S = noise + od_variance·h·hᵀ being the covariance of the residuals, h the slopes.

    By the formula of Sherman and Morrison, so that only ``noise`` need be solved for.
    """
    tempered = [
        [value if i == j else value * _LARGEST_CORRELATION for j, value in enumerate(row)]
        for i, row in enumerate(noise)
    ]
    alone = solve(tempered, slopes)
    share = 1 / (1 + od_variance * _dot(slopes, alone))
    return [share * weight for weight in alone]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
