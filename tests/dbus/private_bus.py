"""A real dbus-daemon on a socket of its own, and mock services that record and misbehave.

:func:`private_bus` runs the daemon; :func:`machine_services` puts logind, systemd and
timedated on it, as far as piod asks them. ``service.misbehave[member]`` is how a method
is to fail: :data:`HANG`, :data:`VANISH`, or an :class:`ErrorReply`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dbus_next import BusType, Message, MessageType, Variant
from dbus_next.aio import MessageBus

CONFIG = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""

ACCESS_DENIED = "org.freedesktop.DBus.Error.AccessDenied"
AUTHORIZATION_REQUIRED = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"

HANG = "hang"
VANISH = "vanish"


@dataclass(frozen=True)
class ErrorReply:
    name: str
    text: str


Misbehaviour = str | ErrorReply


class PrivateBus:
    """A dbus-daemon; ``address`` is where."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "bus"
        self.address = f"unix:path={self.socket}"
        self._config = folder / "bus.conf"
        self._config.write_text(CONFIG.format(socket=self.socket))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        program = shutil.which("dbus-daemon")
        if program is None:
            pytest.skip("needs dbus-daemon (Debian's package dbus-daemon)")
        self.socket.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            program,
            f"--config-file={self._config}",
            "--nofork",
            "--nopidfile",
            "--print-address=1",
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline()

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        """As a crash does it: every connection is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()
            # asyncio closes what it read from a moment later
            await asyncio.sleep(0)


@asynccontextmanager
async def private_bus(folder: Path) -> AsyncIterator[PrivateBus]:
    bus = PrivateBus(folder)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.kill()


class Service:
    """A service on a bus. Subclasses answer ``method_<Member>`` and :meth:`property_of`."""

    name = ""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        """What was asked for, in order; reading does not count."""
        self.misbehave: dict[str, Misbehaviour] = {}
        self.when_called: Callable[[str], None] = lambda member: None
        self.caller = ""
        """The connection that called last."""
        self._called = asyncio.Event()

    async def appear(self, address: str) -> None:
        self._bus = await MessageBus(bus_address=address, bus_type=BusType.SYSTEM).connect()
        self._bus.add_message_handler(self._answer)
        await self._bus.request_name(self.name)

    async def vanish(self) -> None:
        if self._bus.connected:
            self._bus.disconnect()
        with suppress(EOFError, OSError):  # how the library says that the bus has gone
            await self._bus.wait_for_disconnect()
        self._bus._stream.close()
        self._bus._sock.close()

    async def called(self, member: str, times: int = 1) -> None:
        """Wait until a method was called so often."""
        while [name for name, _ in self.calls].count(member) < times:
            self._called.clear()
            await self._called.wait()

    def signal(
        self, member: str, signature: str, body: list[Any], *, of: str = "", to: str | None = None
    ) -> None:
        """A signal of the main interface (``of`` another service: forged), to all or to one."""
        service = of or self.name
        self._bus.send(
            Message(
                message_type=MessageType.SIGNAL,
                destination=to,
                path=f"/{service.replace('.', '/')}",
                interface=f"{service}.Manager",
                member=member,
                signature=signature,
                body=body,
            )
        )

    def _answer(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        member = message.body[1] if message.member == "Get" else message.member
        if message.member != "Get":
            self.calls.append((member, message.body))
            self.caller = message.sender
            self._called.set()
            self.when_called(member)
        match self.misbehave.get(member):
            case ErrorReply(name, text):
                return Message.new_error(message, name, text)
            case "hang":
                return True
            case "vanish":
                self._bus.disconnect()
                return True
        if message.member == "Get":
            value = self.property_of(message.path, member)
            return Message.new_method_return(message, "v", [value])
        method = getattr(self, f"method_{member}", None)
        if method is None:
            return None
        reply = method(*message.body)
        if isinstance(reply, ErrorReply):
            return Message.new_error(message, reply.name, reply.text)
        signature, body = reply
        return Message.new_method_return(message, signature, body)

    def property_of(self, path: str, name: str) -> Variant:
        raise NotImplementedError


Reply = tuple[str, list[Any]] | ErrorReply


class Logind(Service):
    name = "org.freedesktop.login1"

    def method_Reboot(self, interactive: bool) -> Reply:
        return "", []

    method_PowerOff = method_Reboot


class Systemd(Service):
    """Units by name; ``results`` are the words with which jobs of a unit end."""

    name = "org.freedesktop.systemd1"

    def __init__(self) -> None:
        super().__init__()
        self.units: dict[str, str] = {}
        self.queued: set[str] = set()
        """Units whose job has not begun yet."""
        self.results: dict[str, str] = {}
        self.signal_first = False
        """Whether the signal of a job's end comes before the reply that names the job."""
        self._jobs = 0
        self._subscribed = False

    def method_Subscribe(self) -> Reply:
        if self._subscribed:
            return ErrorReply("org.freedesktop.systemd1.AlreadySubscribed", "Already subscribed")
        self._subscribed = True
        return "", []

    def method_LoadUnit(self, name: str) -> Reply:
        return "o", [f"/org/freedesktop/systemd1/unit/{name.encode().hex()}"]

    def method_RestartUnit(self, name: str, mode: str) -> Reply:
        if name not in self.units:
            return ErrorReply("org.freedesktop.systemd1.NoSuchUnit", f"Unit {name} not found.")
        self._jobs += 1
        job = f"/org/freedesktop/systemd1/job/{self._jobs}"
        end = [self._jobs, job, name, self.results.get(name, "done")]
        if end[3] == "never":
            pass
        elif self.signal_first:
            self.signal("JobRemoved", "uoss", end)
        else:
            asyncio.get_running_loop().call_later(0.01, self.signal, "JobRemoved", "uoss", end)
        return "o", [job]

    method_StartUnit = method_RestartUnit

    def property_of(self, path: str, name: str) -> Variant:
        unit = bytes.fromhex(path.rpartition("/")[2]).decode()
        if name == "LoadState":
            return Variant("s", "loaded" if unit in self.units else "not-found")
        if name == "Job":
            return Variant(
                "(uo)", [1, "/org/freedesktop/systemd1/job/1"] if unit in self.queued else [0, "/"]
            )
        return Variant("s", self.units.get(unit, "inactive"))


