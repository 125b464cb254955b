"""The plant alone: growth, volumes, heat, light and pumps, by the numbers of the recipe."""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Mapping

import pytest

from piod.errors import BadRequest
from piod.hw.simulator.plant import Plant
from piod.hw.simulator.pumps import Pump

STIRRING, MEDIA, ALT_MEDIA, WASTE, HEATING = 17, 13, 16, 12, 18
PUMP_PINS = {"media": MEDIA, "alt_media": ALT_MEDIA, "waste": WASTE}
HOUR, DAY = 3600.0, 86_400.0


def a_plant(seed: int = 1, volume_ml: float = 15, *, warm: bool = False) -> Plant:
    plant = Plant(
        seed=seed,
        stirring_pin=STIRRING,
        heating_pin=HEATING,
        pump_pins=PUMP_PINS,
        volume_ml=volume_ml,
        capacity_ml=20,
        efflux_ml=15,
        max_fill_ml=18,
    )
    if warm:
        plant.patch({"ambient_celsius": 37, "liquid_celsius": 37})
    return plant


def stirred(seed: int = 1, volume_ml: float = 15, *, warm: bool = False) -> Plant:
    plant = a_plant(seed, volume_ml, warm=warm)
    plant.set_pwm(STIRRING, 30, 0)
    plant.advance_to(10)
    return plant


def at_rate(plant: Plant, ml_per_s: float) -> Plant:
    """All pumps at that rate, when new."""
    plant.patch({"pumps": {role: {"ml_per_s": ml_per_s} for role in PUMP_PINS}})
    return plant


def pump(plant: Plant, pin: int, seconds: float, duty_percent: float = 100) -> None:
    now = plant.now_s
    plant.set_pwm(pin, duty_percent, now)
    plant.set_pwm(pin, 0, now + seconds)


def pumped(plant: Plant, role: str) -> float:
    return plant.pumps[role].pumped_ml


def number(plant: Plant, name: str) -> float:
    value = plant.truth()[name]
    assert isinstance(value, float)
    return value


# -- growth --------------------------------------------------------------------------


def test_a_batch_grows_as_the_recipe_says_and_then_decays() -> None:
    plant = a_plant(warm=True)
    plant.set_pwm(STIRRING, 30, 0)
    grown = []
    for hours in (2, 4, 6, 8):
        plant.advance_to(hours * HOUR)
        grown.append(round(plant.culture.biomass, 2))
    assert grown == [0.19, 0.58, 1.86, 5.05]
    plant.advance_to(32 * HOUR)
    assert plant.culture.substrate == 0
    assert plant.culture.biomass == pytest.approx(5.049 * math.exp(-0.005 * 24), rel=1e-3)


def test_a_chemostat_comes_to_rest_where_growth_and_dilution_balance() -> None:
    plant = at_rate(stirred(warm=True), 0.1)
    dose_s = 5.05  # half a mL, with the dead time
    for _ in range(3 * 48):
        started = plant.now_s
        pump(plant, MEDIA, dose_s)
        pump(plant, WASTE, 20)
        plant.advance_to(started + 1200)
    assert plant.vial.volume_ml == pytest.approx(15, abs=1e-6)
    assert plant.culture.biomass == pytest.approx(4.74, rel=0.03)
    before = plant.culture.biomass
    pump(plant, MEDIA, dose_s)
    pump(plant, WASTE, 20)
    plant.advance_to(plant.now_s + 1200 - dose_s - 20)
    assert plant.culture.biomass == pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"liquid_celsius": 10, "ambient_celsius": 10}, 0.0),
        ({"liquid_celsius": 23.5, "ambient_celsius": 23.5}, 0.25),
        ({"liquid_celsius": 41.5, "ambient_celsius": 41.5}, 0.5),
        ({"liquid_celsius": 46, "ambient_celsius": 46}, 0.0),
        ({"alt_media_fraction": 0.2}, 0.5),  # its inhibitor is at its half-way constant
        ({"substrate": 0.15}, 0.5 / (10 / 10.15)),
        ({"age_h": 0}, 0.0),
    ],
)
def test_growth_depends_on_temperature_inhibitor_substrate_and_lag(
    change: dict[str, object], factor: float
) -> None:
    plant = stirred(warm=True)
    plant.patch({"age_h": 1000})
    usual = number(plant, "mu_per_h")
    assert usual == pytest.approx(0.6 * 10 / 10.15, rel=1e-4)
    plant.patch(change)
    assert number(plant, "mu_per_h") == pytest.approx(usual * factor, rel=1e-3, abs=1e-9)
    assert number(plant, "net_growth_per_h") == pytest.approx(number(plant, "mu_per_h") - 0.005)


