"""The job actor: hosts one job, from its factory to its end.

Messages: :class:`AwaitReady`, :class:`ChangeSettings`. Stopping is the
supervisor's business: the actor is cancelled, its life ends, its outputs go off.

The actor keeps the job's state (``init`` → ``ready`` ⇄ ``sleeping`` →
``disconnected``) and publishes its settings. Each restart after a crash is a new
actor with a new job on the same :class:`JobRecord`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, assert_never

from piod.actors.actor import Actor, Life, Message
from piod.actors.hub import Hub
from piod.clock import Clock
from piod.config import Config
from piod.errors import BadRequest, PiodError
from piod.events import JobIdentity, JsonValue, SettingPublished
from piod.jobs.job import STATE, FallAsleep, Job, OptionValue, Setting, Unit, setting_text
from piod.storage.rows import JobRow

State = Literal["init", "ready", "sleeping", "disconnected", "lost"]
SETTABLE_STATES: tuple[State, ...] = ("ready", "sleeping", "disconnected")


_at_hand: ContextVar[JobIdentity | None] = ContextVar("job at hand", default=None)
"""Set in the tasks of a job actor, for the log."""


def job_of(record: logging.LogRecord) -> JobIdentity | None:
    """The job that a log record is about: named in its ``extra``, or in whose task it is made.

    To be called where the record is made, by a log handler.
    """
    named: object = getattr(record, "job", None)
    return named if isinstance(named, JobIdentity) else _at_hand.get()


@dataclass(frozen=True)
class AwaitReady(Message["JobActor", None]):
    """Answered when the job is ready; refused with the reason when it will not be."""


@dataclass(frozen=True)
class ChangeSettings(Message["JobActor", dict[str, str]]):
    """Change settings, all or none; answered with the new values as published.

    ``values`` are native JSON values by setting; ``$state`` may be ``ready`` or
    ``sleeping``. Refused with BadRequest naming the setting.
    """

    values: Mapping[str, object]


JobMessage = AwaitReady | ChangeSettings


@dataclass
class JobRecord:
    """One job of the unit over all its restarts: its row and what it publishes."""

    row: JobRow
    kind: type[Job]
    options: dict[str, OptionValue]
    config: Config
    """The configuration that the job started with, its overrides applied."""
    started_s: float = 0.0
    """When it was first started, on the clock's monotonic scale."""
    is_resumed: bool = False
    """It goes on with what an outage of the daemon ended."""
    settings: dict[str, str] = field(default_factory=dict)
    choices: dict[str, JsonValue] = field(default_factory=dict)
    """What persons set, of the settings that are kept over a restart."""
    state: State = "disconnected"
    was_ready: bool = False
    restarts: int = 0
    wants_sleep: bool = False
    """A person put it to sleep: a restart leaves it asleep."""

    @property
    def identity(self) -> JobIdentity:
        """What its events carry."""
        row = self.row
        return JobIdentity(row.unit, row.experiment, row.job_name, row.job_id)


class Publisher:
    """Publishes the settings of one job: to its record and to the hub."""

    def __init__(self, record: JobRecord, hub: Hub, clock: Clock) -> None:
        self._record = record
        self._hub = hub
        self._clock = clock
        self._declared = {setting.name: setting for setting in record.kind.all_settings()}

    def __call__(self, setting: str, value: JsonValue) -> None:
        """Publish one setting; None takes it back. Unknown names are a bug of the job."""
        declared = self._declared[setting]
        record = self._record
        text = None if value is None else setting_text(value)
        if text is None:
            record.settings.pop(setting, None)
        else:
            record.settings[setting] = text
        self._hub.publish(
            SettingPublished(
                record.identity, setting, value, text, declared.persist, self._clock.time()
            )
        )

    def take_back(self, *, but: tuple[Setting, ...] = (STATE,)) -> None:
        """Take back what a living job alone may say; ``but`` these."""
        for setting in self._declared.values():
            stays = setting.persist or setting in but
            if not stays and setting.name in self._record.settings:
                self(setting.name, None)

    def state(self, state: State) -> None:
        """Publish ``$state``."""
        self._record.state = state
        self("$state", state)


MakeUnit = Callable[[JobRecord, Life, Callable[[PiodError], None], Publisher], Unit]


