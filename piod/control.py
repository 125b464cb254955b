"""The control socket: how ``piod safe-outputs`` and ``piod calibrate`` find a living daemon.

A Unix socket in the data directory. One line in, one line out::

    end-jobs REASON        →  ok N         (N jobs have ended, their outputs are off)
    where                  →  ok URL       (where it answers HTTP)
                              error: WHY

The socket lies behind a path that may be longer than the 108 bytes that the
kernel takes, so both ends go by way of the directory's file descriptor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from piod.errors import PiodError

SOCKET_NAME = "piod.sock"

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

MAX_LINE_BYTES = 1000


def end_jobs(data_dir: Path, reason: str, timeout_s: float) -> str | None:
    """Tell the daemon on ``data_dir`` to end all jobs; its answer, None if there is no daemon.

    Blocks, ``timeout_s`` at most for each step. Raises OSError when it lives but
    does not answer.
    """
    return _ask(data_dir, f"end-jobs {reason}", timeout_s)


def where(data_dir: Path, timeout_s: float) -> str | None:
    """Ask the daemon on ``data_dir`` where it answers HTTP; its answer as :func:`end_jobs`."""
    return _ask(data_dir, "where", timeout_s)


def _ask(data_dir: Path, line: str, timeout_s: float) -> str | None:
    try:
        directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            try:
                connection.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            connection.sendall(f"{line}\n".encode())
            return connection.recv(MAX_LINE_BYTES).decode("utf-8", "replace").strip()
    finally:
        os.close(directory)


def is_listening(data_dir: Path, timeout_s: float) -> bool:
    """Whether a daemon lives on ``data_dir``, even one that is frozen or another user's."""
    try:
        directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
            return True
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return True  # it is busy, or not ours to speak with
    finally:
        os.close(directory)


@asynccontextmanager
async def serving(
    data_dir: Path, end_all: Callable[[str], Awaitable[int]], url: Callable[[], str | None]
) -> AsyncIterator[None]:
    """Listen on the control socket of ``data_dir``; ``end_all`` ends all jobs, for a reason.

    ``url``: where HTTP is answered; None: not yet.
    """
    import asyncio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
            command, _, reason = line.decode("utf-8", "replace").strip().partition(" ")
            if command == "end-jobs":
                try:
                    reply = f"ok {await end_all(reason or 'safe-outputs')}"
                except PiodError as refusal:
                    reply = f"error: {refusal.message}"
            elif command == "where":
                at = url()
                reply = "error: it is only starting" if at is None else f"ok {at}"
            else:
                reply = f"error: unknown command {command!r}"
            writer.write(reply.encode() + b"\n")
            await writer.drain()
        except (TimeoutError, OSError, ValueError):
            pass  # whoever asked has gone, or never said anything
        finally:
            writer.close()

    directory = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    path = f"/proc/self/fd/{directory}/{SOCKET_NAME}"
    try:
        _remove(path)  # of a daemon that was killed: the lock says that it is gone
        server = await asyncio.start_unix_server(answer, path)
        os.chmod(path, 0o660)
        try:
            yield
        finally:
            server.close()
            _remove(path)
    finally:
        os.close(directory)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # Python 3.13 removes the socket with its server
