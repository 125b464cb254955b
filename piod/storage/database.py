"""One SQLite database: one thread writes it, another reads it.

What a caller hands over is a *work*: a callable that is given the connection,
runs its statements and returns what it found. It runs in the database's thread,
must touch nothing else, and may be run again when the first attempt was lost.

- :meth:`Database.write`: durable. Returns after the commit is on disk.
- :meth:`Database.later`: batched. On disk with the next durable commit, after
  BATCH_S at the latest. A work of the same key replaces the one that waits.
- :meth:`Database.read`: a query, on its own connection, so that it never waits
  for a flush of the disk. It sees what is committed; :meth:`Database.unsaved`
  tells what is still to come.

Group commit: while the disk flushes one transaction the next works gather, and
all of them are committed together, in the order in which they came. Each runs
in its own savepoint, so that one that fails does not spoil its neighbours.

The file is in WAL mode with synchronous=FULL: a commit is one flush of the log,
and what was committed survives a power cut.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from piod.errors import PiodError, StorageFailed
from piod.storage.sqlite_file import connect, open_database, primary_code, refusal

BATCH_S = 3.0
"""Wall seconds that a batched work waits at most: what a power cut may take."""

GIVE_UP_S = 600.0
"""Wall seconds for which a batched work that fails is tried again."""

MAX_BATCHED = 10_000
"""Works that may wait while the disk takes none; the oldest batched ones go first."""

_log = logging.getLogger(__name__)

T = TypeVar("T")

_MAY_PASS = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}


class Database:
    """An open database. Made by :meth:`open`; every method is called on its event loop."""

    def __init__(self, path: Path, hold: Callable[[], AbstractContextManager[None]]) -> None:
        self.path = path
        self.replaced_corrupt: Path | None = None
        """Where the damaged file that was found in its place lies now."""
        self._hold = hold
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._changed = threading.Condition()
        # Guarded by _changed. Dictionaries keep the order in which works came.
        self._pending: dict[Hashable, _Durable | _Batched] = {}
        self._committing: dict[Hashable, _Durable | _Batched] = {}
        self._due_at = math.inf
        self._closing = False
        self._failing = False
        self._writer: threading.Thread | None = None
        self._reader: ThreadPoolExecutor | None = ThreadPoolExecutor(
            1, thread_name_prefix="piod-database-read"
        )
        self._reading: sqlite3.Connection | None = None

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        schema: Sequence[Sequence[str]],
        hold: Callable[[], AbstractContextManager[None]],
    ) -> Database:
        """Open ``path``, made if it is missing, and bring its tables up to date.

        ``schema``: step n holds the statements that lead from version n to
        n + 1; steps only add, so a file of a newer piod is used as it is.
        ``hold``: :meth:`piod.clock.Clock.hold`; simulated time stands still
        while an answer is awaited.

        A damaged file is moved aside and a new one is made, loudly: a unit that
        cannot run for want of its history is worse. Raises
        :class:`StorageFailed` or :class:`StorageFull`.
        """
        self = cls(path, hold)
        writer = threading.Thread(
            target=self._run_writer, args=(schema,), name="piod-database-write", daemon=True
        )
        self._writer = writer
        writer.start()
        try:
            with hold():
                await asyncio.shield(self._opened)
        except PiodError:
            writer.join()
            raise
        except asyncio.CancelledError:
            self._end_writer()
            raise
        return self

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` and answer with its result when it is committed and on disk.

        Raises :class:`StorageFull` or :class:`StorageFailed` (then nothing of it
        is kept), or what ``work`` raised. A caller that is cancelled does not
        take its work back.
        """
        answer: asyncio.Future[T] = self._loop.create_future()
        durable = _DurableWork(work, answer)
        with self._changed:
            if self._closing:
                raise _closed(self.path)
            self._pending[durable] = durable
            self._due_at = 0.0
            self._changed.notify()
        with self._hold():
            return await answer

    def later(self, key: Hashable, work: Callable[[sqlite3.Connection], object]) -> None:
        """Let ``work`` be committed with the next batch, in place of an earlier one of ``key``.

        When the disk refuses it is tried again for GIVE_UP_S, then dropped with
        an error in the log; it may then run after younger ones of other keys, so
        those must not depend on it. After :meth:`close` it is dropped.
        """
        now = time.monotonic()
        with self._changed:
            if self._closing:
                _log.warning("the database %s is closed; dropped %r", self.path, work)
                return
            self._pending.pop(key, None)  # so that it takes its place at the end
            self._pending[key] = _Batched(work, now + GIVE_UP_S)
            self._drop_beyond_bound()
            if self._due_at > now + BATCH_S:
                self._due_at = now + BATCH_S
                self._changed.notify()

    def unsaved(self) -> list[Callable[[sqlite3.Connection], object]]:
        """The batched works that may not be on disk yet, in the order they will run.

        Take them before a :meth:`read`, not after it: what is committed in
        between is then seen twice, not never.
        """
        with self._changed:
            waiting = [*self._committing.values(), *self._pending.values()]
        return [item.work for item in waiting if isinstance(item, _Batched)]

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Answer with what ``query`` finds among what is committed.

        Raises :class:`StorageFailed`, or what ``query`` raised.
        """
        if self._reader is None:
            raise _closed(self.path)
        with self._hold():
            try:
                return await self._loop.run_in_executor(self._reader, self._query, query)
            except sqlite3.Error as error:
                raise refusal(self.path, "could not be read", error) from error

    async def flush(self) -> None:
        """Put on disk what waits in batches. Raises as :meth:`write` does."""
        await self.write(_nothing)

    async def close(self) -> None:
        """Commit what waits, fold the log into the file and end the threads. Idempotent."""
        reader, self._reader = self._reader, None
        with self._hold():
            if reader is not None:
                # First, because whoever closes last folds the log into the file.
                await self._loop.run_in_executor(reader, self._close_reading)
                reader.shutdown()
            self._end_writer()
            await asyncio.shield(self._ended)
        if self._writer is not None:
            self._writer.join()

    def _end_writer(self) -> None:
        with self._changed:
            self._closing = True
            self._due_at = 0.0
            self._changed.notify()

    # -- the reader's thread ------------------------------------------------------

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        if self._reading is None:
            self._reading = connect(self.path)
            self._reading.execute("PRAGMA query_only = ON")
        return query(self._reading)

    def _close_reading(self) -> None:
        if self._reading is not None:
            self._reading.close()

    # -- the writer's thread ------------------------------------------------------

    def _run_writer(self, schema: Sequence[Sequence[str]]) -> None:
        try:
            try:
                connection, self.replaced_corrupt = open_database(self.path, schema)
            except PiodError as error:
                self._call(_set_exception, self._opened, error)
                return
            self._call(_set_result, self._opened)
            try:
                while self._commit_next(connection):
                    pass
            finally:
                connection.close()
        finally:
            # Also when this thread dies of a bug: nobody may wait for it for ever.
            with self._changed:
                self._closing = True
                orphans = [*self._committing.values(), *self._pending.values()]
                self._committing, self._pending = {}, {}
            for item in orphans:
                item.error = _closed(self.path)
                if isinstance(item, _Batched):
                    _log.error("dropped %r: the database %s has ended", item.work, self.path)
            self._call(_deliver, [item for item in orphans if isinstance(item, _Durable)])
            self._call(_set_exception, self._opened, _closed(self.path))
            self._call(_set_result, self._ended)

    def _commit_next(self, connection: sqlite3.Connection) -> bool:
        """Wait for works, commit them as one; False when that was the last time."""
        with self._changed:
            while (wait_s := self._due_at - time.monotonic()) > 0:
                self._changed.wait(None if wait_s == math.inf else wait_s)
            closing = self._closing
            self._committing, self._pending = self._pending, {}
            self._due_at = math.inf
            group = self._committing
        attempt = list(group.values())
        while attempt:
            attempt = self._transact(connection, attempt)
        self._settle(group)
        return not closing

    def _transact(
        self, connection: sqlite3.Connection, group: list[_Durable | _Batched]
    ) -> list[_Durable | _Batched]:
        """Try to commit ``group``; whom to try again because another one lost it for them.

        Every work that failed has its ``error`` set. What is returned is always
        shorter than ``group``.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
            for item in group:
                connection.execute("SAVEPOINT work")
                try:
                    item.run(connection)
                except Exception as error:  # the caller's to hear; the writer serves others too
                    item.error = error
                    if not connection.in_transaction:
                        # A full disk may make SQLite roll back everything at once.
                        return [other for other in group if other.error is None]
                    connection.execute("ROLLBACK TO work")
                connection.execute("RELEASE work")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for item in group:
                item.error = item.error or error
        return []

    def _settle(self, group: dict[Hashable, _Durable | _Batched]) -> None:
        """Answer the durable works; keep the batched ones that failed and may still succeed."""
        now = time.monotonic()
        retries: dict[Hashable, _Durable | _Batched] = {}
        answers: list[_Durable] = []
        failure: Exception | None = None
        for key, item in group.items():
            if isinstance(item, _Durable):
                if isinstance(item.error, sqlite3.Error):
                    item.error = refusal(self.path, "could not be written", item.error)
                answers.append(item)
            elif item.error is not None:
                may_pass = (
                    isinstance(item.error, sqlite3.Error) and primary_code(item.error) in _MAY_PASS
                )
                if may_pass and now < item.give_up_at:
                    failure, item.error = item.error, None
                    retries[key] = item
                else:
                    _log.error("dropped %r: not written", item.work, exc_info=item.error)
        if failure is not None and not self._failing:
            _log.error("the database %s takes no batches, trying again: %s", self.path, failure)
        elif failure is None and self._failing:
            _log.warning("the database %s takes batches again", self.path)
        self._failing = failure is not None
        with self._changed:
            self._committing = {}
            if retries:
                superseded = self._pending.keys()
                kept = {k: item for k, item in retries.items() if k not in superseded}
                self._pending = {**kept, **self._pending}
                self._drop_beyond_bound()
                self._due_at = min(self._due_at, now + BATCH_S)
        self._call(_deliver, answers)

    def _drop_beyond_bound(self) -> None:
        while len(self._pending) > MAX_BATCHED:
            oldest = next((k for k, i in self._pending.items() if isinstance(i, _Batched)), None)
            if oldest is None:
                return  # durable ones are bounded by their callers, who wait
            _log.error("dropped %r: too many wait for the disk", self._pending.pop(oldest).work)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more


