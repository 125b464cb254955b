"""An exchange of liquid: what is pumped, in which order, and what never happens to the level."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piod.clock import SimulatedClock
from piod.errors import BadRequest
from piod.jobs.dosing.exchange import Exchanged, ExchangeSettings, exchange
from piod.jobs.liquids import PumpRole, Volumes

SETTINGS = ExchangeSettings(max_fill_ml=18.0)


class Vial:
    """A vial with an efflux tube, and pumps that move what they are told to."""

    def __init__(self, volume_ml: float, efflux_ml: float) -> None:
        self.volume_ml = volume_ml
        self.efflux_ml = efflux_ml
        self.highest_ml = volume_ml
        self.doses: list[tuple[PumpRole, float]] = []

    async def dose(self, role: PumpRole, volume_ml: float) -> float:
        self.doses.append((role, round(volume_ml, 6)))
        if role == "waste":
            self.volume_ml = max(min(self.volume_ml, self.efflux_ml), self.volume_ml - volume_ml)
        else:
            self.volume_ml += volume_ml
        self.highest_ml = max(self.highest_ml, self.volume_ml)
        return volume_ml

    async def volumes(self) -> Volumes:
        level = self.volume_ml
        return Volumes(level, level, level, self.efflux_ml, 0.0, 0.0, 0.0, 0.0)


async def test_a_small_one_is_one_part_and_the_waste_follows(clock: SimulatedClock) -> None:
    vial = Vial(14.0, 14.0)
    moved = await exchange(vial, clock, SETTINGS, media_ml=0.5, waste_ml=0.5)
    assert vial.doses == [("media", 0.5), ("waste", 0.5), ("waste", 1.0)]
    assert moved == Exchanged(media_ml=0.5, waste_ml=0.5)


async def test_a_large_one_is_made_in_equal_parts_and_keeps_its_surplus_of_waste(
    clock: SimulatedClock,
) -> None:
    vial = Vial(14.0, 14.0)
    settings = ExchangeSettings(max_fill_ml=18.0, waste_multiplier=0)
    moved = await exchange(vial, clock, settings, media_ml=2, alt_media_ml=0.5, waste_ml=3)
    part = [("media", round(2 / 3, 6)), ("alt_media", round(0.5 / 3, 6)), ("waste", 1.0)]
    assert vial.doses == 3 * part
    assert moved.waste_ml == pytest.approx(3)
    assert moved.media_ml + moved.alt_media_ml == pytest.approx(2.5)


async def test_near_the_maximum_the_waste_leads(clock: SimulatedClock) -> None:
    vial = Vial(16.8, 14.0)
    await exchange(vial, clock, SETTINGS, media_ml=1, waste_ml=1)
    assert vial.doses[0] == ("waste", 1.0)
    assert vial.highest_ml == 16.8


async def test_after_each_inflow_it_is_given_time_to_mix(clock: SimulatedClock) -> None:
    before_s = clock.monotonic()
    await exchange(Vial(14, 14), clock, SETTINGS, media_ml=0.4, alt_media_ml=0.4, waste_ml=0.8)
    assert clock.monotonic() - before_s == pytest.approx(10.1)


@pytest.mark.parametrize(
    ("media_ml", "alt_media_ml", "waste_ml"),
    [(1, 0, 0.9), (0.5, 0.6, 1), (-1, 0, 1), (math.nan, 0, 1), (1, 0, math.inf), (1, 0, -1)],
)
async def test_what_would_fill_the_vial_or_is_no_volume_is_refused(
    clock: SimulatedClock, media_ml: float, alt_media_ml: float, waste_ml: float
) -> None:
    vial = Vial(14, 14)
    with pytest.raises(BadRequest):
        await exchange(
            vial, clock, SETTINGS, media_ml=media_ml, alt_media_ml=alt_media_ml, waste_ml=waste_ml
        )
    assert vial.doses == []


@given(
    media_ml=st.floats(0, 20),
    alt_media_ml=st.floats(0, 20),
    surplus_ml=st.floats(0, 5),
    volume_ml=st.floats(5, 17),
)
def test_the_level_never_rises_above_the_tube_or_the_start_by_more_than_a_subdose(
    media_ml: float, alt_media_ml: float, surplus_ml: float, volume_ml: float
) -> None:
    vial = Vial(volume_ml, 14.0)
    waste_ml = media_ml + alt_media_ml + surplus_ml

    async def make() -> Exchanged:
        return await exchange(
            vial,
            SimulatedClock(),
            SETTINGS,
            media_ml=media_ml,
            alt_media_ml=alt_media_ml,
            waste_ml=waste_ml,
        )

    loop = asyncio.new_event_loop()
    try:
        moved = loop.run_until_complete(make())
    finally:
        loop.close()
    assert vial.highest_ml <= max(14.0, volume_ml) + 1.0 + 1e-6
    assert moved.media_ml == pytest.approx(media_ml, abs=1e-6)
    assert moved.waste_ml == pytest.approx(waste_ml, abs=1e-6)
