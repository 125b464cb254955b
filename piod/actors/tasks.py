"""The tasks: background work that was accepted over HTTP, and its durable results.

Messages of :class:`Tasks`: :class:`Launch`, :class:`LookAtLock`, :class:`AwaitFree`,
:class:`GetTask`.

A task is on disk before its launch is answered, and its result before the task
says that it is complete. A lock is taken before the answer, so that of two quick
requests only one starts; the other is told which task holds it. Of the locks in
EXCLUSIVE, one is held at a time: what another of them would break is refused. A lock
is held by the task that runs, nowhere else: it cannot outlive it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn, assert_never

from piod.actors.actor import Actor, Message
from piod.clock import timestamp
from piod.errors import Conflict, NotFound, PiodError, Unavailable
from piod.events import JsonValue
from piod.storage.ledger import Ledger
from piod.storage.rows import TaskRow

log = logging.getLogger(__name__)

REMEMBERED = 500
"""Finished tasks that are answered from memory; older ones from the ledger."""

POWER_LOCK = "power-lock"
UPDATE_LOCK = "update-lock"
PLUGINS_LOCK = "plugins-lock"
IMPORT_LOCK = "import-dot-pioreactor-lock"
EXCLUSIVE = frozenset((POWER_LOCK, UPDATE_LOCK, PLUGINS_LOCK, IMPORT_LOCK))
"""They change what piod is made of, or end it. In the middle of one, another breaks it."""

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
    disk, because it makes something safe. ``lock``: at most one task holds it; for
    one in EXCLUSIVE, Conflict while another of those is held. ``check`` is awaited
    with the lock held, before the launch is accepted, and may refuse it.
    ``task_id``: a new id that the work has to know. ``then`` is called when the work
    has succeeded and its result is kept. ``accept_by``: the moment (time.monotonic())
    past which it is refused (Unavailable) and nothing is started, unless ``at_once``;
    to lie before the end of the ask, so that what was answered with an error is not
    done all the same.
    """

    kind: str
    work: Work
    lock: str | None = None
    at_once: bool = False
    check: Check | None = None
    task_id: str | None = None
    then: Callable[[], None] | None = None
    accept_by: float | None = None


@dataclass(frozen=True)
class LookAtLock(Message["Tasks", Launched | None]):
    """What a launch with ``lock`` would meet now: the task that holds it, or None.

    Conflict as for a launch. For those that have much to do before they launch.
    """

    lock: str


@dataclass(frozen=True)
class AwaitFree(Message["Tasks", None]):
    """Answered when no task holds ``lock``, and what became of the last one is kept."""

    lock: str


@dataclass(frozen=True)
class GetTask(Message["Tasks", TaskRow]):
    """The task ``task_id``; NotFound if there is none."""

    task_id: str


@dataclass(frozen=True)
class Outliving:
    """Work that goes on without the daemon: whoever holds ``lock``.

    ``rest`` of a task id waits for the end of that work.
    """

    lock: str
    rest: Callable[[str], Awaitable[JsonValue]]


TasksMessage = Launch | LookAtLock | AwaitFree | GetTask


