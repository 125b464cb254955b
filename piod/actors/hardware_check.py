"""Whether the hardware that a reactor model needs is there: its chips answer on the I2C bus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from piod.actors.actor import Ref
from piod.actors.buses.i2c import I2cBus, Probe
from piod.actors.model import ModelKey
from piod.errors import ConfigurationError, PiodError
from piod.events import JsonValue
from piod.hw.wiring import Wiring, load_wiring

PROBE_TIMEOUT_S = 5.0


class HardwareCheck:
    """Checks the unit with the HAT ``hat_version``, by the files below ``hardware_dir``.

    ``hold`` is :meth:`piod.clock.Clock.hold`.
    """

    def __init__(
        self,
        i2c: Ref[I2cBus],
        hardware_dir: Path,
        hat_version: str,
        hold: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._i2c = i2c
        self._hardware_dir = hardware_dir
        self._hat_version = hat_version
        self._hold = hold

    async def check(self, model: ModelKey) -> JsonValue:
        """``{"status": "ok" | "warning" | "skipped", "reason": …}`` for ``model``.

        A warning names the I2C addresses that do not answer, or says why HAT and
        model do not fit. Checked are the ADCs and the temperature sensor.
        """
        title = f"{model[0]} {model[1]} on HAT {self._hat_version}"
        if not self._hat_version.startswith("1."):
            return _result("skipped", f"{title}: only HATs of version 1.x can be checked")
        try:
            with self._hold():
                wiring = await asyncio.to_thread(
                    load_wiring, self._hardware_dir, self._hat_version, model
                )
        except ConfigurationError as error:
            return _result("warning", error.message)
        if not wiring.adc:
            return _result("skipped", f"{title}: no ADC is configured")
        chips = _chips(wiring)
        try:
            answers = {
                address: await self._i2c.ask(Probe(address), timeout=PROBE_TIMEOUT_S)
                for address in sorted(chips)
            }
        except PiodError as refusal:
            return _result("warning", f"{title}: {refusal.message}")
        missing = [
            f"0x{address:02X} ({chips[address]})" for address, there in answers.items() if not there
        ]
        if missing:
            return _result("warning", f"{title}: no answer from {', '.join(missing)}")
        answered = ", ".join(f"0x{address:02X}" for address in answers)
        return _result("ok", f"{title}: every chip answers ({answered})")


def _chips(wiring: Wiring) -> dict[int, str]:
    """What each I2C address is for, by address."""
    uses: dict[int, list[str]] = {wiring.temp_address: ["temperature sensor"]}
    for signal, entry in wiring.adc.items():
        uses.setdefault(entry.address, []).append(signal)
    return {address: ", ".join(names) for address, names in uses.items()}


def _result(status: str, reason: str) -> JsonValue:
    return {"status": status, "reason": reason}
