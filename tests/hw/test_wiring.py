"""Wiring: shipped values, layers of files, refusals; the HAT that is plugged in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from piod.errors import ConfigurationError
from piod.hw.wiring import (
    DEFAULT_PWM_PINS,
    AdcEntry,
    Wiring,
    detect_hat,
    load_wiring,
    pins_to_turn_off,
    shipped_files,
)

ML20 = ("pioreactor_20ml", "1.1")


@pytest.fixture
def hardware(tmp_path: Path) -> Path:
    return tmp_path / "hardware"


def put(hardware: Path, path: str, text: str) -> None:
    (hardware / path).parent.mkdir(parents=True, exist_ok=True)
    (hardware / path).write_text(text)


def refusal_of(hardware: Path, hat: str = "1.2", model: tuple[str, str] | None = ML20) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        load_wiring(hardware, hat, model)
    return refusal.value.message


@pytest.mark.parametrize("hat", ["1.1", "1.2"])
def test_unit_without_files_is_wired_as_shipped(hardware: Path, hat: str) -> None:
    assert load_wiring(hardware, hat, ML20) == Wiring(
        hat_version=hat,
        model_key=ML20,
        heater_pwm_channel="5",
        pwm_pins={"1": 17, "2": 13, "3": 16, "4": 12, "5": 18},
        adc={
            "aux": AdcEntry("pico", 0x2C, 1),
            "version": AdcEntry("pico", 0x2C, 0),
            "pd1": AdcEntry("pico", 0x2C, 2),
            "pd2": AdcEntry("pico", 0x2C, 3),
        },
        dac_address=0x2C,
        temp_address=0x4F,
        led_pin=23,
        button_pin=4,
        hall_pin=21,
        sda_pin=2,
        scl_pin=3,
    )


def test_hat_1_0_has_its_own_chips_and_pins(hardware: Path) -> None:
    wiring = load_wiring(hardware, "1.0", None)
    assert (wiring.button_pin, wiring.hall_pin, wiring.dac_address) == (24, 25, 0x49)
    assert wiring.adc["pd1"] == AdcEntry("ads1115", 0x48, 1)
    assert wiring.pwm_pins == DEFAULT_PWM_PINS


def test_model_brings_its_optics_over_the_hat(hardware: Path) -> None:
    wiring = load_wiring(hardware, "1.2", ("pioreactor_40ml_XR", "1.5"))
    assert [wiring.adc[f"pd{n}"].address for n in "1234"] == [0x49, 0x4A, 0x4B, 0x48]
    assert wiring.adc["aux"] == AdcEntry("pico", 0x2C, 1)
    # A file that repeats the HAT's own optics does not hide the model's.
    put(hardware, "hats/1.2/adc.yaml", "pd1: {driver: pico, address: 0x2C, channel: 2}\n")
    assert load_wiring(hardware, "1.2", ("pioreactor_40ml_XR", "1.5")) == wiring


def test_files_merge_key_by_key_and_the_model_wins(hardware: Path) -> None:
    put(hardware, "hats/1.2/gpio.yaml", "hall_sensor_pin: 20\npcb_led_pin: 22\n")
    put(hardware, "models/pioreactor_20ml/1.1/gpio.yaml", "pcb_led_pin: 26\n")
    put(hardware, "hats/1.2/adc.yaml", "pd1: {channel: 0}\npd2: null\nextra: 5\n")
    put(hardware, "models/pioreactor_20ml/1.1/adc.yaml", "extra: null\n")
    put(hardware, "hats/1.2/pwm.yaml", "pwm_to_pin: {1: 27}\nheater_pwm_channel: 5\n")
    put(hardware, "hats/1.2/dac.yaml", "")
    wiring = load_wiring(hardware, "1.2", ML20)
    assert (wiring.hall_pin, wiring.led_pin, wiring.button_pin) == (20, 26, 4)
    assert wiring.adc["pd1"] == AdcEntry("pico", 0x2C, 0)
    assert set(wiring.adc) == {"aux", "version", "pd1"}
    assert wiring.pwm_pins == {"1": 27, "2": 13, "3": 16, "4": 12, "5": 18}
    assert wiring.heater_pwm_channel == "5"
    assert wiring.dac_address == 0x2C


@pytest.mark.parametrize(
    "model",
    [
        ("pioreactor_20ml", "1.5"),
        ("pioreactor_40ml", "1.5"),
        ("pioreactor_20ml_XR", "1.5"),
        ("pioreactor_40ml_XR", "1.5"),
    ],
)
def test_optics_that_clash_with_hat_1_0_are_refused(hardware: Path, model: tuple[str, str]) -> None:
    message = refusal_of(hardware, "1.0", model)
    assert f"HAT 1.0 cannot work with the model {model[0]}/1.5: at I2C address 0x49" in message
    assert "ads1114" in message
    assert "the LED DAC (DAC43608" in message
    load_wiring(hardware, "1.1", model)


def test_clash_made_by_a_file_names_the_file(hardware: Path) -> None:
    put(hardware, "hats/1.2/temp.yaml", "address: 0x2C\n")
    message = refusal_of(hardware)
    assert "0x2C" in message
    assert "the temperature sensor (TMP1075, hardware/hats/1.2/temp.yaml)" in message


def test_two_uses_of_one_pin_are_refused(hardware: Path) -> None:
    put(hardware, "hats/1.2/pwm.yaml", "pwm_to_pin: {'3': 18}\n")
    assert refusal_of(hardware) == (
        "hardware/hats/1.2/pwm.yaml (as shipped): pwm_to_pin.5 is GPIO 18, "
        "which is already pwm_to_pin.3"
    )
    put(hardware, "hats/1.2/pwm.yaml", "pwm_to_pin: {'3': 21}\n")
    assert "hall_sensor_pin is GPIO 21, which is already pwm_to_pin.3" in refusal_of(hardware)


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (
            "gpio.yaml",
            "hall_sensor_pin: 28\n",
            "hall_sensor_pin must be a whole number from 0 to 27, got 28",
        ),
        (
            "gpio.yaml",
            "hall_sensor_pin: '21'\n",
            "hall_sensor_pin must be a whole number from 0 to 27, got '21'",
        ),
        (
            "gpio.yaml",
            "hall_sensor_pin: true\n",
            "hall_sensor_pin must be a whole number from 0 to 27, got True",
        ),
        (
            "pwm.yaml",
            "heater_pwm_channel: '6'\n",
            "heater_pwm_channel must be one of the channels 1, 2, 3, 4, 5, got '6'",
        ),
        (
            "pwm.yaml",
            "pwm_to_pin: {'5': null}\n",
            "heater_pwm_channel must be one of the channels 1, 2, 3, 4, got '5'",
        ),
        ("pwm.yaml", "pwm_to_pin: 17\n", "pwm_to_pin must be a mapping"),
        ("pwm.yaml", "pwm_to_pin: null\n", "pwm_to_pin must be a mapping"),
        ("dac.yaml", "address: null\n", "address is missing"),
        ("dac.yaml", "address: 0x80\n", "address must be a whole number from 8 to 119, got 128"),
        (
            "adc.yaml",
            "pd1: {driver: mcp}\n",
            "pd1.driver must be one of ads1115, ads1114, pico, got 'mcp'",
        ),
        ("adc.yaml", "pd3: {driver: pico, address: 0x2C}\n", "pd3.channel is missing"),
        ("adc.yaml", "pd3: 7\n", "pd3.driver is missing"),
        ("temp.yaml", "- 1\n", "the file must hold a mapping"),
        ("temp.yaml", "a: 1\nb: [\n", "line 3: "),
    ],
)
def test_refusal_names_file_and_key(hardware: Path, path: str, text: str, message: str) -> None:
    put(hardware, f"hats/1.2/{path}", text)
    refusal = refusal_of(hardware)
    assert refusal.startswith(f"hardware/hats/1.2/{path}")
    assert message in refusal


def test_file_that_cannot_be_read_is_refused(hardware: Path) -> None:
    (hardware / "hats/1.2/pwm.yaml").mkdir(parents=True)
    assert refusal_of(hardware) == "hardware/hats/1.2/pwm.yaml cannot be read: Is a directory"
    (hardware / "hats/1.2/pwm.yaml").rmdir()
    (hardware / "hats/1.2/pwm.yaml").write_bytes(b"a: \xff\n")
    assert refusal_of(hardware) == "hardware/hats/1.2/pwm.yaml: this is not UTF-8 text"


def test_unknown_hat_is_refused_until_files_describe_it(hardware: Path) -> None:
    assert refusal_of(hardware, "1.3") == "HAT version '1.3' is unknown (known: 1.0, 1.1, 1.2)"
    put(hardware, "hats/1.3/pwm.yaml", "heater_pwm_channel: '5'\n")
    assert "hardware/hats/1.3/pwm.yaml: pwm_to_pin must be a mapping" in refusal_of(hardware, "1.3")
    for path, text in shipped_files():
        if path.startswith("hats/1.2/"):
            put(hardware, path.replace("1.2", "1.3"), text)
    assert load_wiring(hardware, "1.3", None).hall_pin == 21


@pytest.mark.parametrize("text", ["../1.2", "..", "1.2/..", "", "1.2\n", "\0"])
def test_names_that_leave_the_folder_are_refused(hardware: Path, text: str) -> None:
    assert "is not a HAT version" in refusal_of(hardware, text)
    assert "is not a model" in refusal_of(hardware, "1.2", ("pioreactor_20ml", text))
    assert "is not a model" in refusal_of(hardware, "1.2", (text, "1.5"))


def test_shipped_files_cost_no_yaml(hardware: Path) -> None:
    """`piod safe-outputs` reads the wiring and has a second."""
    for path, text in shipped_files():
        put(hardware, path, text)
    script = (
        "import sys; from pathlib import Path; from piod.hw.wiring import load_wiring\n"
        f"load_wiring(Path({str(hardware)!r}), '1.2', ('pioreactor_20ml_XR', '1.5'))\n"
        "print(sorted({'yaml', 'asyncio', 'aiohttp'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


def test_pins_to_turn_off_are_known_whatever_is_broken(
    hardware: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = (17, 13, 16, 12, 18)
    assert pins_to_turn_off(hardware, "1.2", ML20) == usual
    put(hardware, "hats/1.2/adc.yaml", "[broken\n")
    put(hardware, "hats/1.2/pwm.yaml", "pwm_to_pin: {'1': 27}\n")
    assert pins_to_turn_off(hardware, "1.2", ML20) == (27, 13, 16, 12, 18)
    assert pins_to_turn_off(hardware, "1.0", ("pioreactor_20ml_XR", "1.5")) == usual
    assert caplog.records == []
    put(hardware, "hats/1.2/pwm.yaml", "[broken\n")
    assert pins_to_turn_off(hardware, "1.2", ML20) == usual
    assert pins_to_turn_off(hardware, "9.9", None) == usual
    assert pins_to_turn_off(hardware, "..", None) == usual
    assert len(caplog.records) == 3
    assert "hardware/hats/1.2/pwm.yaml: line " in caplog.text


def hat(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (root / name).write_bytes(text.encode() + b"\0")
    return root


@pytest.mark.parametrize(
    ("product_ver", "version"), [("0x0011", "1.1"), ("0x0012", "1.2"), ("0x001a", "1.10")]
)
def test_hat_is_read_from_the_device_tree(tmp_path: Path, product_ver: str, version: str) -> None:
    root = hat(tmp_path, vendor="Pioreactor Inc.", product_id="0x0001", product_ver=product_ver)
    assert detect_hat(root) == version


def test_no_hat_and_other_hats_are_none(tmp_path: Path) -> None:
    assert detect_hat(tmp_path / "hat") is None
    hat(tmp_path, vendor="Pioreactor Inc.", product_id="0x0001")
    assert detect_hat(tmp_path) is None
    hat(tmp_path, product_ver="??")
    assert detect_hat(tmp_path) is None
    hat(tmp_path, product_ver="0x0011", product_id="0x0002")
    assert detect_hat(tmp_path) is None
    hat(tmp_path, product_id="0x0001", vendor="Somebody Else")
    assert detect_hat(tmp_path) is None
