"""A simulated unit with a real system bus: its reboot is asked of the logind on that bus."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from unit_process import UnitProcess, all_off

from tests.dbus.private_bus import machine_services, private_bus

pytestmark = pytest.mark.long  # processes that wait: too slow for the fast tests


async def test_a_reboot_is_one_call_of_logind_after_every_output_is_off(tmp_path: Path) -> None:
    folder = tmp_path / "bus"
    folder.mkdir()
    async with private_bus(folder) as bus, machine_services(bus.address) as services:
        data_dir = tmp_path / "unit"
        off_by_then = []
        services.logind.when_called = lambda member: off_by_then.append(all_off(data_dir))
        unit = UnitProcess(
            data_dir, "--leader", "leader01", environ={"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        )
        try:
            await asyncio.to_thread(reboot, unit)
            assert services.logind.calls == [("Reboot", [False])]
            assert off_by_then == [True]
            assert not (data_dir / "simulator" / "system.json").exists(), "not on paper"

            unit.signal(signal.SIGTERM)  # what systemd does next
            assert await asyncio.to_thread(unit.wait_exit, 5) == 0
            assert "Traceback" not in unit.stderr
        finally:
            unit.close()


def reboot(unit: UnitProcess) -> None:
    unit.wait_ready()
    job_id = unit.run_stirring(500)
    assert unit.duty > 0
    assert unit.result(unit.post("/unit_api/system/reboot")) is True
    assert unit.row(job_id)["reason"] == "the unit was rebooted"


async def test_a_reboot_that_ends_the_daemon_before_it_is_answered_was_done(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "bus"
    folder.mkdir()
    async with private_bus(folder) as bus, machine_services(bus.address) as services:
        environ = {"DBUS_SYSTEM_BUS_ADDRESS": bus.address}
        unit = UnitProcess(tmp_path / "unit", "--leader", "leader01", environ=environ)

        def systemd_is_quicker(member: str) -> None:
            unit.signal(signal.SIGTERM)
            time.sleep(0.2)  # logind's answer comes when the daemon is ending already

        services.logind.when_called = systemd_is_quicker
        try:
            await asyncio.to_thread(unit.wait_ready)
            launched = await asyncio.to_thread(unit.post, "/unit_api/system/reboot")
            assert await asyncio.to_thread(unit.wait_exit, 5) == 0
        finally:
            unit.close()
        again = UnitProcess(tmp_path / "unit", "--leader", "leader01", environ=environ)
        try:
            await asyncio.to_thread(again.wait_ready)
            assert await asyncio.to_thread(again.result, launched) is True
        finally:
            again.close()
