"""The jobs that a unit can run: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from piod.jobs.automations.dosing.chemostat import Chemostat
from piod.jobs.automations.dosing.fed_batch import FedBatch
from piod.jobs.automations.dosing.pid_morbidostat import PidMorbidostat
from piod.jobs.automations.dosing.silent import SilentDosing
from piod.jobs.automations.dosing.turbidostat import Turbidostat
from piod.jobs.automations.led.light_dark_cycle import LightDarkCycle
from piod.jobs.automations.led.silent import Silent
from piod.jobs.automations.temperature.only_record_temperature import OnlyRecordTemperature
from piod.jobs.automations.temperature.thermostat import Thermostat
from piod.jobs.growth_rate_calculating import GrowthRateCalculating
from piod.jobs.job import Job
from piod.jobs.led_intensity import LedIntensity
from piod.jobs.monitor import Monitor
from piod.jobs.od_blank import OdBlank
from piod.jobs.od_reading import OdReadingJob
from piod.jobs.pump_actions.circulation import CirculateAltMedia, CirculateMedia
from piod.jobs.pump_actions.sequence import Pumps
from piod.jobs.pump_actions.single import AddAltMedia, AddMedia, RemoveWaste
from piod.jobs.self_test import SelfTest
from piod.jobs.stirring import Stirring

JOBS: Mapping[str, type[Job]] = MappingProxyType(
    {
        job.kind_name(): job
        for job in (
            AddAltMedia,
            AddMedia,
            Chemostat,
            FedBatch,
            CirculateAltMedia,
            CirculateMedia,
            GrowthRateCalculating,
            LedIntensity,
            LightDarkCycle,
            OdBlank,
            OdReadingJob,
            PidMorbidostat,
            SelfTest,
            OnlyRecordTemperature,
            Monitor,
            Pumps,
            RemoveWaste,
            Silent,
            SilentDosing,
            Stirring,
            Thermostat,
            Turbidostat,
        )
    }
)
"""Every job by its ``kind_name``: an automation's is ``led_automation/silent``."""
