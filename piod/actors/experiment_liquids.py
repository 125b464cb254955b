"""The ledger of volumes in the hands of one life of a job."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import replace

from piod.actors.actor import Life, Ref
from piod.actors.vial import NOTHING
from piod.actors.volumes import (
    LEDGER_TIMEOUT_S,
    AdmitDose,
    ChangeVolumes,
    CheckDose,
    FinishDose,
    LookAtVolumes,
    LookForRoom,
    StillOn,
    VolumeLedger,
)
from piod.errors import BadRequest
from piod.events import JobIdentity
from piod.jobs.liquids import Amount, Flow, Off, PumpRole, Volumes


class OpenDose:
    """An admitted dose; see :class:`piod.jobs.liquids.Dose`."""

    def __init__(self, ledger: Ref[VolumeLedger], dose_id: str, flow: Flow) -> None:
        self._ledger = ledger
        self._dose_id = dose_id
        self._flow = flow

    @property
    def dose_id(self) -> str:
        return self._dose_id

    async def finish(self, seconds: float, *, unsure_s: float = 0.0) -> Amount:
        if not (math.isfinite(seconds) and seconds >= 0):
            raise BadRequest(f"a pump was on for 0 s or longer, not for {seconds} s")
        moved = self._flow(seconds) if seconds else NOTHING
        if unsure_s > 0:
            sure_s = seconds - unsure_s
            moved = replace(moved, least_ml=self._flow(sure_s).least_ml if sure_s > 0 else 0.0)
        return await self._ledger.ask(FinishDose(self._dose_id, moved), timeout=LEDGER_TIMEOUT_S)

    async def still_on(self, seconds: float, *, unsure_s: float, off: Off) -> Amount:
        message = StillOn(self._dose_id, seconds, max(0.0, seconds - unsure_s), off)
        return await self._ledger.ask(message, timeout=LEDGER_TIMEOUT_S)


class ExperimentLiquids:
    """The ledger as one life of a job sees it; see :class:`piod.jobs.liquids.Liquids`."""

    def __init__(self, ledger: Ref[VolumeLedger], job: JobIdentity, life: Life) -> None:
        self._ledger = ledger
        self._job = job
        self._life = life

    async def volumes(self) -> Volumes:
        message = LookAtVolumes(self._job.experiment)
        return await self._ledger.ask(message, timeout=LEDGER_TIMEOUT_S)

    async def room_ml(self) -> float:
        return await self._ledger.ask(LookForRoom(self._job.experiment), timeout=LEDGER_TIMEOUT_S)

    async def check(self, role: PumpRole, flow: Flow, seconds: float) -> None:
        message = CheckDose(self._job.experiment, role, _planned(flow, seconds))
        await self._ledger.ask(message, timeout=LEDGER_TIMEOUT_S)

    async def change(self, values: Mapping[str, float]) -> Volumes:
        message = ChangeVolumes(self._job.experiment, values)
        return await self._ledger.ask(message, timeout=LEDGER_TIMEOUT_S)

    async def admit(self, role: PumpRole, flow: Flow, seconds: float, source: str) -> OpenDose:
        planned = _planned(flow, seconds)
        dose_id = uuid.uuid4().hex
        unwanted = Life(f"dose {dose_id}")
        message = AdmitDose(
            dose_id, self._job, role, planned, flow, seconds, source, self._life, unwanted
        )
        try:
            await self._ledger.ask(message, timeout=LEDGER_TIMEOUT_S)
        except BaseException:  # a deadline or a cancellation, too: nobody will pump it
            unwanted.end()
            raise
        return OpenDose(self._ledger, dose_id, flow)


def _planned(flow: Flow, seconds: float) -> Amount:
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadRequest(f"a pump must run for more than 0 s, got {seconds}")
    return flow(seconds)
