"""The plugin files ``plugins/*.py``: finding, reading, fetching."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from piod.errors import BadRequest, NotFound
from piod.plugins.loading import Loaded, load_file
from piod.plugins.requests import normal_name
from piod.storage.files import storage_error

FOLDER = "plugins"
MAX_BYTES = 1024 * 1024
FETCH_TIMEOUT_S = 60.0
MAX_REDIRECTS = 5


@dataclass(frozen=True)
class PluginFile:
    """One file as it lies on the disk. Two of them are equal when nothing has changed."""

    path: Path
    inode: int
    size: int
    mtime_ns: int

    @property
    def key(self) -> str:
        """What it is told apart by."""
        return self.source

    @property
    def source(self) -> str:
        """Where the list of plugins says that it comes from: ``plugins/<file>.py``."""
        return f"{FOLDER}/{self.path.name}"

    @property
    def about(self) -> dict[str, str]:
        """What is known of it without loading it."""
        return {"name": self.path.stem}

    def load(self) -> Loaded:
        """Run it; blocks."""
        if self.size > MAX_BYTES:
            return Loaded(problems=(f"it is larger than {MAX_BYTES} bytes",))
        return load_file(self.path)


def plugin_files(data_dir: Path) -> list[PluginFile]:
    """The plugin files of the unit in the order of their names. Blocks."""
    found: list[PluginFile] = []
    try:
        names = sorted(os.listdir(data_dir / FOLDER))
    except OSError:
        return found
    for name in names:
        path = data_dir / FOLDER / name
        if not name.endswith(".py") or name.startswith("."):
            continue
        try:
            status = path.stat()
        except OSError:
            continue  # a link to nowhere, or removed meanwhile
        if stat.S_ISREG(status.st_mode):  # a pipe would never end
            found.append(PluginFile(path, status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def file_named(data_dir: Path, name: str) -> Path | None:
    """The plugin file whose stem is ``name``, or is the same as package names go. Blocks."""
    paths = [file.path for file in plugin_files(data_dir)]
    stem = name.removesuffix(".py")
    exact = [path for path in paths if path.stem == stem]
    similar = [path for path in paths if normal_name(path.stem) == normal_name(stem)]
    return next(iter(exact or similar), None)


def read_plugin(data_dir: Path, file_name: str) -> str:
    """The text of the plugin file ``file_name``, a valid name. Blocks.

    NotFound, the same for all reasons: it is not there, not a plugin file, or a
    link to outside the folder. What is not UTF-8 in it is replaced.
    """
    folder = (data_dir / FOLDER).resolve()
    path = folder / file_name
    try:
        if file_name.endswith(".py") and path.resolve(strict=True).is_relative_to(folder):
            return read_bytes(path).decode(errors="replace")
    except (OSError, BadRequest, RuntimeError):
        pass
    raise NotFound(
        f"there is no plugin file {file_name!r} on this unit",
        remediation="GET /unit_api/plugins/installed tells the source of each plugin.",
    )


def read_bytes(path: Path) -> bytes:
    """The content of a plugin file. Raises OSError, and BadRequest if it cannot be one."""
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadRequest(f"{path.name} is not a file")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise BadRequest(f"{path.name} is larger than {MAX_BYTES} bytes")
    return content


def copy_source(path: Path) -> bytes:
    """The content of the file that a request names. Blocks. Raises PiodError."""
    try:
        return read_bytes(path)
    except OSError as error:
        raise storage_error(f"{path} could not be read", error) from error


async def fetch_source(url: str) -> bytes:
    """The plugin file at ``url``. Raises BadRequest with the reason when it cannot be had."""
    timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
    content = b""
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
            session.get(url, max_redirects=MAX_REDIRECTS) as response,
        ):
            if response.status != 200:
                raise BadRequest(f"{url} could not be fetched: it answers {response.status}")
            async for chunk in response.content.iter_chunked(65536):
                content += chunk
                if len(content) > MAX_BYTES:
                    raise BadRequest(f"{url} is larger than {MAX_BYTES} bytes")
    except TimeoutError as error:
        raise BadRequest(f"{url} could not be fetched within {FETCH_TIMEOUT_S:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise BadRequest(f"{url} could not be fetched: {error}") from error
    return content


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
