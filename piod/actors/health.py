"""How the unit is doing: what ``GET /unit_api/health`` tells besides the documented keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from piod.actors.actor import Ref
from piod.actors.buses.bus import Bus, BusState
from piod.actors.buses.i2c import DeviceStatistics, I2cBus
from piod.actors.clock_watch import ClockReport, ClockState, ClockWatch
from piod.actors.guardian import Guardian, GuardState
from piod.actors.heater import HeaterInterlock, InterlockState
from piod.actors.model import UnitModel
from piod.actors.volumes import LookForDoubt, VolumeLedger
from piod.config import ConfigFiles
from piod.errors import PiodError
from piod.storage.ledger import Ledger

ASK_TIMEOUT_S = 1.0
RECENT_LOST = 20


class Health:
    """Finds out what is wrong. ``buses`` by name; ``guardian`` None: there is no guard.

    ``found_at_start``: problems that the start has found, and that only another one
    can find to be over.
    """

    def __init__(
        self,
        *,
        config: ConfigFiles,
        model: UnitModel,
        ledger: Ledger,
        buses: Mapping[str, Ref[Bus]],
        i2c: Ref[I2cBus],
        guardian: Ref[Guardian] | None,
        heater: Ref[HeaterInterlock],
        volumes: Ref[VolumeLedger],
        clock_watch: Ref[ClockWatch],
        found_at_start: Sequence[str] = (),
    ) -> None:
        self._config = config
        self._model = model
        self._ledger = ledger
        self._buses = buses
        self._i2c = i2c
        self._guardian = guardian
        self._heater = heater
        self._volumes = volumes
        self._clock_watch = clock_watch
        self._found_at_start = tuple(found_at_start)

    async def problems(self) -> Sequence[str]:
        """What is wrong, in words."""
        found = (await self.examine())["problems"]
        return [str(problem) for problem in found] if isinstance(found, list) else []

    async def examine(self) -> Mapping[str, object]:
        """``problems`` in words, the ``model``, the ``clock``, the last ``lost_jobs``, and
        the accesses of each chip since the start (``i2c``).
        """
        problems = list(self._found_at_start)
        self._config.current()
        if self._config.problem is not None:
            problems.append(f"configuration: {self._config.problem}")
        if self._model.key is None:
            problems.append(
                "the reactor model is not known: the strictest limits of all models hold"
            )
        for name, bus in self._buses.items():
            problems += await self._of_bus(name, bus)
        if self._guardian is not None:
            try:
                if not (await self._guardian.ask(GuardState(), timeout=ASK_TIMEOUT_S)).alive:
                    problems.append("the guard process is not running")
            except PiodError as refusal:
                problems.append(f"guard: {refusal.message}")
        try:
            trip = (await self._heater.ask(InterlockState(), timeout=ASK_TIMEOUT_S)).trip
        except PiodError as refusal:
            trip = refusal.message
        if trip is not None:
            problems.append(f"the heater is off until its interlock is reset: {trip}")
        try:
            doubt = await self._volumes.ask(LookForDoubt(), timeout=ASK_TIMEOUT_S)
        except PiodError as refusal:
            doubt = refusal.message
        if doubt is not None:
            problems.append(f"nothing may be added to the vial: {doubt}")
        replaced = self._ledger.database.replaced_corrupt
        if replaced is not None:
            problems.append(f"the ledger was corrupt and was set aside as {replaced.name}")
        try:
            lost = await self._ledger.recent_lost(RECENT_LOST)
        except PiodError as refusal:
            lost = []
            problems.append(f"ledger: {refusal.message}")
        try:
            clock = await self._clock_watch.ask(ClockState(), timeout=ASK_TIMEOUT_S)
        except PiodError as refusal:
            clock = ClockReport(None, None, (f"clock: {refusal.message}",))
        problems += clock.problems
        key = self._model.key
        return {
            "problems": problems,
            "i2c": await self._of_chips(),
            "model": None if key is None else {"name": key[0], "version": key[1]},
            "clock": {
                "synchronised": clock.synchronised,
                "last_jump": None if clock.last_jump is None else asdict(clock.last_jump),
            },
            "lost_jobs": [
                {
                    "job_id": row.job_id,
                    "job_name": row.job_name,
                    "experiment": row.experiment,
                    "ended_at": row.ended_at,
                    "reason": row.reason,
                }
                for row in lost
            ],
        }

    async def _of_chips(self) -> Mapping[str, object]:
        try:
            counted = await self._i2c.ask(DeviceStatistics(), timeout=ASK_TIMEOUT_S)
        except PiodError:
            return {}  # told as a problem of its bus
        return {f"0x{address:02X}": asdict(counts) for address, counts in counted.items()}

    async def _of_bus(self, name: str, bus: Ref[Bus]) -> list[str]:
        try:
            report = await bus.ask(BusState(), timeout=ASK_TIMEOUT_S)
        except PiodError as refusal:
            return [f"{name} bus: {refusal.message}"]
        problems = [] if report.problem is None else [f"{name} bus: {report.problem}"]
        return problems + [
            f"{name} output {output} of {owner} is not confirmed to be off; piod keeps trying"
            for output, owner in report.going_off.items()
        ]
