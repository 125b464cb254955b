"""Ways in which the simulated hardware and machine fail, put in and taken out by id.

A new kind is one class here and one line in KINDS. Faults live as long as the
daemon: a start begins without any.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, TypeVar

from piod.errors import BadRequest, BusError, DeviceMissing, NotFound

from .fields import Fields

BUSES = ("pwm", "gpio", "i2c")
SYSTEM_CALLS = (
    *("reboot", "power_off", "set_time", "synchronise_clock"),
    *("unit_states", "restart_units", "start_update", "update"),
)
PUMPS = ("media", "alt_media", "waste")
MAX_PIN = 1000
MAX_COUNT = 1_000_000
RESET_S = 2.0
MAX_RESET_S = 3600.0


@dataclass
class Fault:
    """Something that is broken as long as it is there."""

    kind: ClassVar[str]
    id: str

    @classmethod
    def read(cls, id: str, given: Fields) -> Fault:
        """The fault that a client describes; BadRequest."""
        return cls(id)

    def to_json(self) -> dict[str, object]:
        return {"kind": self.kind, **asdict(self)}


@dataclass
class StirrerStall(Fault):
    """The stir bar cannot turn."""

    kind = "stirrer_stall"


@dataclass
class LostEdges(Fault):
    """The hall sensor misses this fraction of its edges, at random."""

    kind = "lost_edges"
    fraction: float

    @classmethod
    def read(cls, id: str, given: Fields) -> LostEdges:
        return cls(id, given.number("fraction", 0, 1))


@dataclass
class Button(Fault):
    """Somebody leans on the button."""

    kind = "button"


@dataclass
class BusFailure(Fault):
    """Accesses of a bus fail; all, or those of one pin; while it is there, or ``count`` times."""

    kind = "bus_error"
    bus: str
    pin: int | None
    count: int | None
    message: str | None

    @classmethod
    def read(cls, id: str, given: Fields) -> BusFailure:
        if "pin" in given and given.value("bus") == "i2c":
            raise BadRequest("pin means nothing on the i2c bus; see the kind chip_missing.")
        return cls(
            id,
            bus=given.choice("bus", BUSES),
            pin=given.integer("pin", 0, MAX_PIN) if "pin" in given else None,
            count=given.integer("count", 1, MAX_COUNT) if "count" in given else None,
            message=given.text("message") if "message" in given else None,
        )


@dataclass
class MissingDevice(Fault):
    """A whole bus is not there."""

    kind = "device_missing"
    bus: str

    @classmethod
    def read(cls, id: str, given: Fields) -> MissingDevice:
        return cls(id, given.choice("bus", BUSES))


@dataclass
class MissingChip(Fault):
    """Nothing answers at this address of the I2C bus."""

    kind = "chip_missing"
    address: int

    @classmethod
    def read(cls, id: str, given: Fields) -> MissingChip:
        return cls(id, given.integer("address", 0x08, 0x77))


@dataclass
class Nack(Fault):
    """The chip at this address does not acknowledge the next ``count`` transactions."""

    kind = "nack"
    address: int
    count: int

    @classmethod
    def read(cls, id: str, given: Fields) -> Nack:
        count = given.integer("count", 1, MAX_COUNT) if "count" in given else 1
        return cls(id, given.integer("address", 0x08, 0x77), count)


@dataclass
class BusHeldLow(Fault):
    """A chip holds a line of the I2C bus low until the bus is recovered, if it can be."""

    kind = "i2c_stuck"
    recoverable: bool

    @classmethod
    def read(cls, id: str, given: Fields) -> BusHeldLow:
        return cls(id, given.flag("recoverable") if "recoverable" in given else True)


@dataclass
class ChipReset(Fault):
    """A chip of the I2C bus begins anew, its LEDs off, and answers again after ``seconds``.

    Two of them are what the RP2040 takes.
    """

    kind = "chip_reset"
    address: int
    seconds: float

    @classmethod
    def read(cls, id: str, given: Fields) -> ChipReset:
        seconds = given.number("seconds", 0, MAX_RESET_S) if "seconds" in given else RESET_S
        return cls(id, given.integer("address", 0x08, 0x77), seconds)


@dataclass
class SystemFailure(Fault):
    """The machine refuses a call; "update": one that was started fails in the end."""

    kind = "system_error"
    call: str
    message: str | None

    @classmethod
    def read(cls, id: str, given: Fields) -> SystemFailure:
        message = given.text("message") if "message" in given else None
        return cls(id, given.choice("call", SYSTEM_CALLS), message)


@dataclass
class ServiceDown(Fault):
    """A systemd unit of the machine has failed."""

    kind = "service_down"
    service: str

    @classmethod
    def read(cls, id: str, given: Fields) -> ServiceDown:
        return cls(id, given.text("service"))


@dataclass
class TemperatureStuck(Fault):
    """The temperature sensor shows ``celsius``, or what it showed last, whatever happens."""

    kind = "temperature_stuck"
    celsius: float | None

    @classmethod
    def read(cls, id: str, given: Fields) -> TemperatureStuck:
        return cls(id, given.number("celsius", -128, 127) if "celsius" in given else None)


@dataclass
class TemperatureOffset(Fault):
    """The temperature sensor shows so much too much."""

    kind = "temperature_offset"
    celsius: float

    @classmethod
    def read(cls, id: str, given: Fields) -> TemperatureOffset:
        return cls(id, given.number("celsius", -200, 200))


@dataclass
class TemperatureRunaway(Fault):
    """What the temperature sensor shows runs away from the truth."""

    kind = "temperature_runaway"
    celsius_per_minute: float

    @classmethod
    def read(cls, id: str, given: Fields) -> TemperatureRunaway:
        if "celsius_per_minute" not in given:
            return cls(id, 10.0)
        return cls(id, given.number("celsius_per_minute", -1000, 1000))


@dataclass
class HeaterStuck(Fault):
    """The heater gets ``duty_percent``, whatever its output says."""

    kind = "heater_stuck"
    duty_percent: float

    @classmethod
    def read(cls, id: str, given: Fields) -> HeaterStuck:
        duty = given.number("duty_percent", 0, 100) if "duty_percent" in given else 100.0
        return cls(id, duty)


@dataclass
class HeaterFailure(Fault):
    """The heater does not heat."""

    kind = "heater_failure"


@dataclass
class PumpFailure(Fault):
    """A pump turns and pumps nothing."""

    kind = "pump_failure"
    pump: str

    @classmethod
    def read(cls, id: str, given: Fields) -> PumpFailure:
        return cls(id, given.choice("pump", PUMPS))


@dataclass
class Bubbles(Fault):
    """OD readings meet bubbles with this probability."""

    kind = "bubbles"
    probability: float

    @classmethod
    def read(cls, id: str, given: Fields) -> Bubbles:
        return cls(id, given.number("probability", 0, 1) if "probability" in given else 1.0)


KINDS: Mapping[str, type[Fault]] = {
    kind.kind: kind
    for kind in (
        StirrerStall,
        LostEdges,
        BusFailure,
        MissingDevice,
        MissingChip,
        Nack,
        BusHeldLow,
        ChipReset,
        Button,
        SystemFailure,
        ServiceDown,
        TemperatureStuck,
        TemperatureOffset,
        TemperatureRunaway,
        HeaterStuck,
        HeaterFailure,
        PumpFailure,
        Bubbles,
    )
}

F = TypeVar("F", bound=Fault)


class Faults:
    """What is broken now. ``changed`` is called after each change of that."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._ids = itertools.count(1)
        self._faults: dict[str, Fault] = {}

    def add(self, kind: str, /, **params: object) -> Fault:
        """Break something; BadRequest names what is allowed."""
        if not isinstance(kind, str) or kind not in KINDS:
            raise BadRequest(f"kind must be one of: {', '.join(KINDS)}.")
        known = [field.name for field in fields(KINDS[kind]) if field.name != "id"]
        given = Fields(params, "", known)
        fault = KINDS[kind].read(str(next(self._ids)), given)
        self._faults[fault.id] = fault
        self._changed()
        return fault

    def remove(self, id: str) -> None:
        """Repair one fault; NotFound."""
        if self._faults.pop(id, None) is None:
            raise NotFound(f"There is no fault with the id {id!r}.")
        self._changed()

    def clear(self) -> None:
        """Repair everything."""
        self._faults.clear()
        self._changed()

    def __bool__(self) -> bool:
        """Whether anything is broken."""
        return bool(self._faults)

    def of(self, kind: type[F]) -> Sequence[F]:
        """The faults of one kind."""
        return [fault for fault in self._faults.values() if isinstance(fault, kind)]

    def access(self, bus: str, pin: int | None = None) -> None:
        """Called at each access of a bus: raises DeviceMissing or BusError if it fails."""
        if not self._faults:
            return
        if any(fault.bus == bus for fault in self.of(MissingDevice)):
            raise DeviceMissing(f"There is no {bus} bus (a simulated fault).")
        for fault in self.of(BusFailure):
            if fault.bus != bus or fault.pin not in (None, pin):
                continue
            if fault.count is not None:
                fault.count -= 1
                if fault.count == 0:
                    self.remove(fault.id)
            where = f"the {bus} bus" if pin is None else f"GPIO {pin} on the {bus} bus"
            raise BusError(fault.message or f"An access of {where} failed (a simulated fault).")

    def list(self) -> Sequence[Fault]:
        """What is broken, oldest first."""
        return tuple(self._faults.values())
