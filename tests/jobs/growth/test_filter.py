"""The growth filter: the handbook's vectors, and what holds for any culture."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piod.errors import BadRequest, ConfigurationError
from piod.jobs.growth.filter import FilterSettings, Growth, GrowthFilter, Sensor
from piod.jobs.growth.normalisation import Normalisation, OdStatistics, UnusableReadings
from piod.jobs.growth.state import FilterState

INTERVAL_H = 5 / 3600
ONE = [Sensor("1", "90")]
THREE = [Sensor("1", "45"), Sensor("2", "90"), Sensor("3", "180")]


def growth_filter(
    variance: float = 1e-3,
    *,
    sensors: Sequence[Sensor] = ONE,
    overriding: bool = True,
    notices_lag: bool = True,
    rate_per_h: float = 0.0,
) -> GrowthFilter:
    return GrowthFilter.fresh(
        FilterSettings(INTERVAL_H, doses_override_outliers=overriding, notices_lag=notices_lag),
        sensors,
        {sensor.channel: variance for sensor in sensors},
        rate_per_h=rate_per_h,
    )


def feed(filter_: GrowthFilter, *ods: float, dosed: bool = False) -> list[Growth]:
    return [filter_.step({"1": od}, INTERVAL_H, dosed=dosed) for od in ods]


# The vectors of the handbook, §2.4.


def test_it_gives_the_vectors_of_a_growing_culture() -> None:
    filter_ = growth_filter(1e-3, overriding=False)
    growing = feed(filter_, 1.00, 1.01, 1.02)
    ods = [growth.od for growth in growing]
    assert ods == pytest.approx([1.0, 1.00390163, 1.00849167], abs=5e-9)
    rates = [growth.rate_per_h for growth in growing]
    assert rates == pytest.approx([0.0, 1.2371e-6, 4.4345e-6], abs=5e-11)
    (dosed,) = feed(filter_, 0.9, dosed=True)
    assert dosed.od == pytest.approx(0.90039216, abs=5e-9)
    assert dosed.rate_per_h == growing[-1].rate_per_h


def test_it_gives_the_vectors_of_an_outlier() -> None:
    filter_ = growth_filter(1e-4)
    before = feed(filter_, 1.00, 1.01, 1.02)[-1]
    assert before.od == pytest.approx(1.00966614, abs=5e-9)
    assert before.rate_per_h == pytest.approx(2.98411e-5, abs=5e-11)
    (outlier,) = feed(filter_, 0.9)
    assert outlier.is_outlier
    assert outlier.od == pytest.approx(0.99018747, abs=5e-9)
    assert outlier.rate_per_h == before.rate_per_h


def test_without_the_override_a_dose_beyond_the_limit_is_damped_as_in_the_vectors() -> None:
    filter_ = growth_filter(1e-4, overriding=False)
    feed(filter_, 1.00, 1.01, 1.02)
    (dosed,) = feed(filter_, 0.9, dosed=True)
    assert dosed.od == pytest.approx(0.95956853, abs=5e-9)
    (after,) = feed(filter_, 0.9)
    assert after.od == pytest.approx(0.90008785, abs=5e-9)
    assert after.rate_per_h == pytest.approx(2.97836e-5, abs=5e-11)


def test_a_dose_overrides_the_outlier_rule() -> None:
    filter_ = growth_filter(1e-4)
    feed(filter_, 1.00, 1.01, 1.02)
    before = filter_.state
    (dosed,) = feed(filter_, 0.9, dosed=True)
    assert not dosed.is_outlier
    assert filter_.state.residual_variance == before.residual_variance
    assert filter_.state.noise == before.noise
    assert dosed.od == pytest.approx(0.90004347, abs=5e-9)


@pytest.mark.parametrize(
    ("angles", "dose_at", "od", "rate_per_h"),
    [
        (["90"], None, 1.0648844258, 0.0025138355),
        (["90"], 20, 1.0632710552, 0.0009896240),
        (["90", "180"], None, 1.0556794232, 0.0033177086),
        (["90", "180"], 20, 1.0620605764, 0.0014829550),
        (["45", "90", "135"], None, 1.0506806899, 0.0038697833),
        (["45", "90", "135"], 20, 1.0617831350, 0.0018682662),
    ],
)
def test_forty_readings_of_several_sensors_end_where_upstreams_filter_does(
    angles: list[str], dose_at: int | None, od: float, rate_per_h: float
) -> None:
    """The numbers are what grpredict 26.2.10 gives for the same readings."""
    sensors = [Sensor(str(number), angle) for number, angle in enumerate(angles, 1)]
    filter_ = growth_filter(1e-3, sensors=sensors, overriding=False, notices_lag=False)
    for k in range(40):
        true = (1 + 0.004 * k) * (0.95 if dose_at is not None and k >= dose_at else 1)
        reading = {
            sensor.channel: (math.exp(1 - true) if sensor.angle == "180" else true)
            + 0.001 * math.sin(k * (number + 2.0))
            for number, sensor in enumerate(sensors)
        }
        last = filter_.step(reading, INTERVAL_H, dosed=k == dose_at)
    assert last.od == pytest.approx(od, abs=1e-8)
    assert last.rate_per_h == pytest.approx(rate_per_h, abs=1e-8)


# Cultures.


class Culture:
    """Grows at a known rate and is read with noise of 0.5 %."""

    def __init__(self, seed: int, rate_per_h: float = 0.5, bubbles: float = 0.0) -> None:
        self.od = 1.0
        self._random = random.Random(seed)
        self._rate_per_h = rate_per_h
        self._bubbles = bubbles

    def read(self) -> dict[str, float]:
        self.od *= math.exp(self._rate_per_h * INTERVAL_H)
        seen = self.od * (1 + self._random.gauss(0, 0.005))
        if self._random.random() < self._bubbles:
            seen *= 1 + abs(self._random.gauss(0, 0.1))
        return {"1": seen}


@pytest.mark.parametrize("rate_per_h", [0.1, 0.3, 0.6])
def test_a_steady_rate_is_found_and_held(rate_per_h: float) -> None:
    culture, filter_ = Culture(1, rate_per_h), growth_filter(0.005**2)
    for k in range(4 * 720):
        growth = filter_.step(culture.read(), INTERVAL_H)
        if k > 3 * 720:
            assert growth.rate_per_h == pytest.approx(rate_per_h, abs=0.02)
            assert growth.od == pytest.approx(culture.od, rel=0.01)


def worst_rate_error(sensors: int, interval_h: float, from_h: float, *, notices_lag: bool) -> float:
    """Of a culture that comes out of its lag, as a part of the rate, from ``from_h`` to 4 h.

    Each photodiode has a noise of 0.5 %, which od_reading has smoothed.
    """
    noise = random.Random(sensors)
    channels = [str(number) for number in range(1, sensors + 1)]
    filter_ = GrowthFilter.fresh(
        FilterSettings(interval_h, notices_lag=notices_lag),
        [Sensor(channel, "90") for channel in channels],
        dict.fromkeys(channels, 0.004**2),
    )
    old = 120 / (120 + 38 * 3600 * interval_h)
    hour, od, worst = 0.0, 1.0, 0.0
    seen = dict.fromkeys(channels, 1.0)
    while hour < 4:
        hour += interval_h
        rate = 0.5 * (1 - math.exp(-hour))
        od *= math.exp(rate * interval_h)
        for channel in channels:
            seen[channel] = old * seen[channel] + (1 - old) * od * (1 + noise.gauss(0, 0.005))
        growth = filter_.step(seen, interval_h)
        if hour > from_h:
            worst = max(worst, abs(growth.rate_per_h / rate - 1))
    return worst


@pytest.mark.parametrize(("sensors", "interval_s"), [(1, 5), (2, 5), (2, 10), (3, 20)])
def test_a_rate_that_lags_catches_up_whatever_number_of_photodiodes(
    sensors: int, interval_s: int
) -> None:
    interval_h = interval_s / 3600
    assert worst_rate_error(sensors, interval_h, 1.5, notices_lag=True) < 0.1
    assert worst_rate_error(sensors, interval_h, 1.5, notices_lag=False) > 0.1


def turbidostat(
    overriding: bool,
    seed: int,
    dose_ml: float,
    *,
    bubbly_doses: bool = False,
    notices_lag: bool = True,
) -> tuple[float, float]:
    """Root mean square errors: of the OD in the three readings after a dose, of the rate.

    ``bubbly_doses`` let the four readings after each see 3 % more.
    """
    culture = Culture(seed, bubbles=0.002)
    filter_ = growth_filter(
        0.005**2, overriding=overriding, notices_lag=notices_lag, rate_per_h=0.5
    )
    since_dose, od_errors, rate_errors = 99, [], []
    for k in range(5 * 720):
        seen = culture.read()["1"]
        if bubbly_doses and since_dose < 4:
            seen *= 1.03
        growth = filter_.step({"1": seen}, INTERVAL_H, dosed=since_dose == 0)
        since_dose += 1
        if k > 720:
            rate_errors.append((growth.rate_per_h - 0.5) ** 2)
            if since_dose <= 3:
                od_errors.append((growth.od / culture.od - 1) ** 2)
        if growth.od > 2 and k % 3 == 0:
            culture.od *= 15 / (15 + dose_ml)
            since_dose = 0
    return (
        math.sqrt(sum(od_errors) / len(od_errors)),
        math.sqrt(sum(rate_errors) / len(rate_errors)),
    )


@pytest.mark.parametrize("dose_ml", [1.0, 4.0])
def test_doses_that_override_outliers_are_followed_better_at_no_cost_to_the_rate(
    dose_ml: float,
) -> None:
    overriding, overriding_rate = turbidostat(True, 3, dose_ml)
    damped, damped_rate = turbidostat(False, 3, dose_ml)
    assert overriding < damped / 2
    assert overriding < 0.01
    assert overriding_rate < 1.25 * damped_rate


@pytest.mark.parametrize("dose_ml", [1.0, 4.0])
def test_what_a_dose_stirs_up_is_not_taken_for_a_rate_that_lags(dose_ml: float) -> None:
    _, rate = turbidostat(True, 1, dose_ml, bubbly_doses=True)
    _, without = turbidostat(True, 1, dose_ml, bubbly_doses=True, notices_lag=False)
    assert rate < 1.1 * without


def test_a_bubble_moves_neither_od_nor_rate_by_much() -> None:
    culture, filter_ = Culture(2), growth_filter(0.005**2, rate_per_h=0.5)
    for _ in range(1500):
        before = filter_.step(culture.read(), INTERVAL_H)
    bubble = filter_.step({"1": 3 * culture.od}, INTERVAL_H)
    assert bubble.is_outlier
    assert bubble.od == pytest.approx(before.od, rel=0.02)
    assert bubble.rate_per_h == before.rate_per_h


def test_the_order_in_which_channels_come_does_not_matter() -> None:
    """Upstream sorts observations, noise and angles each in its own way."""
    variances = {"1": 1e-3, "2": 1e-5, "3": 1e-4}
    settings_ = FilterSettings(INTERVAL_H)
    one = GrowthFilter.fresh(settings_, THREE, variances)
    other = GrowthFilter.fresh(settings_, THREE[::-1], dict(sorted(variances.items())[::-1]))
    for k in range(50):
        od = 1 + 0.004 * k
        reading = {"1": od + 0.01, "2": od, "3": math.exp(1 - od)}
        backwards = dict(sorted(reading.items(), reverse=True))
        assert one.step(reading, INTERVAL_H) == other.step(backwards, INTERVAL_H)
    assert one.state == other.state
    kept = GrowthFilter(settings_, THREE[::-1], one.state)
    assert kept.step(reading, INTERVAL_H) == one.step(reading, INTERVAL_H)


def test_a_sensor_of_transmitted_light_sees_growth_as_dimming() -> None:
    filter_ = growth_filter(1e-4, sensors=[Sensor("4", "180")])
    od = 1.0
    for _ in range(3 * 720):
        od *= math.exp(0.3 * INTERVAL_H)
        growth = filter_.step({"4": math.exp(1 - od)}, INTERVAL_H)
    assert growth.od == pytest.approx(od, rel=0.01)
    assert growth.rate_per_h == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_a_change_that_no_dose_tells_of_is_followed_without_fooling_the_rate(
    factor: float,
) -> None:
    culture, filter_ = Culture(7), growth_filter(0.005**2, rate_per_h=0.5)
    for _ in range(1500):
        filter_.step(culture.read(), INTERVAL_H)
    culture.od *= factor
    for _ in range(240):
        growth = filter_.step(culture.read(), INTERVAL_H)
        assert growth.rate_per_h == pytest.approx(0.5, abs=0.05)
    assert growth.od == pytest.approx(culture.od, rel=0.02)


def test_readings_without_noise_do_not_shut_the_filter_out() -> None:
    """Upstream's filter takes each of these for an outlier from the 400th on, for ever."""
    filter_ = growth_filter(1e-4)
    od = 1.0
    for _ in range(3 * 720):
        od *= math.exp(0.3 * INTERVAL_H)
        (growth,) = feed(filter_, od)
    assert growth.od == pytest.approx(od, rel=1e-3)
    assert growth.rate_per_h == pytest.approx(0.3, abs=1e-3)


