"""The listening sockets, and a server on them that drops nobody (piod.listening)."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from piod.errors import ConfigurationError
from piod.listening import Sockets, serving

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


def application(handler: Handler = hello) -> web.Application:
    one = web.Application()
    one.router.add_get("/", handler)
    return one


async def answer(sockets: Sockets, request: bytes = REQUEST) -> bytes:
    """All that is answered to a request, until the connection closes."""
    reader, writer = await asyncio.open_connection(*sockets.sockets[0].getsockname()[:2])
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_who_comes_between_two_servers_is_answered_by_the_second() -> None:
    sockets = await Sockets.bound("127.0.0.1", 0)
    async with serving(application(), sockets) as server:
        server.stop_accepting()
        waiting = asyncio.create_task(answer(sockets))
        await asyncio.sleep(0.05)
    assert not waiting.done()
    async with serving(application(), sockets):
        await asyncio.sleep(0.05)
    assert (await waiting).endswith(b"hello")
    sockets.close()


async def test_all_that_was_accepted_in_the_moment_of_the_end_is_answered() -> None:
    sockets = await Sockets.bound("127.0.0.1", 0)
    address = sockets.sockets[0].getsockname()
    clients = [socket.create_connection(address) for _ in range(20)]
    async with serving(application(), sockets) as server:
        server._accept(sockets.sockets[0])
        server.stop_accepting()  # in the same step of the loop
        for client in clients:
            client.sendall(REQUEST)
    for client in clients:
        with client:
            client.settimeout(5)
            text = client.recv(4096)
            assert text.startswith(b"HTTP/1.1 200"), text
            assert b"connection: close" in text.lower()
    sockets.close()


async def test_a_request_under_way_is_answered_in_full() -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return web.Response(text="x" * 1_000_000)

    sockets = await Sockets.bound("127.0.0.1", 0)
    async with serving(application(slow), sockets):
        waiting = asyncio.create_task(answer(sockets))
        await asyncio.sleep(0.1)
    assert (await waiting).endswith(b"x" * 1_000_000)
    sockets.close()


async def test_a_request_that_is_never_over_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    sockets = await Sockets.bound("127.0.0.1", 0)
    async with serving(application(never), sockets):
        waiting = asyncio.create_task(answer(sockets))
        await asyncio.sleep(0.05)
        began = time.monotonic()
    assert time.monotonic() - began < 2.5
    assert await waiting == b""
    assert "cut off" in caplog.text
    sockets.close()


async def test_a_connection_that_stays_silent_does_not_delay_the_end() -> None:
    sockets = await Sockets.bound("127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    with socket.create_connection(sockets.sockets[0].getsockname()):
        async with serving(application(), sockets):
            await asyncio.sleep(0.05)
            began = loop.time()
        assert loop.time() - began < 0.8
    sockets.close()


async def test_a_taken_port_is_refused_with_what_to_do() -> None:
    sockets = await Sockets.bound("127.0.0.1", 0)
    with pytest.raises(ConfigurationError, match="piod cannot listen on"):
        await Sockets.bound("127.0.0.1", sockets.sockets[0].getsockname()[1])
    sockets.close()


async def test_several_sockets_of_several_kinds_are_served(tmp_path: Path) -> None:
    path = str(tmp_path / "http")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        sockets = Sockets.inherited([os.dup(tcp.fileno()), os.dup(unix.fileno())])
        assert sockets.url == f"http://127.0.0.1:{tcp.getsockname()[1]}"
        async with serving(application(), sockets):
            for opening in (
                asyncio.open_connection(*tcp.getsockname()),
                asyncio.open_unix_connection(path),
            ):
                reader, writer = await opening
                writer.write(REQUEST.replace(b"1.1", b"1.0"))
                assert (await reader.read()).endswith(b"hello")
                writer.close()
                await writer.wait_closed()
        sockets.close()


def test_a_file_that_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    file = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ConfigurationError, match="not a socket"):
        Sockets.inherited([file])
    os.close(file)
    with socket.socket() as idle, pytest.raises(ConfigurationError, match="does not listen"):
        Sockets.inherited([os.dup(idle.fileno())])
