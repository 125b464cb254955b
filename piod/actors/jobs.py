"""The jobs of the unit: running, stopping, finding them.

Messages of :class:`Jobs`: :class:`CheckRun`, :class:`Run`, :class:`Stop`,
:class:`Running`, :class:`ResumeLost`, and of :mod:`piod.actors.gate`: Hold, Admit.

A job is in the ledger, on disk, before it touches anything; how it ends:
:mod:`piod.actors.job_run`. A job is running only while its actor lives: what the
ledger still held as running when this actor starts is marked ``lost``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from piod.actors.actor import Actor, ActorGone, AskTimeout, Life, Message, Ref
from piod.actors.admission import Admission, Admitted
from piod.actors.buses.bus import OutputBus
from piod.actors.gate import Admit, Gate, Hold
from piod.actors.hub import Hub
from piod.actors.job import (
    AwaitReady,
    ChangeSettings,
    JobActor,
    JobRecord,
    MakeUnit,
    Publisher,
)
from piod.actors.job_run import OFF_TIMEOUT_S, Endings, JobRun, reason_of
from piod.actors.model import UnitModel
from piod.actors.resume import RunRequest, title, to_resume
from piod.actors.supervisor import Child, Supervisor
from piod.clock import Clock, timestamp
from piod.config import ConfigFiles
from piod.errors import BusError, Conflict, PiodError
from piod.events import JsonValue
from piod.jobs.job import RESTARTS, STATE, Job
from piod.storage.ledger import Ledger
from piod.storage.rows import JobRow, LostJobs

log = logging.getLogger(__name__)

START_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class JobFilter:
    """Which jobs are meant; None: any. ``long_running`` False leaves the daemon's own alone."""

    job_name: str | None = None
    experiment: str | None = None
    job_source: str | None = None
    job_id: str | None = None
    long_running: bool = True

    @property
    def is_of_all(self) -> bool:
        """Whether no job, experiment or source is singled out."""
        return (self.job_name, self.experiment, self.job_source, self.job_id) == (None,) * 4

    def matches(self, row: JobRow) -> bool:
        """Whether the job of that row is meant."""
        return (
            self.job_name in (None, row.job_name)
            and self.experiment in (None, row.experiment)
            and self.job_source in (None, row.job_source)
            and self.job_id in (None, row.job_id)
            and (self.long_running or not row.is_long_running_job)
        )


@dataclass(frozen=True)
class CheckRun(Message["Jobs", None]):
    """Refuse ``request`` if it can be seen now that it will not run; takes its rate slot."""

    request: RunRequest


@dataclass(frozen=True)
class Run(Message["Jobs", str]):
    """Start a job; answered with its id when it is ready, refused with the reason."""

    request: RunRequest


@dataclass(frozen=True)
class Stop(Message["Jobs", int]):
    """Stop all jobs that match; answered with how many, when they have ended.

    A lost job that matches, and still waits to be resumed, is not.
    ``reason`` goes into their rows; None for somebody's plain wish.
    """

    which: JobFilter
    reason: str | None = None


@dataclass(frozen=True)
class JobView:
    """One running job: its row, and what it publishes now."""

    row: JobRow
    settings: Mapping[str, str]
    ref: Ref[JobActor]


@dataclass(frozen=True)
class Running(Message["Jobs", list[JobView]]):
    """The running jobs that match, the oldest first."""

    which: JobFilter = JobFilter()


@dataclass(frozen=True)
class ResumeLost(Message["Jobs", list[str]]):
    """Start what was lost and ``[piod] resume_jobs`` names, if the outage was short.

    The jobs are new ones, with the same options, experiment and overrides.
    Answered with their ids when each is ready or has failed (logged).
    ``clock_trusted``: see :func:`piod.actors.resume.to_resume`.
    """

    clock_trusted: bool = True


JobsMessage = CheckRun | Run | Stop | Running | ResumeLost | Hold | Admit