def test_channels_that_agree_to_the_last_bit_are_as_good_as_one() -> None:
    culture, filter_ = Culture(8), growth_filter(1e-4, sensors=THREE[:2])
    for _ in range(3 * 720):
        od = culture.read()["1"]
        growth = filter_.step({"1": od, "2": od}, INTERVAL_H)
    assert growth.od == pytest.approx(culture.od, rel=0.01)
    assert growth.rate_per_h == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("seed", [1, 2])
def test_with_a_blank_the_rate_is_within_a_tenth_from_the_third_hour(seed: int) -> None:
    """The culture of the handbook (§6.1), its lag of an hour, read in calibrated OD."""
    noise = random.Random(seed)
    biomass, substrate, blank = 0.1, 10.0, 0.05
    first: list[dict[str, float]] = []
    hour = 0.0
    filter_, normalisation, checked = None, None, 0
    while biomass < 2:
        hour += INTERVAL_H
        rate = 0.6 * substrate / (0.15 + substrate) * (1 - math.exp(-hour))
        biomass += (rate - 0.005) * biomass * INTERVAL_H
        substrate -= rate * biomass / 0.5 * INTERVAL_H
        reading = {"1": (blank + biomass) * (1 + noise.gauss(0, 0.005))}
        if filter_ is None or normalisation is None:
            first.append(reading)
            if len(first) == 35:
                normalisation = Normalisation(OdStatistics.of(first), {"1": blank})
                filter_ = GrowthFilter.fresh(
                    FilterSettings(INTERVAL_H), ONE, normalisation.variances
                )
            continue
        growth = filter_.step(normalisation.normalise(reading), INTERVAL_H)
        if hour > 3:
            checked += 1
            assert growth.rate_per_h == pytest.approx(rate - 0.005, rel=0.1)
    assert checked > 2000


