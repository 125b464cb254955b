"""Log records as entries of systemd's journal, with fields to filter by.

Native protocol of systemd-journald: one datagram of fields for each record; a
value with a line break goes with its length. Every entry has MESSAGE (what it is about
first, the traceback within it), PRIORITY, SYSLOG_IDENTIFIER, PIOD_UNIT, LOGGER, CODE_FILE,
CODE_LINE and CODE_FUNC; one about a job has PIOD_JOB_NAME, PIOD_JOB_ID and
PIOD_EXPERIMENT, too::

    journalctl -u piod PIOD_EXPERIMENT=Exp7
"""

from __future__ import annotations

import logging
import os
import socket
import sys

from piod.actors.job import job_of

JOURNAL_SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "piod"
MAX_MESSAGE_BYTES = 180_000
"""More than that does not fit into a datagram; what is beyond is cut off."""

NOTICE = 25
PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    NOTICE: 5,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
"""Of syslog, by level."""


def about(record: logging.LogRecord) -> str:
    """Which job, bus or part a record is about."""
    job = job_of(record)
    if job is not None:
        return f"{job.job_name}/{job.job_id}"
    return record.name.removeprefix("piod.").removeprefix("actors.").removeprefix("buses.")


def stderr_is_journal() -> bool:
    """Whether systemd has connected stderr with its journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        stream = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False  # closed, or not a file
    return os.environ.get("JOURNAL_STREAM") == f"{stream.st_dev}:{stream.st_ino}"


class JournalHandler(logging.Handler):
    """Sends records to the journal's socket at ``path``; ``unit_name`` goes into each.

    It never waits: what the journal does not take is counted, and told with the next
    entry. Where no journal listens, ``otherwise`` gets the record. Raises OSError
    when there is none to begin with.
    """

    def __init__(
        self, unit_name: str, otherwise: logging.Handler, path: str = JOURNAL_SOCKET
    ) -> None:
        super().__init__()
        os.stat(path)
        self._path = path
        self._unit_name = unit_name
        self._otherwise = otherwise
        self._missed = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE_BYTES)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self._missed:
                missed = f"{self._missed} entries of this log were lost: the journal was busy"
                self._send({"MESSAGE": missed, "PRIORITY": "4"})
                self._missed = 0
            self._send(_fields(record))
        except BlockingIOError:
            self._missed += 1
        except OSError:
            self._otherwise.handle(record)
        except Exception:  # logging's contract: a wrong log call must not fail its caller
            self.handleError(record)

    def close(self) -> None:
        """Send nothing more."""
        self._socket.close()
        super().close()

    def _send(self, fields: dict[str, str]) -> None:
        fields |= {"SYSLOG_IDENTIFIER": IDENTIFIER, "PIOD_UNIT": self._unit_name}
        entry = b"".join(_encoded(name, value) for name, value in fields.items())
        self._socket.sendto(entry, self._path)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    message = f"{about(record)}: {record.getMessage()}"
    if record.exc_info:
        message += "\n" + logging.Formatter().formatException(record.exc_info)
    fields = {
        "MESSAGE": message,
        "PRIORITY": str(PRIORITIES.get(record.levelno, 6)),
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName,
    }
    job = job_of(record)
    if job is not None:
        fields |= {
            "PIOD_JOB_NAME": job.job_name,
            "PIOD_JOB_ID": job.job_id,
            "PIOD_EXPERIMENT": job.experiment,
        }
    return fields


def _encoded(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "backslashreplace")
    if len(data) > MAX_MESSAGE_BYTES:
        note = f" … ({len(data) - MAX_MESSAGE_BYTES} bytes more were cut off)"
        data = data[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore").encode() + note.encode()
    if b"\n" in data:
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"
