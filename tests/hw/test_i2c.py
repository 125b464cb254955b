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
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from piod.clock import Clock, SimulatedClock, WallClock
from piod.errors import BadRequest, BusError, DeviceMissing
from piod.hw.linux import LinuxI2c
from piod.hw.models import BUILT_IN
from piod.hw.ports import BusStuck, I2cPort, NoAnswer, Read, TimedTransfer, Write
from piod.hw.simulator.chips import ChipWiring, build_chips, chips_of
from piod.hw.simulator.chips.tmp1075 import SimulatedTmp1075
from piod.hw.simulator.faults import Faults
from piod.hw.simulator.i2c import SimulatedI2c
from piod.hw.wiring import load_wiring

THERE, NOT_THERE = 0x4F, 0x4A
NOBODY = 0x7F
CELSIUS, ANSWER = 25.25, b"\x19\x40"
READ_REGISTER = [Write(b"\x00"), Read(2)]

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

    answer: bytes = ANSWER
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


@dataclass
class Implementation:
    """One I2C port, and the clock that it lives by."""

    port: I2cPort
    clock: Clock


def thermometer() -> SimulatedTmp1075:
    return SimulatedTmp1075(lambda now_s: CELSIUS)


def simulated(device: Path) -> Implementation:
    clock = SimulatedClock(start_time=1_790_000_000.0)
    return Implementation(SimulatedI2c({THERE: thermometer()}, Faults(), clock), clock)


def linux(device: Path) -> Implementation:
    return Implementation(LinuxI2c(str(device)), WallClock())


@pytest.fixture(params=[simulated, linux])
async def implementation(
    request: pytest.FixtureRequest, kernel: Kernel, device: Path
) -> AsyncIterator[Implementation]:
    make: Callable[[Path], Implementation] = request.param
    made = make(device)
    await made.port.open()
    yield made
    await made.port.close()


@pytest.fixture
def port(implementation: Implementation) -> I2cPort:
    return implementation.port


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


async def test_a_register_is_read(port: I2cPort) -> None:
    assert list(await port.transfer(THERE, READ_REGISTER)) == [ANSWER]


async def test_a_timed_list_is_done_in_order_and_not_before_its_instants(port: I2cPort) -> None:
    offsets = [0.0, 0.0, 0.02, 0.03]
    answers = await port.transfer_at([TimedTransfer(at, THERE, READ_REGISTER) for at in offsets])
    times = [answer.t_s for answer in answers]
    assert [list(answer.data) for answer in answers] == [[ANSWER]] * 4
    assert times == sorted(times)
    assert all(t_s >= offset_s - 1e-6 for t_s, offset_s in zip(times, offsets, strict=True))
    assert times[0] < times[1], "each has an instant of its own"
    assert list(await port.transfer_at([])) == []


async def test_a_pause_counts_from_the_end_of_the_item_before(port: I2cPort) -> None:
    items = [TimedTransfer(0.0, THERE, READ_REGISTER, pause_s=0.01) for _ in range(3)]
    times = [answer.t_s for answer in await port.transfer_at(items)]
    assert times[1] - times[0] > 0.01
    assert times[2] - times[1] > 0.01


async def test_a_timed_list_returns_when_its_last_item_is_over(
    implementation: Implementation,
) -> None:
    began_s = implementation.clock.monotonic()
    (answer,) = await implementation.port.transfer_at([TimedTransfer(0.02, THERE, READ_REGISTER)])
    assert implementation.clock.monotonic() > began_s + answer.t_s


async def test_nobody_comes_between_the_items_of_a_timed_list(port: I2cPort) -> None:
    items = [TimedTransfer(at, THERE, READ_REGISTER) for at in (0.0, 0.03, 0.06)]
    order: list[str] = []

    async def note(name: str, work: Awaitable[object]) -> None:
        await work
        order.append(name)

    first = asyncio.ensure_future(note("list", port.transfer_at(items)))
    await asyncio.sleep(0)
    await asyncio.gather(first, note("probe", port.probe(THERE)))
    assert order == ["list", "probe"]