# Gaps and restarts.


def test_after_a_long_gap_the_od_starts_anew_and_the_rate_is_kept() -> None:
    culture, filter_ = Culture(4), growth_filter(0.005**2, rate_per_h=0.5)
    for _ in range(1500):
        before = filter_.step(culture.read(), INTERVAL_H)
    growth = filter_.step({"1": 0.7}, 72.0)
    assert growth.is_restart
    assert growth.od == 0.7
    assert growth.rate_per_h == before.rate_per_h
    culture.od = 0.7
    for _ in range(20):
        growth = filter_.step(culture.read(), INTERVAL_H)
    assert not growth.is_outlier
    assert growth.od == pytest.approx(culture.od, rel=0.02)


def test_a_short_gap_is_carried_over() -> None:
    culture, filter_ = Culture(5), growth_filter(0.005**2, rate_per_h=0.5)
    for _ in range(1500):
        filter_.step(culture.read(), INTERVAL_H)
    for _ in range(239):
        culture.read()
    before = filter_.state
    growth = filter_.step(culture.read(), 240 * INTERVAL_H)
    missed = filter_.state.rate_variance - before.rate_variance
    assert missed > 100 * before.rate_noise, "each missed reading adds to the doubt"
    assert not growth.is_outlier
    assert not growth.is_restart
    assert growth.od == pytest.approx(culture.od, rel=0.02)


