"""How a unit is wired: which pin, address and chip does what, on which HAT and model.

:func:`load_wiring` reads upstream's layered YAML files below ``hardware/``:
``hats/<version>/<part>.yaml``, and over it ``models/<name>/<version>/<part>.yaml``,
where a part is pwm, adc, dac, temp or gpio. Mappings merge key by key, any other
value replaces, ``null`` removes. Beneath each file lie the values that upstream
ships for that HAT or model, so a unit without any file is wired all the same.

:func:`pins_to_turn_off` gives the PWM pins alone, whatever else is wrong.
:func:`detect_hat` reads the version of the HAT that is plugged in.
:func:`shipped_files` gives the shipped values as files, for a fresh unit.

Cheap to import and to call: PyYAML is loaded only for a file that differs from
what is shipped. Sources: handbook jobs-and-hardware.md §1.1 to §1.3 and §1.6.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from piod.errors import ConfigurationError

logger = logging.getLogger(__name__)

Tree: TypeAlias = Mapping[str, object]

DEFAULT_PWM_PINS: Mapping[str, int] = MappingProxyType(
    {"1": 17, "2": 13, "3": 16, "4": 12, "5": 18}
)
"""PWM channel → GPIO on every HAT that is shipped; for turning off a unit whose
wiring cannot be read."""

ADC_DRIVERS = ("ads1115", "ads1114", "pico")

_FIRST_ADDRESS, _LAST_ADDRESS = 0x08, 0x77  # 7-bit I2C addresses that are not reserved
_LAST_GPIO = 27  # of the 40-pin header
_LAST_ADC_CHANNEL = 3


@dataclass(frozen=True)
class AdcEntry:
    """Where one analog signal is measured: chip, I2C address, input of the chip."""

    driver: str
    address: int
    channel: int


@dataclass(frozen=True)
class Wiring:
    """The wiring of one unit. Pins are BCM GPIO numbers, addresses 7-bit I2C.

    ``adc`` maps ``pd1`` … ``pd4`` (photodiodes), ``aux`` (PWM rail) and
    ``version``, as far as they are there. ``model_key`` is (name, version), or
    None while no model is known: then the HAT alone counts.
    """

    hat_version: str
    model_key: tuple[str, str] | None
    heater_pwm_channel: str
    pwm_pins: Mapping[str, int]
    adc: Mapping[str, AdcEntry]
    dac_address: int
    temp_address: int
    led_pin: int
    button_pin: int
    hall_pin: int
    sda_pin: int
    scl_pin: int


def load_wiring(hardware_dir: Path, hat_version: str, model: tuple[str, str] | None) -> Wiring:
    """The wiring of a unit with this HAT (``"1.2"``) and model (name, version).

    ``hardware_dir`` need not exist. Raises :class:`ConfigurationError` that
    names file and key: for a HAT that neither piod nor a file knows, for a file
    that cannot be read, for missing or impossible values, for two uses of one
    pin, and for two kinds of chips at one I2C address (HAZ-11: the boards of
    v1.5 and XR models on HAT 1.0, where commands for an ADC would set LEDs).
    """
    folders = _folders(hat_version, model)
    if not is_known_hat(hardware_dir, hat_version):
        known = ", ".join(HAT_VERSIONS)
        raise ConfigurationError(
            f"HAT version {hat_version!r} is unknown (known: {known})",
            remediation=f"Set [piod] hat_version to the version printed on the HAT, or describe "
            f"the HAT in hardware/{folders[0]}/.",
        )
    pwm = _Part(hardware_dir, folders, "pwm")
    pwm_pins = _pwm_pins(pwm)
    heater = str(pwm.value(("heater_pwm_channel",)))
    if heater not in pwm_pins:
        raise pwm.wrong(("heater_pwm_channel",), f"one of the channels {', '.join(pwm_pins)}")

    adc = _Part(hardware_dir, folders, "adc")
    entries = {
        signal: AdcEntry(
            driver=adc.choice((signal, "driver"), ADC_DRIVERS),
            address=adc.integer((signal, "address"), _FIRST_ADDRESS, _LAST_ADDRESS),
            channel=adc.integer((signal, "channel"), 0, _LAST_ADC_CHANNEL),
        )
        for signal in adc.keys(())
    }
    dac = _Part(hardware_dir, folders, "dac")
    temp = _Part(hardware_dir, folders, "temp")
    gpio = _Part(hardware_dir, folders, "gpio")
    wiring = Wiring(
        hat_version=hat_version,
        model_key=model,
        heater_pwm_channel=heater,
        pwm_pins=MappingProxyType(pwm_pins),
        adc=MappingProxyType(entries),
        dac_address=dac.integer(("address",), _FIRST_ADDRESS, _LAST_ADDRESS),
        temp_address=temp.integer(("address",), _FIRST_ADDRESS, _LAST_ADDRESS),
        led_pin=gpio.integer(("pcb_led_pin",), 0, _LAST_GPIO),
        button_pin=gpio.integer(("pcb_button_pin",), 0, _LAST_GPIO),
        hall_pin=gpio.integer(("hall_sensor_pin",), 0, _LAST_GPIO),
        sda_pin=gpio.integer(("sda_pin",), 0, _LAST_GPIO),
        scl_pin=gpio.integer(("scl_pin",), 0, _LAST_GPIO),
    )
    _check_pins(wiring, pwm, gpio)
    _check_addresses(wiring, adc, dac, temp)
    return wiring


def is_folder_name(text: str) -> bool:
    """Whether a HAT's version, a model's name or its version can be that of a folder."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9 ._-]*", text) is not None