def test_without_stirring_it_grows_by_three_fifths() -> None:
    still, turning = a_plant(warm=True), stirred(warm=True)
    for plant in (still, turning):
        plant.patch({"age_h": 1000})
        plant.advance_to(10)
    assert number(still, "mu_per_h") / number(turning, "mu_per_h") == pytest.approx(0.6, rel=1e-4)


def test_the_truth_of_growth_is_what_the_biomass_does() -> None:
    plant = stirred(warm=True)
    plant.advance_to(3 * HOUR)
    rate, before = number(plant, "net_growth_per_h"), plant.culture.biomass
    plant.advance_to(3 * HOUR + 60)
    assert 60 * math.log(plant.culture.biomass / before) == pytest.approx(rate, rel=5e-3)


# -- heat ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duty_percent", "liquid", "first", "last"),
    [(12, 31.67, 34.35, 32.23), (25, 39.98, 45.30, 40.89)],
)
def test_the_cycle_of_heating_and_looking_comes_to_the_temperatures_of_the_recipe(
    duty_percent: float, liquid: float, first: float, last: float
) -> None:
    plant = a_plant()
    for cycle in range(60):
        start = cycle * 200.0
        plant.set_pwm(HEATING, duty_percent, start)
        plant.set_pwm(HEATING, 0, start + 89)
        seen = [plant.pcb_sensor_celsius(start + 89)]
        plant.advance_to(start + 89 + 20 * 5.3)
        at_end = plant.heat.liquid_celsius, plant.heat.board_celsius
        plant.advance_to(start + 200)
    assert at_end == pytest.approx((liquid, last), abs=0.015)
    assert seen[0] == pytest.approx(first, abs=0.12)  # with its noise


def test_the_sensor_wavers_by_three_hundredths_of_a_degree() -> None:
    plant = a_plant()
    seen = [plant.pcb_sensor_celsius(0.05 * reading) for reading in range(2000)]
    assert statistics.mean(seen) == pytest.approx(24.237, abs=0.003)
    assert statistics.stdev(seen) == pytest.approx(0.03, rel=0.1)


def test_a_stuck_sensor_shows_the_same_to_the_bit_and_an_offset_and_a_drift_add_up() -> None:
    plant = a_plant()
    plant.set_pwm(HEATING, 20, 0)
    plant.break_sensor(100, stuck=True)
    shown = {plant.pcb_sensor_celsius(t) for t in (100, 200, 3000)}
    assert len(shown) == 1
    plant.break_sensor(3000, stuck=True)  # another fault was put in
    assert plant.pcb_sensor_celsius(3100) in shown
    plant.break_sensor(3200, stuck=True, stuck_celsius=-5)
    assert plant.pcb_sensor_celsius(3300) == -5
    plant.break_sensor(4000, offset_k=-1, drift_k_per_s=10 / 60)
    off_k = plant.pcb_sensor_celsius(4060) - plant.heat.board_celsius
    assert off_k == pytest.approx(9, abs=0.15)
    plant.break_sensor(5000)
    assert plant.pcb_sensor_celsius(5000) == pytest.approx(plant.heat.board_celsius, abs=0.15)


def test_a_stuck_heater_heats_whatever_its_output_says_and_a_dead_one_does_not() -> None:
    plant = a_plant()
    plant.break_heater(100, 0)
    plant.advance_to(600)
    assert plant.heat.liquid_celsius > 60
    assert plant.truth()["heater_percent"] == 100
    assert plant.duties.get(HEATING, 0.0) == 0
    plant.break_heater(0, 600)
    plant.set_pwm(HEATING, 50, 600)
    plant.advance_to(600 + 6 * HOUR)
    assert plant.heat.liquid_celsius == pytest.approx(24, abs=0.01)
    plant.break_heater(None, plant.now_s)
    plant.advance_to(plant.now_s + 60)
    assert plant.heat.board_celsius > 28


# -- volumes -------------------------------------------------------------------------


