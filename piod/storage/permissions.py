"""Whether piod may use its data directory, and if not, the command that mends it.

The directory may be that of an existing installation: ``pioreactor:www-data``,
folders setgid, piod a member of a group. So nothing here asks who owns a file, only
what piod may do with it. Cheap to import, and blocks only for a walk over folders.

Without the first group of paths piod does not start; with the second it runs, and
health tells what is amiss:

- the data directory, ``storage`` and the ledger writable; ``config.ini``,
  ``unit_config.ini`` and what lies below ``hardware`` readable (a unit that does not
  know how it is wired must not guess);
- ``storage/calibrations``, ``storage/estimators`` and their folders writable, their
  files readable; ``models`` and ``plugins`` readable; upstream's cache readable.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from piod.errors import ConfigurationError
from piod.storage.layout import LEDGER_NAME, PLUGINS_FOLDER, READINGS_NAME, STORAGE_FOLDER

READ, WRITE, ENTER = os.R_OK, os.W_OK, os.X_OK
WORDS = {READ: "read", WRITE: "write", ENTER: "enter"}
LETTERS = {READ: "r", WRITE: "w", ENTER: "x"}
MAX_PROBLEMS = 10
"""Further ones are counted: they mostly have one cause."""
HIDDEN_BY_SYSTEMD = (Path("/home"), Path("/root"))
"""What ProtectHome=yes makes impossible to enter."""


def check_permissions(data_dir: Path, config_files: tuple[Path, ...]) -> list[str]:
    """What piod may not do in ``data_dir`` and can live without, in words; mostly nothing.

    ``config_files``: where the configuration is read from. Raises
    ConfigurationError for what piod cannot live without; its remediation holds the
    commands that mend it.
    """
    for path, wanted in _needed(data_dir, config_files):
        obstacle = _obstacle(path, wanted, data_dir)
        if obstacle is not None:
            raise _refusal(*obstacle)
    problems = []
    for path, wanted in _wished(data_dir):
        obstacle = _obstacle(path, wanted, data_dir)
        if obstacle is not None:
            what, mend = obstacle
            problems.append(f"{what}; to mend it run: {mend}; then restart piod")
    if len(problems) > MAX_PROBLEMS:
        rest = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [f"permissions: the like holds for {rest} further paths"]
    return problems


def refusal(data_dir: Path) -> ConfigurationError | None:
    """The refusal that says why ``data_dir`` cannot be used at all; None: its rights are fine."""
    obstacle = _obstacle(data_dir, READ | WRITE | ENTER, data_dir)
    return None if obstacle is None else _refusal(*obstacle)


def _refusal(what: str, mend: str) -> ConfigurationError:
    return ConfigurationError(what, remediation=f"Run: {mend}; then start piod again.")


def _needed(data_dir: Path, config_files: tuple[Path, ...]) -> Iterator[tuple[Path, int]]:
    yield data_dir, READ | WRITE | ENTER
    for path in config_files:
        yield path, READ
    storage = data_dir / STORAGE_FOLDER
    yield storage, READ | WRITE | ENTER
    for name in (LEDGER_NAME, READINGS_NAME):
        for suffix in ("", "-wal", "-shm"):
            yield storage / f"{name}{suffix}", READ | WRITE
    yield from _readable_tree(data_dir / "hardware")


def _wished(data_dir: Path) -> Iterator[tuple[Path, int]]:
    for kind in ("calibrations", "estimators"):
        folder = data_dir / STORAGE_FOLDER / kind
        yield folder, READ | WRITE | ENTER
        for device in _entries(folder):
            if device.is_dir():
                yield Path(device), READ | WRITE | ENTER
                for file in _entries(device):
                    if file.name.endswith((".yaml", ".yml")):
                        yield Path(file), READ
    yield from _readable_tree(data_dir / "models")
    plugins = data_dir / PLUGINS_FOLDER
    yield plugins, READ | ENTER
    for file in _entries(plugins):
        if file.name.endswith(".py"):
            yield Path(file), READ


def _readable_tree(folder: Path) -> Iterator[tuple[Path, int]]:
    yield folder, READ | ENTER
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _readable_tree(Path(entry))
        else:
            yield Path(entry), READ


def _entries(folder: os.PathLike[str]) -> list[os.DirEntry[str]]:
    """In the order of their names; nothing if there is no such folder or it is closed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


# -- one path -------------------------------------------------------------------------


def _obstacle(path: Path, wanted: int, data_dir: Path) -> tuple[str, str] | None:
    """What piod may not do with ``path``, and the commands that mend it; None: nothing is amiss.

    What does not exist is no obstacle. A folder on the way that piod cannot enter is
    the obstacle of all that lies in it.
    """
    for folder in reversed(path.parents):
        if not os.access(folder, ENTER, effective_ids=True) and os.path.isdir(folder):
            path, wanted = folder, ENTER
            break
    try:
        status = os.stat(path)
    except OSError:
        return None  # not there, or a link to nowhere: somebody else's to tell
    denied = [
        right
        for right in (READ, WRITE, ENTER)
        if wanted & right and not os.access(path, right, effective_ids=True)
    ]
    if not denied:
        return None
    kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
    what = (
        f"piod, which runs as {_identity()}, may not {' and '.join(WORDS[d] for d in denied)} "
        f"the {kind} {path} ({_rights(status)})"
    )
    if denied == [WRITE] and os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{what}: its file system is read-only", (
            "findmnt --target " + shlex.quote(str(path)) + " (and, if systemd runs piod, "
            "systemctl show piod --property=ReadWritePaths) to see why, and make it writable"
        )
    return what, " && ".join(_commands(path, status, wanted, data_dir))


def _commands(path: Path, status: os.stat_result, wanted: int, data_dir: Path) -> Iterator[str]:
    """By way of the group, as an existing installation shares its files."""
    quoted = shlex.quote(str(path))
    letters = "".join(LETTERS[right] for right in (READ, WRITE, ENTER) if wanted & right)
    if status.st_uid == os.geteuid():
        yield f"sudo chmod u+{letters} {quoted}"
        return
    if path in data_dir.parents and status.st_gid == 0:
        hidden = "INVOCATION_ID" in os.environ and path in HIDDEN_BY_SYSTEMD
        yield "sudo systemctl edit piod" if hidden else f"sudo chmod o+x {quoted}"
        if hidden:
            yield "# and write there: [Service] ProtectHome=no"
        return
    folder = stat.S_ISDIR(status.st_mode)
    mine = {os.getegid(), *os.getgroups()}
    gid = status.st_gid
    if gid not in mine:
        if gid == 0:
            # root's group is nobody's to join: the file gets the group of its surroundings
            gid = _group_of(data_dir) or os.getegid()
            yield f"sudo chgrp {_group(gid)} {quoted}"
        if gid not in mine:
            yield f"sudo adduser {_user(os.geteuid())} {_group(gid)}"
    if wanted & ~(status.st_mode >> 3 & 0o7):
        yield f"sudo chmod g+{letters}{'s' if folder and wanted & WRITE else ''} {quoted}"


def _group_of(folder: Path) -> int:
    try:
        return os.stat(folder).st_gid
    except OSError:
        return 0


def _identity() -> str:
    groups = sorted({os.getegid(), *os.getgroups()})
    named = ", ".join(_group(gid) for gid in groups)
    return f"user {_user(os.geteuid())} in group{'s' if len(groups) > 1 else ''} {named}"


def _rights(status: os.stat_result) -> str:
    return f"{stat.filemode(status.st_mode)} {_user(status.st_uid)}:{_group(status.st_gid)}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
