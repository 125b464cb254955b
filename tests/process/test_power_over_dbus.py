"""A simulated unit with a real system bus: its reboot is asked of the logind on that bus."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from unit_process import UnitProcess, all_off

from tests.dbus.private_bus import machine_services, private_bus


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
