"""The port of the daemon: its listening sockets, and one server on them at a time.

:class:`Sockets` stay open until the process ends, so a daemon that starts anew in
this process, or in another that systemd hands the same sockets to, refuses nobody:
who comes in between waits in the kernel's backlog.

:func:`serving` accepts by itself rather than with ``loop.create_server``: before
Python 3.12 the server of asyncio drops what it has accepted when it is closed in
the same moment, and aiohttp closes a connection whose request has not arrived yet.
Here whoever was accepted is answered, for a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from piod.errors import ConfigurationError

log = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel may hold it lower."""
FIRST_REQUEST_S = 0.3
"""How long an accepted connection may take to send its first request when the server ends."""
DRAIN_S = 1.0
"""How long requests may still be answered when the server ends."""
CUT_OFF_S = 0.1
"""After that aiohttp is given so long for each of its two steps to close a connection."""
CLOSE_S = 0.5
"""And so long for all of it, whatever it does."""
NO_FILES_PAUSE_S = 0.5
"""When the process has too many open files, nothing is accepted for so long."""


class Sockets:
    """The listening sockets of this process."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self.sockets = tuple(sockets)

    @classmethod
    def inherited(cls, descriptors: Sequence[int]) -> Sockets:
        """Those that systemd opened. Raises ConfigurationError."""
        sockets = []
        for descriptor in descriptors:
            try:
                one = socket.socket(fileno=descriptor)
                listens = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            except OSError as error:
                raise ConfigurationError(
                    f"systemd passed the file {descriptor}, which is not a socket: "
                    f"{error.strerror}",
                    remediation="Correct LISTEN_FDS, or the socket unit.",
                ) from error
            if one.type != socket.SOCK_STREAM or not listens:
                one.close()
                raise ConfigurationError(
                    f"systemd passed the socket {descriptor}, which does not listen for streams",
                    remediation="Use ListenStream= and Accept=no in the socket unit.",
                )
            one.setblocking(False)
            sockets.append(one)
        return cls(sockets)

    @classmethod
    async def bound(cls, host: str, port: int) -> Sockets:
        """New ones, on every address of ``host``. Raises ConfigurationError."""
        loop = asyncio.get_running_loop()
        sockets: list[socket.socket] = []
        try:
            # asyncio knows how to bind; it does not get to serve
            server = await loop.create_server(asyncio.Protocol, host, port, start_serving=False)
            try:
                sockets += [bound.dup() for bound in server.sockets]
            finally:
                server.close()
            for one in sockets:
                one.listen(BACKLOG)
        except OSError as error:
            for one in sockets:
                one.close()
            raise ConfigurationError(
                f"piod cannot listen on {host} port {port}: {error.strerror}",
                remediation="Name another --host or --port, or end what uses this one.",
            ) from error
        return cls(sockets)

    @property
    def url(self) -> str:
        """Where the first of them is."""
        first = self.sockets[0]
        if first.family == socket.AF_UNIX:
            return f"http://unix:{first.getsockname()}"
        host, port = first.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        """Whoever still waits is refused, unless another process has the sockets, too."""
        for one in self.sockets:
            one.close()


class Server:
    """One application on the sockets; see :func:`serving`."""

    def __init__(self, runner: web.AppRunner, sockets: Sockets, requests: _Requests) -> None:
        self._runner = runner
        self._sockets = sockets
        self._requests = requests
        self._arriving: set[asyncio.Task[None]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._ended: asyncio.Task[None] | None = None

    def accept_from_now_on(self) -> None:
        """Accept whoever comes."""
        loop = asyncio.get_running_loop()
        for one in self._sockets.sockets:
            loop.add_reader(one, self._accept, one)

    def stop_accepting(self) -> None:
        """Leave whoever comes from now on in the backlog. May be called again."""
        loop = asyncio.get_running_loop()
        if self._paused is not None:
            self._paused.cancel()
        for one in self._sockets.sockets:
            loop.remove_reader(one)
        self._requests.ending = True

    async def drain(self) -> None:
        """Answer who was accepted, DRAIN_S at most, and close all connections.

        For after :meth:`stop_accepting`. Each answer from then on closes its connection.
        """
        until = time.monotonic() + DRAIN_S
        while time.monotonic() < until and (self._arriving or self._requests.expected):  # noqa: ASYNC110  # time is one of them
            await asyncio.sleep(0.005)
        if self._requests.under_way:
            log.warning("some requests were still being answered and were cut off")
        server = self._runner.server
        assert server is not None  # it is set up as long as this lives
        for connection in server.connections:
            connection.close()  # the idle ones at once, the others when they have answered
        try:
            async with asyncio.timeout(CLOSE_S):
                await server.shutdown(CUT_OFF_S)
                await self._runner.cleanup()
        except TimeoutError:
            log.warning("some connections did not close in time")

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(BACKLOG):
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            connection.setblocking(False)
            task = asyncio.get_running_loop().create_task(self._welcome(connection))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _welcome(self, connection: socket.socket) -> None:
        server = self._runner.server
        assert server is not None  # it is set up as long as this lives
        handler = server()
        self._requests.expect(handler)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: handler, connection)
        except OSError as error:
            log.debug("a connection ended as it began: %s", error)
            connection.close()

    def _pause(self, error: OSError) -> None:
        log.error("no connection can be accepted for a moment: %s", error.strerror)
        loop = asyncio.get_running_loop()
        for one in self._sockets.sockets:
            loop.remove_reader(one)
        self._paused = loop.call_later(NO_FILES_PAUSE_S, self.accept_from_now_on)


class _Requests:
    """Which connections have a request under way, or will soon have their first."""

    def __init__(self) -> None:
        self.ending = False
        """Each answer closes its connection."""
        self.under_way = 0
        self._new: dict[object, float] = {}
        """Connections without a request so far, and when they were accepted."""

    @property
    def expected(self) -> bool:
        """Whether somebody is still to be answered."""
        self._forget_silent()
        return bool(self.under_way or self._new)

    def expect(self, connection: object) -> None:
        """A connection was accepted; its request is on its way."""
        self._forget_silent()
        self._new[connection] = time.monotonic()

    def _forget_silent(self) -> None:
        before = time.monotonic() - FIRST_REQUEST_S
        while self._new and next(iter(self._new.values())) < before:
            del self._new[next(iter(self._new))]  # the oldest come first

    @web.middleware
    async def count(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Around every handler."""
        self._new.pop(request.protocol, None)
        self.under_way += 1
        try:
            return await handler(request)
        finally:
            self.under_way -= 1

    async def close_at_end(self, request: web.Request, response: web.StreamResponse) -> None:
        """Before an answer leaves."""
        if self.ending:
            response.force_close()
            response.headers["Connection"] = "close"


@asynccontextmanager
async def serving(application: web.Application, sockets: Sockets) -> AsyncIterator[Server]:
    """Answer on ``sockets`` while the context lasts; they stay open after it."""
    requests = _Requests()
    application.middlewares.insert(0, requests.count)
    application.on_response_prepare.append(requests.close_at_end)
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    server = Server(runner, sockets, requests)
    try:
        server.accept_from_now_on()
        yield server
    finally:
        server.stop_accepting()
        await server.drain()
