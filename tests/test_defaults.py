"""What a fresh data directory is filled with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from piod import yaml_text
from piod.config import DEFAULT_LED_ROLES, DEFAULT_PWM_ROLES, ConfigFiles
from piod.defaults import write_defaults
from piod.hw.wiring import HAT_VERSIONS, load_wiring
from piod.jobs.pump_actions.action import PumpAction
from piod.jobs.registry import JOBS


def test_fresh_directory_gets_a_configuration_that_is_read(tmp_path: Path) -> None:
    write_defaults(tmp_path, leader_hostname="pio07")
    files = ConfigFiles(tmp_path)
    config = files.current()
    assert files.problem is None
    assert config.text("cluster.topology", "leader_hostname", None) == "pio07"
    assert config.pwm_roles() == DEFAULT_PWM_ROLES
    assert config.led_roles() == DEFAULT_LED_ROLES
    assert config.items("od_config.photodiode_channel") == {"1": "REF", "2": "90", "3": "", "4": ""}
    assert config.number("stirring.config", "initial_target_rpm", None) == 500
    assert config.boolean("stirring.config", "use_rpm", None) is True
    assert config.number("stirring.pid", "Kp", None) == 0.005
    assert config.number("bioreactor", "efflux_tube_volume_ml", None) == 14
    assert config.has("piod")
    assert config.items("piod") == {}


def test_fresh_directory_gets_wiring_files_that_say_what_is_built_in(tmp_path: Path) -> None:
    written = write_defaults(tmp_path, leader_hostname="pio07")
    hardware = tmp_path / "hardware"
    for hat in HAT_VERSIONS:
        for part in ("pwm", "adc", "dac", "temp", "gpio"):
            assert hardware / "hats" / hat / f"{part}.yaml" in written
        assert load_wiring(hardware, hat, None) == load_wiring(tmp_path / "none", hat, None)
    pwm = yaml_text.load((hardware / "hats/1.2/pwm.yaml").read_text())
    assert pwm == {
        "heater_pwm_channel": "5",
        "pwm_to_pin": {"1": 17, "2": 13, "3": 16, "4": 12, "5": 18},
    }
    adc = yaml_text.load((hardware / "models/pioreactor_20ml_XR/1.5/adc.yaml").read_text())
    assert isinstance(adc, dict)
    assert adc["pd4"] == {"driver": "ads1114", "address": 0x48, "channel": 0}


JOBS_SHOWN = {kind.job_name for kind in JOBS.values() if not issubclass(kind, PumpAction)}
AUTOMATIONS_SHOWN = {name for name in JOBS if "/" in name}
NUMBERS = ("float", "integer")


def descriptors(directory: Path, pattern: str) -> dict[Path, dict[str, Any]]:
    write_defaults(directory, leader_hostname="pio07")
    found = {}
    for path in sorted(directory.glob(pattern)):
        descriptor = yaml_text.load(path.read_text())
        assert isinstance(descriptor, dict)
        found[path] = descriptor
    return found


def test_every_job_has_a_descriptor_of_settings_that_it_has(tmp_path: Path) -> None:
    required = {"display_name", "job_name", "display", "published_settings"}
    of_setting = {"key", "type", "display", "description", "unit", "label", "editable"}
    shown = set()
    for path, descriptor in descriptors(tmp_path, "ui/jobs/*.yaml").items():
        assert required <= set(descriptor) <= {*required, "source", "description", "subtext"}
        name = descriptor["job_name"]
        assert path.stem == name
        assert isinstance(descriptor["display"], bool)
        shown.add(name)
        published = {
            setting.name: setting
            for kind in JOBS.values()
            if kind.job_name == name
            for setting in kind.all_settings()
        }
        keys = [setting["key"] for setting in descriptor["published_settings"]]
        assert descriptor.get("subtext", keys[0]) in keys
        for setting in descriptor["published_settings"]:
            assert {"key", "type", "display"} <= set(setting) <= of_setting
            assert setting["type"] in ("numeric", "boolean", "string", "json")
            declared = published[setting["key"]]
            assert setting.get("editable", True) <= declared.settable
            assert setting.get("unit") == declared.unit
            assert (setting["type"] == "numeric") == (declared.datatype in NUMBERS)
            assert (setting["type"] == "boolean") == (declared.datatype == "boolean")
    assert shown == JOBS_SHOWN


def test_every_automation_has_a_descriptor_that_can_be_run_as_it_is(tmp_path: Path) -> None:
    required = {"display_name", "automation_name", "description"}
    of_field = {"key", "default", "label", "disabled", "unit", "type", "options"}
    shown = set()
    for path, descriptor in descriptors(tmp_path, "ui/automations/*/*.yaml").items():
        assert required <= set(descriptor) <= {*required, "source", "fields"}
        name = descriptor["automation_name"]
        assert path.stem == name
        kind_name = f"{path.parent.name}_automation/{name}"
        shown.add(kind_name)
        for field in descriptor["fields"]:
            assert {"key", "default", "label"} <= set(field) <= of_field
        options = {field["key"]: field["default"] for field in descriptor["fields"]}
        parsed = JOBS[kind_name].parse_options({"automation_name": name, **options})
        assert parsed == {"automation_name": name, **options}
    assert shown == AUTOMATIONS_SHOWN


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("temperature_automation.thermostat", "Kp", 2.6),
        ("temperature_automation.thermostat", "Kd", 4.6),
        ("growth_rate_calculating.config", "samples_for_od_statistics", 35),
        ("growth_rate_calculating.config", "ekf_outlier_std_threshold", 5),
        ("growth_rate_kalman", "od_std", 0.0025),
        ("growth_rate_kalman", "rate_std", 0.25),
        ("growth_rate_kalman", "obs_std", 1),
        ("dosing_automation.config", "pause_between_subdoses_seconds", 5),
        ("dosing_automation.config", "waste_removal_multiplier", 2),
        ("dosing_automation.config", "max_subdose", 1),
        ("dosing_automation.pid_morbidostat", "Kp", 5),
        ("dosing_automation.pid_morbidostat", "minimum_dosing_volume_ml", 0.1),
        ("monitor.config", "self_check_interval_hours", 12),
        ("bioreactor", "initial_volume_ml", 14),
    ],
)
def test_what_jobs_go_by_is_written_down(
    tmp_path: Path, section: str, key: str, value: float
) -> None:
    write_defaults(tmp_path, leader_hostname="pio07")
    config = ConfigFiles(tmp_path).current()
    assert config.number(section, key, None) == value
    assert config.text("dosing_automation.turbidostat", "biomass_signal", None) == "auto"


def test_nothing_that_is_there_is_touched(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[mine]\n")
    (tmp_path / "ui/jobs").mkdir(parents=True)
    (tmp_path / "ui/jobs/stirring.yaml").symlink_to(tmp_path / "elsewhere")
    written = write_defaults(tmp_path, leader_hostname="pio07")
    assert (tmp_path / "config.ini").read_text() == "[mine]\n"
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "ui/jobs/stirring.yaml").is_symlink()
    assert written
    assert write_defaults(tmp_path, leader_hostname="pio07") == []
