"""The ledger of volumes: what is in the vial, for every experiment, and who may add to it.

Messages: :class:`LookAtVolumes`, :class:`LookForRoom`, :class:`LookForDoubt`,
:class:`LookForDoses`, :class:`CheckDose`, :class:`AdmitDose`, :class:`FinishDose`,
:class:`StillOn`, :class:`ChangeVolumes`, :class:`Unconfirm`. Jobs use
:mod:`.experiment_liquids`, which sends them.

A dose is admitted in memory at once, so that two at a time are counted together, and the
answer is given when the intent is on disk. When it is finished, or the life of its owner
ends, the fact goes to disk with what it made of the vial, in one step. Facts that the disk
refuses stay in force and go with the next ones. A dose whose fact never reached the disk
is found at the next start: the range of the vial is widened by all that it can have moved,
and nothing may be added until somebody confirms the volume or waste is removed. If it was
not the daemon that ended but this actor, its pump may be on still: nobody can confirm
anything before that dose is finished, or its owner has ended. The same holds while a pump
refuses to go off.

Time since admission is the clock's monotonic one: jumps of the clock do not matter.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import assert_never, cast

from piod.actors.actor import Actor, Life, Message
from piod.actors.bioreactor import checked_values, initial_volumes, variables
from piod.actors.hub import Hub
from piod.actors.vial import NOTHING, TubeSource, Vial, check_amount
from piod.clock import Clock, timestamp
from piod.config import Config
from piod.errors import BadRequest, BusError, Conflict, NotFound, PiodError
from piod.events import DoseEnded, JobIdentity, VolumesChanged
from piod.hw.models import Limits
from piod.jobs.liquids import Amount, Flow, Off, PumpRole, Volumes
from piod.storage.volumes import DoseRow, DoseState, VolumesRow, VolumeStore

log = logging.getLogger(__name__)

LEDGER_TIMEOUT_S = 10.0
"""Wall time for asks that wait for the disk."""
OFF_WITHIN_S = 0.2
"""What a pump may still turn after the life of its owner has ended: the guard takes 0.1 s."""
RECENT_DOSES = 1000
"""Doses that are over and still known in memory, for asks that come again."""

STUCK_AFTER_S = 1.5
"""Wall time in which a pump that refused to go off may still do so as if nothing had been."""

OF_THE_VIAL = frozenset(("current_volume_ml", "efflux_tube_volume_ml"))
"""Not to be set while a pump runs."""

EVENTS: Mapping[PumpRole, str] = {
    "media": "add_media",
    "alt_media": "add_alt_media",
    "waste": "remove_waste",
}
"""What a dose is called in events."""

IMPORTED = "an import replaced the files of the unit, and the volume has not been confirmed since"


@dataclass(frozen=True)
class LookAtVolumes(Message["VolumeLedger", Volumes]):
    """What is in the vial, as the experiment sees it."""

    experiment: str


@dataclass(frozen=True)
class LookForRoom(Message["VolumeLedger", float]):
    """How much may flow in, mL; see :meth:`piod.jobs.liquids.Liquids.room_ml`."""

    experiment: str


@dataclass(frozen=True)
class LookForDoubt(Message["VolumeLedger", str | None]):
    """Why nothing may be added to the vial, whatever the experiment; None: no doubt."""


@dataclass(frozen=True)
class LookForDoses(Message["VolumeLedger", tuple[str, ...]]):
    """Who pumps now, whatever the experiment, such as ``add_media (CLI)``."""


@dataclass(frozen=True)
class CheckDose(Message["VolumeLedger", None]):
    """Refused as such a dose would be now."""

    experiment: str
    role: PumpRole
    planned: Amount


@dataclass(frozen=True)
class AdmitDose(Message["VolumeLedger", None]):
    """Admit a dose of ``planned``, in ``seconds`` of ``flow``; answered when that is on disk.

    Asked again with the same ``dose_id`` it is the same dose. It ends with ``life``, having
    moved what it can have moved; and with ``unwanted``, having moved nothing, which the asker
    ends if it is refused, or gets no answer in time.
    """

    dose_id: str
    job: JobIdentity
    role: PumpRole
    planned: Amount
    flow: Flow
    seconds: float
    source: str
    life: Life
    unwanted: Life


@dataclass(frozen=True)
class FinishDose(Message["VolumeLedger", Amount]):
    """The pump is off; answered with what counts as moved, when that is on disk."""

    dose_id: str
    moved: Amount


@dataclass(frozen=True)
class StillOn(Message["VolumeLedger", Amount]):
    """The pump of a dose refuses to go off; see :meth:`piod.jobs.liquids.Dose.still_on`.

    It was on for ``seconds`` by now, of these ``sure_s`` for certain.
    """

    dose_id: str
    seconds: float
    sure_s: float
    off: Off


@dataclass(frozen=True)
class ChangeVolumes(Message["VolumeLedger", Volumes]):
    """Set variables, all or none; durable. BadRequest that names the variable, or Conflict."""

    experiment: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Unconfirm(Message["VolumeLedger", None]):
    """After an import: what the ledger says of confirmation is read again."""


VolumesMessage = (
    LookAtVolumes
    | LookForRoom
    | LookForDoubt
    | LookForDoses
    | CheckDose
    | AdmitDose
    | FinishDose
    | StillOn
    | ChangeVolumes
    | Unconfirm
)


@dataclass(frozen=True)
class _Admitted:
    request: AdmitDose
    admitted_s: float
    row: DoseRow


class VolumeLedger(Actor[VolumesMessage]):
    """Keeps the volumes. ``limits``: of the reactor model, as it is known now.

    ``owners``: of the doses under way, by their ids; outlives a crash of this actor.
    """

    def __init__(
        self,
        *,
        unit_name: str,
        store: VolumeStore,
        config: Callable[[], Config],
        limits: Callable[[], Limits],
        hub: Hub,
        clock: Clock,
        owners: dict[str, Life] | None = None,
    ) -> None:
        super().__init__("volumes")
        self._owners = {} if owners is None else owners
        self._unit_name = unit_name
        self._store = store
        self._config = config
        self._limits = limits
        self._hub = hub
        self._clock = clock
        self._vial = self._new_vial({}, {}, {})
        self._admitted: dict[str, _Admitted] = {}
        self._doses_of: dict[Life, set[str]] = {}
        self._recent: dict[str, DoseRow] = {}
        self._unkept_volumes: dict[str, VolumesRow] = {}
        self._unkept_doses: dict[str, DoseRow] = {}
        self._kept_unconfirmed = False
        """The ledger still says so; see KeptVolumes.unconfirmed."""

    async def starting(self) -> None:
        kept = await self._store.load()
        self._vial = self._new_vial(
            {experiment: _volumes(row) for experiment, row in kept.volumes.items()},
            {experiment: row.vial_turn for experiment, row in kept.volumes.items()},
            {e: row.tube_source for e, row in kept.volumes.items() if row.tube_source},
            IMPORTED if kept.unconfirmed else None,
        )
        self._kept_unconfirmed = kept.unconfirmed
        for row in kept.open_doses:
            if (owner := self._owners.get(row.dose_id)) is not None:
                self._flows_on(row, owner)
        if kept.open_doses:
            self._interrupted(kept.open_doses)
            await self._flush()

    async def receive(self, message: VolumesMessage) -> object:
        match message:
            case LookAtVolumes(experiment):
                return self._vial.look(experiment)
            case LookForRoom(experiment):
                return self._vial.room_ml(experiment, self._max_fill_ml)
            case LookForDoubt():
                return self._vial.last_doubt
            case LookForDoses():
                rows = [admitted.row for admitted in self._admitted.values()]
                return tuple(f"{EVENTS[cast(PumpRole, row.role)]} ({row.source})" for row in rows)
            case CheckDose(experiment, role, planned):
                self._vial.check(role, experiment, planned, self._max_fill_ml)
                return None
            case AdmitDose():
                self._admit(message)
                return self.later(self._flush())
            case FinishDose(dose_id, moved):
                return self._finish(dose_id, moved)
            case StillOn():
                return self._still_on(message)
            case ChangeVolumes(experiment, values):
                return await self._change(experiment, values)
            case Unconfirm():
                self._kept_unconfirmed = await self._store.is_unconfirmed()
                if self._kept_unconfirmed:
                    self._vial.unconfirmed = IMPORTED
                return None
            case _:
                assert_never(message)

    async def ended(self) -> None:
        try:
            await self._flush()
        except PiodError as refusal:
            log.error("what the last doses moved was not kept: %s", refusal.message)

    @property
    def _max_fill_ml(self) -> float:
        return self._limits().reactor_max_fill_volume_ml

    def _new_vial(
        self,
        volumes: Mapping[str, Volumes],
        turns: Mapping[str, int],
        tubes: Mapping[str, TubeSource],
        unconfirmed: str | None = None,
    ) -> Vial:
        def capacity_ml() -> float:
            return self._limits().reactor_capacity_ml

        return Vial(
            volumes,
            turns,
            tubes=tubes,
            initial=lambda: initial_volumes(self._config(), capacity_ml()),
            capacity_ml=capacity_ml,
            unconfirmed=unconfirmed,
        )

    # -- doses ----------------------------------------------------------------------

    def _admit(self, request: AdmitDose) -> None:
        dose_id, job, planned = request.dose_id, request.job, request.planned
        if dose_id in self._admitted:
            return
        if dose_id in self._recent:
            raise Conflict(f"dose {dose_id} is over")
        if request.life.ended or request.unwanted.ended:
            raise Conflict(f"{request.life.name} has ended, and doses nothing")
        if not (math.isfinite(request.seconds) and request.seconds > 0):
            raise BadRequest(f"a dose must take more than 0 s, got {request.seconds}")
        self._vial.check(request.role, job.experiment, planned, self._max_fill_ml)
        is_first = not self._vial.knows(job.experiment)
        self._vial.begin(dose_id, job.experiment, request.role, planned)
        if is_first:  # what the dose is counted from is kept with it
            self._changed(job.experiment, self._vial.own(job.experiment))
        row = DoseRow(
            dose_id=dose_id,
            experiment=job.experiment,
            job_name=job.job_name,
            job_id=job.job_id,
            role=request.role,
            source=request.source,
            state="intended",
            admitted_at=timestamp(self._clock.time()),
            planned_s=request.seconds,
            planned_ml=planned.expected_ml,
            planned_most_ml=planned.most_ml,
        )
        self._owners[dose_id] = request.life
        self._admitted[dose_id] = _Admitted(request, self._clock.monotonic(), row)
        self._unkept_doses[dose_id] = row
        if request.life not in self._doses_of:
            self._doses_of[request.life] = set()
            # at last: until then its pump may tell how long it was on
            request.life.at_last(lambda: self._owner_ended(request.life))
        self._doses_of[request.life].add(dose_id)
        request.unwanted.at_end(lambda: self._withdraw(dose_id))

    def _finish(self, dose_id: str, moved: Amount) -> Awaitable[Amount]:
        if dose_id in self._admitted:
            check_amount(moved)
            self._close(dose_id, moved, "finished")
            return self.later(self._answer_kept(moved))
        self._flows_no_more(dose_id)
        return self.later(self._answer_over(dose_id))

    def _still_on(self, message: StillOn) -> Awaitable[Amount]:
        admitted = self._admitted.get(message.dose_id)
        if admitted is None:
            raise Conflict(f"dose {message.dose_id} is over, and counts at its worst")
        request = admitted.request
        # from here on it does not end with its owner
        self._doses_of.get(request.life, set()).discard(message.dose_id)
        why = f"the {request.role} pump of {request.life.name} cannot be turned off"
        self._vial.flowing[message.dose_id] = why
        answer: asyncio.Future[Amount] = asyncio.get_running_loop().create_future()
        self.spawn(self._see_off(message, admitted, why, answer))
        return answer

    async def _see_off(
        self, message: StillOn, admitted: _Admitted, why: str, answer: asyncio.Future[Amount]
    ) -> None:
        """Wait until the pump is off; only then is the dose over."""
        told_s = self._clock.monotonic()
        request, experiment = admitted.request, admitted.row.experiment
        off = asyncio.ensure_future(message.off())
        try:
            await asyncio.wait({off}, timeout=STUCK_AFTER_S)
            was_soon = off.done()
            if not was_soon:
                log.critical("nothing may be added to the vial: %s", why)
                self._changed(experiment, self._vial.doubt(experiment, why))
                await self._try_to_keep()
                _tell(answer, BusError(why, remediation="Cut the power of the pump."))
                await asyncio.wait({off})
        finally:
            off.cancel()
        seconds = message.seconds + self._clock.monotonic() - told_s
        moved = self._moved(request, seconds, message.sure_s)
        del self._vial.flowing[message.dose_id]
        self._close(message.dose_id, moved, "finished" if was_soon else "interrupted")
        if not was_soon:
            why = f"the {request.role} pump could not be turned off for {seconds:.0f} s"
            self._changed(experiment, self._vial.doubt(experiment, why))
        try:
            await self._flush()
        except PiodError as refusal:
            log.error("what a dose moved is not kept yet: %s", refusal.message)
            _tell(answer, refusal)
        if not answer.done():
            answer.set_result(moved)

    def _moved(self, request: AdmitDose, seconds: float, sure_s: float) -> Amount:
        """What a dose can have moved in so many seconds, of which it was on for ``sure_s``."""
        try:
            moved = request.flow(seconds)
            least_ml = request.flow(sure_s).least_ml if sure_s > 0 else 0.0
            moved = replace(moved, least_ml=min(least_ml, moved.least_ml))
            check_amount(moved)
        except Exception:  # a plugin's, perhaps; the end of a dose must not fail for it
            log.exception("what dose %s moved is not known: its worst counts", request.dose_id)
            moved = replace(request.planned, least_ml=0.0)
        return moved

    def _flows_on(self, row: DoseRow, owner: Life) -> None:
        """This actor has crashed; the owner of the dose has not, and may go on pumping."""
        why = f"{owner.name} may be pumping, and what it pumps is not counted any more"
        self._vial.flowing[row.dose_id] = why
        owner.at_last(lambda: self._flows_no_more(row.dose_id))

    def _flows_no_more(self, dose_id: str) -> None:
        self._owners.pop(dose_id, None)
        if not self.life.ended:
            self._vial.flowing.pop(dose_id, None)

    async def _answer_kept(self, moved: Amount) -> Amount:
        await self._flush()
        return moved

    async def _answer_over(self, dose_id: str) -> Amount:
        row = self._recent.get(dose_id) or await self._store.dose(dose_id)
        if row is None or row.moved_ml is None:
            raise NotFound(f"there is no dose {dose_id}")
        await self._flush()
        return Amount(row.moved_least_ml or 0.0, row.moved_ml, row.moved_most_ml or 0.0)

    def _owner_ended(self, life: Life) -> None:
        """Called back at once: what the dose can have moved counts, from nothing up."""
        if self.life.ended:
            return  # the next start finds them
        for dose_id in tuple(self._doses_of.pop(life, ())):
            admitted = self._admitted[dose_id]
            request = admitted.request
            seconds = self._clock.monotonic() - admitted.admitted_s + OFF_WITHIN_S
            moved = self._moved(request, min(seconds, request.seconds), 0.0)
            self._close(dose_id, moved, "interrupted")
        self._keep_soon()

    def _withdraw(self, dose_id: str) -> None:
        """Nobody pumps it."""
        if dose_id in self._admitted and not self.life.ended:
            self._close(dose_id, NOTHING, "finished")
            self._keep_soon()

    def _close(self, dose_id: str, moved: Amount, state: DoseState) -> None:
        admitted = self._admitted.pop(dose_id)
        request = admitted.request
        self._owners.pop(dose_id, None)
        self._doses_of.get(request.life, set()).discard(dose_id)
        volumes = self._vial.end(dose_id, moved)
        self._over(admitted.row, moved, state)
        if moved != NOTHING:
            self._changed(request.job.experiment, volumes)

    def _over(self, row: DoseRow, moved: Amount, state: DoseState) -> None:
        now = self._clock.time()
        row = replace(
            row,
            state=state,
            ended_at=timestamp(now),
            moved_least_ml=moved.least_ml,
            moved_ml=moved.expected_ml,
            moved_most_ml=moved.most_ml,
        )
        self._unkept_doses[row.dose_id] = self._recent[row.dose_id] = row
        if len(self._recent) > RECENT_DOSES:
            del self._recent[next(iter(self._recent))]
        self._hub.publish(
            DoseEnded(
                job=JobIdentity(self._unit_name, row.experiment, row.job_name, row.job_id),
                dose_id=row.dose_id,
                event=EVENTS[cast(PumpRole, row.role)],
                volume_ml=moved.expected_ml,
                least_ml=moved.least_ml,
                most_ml=moved.most_ml,
                source=row.source,
                finished=state == "finished",
                at=now,
            )
        )

    def _interrupted(self, rows: Sequence[DoseRow]) -> None:
        """Doses that were under way when the daemon before died."""
        amounts = [Amount(0.0, row.planned_ml, row.planned_most_ml) for row in rows]
        for row, amount in zip(rows, amounts, strict=True):
            self._vial.begin(row.dose_id, row.experiment, cast(PumpRole, row.role), amount)
        for row, amount in zip(rows, amounts, strict=True):
            self._vial.end(row.dose_id, amount)
            self._over(row, amount, "interrupted")
        doses = ", ".join(
            f"{EVENTS[cast(PumpRole, row.role)]} ({row.source}), admitted at {row.admitted_at}, "
            f"may have moved 0 to {row.planned_most_ml:.2f} mL"
            for row in rows
        )
        for experiment in dict.fromkeys(row.experiment for row in rows):
            now = self._vial.look(experiment)
            why = (
                f"piod ended in the middle of a dose: {doses}; there may be {now.lowest_ml:.2f} "
                f"to {now.highest_ml:.2f} mL in the vial"
            )
            log.warning("nothing may be added to the vial: %s", why)
            self._changed(experiment, self._vial.doubt(experiment, why))

    # -- what persons say -----------------------------------------------------------

    async def _change(self, experiment: str, given: Mapping[str, float]) -> Volumes:
        capacity_ml = self._limits().reactor_capacity_ml
        values = checked_values(given, capacity_ml, self._max_fill_ml)
        if OF_THE_VIAL & values.keys() and self._admitted:
            running = next(iter(self._admitted.values())).request
            raise Conflict(
                f"{', '.join(sorted(OF_THE_VIAL & values.keys()))} cannot be set while a pump "
                f"runs: {running.life.name} runs {EVENTS[running.role]}",
                remediation=f"Stop {running.life.name}, or wait until it is done.",
            )
        if OF_THE_VIAL & values.keys() and self._vial.flowing:
            why = next(iter(self._vial.flowing.values()))
            raise Conflict(
                f"{', '.join(sorted(OF_THE_VIAL & values.keys()))} cannot be set now: {why}",
                remediation="Stop all jobs first.",
            )
        vial = self._vial
        before = vial.own(experiment), vial.turn(experiment), vial.tube_source(experiment)
        unconfirmed = vial.unconfirmed
        changed = vial.set(experiment, values)
        self._changed(experiment, changed)
        try:
            await self._flush()
        except PiodError:
            if vial.kept(experiment) is changed:  # no dose has ended meanwhile
                vial.unconfirmed = unconfirmed
                vial.restore(experiment, *before)
                self._changed(experiment, before[0])
            raise
        return vial.look(experiment)

    # -- the disk and the hub ---------------------------------------------------------

    def _changed(self, experiment: str, volumes: Volumes) -> None:
        now = self._clock.time()
        self._unkept_volumes[experiment] = VolumesRow(
            experiment=experiment,
            vial_turn=self._vial.turn(experiment),
            updated_at=timestamp(now),
            tube_source=self._vial.tube_source(experiment),
            **asdict(volumes),
        )
        self._hub.publish(VolumesChanged(self._unit_name, experiment, variables(volumes), now))

    def _keep_soon(self) -> None:
        if not self.life.ended:
            self.spawn(self._try_to_keep())

    async def _try_to_keep(self) -> None:
        try:
            await self._flush()
        except PiodError as refusal:
            log.error("what a dose moved is not kept yet: %s", refusal.message)

    async def _flush(self) -> None:
        """Keep all that is not kept yet, in one step; durable. StorageFull, StorageFailed."""
        volumes, doses = dict(self._unkept_volumes), dict(self._unkept_doses)
        if not volumes and not doses:
            return
        confirmed = self._kept_unconfirmed and self._vial.unconfirmed is None
        await self._store.keep(volumes.values(), doses.values(), confirmed=confirmed)
        if confirmed:
            self._kept_unconfirmed = False
        for kept, unkept in ((volumes, self._unkept_volumes), (doses, self._unkept_doses)):
            for key, row in kept.items():
                if unkept.get(key) is row:  # else it has changed since
                    del unkept[key]


def _tell(answer: asyncio.Future[Amount], refusal: PiodError) -> None:
    """Answer with a refusal, if somebody still waits."""
    if not answer.done():
        answer.set_exception(refusal)


def _volumes(row: VolumesRow) -> Volumes:
    return Volumes(**{name: getattr(row, name) for name in Volumes.__dataclass_fields__})
