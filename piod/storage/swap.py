"""A new tree for an old one, wholly or not at all, whenever the power goes.

The data directory itself cannot be exchanged: it may be a mount point, it is the
working directory of others, and the ledger in it is open. So its entries are
exchanged one by one, and a journal makes one step of it:

1. the new entries lie, on disk, below ``.piod-import/new``;
2. the journal ``.piod-import/journal.json`` names every move: from here on the new
   tree is in force, whatever happens;
3. old entries move to ``.piod-import/old``, new ones to their place;
4. :func:`facts` tells what else belongs to the new tree; when it is kept,
   :func:`finish` drops the journal, and what is left is rubbish.

:func:`recover` does at the start of the daemon what a kill left undone. Where an
entry lies tells which of its moves were made, so every step can be repeated. A
move that the disk refuses takes everything back, by the same journal. Blocks;
cheap to import.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from piod.errors import PiodError, StorageFailed
from piod.storage.files import storage_error, sync_folder, write_file
from piod.storage.layout import STORAGE_FOLDER, WORK_FOLDER

_log = logging.getLogger(__name__)

_JOURNAL = "journal.json"


@dataclass(frozen=True)
class Move:
    """One entry of the tree: ``name`` in the data directory, or ``storage/name``.

    ``displaced``: there is an old one, which goes. ``installed``: there is a new one.
    """

    path: str
    displaced: bool
    installed: bool


def new_tree(data_dir: Path) -> Path:
    """Where the new entries are prepared."""
    return data_dir / WORK_FOLDER / "new"


def swap(data_dir: Path, moves: Sequence[Move], facts: Mapping[str, str]) -> None:
    """Put the tree below :func:`new_tree` in place by ``moves``; durable.

    ``facts`` are kept for :func:`facts`. Raises StorageFull or StorageFailed; the
    old tree is then in place again, or is put there by the next start.
    """
    work = data_dir / WORK_FOLDER
    try:
        for side in ("old", "new"):
            (work / side / STORAGE_FOLDER).mkdir(parents=True, exist_ok=True)
            sync_folder(work / side)
        sync_folder(work)
        (data_dir / STORAGE_FOLDER).mkdir(exist_ok=True)
        sync_folder(data_dir)
    except OSError as error:
        raise storage_error("the import could not be prepared", error) from error
    _write_journal(work, moves, facts, forward=True)
    try:
        _forward(data_dir, moves)
    except OSError as error:
        try:
            _write_journal(work, moves, facts, forward=False)
        except PiodError as refusal:
            # should the rest fail too, the next start goes on forward instead of back
            _log.error("the journal could not be turned round: %s", refusal.message)
        _take_back(data_dir, moves)
        raise storage_error("the new files could not be put in place", error) from error


def recover(data_dir: Path) -> bool:
    """Finish what an interrupted swap began; whether there was one.

    Without a journal the old tree is untouched, and what was prepared is removed.
    Raises StorageFailed when the disk does not let it: piod must not run on half a
    tree.
    """
    work = data_dir / WORK_FOLDER
    try:
        journal = _read_journal(work)
        if journal is None:
            for _ in clear(data_dir):
                pass
            return False
        if journal.forward:
            _forward(data_dir, journal.moves)
        else:
            _take_back(data_dir, journal.moves)
    except OSError as error:
        raise _in_disorder(data_dir, error) from error
    return True


def facts(data_dir: Path) -> Mapping[str, str] | None:
    """What is still to be kept of the tree that was put in place; None: nothing.

    Raises StorageFailed.
    """
    try:
        journal = _read_journal(data_dir / WORK_FOLDER)
    except OSError as error:
        raise storage_error("the journal of an import could not be read", error) from error
    return journal.facts if journal is not None and journal.forward else None


def finish(data_dir: Path) -> None:
    """The swap is over: what it displaced is rubbish from now on. Raises OSError."""
    work = data_dir / WORK_FOLDER
    (work / _JOURNAL).unlink()
    sync_folder(work)


def clear(data_dir: Path) -> Iterator[None]:
    """Remove what is left of a swap that is over or never began, an entry a step.

    Raises OSError.
    """
    work = data_dir / WORK_FOLDER
    if not _exists(work) or _exists(work / _JOURNAL):
        return
    if stat.S_ISLNK(os.lstat(work).st_mode):
        os.unlink(work)
        return
    for parent, folders, names in os.walk(work, topdown=False):
        for name in names:
            os.unlink(os.path.join(parent, name))
            yield
        for name in folders:
            path = os.path.join(parent, name)
            if stat.S_ISLNK(os.lstat(path).st_mode):
                os.unlink(path)
            else:
                os.rmdir(path)
            yield
    os.rmdir(work)


@dataclass(frozen=True)
class _Journal:
    forward: bool
    moves: Sequence[Move]
    facts: Mapping[str, str]


def _write_journal(
    work: Path, moves: Sequence[Move], facts: Mapping[str, str], *, forward: bool
) -> None:
    content = {"forward": forward, "moves": [asdict(move) for move in moves], "facts": dict(facts)}
    write_file(work / _JOURNAL, json.dumps(content, indent=1))


def _read_journal(work: Path) -> _Journal | None:
    """The journal, if there is one. Raises OSError, or StorageFailed when it is damaged."""
    try:
        content = json.loads((work / _JOURNAL).read_bytes())
        return _Journal(
            bool(content["forward"]),
            [Move(**move) for move in content["moves"]],
            {str(key): str(value) for key, value in content["facts"].items()},
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StorageFailed(
            f"the journal of an import, {work / _JOURNAL}, is damaged",
            cause=str(error),
            remediation=f"Check the disk. The old files are in {work / 'old'}, the new ones in "
            f"{work / 'new'}: move them where they belong, then remove {work}.",
        ) from error


def _forward(data_dir: Path, moves: Sequence[Move]) -> None:
    work = data_dir / WORK_FOLDER
    for move in moves:
        here, old, new = (base / move.path for base in (data_dir, work / "old", work / "new"))
        is_pending = _exists(new) if move.installed else not _exists(old)
        if move.displaced and is_pending and _exists(here) and not _exists(old):
            os.rename(here, old)
        if move.installed and _exists(new):
            _vacate(here, old)
            os.rename(new, here)
    _sync(data_dir)


def _take_back(data_dir: Path, moves: Sequence[Move]) -> None:
    try:
        _backward(data_dir, moves)
        finish(data_dir)
    except OSError as error:
        raise _in_disorder(data_dir, error) from error


def _in_disorder(data_dir: Path, error: OSError) -> PiodError:
    return storage_error(
        f"an import was interrupted, and {data_dir} could not be brought in order; "
        "the next start tries again",
        error,
    )


def _backward(data_dir: Path, moves: Sequence[Move]) -> None:
    work = data_dir / WORK_FOLDER
    for move in moves:
        here, old, new = (base / move.path for base in (data_dir, work / "old", work / "new"))
        if move.installed and not _exists(new) and _exists(here):
            os.rename(here, new)
        if move.displaced and _exists(old):
            _vacate(here, new)
            os.rename(old, here)
    _sync(data_dir)


def _vacate(here: Path, aside: Path) -> None:
    """Somebody wrote to a place that was just emptied: that goes with the rest."""
    if _exists(here):
        os.rename(here, aside.with_name(os.urandom(8).hex()))


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _sync(data_dir: Path) -> None:
    work = data_dir / WORK_FOLDER
    for folder in (work / "old", work / "new", data_dir):
        sync_folder(folder / STORAGE_FOLDER)
        sync_folder(folder)
