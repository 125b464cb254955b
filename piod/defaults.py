"""What a fresh data directory is filled with: configuration, wiring, UI descriptors.

For a simulated unit, which has neither an image nor a leader that would bring
these files. :func:`write_defaults` adds what is missing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from piod.hw.wiring import shipped_files
from piod.storage.files import write_file
from piod.ui_files import UI_FILES


def write_defaults(directory: Path, *, leader_hostname: str) -> list[Path]:
    """Write the files that ``directory`` lacks; the paths of those that were written.

    Never touches a file, or anything else, that is there. Blocks. Raises
    StorageFull or StorageFailed.
    """
    written = []
    for relative, text in _files(leader_hostname):
        path = directory / relative
        if path.exists() or path.is_symlink():
            continue
        write_file(path, text)
        written.append(path)
    return written


def _files(leader_hostname: str) -> Iterator[tuple[str, str]]:
    yield "config.ini", config_ini(leader_hostname)
    for relative, text in shipped_files():
        yield f"hardware/{relative}", text
    yield from UI_FILES.items()


def config_ini(leader_hostname: str) -> str:
    """The text of ``config.ini`` for a unit that knows no other."""
    return f"""\
# Written by piod because this file was missing. Yours to edit: it is not written again.
# A comment is a line of its own. unit_config.ini, if there is one, wins over this file.

[cluster.topology]
leader_hostname = {leader_hostname}

[PWM]
# Channel = what is connected to it. The heater's channel belongs to the wiring
# (hardware/hats/<version>/pwm.yaml).
1 = stirring
2 = media
3 = alt_media
4 = waste
5 = heating

[leds]
# Channel = what is connected to it; IR is the light source of the OD readings.
A = IR
B =
C =
D =

[od_config.photodiode_channel]
# Channel = angle to the IR LED in degrees, or REF for the one that watches the LED itself.
1 = REF
2 = 90
3 =
4 =

[od_reading.config]
samples_per_second = 0.2
# Percent, or auto.
ir_led_intensity = 80
# unity: OD in volts, at the brightness of the experiment's first reading; classic: over REF.
ref_normalization = unity
# Weight of the old mean of REF; weight of the reading before, the shorter the interval the more.
pd_reference_ema = 0.75
smoothing_penalizer = 3.0
turn_off_leds_during_reading = 1
duration_between_led_off_and_od_reading = 0.125
use_dark_offsets = 1
# Hz of the mains, if it is not to be found out.
# local_ac_hz = 50

[stirring.config]
initial_target_rpm = 500
# First guess, in percent, while no calibration is active.
initial_duty_cycle = 30
pwm_hz = 200
# 1: hold the speed by the hall sensor; 0: hold the duty cycle.
use_rpm = 1
duration_between_updates_seconds = 23
# 1: another speed while an OD reading is taken, from before to after it.
enable_dodging_od = 0
pre_delay_duration = 1.5
post_delay_duration = 0.5
target_rpm_during_od_reading = 0
target_rpm_outside_od_reading = 500

[stirring.pid]
# Percent of duty cycle per RPM of error, at each update.
Kp = 0.005
Ki = 0
Kd = 0

[temperature_automation.thermostat]
# Percent of duty cycle per °C of error, at each inference.
Kp = 2.6
Ki = 0
Kd = 4.6

[growth_rate_calculating.config]
# So many OD readings, after five that are left out, are a normalised OD of 1.
samples_for_od_statistics = 35
ekf_outlier_std_threshold = 5

[growth_rate_kalman]
od_std = 0.0025
rate_std = 0.25
obs_std = 1

[dosing_automation.config]
pause_between_subdoses_seconds = 5
# mL of one dose; what is more goes in halves.
max_subdose = 1.0
# At the end of an exchange the waste pump moves so many times its volume more.
waste_removal_multiplier = 2

[dosing_automation.turbidostat]
# auto, normalized_od, od_fused or od.
biomass_signal = auto

[dosing_automation.pid_morbidostat]
Kp = 5
Ki = 0
Kd = 0
# mL; a dose below it is left out.
minimum_dosing_volume_ml = 0.1

[monitor.config]
# auto, 1 or 0.
enable_button = auto
self_check_interval_hours = 12

[bioreactor]
# Volumes in mL. The efflux tube takes away what rises above its end;
# max_working_volume_ml is its older name.
initial_volume_ml = 14
efflux_tube_volume_ml = 14
max_working_volume_ml = 14
initial_alt_media_fraction = 0

[piod]
# The address that HTTP is served on; without it 127.0.0.1, this machine alone.
# listen = 0.0.0.0:8000
# Web pages of other hosts that may use this unit, with commas between.
# allowed_origins = http://leader.local
# Days, and number, of readings that are kept; the oldest are forgotten.
# keep_readings_days = 365
# keep_readings_rows = 3000000
# 0: without the monitor (PCB LED, button, checks of the computer).
# run_monitor = 1
# Which reactor and HAT this is, when neither the command line nor a leader says.
# model_name = pioreactor_20ml
# model_version = 1.1
# hat_version = 1.2
"""