def test_a_dose_dilutes_what_is_there() -> None:
    plant = at_rate(stirred(), 0.1)
    plant.patch({"biomass": 2, "substrate": 4, "alt_media_fraction": 0.1})
    pump(plant, ALT_MEDIA, 10.05)
    added = pumped(plant, "alt_media")
    assert added == pytest.approx(1, rel=0.012)
    assert plant.vial.volume_ml == pytest.approx(15 + added)
    share = 15 / (15 + added)
    # growth in ten seconds at 24 °C is far below this
    assert plant.culture.biomass == pytest.approx(2 * share, rel=1e-4)
    assert plant.culture.substrate == pytest.approx(4 * share + 10 * (1 - share), rel=1e-3)
    assert plant.culture.alt_media_fraction == pytest.approx(0.1 * share + 1 - share, rel=1e-6)
    assert number(plant, "inhibitor") == pytest.approx(5 * plant.culture.alt_media_fraction)


def test_without_stirring_a_dose_joins_within_half_a_minute_or_when_stirring_begins() -> None:
    plants = [a_plant(), a_plant(), stirred()]
    for plant in plants:
        at_rate(plant, 1).patch({"biomass": 2})
        pump(plant, MEDIA, 1.05)
    lagging, kicked, mixed = plants
    now = lagging.now_s
    assert lagging.culture.biomass > 1.99
    assert number(lagging, "unmixed_ml") == pytest.approx(1, rel=0.03)
    lagging.advance_to(now + 30)
    assert number(lagging, "unmixed_ml") == pytest.approx(math.exp(-1), rel=0.03)
    lagging.advance_to(now + 600)
    kicked.set_pwm(STIRRING, 30, now)
    kicked.advance_to(now + 5)
    for plant in (lagging, kicked):
        assert plant.culture.biomass == pytest.approx(mixed.culture.biomass, rel=1e-3)
        assert number(plant, "unmixed_ml") == 0


def test_the_waste_pump_takes_what_is_above_the_end_of_its_tube_and_nothing_below() -> None:
    plant = at_rate(stirred(volume_ml=16), 0.1)
    pump(plant, WASTE, 60)
    assert plant.vial.volume_ml == 15
    assert pumped(plant, "waste") == pytest.approx(1)
    plant.patch({"volume_ml": 12})
    pump(plant, WASTE, 60)
    assert plant.vial.volume_ml == 12
    # more waste than media: the level stays at the tube, once it is there
    now = plant.now_s
    plant.set_pwm(WASTE, 100, now)
    plant.set_pwm(MEDIA, 50, now)
    plant.advance_to(now + 300)
    assert plant.vial.volume_ml == 15
    assert plant.truth()["overflow"] is False


def test_too_full_is_remembered_and_what_rises_above_the_rim_is_spilled() -> None:
    plant = at_rate(stirred(volume_ml=17), 0.1)
    pump(plant, MEDIA, 9)
    assert plant.truth()["overflow"] is False
    pump(plant, MEDIA, 3)
    pump(plant, WASTE, 200)
    assert plant.vial.volume_ml == 15
    assert plant.truth()["overflow"] is True
    pump(plant, MEDIA, 200)
    assert plant.vial.volume_ml == 20
    poured = pumped(plant, "media") - pumped(plant, "waste")
    assert 17 + poured == pytest.approx(20 + number(plant, "spilled_ml"))
    plant.patch({"volume_ml": 15})
    assert plant.truth()["overflow"] is False
    assert number(plant, "spilled_ml") == 0


def test_an_empty_vial_fills_with_what_is_pumped_in() -> None:
    plant = at_rate(stirred(), 0.1)
    plant.patch({"volume_ml": 0, "biomass": 3, "substrate": 0})
    pump(plant, ALT_MEDIA, 50)
    assert plant.culture.biomass < 0.1
    assert plant.culture.alt_media_fraction == pytest.approx(1, abs=0.02)
    assert plant.culture.substrate == pytest.approx(10, rel=0.02)


# -- pumps ---------------------------------------------------------------------------


def test_pumps_differ_from_their_nominal_rate_by_up_to_a_fifth() -> None:
    rates = [Pump(seed, role).ml_per_s / 0.0911 for seed in range(40) for role in PUMP_PINS]
    assert 0.8 <= min(rates) < 0.85
    assert 1.15 < max(rates) <= 1.2
    assert len(set(rates)) == len(rates)
    assert a_plant(5).pumps["media"].ml_per_s == Pump(5, "media").ml_per_s