class JobActor(Actor[JobMessage]):
    """Hosts one life of a job."""

    def __init__(
        self,
        record: JobRecord,
        publisher: Publisher,
        make_unit: MakeUnit,
        stop: Callable[[], None],
    ) -> None:
        super().__init__(f"{record.row.job_name} (job {record.row.job_id})")
        self._record = record
        self._publish = publisher
        self._make_unit = make_unit
        self._stop = stop
        self._log = logging.LoggerAdapter(
            logging.getLogger(f"piod.jobs.{record.row.job_name}"), {"job": record.identity}
        )
        self._job: Job | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started = False
        """A life that begins asleep is started when it wakes first."""
        self._running: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def starting(self) -> None:
        # in the context of the task that watches this job: its children, its later lives
        # and what its supervisor has to say of it inherit that
        _at_hand.set(self._record.identity)
        self.spawn(self._begin())

    async def receive(self, message: JobMessage) -> object:
        match message:
            case AwaitReady():
                return self._ready
            case ChangeSettings(values):
                return self.later(self._change(values))
            case _:
                assert_never(message)

    async def ended(self) -> None:
        if not self._ready.done():
            self._ready.cancel()

    async def _begin(self) -> None:
        record = self._record
        self._set_state("init")
        self._publish("restarts", record.restarts)
        unit = self._make_unit(record, self.life, self._lease_lost, self._publish)
        self._job = job = await record.kind.create(unit, record.options)
        for setting, value in record.choices.items():
            job.change(setting, value)
        if record.wants_sleep:
            await job.sleep()
            self._set_state("sleeping")
        else:
            await self._start(job)
            self._set_state("ready")
        record.was_ready = True
        self._ready.set_result(None)
        if record.state == "ready":
            self._run(job)

    async def _start(self, job: Job) -> None:
        await job.start()
        self._started = True

    def _run(self, job: Job) -> None:
        self._running = self.spawn(self._run_to_end(job))

    async def _run_to_end(self, job: Job) -> None:
        try:
            await job.run()
        except FallAsleep as reason:
            self._log.error("%s falls asleep: %s", self._record.row.job_name, reason)
            async with self._changing:
                self._running = None  # it is this task
                await self._fall_asleep(job)
        else:
            self.finish()

    def _lease_lost(self, error: PiodError) -> None:
        if not self.life.ended:
            self.spawn(_raise(error))

    async def _change(self, values: Mapping[str, object]) -> dict[str, str]:
        async with self._changing:
            job = self._job
            if job is None or not self._ready.done():
                raise BadRequest(
                    f"{self.name} is still starting",
                    remediation="Change the setting when its $state is ready.",
                )
            changes, state = self._parse(values)
            job.check(changes)
            declared = {setting.name: setting for setting in self._record.kind.all_settings()}
            before = dict(self._record.settings)
            for setting, value in changes.items():
                job.change(setting, value)
            if changes:
                await job.changed()
            for setting, value in changes.items():
                if declared[setting].kept:
                    self._record.choices[setting] = value
                was, now = before.get(setting), self._record.settings.get(setting)
                self._log.info("updated %s from %.40s to %.40s", setting, was, now)
            if state is not None and state != self._record.state:
                await self._change_state(job, state)
            if state == "disconnected":
                return {**self._published(changes), "$state": "disconnected"}
            return self._published(values)

    def _published(self, names: Mapping[str, object]) -> dict[str, str]:
        return {name: self._record.settings.get(name, "") for name in names}

    def _parse(self, values: Mapping[str, object]) -> tuple[dict[str, JsonValue], State | None]:
        declared = {setting.name: setting for setting in self._record.kind.all_settings()}
        settable = ", ".join(name for name, setting in declared.items() if setting.settable)
        changes: dict[str, JsonValue] = {}
        state: State | None = None
        for name, value in values.items():
            setting = declared.get(name)
            if setting is None:
                raise BadRequest(
                    f"{self._record.row.job_name} has no setting {name!r}",
                    remediation=f"The settings that can be changed are: {settable}.",
                )
            if not setting.settable:
                raise BadRequest(
                    f"setting {name} is read-only",
                    remediation=f"The settings that can be changed are: {settable}.",
                )
            if name == "$state":
                state = _settable_state(value)
            else:
                changes[name] = setting.parse(value)
        return changes, state

    async def _change_state(self, job: Job, state: State) -> None:
        if state == "disconnected":
            self._stop()
            return
        # a child: hardware that fails half-way must end the job, not just the request
        await self.spawn(self._fall_asleep(job) if state == "sleeping" else self._wake(job))

    async def _fall_asleep(self, job: Job) -> None:
        self._record.wants_sleep = True
        if self._running is not None:
            running, self._running = self._running, None
            running.cancel()
            await asyncio.wait({running})
        await job.sleep()
        self._set_state("sleeping")

    async def _wake(self, job: Job) -> None:
        if not self._started:
            await self._start(job)
        await job.wake()
        self._record.wants_sleep = False
        self._set_state("ready")
        self._run(job)

    def _set_state(self, state: State) -> None:
        self._publish.state(state)
        level = logging.INFO if state in ("ready", "disconnected") else logging.DEBUG
        self._log.log(level, "%s.", state.capitalize())


def _settable_state(value: object) -> State:
    for state in SETTABLE_STATES:
        if value == state:
            return state
    allowed = ", ".join(SETTABLE_STATES)
    raise BadRequest(f"setting $state must be one of {allowed}, got {value!r}")


async def _raise(error: PiodError) -> None:
    raise error
