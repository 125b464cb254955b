"""The voltage of the rail, as the ADC of the HAT tells it."""

from __future__ import annotations

import pytest

from piod.errors import BusError
from piod.jobs.calibrating import aux_voltage
from piod.jobs.calibrating.aux_voltage import AuxVoltage
from tests.jobs.calibrating.bench import Bench


async def test_it_is_told_to_a_tenth_of_a_volt(bench: Bench) -> None:
    read = await bench.measure(aux_voltage.run, AuxVoltage())
    assert (read.volts, read.doubt) == (12.0, None)


@pytest.mark.parametrize(
    ("rail", "told", "doubt"),
    [
        (5.04, 5.0, None),
        (0.0, 0.0, "no supply"),
        (12.5, 0.2, "above 12.3 V"),  # it wraps around
    ],
)
async def test_what_the_adc_cannot_tell_is_doubted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, rail: float, told: float, doubt: str | None
) -> None:
    monkeypatch.setattr("piod.hw.simulator.plant.RAIL_VOLTS", rail)
    read = await bench.measure(aux_voltage.run, AuxVoltage())
    assert read.volts == pytest.approx(told, abs=0.051)
    assert doubt in read.doubt if doubt and read.doubt else read.doubt == doubt


async def test_a_chip_that_does_not_answer_is_a_refusal(bench: Bench) -> None:
    bench.whole.board.faults.add("chip_missing", address=0x2C)
    with pytest.raises(BusError, match="0x2C"):
        await aux_voltage.run(bench.unit, AuxVoltage(), bench.told.append)
