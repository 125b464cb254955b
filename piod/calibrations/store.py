"""The calibration and estimator files of a unit, and which of them are active.

Files lie where upstream keeps them: ``<data directory>/storage/calibrations/
<device>/<calibration_name>.yaml``, estimators likewise below
``storage/estimators``. Which one is active for a device is a pointer kept
elsewhere, behind :class:`Pointers`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from piod.calibrations.devices import check_fits
from piod.calibrations.estimators import FusedEstimator, parse_estimator
from piod.calibrations.fields import InvalidRecord
from piod.calibrations.names import MAX_NAME_BYTES, check_name
from piod.calibrations.records import Calibration, parse_calibration
from piod.errors import BadRequest, Conflict, NotFound, PiodError, StorageFailed
from piod.storage.files import make_folder, remove_file, remove_temporary_files, write_file

logger = logging.getLogger(__name__)

R = TypeVar("R")

SUFFIX = ".yaml"
MAX_FILE_BYTES = 2 * 1024 * 1024
"""Larger files are not read; an upload of half that size is refused already."""


def fingerprint(content: bytes) -> str:
    """By which the content of a file is known again."""
    return hashlib.sha256(content).hexdigest()


class Pointers(Protocol):
    """Where the active pointers are kept: for a kind of artifact, one name per device."""

    async def get(self, kind: str, device: str) -> str | None:
        """The name that is active; None when there is none."""
        ...

    async def all(self, kind: str) -> Mapping[str, str]:
        """The active names, by device."""
        ...

    async def set(self, kind: str, device: str, name: str) -> None:
        """Make ``name`` the active one."""
        ...

    async def remove(self, kind: str, device: str) -> None:
        """Make none the active one."""
        ...


class ArtifactStore(ABC, Generic[R]):
    """The artifacts of one kind below ``directory``.

    Files are read and written in threads, inside ``hold()``: simulated time
    stands still meanwhile (:meth:`piod.clock.Clock.hold`). Changes are durable
    when they return, and happen one after another.
    """

    kind: ClassVar[str]
    """``calibration`` or ``estimator``: the kind of pointer, and its name in messages."""

    def __init__(
        self,
        directory: Path,
        pointers: Pointers,
        hold: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.directory = directory
        self.pointers = pointers
        self.hold = hold
        self.changes = 0
        """How often a file has been written or deleted here."""
        self._changing = asyncio.Lock()

    @abstractmethod
    def parse(self, text: str) -> R:
        """The record that ``text`` (YAML) describes. Raises InvalidRecord."""

    @abstractmethod
    def name_of(self, record: R) -> str:
        """The name that stands in ``record``."""

    def check_fits(self, record: R, device: str) -> None:
        """BadRequest when ``record`` is not one for ``device``."""

    def path_of(self, device: str, name: str) -> Path:
        """Where the artifact is or would be. BadRequest when either is not a name."""
        check_name(device, "device")
        field = f"{self.kind}_name"
        check_name(name, field)
        if len(name) + len(SUFFIX) > MAX_NAME_BYTES:
            raise BadRequest(
                f"{field} must not be longer than {MAX_NAME_BYTES - len(SUFFIX)} bytes"
            )
        return self.directory / device / f"{name}{SUFFIX}"

    async def prepare(self) -> None:
        """Make the directory, as upstream's images ship it, and clear it of what a killed write
        left. To be called at the start; what goes wrong is logged."""
        with self.hold():
            try:
                await asyncio.to_thread(make_folder, self.directory)
                await asyncio.to_thread(remove_temporary_files, self.directory)
            except (PiodError, OSError) as error:
                logger.error("The folder of %ss is not as it should be: %s", self.kind, error)

    async def exists(self) -> bool:
        """Whether the directory is there."""
        with self.hold():
            return await asyncio.to_thread(self.directory.is_dir)

    async def read(self, device: str, name: str) -> R:
        """The artifact of that name.

        Raises NotFound, InvalidRecord with what is wrong where, or StorageFailed.
        """
        path = self.path_of(device, name)
        with self.hold():
            return await asyncio.to_thread(self.read_file, path)

    def read_file(self, path: Path) -> R:
        """The same for the file itself; blocks."""
        what = f"{self.kind} {path.stem!r} of {path.parent.name}"
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise StorageFailed(f"{what} cannot be read: it is not a file")
            if status.st_size > MAX_FILE_BYTES:
                raise InvalidRecord(f"the file is larger than {MAX_FILE_BYTES} bytes")
            return self.parse(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no {what}") from None
        except OSError as error:
            raise StorageFailed(f"{what} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InvalidRecord(f"{what} is not UTF-8 text") from error
        except InvalidRecord as error:
            raise InvalidRecord(f"{what} cannot be used: {error.message}") from error

    async def active(self, device: str) -> R | None:
        """The active artifact of ``device``; None when there is none.

        A pointer to a file that is missing or cannot be used counts as none,
        with a warning in the log.
        """
        check_name(device, "device")
        name = await self.pointers.get(self.kind, device)
        if name is None:
            return None
        try:
            return await self.read(device, name)
        except PiodError as error:
            logger.warning("The active %s of %s is not used: %s", self.kind, device, error.message)
            return None

    # -- changes --------------------------------------------------------------------

    async def add(
        self,
        device: str,
        text: str,
        *,
        set_as_active: bool = False,
        may_replace: Callable[[str], bool] | None = None,
    ) -> Path:
        """Keep ``text``, as it is, under the name that stands in it; where it is now.

        One of that name is replaced, unless ``may_replace``, told the :func:`fingerprint` of
        its file in a thread, says no (Conflict). With ``set_as_active`` it becomes the
        active one of ``device`` once it is on disk. Raises InvalidRecord and
        BadRequest before anything changes, StorageFull or StorageFailed.
        """
        async with self._changing:
            with self.hold(), self._change():
                path = await asyncio.to_thread(self._checked_and_written, device, text, may_replace)
            if set_as_active:
                await self.pointers.set(self.kind, device, path.stem)
        return path

    async def delete(self, device: str, name: str) -> None:
        """Delete the file, and the pointer if this was the active one.

        Raises NotFound or StorageFailed.
        """
        path = self.path_of(device, name)
        async with self._changing:
            with self.hold(), self._change():
                existed = await asyncio.to_thread(remove_file, path)
            if not existed:
                raise NotFound(f"there is no {self.kind} {name!r} of {device}")
            if await self.pointers.get(self.kind, device) == name:
                await self.pointers.remove(self.kind, device)

    async def activate(self, device: str, name: str) -> None:
        """Make ``name`` the active one of ``device``.

        Raises what :meth:`read` raises, when there is none or it cannot be used.
        """
        async with self._changing:
            await self.read(device, name)
            await self.pointers.set(self.kind, device, name)

    async def deactivate(self, device: str) -> None:
        """Make none the active one of ``device``; nothing happens when there is none."""
        check_name(device, "device")
        async with self._changing:
            await self.pointers.remove(self.kind, device)

    @contextmanager
    def _change(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.changes += 1

    def fingerprint_of(self, device: str, name: str) -> str | None:
        """The :func:`fingerprint` of the artifact of that name, None when there is none; blocks.

        Of what is there and cannot be read it is empty: nobody's.
        """
        path = self.path_of(device, name)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
                return ""
            return fingerprint(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return ""

    def _checked_and_written(
        self, device: str, text: str, may_replace: Callable[[str], bool] | None
    ) -> Path:
        size = len(text.encode())
        if size > MAX_FILE_BYTES:  # it could not be read again
            raise InvalidRecord(f"the {self.kind} has {size} bytes; {MAX_FILE_BYTES} are allowed")
        record = self.parse(text)
        name = self.name_of(record)
        check_name(name, f"{self.kind}_name")
        path = self.path_of(device, name)
        self.check_fits(record, device)
        there = None if may_replace is None else self.fingerprint_of(device, name)
        if may_replace is not None and there is not None and not may_replace(there):
            raise Conflict(
                f"there is another {self.kind} {name!r} of {device} already",
                remediation="Delete or rename that one, then do this again.",
            )
        write_file(path, text)
        return path


class CalibrationStore(ArtifactStore[Calibration]):
    """The calibrations; ``directory`` is ``…/storage/calibrations``."""

    kind = "calibration"

    def parse(self, text: str) -> Calibration:
        return parse_calibration(text)

    def name_of(self, record: Calibration) -> str:
        return record.calibration_name

    def check_fits(self, record: Calibration, device: str) -> None:
        check_fits(record, device)

    async def active_calibration(self, device: str) -> Calibration | None:
        """The same as :meth:`active`."""
        return await self.active(device)


class EstimatorStore(ArtifactStore[FusedEstimator]):
    """The estimators; ``directory`` is ``…/storage/estimators``."""

    kind = "estimator"

    def parse(self, text: str) -> FusedEstimator:
        return parse_estimator(text)

    def name_of(self, record: FusedEstimator) -> str:
        return record.estimator_name
