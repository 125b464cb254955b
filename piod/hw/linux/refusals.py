"""What the kernel answers, as piod's refusals."""

from __future__ import annotations

import errno

from piod.errors import BusError, DeviceMissing

GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})
"""The device is not there (any more): it is looked for anew."""


def bus_error(what: str, error: OSError) -> BusError:
    """``what`` (a sentence without its end) and the reason, as DeviceMissing if it is gone."""
    kind = DeviceMissing if error.errno in GONE else BusError
    return kind(f"{what}: {error.strerror or error}.", cause=str(error))
