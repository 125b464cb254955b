"""pid_morbidostat: raises the share of alt media, an inhibitor, as the growth allows.

Each ``duration`` it exchanges what keeps the density where it is at the target growth rate,
rate · volume · duration; which part of that is alt media, a PID controller says by how far the
growth rate is above its target. Below 0.7 of the target density it does nothing; above 1.25 of
it, it exchanges 2.5 times as much.

Source: handbook jobs-and-hardware.md §2.6. The volume goes by the settings of now, and the
controller's integral reaches above the target as well as below (upstream: neither).
"""

from __future__ import annotations

from piod.jobs.dosing.signals import GROWTH_RATE, NORMALIZED
from piod.jobs.dosing_automation import DosingAutomation
from piod.jobs.job import Option, Options, Setting, Unit
from piod.jobs.pid import Pid

SECTION = "dosing_automation.pid_morbidostat"
TOO_THIN = 0.7
TOO_DENSE = 1.25
DILUTION_WHEN_DENSE = 2.5


class PidMorbidostat(DosingAutomation):
    """See the module."""

    automation_name = "pid_morbidostat"
    help = "Inhibit the culture as much as keeps its growth rate at a target."
    pumps = ("media", "alt_media", "waste")
    options = (
        Option("target_growth_rate", "float", "1/h", required=True, minimum=0),
        Option("target_normalized_od", "float", "AU", required=True, minimum=0),
    )
    settings = (
        Setting("exchange_volume_ml", "float", unit="mL"),
        Setting("target_normalized_od", "float", settable=True, unit="AU", minimum=0),
        Setting("target_growth_rate", "float", settable=True, unit="1/h", minimum=0),
    )

    def __init__(self, unit: Unit, options: Options) -> None:
        super().__init__(unit, options)
        config = unit.config
        self._minimum_ml = max(0.0, config.number(SECTION, "minimum_dosing_volume_ml", 0.1))
        self._pid = Pid(
            kp=-config.number(SECTION, "Kp", 5.0),
            ki=-config.number(SECTION, "Ki", 0.0),
            kd=-config.number(SECTION, "Kd", 0.0),
            setpoint=self.number("target_growth_rate"),
            low=0.0,
            high=1.0,
        )

    async def execute(self) -> None:
        density = self.signals.latest(NORMALIZED)
        growth_rate = self.signals.latest(GROWTH_RATE)
        target = self.number("target_normalized_od")
        if density <= TOO_THIN * target:
            self.tell("NoEvent", f"normalized OD {density:.2f} is below {TOO_THIN} of its target")
            return
        volumes = await self.volumes()
        hours = self.duration_min / 60
        exchange_ml = round(
            self.number("target_growth_rate") * volumes.efflux_tube_volume_ml * hours, 4
        )
        self._publish_setting("exchange_volume_ml", exchange_ml)
        self._pid.setpoint = self.number("target_growth_rate")
        fraction = self._pid.update(growth_rate, hours)
        self.unit.pid_stepped(
            "growth_rate",
            setpoint=self._pid.setpoint,
            output_limits=(self._pid.low, self._pid.high),
            gains=(self._pid.kp, self._pid.ki, self._pid.kd),
            terms=self._pid.terms,
            latest_input=growth_rate,
            latest_output=fraction,
        )
        if density > TOO_DENSE * target:
            exchange_ml *= DILUTION_WHEN_DENSE
        alt_media_ml, media_ml = fraction * exchange_ml, (1 - fraction) * exchange_ml
        alt_media_ml = alt_media_ml if alt_media_ml >= self._minimum_ml else 0.0
        media_ml = media_ml if media_ml >= self._minimum_ml else 0.0
        moved = await self.exchange(
            media_ml=media_ml, alt_media_ml=alt_media_ml, waste_ml=media_ml + alt_media_ml
        )
        self.tell(
            "AddAltMediaEvent",
            f"PID output {fraction:.2f}: added {moved.alt_media_ml:.2f} mL of alt media and "
            f"{moved.media_ml:.2f} mL of media",
            {
                "latest_normalized_od": density,
                "latest_growth_rate": growth_rate,
                "media_ml": round(moved.media_ml, 4),
                "alt_media_ml": round(moved.alt_media_ml, 4),
                "waste_ml": round(moved.waste_ml, 4),
            },
        )
