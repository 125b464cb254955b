"""The UI descriptors of a fresh data directory: how leaders' pages show the jobs.

:data:`UI_FILES`: YAML texts by path in the data directory. Fields: handbook
jobs-and-hardware.md §3.6. Keys are published settings of the job, and options of the
automation.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STIRRING = """\
display_name: Stirring
job_name: stirring
display: true
source: app
description: Spin the stir bar, and hold its speed by the hall sensor.
subtext: target_rpm
published_settings:
  - key: target_rpm
    type: numeric
    display: true
    label: Target speed
    unit: RPM
    description: The speed that the stir bar is kept at.
  - key: duty_cycle
    type: numeric
    display: false
    label: Duty cycle
    unit: "%"
    description: How hard the motor is driven. With speed control on, the next update replaces it.
  - key: enable_dodging_od
    type: boolean
    display: true
    label: Slow down for OD readings
    description: Stir at another speed while an OD reading is taken.
  - key: target_rpm_during_od_reading
    type: numeric
    display: true
    label: Speed during OD readings
    unit: RPM
    description: Counts only while stirring slows down for OD readings.
  - key: target_rpm_outside_od_reading
    type: numeric
    display: true
    label: Speed between OD readings
    unit: RPM
    description: Counts only while stirring slows down for OD readings.
"""

OD_READING = """\
display_name: Optical density
job_name: od_reading
display: true
source: app
description: Read the optical density of the culture at regular intervals.
subtext: problem
published_settings:
  - key: ir_led_intensity
    type: numeric
    display: true
    label: IR LED
    unit: "%"
    description: How bright the IR LED is during a reading. Calibrations hold at one brightness.
  - key: interval
    type: numeric
    display: true
    label: Interval
    unit: s
    description: The time from one reading to the next.
  - key: problem
    type: string
    display: true
    editable: false
    label: Problem
    description: Why the last reading was not published, if it was not.
"""

GROWTH_RATE = """\
display_name: Growth rate
job_name: growth_rate_calculating
display: true
source: app
description: Calculate the growth rate from the OD readings.
subtext: growth_rate
published_settings:
  - key: growth_rate
    type: json
    display: true
    editable: false
    label: Growth rate
    unit: h⁻¹
    description: How fast the culture grows now.
"""

TEMPERATURE = """\
display_name: Temperature
job_name: temperature_automation
display: true
source: app
description: Measure the temperature of the culture, and keep it at a target.
subtext: automation_name
published_settings:
  - key: automation_name
    type: string
    display: false
    editable: false
    label: Automation
  - key: target_temperature
    type: numeric
    display: true
    label: Target temperature
    unit: ℃
    description: The temperature that the thermostat keeps the culture at.
  - key: temperature
    type: json
    display: true
    editable: false
    label: Temperature
    unit: ℃
    description: The last temperature of the culture.
  - key: heater_duty_cycle
    type: numeric
    display: true
    editable: false
    label: Heater
    unit: "%"
    description: How hard the heater is driven; 0 while a temperature is taken.
  - key: interlock
    type: string
    display: true
    editable: false
    label: Interlock
    description: ok, or why the heater stays off until the interlock is reset.
  - key: reset_interlock
    type: boolean
    display: true
    label: Reset the interlock
    description: Allow heating again, after somebody has looked after heater, sensor and vial.
"""

LED_AUTOMATION = """\
display_name: LED automation
job_name: led_automation
display: true
source: app
description: Turn LEDs on and off by a program.
subtext: automation_name
published_settings:
  - key: automation_name
    type: string
    display: false
    editable: false
    label: Automation
  - key: light_intensity
    type: numeric
    display: true
    label: Light intensity
    unit: "%"
    description: The level of the LEDs in the light. Of light_dark_cycle.
  - key: light_duration_minutes
    type: numeric
    display: true
    label: Light
    unit: min
    description: How long it is light. Of light_dark_cycle.
  - key: dark_duration_minutes
    type: numeric
    display: true
    label: Dark
    unit: min
    description: How long it is dark. Of light_dark_cycle.
  - key: duration
    type: numeric
    display: false
    editable: false
    label: Duration
    unit: min
