"""The simulated unit's machine: it does what it is told on paper, and keeps the paper.

``<directory>/system.json`` lists what was asked of it and outlives the daemon, as
a machine does::

    {"done": [{"at": "2026-01-31T12:45:00.000Z", "action": "reboot"}, …],
     "update": {"request_id": …, "state": "running" | "succeeded" | "failed", "message": …}}

A reboot and a shutdown are handed to whoever runs the daemon. An update runs
nothing; it takes UPDATE_S of simulated time, whether or not the daemon lives on
meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from piod.clock import SimulatedClock, Timer, timestamp
from piod.errors import BadRequest, Unavailable
from piod.system import SystemPort, UpdateOutcome, UpdateRequest

from .faults import Faults, ServiceDown, SystemFailure
from .fields import Fields
from .run_on import replace_text

log = logging.getLogger(__name__)

SYSTEM_FILE = "system.json"
UPDATE_S = 1.0
REMEMBERED = 1000
"""What was done before is forgotten."""

PowerAction = Literal["reboot", "power_off"]


class SimulatedSystem(SystemPort):
    """The machine of a simulated unit; it outlives the daemons that a reboot starts anew.

    ``on_power`` is told of a reboot or shutdown. The clock that it sets is
    ``clock``; synchronised, it is what it was when this was made.
    """

    def __init__(
        self, directory: Path, clock: SimulatedClock, on_power: Callable[[PowerAction], None]
    ) -> None:
        self._path = directory / SYSTEM_FILE
        self._clock = clock
        self._on_power = on_power
        self.faults = Faults()
        """What is broken now: to be those of the board that the daemon has."""
        self._true_offset_s = clock.offset_s
        self._done, self._update = _read(self._path)
        self._update_over = asyncio.Event()
        self._updating: Timer | None = None
        if self._update is not None and self._update["state"] == "running":
            self._go_on_updating()
        else:
            self._update_over.set()

    def record(self) -> dict[str, object]:
        """What was asked of the machine so far, as it is in the file."""
        return {"done": self._done, "update": self._update}

    def close(self) -> None:
        """Stand still: an update that runs goes on with the next one made here."""
        if self._updating is not None:
            self._updating.cancel()

    async def check(self) -> None:
        pass  # it is there

    async def disconnect(self) -> None:
        pass  # it outlives the daemon

    async def recover(self) -> None:
        pass  # it does everything at once

    async def reboot(self) -> None:
        self._do("reboot")
        self._on_power("reboot")

    async def power_off(self) -> None:
        self._do("power_off")
        self._on_power("power_off")

    async def set_time(self, unix_s: float, ntp: bool | None = None) -> None:
        if ntp is None:
            self._do("set_time", to=timestamp(unix_s))
        else:
            self._do("set_time", to=timestamp(unix_s), ntp=ntp)
        self._clock.offset_s = unix_s - self._clock.monotonic()

    async def synchronise_clock(self) -> None:
        self._do("synchronise_clock")
        self._clock.offset_s = self._true_offset_s

    async def clock_synchronised(self) -> bool | None:
        return self._clock.offset_s == self._true_offset_s

    async def unit_states(self, names: Sequence[str]) -> Mapping[str, str]:
        self._fail_if_told("unit_states")
        down = {fault.service for fault in self.faults.of(ServiceDown)}
        return {name: "failed" if name in down else "active" for name in names}

    async def restart_units(self, names: Sequence[str]) -> None:
        self._do("restart_units", units=list(names))

    async def start_update(self, request: UpdateRequest) -> None:
        update = {"request_id": request.request_id, "state": "running", "message": ""}
        self._do("start_update", update, request=asdict(request))
        self._update_over.clear()
        self._go_on_updating()

    async def update_outcome(self, request_id: str) -> UpdateOutcome | None:
        if self._update is None or self._update["request_id"] != request_id:
            return None
        await self._update_over.wait()
        return UpdateOutcome(self._update["state"] == "succeeded", self._update["message"])

    def _go_on_updating(self) -> None:
        self._updating = self._clock.call_at(self._clock.monotonic() + UPDATE_S, self._end_update)

    def _end_update(self) -> None:
        assert self._update is not None  # only an update that runs ends
        failures = self._faults_of("update")
        if failures:
            self._update |= {"state": "failed", "message": failures[0]}
        else:
            self._update |= {"state": "succeeded"}
        try:
            self._save()
        except OSError as error:
            log.error("%s could not be written: %s", self._path, error.strerror or error)
        self._update_over.set()

    def _do(self, action: str, update: dict[str, str] | None = None, **details: object) -> None:
        """Note that it is done, unless a fault forbids it. Raises Unavailable, nothing done."""
        self._fail_if_told(action)
        before = self._done, self._update
        done = {"at": timestamp(self._clock.time()), "action": action, **details}
        self._done = [*self._done, done][-REMEMBERED:]
        self._update = update or self._update
        try:
            self._save()
        except OSError as error:
            self._done, self._update = before
            raise Unavailable(
                f"the simulated machine cannot write {self._path}",
                cause=error.strerror or str(error),
                remediation="Check the disk and the permissions of the data directory.",
            ) from error

    def _fail_if_told(self, call: str) -> None:
        for message in self._faults_of(call):
            raise Unavailable(f"the machine refused {call}: {message}")

    def _faults_of(self, call: str) -> list[str]:
        failures = self.faults.of(SystemFailure)
        return [fault.message or "a simulated fault" for fault in failures if fault.call == call]

    def _save(self) -> None:
        replace_text(self._path, json.dumps(self.record()) + "\n")


def _read(path: Path) -> tuple[list[object], dict[str, str] | None]:
    """What the machine did, and its last update; nothing if the file cannot be understood."""
    try:
        fields = Fields(json.loads(path.read_text(encoding="utf-8")), "", ("done", "update"))
        done, update = fields.value("done"), fields.value("update")
        if not isinstance(done, list):
            raise BadRequest("done must be a list")
        if update is None:
            return done, None
        known = Fields(update, "update", ("request_id", "state", "message"))
        states = ("running", "succeeded", "failed")
        return done, {
            "request_id": known.text("request_id"),
            "state": known.choice("state", states),
            "message": str(known.value("message")),
        }
    except FileNotFoundError:
        return [], None
    except (OSError, ValueError, RecursionError, BadRequest) as error:
        log.warning("%s is not used: %s", path, error)
        return [], None