def test_it_goes_on_after_a_restart_as_if_there_had_been_none() -> None:
    culture, filter_ = Culture(6), growth_filter(0.005**2)
    for _ in range(100):
        filter_.step(culture.read(), INTERVAL_H)
    kept = json.loads(json.dumps(filter_.state.to_json()))
    again = GrowthFilter(FilterSettings(INTERVAL_H), ONE, FilterState.from_json(kept))
    for _ in range(100):
        reading = culture.read()
        assert again.step(reading, INTERVAL_H) == filter_.step(reading, INTERVAL_H)


KEPT = growth_filter(sensors=THREE).state.to_json()


@pytest.mark.parametrize(
    "damage",
    [
        {"od": 0.0},
        {"od": math.nan},
        {"od": None},
        {"rate_per_h": "fast"},
        {"rate_per_h": 1e6},
        {"od_variance": 0.0},
        {"rate_variance": -1.0},
        {"covariance": 1.0},
        {"rate_noise": 0},
        {"residual_variance": -1e-9},
        {"residual_mean": math.inf},
        {"far_in_a_row": -1},
        {"noise": []},
        {"noise": [[1.0, 0.0]]},
        {"noise": [[1.0, 2.0], [2.0, 1.0]]},
        {"noise": [[1.0, 0.5], [0.4, 1.0]]},
        {"noise": [[0.0]]},
    ],
)
def test_a_kept_state_that_cannot_be_is_refused(damage: dict[str, object]) -> None:
    assert isinstance(KEPT, dict)
    FilterState.from_json(KEPT)
    with pytest.raises(BadRequest):
        FilterState.from_json({**KEPT, **damage})


