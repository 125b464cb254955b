"""The monitor: checks, blinks and the button, in a whole unit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from piod.clock import SimulatedClock
from piod.host import HostReport
from tests.unit import Unit, running_unit

WELL = HostReport(
    disk_usage_percent=40.0,
    cpu_celsius=45.0,
    under_voltage=False,
    ipv4="192.168.1.7",
    wlan_mac_address="b8:27:eb:00:00:01",
    eth_mac_address=None,
    model="Raspberry Pi Zero 2 W Rev 1.0",
)


class FakeHost:
    """A computer that is as the test wants it."""

    def __init__(self) -> None:
        self.report = WELL

    async def examine(self) -> HostReport:
        return self.report


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@asynccontextmanager
async def watched_unit(
    data_dir: Path, clock: SimulatedClock, host: FakeHost, config_ini: str | None = None
) -> AsyncIterator[Unit]:
    async with running_unit(data_dir, clock, host=host, config_ini=config_ini) as unit:
        await unit.daemon.run_own_jobs()
        yield unit


@pytest.fixture
async def watched(tmp_path: Path, clock: SimulatedClock, host: FakeHost) -> AsyncIterator[Unit]:
    async with watched_unit(tmp_path, clock, host) as unit:
        yield unit


async def monitor(unit: Unit) -> dict[str, Any]:
    return await unit.settings("monitor")


async def blinks(unit: Unit, seconds: float) -> list[tuple[bool, float]]:
    """Levels of the LED and how long each lasted, to 0.01 s; the last one cut short."""
    seen: list[tuple[bool, float]] = []
    for _ in range(round(seconds / 0.01)):
        level = unit.board.gpio.led_on
        if seen and seen[-1][0] == level:
            seen[-1] = (level, round(seen[-1][1] + 0.01, 2))
        else:
            seen.append((level, 0.01))
        await unit.clock.sleep(0.01)
    return seen


async def error_code(unit: Unit) -> int:
    """The code that is blinked at the check that comes 5 s after the start."""
    steps = [(level, seconds) for level, seconds in await blinks(unit, 20) if level]
    if not steps or steps[0][1] < 1.5:
        return 0
    return len([seconds for _, seconds in steps[1:] if seconds < 0.4])


async def test_it_runs_with_the_daemon_and_stop_all_leaves_it_alone(watched: Unit) -> None:
    [row] = await watched.get("/unit_api/jobs/running")
    assert row["job_name"] == "monitor"
    assert row["is_long_running_job"] == 1
    assert row["experiment"] == "$experiment"
    task = await watched.post("/unit_api/jobs/stop/all")
    assert task["result"]["stopped"] == 0
    assert (await monitor(watched))["$state"] == "ready"
    assert await watched.get("/unit_api/long_running_jobs/running") == [row]


async def test_it_tells_how_the_computer_is(watched: Unit) -> None:
    await watched.clock.sleep(10)
    settings = await monitor(watched)
    statistics = json.loads(settings["computer_statistics"])
    assert statistics["disk_usage_percent"] == 40.0
    assert statistics["cpu_temperature_celcius"] == 45.0
    assert settings["ipv4"] == "192.168.1.7"
    assert settings["wlan_mac_address"] == "b8:27:eb:00:00:01"
    assert "eth_mac_address" not in settings
    assert json.loads(settings["versions"])["rpi_machine"] == WELL.model
    assert json.loads(settings["voltage_on_pwm_rail"])["voltage"] > 0


async def test_when_all_is_well_it_blinks_four_double_flashes(watched: Unit) -> None:
    steps = await blinks(watched, 10)
    flashes = [seconds for level, seconds in steps if level]
    assert flashes == pytest.approx([0.14] * 8, abs=0.015)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ipv4": None}, 1),
        ({"disk_usage_percent": 81.0}, 3),
        ({"cpu_celsius": 81.0}, 6),
    ],
)
async def test_what_is_wrong_is_logged_and_blinked(
    tmp_path: Path,
    clock: SimulatedClock,
    host: FakeHost,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    code: int,
) -> None:
    host.report = replace(WELL, **changes)
    async with watched_unit(tmp_path, clock, host) as unit:
        assert await error_code(unit) == code
        warnings = [r for r in caplog.records if r.name == "piod.jobs.monitor"]
        assert any(record.levelname == "WARNING" for record in warnings)


@pytest.mark.parametrize("address", [0x2C, 0x4F])
async def test_a_hat_or_a_heating_pcb_that_is_missing_is_told_and_nothing_looks_well(
    watched: Unit, caplog: pytest.LogCaptureFixture, address: int
) -> None:
    watched.board.faults.add("chip_missing", address=address)
    assert not [seconds for level, seconds in await blinks(watched, 12) if level]
    told = [r.message for r in caplog.records if r.name == "piod.jobs.monitor"]
    part = "the chips of the HAT do" if address == 0x2C else "the heating PCB does"
    assert [f"0x{address:02X}" in text for text in told if f"{part} not answer" in text] == [True]
    assert (await monitor(watched))["$state"] == "ready"


async def test_a_chip_that_refuses_once_looks_well(watched: Unit) -> None:
    watched.board.faults.add("nack", address=0x2C, count=1)
    assert len([seconds for level, seconds in await blinks(watched, 10) if level]) == 8


async def test_a_heating_pcb_that_is_too_hot_is_blinked(watched: Unit) -> None:
    watched.board.faults.add("temperature_stuck", celsius=80.5)
    assert await error_code(watched) == 6


async def test_too_much_light_on_a_photodiode_is_blinked(watched: Unit) -> None:
    watched.board.patch({"vial": {"standard_od": 11.0}})
    await watched.run("led_intensity", options={"A": 80})
    assert await error_code(watched) == 5


async def test_too_much_light_while_od_is_read_is_blinked_at_once(watched: Unit) -> None:
    await watched.clock.sleep(20)
    await watched.run("od_reading")
    await watched.clock.sleep(6)
    watched.board.patch({"vial": {"standard_od": 11.0}})
    steps = [seconds for level, seconds in await blinks(watched, 15) if level]
    assert len([seconds for seconds in steps if seconds < 0.4]) >= 5
    assert steps[0] > 1.5


async def test_it_checks_again_every_twelve_hours(watched: Unit, host: FakeHost) -> None:
    await watched.clock.sleep(60)
    host.report = replace(WELL, cpu_celsius=85.0)
    await watched.clock.sleep(12 * 3600 - 55)
    assert await error_code(watched) == 6


async def test_a_stalled_stirrer_is_blinked(watched: Unit) -> None:
    await watched.clock.sleep(20)
    await watched.request("POST", "/simulator/faults", {"kind": "stirrer_stall"})
    await watched.run("stirring", options={"target_rpm": 400})
    for _ in range(600):
        if (await watched.settings())["stalled"] == "True":
            break
        await watched.clock.sleep(0.1)
    steps = [seconds for level, seconds in await blinks(watched, 8) if level]
    assert len([seconds for seconds in steps if seconds < 0.4]) == 4


async def test_the_button_lights_the_led_while_it_is_pressed(watched: Unit) -> None:
    await watched.clock.sleep(20)
    status, fault = await watched.request("POST", "/simulator/faults", {"kind": "button"})
    assert status == 201, fault
    await watched.clock.sleep(0.2)
    assert (await monitor(watched))["button_down"] == "True"
    assert watched.board.gpio.led_on
    await watched.request("DELETE", f"/simulator/faults/{fault['id']}")
    await watched.clock.sleep(0.2)
    assert (await monitor(watched))["button_down"] == "False"
    assert not watched.board.gpio.led_on


async def test_the_button_can_be_left_alone(
    tmp_path: Path, clock: SimulatedClock, host: FakeHost
) -> None:
    config = "[monitor.config]\nenable_button=0\n"
    async with watched_unit(tmp_path, clock, host, config) as unit:
        await unit.request("POST", "/simulator/faults", {"kind": "button"})
        await clock.sleep(1)
        assert (await monitor(unit))["button_down"] == "False"


async def test_the_led_is_dark_when_the_monitor_ends_while_it_blinks(watched: Unit) -> None:
    await watched.clock.sleep(5.05)
    assert watched.board.gpio.led_on
    await watched.post("/unit_api/jobs/stop", {"job_name": "monitor"})
    await watched.clock.sleep(0.1)
    assert not watched.board.gpio.led_on


async def test_versions_are_merged_with_what_is_known_of_them(watched: Unit) -> None:
    [row] = await watched.get("/unit_api/jobs/running")
    versions = {"firmware": "0.7", "unheard_of": "1"}
    status, _ = await watched.change(row["job_id"], versions=versions)
    assert status == 200
    published = json.loads((await monitor(watched))["versions"])
    assert published["firmware"] == "0.7"
    assert "app" in published
    assert "unheard_of" not in published
    status, refusal = await watched.change(row["job_id"], versions={"firmware": 7})
    assert status == 400
    assert "firmware must be text" in refusal["error"]


async def test_other_jobs_may_bring_another_model_while_it_runs(watched: Unit) -> None:
    env = {"MODEL_NAME": "pioreactor_40ml", "MODEL_VERSION": "1.0"}
    await watched.run("stirring", env=env)


async def test_a_missing_gpio_bus_does_not_end_it(watched: Unit) -> None:
    await watched.request("POST", "/simulator/faults", {"kind": "bus_error", "bus": "gpio"})
    await watched.clock.sleep(120)
    assert (await monitor(watched))["$state"] == "ready"
    assert (await monitor(watched))["restarts"] == "0"