"""

LED_INTENSITY = """\
display_name: LEDs
job_name: led_intensity
display: false
source: app
description: Keep LEDs at levels that a person chose.
published_settings:
  - {key: A, type: numeric, display: true, label: Channel A, unit: "%"}
  - {key: B, type: numeric, display: true, label: Channel B, unit: "%"}
  - {key: C, type: numeric, display: true, label: Channel C, unit: "%"}
  - {key: D, type: numeric, display: true, label: Channel D, unit: "%"}
"""

DOSING_AUTOMATION = """\
display_name: Dosing automation
job_name: dosing_automation
display: true
source: app
description: Pump media and waste by itself, as the chosen automation says.
subtext: automation_name
published_settings:
  - {key: automation_name, type: string, display: true, editable: false, label: Automation}
  - key: current_volume_ml
    type: numeric
    display: true
    label: Volume
    unit: mL
    description: What is in the vial now. Correct it here after pouring something in or out.
  - key: max_working_volume_ml
    type: numeric
    display: true
    label: Efflux tube
    unit: mL
    description: The volume at which the end of the waste tube is.
  - key: alt_media_fraction
    type: numeric
    display: true
    label: Share of alt media
    description: 0 to 1.
  - key: media_throughput
    type: numeric
    display: true
    editable: false
    label: Media added
    unit: mL
  - key: alt_media_throughput
    type: numeric
    display: true
    editable: false
    label: Alt media added
    unit: mL
  - key: duration
    type: numeric
    display: true
    label: Time between runs
    unit: min
    description: Counted from the last run.
  - key: exchange_volume_ml
    type: numeric
    display: true
    label: Exchange volume
    unit: mL
    description: Of chemostat and turbidostat.
  - key: target_biomass
    type: numeric
    display: true
    label: Target biomass
    unit: OD
    description: Of turbidostat.
"""

OD_BLANK = """\
display_name: OD blank
job_name: od_blank
display: false
source: app
description: Measure the OD of media without cells. The growth rate is calculated above it.
published_settings:
  - {key: means, type: json, display: true, editable: false, label: Blank}
"""

SELF_TEST = """\
display_name: Self test
job_name: self_test
display: false
source: app
description: Test the instruments, with water or media and a stir bar in the vial.
published_settings:
  - {key: all_tests_passed, type: boolean, display: true, editable: false, label: All passed}
"""

MONITOR = """\
display_name: Monitor
job_name: monitor
display: false
source: app
description: Watch over the computer and the unit.
published_settings:
  - {key: computer_statistics, type: json, display: true, editable: false, label: Computer}
  - {key: voltage_on_pwm_rail, type: json, display: true, editable: false, label: PWM rail, unit: V}
  - {key: ipv4, type: string, display: true, editable: false, label: Address}
  - {key: versions, type: json, display: true, editable: false, label: Versions}
"""

THERMOSTAT = """\
display_name: Thermostat
automation_name: thermostat
source: app
description: Keep the culture at a target temperature. Stir while it heats.
fields:
  - {key: target_temperature, default: 30, label: Target temperature, unit: ℃, type: numeric}
"""

ONLY_RECORD_TEMPERATURE = """\
display_name: Only record the temperature
automation_name: only_record_temperature
source: app
description: Measure the temperature of the culture, and never heat.
fields: []
"""

LIGHT_DARK_CYCLE = """\
display_name: Light/dark cycle
automation_name: light_dark_cycle
source: app
description: LEDs C and D on, then off, again and again. It begins with light.
fields:
  - {key: duration, default: 1, label: Duration, unit: min, type: numeric, disabled: true}
  - {key: light_intensity, default: 5, label: Light intensity, unit: "%", type: numeric}
  - {key: light_duration_minutes, default: 960, label: Light, unit: min, type: numeric}
  - {key: dark_duration_minutes, default: 480, label: Dark, unit: min, type: numeric}
