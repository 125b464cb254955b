"""What is an I2C transaction, and what a timed list of them: the same on every bus."""

from __future__ import annotations

from collections.abc import Sequence

from piod.errors import BusError
from piod.hw.ports import I2cMessage, NoAnswer, Read, TimedTransfer

MAX_LIST_S = 2.0
"""A timed list keeps all others from the bus, those that turn an LED off among them."""
MAX_LIST_ITEMS = 1000


def check(address: int, messages: Sequence[I2cMessage]) -> None:
    """Raises ValueError for what is no I2C transaction: a mistake of the caller."""
    if not 0x08 <= address <= 0x77:
        raise ValueError(f"0x{address:02X} is not the address of a chip")
    if not messages or any(isinstance(each, Read) and each.count < 1 for each in messages):
        raise ValueError("a transaction has a message at least, and a read a byte")


def check_list(items: Sequence[TimedTransfer]) -> None:
    """Raises ValueError for a timed list that cannot be done, or would take too long."""
    if len(items) > MAX_LIST_ITEMS:
        raise ValueError(f"a timed list has at most {MAX_LIST_ITEMS} items, got {len(items)}")
    last_s = 0.0
    for item in items:
        check(item.address, item.messages)
        if not item.offset_s >= last_s:
            raise ValueError(f"the offsets of a timed list cannot go back to {item.offset_s} s")
        if not item.pause_s >= 0:
            raise ValueError(f"a pause cannot last {item.pause_s} s")
        last_s = item.offset_s
    if length_s(items) > MAX_LIST_S:
        raise ValueError(f"a timed list of {length_s(items):.3f} s is longer than {MAX_LIST_S:g} s")


def length_s(items: Sequence[TimedTransfer]) -> float:
    """From the start of a timed list to its last transaction, if none of them takes long."""
    begins_s = 0.0
    for item in items:
        begins_s = max(item.offset_s, begins_s + item.pause_s)
    return begins_s


def in_list(error: BusError, index: int, count: int) -> BusError:
    """The same refusal, which also says where it ended a timed list."""
    refusal = type(error)(
        f"{error.message} (item {index + 1} of a timed list of {count}; the rest was not done)",
        cause=error.cause,
        remediation=error.remediation,
    )
    refusal.item = index
    return refusal


def no_answer(address: int, cause: str | None = None) -> NoAnswer:
    """The refusal when nobody acknowledges an address."""
    return NoAnswer(f"No chip answers at I2C address 0x{address:02X}.", cause=cause)
