"""The I2C bus of a Raspberry Pi (I2cPort), on python-periphery.

All access happens in one bus thread, so transactions never mix, and a timed list
is kept to its instants whatever the event loop does.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from piod.errors import BusError, DeviceMissing
from piod.hw.i2c import check, check_list, in_list, no_answer
from piod.hw.linux.bus_thread import BusThread
from piod.hw.ports import BusStuck, I2cMessage, Read, TimedAnswer, TimedTransfer, Write

DEVICE = "/dev/i2c-1"

NO_ANSWER = (errno.ENXIO, errno.EREMOTEIO)
"""An address that nobody acknowledges: the kernel's word for it, and that of the
adapters of the Raspberry Pi (Documentation/i2c/fault-codes.rst)."""
GONE = (errno.ENODEV, errno.ENOENT)
REFUSES_EMPTY = (errno.EOPNOTSUPP, errno.EINVAL)
STUCK = (errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY)
"""No end of a transaction, a line that somebody else holds low, no free bus."""
NOBODY = 0x7F
"""A reserved address, all ones: to address it is nine clock pulses with the data line left
alone, then a stop, which is how the I2C specification frees a bus (UM10204, 3.1.16)."""


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

    async def transfer_at(self, items: Sequence[TimedTransfer]) -> Sequence[TimedAnswer]:
        """See :meth:`piod.hw.ports.I2cPort.transfer_at`."""
        check_list(items)
        thread, adapter = self._open()
        abandoned = threading.Event()
        try:
            return await thread.run(lambda: _transfer_at(adapter, items, abandoned))
        finally:
            abandoned.set()  # cancelled: others need not wait for what nobody wants

    async def probe(self, address: int) -> bool:
        """See :meth:`piod.hw.ports.I2cPort.probe`."""
        check(address, [Write(b"")])
        thread, adapter = self._open()
        return await thread.run(lambda: _probe(adapter, address))

    async def recover(self) -> None:
        """See :meth:`piod.hw.ports.I2cPort.recover`."""
        thread, adapter = self._open()
        await thread.run(lambda: _recover(adapter))

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


def _transfer(adapter: Adapter, address: int, messages: Sequence[I2cMessage]) -> list[bytes]:
    try:
        return adapter.transfer(address, messages)
    except OSError as error:
        raise _bus_error(address, error) from error


def _transfer_at(
    adapter: Adapter, items: Sequence[TimedTransfer], abandoned: threading.Event
) -> list[TimedAnswer]:
    answers: list[TimedAnswer] = []
    start_s = end_s = time.monotonic()
    for index, (offset_s, address, messages, pause_s) in enumerate(items):
        wait_s = max(start_s + offset_s, end_s + pause_s) - time.monotonic()
        if abandoned.wait(wait_s) if wait_s > 0 else abandoned.is_set():
            break
        began_s = time.monotonic()
        try:
            data = _transfer(adapter, address, messages)
        except BusError as error:
            raise in_list(error, index, len(items)) from error
        end_s = time.monotonic()
        answers.append(TimedAnswer(began_s - start_s, data))
    return answers


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


def _recover(adapter: Adapter) -> None:
    try:
        adapter.transfer(NOBODY, [Read(1)])
    except OSError:
        pass  # nobody answers, or the bus is as stuck as before


def _close(adapter: Adapter) -> None:
    try:
        adapter.close()
    except OSError:
        pass  # there is nothing more to let go of


def _bus_error(address: int, error: OSError) -> BusError:
    reason = error.strerror or str(error)
    if error.errno in NO_ANSWER:
        return no_answer(address, reason)
    if error.errno in GONE:
        return DeviceMissing("The I2C bus is gone.", cause=reason)
    kind = BusStuck if error.errno in STUCK else BusError
    return kind(f"The I2C bus failed an access of address 0x{address:02X}: {reason}.", cause=reason)