def is_known_hat(hardware_dir: Path, hat_version: str) -> bool:
    """Whether piod or a folder of ``hardware_dir`` describes this HAT; never raises."""
    try:
        folder = _folders(hat_version, None)[0]
    except ConfigurationError:
        return False
    # os.path: a closed folder is no folder, and no exception
    return hat_version in HAT_VERSIONS or os.path.isdir(hardware_dir / folder)


def pins_to_turn_off(
    hardware_dir: Path, hat_version: str, model: tuple[str, str] | None
) -> tuple[int, ...]:
    """The GPIOs of the PWM outputs, for turning everything off; never raises.

    Unlike :func:`load_wiring` it looks at the PWM part alone, so that nothing
    that is wrong elsewhere keeps an output on. Where that part is unusable the
    pins of every shipped HAT take its place, with a warning.
    """
    try:
        return tuple(_pwm_pins(_Part(hardware_dir, _folders(hat_version, model), "pwm")).values())
    except ConfigurationError as error:
        logger.warning("Turning off the usual PWM pins: %s", error.message)
        return tuple(DEFAULT_PWM_PINS.values())


def led_chip(hat_version: str) -> str:
    """Which chip drives the LEDs: ``DAC43608``, or ``RP2040`` from HAT 1.1 on."""
    return "DAC43608" if hat_version in ("0.1", "1.0") else "RP2040"


def led_chip_to_turn_off(
    hardware_dir: Path, hat_version: str, model: tuple[str, str] | None
) -> tuple[str, int]:
    """Chip (``RP2040``, ``DAC43608``) and I2C address of the LEDs; never raises.

    As :func:`pins_to_turn_off`: where the part is unusable, what is shipped takes its place.
    """
    chip = led_chip(hat_version)
    try:
        dac = _Part(hardware_dir, _folders(hat_version, model), "dac")
        return chip, dac.integer(("address",), _FIRST_ADDRESS, _LAST_ADDRESS)
    except ConfigurationError as error:
        logger.warning("Turning off LEDs at the usual address: %s", error.message)
        return chip, 0x49 if chip == "DAC43608" else 0x2C


def detect_hat(root: Path = Path("/proc/device-tree/hat")) -> str | None:
    """The version of the Pioreactor HAT that is plugged in, such as ``"1.2"``.

    The firmware copies the HAT's EEPROM to the device tree; the last two
    characters of ``product_ver`` are its major and minor number, a hexadecimal
    digit each (so minor 10 is ``a``). None: no HAT, another maker's, or one
    that does not tell.
    """
    if (
        _hat_text(root / "vendor") != "Pioreactor Inc."
        or _hat_text(root / "product_id") != "0x0001"
    ):
        return None
    digits = re.fullmatch(r".*([0-9a-fA-F])([0-9a-fA-F])", _hat_text(root / "product_ver"))
    if digits is None:
        return None
    return f"{int(digits[1], 16)}.{int(digits[2], 16)}"


def shipped_files() -> Iterator[tuple[str, str]]:
    """Path below ``hardware/`` and YAML text of every file that upstream ships."""
    for path, tree in _SHIPPED.items():
        yield f"{path}.yaml", _as_yaml(tree)


def _folders(hat_version: str, model: tuple[str, str] | None) -> list[str]:
    folders = [f"hats/{_path_component(hat_version, 'HAT version')}"]
    if model is not None:
        name, version = (_path_component(part, "model") for part in model)
        folders.append(f"models/{name}/{version}")
    return folders


