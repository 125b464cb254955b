"""A piod that is killed while it sets the clock leaves time synchronisation to the next one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from unit_process import UnitProcess

from tests.dbus.private_bus import HANG, machine_services, private_bus

pytestmark = pytest.mark.long  # walks and processes that wait: too slow for the fast tests

CLOCK = "/unit_api/system/utc_clock"


async def test_ntp_that_a_killed_piod_has_turned_off_is_on_again_after_the_next_start(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "bus"
    folder.mkdir()
    async with private_bus(folder) as bus, machine_services(bus.address) as services:
        timedated = services.timedated
        timedated.ntp = True
        timedated.misbehave["SetTime"] = HANG
        data_dir = tmp_path / "unit"
        environ = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        unit = UnitProcess(data_dir, environ=environ)
        try:
            await asyncio.to_thread(unit.wait_ready)
            body = {"utc_clock_time": "2026-01-31T12:45:00Z"}
            await asyncio.to_thread(unit.patch, CLOCK, body)
            await timedated.called("SetTime")
            await asyncio.to_thread(unit.kill9)
        finally:
            unit.close()
        assert timedated.ntp is False
        timedated.calls.clear()
        again = UnitProcess(data_dir, environ=environ)
        try:
            async with asyncio.timeout(20):
                await timedated.called("SetNTP")
            assert timedated.calls == [("SetNTP", [True, False])]
            await asyncio.to_thread(again.wait_ready)
            for _ in range(500):
                if "automatic time synchronisation is on again" in again.stderr:
                    break
                await asyncio.sleep(0.01)
            else:
                raise AssertionError(again.stderr)
        finally:
            again.close()
