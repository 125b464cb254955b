"""The simulator's own doors; they exist on a simulated unit only."""

from __future__ import annotations

from typing import TypedDict

from aiohttp import web

from piod.clock import SimulatedClock, timestamp
from piod.errors import BadRequest
from piod.http.answers import json_answer
from piod.http.decode import Decoded, StrictNumber, decode_json, read_json_object
from piod.hw.simulator.board import SimulatedBoard
from piod.hw.simulator.system import SimulatedSystem

MAX_ADVANCE_S = 366 * 86400.0

PLANT_EXAMPLE = {
    "volume_ml": 14.0,
    "capacity_ml": 20.0,
    "efflux_ml": 14.0,
    "max_fill_ml": 18.0,
    "highest_ml": 14.0,
    "overflow": False,
    "spilled_ml": 0.0,
    "unmixed_ml": 0.0,
    "content": "culture",
    "biomass": 0.31,
    "od": 0.31,
    "substrate": 9.6,
    "alt_media_fraction": 0.0,
    "inhibitor": 0.0,
    "age_h": 3.2,
    "mu_per_h": 0.51,
    "net_growth_per_h": 0.505,
    "ambient_celsius": 24.0,
    "liquid_celsius": 36.9,
    "pcb_celsius": 41.2,
    "heater_percent": 19.5,
    "rpm": 498.2,
    "stirrer": {"rpm_per_percent": 19.4, "bar_lost": False, "stalled": False, "jammed": False},
    "pumps": {"media": {"ml_per_s": 0.101, "flow_ml_per_s": 0.0, "pumped_ml": 0.0}},
    "led": {"A": 0.0, "B": 0.0, "C": 0.0, "D": 0.0},
    "ir_output": 1.0,
    "pwm": {"17": 30.7, "13": 0.0, "16": 0.0, "12": 0.0, "18": 19.5},
    "pcb_led_on": False,
}
SYSTEM_EXAMPLE = {
    "done": [{"at": "2026-01-31T12:45:00.000Z", "action": "reboot"}],
    "update": {"request_id": "3b3c…", "state": "succeeded", "message": ""},
}
FAULT_EXAMPLE = {"id": "1", "kind": "bus_error", "bus": "gpio", "count": 1}


class _AdvanceBody(TypedDict):
    seconds: float


class AdvanceSchema(Decoded[_AdvanceBody]):
    example = {"seconds": 60}
    seconds = StrictNumber(
        required=True, metadata={"description": "Simulated seconds to let pass, above 0."}
    )


class PlantSchema(Decoded[dict[str, object]]):
    """Documents the body; the plant itself says what it takes."""

    example = {"volume_ml": 12.5}


class FaultSchema(Decoded[dict[str, object]]):
    """Documents the body; each kind of fault says what it takes."""

    example = {"kind": "bus_error", "bus": "gpio", "count": 1}


class SimulatorHandlers:
    """``/simulator``: the truth, what is broken, and time."""

    def __init__(
        self, board: SimulatedBoard, clock: SimulatedClock, system: SimulatedSystem
    ) -> None:
        self._board = board
        self._clock = clock
        self._system = system

    async def plant(self, request: web.Request) -> web.Response:
        """The truth about the simulated reactor, at this instant."""
        return json_answer(self._board.truth())

    async def patch_plant(self, request: web.Request) -> web.Response:
        """Put in another vial, bar or motor; all that is named, or nothing."""
        changes = await read_json_object(request, may_be_empty=False)
        return json_answer(self._board.patch(changes))

    async def system(self, request: web.Request) -> web.Response:
        """What was asked of the simulated machine."""
        return json_answer(self._system.record())

    async def faults(self, request: web.Request) -> web.Response:
        return json_answer([fault.to_json() for fault in self._board.faults.list()])

    async def add_fault(self, request: web.Request) -> web.Response:
        """Break something."""
        given = await read_json_object(request, may_be_empty=False)
        kind = given.pop("kind", None)
        if not isinstance(kind, str):
            raise BadRequest("kind must be the text that names a kind of fault")
        return json_answer(self._board.faults.add(kind, **given).to_json(), status=201)

    async def clear_faults(self, request: web.Request) -> web.Response:
        self._board.faults.clear()
        return json_answer([])

    async def remove_fault(self, request: web.Request) -> web.Response:
        self._board.faults.remove(request.match_info["fault_id"])
        return json_answer([fault.to_json() for fault in self._board.faults.list()])

    async def advance(self, request: web.Request) -> web.Response:
        """Let simulated time pass as fast as the machine goes; answers when it has."""
        seconds = (await decode_json(request, AdvanceSchema))["seconds"]
        if not 0 < seconds <= MAX_ADVANCE_S:
            raise BadRequest(f"seconds must be above 0 and at most {MAX_ADVANCE_S:g}")
        await self._clock.advance(seconds)
        return json_answer({"utc_time": timestamp(self._clock.time())})