class Timedated(Service):
    """``stops_after``: so often SetTime is refused while the time service stops."""

    name = "org.freedesktop.timedate1"

    def __init__(self) -> None:
        super().__init__()
        self.stops_after = 0
        self.can_ntp, self.ntp, self.synchronised = True, False, False

    def property_of(self, path: str, name: str) -> Variant:
        flags = {"CanNTP": self.can_ntp, "NTP": self.ntp, "NTPSynchronized": self.synchronised}
        return Variant("b", flags[name])

    def method_SetNTP(self, on: bool, interactive: bool) -> Reply:
        self.ntp = on
        return "", []

    def method_SetTime(self, usec: int, relative: bool, interactive: bool) -> Reply:
        if self.ntp or self.stops_after:
            self.stops_after = max(0, self.stops_after - 1)
            return ErrorReply(
                "org.freedesktop.timedate1.AutomaticTimeSyncEnabled",
                "Previous request is not finished, refusing.",
            )
        return "", []


@dataclass(frozen=True)
class MachineServices:
    logind: Logind
    systemd: Systemd
    timedated: Timedated


@asynccontextmanager
async def machine_services(address: str) -> AsyncIterator[MachineServices]:
    services = MachineServices(Logind(), Systemd(), Timedated())
    async with AsyncExitStack() as stack:
        for service in (services.logind, services.systemd, services.timedated):
            await service.appear(address)
            stack.push_async_callback(service.vanish)
        yield services


def open_files() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))
