"""A private bus with the services of a machine, for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from piod.dbus import SystemBus
from tests.dbus.private_bus import MachineServices, PrivateBus, machine_services, private_bus


@pytest.fixture
async def bus(tmp_path: Path) -> AsyncIterator[PrivateBus]:
    async with private_bus(tmp_path) as daemon:
        yield daemon


@pytest.fixture
async def services(bus: PrivateBus) -> AsyncIterator[MachineServices]:
    async with machine_services(bus.address) as present:
        yield present


@pytest.fixture
async def client(bus: PrivateBus) -> AsyncIterator[SystemBus]:
    """piod's end."""
    client = SystemBus(bus.address)
    yield client
    await client.close()
