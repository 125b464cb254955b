"""An archive that somebody uploads, checked before anything of it is used.

:func:`check_archive` reads the directory of a zip file and refuses what could
write outside of the data directory, fill the disk or the memory, or belongs to
another unit. What is in the entries is checked when they are read: zipfile
compares each with its checksum and never hands out more than the directory says.
"""

from __future__ import annotations

import errno
import io
import json
import re
import stat
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, LargeZipFile, ZipFile, ZipInfo

from piod.errors import BadRequest
from piod.storage.layout import METADATA_NAME, STORAGE_FOLDER

MAX_ARCHIVE_BYTES = 2 * 1024**3
MAX_UNPACKED_BYTES = 2 * 1024**3
MAX_ENTRIES = 100_000
MAX_RATIO = 200
"""Unpacked to packed size of the whole archive; text and databases stay far below."""
MAX_NAME_BYTES = 1024
MAX_COMPONENT_BYTES = 255
MAX_METADATA_BYTES = 64 * 1024
MAX_DIRECTORY_BYTES = 40 * 1024**2
"""Of the zip directory, which zipfile reads into memory at once."""

_ENTRY_MAGIC = b"PK\x01\x02"
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_ENCRYPTED = 0x1

_DAMAGE = (
    BadZipFile,
    LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises about an archive that is damaged or that it does not understand."""


@dataclass(frozen=True)
class Archive:
    """A checked archive. ``files`` and ``folders`` are by their path in the tree.

    Every parent of a path is in ``folders``, before its children.
    """

    zip: ZipFile
    files: Mapping[str, ZipInfo]
    folders: Sequence[str]
    unpacked_bytes: int


def check_archive(
    file: BinaryIO, unit_name: str, *, force: bool, max_unpacked_bytes: int = MAX_UNPACKED_BYTES
) -> Archive:
    """The archive in ``file``, an export of the unit ``unit_name``.

    ``force`` accepts the export of another unit and one that does not say whose
    it is. Raises BadRequest with what is wrong. Blocks; the caller closes ``file``.
    """
    packed_bytes = file.seek(0, io.SEEK_END)
    with reading():
        archive = ZipFile(_BoundedDirectory(file))
    files, folders = _named(archive)
    unpacked_bytes = sum(info.file_size for info in files.values())
    if unpacked_bytes > max_unpacked_bytes:
        raise BadRequest(
            f"the archive holds {unpacked_bytes} bytes unpacked; "
            f"{max_unpacked_bytes} are allowed at most"
        )
    if unpacked_bytes > MAX_RATIO * packed_bytes:
        raise BadRequest(
            f"the archive unpacks to more than {MAX_RATIO} times its size: that is no export of "
            "a unit"
        )
    if not force:
        _check_metadata(archive, files.get(METADATA_NAME), unit_name)
    return Archive(archive, files, folders, unpacked_bytes)


class _BoundedDirectory:
    """``file`` for zipfile, which reads the whole directory of an archive at once.

    It makes an object of each entry then, so the count is checked on the bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable
        self.close = file.close

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:
            raise BadZipFile(f"its directory is larger than {MAX_DIRECTORY_BYTES} bytes")
        data = self._file.read(size)
        if len(data) > len(_ENTRY_MAGIC) * MAX_ENTRIES and data.count(_ENTRY_MAGIC) > MAX_ENTRIES:
            raise BadZipFile(f"it has more than {MAX_ENTRIES} entries")
        return data


@contextmanager
def reading() -> Iterator[None]:
    """What zipfile raises of a damaged archive, as BadRequest."""
    try:
        yield
    except _DAMAGE as error:
        raise _unreadable(error) from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset before the beginning
            raise
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> BadRequest:
    return BadRequest(
        f"the archive is damaged or no zip file: {error}",
        remediation="Send a file that GET /unit_api/zipped_dot_pioreactor has given, whole.",
    )


def _named(archive: ZipFile) -> tuple[dict[str, ZipInfo], list[str]]:
    """Files and folders by path, each entry checked by itself and with the others."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise BadRequest(f"the archive has more than {MAX_ENTRIES} entries")
    files: dict[str, ZipInfo] = {}
    named_folders: set[str] = set()
    for info in entries:
        path = _path(info)
        _check_kind(info)
        if not path:
            continue  # the folder that everything is in
        if path in files or path in named_folders:
            raise _refused(info, "is in it more than once")
        if info.is_dir():
            named_folders.add(path)
        else:
            files[path] = info
    folders: dict[str, None] = {}  # in order
    for path in sorted([*files, *named_folders]):
        parts = path.split("/")
        for end in range(1, len(parts) + (path in named_folders)):
            folder = "/".join(parts[:end])
            if folder in files:
                raise _refused(files[folder], "is both a file and a folder")
            folders[folder] = None
    if STORAGE_FOLDER in files:
        raise _refused(files[STORAGE_FOLDER], "must be a folder")
    return files, list(folders)


def _path(info: ZipInfo) -> str:
    """Where the entry belongs, relative, without ``.`` and doubled slashes."""
    name = info.orig_filename  # what zipfile makes of it ends at a NUL
    if "\0" in name:
        raise _refused(info, "has a NUL character in its name")
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        raise _refused(info, "has an absolute name")
    if ".." in re.split(r"[/\\]", name):
        raise _refused(info, "leads outside of the data directory")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError as error:
        raise _refused(info, "has a name that is no text") from error
    if any(size > MAX_COMPONENT_BYTES for size in sizes) or sum(sizes) > MAX_NAME_BYTES:
        raise _refused(info, "has a name that is too long")
    if not parts and not info.is_dir():
        raise _refused(info, "has no name")
    return "/".join(parts)


def _check_kind(info: ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _refused(info, "is a link")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR and not info.is_dir()):
        raise _refused(info, "is neither a file nor a folder")
    if info.flag_bits & _ENCRYPTED:
        raise _refused(info, "is encrypted")
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise _refused(info, "is neither stored nor deflated")
    if info.is_dir() and info.file_size:
        raise _refused(info, "is a folder with content")


def _refused(info: ZipInfo, why: str) -> BadRequest:
    return BadRequest(
        f"the archive is refused: its entry {info.orig_filename[:200]!a} {why}",
        remediation="Send an archive that GET /unit_api/zipped_dot_pioreactor has given.",
    )


def _check_metadata(archive: ZipFile, info: ZipInfo | None, unit_name: str) -> None:
    hint = 'To import it all the same, send the form field force with the value "true".'
    if info is None:
        raise BadRequest(
            f"the archive does not say of which unit it is: {METADATA_NAME} is missing",
            remediation=hint,
        )
    if info.file_size > MAX_METADATA_BYTES:
        raise _refused(info, "is too large")
    with reading():
        text = archive.read(info)
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(
            f"{METADATA_NAME} in the archive is not valid JSON", cause=str(error), remediation=hint
        ) from error
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str):
        raise BadRequest(
            f"{METADATA_NAME} in the archive does not say of which unit it is: "
            "it must be an object with the text 'name'",
            remediation=hint,
        )
    if name != unit_name:
        raise BadRequest(
            f"the archive is of the unit {name[:100]!r}, and this is {unit_name!r}",
            remediation=hint,
        )