class _Part:
    """One part of the wiring, merged from its layers; knows which file said what."""

    def __init__(self, hardware_dir: Path, folders: Sequence[str], part: str) -> None:
        self._layers: list[tuple[str, Tree]] = []
        self._tree: Tree = {}
        for folder in folders:
            path = f"{folder}/{part}"
            shipped = _SHIPPED.get(path, {})
            if shipped:
                self._layers.append((f"hardware/{path}.yaml (as shipped)", shipped))
            written = _read(hardware_dir, f"{path}.yaml", shipped)
            if written:
                self._layers.append((f"hardware/{path}.yaml", written))
        for _, tree in self._layers:
            self._tree = _merged(self._tree, tree)
        self._expected_in = f"hardware/{folders[0]}/{part}.yaml"

    def source(self, keys: Sequence[str]) -> str:
        """The file that counts for a value."""
        for name, tree in reversed(self._layers):
            if _at(tree, keys) is not None:
                return name
        return self._expected_in

    def value(self, keys: Sequence[str]) -> object:
        value = _at(self._tree, keys)
        if value is None:
            raise ConfigurationError(f"{self.source(keys[:-1])}: {'.'.join(keys)} is missing")
        return value

    def keys(self, keys: Sequence[str]) -> list[str]:
        tree = _at(self._tree, keys)
        if not isinstance(tree, Mapping):
            raise ConfigurationError(f"{self.source(keys)}: {'.'.join(keys)} must be a mapping")
        return [str(key) for key in tree]

    def integer(self, keys: Sequence[str], low: int, high: int) -> int:
        value = self.value(keys)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(keys, f"a whole number from {low} to {high}")
        return value

    def choice(self, keys: Sequence[str], allowed: Sequence[str]) -> str:
        value = self.value(keys)
        if not isinstance(value, str) or value not in allowed:
            raise self.wrong(keys, f"one of {', '.join(allowed)}")
        return value

    def wrong(self, keys: Sequence[str], allowed: str) -> ConfigurationError:
        got = repr(_at(self._tree, keys))[:60]
        return ConfigurationError(
            f"{self.source(keys)}: {'.'.join(keys)} must be {allowed}, got {got}"
        )


def _pwm_pins(pwm: _Part) -> dict[str, int]:
    return {
        channel: pwm.integer(("pwm_to_pin", channel), 0, _LAST_GPIO)
        for channel in pwm.keys(("pwm_to_pin",))
    }


def _check_pins(wiring: Wiring, pwm: _Part, gpio: _Part) -> None:
    """Refuse two uses of one pin: the second owner would drive the first one's output."""
    uses: list[tuple[int, _Part, tuple[str, ...]]] = [
        (pin, pwm, ("pwm_to_pin", channel)) for channel, pin in wiring.pwm_pins.items()
    ]
    uses += [
        (gpio.integer((key,), 0, _LAST_GPIO), gpio, (key,))
        for key in ("pcb_led_pin", "pcb_button_pin", "hall_sensor_pin", "sda_pin", "scl_pin")
    ]
    taken: dict[int, str] = {}
    for pin, part, keys in uses:
        name = ".".join(keys)
        if pin in taken:
            raise ConfigurationError(
                f"{part.source(keys)}: {name} is GPIO {pin}, which is already {taken[pin]}"
            )
        taken[pin] = name


def _check_addresses(wiring: Wiring, adc: _Part, dac: _Part, temp: _Part) -> None:
    """Refuse different chips at one I2C address."""
    dac_chip = "pico" if led_chip(wiring.hat_version) == "RP2040" else "DAC43608"
    uses = [
        (wiring.dac_address, dac_chip, "the LED DAC", dac.source(("address",))),
        (wiring.temp_address, "TMP1075", "the temperature sensor", temp.source(("address",))),
    ]
    for signal, entry in wiring.adc.items():
        uses.append((entry.address, entry.driver, f"the ADC of {signal}", adc.source((signal,))))
    taken: dict[int, tuple[str, str, str]] = {}
    for address, chip, use, source in uses:
        other_chip, other_use, other_source = taken.setdefault(address, (chip, use, source))
        if chip != other_chip:
            model = (
                "no model"
                if wiring.model_key is None
                else "the model " + "/".join(wiring.model_key)
            )
            raise ConfigurationError(
                f"HAT {wiring.hat_version} cannot work with {model}: at I2C address "
                f"0x{address:02X} {use} ({chip}, {source}) would meet {other_use} "
                f"({other_chip}, {other_source})",
                remediation="Use a HAT of version 1.1 or later with this model, or correct "
                "[piod] hat_version and model_name, or the addresses in these files.",
            )