def test_a_run_has_a_dead_time_a_rate_of_its_own_and_goes_by_the_duty() -> None:
    plant = at_rate(stirred(), 0.1)
    pump(plant, MEDIA, 0.05)
    assert pumped(plant, "media") == 0
    runs = []
    for _ in range(40):
        plant.patch({"volume_ml": 5})
        before = pumped(plant, "media")
        pump(plant, MEDIA, 10.05, duty_percent=50)
        runs.append(pumped(plant, "media") - before)
        assert plant.vial.volume_ml == pytest.approx(5 + runs[-1])
    assert min(runs) == pytest.approx(0.495, abs=0.002)
    assert max(runs) == pytest.approx(0.505, abs=0.002)


def test_a_tube_wears_out_by_two_percent() -> None:
    plant = at_rate(stirred(), 0.1)
    media = plant.pumps["media"]
    pump(plant, MEDIA, 30 * DAY, duty_percent=1)
    flows = []
    for _ in range(50):
        plant.set_pwm(MEDIA, 100, plant.now_s)
        plant.advance_to(plant.now_s + 0.1)
        flows.append(media.flow_ml_per_s)
        plant.set_pwm(MEDIA, 0, plant.now_s)
    assert statistics.mean(flows) == pytest.approx(0.098, rel=0.003)


def test_an_ideal_pump_moves_just_its_rate_and_stays_ideal_over_a_start() -> None:
    plant = at_rate(a_plant(), 0.1)
    plant.patch({"pumps": {"media": {"ideal": True}}})
    plant = Plant.from_json(json.loads(json.dumps(plant.to_json())), plant.now_s)
    for _ in range(3):
        pump(plant, PUMP_PINS["media"], 2)
        pump(plant, PUMP_PINS["alt_media"], 2)
    assert pumped(plant, "media") == pytest.approx(0.6, abs=1e-9)
    assert pumped(plant, "alt_media") != pytest.approx(0.6, rel=0.001)


def test_a_broken_pump_turns_and_pumps_nothing() -> None:
    plant = at_rate(stirred(), 0.1)
    plant.break_pumps({"media"}, plant.now_s)
    pump(plant, MEDIA, 20)
    pump(plant, ALT_MEDIA, 10)
    assert plant.vial.volume_ml == pytest.approx(16, abs=0.02)
    assert pumped(plant, "media") == 0
    plant.break_pumps((), plant.now_s)
    pump(plant, MEDIA, 10)
    assert pumped(plant, "media") == pytest.approx(1, abs=0.02)


# -- light ---------------------------------------------------------------------------


def readings(
    plant: Plant, angle: str | None, count: int, *, hum: bool = False, percent: float = 80
) -> list[list[float]]:
    """Volts of ``count`` readings of 20 samples, 5 s apart, the LED on for each of them alone."""
    taken = []
    start = math.ceil(plant.now_s) + 1.0
    for reading in range(count):
        at = start + 5 * reading
        plant.set_led("A", percent, at)
        taken.append(
            [plant.photodiode_volts(angle, at + 0.13 + 0.0431 * k, hum=hum) for k in range(20)]
        )
        plant.set_led("A", 0, at + 1.1)
    return taken


def mean_volts(plant: Plant, angle: str | None, **kwargs: float) -> float:
    percent = kwargs.get("percent", 80.0)
    return statistics.mean(
        sample for each in readings(plant, angle, 60, percent=percent) for sample in each
    )


@pytest.mark.parametrize("od", [0.0, 0.5, 2.0, 8.0])
def test_photodiodes_see_what_the_recipe_says_at_each_angle(od: float) -> None:
    plant = a_plant()
    plant.patch({"vial": {"standard_od": od}})
    cell = 0.375 * od / (1 + od / 10)
    expected = {
        "45": 0.8 * (0.030 + 1.6 * cell),
        "90": 0.8 * (0.019 + cell),
        "135": 0.8 * (0.015 + 0.7 * cell),
        "180": 0.8 * 0.6 * math.exp(-0.7 * od),
        "REF": 0.8 * 0.16,
    }
    for angle, volts in expected.items():
        assert mean_volts(plant, angle) == pytest.approx(volts + 0.002, rel=1.5e-3, abs=5e-5)


