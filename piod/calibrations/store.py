"""The calibration files of a unit, and which of them is active.

Files lie where upstream keeps them: ``<data directory>/storage/calibrations/
<device>/<calibration_name>.yaml``. Which one is active for a device is a
pointer kept elsewhere, behind :class:`Pointers`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from piod.calibrations.names import MAX_NAME_BYTES, check_name
from piod.calibrations.records import Calibration, InvalidRecord, parse_calibration
from piod.errors import BadRequest, NotFound, PiodError, StorageFailed

logger = logging.getLogger(__name__)

CALIBRATION = "calibration"
"""The kind of pointer that names the active calibration of a device."""

_SUFFIX = ".yaml"


class Pointers(Protocol):
    """Where the active pointers are kept: for a kind of artifact, one name per device."""

    async def get(self, kind: str, device: str) -> str | None:
        """The name that is active; None when there is none."""
        ...


class CalibrationStore:
    """Reads the calibrations below ``directory`` (``…/storage/calibrations``).

    ``pointers`` tells which one is active. Files are read in a thread, inside
    ``hold()``: simulated time stands still meanwhile (:meth:`piod.clock.Clock.hold`).
    """

    def __init__(
        self,
        directory: Path,
        pointers: Pointers,
        hold: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._directory = directory
        self._pointers = pointers
        self._hold = hold

    def path_of(self, device: str, name: str) -> Path:
        """Where the calibration is or would be. BadRequest when either is not a name."""
        check_name(device, "device")
        check_name(name, "calibration_name")
        if len(name) + len(_SUFFIX) > MAX_NAME_BYTES:
            raise BadRequest(
                f"calibration_name must not be longer than {MAX_NAME_BYTES - len(_SUFFIX)} bytes"
            )
        return self._directory / device / f"{name}{_SUFFIX}"

    async def read(self, device: str, name: str) -> Calibration:
        """The calibration of that name.

        Raises NotFound, InvalidRecord with what is wrong where, or StorageFailed.
        """
        path = self.path_of(device, name)
        with self._hold():
            return await asyncio.to_thread(_read, path, f"calibration {name!r} of {device}")

    async def active_calibration(self, device: str) -> Calibration | None:
        """The active calibration of ``device``; None when there is none.

        A pointer to a file that is missing or cannot be used counts as none,
        with a warning in the log.
        """
        check_name(device, "device")
        name = await self._pointers.get(CALIBRATION, device)
        if name is None:
            return None
        try:
            return await self.read(device, name)
        except PiodError as error:
            logger.warning("The active calibration of %s is not used: %s", device, error.message)
            return None


def _read(path: Path, what: str) -> Calibration:
    try:
        return parse_calibration(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"there is no {what}") from None
    except OSError as error:
        raise StorageFailed(f"{what} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"{what} is not UTF-8 text") from error
    except InvalidRecord as error:
        raise InvalidRecord(f"{what} cannot be used: {error.message}") from error
