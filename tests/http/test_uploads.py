"""How an archive comes in: slow senders, several of them, and a disk that fills up."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import pytest

from piod.http import archives, upload
from piod.storage import imports
from tests.trees import NEW, OLD, fingerprint, write_tree, zip_of
from tests.unit import Unit

IMPORT = "/unit_api/import_zipped_dot_pioreactor"
HEADERS = {"Content-Type": "multipart/form-data; boundary=x"}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="archive"; filename="a.zip"\r\n\r\n'
    + zip_of(NEW)
    + b"\r\n--x--\r\n"
)

Answer = tuple[int, Any]


async def send(unit: Unit, body: bytes | AsyncIterator[bytes]) -> Answer:
    async with unit.client.post(IMPORT, data=body, headers=HEADERS) as answer:
        return answer.status, await answer.json()


async def imported(unit: Unit) -> bool:
    """A whole import, and whether it went well."""
    status, accepted = await send(unit, FORM)
    assert status == 202, accepted
    assert "lock" not in accepted
    return bool((await unit.task(accepted))["status"] == "complete")


def assert_refusal(answer: Answer, status: int, *words: str) -> None:
    got, body = answer
    assert got == status, body
    assert body["error_info"]["status"] == status
    for word in words:
        assert word in str(body)


class Sender:
    """Sends the beginning of an archive, then nothing until it is let go on."""

    def __init__(self, unit: Unit) -> None:
        self._begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.answer = asyncio.create_task(send(unit, self._body()))

    async def _body(self) -> AsyncIterator[bytes]:
        yield FORM[:200]
        self._begun.set()
        await self.go_on.wait()
        yield FORM[200:]

    async def begun(self) -> None:
        await self._begun.wait()
        await asyncio.sleep(0.05)  # until the unit has it


async def test_a_sender_that_stalls_keeps_nobody_else_from_importing(unit: Unit) -> None:
    slow = Sender(unit)
    await slow.begun()
    assert await imported(unit)
    slow.go_on.set()
    status, accepted = await slow.answer
    assert status == 202
    assert (await unit.task(accepted))["status"] == "complete"


async def test_so_many_come_in_at_a_time_and_no_more(unit: Unit) -> None:
    senders = [Sender(unit) for _ in range(archives.MAX_UPLOADS)]
    for sender in senders:
        await sender.begun()
    assert_refusal(await send(unit, FORM), 429, "2 archives")
    for sender in senders:
        sender.go_on.set()
    for accepted in [(await sender.answer)[1] for sender in senders]:
        await unit.task(accepted)
    assert await imported(unit)


async def test_a_reboot_does_not_wait_for_somebody_who_uploads(unit: Unit) -> None:
    slow = Sender(unit)
    await slow.begun()
    assert (await unit.post("/unit_api/system/reboot"))["status"] == "complete"
    slow.go_on.set()
    assert (await slow.answer)[0] == 202


async def test_a_sender_that_drips_is_given_up(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(upload, "SLOWEST_BYTES_PER_S", 10_000)

    async def drip() -> AsyncIterator[bytes]:
        yield FORM[:150]
        for n in range(150, len(FORM)):  # takes 9 s and more
            yield FORM[n : n + 1]
            await asyncio.sleep(0.02)

    assert_refusal(await asyncio.wait_for(send(unit, drip()), 5), 400, "in time")
    assert await imported(unit)


async def test_while_one_is_put_in_place_another_is_told_so_before_it_is_sent(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    unpack = imports.unpack

    def slowly(*arguments: Any) -> Generator[None, None, None]:
        while not may_end.wait(0.01):
            yield
        yield from unpack(*arguments)

    monkeypatch.setattr(imports, "unpack", slowly)
    _, first = await send(unit, FORM)
    sender = Sender(unit)
    try:
        status, busy = await asyncio.wait_for(sender.answer, 5)
    finally:
        may_end.set()
    assert status == 202
    assert busy["task_id"] == first["task_id"]
    assert busy["lock"] == "import-dot-pioreactor-lock"
    assert (await unit.task(first))["status"] == "complete"


# -- the disk ------------------------------------------------------------------------


def nameless_files(unit: Unit) -> list[str]:
    """Open files of this process, in the data directory, that have no name."""
    links = []
    for number in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue  # that of the listing itself
    return [link for link in links if str(unit.data_dir) in link and "(deleted)" in link]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``disk(free, …)``: what is free beyond the reserve, each time somebody looks."""

    def hold(*free_bytes: int) -> None:
        told = iter(free_bytes)
        reserve = upload.RESERVE_BYTES
        monkeypatch.setattr(upload, "_free_bytes", lambda folder: reserve + next(told))

    return hold


async def test_an_archive_for_which_there_is_no_room_is_507_before_it_is_sent(
    unit: Unit, disk: Callable[..., None]
) -> None:
    disk(1_000_000)
    reader, writer = await asyncio.open_connection(unit.client.host, unit.client.port)
    head = f"POST {IMPORT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n"
    writer.write(f"{head}Content-Type: {HEADERS['Content-Type']}\r\n\r\n".encode())
    try:
        answer = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
    finally:
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 507 ")
    assert b"no room for the archive" in answer
    assert nameless_files(unit) == []


async def test_a_disk_that_fills_up_while_an_archive_comes_in_is_507_and_nothing_is_left(
    unit: Unit, disk: Callable[..., None]
) -> None:
    write_tree(unit.data_dir, OLD)
    before = fingerprint(unit.data_dir)
    disk(10**9, 10**9, 1000)
    large = os.urandom(3 * upload.BATCH_BYTES)

    async def body() -> AsyncIterator[bytes]:
        yield FORM[:150]
        yield large

    assert_refusal(await send(unit, body()), 507, "no room", "Free space")
    assert fingerprint(unit.data_dir) == before
    assert nameless_files(unit) == []
    disk(*[10**9] * 2)
    assert await imported(unit)
    assert nameless_files(unit) == []


async def test_the_disk_that_is_looked_at_is_that_of_the_data_directory(
    unit: Unit, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = os.statvfs(unit.data_dir)
    monkeypatch.setattr(upload, "RESERVE_BYTES", disk.f_blocks * disk.f_frsize)
    assert_refusal(await send(unit, FORM), 507, "bytes are free")