"""

SILENT_LEDS = """\
display_name: Silent
automation_name: silent
source: app
description: Leave the LEDs alone.
fields:
  - {key: duration, default: 30, label: Duration, unit: min, type: numeric}
"""

CHEMOSTAT = """\
display_name: Chemostat
automation_name: chemostat
source: app
description: Exchange a volume of the culture for media at regular times.
fields:
  - {key: duration, default: 20, label: Time between exchanges, unit: min, type: numeric}
  - {key: exchange_volume_ml, default: 0.5, label: Exchange volume, unit: mL, type: numeric}
"""

TURBIDOSTAT = """\
display_name: Turbidostat
automation_name: turbidostat
source: app
description: Exchange a volume whenever the culture is denser than the target.
fields:
  - {key: target_biomass, default: 1, label: Target biomass, unit: OD, type: numeric}
  - {key: exchange_volume_ml, default: 0.5, label: Exchange volume, unit: mL, type: numeric}
  - key: biomass_signal
    default: auto
    label: Biomass signal
    type: select
    options: [auto, normalized_od, od_fused, od]
"""

FED_BATCH = """\
display_name: Fed-batch
automation_name: fed_batch
source: app
description: Add media at regular times and remove nothing, until the vial is full.
fields:
  - {key: duration, default: 60, label: Time between doses, unit: min, type: numeric}
  - {key: dosing_volume_ml, default: 0.2, label: Dose, unit: mL, type: numeric}
"""

PID_MORBIDOSTAT = """\
display_name: Morbidostat
automation_name: pid_morbidostat
source: app
description: Add as much alt media, an inhibitor, as keeps the growth rate at the target.
fields:
  - {key: duration, default: 20, label: Time between exchanges, unit: min, type: numeric}
  - {key: target_growth_rate, default: 0.1, label: Target growth rate, unit: 1/h, type: numeric}
  - {key: target_normalized_od, default: 1, label: Target normalized OD, unit: AU, type: numeric}
"""

SILENT_DOSING = """\
display_name: Silent
automation_name: silent
source: app
description: Pump nothing; show the volumes.
fields:
  - {key: duration, default: 60, label: Duration, unit: min, type: numeric}
"""

UI_FILES: Mapping[str, str] = MappingProxyType(
    {
        "ui/jobs/stirring.yaml": STIRRING,
        "ui/jobs/od_reading.yaml": OD_READING,
        "ui/jobs/growth_rate_calculating.yaml": GROWTH_RATE,
        "ui/jobs/temperature_automation.yaml": TEMPERATURE,
        "ui/jobs/led_automation.yaml": LED_AUTOMATION,
        "ui/jobs/dosing_automation.yaml": DOSING_AUTOMATION,
        "ui/jobs/led_intensity.yaml": LED_INTENSITY,
        "ui/jobs/od_blank.yaml": OD_BLANK,
        "ui/jobs/self_test.yaml": SELF_TEST,
        "ui/jobs/monitor.yaml": MONITOR,
        "ui/automations/temperature/thermostat.yaml": THERMOSTAT,
        "ui/automations/temperature/only_record_temperature.yaml": ONLY_RECORD_TEMPERATURE,
        "ui/automations/led/light_dark_cycle.yaml": LIGHT_DARK_CYCLE,
        "ui/automations/led/silent.yaml": SILENT_LEDS,
        "ui/automations/dosing/chemostat.yaml": CHEMOSTAT,
        "ui/automations/dosing/turbidostat.yaml": TURBIDOSTAT,
        "ui/automations/dosing/fed_batch.yaml": FED_BATCH,
        "ui/automations/dosing/pid_morbidostat.yaml": PID_MORBIDOSTAT,
        "ui/automations/dosing/silent.yaml": SILENT_DOSING,
    }
)
