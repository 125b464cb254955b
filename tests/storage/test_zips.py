"""Archives made while they are sent."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from piod.clock import SimulatedClock
from piod.storage.zips import CHUNK_BYTES, ZipEntry, ZipStream


class Reader:
    """Takes an archive."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    async def write(self, chunk: bytes) -> None:
        assert chunk
        self.chunks.append(chunk)

    @property
    def archive(self) -> ZipFile:
        archive = ZipFile(io.BytesIO(b"".join(self.chunks)))
        assert archive.testzip() is None
        return archive


async def test_files_bytes_and_folders_arrive_in_their_order(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("hello " * 1000)
    file.chmod(0o640)
    os.utime(file, (1_700_000_000, 1_700_000_000))
    reader = Reader()
    entries = [
        ZipEntry("d/"),
        ZipEntry("d/ä.txt", file),
        ZipEntry("b", b"bytes"),
        ZipEntry("c", b""),
    ]
    await ZipStream(entries, clock.hold).send(reader.write)
    archive = reader.archive
    assert archive.namelist() == ["d/", "d/ä.txt", "b", "c"]
    assert archive.read("d/ä.txt") == b"hello " * 1000
    assert archive.read("b") == b"bytes"
    folder, info, _, _ = archive.infolist()
    assert folder.is_dir()
    assert info.external_attr >> 16 & 0o777 == 0o640
    assert info.date_time[0] == 2023
    assert info.compress_size < 200


async def test_no_entries_make_an_empty_archive(clock: SimulatedClock) -> None:
    reader = Reader()
    await ZipStream([], clock.hold).send(reader.write)
    assert reader.archive.namelist() == []


async def test_what_cannot_be_taken_is_left_out_and_logged(
    tmp_path: Path, clock: SimulatedClock, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "good").write_bytes(b"good")
    entries = [
        ZipEntry("gone", tmp_path / "gone"),
        ZipEntry("pipe", tmp_path / "pipe"),
        ZipEntry("folder", tmp_path),
        ZipEntry("odd\udcff", tmp_path / "good"),
        ZipEntry("good", tmp_path / "good"),
    ]
    reader = Reader()
    with caplog.at_level(logging.WARNING):
        await ZipStream(entries, clock.hold).send(reader.write)
    assert reader.archive.namelist() == ["good"]
    assert len(caplog.records) == 4


async def test_times_that_zip_cannot_say_are_the_nearest_it_can(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    for name, instant in (("old", 0), ("new", 5_000_000_000)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (instant, instant))
    reader = Reader()
    entries = [ZipEntry(name, tmp_path / name) for name in ("old", "new")]
    await ZipStream(entries, clock.hold).send(reader.write)
    assert [info.date_time[0] for info in reader.archive.infolist()] == [1980, 2107]


async def test_a_file_that_grows_is_taken_as_long_as_it_was(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    log = tmp_path / "log"
    log.write_bytes(os.urandom(4 * CHUNK_BYTES))
    reader = Reader()

    async def write(chunk: bytes) -> None:
        if len(reader.chunks) < 20:
            with log.open("ab") as stream:
                stream.write(os.urandom(2 * CHUNK_BYTES))
        await reader.write(chunk)

    await ZipStream([ZipEntry("log", log)], clock.hold).send(write)
    assert reader.archive.getinfo("log").file_size == 4 * CHUNK_BYTES


async def test_memory_stays_small_however_large_the_files(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    for name in ("noise", "more"):
        (tmp_path / name).write_bytes(os.urandom(8 * 1024 * 1024))
    with (tmp_path / "zeros").open("wb") as sparse:
        sparse.truncate(64 * 1024 * 1024)
    sizes: list[int] = []

    async def drop(chunk: bytes) -> None:
        sizes.append(len(chunk))

    names = ("noise", "zeros", "more")
    tracemalloc.start()
    try:
        entries = (ZipEntry(name, tmp_path / name) for name in names)
        await ZipStream(entries, clock.hold).send(drop)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 16 * 1024 * 1024
    assert max(sizes) < 4 * CHUNK_BYTES
    assert peak < 2 * 1024 * 1024


async def test_nothing_is_read_ahead_of_a_slow_reader(clock: SimulatedClock) -> None:
    taken: list[int] = []

    def entries() -> Iterator[ZipEntry]:
        for number in range(20):
            taken.append(number)
            yield ZipEntry(str(number), os.urandom(2 * CHUNK_BYTES))

    ahead: list[int] = []

    async def write(chunk: bytes) -> None:
        before = len(taken)
        await asyncio.sleep(0.002)
        ahead.append(len(taken) - before)

    await ZipStream(entries(), clock.hold).send(write)
    assert len(taken) == 20
    assert set(ahead) == {0}


async def test_a_reader_that_is_gone_ends_the_work_and_the_entries_clean_up(
    clock: SimulatedClock,
) -> None:
    events: list[str] = []

    def entries() -> Iterator[ZipEntry]:
        try:
            for number in range(1000):
                events.append("entry")
                yield ZipEntry(str(number), os.urandom(2 * CHUNK_BYTES))
        finally:
            events.append("cleaned up")

    async def write(chunk: bytes) -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        await ZipStream(entries(), clock.hold).send(write)
    assert events == ["entry", "cleaned up"]


async def test_cancelling_while_a_thread_works_waits_for_it_and_cleans_up(
    clock: SimulatedClock,
) -> None:
    working, go_on = threading.Event(), threading.Event()
    events: list[str] = []

    def entries() -> Iterator[ZipEntry]:
        try:
            working.set()
            go_on.wait(10)
            events.append("worked")
            yield ZipEntry("a", b"a")
        finally:
            events.append("cleaned up")

    sending = asyncio.create_task(ZipStream(entries(), clock.hold).send(Reader().write))
    await asyncio.to_thread(working.wait, 10)
    sending.cancel()
    await asyncio.sleep(0.01)
    assert not sending.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert events == ["worked", "cleaned up"]


async def test_an_error_of_the_entries_is_told(clock: SimulatedClock) -> None:
    def entries() -> Iterator[ZipEntry]:
        yield ZipEntry("a", b"a")
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        await ZipStream(entries(), clock.hold).send(Reader().write)


async def test_simulated_time_stands_still_while_a_thread_works(
    tmp_path: Path, clock: SimulatedClock
) -> None:
    (tmp_path / "big").write_bytes(os.urandom(64 * CHUNK_BYTES))
    ticking = asyncio.create_task(clock.sleep(0.001))
    await asyncio.sleep(0)
    before = clock.monotonic()

    async def write(chunk: bytes) -> None:
        assert clock.monotonic() == before

    await ZipStream([ZipEntry("big", tmp_path / "big")], clock.hold).send(write)
    ticking.cancel()
