"""What systemd gives to the daemon, and how the daemon answers (piod.systemd)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from piod.systemd import Notifier, received

NAMES = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
)  # fmt: skip
SELF = str(os.getpid())


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the notify socket; its address is one of both kinds."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0piod-test-{SELF}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(name)
        one.settimeout(1)
        yield one


def address(manager: socket.socket) -> str:
    name = manager.getsockname()
    return name if isinstance(name, str) else "@" + name[1:].decode()


def test_systemd_is_told_in_its_own_words(manager: socket.socket) -> None:
    notifier = Notifier(address(manager))
    assert notifier.listens
    before_us = time.monotonic_ns() // 1000
    notifier.ready()
    notifier.status("2 jobs:\nstirring, od_reading")
    notifier.reloading()
    notifier.watchdog()
    notifier.stopping()
    notifier.close()
    told = [manager.recv(1000).decode() for _ in range(5)]
    assert told[0] == "READY=1"
    assert told[1] == "STATUS=2 jobs: stirring, od_reading"
    reloading, at = told[2].split("\n")
    assert reloading == "RELOADING=1"
    at_us = int(at.removeprefix("MONOTONIC_USEC="))
    assert before_us <= at_us <= time.monotonic_ns() // 1000
    assert told[3:] == ["WATCHDOG=1", "STOPPING=1"]


def test_nobody_listens_without_systemd() -> None:
    notifier = received({}).notifier
    assert not notifier.listens
    notifier.ready()
    notifier.close()


def test_a_manager_that_has_gone_or_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(path))
        notifier = Notifier(str(path))
        began = time.monotonic()
        for _ in range(1000):
            notifier.watchdog()
        assert time.monotonic() - began < 1
    notifier.watchdog()
    notifier.close()


def test_what_was_received_is_not_passed_on() -> None:
    environment = dict.fromkeys(NAMES, "1") | {"PATH": "/bin"}
    received(environment).notifier.close()
    assert environment == {"PATH": "/bin"}


def test_the_watchdog_of_another_process_is_not_ours() -> None:
    assert received({"WATCHDOG_USEC": "10000000"}).watchdog_s == 10
    assert received({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": SELF}).watchdog_s == 10
    assert received({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}).watchdog_s is None
    for nonsense in ("", "0", "-1", "soon"):
        assert received({"WATCHDOG_USEC": nonsense}).watchdog_s is None


def test_sockets_for_another_process_are_not_ours() -> None:
    assert received({"LISTEN_FDS": "2", "LISTEN_PID": "1"}).listen_fds == ()
    assert received({"LISTEN_FDS": "2"}).listen_fds == ()
    assert received({"LISTEN_FDS": "none", "LISTEN_PID": SELF}).listen_fds == ()
