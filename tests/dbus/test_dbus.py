"""The system bus as piod uses it, against a real dbus-daemon: calls, and every way to fail."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from piod import dbus
from piod.dbus import SystemBus
from piod.dbus_refusals import (
    BusAbsent,
    BusObject,
    CallTimedOut,
    ConnectionLost,
    Denied,
    ServiceAbsent,
    ServiceRefused,
    ServiceVanished,
)
from piod.errors import PiodError
from piod.machine import LOGIND, SYSTEMD, TIMEDATED
from tests.dbus.private_bus import (
    ACCESS_DENIED,
    AUTHORIZATION_REQUIRED,
    HANG,
    VANISH,
    ErrorReply,
    MachineServices,
    PrivateBus,
    open_files,
)

NOBODY = BusObject("org.example.Nobody", "/", "org.example.Nobody", "nobody.service")


def assert_says(refusal: PiodError, *words: str) -> None:
    """It can be understood alone, and says what to do."""
    for word in words:
        assert word in refusal.message, refusal.message
    assert refusal.remediation


async def test_a_call_reaches_the_service_with_its_arguments(
    client: SystemBus, services: MachineServices
) -> None:
    assert await client.call(LOGIND, "Reboot", "b", False) == []
    assert services.logind.calls == [("Reboot", [False])]


async def test_a_property_is_read_as_its_value(
    client: SystemBus, services: MachineServices
) -> None:
    assert await client.get(TIMEDATED, "CanNTP") is True


async def test_calls_at_the_same_time_get_their_own_answers(
    client: SystemBus, services: MachineServices
) -> None:
    names = [f"unit{number}.service" for number in range(20)]
    answers = await asyncio.gather(*(client.call(SYSTEMD, "LoadUnit", "s", name) for name in names))
    expected = [[f"/org/freedesktop/systemd1/unit/{name.encode().hex()}"] for name in names]
    assert answers == expected


@pytest.mark.parametrize("error_name", [ACCESS_DENIED, AUTHORIZATION_REQUIRED])
async def test_a_denied_call_names_the_action_and_where_to_allow_it(
    client: SystemBus, services: MachineServices, error_name: str
) -> None:
    services.logind.misbehave["Reboot"] = ErrorReply(error_name, "Not allowed.")
    with pytest.raises(Denied) as refused:
        await client.call(LOGIND, "Reboot", "b", False, action="org.freedesktop.login1.reboot")
    assert_says(refused.value, "Reboot", "org.freedesktop.login1.reboot", "Not allowed.")
    for word in ("package", "polkit", "/etc/polkit-1/rules.d", "docs/operating.md"):
        assert word in refused.value.remediation


async def test_a_service_that_nobody_provides_is_named_with_what_runs_it(
    client: SystemBus,
) -> None:
    with pytest.raises(ServiceAbsent) as refused:
        await client.call(NOBODY, "Reboot")
    assert_says(refused.value, "org.example.Nobody")
    assert "nobody.service" in refused.value.remediation


async def test_a_service_that_could_not_be_started_is_absent(
    client: SystemBus, services: MachineServices
) -> None:
    services.timedated.misbehave["SetNTP"] = ErrorReply(
        "org.freedesktop.systemd1.UnitMasked", "Unit dbus-timedate1.service is masked."
    )
    with pytest.raises(ServiceAbsent, match="is masked"):
        await client.call(TIMEDATED, "SetNTP", "bb", True, False)


async def test_an_error_of_the_service_keeps_its_name_and_words(
    client: SystemBus, services: MachineServices
) -> None:
    with pytest.raises(ServiceRefused, match=r"Unit no\.service not found") as refused:
        await client.call(SYSTEMD, "RestartUnit", "ss", "no.service", "replace")
    assert refused.value.error_name == "org.freedesktop.systemd1.NoSuchUnit"


async def test_a_service_that_hangs_is_given_up_at_the_deadline(
    client: SystemBus, services: MachineServices
) -> None:
    services.logind.misbehave["Reboot"] = HANG
    with pytest.raises(CallTimedOut) as refused:
        await client.call(LOGIND, "Reboot", "b", False, timeout_s=0.05)
    assert_says(refused.value, "Reboot of org.freedesktop.login1", "0.05 s")
    assert await client.get(TIMEDATED, "CanNTP") is True, "others go on"


async def test_a_service_that_vanishes_in_the_middle_of_a_call_ends_it(
    client: SystemBus, services: MachineServices
) -> None:
    services.logind.misbehave["Reboot"] = VANISH
    with pytest.raises(ServiceVanished) as refused:
        await client.call(LOGIND, "Reboot", "b", False)
    assert_says(refused.value, "went away before it answered Reboot")


async def test_a_bus_that_dies_ends_every_call_that_waits(
    bus: PrivateBus, client: SystemBus, services: MachineServices
) -> None:
    services.logind.misbehave["Reboot"] = HANG
    calls = [asyncio.create_task(client.call(LOGIND, "Reboot", "b", False)) for _ in range(3)]
    await services.logind.called("Reboot", 3)
    await bus.kill()
    for ended in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(ended, ConnectionLost)
        assert_says(ended, "lost before the answer to Reboot")


async def test_a_bus_that_comes_back_is_connected_to_anew(
    bus: PrivateBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbus, "FIRST_PAUSE_S", 0.05)
    client = SystemBus(bus.address)
    await client.check()
    await bus.kill()
    with pytest.raises(PiodError):
        await client.check()
    await bus.start()
    await asyncio.sleep(max(0.0, client._next_attempt - time.monotonic()))
    await client.check()
    await client.close()


async def test_a_missing_bus_is_refused_at_once_and_not_tried_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    opened = dbus._open

    async def counted(address: str) -> dbus._Connection:
        nonlocal attempts
        attempts += 1
        return await opened(address)

    monkeypatch.setattr(dbus, "_open", counted)
    pause_s = 0.2
    monkeypatch.setattr(dbus, "FIRST_PAUSE_S", pause_s)
    client = SystemBus(f"unix:path={tmp_path}/nothing")
    begun = time.monotonic()
    for _ in range(20):
        with pytest.raises(BusAbsent) as refused:
            await client.call(LOGIND, "Reboot", "b", False)
    assert attempts <= 1 + (time.monotonic() - begun) / pause_s
    assert_says(refused.value, "nothing", "No such file or directory", "next attempt")
    assert "systemctl status dbus" in refused.value.remediation
    before = attempts
    await asyncio.sleep(2 * pause_s)
    with pytest.raises(BusAbsent):
        await client.check()
    assert attempts == before + 1, "then it is tried again"


async def test_the_pause_after_failures_grows_to_a_limit_and_success_forgets_it(
    bus: PrivateBus, client: SystemBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbus, "LONGEST_PAUSE_S", 0.06)
    await bus.kill()
    client._pause_s = 0.01
    pauses = []
    for _ in range(5):
        with pytest.raises(BusAbsent):
            await client.check()
        pauses.append(client._next_attempt - time.monotonic())
        await asyncio.sleep(max(0.0, pauses[-1]))
    assert pauses == sorted(pauses[:3]) + pauses[3:]
    assert 0.03 < pauses[-1] <= 0.06
    await bus.start()
    await client.check()
    assert client._pause_s == dbus.FIRST_PAUSE_S


@asynccontextmanager
async def impostor(path: Path, says: bytes) -> AsyncIterator[str]:
    """Something that is no bus: it says this to whoever connects; nothing: it hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(says)
        if says:
            with suppress(ConnectionError):
                await reader.read()  # until piod hangs up
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"unix:path={path}"
    finally:
        server.close()
        await asyncio.sleep(0.02)  # its connections close


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"", "closed the connection"),
        (b"REJECTED EXTERNAL\r\n", "refused piod's user"),
        (b"OK 1234\r\nnonsense" * 20, "it is"),
        (b"x" * 100_000, "limit"),
        (b"OK 1234\r\n" + b"l\x02\x01\x01" + b"\xff" * 100, "bytes long"),
    ],
    ids=["hangs up", "rejects", "nonsense", "endless line", "huge message"],
)
async def test_what_is_no_bus_is_refused_with_the_reason(
    tmp_path: Path, says: bytes, reason: str
) -> None:
    async with impostor(tmp_path / "bus", says) as address:
        client = SystemBus(address)
        with pytest.raises(BusAbsent, match=reason):
            await client.check()


