"""The I2C bus of a Raspberry Pi (I2cPort), on python-periphery.

All access happens in one bus thread, so transactions never mix.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from piod.errors import BusError, DeviceMissing
from piod.hw.linux.bus_thread import BusThread
from piod.hw.ports import I2cMessage, Read, Write

DEVICE = "/dev/i2c-1"

NO_ANSWER = (errno.ENXIO, errno.EREMOTEIO)
"""An address that nobody acknowledges: the kernel's word for it, and that of the
adapters of the Raspberry Pi (Documentation/i2c/fault-codes.rst)."""
GONE = (errno.ENODEV, errno.ENOENT)
REFUSES_EMPTY = (errno.EOPNOTSUPP, errno.EINVAL)


class Adapter(Protocol):
    """An opened bus; its errors are OSErrors."""

    def transfer(self, address: int, messages: Sequence[I2cMessage]) -> list[bytes]: ...
    def close(self) -> None: ...


OpenAdapter: TypeAlias = Callable[[str], Adapter]


class PeripheryAdapter:
    """The bus as ``periphery.I2C`` does it. Raises OSError."""

    def __init__(self, device: str) -> None:
        import periphery  # here, so that a simulated unit never loads it

        self._message = periphery.I2C.Message
        self._bus = periphery.I2C(device)

    def transfer(self, address: int, messages: Sequence[I2cMessage]) -> list[bytes]:
        wire = [
            self._message(bytes(message.count), read=True)
            if isinstance(message, Read)
            else self._message(message.data)
            for message in messages
        ]
        self._bus.transfer(address, wire)
        return [bytes(message.data) for message in wire if message.read]

    def close(self) -> None:
        self._bus.close()


class LinuxI2c:
    """The bus behind the character device ``device``; see :class:`piod.hw.ports.I2cPort`."""

    def __init__(self, device: str = DEVICE, open_adapter: OpenAdapter = PeripheryAdapter) -> None:
        self._device = device
        self._open_adapter = open_adapter
        self._thread: BusThread | None = None
        self._adapter: Adapter | None = None

    async def open(self) -> None:
        """Open the device. Raises DeviceMissing, or BusError; nothing is open then."""
        await self.close()
        thread = BusThread("I2C")
        try:
            self._adapter = await thread.run(self._opened)
        except BaseException:
            await thread.stop()
            raise
        self._thread = thread

    async def close(self) -> None:
        """Let go of the device; may come twice."""
        thread, self._thread = self._thread, None
        adapter, self._adapter = self._adapter, None
        if thread is not None:
            if adapter is not None:
                await thread.run(lambda: _close(adapter))
            await thread.stop()

    async def transfer(self, address: int, messages: Sequence[I2cMessage]) -> Sequence[bytes]:
        """See :meth:`piod.hw.ports.I2cPort.transfer`. ValueError: no I2C transaction."""
        check(address, messages)
        thread, adapter = self._open()
        return await thread.run(lambda: _transfer(adapter, address, messages))

    async def probe(self, address: int) -> bool:
        """See :meth:`piod.hw.ports.I2cPort.probe`."""
        check(address, [Write(b"")])
        thread, adapter = self._open()
        return await thread.run(lambda: _probe(adapter, address))

    def _opened(self) -> Adapter:
        try:
            return self._open_adapter(self._device)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno in (*GONE, errno.ENXIO):
                raise DeviceMissing(
                    f"The I2C bus {self._device} is not there.",
                    cause=reason,
                    remediation="Put dtparam=i2c_arm=on into config.txt and i2c-dev into "
                    "/etc/modules, then reboot (docs/install.md).",
                ) from error
            raise BusError(
                f"The I2C bus {self._device} could not be opened: {reason}.",
                cause=reason,
                remediation=f"Let the user that runs piod open {self._device}; on Raspberry Pi "
                "OS the members of the group i2c may.",
            ) from error

    def _open(self) -> tuple[BusThread, Adapter]:
        if self._thread is None or self._adapter is None:
            raise BusError("The I2C bus is closed.")
        return self._thread, self._adapter


def check(address: int, messages: Sequence[I2cMessage]) -> None:
    """Raises ValueError for what is no I2C transaction: a mistake of the caller."""
    if not 0x08 <= address <= 0x77:
        raise ValueError(f"0x{address:02X} is not the address of a chip")
    if not messages or any(isinstance(each, Read) and each.count < 1 for each in messages):
        raise ValueError("a transaction has a message at least, and a read a byte")


def _transfer(adapter: Adapter, address: int, messages: Sequence[I2cMessage]) -> list[bytes]:
    try:
        return adapter.transfer(address, messages)
    except OSError as error:
        raise _bus_error(address, error) from error


def _probe(adapter: Adapter, address: int) -> bool:
    try:
        try:
            adapter.transfer(address, [Write(b"")])
        except OSError as error:
            if error.errno not in REFUSES_EMPTY:
                raise
            adapter.transfer(address, [Read(1)])
    except OSError as error:
        if error.errno in NO_ANSWER:
            return False
        raise _bus_error(address, error) from error
    return True


def _close(adapter: Adapter) -> None:
    try:
        adapter.close()
    except OSError:
        pass  # there is nothing more to let go of


def _bus_error(address: int, error: OSError) -> BusError:
    reason = error.strerror or str(error)
    if error.errno in NO_ANSWER:
        return BusError(f"No chip answers at I2C address 0x{address:02X}.", cause=reason)
    if error.errno in GONE:
        return DeviceMissing("The I2C bus is gone.", cause=reason)
    return BusError(
        f"The I2C bus failed an access of address 0x{address:02X}: {reason}.", cause=reason
    )