class Jobs(Actor[JobsMessage]):
    """Runs and stops the jobs of the unit.

    ``kinds`` are the known jobs by name; ``make_unit`` gives each life of a job
    its parts.
    """

    def __init__(
        self,
        *,
        unit_name: str,
        leader_name: str,
        kinds: Mapping[str, type[Job]],
        make_unit: MakeUnit,
        model: UnitModel,
        outputs: Sequence[Ref[OutputBus]],
        ledger: Ledger,
        config: ConfigFiles,
        hub: Hub,
        clock: Clock,
    ) -> None:
        super().__init__("jobs")
        self._unit_name = unit_name
        self._leader_name = leader_name
        self._kinds = kinds
        self._make_unit = make_unit
        self._model = model
        self._ledger = ledger
        self._config = config
        self._hub = hub
        self._clock = clock
        self._supervisor = Supervisor(clock)
        self._gate = Gate()
        self._admission = Admission(kinds, config, model, self._gate)
        self._endings = Endings(outputs=outputs, ledger=ledger, hub=hub, clock=clock)
        self._jobs: dict[str, JobRun] = {}
        self._lost = LostJobs((), None)

    async def starting(self) -> None:
        self._hub.forget_jobs()
        self._lost = await self._ledger.close_lost(timestamp(self._clock.time()))
        for row in self._lost.jobs:
            log.warning("%s (job %s) was lost with the daemon", row.job_name, row.job_id)

    async def ended(self) -> None:
        await self._supervisor.stop_all()

    async def receive(self, message: JobsMessage) -> object:
        match message:
            case CheckRun(request):
                return self.later(self._check(request))
            case Run(request):
                self._leave_lost(JobFilter(job_name=request.job_name))
                return self._start(request)
            case Stop(which, reason):
                self._leave_lost(which)
                if which.is_of_all:
                    self._gate.end_admitted()
                return self.later(self._stop(self._matching(which), reason))
            case Running(which):
                return [
                    JobView(job.record.row, job.record.settings, job.ref)
                    for job in self._matching(which)
                ]
            case Hold():
                self._gate.hold(message)
                return None
            case Admit():
                self._gate.admit(message)
                return None
            case ResumeLost(clock_trusted):
                self._gate.refuse_if_held("what was lost")
                lost, self._lost = self._lost, LostJobs((), None)
                return self.later(self._resume(lost, clock_trusted))
            case _:
                assert_never(message)

    async def _check(self, request: RunRequest) -> None:
        """Let the job itself look whether it can run; then take the rate slot."""
        admitted = self._admission.examine(request, busy=self._busy)
        self._model.consider(request.model)  # its limits count in what follows
        row = self._row("", request, admitted)
        record = JobRecord(row, admitted.kind, admitted.options, admitted.config)
        life = Life(f"the check of {request.job_name}")
        publisher = Publisher(record, self._hub, self._clock)
        try:
            unit = self._make_unit(record, life, lambda lost: None, publisher)
            await admitted.kind.refuse(unit, admitted.options)
        except PiodError:
            raise
        except Exception as error:  # a plugin's bug: it is not to end all jobs
            log.exception("%s could not be checked", request.job_name)
            raise PiodError(f"{request.job_name} {reason_of(error)}") from error
        finally:
            life.end()
            self._model.consider(None)
        self._admission.take_slot(request, busy=self._busy)
        self._model.take(request.model)

    @property
    def _busy(self) -> bool:
        """Whether jobs run; the daemon's own go by no model."""
        return bool(self._matching(JobFilter(long_running=False)))

    def _matching(self, which: JobFilter) -> list[JobRun]:
        return [job for job in self._jobs.values() if which.matches(job.record.row)]

    def _leave_lost(self, which: JobFilter) -> None:
        """Somebody has decided about these jobs: they are not resumed any more."""
        left = tuple(row for row in self._lost.jobs if not which.matches(row))
        self._lost = replace(self._lost, jobs=left)

    # -- running ------------------------------------------------------------------

    def _start(self, request: RunRequest) -> asyncio.Future[str]:
        admitted = self._admission.examine(request, busy=self._busy)
        kind = admitted.kind
        if not request.active:
            raise Conflict(
                f"this unit is not active, so {request.job_name} does not start",
                remediation="Activate the unit in the inventory of its leader.",
            )
        changes = kind.update(admitted.options)
        for job in self._matching(JobFilter(job_name=request.job_name)) if changes else ():
            return self.later(self._update(job, changes or {}, request))
        if kind.one_at_a_time:
            for job in self._matching(JobFilter(job_name=request.job_name)):
                raise Conflict(
                    f"{request.job_name} is already running (job {job.record.row.job_id})",
                    remediation=f"Stop job {job.record.row.job_id} first, or change its settings.",
                )
        row = self._row(self._ledger.next_job_id(), request, admitted)
        started_s = self._clock.monotonic()
        job = JobRun(
            JobRecord(row, kind, admitted.options, admitted.config, started_s, request.is_resumed)
        )
        self._model.take(request.model)
        self._jobs[row.job_id] = job
        publisher = Publisher(job.record, self._hub, self._clock)
        publisher.state("init")
        self.spawn(self._live(job, publisher))
        return job.ready

    def _row(self, job_id: str, request: RunRequest, admitted: Admitted) -> JobRow:
        return JobRow(
            job_id=job_id,
            unit=self._unit_name,
            experiment=request.experiment,
            job_name=request.job_name,
            job_source=request.job_source,
            started_at=timestamp(self._clock.time()),
            leader=self._leader_name,
            pid=os.getpid(),
            is_long_running_job=admitted.kind.is_long_running,
            ended_at=None,
            state="init",
            options=dict(admitted.options),
            config_overrides=list(request.config_overrides),
            reason=None,
        )

    async def _update(
        self, job: JobRun, changes: Mapping[str, JsonValue], request: RunRequest
    ) -> str:
        """Change a job that runs already, in place of a second one; its id."""
        try:
            job_id = await asyncio.shield(job.ready)
        except PiodError:
            await job.ended
            return await self._start(request)
        try:
            await job.ref.ask(ChangeSettings(changes), timeout=START_TIMEOUT_S)
        except ActorGone:
            await asyncio.wait({job.ended}, timeout=OFF_TIMEOUT_S)
            if not job.ended.done():
                raise
            return await self._start(request)  # it was about to end
        return job_id

    async def _live(self, job: JobRun, publisher: Publisher) -> None:
        """One job, from its row in the ledger to the confirmation of its end."""
        record = job.record
        error: BaseException | None = None
        try:
            await self._model.keep()
            await self._ledger.add_job(record.row)
        except PiodError as refusal:
            publisher.take_back()
            publisher.state("lost")
            self._forget(job, refusal)
            return
        if not job.stopping:
            error = await self._host(job, publisher)
        self._forget(job, await self._endings.tell(job, publisher, error))

    async def _host(self, job: JobRun, publisher: Publisher) -> BaseException | None:
        record = job.record

        def stop_itself() -> None:
            if not self.life.ended:
                self.spawn(self._stop_one(job, "$state was set to disconnected"))

        def changed(child: Child[object]) -> None:
            record.restarts = child.restarts
            if child.state == "restarting":
                publisher.take_back(
                    but=(STATE, RESTARTS)
                )  # its outputs are off: nobody may read a duty
                publisher.state("init")

        child = job.child = self._supervisor.start(
            title(record.row),
            lambda: JobActor(record, publisher, self._make_unit, stop_itself),
            record.kind.restart_policy,
            may_restart=lambda: record.was_ready and not job.stopping,
            on_change=changed,
        )
        if job.stopping:
            await self._supervisor.stop(child)
        else:
            await asyncio.sleep(0)  # let the actor open its mailbox
            try:
                await job.ref.ask(AwaitReady(), timeout=START_TIMEOUT_S)
            except ActorGone:
                # child.error, or the stop, tells why; or it was ready and is done already
                if record.was_ready and not job.ready.done():
                    job.ready.set_result(record.row.job_id)
            except AskTimeout as late:
                child.error = late
                await self._supervisor.stop(child)
            else:
                if not job.ready.done():
                    job.ready.set_result(record.row.job_id)
        await child.ended
        return child.error if child.state in ("failed", "stopped") else None

    def _forget(self, job: JobRun, why_not_ready: PiodError) -> None:
        del self._jobs[job.record.row.job_id]
        job.close(why_not_ready)

    async def _resume(self, lost: LostJobs, clock_trusted: bool) -> list[str]:
        now = self._clock.time() if clock_trusted else None
        requests = to_resume(lost, self._config.current(), self._kinds, now)
        starting: list[tuple[JobRow, asyncio.Future[str]]] = []
        for row, request in requests:  # all at once, so that a stop meets every one of them
            try:
                starting.append((row, self._start(request)))
            except PiodError as refusal:
                log.error("%s could not be resumed: %s", title(row), refusal.message)
        resumed: list[str] = []
        for row, ready in starting:
            try:
                resumed.append(await ready)
            except PiodError as refusal:
                log.error("%s could not be resumed: %s", title(row), refusal.message)
            else:
                log.info("%s goes on as job %s", title(row), resumed[-1])
        return resumed

    # -- stopping -----------------------------------------------------------------

    async def _stop(self, jobs: Sequence[JobRun], reason: str | None) -> int:
        """Stop ``jobs`` together; those that must go off first are cancelled first."""
        in_order = sorted(jobs, key=lambda job: -job.record.kind.stop_first)
        await asyncio.gather(*(self._stop_one(job, reason) for job in in_order))
        still_on = [title(job.record.row) for job in in_order if not job.confirmed_off]
        if still_on:
            raise BusError(
                f"stopped, but the outputs of {', '.join(still_on)} are not confirmed to be off",
                remediation="piod keeps trying to turn them off. Check the HAT, or cut its power; "
                "GET /unit_api/health tells when they are off.",
            )
        return len(jobs)

    async def _stop_one(self, job: JobRun, reason: str | None) -> None:
        if not job.stopping:
            job.stopping = True
            job.stop_reason = reason
        if job.child is not None:
            await self._supervisor.stop(job.child)
        await job.ended
