"""Log records in the journal, by its native protocol (piod.journal)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from piod.actors.hub import Hub
from piod.clock import SimulatedClock
from piod.events import JobIdentity
from piod.jobs.job import Job, Options
from piod.jobs.job import Unit as Parts
from piod.jobs.registry import JOBS
from piod.journal import MAX_MESSAGE_BYTES, JournalHandler
from piod.logs import HubHandler
from tests.unit import running_unit

log = logging.getLogger("piod.a.test")


class Lines(logging.Handler):
    """What went elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class Journal:
    """journald's end of the socket, and a handler that sends to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self._entries: list[dict[str, str]] = []
        self.lines = Lines()
        self.handler = JournalHandler("pio01", self.lines, str(path))

    def entries(self) -> list[dict[str, str]]:
        """Those since the last call."""
        self.read()
        found, self._entries = self._entries, []
        return found

    def read(self) -> None:
        while True:
            try:
                self._entries.append(fields(self.socket.recv(1_000_000)))
            except BlockingIOError:
                return

    def vanish(self) -> None:
        self.socket.close()
        self._path.unlink(missing_ok=True)


def fields(entry: bytes) -> dict[str, str]:
    """The fields of an entry, as journald reads them."""
    found: dict[str, str] = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(entry[:8], "little")
            value, end, entry = entry[8 : 8 + size], entry[8 + size : 9 + size], entry[9 + size :]
            assert end == b"\n"
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path / "journal")
    root = logging.getLogger("piod")
    level = root.level
    root.addHandler(one.handler)
    root.setLevel(logging.INFO)
    yield one
    root.setLevel(level)
    root.removeHandler(one.handler)
    one.handler.close()
    one.vanish()


def test_an_entry_says_what_how_bad_and_where(journal: Journal) -> None:
    log.warning("the vial is %s", "full")
    (entry,) = journal.entries()
    assert entry.pop("CODE_LINE").isdecimal()
    assert entry == {
        "MESSAGE": "a.test: the vial is full",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "piod",
        "PIOD_UNIT": "pio01",
        "LOGGER": "piod.a.test",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_an_entry_says_what_how_bad_and_where",
    }


def test_an_entry_about_a_job_names_it_whatever_its_experiment_is_called(journal: Journal) -> None:
    experiment = "Über\nPRIORITY=0"
    log.error("it stalls", extra={"job": JobIdentity("pio01", experiment, "stirring", "7")})
    (entry,) = journal.entries()
    assert entry["MESSAGE"] == "stirring/7: it stalls"
    assert entry["PIOD_JOB_NAME"] == "stirring"
    assert entry["PIOD_JOB_ID"] == "7"
    assert entry["PIOD_EXPERIMENT"] == experiment
    assert entry["PRIORITY"] == "3"


def test_a_traceback_is_part_of_the_message(journal: Journal) -> None:
    try:
        raise ValueError("no such pin")
    except ValueError:
        log.exception("a job crashed")
    (entry,) = journal.entries()
    assert entry["MESSAGE"].startswith("a.test: a job crashed\nTraceback")
    assert entry["MESSAGE"].endswith("ValueError: no such pin")


def test_a_huge_message_is_cut_off_with_a_note(journal: Journal) -> None:
    log.info("ä" * MAX_MESSAGE_BYTES)
    (entry,) = journal.entries()
    about = "a.test: "
    assert entry["MESSAGE"].startswith(about + "ä" * ((MAX_MESSAGE_BYTES - len(about)) // 2))
    beyond = MAX_MESSAGE_BYTES + len(about)
    assert entry["MESSAGE"].endswith(f" … ({beyond} bytes more were cut off)")


def test_a_busy_journal_is_not_waited_for_and_the_loss_is_told(journal: Journal) -> None:
    for number in range(1000):
        log.info("entry %d", number)
    taken = journal.entries()
    assert 0 < len(taken) < 1000
    log.info("afterwards")
    lost, after = journal.entries()
    assert lost["MESSAGE"].startswith(f"{1000 - len(taken)} entries of this log were lost")
    assert after["MESSAGE"] == "a.test: afterwards"


def test_without_a_journal_records_go_elsewhere(journal: Journal, tmp_path: Path) -> None:
    journal.vanish()
    log.info("to stderr")
    assert journal.lines.messages == ["to stderr"]
    with pytest.raises(OSError, match="nowhere"):
        JournalHandler("pio01", journal.lines, str(tmp_path / "nowhere"))


class Unspeakable:
    """Has no number, and no text either."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    def __repr__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("arguments", [("x",), (1, 2), (Unspeakable(),)])
def test_a_log_call_that_is_wrong_is_told_on_stderr_and_its_caller_goes_on(
    journal: Journal, capsys: pytest.CaptureFixture[str], arguments: tuple[object, ...]
) -> None:
    published: list[object] = []
    hub_handler = HubHandler(Hub(), published.append)
    # apart from the root logger: there pytest fails a test for such a call
    apart = logging.Logger("piod.apart")
    apart.addHandler(journal.handler)
    apart.addHandler(hub_handler)
    apart.warning("the duty is %d", *arguments)
    told = capsys.readouterr().err
    assert told.count("--- Logging error ---") == 2
    assert "the duty is %d" in told
    assert journal.entries() == []
    assert published == []

    apart.warning("the duty is %d", 40)
    (entry,) = journal.entries()
    assert entry["MESSAGE"] == "apart: the duty is 40"
    assert len(published) == 1


class Talkative(Job):
    """Logs by other loggers than its own, then crashes."""

    job_name = "talkative"

    @classmethod
    async def create(cls, unit: Parts, options: Options) -> Job:
        return cls()

    async def run(self) -> None:
        async def child() -> None:
            log.info("from a child")

        await asyncio.create_task(child())
        raise ValueError("a bug")


async def test_whatever_is_logged_in_the_tasks_of_a_job_names_the_job(
    tmp_path: Path, clock: SimulatedClock, journal: Journal
) -> None:
    async with running_unit(tmp_path, clock, kinds={**JOBS, "talkative": Talkative}) as unit:
        asyncio.get_running_loop().add_reader(journal.socket, journal.read)
        job_id = await unit.run("talkative", env={"EXPERIMENT": "Exp7"})
        await clock.sleep(60)
        asyncio.get_running_loop().remove_reader(journal.socket)
    entries = journal.entries()
    for words in ("Ready.", "from a child", "crashed", "has ended"):
        about = [entry for entry in entries if words in entry["MESSAGE"]]
        assert about, words
        for entry in about:
            assert entry.get("PIOD_JOB_ID") == job_id, entry
            assert entry["PIOD_JOB_NAME"] == "talkative"
            assert entry["PIOD_EXPERIMENT"] == "Exp7"
    others = [entry for entry in entries if entry["LOGGER"] == "piod.buses.pwm"]
    assert others
    assert not any("PIOD_JOB_ID" in entry for entry in others)
