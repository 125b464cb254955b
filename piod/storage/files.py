"""Files that are either wholly the old ones or wholly the new ones, and on disk.

Every function here returns after the change would survive a power cut. They
block (a flush of an SD card can take a second): call them in a thread.

A kill in the middle of a write leaves a temporary file beside the target, never
half a target. Its name starts with ``TEMPORARY_PREFIX``;
:func:`remove_temporary_files` clears such leftovers at the next start.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from piod.errors import StorageFailed, StorageFull

TEMPORARY_PREFIX = ".piod-unfinished-"
"""Short, so that a target with the longest allowed name still has room for it."""


def write_file(path: Path, content: bytes | str) -> None:
    """Make ``path`` hold ``content`` (text as UTF-8), atomically and durably.

    Missing folders are made. A file that exists keeps its mode and, where piod
    may, its group; if it was another user's, who could write it and whose group
    could read it, its group may now write it too, as it is piod's from here on.
    A new file is writable by its group, less the umask: leaders and people of that
    group edit these files too. A symbolic link is replaced, not followed.

    Raises :class:`StorageFull` or :class:`StorageFailed`; the old content is
    then still in place.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        _make_folder(path.parent)
        temporary = path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o664)
        try:
            with os.fdopen(file, "wb") as stream:
                _take_over_mode(path, stream.fileno())
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(f"{path} could not be written", error) from error


def remove_file(path: Path) -> bool:
    """Delete ``path`` durably; False if there was none.

    Raises :class:`StorageFailed`.
    """
    try:
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(f"{path} could not be deleted", error) from error
    return True


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it, as far as they are missing, durably.

    Raises :class:`StorageFull` or :class:`StorageFailed`.
    """
    try:
        _make_folder(path)
    except OSError as error:
        raise storage_error(f"the folder {path} could not be made", error) from error


def remove_temporary_files(folder: Path) -> int:
    """Clear ``folder`` and those below it of what a killed write left; how many there were.

    Only to be called while nobody writes there: at the start of the daemon.
    """
    leftovers = [path for path in folder.rglob(f"{TEMPORARY_PREFIX}*") if path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def sync_folder(path: Path) -> None:
    """Put the names in a folder (made, renamed, deleted) on disk. Raises :class:`OSError`."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def storage_error(what: str, error: OSError) -> StorageFull | StorageFailed:
    """The refusal that tells ``what`` failed and why."""
    reason = os.strerror(error.errno) if error.errno is not None else str(error)
    message = f"{what}: {reason}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(message, cause=str(error))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageFailed(
            message,
            cause=str(error),
            remediation="Check that the disk is mounted writable and that the user that runs "
            "piod owns the data directory.",
        )
    return StorageFailed(message, cause=str(error))


def _make_folder(path: Path) -> None:
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(0o775, exist_ok=True)
    sync_folder(path.parent)


def _take_over_mode(path: Path, file: int) -> None:
    try:
        old = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(old.st_mode):
        return
    try:
        os.fchown(file, -1, old.st_gid)
    except PermissionError:
        pass  # the group is another user's to give; the content matters more
    mode = stat.S_IMODE(old.st_mode)
    if old.st_uid != os.geteuid() and mode & stat.S_IRGRP and mode & stat.S_IWUSR:
        mode |= stat.S_IWGRP
    os.fchmod(file, mode)
