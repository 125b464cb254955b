"""turbidostat: keeps the density of the culture at ``target_biomass``.

It looks at each new reading of its signal, and exchanges a volume when that is at the target
or above. After an exchange it lets the culture settle for ``settle_seconds`` before it looks
again: a dose that is not mixed in, or its bubbles, is no density.
"""

from __future__ import annotations

from collections.abc import Mapping

from piod.events import JsonValue
from piod.jobs.dosing.signals import AUTO, NoSignal, Signal, biomass_signal, check_biomass_signal
from piod.jobs.dosing_automation import MAX_ML, DosingAutomation
from piod.jobs.job import Option, Options, OptionValue, Setting, Unit

SECTION = "dosing_automation.turbidostat"
SETTLE_S = 30.0


class Turbidostat(DosingAutomation):
    """See the module."""

    automation_name = "turbidostat"
    help = "Dilute the culture whenever it is denser than a target."
    pumps = ("media", "waste")
    periodic = False
    options = (
        Option("exchange_volume_ml", "float", "mL", required=True, minimum=0, maximum=MAX_ML),
        Option("target_biomass", "float", "OD", required=True, minimum=0),
    )
    settings = (
        Setting("exchange_volume_ml", "float", settable=True, unit="mL", minimum=0, maximum=MAX_ML),
        Setting("target_biomass", "float", settable=True, unit="OD", minimum=0),
        Setting("biomass_signal", "string", settable=True),
        Setting("settle_seconds", "float", settable=True, unit="s", minimum=0, maximum=3600),
        Setting("resolved_biomass_signal", "string"),
    )

    def __init__(self, unit: Unit, options: Options) -> None:
        super().__init__(unit, {**_configured(unit), **options})
        self._signal: Signal | None = None
        self._settled_s = 0.0
        """When the last exchange has settled, on the clock's monotonic scale."""

    @classmethod
    async def refuse(cls, unit: Unit, options: Options) -> None:
        await super().refuse(unit, options)
        check_biomass_signal({**_configured(unit), **options}["biomass_signal"])

    def check(self, changes: Mapping[str, JsonValue]) -> None:
        super().check(changes)
        if "biomass_signal" in changes:
            check_biomass_signal(changes["biomass_signal"])

    def apply(self, setting: str, value: JsonValue) -> None:
        super().apply(setting, value)
        if setting == "biomass_signal":
            self._signal = None
            self.signals.look_again()

    async def repeat(self) -> None:
        while True:
            await self.clock.sleep(max(0.0, self._settled_s - self.clock.monotonic()))
            signal = await self._resolve()
            try:
                await self.signals.next(signal, lambda: self._signal is signal)  # noqa: B023
            except NoSignal as missing:
                self.wait_for_signal(missing)
                continue
            if self._signal is signal:
                await self.attempt()

    async def execute(self) -> None:
        signal = await self._resolve()
        latest = self.signals.latest(signal)
        target = self.number("target_biomass")
        volume_ml = self.number("exchange_volume_ml")
        about: dict[str, JsonValue] = {
            "latest_biomass": latest,
            "target_biomass": target,
            "resolved_biomass_signal": signal.name,
        }
        if latest < target or volume_ml == 0:
            self.tell("NoEvent", f"{signal.name} {latest:.3f} is below {target:g}", about)
            return
        try:
            moved = await self.exchange(media_ml=volume_ml, waste_ml=volume_ml)
        finally:
            self._settled_s = self.clock.monotonic() + self.number("settle_seconds")
        self.tell(
            "DilutionEvent",
            f"{signal.name} {latest:.3f} is at {target:g} or above: "
            f"exchanged {moved.media_ml:.2f} mL",
            {
                **about,
                "exchange_volume_ml": volume_ml,
                "volume_actually_moved_ml": round(moved.media_ml, 4),
            },
        )

    async def _resolve(self) -> Signal:
        if self._signal is None:
            self._signal = await biomass_signal(self.unit, self.text("biomass_signal"))
            self._publish_setting("resolved_biomass_signal", self._signal.name)
        return self._signal


def _configured(unit: Unit) -> dict[str, OptionValue]:
    """What a run without these options goes by."""
    return {
        "biomass_signal": unit.config.text(SECTION, "biomass_signal", AUTO),
        "settle_seconds": unit.config.number(SECTION, "settle_seconds", SETTLE_S),
    }
