"""Which files are SQLite databases, or parts of them: by name and by content.

Databases are not handed out file by file: a copy that is taken while somebody
writes is broken, and upstream's hold what is nobody's business.

Never open a database that this process uses with anything but SQLite: closing
any file descriptor of it drops SQLite's own POSIX locks, and another process may
then destroy its log. So judge by name first, and compare with what is open.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from piod.storage.layout import LEDGER_NAME, READINGS_NAME, STORAGE_FOLDER

HEAD_BYTES = 16
"""How much of a file :func:`is_database_content` wants to see."""

SIDECARS = ("-wal", "-shm", "-journal")

_NAME = re.compile(r"\.sqlite", re.IGNORECASE)
_MAGIC = (
    b"SQLite format 3\0",
    # write-ahead log: https://www.sqlite.org/walformat.html, 4.1
    b"\x37\x7f\x06\x82",
    b"\x37\x7f\x06\x83",
    # its index in shared memory, version 3007000 in either byte order, then zeros
    b"\x18\xe2\x2d\x00\x00\x00\x00\x00",
    b"\x00\x2d\xe2\x18\x00\x00\x00\x00",
    # rollback journal: https://www.sqlite.org/fileformat.html, 3
    b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",
)


def is_database_name(name: str) -> bool:
    """Whether a file of this name is taken for (a part of) a database unseen."""
    return _NAME.search(name) is not None


def is_database_content(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is (a part of) a database."""
    return head.startswith(_MAGIC)


def is_database(path: Path) -> bool:
    """Whether ``path`` holds a whole database. Opens it; OSError if it cannot."""
    with path.open("rb", buffering=0) as file:
        return file.read(HEAD_BYTES) == _MAGIC[0]


def owner_of_sidecar(path: Path) -> Path | None:
    """Of which database ``path`` would be the log, by its name; None: of none."""
    for suffix in SIDECARS:
        if path.name.endswith(suffix) and path.name != suffix:
            return path.with_name(path.name.removesuffix(suffix))
    return None


def is_ledger_file(path: Path, data_dir: Path) -> bool:
    """Whether ``path`` is, by any name, the ledger of ``data_dir``, its readings, or their logs."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    for name in (LEDGER_NAME, READINGS_NAME):
        for suffix in ("", *SIDECARS):
            try:
                part = os.stat(data_dir / STORAGE_FOLDER / f"{name}{suffix}")
            except OSError:
                continue  # there is none now
            if os.path.samestat(status, part):
                return True
    return False
