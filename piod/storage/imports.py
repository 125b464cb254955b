"""The data directory from an archive: unpacked beside, then put in place at once.

:func:`unpack` takes its time and touches nothing but ``.piod-import``;
:func:`install` exchanges the trees (:mod:`piod.storage.swap`); :func:`settle` keeps
in the ledger what belongs to the new tree. A daemon that dies in between settles
at its next start.

The archive replaces the tree, except: the ledger, the simulated machine and the
markers ``DISALLOW_UI_…`` stay; ``ui`` and ``hardware`` stay if the archive lacks
them; ``plugins`` stay while the marker ``DISALLOW_UI_INSTALLS`` or an allow-list
limits them. The archive's own ledger is put beside, as ``storage/imported-<time>.sqlite``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from zipfile import ZipInfo

from piod.errors import Conflict, PiodError, StorageFull
from piod.storage import swap
from piod.storage.archived_pointers import FOLDERS, archived_pointers
from piod.storage.archives import Archive, reading
from piod.storage.files import storage_error, sync_folder
from piod.storage.layout import (
    LEDGER_NAME,
    STORAGE_FOLDER,
    is_ledger,
    is_marker,
    is_plugin,
    plugins_are_fenced,
    stays_in_an_import,
)
from piod.storage.ledger import Ledger
from piod.storage.pointers import TAKEN_OVER, pointer_key
from piod.storage.swap import Move, new_tree

VOLUMES_UNCONFIRMED = "volumes_unconfirmed"
"""Key in the ledger; "1": what the vial and the bottles hold is to be confirmed."""

_log = logging.getLogger(__name__)

KEPT_IF_MISSING = ("ui", "hardware")
STEP_BYTES = 1024 * 1024
SPARE_BYTES = 16 * 1024 * 1024
"""Of the disk, what an import leaves free."""


def stamp_for(archive: Archive, now_unix_s: float) -> str:
    """The time in the name under which the archive's ledger is kept; none in it has it."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_unix_s))
    count = 1
    unique = stamp
    while f"{STORAGE_FOLDER}/{_imported_name(unique)}" in archive.files:
        count += 1
        unique = f"{stamp}-{count}"
    return unique


def unpack(archive: Archive, data_dir: Path, stamp: str) -> Generator[None, None, None]:
    """Make the new tree of ``archive`` beside the old one, durably, a bounded step at a time.

    ``stamp`` is that of :func:`stamp_for`. Raises BadRequest for a
    damaged archive, Conflict, StorageFull or StorageFailed; the old tree is
    untouched. May be given up at any step.
    """
    try:
        swap.recover(data_dir)
        _check_disk(archive, data_dir)
        new = new_tree(data_dir)
        os.makedirs(new / STORAGE_FOLDER)
        folders = [new, new / STORAGE_FOLDER]
        files: list[Path] = []
        for path in archive.folders:
            target = _target(path, data_dir, stamp)
            if target is not None and path != STORAGE_FOLDER:
                target.mkdir(0o775)
                folders.append(target)
                yield
        for path, info in archive.files.items():
            target = _target(path, data_dir, stamp)
            if target is not None:
                yield from _extract(archive, info, target)
                files.append(target)
        # in a second pass, when much of it is on disk already
        for target in files:
            _sync_file(target)
            yield
        for target in reversed(folders):
            sync_folder(target)
            yield
    except OSError as error:
        raise storage_error("the archive could not be unpacked", error) from error


def install(data_dir: Path, stamp: str) -> None:
    """Put what :func:`unpack` has made, with this ``stamp``, in place of the old tree; durable.

    Raises StorageFull or StorageFailed; then the old tree is in place.
    """
    facts = {VOLUMES_UNCONFIRMED: "1", TAKEN_OVER: "import"}
    try:
        storage = new_tree(data_dir) / STORAGE_FOLDER
        pointers = archived_pointers(storage, storage / _imported_name(stamp))
        for (kind, device), name in pointers.items():
            facts[pointer_key(kind, device)] = name
        moves = list(_moves(data_dir))
    except OSError as error:
        raise storage_error("the new files could not be put in place", error) from error
    swap.swap(data_dir, moves, facts)