class Tasks(Actor[TasksMessage]):
    """Runs tasks and remembers them. ``now`` is the Unix time for their rows.

    What ran when this actor, or the daemon, ended last is failed at the start, but
    the work that is ``outliving`` it goes on without us: so does its task, and holds
    its lock.
    """

    def __init__(
        self,
        ledger: Ledger,
        now: Callable[[], float],
        outliving: Outliving | None = None,
    ) -> None:
        super().__init__("tasks")
        self._ledger = ledger
        self._now = now
        self._outliving = outliving
        self._tasks: OrderedDict[str, TaskRow] = OrderedDict()
        self._locks: dict[str, str] = {}
        """Task id by lock."""
        self._unlocked = asyncio.Event()
        """Set, and replaced, whenever a lock is free again."""

    async def starting(self) -> None:
        lasts = self._outliving
        now = timestamp(self._now())
        await self._ledger.fail_orphans(now, but_lock=None if lasts is None else lasts.lock)
        if lasts is None:
            return
        for task in await self._ledger.open_tasks(lasts.lock):
            self._locks[lasts.lock] = task.task_id
            self._remember(task)
            self.spawn(self._work(task, partial(lasts.rest, task.task_id)))

    async def receive(self, message: TasksMessage) -> object:
        match message:
            case Launch():
                return self._launch(message)
            case LookAtLock(lock):
                return self._holder(lock)
            case AwaitFree(lock):
                return self.later(self._await_free(lock))
            case GetTask(task_id):
                found = self._tasks.get(task_id)
                return found if found is not None else self.later(self._from_ledger(task_id))
            case _:
                assert_never(message)

    def _launch(self, launch: Launch) -> object:
        if launch.lock is not None and (busy := self._holder(launch.lock)) is not None:
            return busy
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
            self.spawn(self._work(task, launch.work, launch.then))
        return self.later(self._keep(task, launch))

    async def _keep(self, task: TaskRow, launch: Launch) -> Launched:
        try:
            # the moment is looked at once more: loop and deadline may both be late
            accept_by = launch.accept_by
            async with asyncio.timeout(None if accept_by is None else accept_by - time.monotonic()):
                if launch.check is not None:
                    await launch.check()
                await self._ledger.add_task(task)
            if accept_by is not None and time.monotonic() > accept_by:
                raise TimeoutError
        except TimeoutError:
            self._too_late(task, launch)
        except BaseException:  # whatever it was, the lock is free again
            if not launch.at_once:
                del self._tasks[task.task_id]
                self._unlock(task)
            raise
        if not launch.at_once:
            self.spawn(self._work(task, launch.work, launch.then))
        return Launched(self._tasks[task.task_id])

    def _too_late(self, task: TaskRow, launch: Launch) -> NoReturn:
        """Raises Unavailable, which says whether it was started."""
        if launch.at_once:
            raise Unavailable(
                f"{launch.kind}: that is being done, but no note of it was kept in time",
                cause=f"task {task.task_id} is not on disk yet",
                remediation="See what runs, or what became of that task, before you send the "
                "command again. If the disk stays slow, check it.",
            )
        refusal = Unavailable(
            f"{launch.kind}: not begun, because the unit did not accept it in time",
            cause="what was to be checked or written first took too long",
            remediation="Send the command again. If that does not help, check the disk of the "
            "unit and its log.",
        )
        self._unlock(task)
        failed = self._failed(task, refusal)
        self._remember(failed)  # somebody else may have been told its id
        self.spawn(self._finish(failed))  # its row may be on disk, or come there yet
        raise refusal

    def _failed(self, task: TaskRow, refusal: PiodError) -> TaskRow:
        return replace(
            task,
            status="failed",
            error=refusal.message,
            cause=refusal.cause,
            remediation=refusal.remediation,
            error_status=refusal.status,
            finished_at=timestamp(self._now()),
        )

    async def _finish(self, done: TaskRow) -> None:
        try:
            await self._ledger.finish_task(done)
        except PiodError as refusal:
            log.error("the result of task %s could not be kept: %s", done.task_id, refusal.message)

    async def _work(
        self, task: TaskRow, work: Work, then: Callable[[], None] | None = None
    ) -> None:
        self._remember(replace(task, status="in_progress"))
        try:
            result = await work()
        except PiodError as refusal:
            done = self._failed(task, refusal)
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
        await self._finish(done)
        self._unlock(task)
        self._remember(done)
        if then is not None and done.status == "complete":
            then()

    def _holder(self, lock: str) -> Launched | None:
        """The task that holds ``lock``. Conflict: another holds one that excludes it."""
        if lock in self._locks:
            return Launched(self._tasks[self._locks[lock]], busy=True)
        for other in EXCLUSIVE.intersection(self._locks) if lock in EXCLUSIVE else ():
            task = self._tasks[self._locks[other]]
            raise Conflict(
                f"not now: the unit is busy with another task ({task.kind}), and the two would "
                "break each other",
                cause=f"task {task.task_id} holds the lock {other}",
                remediation="Send the command again when that task is over. Jobs can be stopped, "
                "and with them all outputs, at any time.",
            )
        return None

    def _unlock(self, task: TaskRow) -> None:
        if task.lock is not None and self._locks.get(task.lock) == task.task_id:
            del self._locks[task.lock]
            self._unlocked.set()
            self._unlocked = asyncio.Event()

    async def _await_free(self, lock: str) -> None:
        while lock in self._locks:
            await self._unlocked.wait()

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