def test_in_the_dark_there_is_an_offset_alone_and_other_leds_add_to_90_degrees() -> None:
    plant = a_plant()
    for angle in ("45", "90", "180", "REF", None):
        assert mean_volts(plant, angle, percent=0) == pytest.approx(0.002, abs=5e-5)
    plant.set_led("B", 40, plant.now_s)
    plant.set_led("D", 10, plant.now_s)
    assert mean_volts(plant, "90", percent=0) == pytest.approx(0.027, abs=5e-5)
    assert mean_volts(plant, "REF", percent=0) == pytest.approx(0.002, abs=5e-5)


def test_swirls_change_all_samples_of_a_reading_alike_and_spare_ref() -> None:
    plant = stirred()
    plant.patch({"vial": {"standard_od": 4}})
    taken = readings(plant, "90", 400)
    means = [statistics.mean(each) for each in taken]
    usual = statistics.median(means)
    clear = [mean / usual for mean in means if abs(mean / usual - 1) < 0.025]  # no bubbles
    assert statistics.stdev(clear) == pytest.approx(0.005, rel=0.15)
    assert len(clear) > 390
    within = [statistics.stdev(each) for each in taken]
    assert statistics.mean(within) == pytest.approx(0.0003, rel=0.05)
    ref = [statistics.mean(each) for each in readings(plant, "REF", 100)]
    assert statistics.stdev(ref) == pytest.approx(0.0003 / math.sqrt(20), rel=0.25)
    plant.set_pwm(STIRRING, 0, plant.now_s)
    plant.advance_to(plant.now_s + 20)
    still = [statistics.mean(each) for each in readings(plant, "90", 300)]
    still = [mean / usual for mean in still if abs(mean / usual - 1) < 0.01]
    assert statistics.stdev(still) == pytest.approx(0.002, rel=0.15)


def test_an_led_that_stays_on_is_seen_through_other_swirls_every_two_seconds() -> None:
    plant = stirred()
    plant.patch({"vial": {"standard_od": 4}})
    plant.set_led("A", 80, 100)
    seen = [
        statistics.mean(plant.photodiode_volts("90", at + k * 0.01, hum=False) for k in range(100))
        for at in range(101, 301, 2)
    ]
    assert statistics.stdev(seen) / statistics.mean(seen) == pytest.approx(0.005, rel=0.3)


def test_hum_of_60_hz_is_half_a_millivolt_where_there_is_any() -> None:
    plant = a_plant()
    times = [10 + k / 601 for k in range(6010)]
    wave = [plant.photodiode_volts("90", t) for t in times]
    seen = 2 * statistics.mean(
        volts * math.sin(2 * math.pi * 60 * t) for t, volts in zip(times, wave, strict=True)
    )
    assert seen == pytest.approx(0.0005, rel=0.1)
    plain = [plant.photodiode_volts("90", t + 100, hum=False) for t in times]
    assert statistics.stdev(plain) == pytest.approx(0.0003, rel=0.05)


def test_a_dose_makes_a_spike_of_three_percent_for_twenty_seconds() -> None:
    plant = at_rate(a_plant(), 0.1)
    plant.patch({"vial": {"standard_od": 4}})
    plant.set_led("A", 80, 1)
    pump(plant, MEDIA, 0.06)  # a drop: it changes the OD by less than 1e-4
    now = plant.now_s

    def seen(from_s: int, to_s: int) -> float:
        return statistics.mean(
            plant.photodiode_volts("90", now + t / 20, hum=False)
            for t in range(from_s * 20, to_s * 20)
        )

    spike, just_after, after = seen(0, 19), seen(21, 39), seen(40, 200)
    assert spike / after == pytest.approx(1.03, abs=0.003)
    assert just_after / after == pytest.approx(1, abs=0.003)


def test_bubbles_are_rare_until_somebody_makes_them() -> None:
    plant = stirred()
    plant.patch({"vial": {"standard_od": 4}})

    def brighter(count: int) -> int:
        means = [statistics.mean(each) for each in readings(plant, "90", count)]
        return sum(mean > 1.03 * 0.8 * (0.019 + 1.5 / 1.4) for mean in means)

    assert brighter(200) <= 3
    plant.set_bubbles(1, plant.now_s)
    assert brighter(200) > 100
    plant.set_bubbles(None, plant.now_s)
    assert brighter(200) <= 3


