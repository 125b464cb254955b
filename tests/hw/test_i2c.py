"""The I2C port: the same promises on the simulated bus and on a kernel's.

The kernel is a function in the place of its ioctl, below python-periphery: it sees
the very messages that a real one would.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from piod.errors import BadRequest, BusError, DeviceMissing
from piod.hw.linux import LinuxI2c
from piod.hw.models import BUILT_IN
from piod.hw.ports import I2cPort, Read, Write
from piod.hw.simulator.faults import Faults
from piod.hw.simulator.i2c import SimulatedI2c, chips_of
from piod.hw.wiring import load_wiring

THERE, NOT_THERE = 0x4F, 0x4A

I2C_FUNCS, I2C_RDWR = 0x705, 0x707
READS = 0x0001


class _Message(ctypes.Structure):
    """``struct i2c_msg`` of linux/i2c.h."""

    _fields_ = [
        ("addr", ctypes.c_ushort),
        ("flags", ctypes.c_ushort),
        ("len", ctypes.c_ushort),
        ("buf", ctypes.POINTER(ctypes.c_ubyte)),
    ]


@dataclass
class Kernel:
    """One I2C adapter with a chip at THERE, which answers each read with ``answer``."""

    answer: bytes = b"\x19\x40"
    not_there: int = errno.EREMOTEIO
    refuses_empty: int | None = None
    fails: int | None = None
    seen: list[tuple[int, list[Read | Write]]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def ioctl(self, fd: int, request: int, argument: object, mutate: bool = True) -> int:
        os.fstat(fd)  # EBADF for one that is closed
        self.threads.add(threading.get_ident())
        if request == I2C_FUNCS:
            argument[0] = 0x1
            return 0
        assert request == I2C_RDWR
        messages = ctypes.cast(argument.msgs, ctypes.POINTER(_Message))[: argument.nmsgs]
        if self.fails is not None:
            raise OSError(self.fails, os.strerror(self.fails))
        if self.refuses_empty is not None and any(message.len == 0 for message in messages):
            raise OSError(self.refuses_empty, os.strerror(self.refuses_empty))
        self.seen.append((messages[0].addr, [self._message(message) for message in messages]))
        if any(message.addr != THERE for message in messages):
            raise OSError(self.not_there, os.strerror(self.not_there))
        return 0

    def _message(self, message: _Message) -> Read | Write:
        if not message.flags & READS:
            return Write(bytes(message.buf[: message.len]))
        for index in range(message.len):
            message.buf[index] = self.answer[index % len(self.answer)]
        return Read(message.len)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr("periphery.i2c.fcntl", SimpleNamespace(ioctl=kernel.ioctl))
    return kernel


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "i2c-1"
    path.touch()
    return path


def simulated(kernel: Kernel, device: Path) -> I2cPort:
    return SimulatedI2c({THERE: "TMP1075"}, Faults())


def linux(kernel: Kernel, device: Path) -> I2cPort:
    return LinuxI2c(str(device))


@pytest.fixture(params=[simulated, linux])
async def port(
    request: pytest.FixtureRequest, kernel: Kernel, device: Path
) -> AsyncIterator[I2cPort]:
    make: Callable[[Kernel, Path], I2cPort] = request.param
    port = make(kernel, device)
    await port.open()
    yield port
    await port.close()


@pytest.fixture
async def bus(kernel: Kernel, device: Path) -> AsyncIterator[LinuxI2c]:
    bus = LinuxI2c(str(device))
    await bus.open()
    yield bus
    await bus.close()


# -- both ----------------------------------------------------------------------------


async def test_a_probe_tells_whether_a_chip_answers(port: I2cPort) -> None:
    assert await port.probe(THERE) is True
    assert await port.probe(NOT_THERE) is False


async def test_an_address_alone_is_a_transaction(port: I2cPort) -> None:
    assert list(await port.transfer(THERE, [Write(b"")])) == []
    with pytest.raises(BusError, match="No chip answers at I2C address 0x4A"):
        await port.transfer(NOT_THERE, [Write(b"")])


@pytest.mark.parametrize("address", [-1, 0, 0x07, 0x78, 0x100])
async def test_what_is_no_address_of_a_chip_is_a_mistake_of_the_caller(
    port: I2cPort, address: int
) -> None:
    with pytest.raises(ValueError, match="address"):
        await port.probe(address)
    with pytest.raises(ValueError, match="address"):
        await port.transfer(address, [Write(b"")])


async def test_a_bus_may_be_opened_again_and_closed_twice_and_refuses_then(port: I2cPort) -> None:
    await port.open()
    assert await port.probe(THERE)
    await port.close()
    await port.close()
    with pytest.raises(BusError):
        await port.probe(THERE)
    with pytest.raises(BusError):
        await port.transfer(THERE, [Write(b"")])
    await port.open()
    assert await port.probe(THERE)


# -- Linux ---------------------------------------------------------------------------


async def test_a_probe_writes_nothing(bus: LinuxI2c, kernel: Kernel) -> None:
    await bus.probe(THERE)
    assert kernel.seen == [(THERE, [Write(b"")])]


@pytest.mark.parametrize("refusal", [errno.EOPNOTSUPP, errno.EINVAL])
async def test_an_adapter_that_refuses_an_empty_write_reads_one_byte(
    bus: LinuxI2c, kernel: Kernel, refusal: int
) -> None:
    kernel.refuses_empty = refusal
    assert await bus.probe(THERE) is True
    assert await bus.probe(NOT_THERE) is False
    assert kernel.seen == [(THERE, [Read(1)]), (NOT_THERE, [Read(1)])]


@pytest.mark.parametrize("code", [errno.ENXIO, errno.EREMOTEIO])
async def test_no_answer_has_two_names_in_the_kernel(
    bus: LinuxI2c, kernel: Kernel, code: int
) -> None:
    kernel.not_there = code
    assert await bus.probe(NOT_THERE) is False


async def test_a_register_is_read_in_one_transaction(bus: LinuxI2c, kernel: Kernel) -> None:
    got = await bus.transfer(THERE, [Write(b"\x00"), Read(2), Write(b"\x01\x60"), Read(3)])
    assert got == [b"\x19\x40", b"\x19\x40\x19"]
    assert kernel.seen == [(THERE, [Write(b"\x00"), Read(2), Write(b"\x01\x60"), Read(3)])]


@pytest.mark.parametrize("messages", [[], [Read(0)], [Write(b"\x00"), Read(-1)]])
async def test_what_is_no_transaction_is_a_mistake_of_the_caller(
    bus: LinuxI2c, kernel: Kernel, messages: list[Read | Write]
) -> None:
    with pytest.raises(ValueError, match="message"):
        await bus.transfer(THERE, messages)
    assert kernel.seen == []


async def test_a_stuck_bus_is_not_a_missing_chip(bus: LinuxI2c, kernel: Kernel) -> None:
    kernel.fails = errno.ETIMEDOUT
    with pytest.raises(BusError, match=r"0x4F.*timed out") as stuck:
        await bus.probe(THERE)
    assert not isinstance(stuck.value, DeviceMissing)
    with pytest.raises(BusError, match="timed out"):
        await bus.transfer(THERE, [Read(1)])
    kernel.fails = None
    assert await bus.probe(THERE), "it goes on with the next access"


async def test_an_adapter_that_was_taken_away_is_a_missing_device(
    bus: LinuxI2c, kernel: Kernel
) -> None:
    kernel.fails = errno.ENODEV
    with pytest.raises(DeviceMissing):
        await bus.probe(THERE)


async def test_a_missing_bus_says_how_to_enable_it(kernel: Kernel, tmp_path: Path) -> None:
    bus = LinuxI2c(str(tmp_path / "i2c-1"))
    for _ in range(2):
        with pytest.raises(DeviceMissing) as missing:
            await bus.open()
        assert "dtparam=i2c_arm=on" in missing.value.remediation
        with pytest.raises(BusError):
            await bus.probe(THERE)
    (tmp_path / "i2c-1").touch()
    await bus.open()
    assert await bus.probe(THERE)
    await bus.close()


async def test_a_bus_that_may_not_be_opened_names_the_group(kernel: Kernel) -> None:
    def refuse(device: str) -> object:
        raise PermissionError(errno.EACCES, "Permission denied")

    bus = LinuxI2c("/dev/i2c-1", refuse)
    with pytest.raises(BusError, match="/dev/i2c-1 could not be opened") as refused:
        await bus.open()
    assert not isinstance(refused.value, DeviceMissing)
    assert "group i2c" in refused.value.remediation


async def test_all_access_is_in_one_other_thread(kernel: Kernel, device: Path) -> None:
    before = threading.active_count()
    bus = LinuxI2c(str(device))
    await bus.open()
    await asyncio.gather(*(bus.probe(address) for address in range(0x08, 0x78)))
    assert len(kernel.threads) == 1
    assert threading.get_ident() not in kernel.threads
    await bus.close()
    assert threading.active_count() == before


# -- the simulated bus ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("hat", "model"),
    [
        (hat, model.key)
        for hat in ("1.0", "1.1", "1.2")
        for model in BUILT_IN
        if hat != "1.0" or model.model_version != "1.5"  # no such unit can be wired
    ],
)
async def test_the_chips_are_those_of_hat_and_model(
    tmp_path: Path, hat: str, model: tuple[str, str]
) -> None:
    wiring = load_wiring(tmp_path, hat, model)
    bus = SimulatedI2c(chips_of(wiring), Faults())
    await bus.open()
    there = {address for address in range(0x08, 0x78) if await bus.probe(address)}
    assert there == {0x4F} | (
        {0x48, 0x49}
        if hat == "1.0"
        else {0x2C}
        | ({0x49, 0x4A} if model[1] == "1.5" else set())
        | ({0x48, 0x4B} if model[0].endswith("_XR") else set())
    )


async def test_faults_take_away_a_chip_or_the_bus() -> None:
    faults = Faults()
    bus = SimulatedI2c({THERE: "TMP1075", 0x2C: "PICO"}, faults)
    await bus.open()
    chip = faults.add("chip_missing", address=THERE)
    assert [await bus.probe(address) for address in (THERE, 0x2C)] == [False, True]
    with pytest.raises(BusError, match="0x4F"):
        await bus.transfer(THERE, [Write(b"")])
    faults.remove(chip.id)
    assert await bus.probe(THERE)

    faults.add("bus_error", bus="i2c", count=1)
    with pytest.raises(BusError, match="i2c bus"):
        await bus.probe(THERE)
    assert await bus.probe(THERE)

    faults.add("device_missing", bus="i2c")
    with pytest.raises(DeviceMissing):
        await bus.probe(THERE)
    with pytest.raises(DeviceMissing):
        await bus.open()
    faults.clear()
    with pytest.raises(BusError):
        await bus.probe(THERE)
    await bus.open()
    assert await bus.probe(THERE)


async def test_registers_are_refused_until_they_are_simulated() -> None:
    bus = SimulatedI2c({THERE: "TMP1075"}, Faults())
    await bus.open()
    with pytest.raises(BusError, match=r"TMP1075.*not simulated yet"):
        await bus.transfer(THERE, [Write(b"\x00"), Read(2)])


@pytest.mark.parametrize(
    ("kind", "given", "word"),
    [
        ("chip_missing", {}, "address is missing"),
        ("chip_missing", {"address": 0x78}, "8 to 119"),
        ("chip_missing", {"address": "0x4F"}, "whole number"),
        ("bus_error", {"bus": "i2c", "pin": 4}, "chip_missing"),
        ("system_error", {"call": "explode"}, "reboot"),
        ("service_down", {"service": ""}, "service"),
    ],
)
def test_a_fault_that_would_never_act_is_refused(
    kind: str, given: dict[str, object], word: str
) -> None:
    faults = Faults()
    with pytest.raises(BadRequest, match=word):
        faults.add(kind, **given)
    assert faults.list() == ()
