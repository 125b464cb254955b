"""The tasks: background work that was accepted over HTTP, and its durable results.

Messages of :class:`Tasks`: :class:`Launch`, :class:`GoOn`, :class:`GetTask`.

A task is on disk before its launch is answered, and its result before the task
says that it is complete. A lock is taken before the answer, so that of two quick
requests only one starts; the other is told which task holds it.
"""

from __future__ import annotations

import logging
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import assert_never

from piod.actors.actor import Actor, Message
from piod.clock import timestamp
from piod.errors import NotFound, PiodError
from piod.events import JsonValue
from piod.storage.ledger import Ledger
from piod.storage.rows import TaskRow

log = logging.getLogger(__name__)

REMEMBERED = 500
"""Finished tasks that are answered from memory; older ones from the ledger."""

Work = Callable[[], Awaitable[JsonValue]]
Check = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Launched:
    """A launch. ``busy``: ``task`` was running already and holds the lock."""

    task: TaskRow
    busy: bool = False


@dataclass(frozen=True)
class Launch(Message["Tasks", Launched]):
    """Run ``work`` in the background under a new task id.

    ``kind`` says what it is, in words. ``at_once``: start before the task is on
    disk, because it makes something safe. ``lock``: at most one task holds it.
    ``check`` is awaited with the lock held, before the launch is accepted, and may
    refuse it. ``task_id``: a new id that the work has to know.
    """

    kind: str
    work: Work
    lock: str | None = None
    at_once: bool = False
    check: Check | None = None
    task_id: str | None = None


@dataclass(frozen=True)
class GoOn(Message["Tasks", None]):
    """Go on with ``task``, which the daemon before left unfinished; ``work`` is its rest."""

    task: TaskRow
    work: Work


@dataclass(frozen=True)
class GetTask(Message["Tasks", TaskRow]):
    """The task ``task_id``; NotFound if there is none."""

    task_id: str


TasksMessage = Launch | GoOn | GetTask


class Tasks(Actor[TasksMessage]):
    """Runs tasks and remembers them. ``now`` is the Unix time for their rows.

    What ran when this actor, or the daemon, ended last is failed at the start, but
    not what holds ``outliving``: the work behind that lock goes on without us.
    """

    def __init__(
        self, ledger: Ledger, now: Callable[[], float], outliving: str | None = None
    ) -> None:
        super().__init__("tasks")
        self._ledger = ledger
        self._now = now
        self._outliving = outliving
        self._tasks: OrderedDict[str, TaskRow] = OrderedDict()
        self._locks: dict[str, str] = {}
        """Task id by lock."""

    async def starting(self) -> None:
        await self._ledger.fail_orphans(timestamp(self._now()), but_lock=self._outliving)

    async def receive(self, message: TasksMessage) -> object:
        match message:
            case Launch():
                return self._launch(message)
            case GoOn(task, work):
                if task.lock is not None:
                    self._locks[task.lock] = task.task_id
                self._remember(task)
                self.spawn(self._work(task, work))
                return None
            case GetTask(task_id):
                found = self._tasks.get(task_id)
                return found if found is not None else self.later(self._from_ledger(task_id))
            case _:
                assert_never(message)

    def _launch(self, launch: Launch) -> object:
        if launch.lock is not None and launch.lock in self._locks:
            return Launched(self._tasks[self._locks[launch.lock]], busy=True)
        task = TaskRow(
            task_id=launch.task_id or str(uuid.uuid4()),
            kind=launch.kind,
            lock=launch.lock,
            created_at=timestamp(self._now()),
        )
        if launch.lock is not None:
            self._locks[launch.lock] = task.task_id
        self._remember(task)
        if launch.at_once:
            self.spawn(self._work(task, launch.work))
        return self.later(self._keep(task, launch))

    async def _keep(self, task: TaskRow, launch: Launch) -> Launched:
        try:
            if launch.check is not None:
                await launch.check()
            await self._ledger.add_task(task)
        except BaseException:  # whatever it was, the lock is free again
            if not launch.at_once:
                del self._tasks[task.task_id]
                self._unlock(task)
            raise
        if not launch.at_once:
            self.spawn(self._work(task, launch.work))
        return Launched(self._tasks[task.task_id])

    async def _work(self, task: TaskRow, work: Work) -> None:
        self._remember(replace(task, status="in_progress"))
        try:
            result = await work()
        except PiodError as refusal:
            done = replace(
                task,
                status="failed",
                error=refusal.message,
                cause=refusal.cause,
                remediation=refusal.remediation,
                error_status=refusal.status,
            )
        except Exception as bug:  # a task must end as failed, whatever its work runs into
            log.exception("task %s (%s) crashed", task.task_id, task.kind)
            done = replace(
                task,
                status="failed",
                error=f"{task.kind} crashed",
                cause=f"{type(bug).__name__}: {bug}",
                remediation=PiodError.default_remediation,
                error_status=500,
            )
        else:
            done = replace(task, status="complete", result=result)
        done = replace(done, finished_at=timestamp(self._now()))
        try:
            await self._ledger.finish_task(done)
        except PiodError as refusal:
            log.error("the result of task %s could not be kept: %s", task.task_id, refusal.message)
        self._unlock(task)
        self._remember(done)

    def _unlock(self, task: TaskRow) -> None:
        if task.lock is not None:
            del self._locks[task.lock]

    def _remember(self, task: TaskRow) -> None:
        self._tasks[task.task_id] = task
        while len(self._tasks) > REMEMBERED:
            oldest = next((t for t in self._tasks.values() if t.finished_at is not None), None)
            if oldest is None:
                return
            del self._tasks[oldest.task_id]

    async def _from_ledger(self, task_id: str) -> TaskRow:
        task = await self._ledger.task(task_id)
        if task is None:
            raise NotFound(
                f"there is no task {task_id!r}",
                remediation="Use the task_id of the answer that launched it; results are kept for "
                "at least a day.",
            )
        return task