def test_the_led_dims_as_it_warms_and_ages() -> None:
    plant = a_plant()
    plant.set_led("A", 80, 0)
    assert number(plant, "ir_output") == 1
    plant.advance_to(60)
    assert number(plant, "ir_output") == pytest.approx(0.998, abs=2e-4)
    plant.advance_to(30 * DAY)
    assert number(plant, "ir_output") == pytest.approx(0.99 * 0.998, abs=1e-5)
    plant.set_led("A", 0, plant.now_s)
    plant.advance_to(60 * DAY)
    assert number(plant, "ir_output") == pytest.approx(0.99, abs=1e-5)


def test_a_change_of_the_light_is_seen_at_once() -> None:
    plant = a_plant()
    plant.photodiode_volts("REF", 10)
    plant.set_led("A", 80, 10.001)
    assert plant.photodiode_volts("REF", 10.001) == pytest.approx(0.13, abs=0.003)
    plant.set_led("A", 0, 10.002)
    assert plant.photodiode_volts("REF", 10.002) < 0.004
    plant.set_led("A", 80, 10.003)
    before = plant.photodiode_volts("90", 10.004)
    plant.patch({"od": 5})
    assert plant.photodiode_volts("90", 10.005) > 10 * before


# -- time ----------------------------------------------------------------------------


def state(plant: Plant) -> Mapping[str, float]:
    """What time has made of it, but for the stirrer."""
    kept: dict[str, float] = {}

    def note(name: str, value: object) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                note(f"{name}.{key}", each)
        elif isinstance(value, int | float):
            kept[name] = value

    note("", {k: v for k, v in plant.to_json().items() if k != "stirrer"})
    return kept


def change_something(plants: list[Plant], drawn: random.Random, now: float) -> None:
    pin = drawn.choice([STIRRING, MEDIA, ALT_MEDIA, WASTE, HEATING])
    duty_percent = drawn.choice([0, 0, 1, 20, 30, 100])
    led, percent = drawn.choice("AB"), drawn.choice([0, 50])
    for plant in plants:
        plant.set_pwm(pin, duty_percent, now)
        plant.set_led(led, percent, now)


@pytest.mark.parametrize("seed", range(6))
def test_how_often_somebody_looks_changes_nothing(seed: int) -> None:
    drawn = random.Random(seed)
    whole, pieces = (a_plant(seed, warm=seed % 2 == 0) for _ in range(2))
    now = 0.0
    for _ in range(25):
        span = drawn.choice([0.02, 0.7, 9, 100, 1000, 20_000])
        for cut in sorted(drawn.uniform(0, span) for _ in range(8)):
            pieces.advance_to(now + cut)
        now += span
        change_something([whole, pieces], drawn, now)
        assert state(whole) == pytest.approx(state(pieces), rel=1e-4, abs=1e-5)
        if drawn.random() < 0.1:
            for plant in (whole, pieces):
                plant.patch({"vial": {"biomass": 0.1}, "volume_ml": 14})


def test_long_steps_are_as_right_as_short_ones() -> None:
    whole, pieces = (stirred(warm=True) for _ in range(2))
    for plant in (whole, pieces):
        plant.set_pwm(HEATING, 3, 10)
        plant.set_pwm(MEDIA, 1, 10)
        plant.set_pwm(WASTE, 100, 10)
    for half_seconds in range(1, 10_000):
        pieces.advance_to(10 + half_seconds / 2)
    whole.advance_to(pieces.now_s)
    assert whole.culture.biomass == pytest.approx(pieces.culture.biomass, rel=1e-6)
    assert whole.culture.substrate == pytest.approx(pieces.culture.substrate, rel=1e-6)
    assert whole.heat.liquid_celsius == pytest.approx(pieces.heat.liquid_celsius, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_plant_taken_up_again_goes_on_as_if_nothing_had_been(seed: int) -> None:
    drawn = random.Random(seed)
    whole = a_plant(seed, warm=True)
    for step in range(20):
        change_something([whole], drawn, step * 50.0)
    taken_up = Plant.from_json(json.loads(json.dumps(whole.to_json())), whole.now_s)
    for step in range(20):
        change_something([whole, taken_up], drawn, 1000 + step * 500.0)
        for angle in ("REF", "90"):
            at = 1000.1 + step * 500
            assert whole.photodiode_volts(angle, at) == taken_up.photodiode_volts(angle, at)
    assert whole.to_json() == taken_up.to_json()
    assert whole.pcb_sensor_celsius(99_999) == taken_up.pcb_sensor_celsius(99_999)


def test_the_same_seed_gives_the_same_light_and_another_seed_other_noise() -> None:
    one, same, other = (readings(stirred(seed), "90", 5) for seed in (3, 3, 4))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    "duties",
    [
        {},
        {STIRRING: 30, HEATING: 20},
        {STIRRING: 30, MEDIA: 100, WASTE: 100},
        {STIRRING: 30, MEDIA: 1, WASTE: 100, HEATING: 8},
        {MEDIA: 100, ALT_MEDIA: 3},
    ],
)
def test_a_month_left_alone_is_made_up_for_within_the_second_of_safe_outputs(
    duties: dict[int, float],
) -> None:
    plant = a_plant()
    plant.set_outputs(duties, 0)
    started = time.process_time()
    plant.advance_to(30 * DAY)
    assert time.process_time() - started < 1