async def test_an_item_that_fails_ends_the_list_and_is_named(port: I2cPort) -> None:
    items = [
        TimedTransfer(0.0, THERE, READ_REGISTER),
        TimedTransfer(0.01, NOT_THERE, READ_REGISTER),
        TimedTransfer(1.9, THERE, READ_REGISTER),
    ]
    with pytest.raises(NoAnswer, match=r"0x4A.*item 2 of a timed list of 3"):
        await port.transfer_at(items)
    assert await port.probe(THERE)


async def test_a_cancelled_list_lets_the_bus_go(implementation: Implementation) -> None:
    port, clock = implementation.port, implementation.clock
    items = [TimedTransfer(at, THERE, READ_REGISTER) for at in (0.0, 0.9, 1.9)]
    began_s = clock.monotonic()
    asking = asyncio.ensure_future(port.transfer_at(items))
    await asyncio.sleep(0)
    asking.cancel()
    assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], BaseException)
    assert await port.probe(THERE)
    assert clock.monotonic() - began_s < 0.5


@pytest.mark.parametrize(
    ("items", "word"),
    [
        ([TimedTransfer(0.1, THERE, [Read(1)]), TimedTransfer(0.0, THERE, [Read(1)])], "back"),
        ([TimedTransfer(-0.1, THERE, [Read(1)])], "back"),
        ([TimedTransfer(float("nan"), THERE, [Read(1)])], "back"),
        ([TimedTransfer(0.0, THERE, [Read(1)], -1.0)], "pause"),
        ([TimedTransfer(2.1, THERE, [Read(1)])], "2 s"),
        ([TimedTransfer(0.0, THERE, [Read(1)], 0.5)] * 5, "2 s"),
        ([TimedTransfer(0.0, THERE, [Read(1)])] * 1001, "1000"),
        ([TimedTransfer(0.0, THERE, [])], "message"),
        ([TimedTransfer(0.0, 0x03, [Read(1)])], "address"),
    ],
)
async def test_what_is_no_timed_list_is_a_mistake_of_the_caller(
    port: I2cPort, items: list[TimedTransfer], word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        await port.transfer_at(items)


async def test_recovering_a_bus_that_works_does_no_harm(port: I2cPort) -> None:
    await port.recover()
    assert await port.probe(THERE)
    await port.close()
    with pytest.raises(BusError):
        await port.recover()
    with pytest.raises(BusError):
        await port.transfer_at([TimedTransfer(0.0, THERE, READ_REGISTER)])


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
    with pytest.raises(BusStuck, match=r"0x4F.*timed out"):
        await bus.probe(THERE)
    with pytest.raises(BusStuck, match=r"0x4F.*timed out.*item 1 of"):
        await bus.transfer_at([TimedTransfer(0.0, THERE, READ_REGISTER)])
    await bus.recover()
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


async def test_recovering_pulses_the_clock_without_addressing_a_chip(
    bus: LinuxI2c, kernel: Kernel
) -> None:
    await bus.recover()
    assert kernel.seen == [(NOBODY, [Read(1)])]


async def test_a_cancelled_list_leaves_the_rest_undone(bus: LinuxI2c, kernel: Kernel) -> None:
    items = [TimedTransfer(at, THERE, [Read(1)]) for at in (0.0, 1.5)]
    asking = asyncio.ensure_future(bus.transfer_at(items))
    while not kernel.seen:
        await WallClock().sleep(0.001)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await bus.probe(THERE)
    assert kernel.seen == [(THERE, [Read(1)]), (THERE, [Write(b"")])]


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


class Nothing:
    """Surroundings in which there is nothing to measure."""

    def analog_input(self, signal: str, kind: str) -> Callable[[float], float]:
        return lambda now_s: 0.0

    def pcb_celsius(self, now_s: float) -> float:
        return 25.0

    def set_led(self, channel: str, percent: float, now_s: float) -> None:
        pass


async def faulty(clock: Clock) -> tuple[SimulatedI2c, Faults]:
    """A bus with two chips, and what may be wrong with it."""
    faults = Faults(lambda: bus.faults_changed())
    chips = build_chips({THERE: ChipWiring("TMP1075"), 0x2C: ChipWiring("PICO")}, Nothing(), 0.0)
    bus = SimulatedI2c(chips, faults, clock)
    await bus.open()
    return bus, faults


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
    chips = build_chips(chips_of(wiring), Nothing(), 0.0)
    bus = SimulatedI2c(chips, Faults(), WallClock())
    await bus.open()
    there = {address for address in range(0x08, 0x78) if await bus.probe(address)}
    assert there == {0x4F} | (
        {0x48, 0x49}
        if hat == "1.0"
        else {0x2C}
        | ({0x49, 0x4A} if model[1] == "1.5" else set())
        | ({0x48, 0x4B} if model[0].endswith("_XR") else set())
    )


async def test_faults_take_away_a_chip_or_the_bus(clock: SimulatedClock) -> None:
    bus, faults = await faulty(clock)
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


async def test_a_nack_lasts_as_many_transactions_as_it_says(clock: SimulatedClock) -> None:
    bus, faults = await faulty(clock)
    faults.add("nack", address=THERE, count=2)
    assert await bus.probe(0x2C)
    assert not await bus.probe(THERE)
    with pytest.raises(NoAnswer, match="0x4F"):
        await bus.transfer(THERE, READ_REGISTER)
    assert await bus.transfer(THERE, READ_REGISTER)
    assert faults.list() == ()


@pytest.mark.parametrize("recoverable", [True, False])
async def test_a_stuck_bus_fails_every_access_until_it_is_recovered(
    clock: SimulatedClock, recoverable: bool
) -> None:
    bus, faults = await faulty(clock)
    faults.add("i2c_stuck", recoverable=recoverable)
    for _ in range(3):
        with pytest.raises(BusStuck, match="held low"):
            await bus.transfer(THERE, READ_REGISTER)
        with pytest.raises(BusStuck):
            await bus.probe(0x2C)
    await bus.recover()
    if recoverable:
        assert await bus.probe(THERE)
        assert faults.list() == ()
    else:
        with pytest.raises(BusStuck):
            await bus.probe(THERE)


async def test_a_chip_that_was_reset_is_silent_for_a_while(clock: SimulatedClock) -> None:
    bus, faults = await faulty(clock)
    await bus.transfer(THERE, [Write(b"\x02\x12\x34")])
    faults.add("chip_reset", address=THERE)
    await clock.sleep(1.99)
    assert [await bus.probe(address) for address in (THERE, 0x2C)] == [False, True]
    await clock.sleep(0.02)
    assert await bus.transfer(THERE, [Write(b"\x02"), Read(2)]) == [b"\x4b\x00"]
    assert faults.list() == ()


async def test_a_reset_may_be_over_early(clock: SimulatedClock) -> None:
    bus, faults = await faulty(clock)
    reset = faults.add("chip_reset", address=THERE, seconds=10)
    faults.remove(reset.id)
    assert await bus.probe(THERE)
    await clock.sleep(20)
    assert await bus.probe(THERE)


async def test_a_closed_bus_ends_a_list_that_is_under_way(clock: SimulatedClock) -> None:
    bus, _ = await faulty(clock)
    items = [TimedTransfer(at, THERE, READ_REGISTER) for at in (0.0, 0.5)]
    asking = asyncio.ensure_future(bus.transfer_at(items))
    await clock.sleep(0.1)
    await bus.close()
    with pytest.raises(BusError, match=r"not open.*item 2"):
        await asking


@pytest.mark.parametrize(
    ("kind", "given", "word"),
    [
        ("chip_missing", {}, "address is missing"),
        ("chip_missing", {"address": 0x78}, "8 to 119"),
        ("chip_missing", {"address": "0x4F"}, "whole number"),
        ("bus_error", {"bus": "i2c", "pin": 4}, "chip_missing"),
        ("nack", {"address": THERE, "count": 0}, "1 to"),
        ("nack", {"count": 1}, "address is missing"),
        ("i2c_stuck", {"recoverable": 1}, "true or false"),
        ("chip_reset", {"address": THERE, "seconds": -1}, "0 to"),
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
