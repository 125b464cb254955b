"""The computer as the kernel's files tell it, and when they do not."""

from __future__ import annotations

import os
from pathlib import Path

from piod.host import LinuxHost


def put(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


async def test_a_raspberry_pi_tells_all(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "48312\n")
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n")
    put(tmp_path, "proc/device-tree/model", "Raspberry Pi Zero 2 W Rev 1.0\0")
    put(tmp_path, "sys/class/net/wlan0/address", "b8:27:eb:00:00:01\n")
    put(tmp_path, "sys/class/net/eth0/address", "b8:27:eb:00:00:02\n")
    put(tmp_path, "sys/class/net/lo/address", "00:00:00:00:00:00\n")
    report = await LinuxHost(tmp_path, tmp_path).examine()
    assert report.cpu_celsius == 48.3
    assert report.under_voltage is True
    assert report.model == "Raspberry Pi Zero 2 W Rev 1.0"
    assert report.wlan_mac_address == "b8:27:eb:00:00:01"
    assert report.eth_mac_address == "b8:27:eb:00:00:02"
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail / (disk.f_blocks - disk.f_bfree + disk.f_bavail)
    assert abs(report.disk_usage_percent - 100 * (1 - free)) < 1


async def test_what_is_not_told_is_not_known(tmp_path: Path) -> None:
    report = await LinuxHost(tmp_path, tmp_path).examine()
    assert (report.cpu_celsius, report.under_voltage, report.ipv4) == (None, None, None)
    assert (report.wlan_mac_address, report.eth_mac_address, report.model) == (None, None, None)


async def test_nonsense_is_not_known_either(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "hot\n")
    put(tmp_path, "sys/devices/platform/soc/soc:firmware/get_throttled", "?\n")
    report = await LinuxHost(tmp_path, tmp_path).examine()
    assert (report.cpu_celsius, report.under_voltage) == (None, None)