async def settle(
    data_dir: Path, ledger: Ledger, hold: Callable[[], AbstractContextManager[None]]
) -> bool:
    """Keep what belongs to a tree that was put in place; whether there was one.

    To be called after :func:`install`. Raises StorageFull or StorageFailed.
    """
    with hold():
        facts = await asyncio.to_thread(_recovered, data_dir)
    if facts is None:
        return False
    await ledger.replace_meta([pointer_key(kind, "") for kind in FOLDERS], facts)
    with hold():
        await asyncio.to_thread(_finish, data_dir)
    return True


async def settle_at_start(
    data_dir: Path, ledger: Ledger, hold: Callable[[], AbstractContextManager[None]]
) -> None:
    """Complete what the daemon before left of an import. Raises StorageFull or StorageFailed."""
    if await settle(data_dir, ledger, hold):
        _log.warning("an import that was interrupted has been completed")
        try:
            with hold():
                await asyncio.to_thread(deque, clear(data_dir), 0)
        except PiodError as refusal:
            _log.error("%s (%s)", refusal.message, refusal.cause)


def clear(data_dir: Path) -> Generator[None, None, None]:
    """Remove what an import left, a step at a time. Raises StorageFailed."""
    try:
        yield from swap.clear(data_dir)
    except OSError as error:
        raise storage_error("the rest of an import could not be removed", error) from error


def _recovered(data_dir: Path) -> Mapping[str, str] | None:
    swap.recover(data_dir)
    return swap.facts(data_dir)


def _finish(data_dir: Path) -> None:
    try:
        swap.finish(data_dir)
    except OSError as error:
        raise storage_error("the import could not be completed", error) from error


# -- unpacking --------------------------------------------------------------------


def _check_disk(archive: Archive, data_dir: Path) -> None:
    """Room for the new tree; and one disk, so that entries can be renamed."""
    disk = os.statvfs(data_dir)
    if archive.unpacked_bytes + SPARE_BYTES > disk.f_bavail * disk.f_frsize:
        raise StorageFull(
            "the disk has no room for the archive, which holds "
            f"{archive.unpacked_bytes} bytes unpacked"
        )
    device = os.stat(data_dir).st_dev
    for path in _names(data_dir):
        if os.lstat(data_dir / path).st_dev != device:
            raise Conflict(
                f"{path} is on another disk than {data_dir}: the trees cannot be exchanged at once",
                remediation="Unmount it, or replace its files by hand.",
            )


def _target(path: str, data_dir: Path, stamp: str) -> Path | None:
    """Where the entry ``path`` is unpacked to; None: it is left out."""
    if is_ledger(path):
        folder, _, suffix = path.partition(LEDGER_NAME)
        path = f"{folder}{_imported_name(stamp)}{suffix}"
    elif stays_in_an_import(path) or (is_plugin(path) and plugins_are_fenced(data_dir)):
        return None
    return new_tree(data_dir) / path


def _imported_name(stamp: str) -> str:
    return f"imported-{stamp}.sqlite"


def _extract(archive: Archive, info: ZipInfo, target: Path) -> Iterator[None]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # readable and writable for piod and its group, never writable for everybody
    mode = (info.external_attr >> 16 & 0o775 or 0o664) | 0o660
    with os.fdopen(os.open(target, flags, mode), "wb", buffering=0) as file:
        with reading():
            source = archive.zip.open(info)
        with source:
            while True:
                with reading():
                    data = source.read(STEP_BYTES)
                if not data:
                    return
                file.write(data)
                yield


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- which entries are exchanged --------------------------------------------------


def _names(root: Path) -> list[str]:
    """What is exchanged as a whole: the entries of ``root``, and those of its storage."""
    names = [name for name in os.listdir(root) if name != STORAGE_FOLDER]
    if (root / STORAGE_FOLDER).is_dir():
        names += [f"{STORAGE_FOLDER}/{name}" for name in os.listdir(root / STORAGE_FOLDER)]
    return sorted(name for name in names if not stays_in_an_import(name))


def _moves(data_dir: Path) -> Iterator[Move]:
    old, new = set(_names(data_dir)), set(_names(new_tree(data_dir)))
    plugins_stay = plugins_are_fenced(data_dir)
    for path in sorted(old | new):
        if path in old and is_marker(path):
            continue
        if path not in new and (path in KEPT_IF_MISSING or (is_plugin(path) and plugins_stay)):
            continue
        yield Move(path, displaced=path in old, installed=path in new)