@pytest.mark.parametrize("address", ["nonsense", "tcp:host=localhost,port=1", "unix:tmpdir=/tmp"])
async def test_an_address_that_is_not_understood_is_refused(address: str) -> None:
    with pytest.raises(BusAbsent, match="cannot be reached"):
        await SystemBus(address).check()


async def test_a_bus_that_hangs_is_refused_and_connected_to_anew(
    bus: PrivateBus, client: SystemBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbus, "CHECK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(dbus, "CONNECT_TIMEOUT_S", 0.1)
    await client.check()
    bus.freeze()
    for reason in ("does not answer within", "no answer within", "next attempt"):
        with pytest.raises(BusAbsent, match=reason):
            await client.check()


async def test_a_cancelled_call_leaves_the_connection_usable(
    client: SystemBus, services: MachineServices
) -> None:
    services.logind.misbehave["Reboot"] = HANG
    call = asyncio.create_task(client.call(LOGIND, "Reboot", "b", False))
    await services.logind.called("Reboot")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await client.get(TIMEDATED, "CanNTP") is True


async def test_signals_are_heard_and_forged_ones_are_not(
    client: SystemBus, services: MachineServices
) -> None:
    async with client.signals(SYSTEMD, "JobRemoved") as removed:
        end = [1, "/org/freedesktop/systemd1/job/1", "a.service"]
        await client.call(LOGIND, "Reboot", "b", False)
        me = services.logind.caller
        services.logind.signal("JobRemoved", "uoss", [*end, "forged"], of=SYSTEMD.service, to=me)
        await client.call(LOGIND, "Reboot", "b", False)  # so that it has come
        services.systemd.signal("JobRemoved", "uoss", [*end, "done"])
        assert (await removed.next())[3] == "done"


async def test_a_service_that_vanishes_ends_the_wait_for_its_signal(
    client: SystemBus, services: MachineServices
) -> None:
    async with client.signals(SYSTEMD, "JobRemoved") as removed:
        waiting = asyncio.create_task(removed.next())
        await services.systemd.vanish()
        with pytest.raises(ServiceVanished, match="went away while JobRemoved was awaited"):
            await waiting


async def test_a_bus_that_dies_ends_the_wait_for_a_signal(
    bus: PrivateBus, client: SystemBus, services: MachineServices
) -> None:
    async with client.signals(SYSTEMD, "JobRemoved") as removed:
        waiting = asyncio.create_task(removed.next())
        await bus.kill()
        with pytest.raises(ConnectionLost, match="while JobRemoved"):
            await waiting


async def test_no_connection_stays_open_after_it_was_lost_or_closed(
    bus: PrivateBus, tmp_path: Path
) -> None:
    await SystemBus(bus.address).close()  # nothing was opened
    client = SystemBus(bus.address)
    before = open_files()
    for _ in range(3):
        await client.check()
        await client.close()
    async with impostor(tmp_path / "impostor", b"REJECTED\r\n") as address:
        for _ in range(3):
            with pytest.raises(BusAbsent):
                await SystemBus(address).check()
    await asyncio.sleep(0)
    assert open_files() == before


def test_the_library_is_not_imported_before_a_connection_is_made() -> None:
    """It costs a Pi Zero half a second, and a simulated unit never needs it. Nor GLib, ever."""
    source = """
import sys, piod.serve
from piod.dbus import SystemBus, load_library
SystemBus()
assert "dbus_next" not in sys.modules
load_library()
assert "dbus_next" in sys.modules
assert "gi" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", source], timeout=30, check=True)