@dataclass(eq=False, slots=True)
class _Batched:
    work: Callable[[sqlite3.Connection], object]
    give_up_at: float
    error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        self.work(connection)


class _Durable:
    """A work whose caller waits. The base hides the type of its result from the queue."""

    work: Callable[[sqlite3.Connection], object]
    error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        raise NotImplementedError

    def deliver(self) -> None:
        raise NotImplementedError


class _DurableWork(_Durable, Generic[T]):
    def __init__(self, work: Callable[[sqlite3.Connection], T], answer: asyncio.Future[T]) -> None:
        self.work: Callable[[sqlite3.Connection], T] = work
        self._answer = answer

    def run(self, connection: sqlite3.Connection) -> None:
        self._result = self.work(connection)

    def deliver(self) -> None:
        if self._answer.done():
            return
        if self.error is not None:
            self._answer.set_exception(self.error)
        else:
            self._answer.set_result(self._result)


def _deliver(answers: Sequence[_Durable]) -> None:
    for durable in answers:
        durable.deliver()


def _nothing(connection: sqlite3.Connection) -> None:
    pass


def _set_result(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _set_exception(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _closed(path: Path) -> StorageFailed:
    return StorageFailed(
        f"the database {path} is closed",
        remediation="piod is stopping; try again when it runs.",
    )
