"""What a calibration session asks of the hardware.

One module a measurement, each with a request, a result and
``async def run(unit, request, progress) -> result``:

* :mod:`.pump_run`: a pump for so many seconds;
* :mod:`.stirring_sweep`: the stirrer's speed over a range of duty cycles;
* :mod:`.od_standards`: what the photodiodes see of one standard;
* :mod:`.od_fusion`: the same at several speeds, by angle, for the fused OD;
* :mod:`.aux_voltage`: the voltage that pumps and stirrer run at.

Requests and results are frozen and hold what JSON can hold. A run leases what it drives for
itself and gives it back: at its end, whatever ends it, its outputs are off. A refusal
(PiodError) leaves nothing behind, so the same request can be tried again. ``progress`` is
told the done part of the work, from 0 to 1.

The recipes are those of handbook unit-api §4.4 to 4.8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from piod.events import JsonValue

Progress: TypeAlias = Callable[[float], None]
"""Called with the part of the work that is done, 0 to 1, never less than before."""


def unpublished(setting: str, value: JsonValue) -> None:
    """What a part of a measurement would publish is nobody's setting."""
