"""What a step of a calibration session reaches the world through.

One :class:`SessionBench` for each step that is taken, with a
:class:`~piod.actors.actor.Life` of its own, in the session's name: what the step leases ends
with that. When it ends early (an abort, a stop of all jobs), or a lease is lost, the
measurement, or the question to another unit, is cancelled and the step refused; the session is
where it was.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from piod.actors.actor import Life, Ref
from piod.actors.gate import Admit
from piod.actors.job import JobRecord
from piod.actors.jobs import Jobs
from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.protocols.turn import Artifact, Cluster, Routine
from piod.calibrations.store import CalibrationStore, EstimatorStore, fingerprint
from piod.calibrations.writing import artifact_text
from piod.clock import Clock
from piod.config import Config
from piod.errors import Conflict, PiodError
from piod.jobs.job import Job, Options, Unit
from piod.storage.rows import JobRow
from piod.storage.sessions import SessionRow, Sessions

Q = TypeVar("Q")
R = TypeVar("R")

ADMIT_TIMEOUT_S = 5.0
MAX_SAVES = 20
"""Of the last attempts to save is known what they wrote; of a step those are a few."""

MakeSessionUnit = Callable[[SessionRow, Life, Callable[[PiodError], None]], Unit]
"""The parts of the unit, for a session: what is leased there ends with the life; the callback
is told of a lease that is lost."""


class StepInterrupted(Conflict):
    """The hardware was stopped while the step ran; the session is where it was."""

    default_remediation = "Take the step again."


class CalibrationSession(Job):
    """Stands for a session where owners are jobs, such as in the log. Never run."""

    job_name = "calibration_session"

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> CalibrationSession:
        raise NotImplementedError

    async def run(self) -> None:
        raise NotImplementedError


EXPERIMENT = "_testing_calibration"
"""Upstream's prefix of what is no experiment: leaders leave it out of their charts."""


def session_record(
    session: SessionRow, unit_name: str, leader_name: str, config: Config, clock: Clock
) -> JobRecord:
    """The session as the owner of what it leases and measures."""
    row = JobRow(
        job_id=session.session_id,
        unit=unit_name,
        experiment=EXPERIMENT,
        job_name=CalibrationSession.job_name,
        job_source="calibration",
        started_at=session.created_at,
        leader=leader_name,
        pid=os.getpid(),
    )
    return JobRecord(row, CalibrationSession, {}, config, clock.monotonic())


@dataclass(frozen=True)
class Workshop:
    """What all sessions of a unit work with."""

    sessions: Sessions
    calibrations: CalibrationStore
    estimators: EstimatorStore
    cluster: Cluster
    jobs: Ref[Jobs]
    make_unit: MakeSessionUnit


class SessionBench:
    """The :class:`~piod.calibrations.protocols.turn.Bench` of one step of ``session``.

    ``progress`` is that of the measurement, 0 to 1. ``saves``: what the session has begun to
    write, this step's included. ``saving``: it is writing at the moment, which is soon over.
    """

    def __init__(self, workshop: Workshop, session: SessionRow) -> None:
        self._workshop = workshop
        self._session = session
        what = f"{session.protocol_name} of {session.target_device}"
        self.life = Life(f"calibration session {session.session_id} ({what})")
        self.progress = 0.0
        self.saves = session.saves
        self.saving = False
        self.given_up = False
        self._has_saved = False
        self._waited_for: asyncio.Future[object] | None = None
        self._stopped_by: PiodError | None = None
        stopped = StepInterrupted(f"{self.life.name} was stopped while its step ran")
        self.life.at_end(lambda: self._stop(stopped))

    def _stop(self, reason: PiodError) -> None:
        """Cancel what the step waits for, and refuse the next; the first reason counts."""
        if self._stopped_by is None:
            self._stopped_by = reason
        if self._waited_for is not None:
            self._waited_for.cancel()

    def give_up(self) -> None:
        """The step does not end; whatever it tries from now on is refused."""
        self.given_up = True
        self.life.end()

    def _refuse_if_stopped(self) -> None:
        if self._stopped_by is not None:
            raise self._stopped_by

    async def until_stopped(self, begin: Callable[[], Awaitable[R]]) -> R:
        """What ``begin`` leads to; refused, and that cancelled, when the step is stopped."""
        self._refuse_if_stopped()
        waited_for = asyncio.ensure_future(begin())
        self._waited_for = cast("asyncio.Future[object]", waited_for)  # only to be cancelled
        try:
            return await waited_for
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # else it is the session that ends
                self._refuse_if_stopped()
            raise
        finally:
            self._waited_for = None

    async def run(self, routine: Routine[Q, R], request: Q) -> R:
        await self._admit()
        self._refuse_if_stopped()
        unit = self._workshop.make_unit(self._session, self.life, self._stop)
        return await self.until_stopped(lambda: routine(unit, request, self._note))

    async def _admit(self) -> None:
        await self._workshop.jobs.ask(Admit(self.life.name, self.life), timeout=ADMIT_TIMEOUT_S)

    def _note(self, progress: float) -> None:
        self.progress = progress

    @property
    def cluster(self) -> Cluster:
        return _HurriedCluster(self._workshop.cluster, self)

    async def exists(self, artifact_type: type[Artifact], device: str, name: str) -> bool:
        store = self._store(issubclass(artifact_type, FusedEstimator))
        with store.hold():
            there = await asyncio.to_thread(store.fingerprint_of, device, name)
        return there is not None and _save(store.kind, device, name, there) not in self.saves

    async def save(self, artifact: Artifact, device: str, *, may_replace: bool) -> str:
        if isinstance(artifact, FusedEstimator):
            name = artifact.estimator_name
        else:
            name = artifact.calibration_name
        store = self._store(isinstance(artifact, FusedEstimator))
        await self._admit()  # an import would take it away again
        if self.given_up or not self._has_saved:  # a step that has saved one saves its others
            self._refuse_if_stopped()
        self._has_saved = self.saving = True
        try:
            with store.hold():
                text = await asyncio.to_thread(artifact_text, artifact)
            own = self.saves
            written = _save(store.kind, device, name, fingerprint(text.encode()))
            self.saves = (*own, written)[-MAX_SAVES:]
            await self._workshop.sessions.put(replace(self._session, saves=self.saves))
            path = await store.add(
                device,
                text,
                set_as_active=True,
                may_replace=None
                if may_replace
                else lambda there: _save(store.kind, device, name, there) in own,
            )
            return str(path)
        finally:
            self.saving = False

    def _store(self, of_estimators: bool) -> CalibrationStore | EstimatorStore:
        return self._workshop.estimators if of_estimators else self._workshop.calibrations


def _save(kind: str, device: str, name: str, of_content: str) -> str:
    """What is kept of a save: which file, and what is in it, as only that tells whose it is."""
    return f"{kind}/{device}/{name}#{of_content}"


class _HurriedCluster:
    """The cluster, as long as the step lasts: an abort waits for no other unit's deadline."""

    def __init__(self, cluster: Cluster, bench: SessionBench) -> None:
        self._cluster = cluster
        self._bench = bench

    async def units(self) -> Sequence[str]:
        return await self._bench.until_stopped(self._cluster.units)

    async def estimator_names(self, unit_name: str) -> Sequence[str]:
        return await self._bench.until_stopped(lambda: self._cluster.estimator_names(unit_name))

    async def estimator(self, unit_name: str, name: str) -> FusedEstimator:
        return await self._bench.until_stopped(lambda: self._cluster.estimator(unit_name, name))
