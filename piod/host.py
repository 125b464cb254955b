"""The computer that piod runs on: its disk, temperature, power and network, as files tell them.

:class:`Host` is what the monitor asks; :class:`LinuxHost` reads it from the kernel. What a
computer does not tell is None.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_THERMAL = "sys/class/thermal/thermal_zone0/temp"
_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
"""Hexadecimal; bit 0: the voltage is too low now, bit 16: it has been since the boot."""
_UNDER_VOLTAGE = 0x1_0001
_MODEL = "proc/device-tree/model"
_INTERFACES = "sys/class/net"
_SIOCGIFADDR = 0x8915
_WIRELESS, _WIRED = ("wl",), ("eth", "en")


@dataclass(frozen=True)
class HostReport:
    """How the computer is."""

    disk_usage_percent: float
    """Of the disk that the data directory is on."""
    cpu_celsius: float | None
    under_voltage: bool | None
    """Whether its supply is too weak, or was since it booted."""
    ipv4: str | None
    wlan_mac_address: str | None
    eth_mac_address: str | None
    model: str | None


class Host(Protocol):
    """The computer that piod runs on."""

    async def examine(self) -> HostReport:
        """How it is now. Raises nothing: what cannot be read is not known."""
        ...


class LinuxHost:
    """Read from the files of the kernel below ``root``; ``data_dir`` tells the disk."""

    def __init__(self, data_dir: Path, root: Path = Path("/")) -> None:
        self._data_dir = data_dir
        self._root = root

    async def examine(self) -> HostReport:
        return await asyncio.to_thread(self._examine)

    def _examine(self) -> HostReport:
        disk = os.statvfs(self._data_dir)
        used = disk.f_blocks - disk.f_bfree
        millicelsius = self._integer(_THERMAL, 10)
        throttled = self._integer(_THROTTLED, 16)
        names = self._interfaces()
        return HostReport(
            disk_usage_percent=round(100 * used / max(used + disk.f_bavail, 1), 1),
            cpu_celsius=None if millicelsius is None else round(millicelsius / 1000, 1),
            under_voltage=None if throttled is None else bool(throttled & _UNDER_VOLTAGE),
            ipv4=next(filter(None, map(_ipv4, names)), None),
            wlan_mac_address=self._mac(names, _WIRELESS),
            eth_mac_address=self._mac(names, _WIRED),
            model=self._text(_MODEL),
        )

    def _text(self, path: str) -> str | None:
        try:
            text = (self._root / path).read_text(errors="replace")
        except OSError:
            return None
        return text.strip("\0 \n") or None

    def _integer(self, path: str, base: int) -> int | None:
        try:
            return int(self._text(path) or "", base)
        except ValueError:
            return None

    def _interfaces(self) -> list[str]:
        try:
            names = os.listdir(self._root / _INTERFACES)
        except OSError:
            return []
        return sorted(name for name in names if name != "lo")

    def _mac(self, names: list[str], prefixes: tuple[str, ...]) -> str | None:
        for name in names:
            if name.startswith(prefixes):
                return self._text(f"{_INTERFACES}/{name}/address")
        return None


def _ipv4(interface: str) -> str | None:
    """The address of an interface, if it has one (netdevice(7))."""
    request = struct.pack("256s", interface.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, request)
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])