@pytest.mark.parametrize("kept", [None, [], {}, "state"])
def test_what_is_no_state_is_refused(kept: object) -> None:
    with pytest.raises(BadRequest):
        FilterState.from_json(kept)


def test_the_state_of_other_photodiodes_is_refused() -> None:
    with pytest.raises(BadRequest, match="3 photodiodes, not 1"):
        GrowthFilter(FilterSettings(INTERVAL_H), ONE, growth_filter(sensors=THREE).state)


# Refusals.


@pytest.mark.parametrize(
    ("reading", "dt_h"),
    [
        ({"1": 0.0}, INTERVAL_H),
        ({"1": -0.1}, INTERVAL_H),
        ({"1": math.nan}, INTERVAL_H),
        ({"1": math.inf}, INTERVAL_H),
        ({"2": 1.0}, INTERVAL_H),
        ({"1": 1.0}, -INTERVAL_H),
        ({"1": 1.0}, math.nan),
        ({"1": 1.0}, math.inf),
    ],
)
def test_a_reading_that_cannot_be_is_refused_and_changes_nothing(
    reading: Mapping[str, float], dt_h: float
) -> None:
    filter_ = growth_filter()
    feed(filter_, 1.0, 1.01)
    before = filter_.state
    with pytest.raises(UnusableReadings):
        filter_.step(reading, dt_h)
    assert filter_.state == before


@pytest.mark.parametrize(
    "wrong",
    [
        {"outlier_std_threshold": 2.0},
        {"outlier_std_threshold": math.nan},
        {"od_std": 0.0},
        {"rate_std": -1.0},
        {"obs_std": math.inf},
        {"expected_interval_h": 0.0},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        FilterSettings(**{"expected_interval_h": INTERVAL_H, **wrong})


def test_a_photodiode_without_a_variance_is_refused() -> None:
    for sensors in ([], [*ONE, Sensor("2", "45")]):
        with pytest.raises(BadRequest):
            GrowthFilter.fresh(FilterSettings(INTERVAL_H), sensors, {"1": 1e-3})


@pytest.mark.parametrize(
    ("od", "rate_per_h", "variance"),
    [(math.nan, 0.0, 1e-3), (0.0, 0.0, 1e-3), (1.0, math.nan, 1e-3), (1.0, 0.0, math.nan)],
)
def test_a_start_that_cannot_be_is_refused(od: float, rate_per_h: float, variance: float) -> None:
    with pytest.raises(BadRequest):
        GrowthFilter.fresh(
            FilterSettings(INTERVAL_H), ONE, {"1": variance}, od=od, rate_per_h=rate_per_h
        )


STEPS = st.lists(
    st.tuples(
        st.lists(st.floats(1e-4, 1e4), min_size=3, max_size=3),
        st.sampled_from([0.0, INTERVAL_H, 0.1, 0.49, 0.51, 100.0]),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=50, deadline=None)
@given(STEPS, st.booleans(), st.booleans())
def test_whatever_comes_the_state_stays_one_that_can_be(
    steps: Sequence[tuple[list[float], float, bool]], overriding: bool, alone: bool
) -> None:
    """Gaps, doses and nonsense: finite, above 0, and fit to be kept."""
    filter_ = growth_filter(1e-4, sensors=ONE if alone else THREE, overriding=overriding)
    for ods, dt_h, dosed in steps:
        growth = filter_.step(dict(zip("123", ods, strict=True)), dt_h, dosed=dosed)
        assert 0 < growth.od < math.inf
        assert abs(growth.rate_per_h) <= 10
        assert FilterState.from_json(filter_.state.to_json()) == filter_.state


@settings(max_examples=50)
@given(st.floats(0.9, 1.1), st.floats(0.9, 1.1))
def test_a_higher_reading_gives_a_higher_od(one: float, other: float) -> None:
    low, high = sorted((one, other))
    filters = [growth_filter(), growth_filter()]
    for filter_ in filters:
        feed(filter_, 1.0, 1.0)
    assert feed(filters[0], low)[0].od <= feed(filters[1], high)[0].od


def test_a_long_run_of_surprises_stays_bounded() -> None:
    filter_ = growth_filter(1e-4)
    for k in range(3000):
        filter_.step({"1": 10.0 if k // 7 % 2 else 0.1}, INTERVAL_H, dosed=k % 5 == 0)
    assert FilterState.from_json(filter_.state.to_json()) == filter_.state
    for _ in range(720):
        growth = feed(filter_, 2.0)[0]
    assert growth.od == pytest.approx(2.0, rel=0.02)