def _path_component(text: str, what: str) -> str:
    if not is_folder_name(text):
        raise ConfigurationError(f"{text!r} is not a {what}")
    return text


def _read(hardware_dir: Path, path: str, shipped: Tree) -> Tree:
    """What a file says beyond what is shipped; a missing or empty file says nothing."""
    name = f"hardware/{path}"
    try:
        text = (hardware_dir / path).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{name}: this is not UTF-8 text") from error
    if shipped and text == _as_yaml(shipped):
        return {}
    from piod import yaml_text

    try:
        document = yaml_text.load(text)
    except yaml_text.YamlProblem as error:
        raise ConfigurationError(f"{name}: {error}") from error
    if document is None:
        return {}
    tree = _with_text_keys(document)
    if not isinstance(tree, Mapping):
        raise ConfigurationError(f"{name}: the file must hold a mapping of keys to values")
    return tree


def _with_text_keys(value: object) -> object:
    # YAML reads an unquoted channel as a number; both spellings mean the channel.
    if not isinstance(value, Mapping):
        return value
    return {str(key): _with_text_keys(inner) for key, inner in value.items()}


def _merged(base: Tree, over: Tree) -> Tree:
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            below = result.get(key)
            result[key] = _merged(below if isinstance(below, Mapping) else {}, value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


def _at(tree: Tree, keys: Sequence[str]) -> object:
    value: object = tree
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _hat_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("ascii", "replace").strip("\0 \n")
    except OSError:
        return ""


def _as_yaml(tree: Tree, indent: str = "") -> str:
    lines = []
    for key, value in tree.items():
        label = f'{indent}"{key}":' if key.isdigit() else f"{indent}{key}:"
        if isinstance(value, Mapping):
            lines.append(f"{label}\n{_as_yaml(value, indent + '  ')}")
        elif isinstance(value, int):
            lines.append(f"{label} 0x{value:02X}\n" if key == "address" else f"{label} {value}\n")
        else:
            lines.append(f'{label} "{value}"\n')
    return "".join(lines)


def _adc(driver: str, address: int, channel: int) -> Tree:
    return {"driver": driver, "address": address, "channel": channel}


def _hat(adc: Tree, dac_address: int, button_pin: int, hall_pin: int) -> dict[str, Tree]:
    return {
        "pwm": {"heater_pwm_channel": "5", "pwm_to_pin": dict(DEFAULT_PWM_PINS)},
        "adc": adc,
        "dac": {"address": dac_address},
        "temp": {"address": 0x4F},
        "gpio": {
            "pcb_led_pin": 23,
            "pcb_button_pin": button_pin,
            "hall_sensor_pin": hall_pin,
            "sda_pin": 2,
            "scl_pin": 3,
        },
    }


_HAT_1_0 = _hat(
    {
        "aux": _adc("ads1115", 0x48, 3),
        "version": _adc("ads1115", 0x48, 2),
        "pd1": _adc("ads1115", 0x48, 1),
        "pd2": _adc("ads1115", 0x48, 0),
    },
    dac_address=0x49,
    button_pin=24,
    hall_pin=25,
)
_HAT_1_1 = _hat(
    {
        "aux": _adc("pico", 0x2C, 1),
        "version": _adc("pico", 0x2C, 0),
        "pd1": _adc("pico", 0x2C, 2),
        "pd2": _adc("pico", 0x2C, 3),
    },
    dac_address=0x2C,
    button_pin=4,
    hall_pin=21,
)
# The 40 ml 1.5 board exists with 0x48/0x49 too: then a file of the unit says so.
_OPTICS_1_5 = {"pd1": _adc("ads1114", 0x49, 0), "pd2": _adc("ads1114", 0x4A, 0)}
_OPTICS_XR = {**_OPTICS_1_5, "pd3": _adc("ads1114", 0x4B, 0), "pd4": _adc("ads1114", 0x48, 0)}

_HATS = {"1.0": _HAT_1_0, "1.1": _HAT_1_1, "1.2": _HAT_1_1}
HAT_VERSIONS = tuple(_HATS)
"""The HATs whose wiring is built in."""

_SHIPPED: Mapping[str, Tree] = {
    **{f"hats/{hat}/{part}": tree for hat, parts in _HATS.items() for part, tree in parts.items()},
    "models/pioreactor_20ml/1.5/adc": _OPTICS_1_5,
    "models/pioreactor_40ml/1.5/adc": _OPTICS_1_5,
    "models/pioreactor_20ml_XR/1.5/adc": _OPTICS_XR,
    "models/pioreactor_40ml_XR/1.5/adc": _OPTICS_XR,
}
