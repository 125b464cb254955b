"""What a fresh data directory is filled with."""

from __future__ import annotations

from pathlib import Path

from piod import yaml_text
from piod.config import DEFAULT_LED_ROLES, DEFAULT_PWM_ROLES, ConfigFiles
from piod.defaults import write_defaults
from piod.hw.wiring import HAT_VERSIONS, load_wiring


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


def test_stirring_descriptor_has_the_fields_of_a_job(tmp_path: Path) -> None:
    write_defaults(tmp_path, leader_hostname="pio07")
    descriptor = yaml_text.load((tmp_path / "ui/jobs/stirring.yaml").read_text())
    assert isinstance(descriptor, dict)
    settings = descriptor.pop("published_settings")
    assert set(descriptor) == {
        "display_name",
        "job_name",
        "display",
        "source",
        "description",
        "subtext",
    }
    assert descriptor["job_name"] == "stirring"
    assert descriptor["display"] is True
    assert descriptor["subtext"] in [setting["key"] for setting in settings]
    allowed = {"key", "type", "display", "description", "unit", "label", "editable"}
    for setting in settings:
        assert {"key", "type", "display"} <= set(setting) <= allowed
        assert setting["type"] in ("numeric", "boolean", "string", "json")


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