# -- patching ------------------------------------------------------------------------


def test_a_standard_neither_grows_nor_decays_and_is_diluted() -> None:
    plant = at_rate(stirred(warm=True), 0.001)
    plant.patch({"vial": {"standard_od": 0.5}, "volume_ml": 10})
    assert plant.truth()["content"] == "standard"
    plant.advance_to(100 * HOUR)
    assert number(plant, "od") == 0.5
    assert number(plant, "mu_per_h") == number(plant, "net_growth_per_h") == 0
    pump(plant, MEDIA, 5000)  # a culture would double in that time
    assert number(plant, "od") == pytest.approx(0.5 * 10 / 15, rel=0.01)
    plant.patch({"vial": {"biomass": 0.2}})
    assert plant.truth()["content"] == "culture"
    assert number(plant, "age_h") == 0
    assert number(plant, "substrate") == 10
    plant.advance_to(plant.now_s + 3 * HOUR)
    assert number(plant, "biomass") > 0.4


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"biomass": -1}, "biomass must be a number from 0 to 1000"),
        ({"od": "1"}, "od must be a number"),
        ({"substrate": math.inf}, "substrate must be a number"),
        ({"alt_media_fraction": 1.1}, "alt_media_fraction must be a number from 0 to 1"),
        ({"age_h": -1}, "age_h must be"),
        ({"ambient_celsius": 100}, "ambient_celsius must be"),
        ({"liquid_celsius": None}, "liquid_celsius must be"),
        ({"efflux_ml": 21}, "efflux_ml must be a number from 0 to 20"),
        ({"vial": 3}, "vial must be an object"),
        ({"vial": {"od": 1}}, "vial.od is not known here"),
        ({"vial": {"standard_od": -1}}, "vial.standard_od must be"),
        ({"vial": {"standard_od": 1, "biomass": 1}}, "vial of a standard.biomass is not known"),
        ({"pumps": {"coffee": {}}}, "pumps.coffee is not known here"),
        ({"pumps": {"media": {"ml_per_s": -1}}}, "pumps.media.ml_per_s must be"),
        ({"pumps": []}, "pumps must be an object"),
    ],
)
def test_a_patch_that_is_wrong_anywhere_changes_nothing(
    changes: dict[str, object], names: str
) -> None:
    plant = stirred()
    before = plant.truth()
    good = {"volume_ml": 3, "biomass": 1, "liquid_celsius": 30, "stirrer": {"bar_lost": True}}
    with pytest.raises(BadRequest, match=names):
        plant.patch(good | changes)
    assert plant.truth() == before


def test_everything_that_is_patched_is_in_the_truth() -> None:
    plant = stirred()
    changes = {
        "volume_ml": 12.0,
        "efflux_ml": 13.0,
        "biomass": 0.7,
        "substrate": 3.0,
        "alt_media_fraction": 0.25,
        "age_h": 2.0,
        "ambient_celsius": 20.0,
        "liquid_celsius": 31.0,
    }
    plant.patch({**changes, "pumps": {"waste": {"ml_per_s": 0.2}}})
    truth = plant.truth()
    assert {name: truth[name] for name in changes} == changes
    assert plant.pumps["waste"].ml_per_s == 0.2
    assert json.loads(json.dumps(truth)) == truth
