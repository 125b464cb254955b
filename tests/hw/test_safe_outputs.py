"""Every output off from outside the daemon."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from fake_sysfs import FakeSysfs, is_off

from piod import launch
from piod.hw import off
from piod.hw.safe import FAILED, linux_recipes, simulated_recipes, turn_all_off


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    path = tmp_path / "simulator" / "outputs.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"pwm": {"17": 40.5, "13": 1e-05}, "led": {"A": 80, "B": 0.0}}))
    return path


def test_wired_channels_of_the_kernel_are_turned_off_and_nothing_else(tmp_path: Path) -> None:
    sysfs = FakeSysfs(tmp_path)
    soc = sysfs.add_chip("fe20c000.pwm", 2, exported=False)
    pump = sysfs.make_channel(soc, 0, period=4_000_000, duty=4_000_000)
    fan = sysfs.make_channel(
        sysfs.add_chip("1f0009c000.pwm", 4, exported=False), 3, period=40_000, duty=20_000
    )
    sysfs.add_pwm_gpio(17, exported=False)
    recipes = linux_recipes([17, 12, 13], str(sysfs.root), chip="/dev/gpiochip0")
    assert turn_all_off(recipes) == ["pwm:17: off", "pwm:12: off", "pwm:13: off"]
    assert is_off(pump)
    assert not is_off(fan)
    assert not (soc / "pwm1").exists(), "nothing was claimed"


def test_pin_without_kernel_pwm_is_driven_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel reads the request; checked with python-periphery's view of it."""
    cdev = pytest.importorskip("periphery.gpio_cdev2")
    requests: list[Any] = []

    def ioctl(fd: int, number: int, request: bytearray, mutate: bool) -> int:
        assert number == cdev.Cdev2GPIO._GPIO_V2_GET_LINE_IOCTL
        view = cdev._CGpioV2LineRequest.from_buffer(request)
        view.fd = os.open(os.devnull, os.O_RDONLY)
        requests.append(view)
        return 0

    monkeypatch.setattr(off.fcntl, "ioctl", ioctl)
    chip = tmp_path / "gpiochip0"
    chip.touch()
    recipes = linux_recipes([17, 300], str(tmp_path / "no sysfs"), chip=str(chip))
    opened = len(os.listdir("/proc/self/fd"))
    assert turn_all_off(recipes) == ["pwm:17: off", "pwm:300: off"]
    assert len(os.listdir("/proc/self/fd")) == opened
    for request, line in zip(requests, (17, 300), strict=True):
        assert (request.num_lines, request.offsets[0]) == (1, line)
        assert request.consumer == b"piod off"
        assert request.config.flags == cdev.Cdev2GPIO._GPIO_V2_LINE_FLAG_OUTPUT
        assert request.config.num_attrs == 1
        attribute = request.config.attrs[0]
        assert attribute.attr.id == cdev.Cdev2GPIO._GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES
        assert (attribute.attr.data.values, attribute.mask) == (0, 1)


def test_held_line_is_told_within_a_second_and_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*arguments: object) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(off.fcntl, "ioctl", busy)
    (tmp_path / "gpiochip0").touch()
    sysfs = FakeSysfs(tmp_path)
    pump = sysfs.add_chip("fe20c000.pwm", 2, exported=False)
    sysfs.make_channel(pump, 0, period=4_000_000, duty=4_000_000)
    begun = time.monotonic()
    recipes = linux_recipes([17, 12], str(sysfs.root), chip=str(tmp_path / "gpiochip0"))
    lines = turn_all_off(recipes)
    assert time.monotonic() - begun < 1
    assert lines[0] == "pwm:12: off"
    assert lines[1].startswith(f"{FAILED} pwm:17: [Errno {errno.EBUSY}]")
    assert is_off(pump / "pwm0")


def test_enable_is_written_even_if_the_duty_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysfs = FakeSysfs(tmp_path)
    chip = sysfs.add_chip("fe20c000.pwm", 2, exported=False)
    pump = sysfs.make_channel(chip, 0, period=4_000_000, duty=4_000_000)
    sysfs.obey_the_kernel(monkeypatch)

    def refuse(path: str, text: str) -> None:
        if refused in path:
            raise OSError(errno.EIO, "Input/output error")

    sysfs.refuse = refuse
    refused = "/"
    with pytest.raises(OSError, match="Input/output error"):
        off.turn_off(off.pwm_recipe(str(pump)))
    refused = "duty_cycle"
    off.turn_off(off.pwm_recipe(str(pump)))
    assert (pump / "enable").read_text() == "0\n"


def test_simulated_outputs_are_all_put_to_0(outputs: Path) -> None:
    recipes = simulated_recipes(str(outputs.parents[1]), ["pwm:17", "led:A"])
    assert turn_all_off(recipes) == ["simulated outputs: off"]
    assert json.loads(outputs.read_text()) == {
        "pwm": {"17": 0.0, "13": 0.0},
        "led": {"A": 0.0, "B": 0.0},
    }
    assert os.listdir(outputs.parent) == ["outputs.json"]


def test_one_simulated_output_leaves_the_others_as_they_are(outputs: Path) -> None:
    off.turn_off(off.simulated_recipe(str(outputs), "pwm:17", ["pwm:17", "led:A"]))
    assert json.loads(outputs.read_text()) == {
        "pwm": {"17": 0.0, "13": 1e-05},
        "led": {"A": 80.0, "B": 0.0},
    }


@pytest.mark.parametrize("indent", [None, 2])
def test_a_file_that_another_wrote_is_read_in_any_layout(outputs: Path, indent: int | None) -> None:
    held = {"led": {}, "pwm": {"17": 100, "4": 3.25}}
    outputs.write_text(json.dumps(held, indent=indent))
    off.turn_off(off.simulated_recipe(str(outputs), "pwm:17", ["pwm:17"]))
    assert json.loads(outputs.read_text()) == {"led": {}, "pwm": {"17": 0.0, "4": 3.25}}


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"pwm": {"17": "on"}}', '{"pwm": [1]}', "\0\xff", "null"]
)
def test_unreadable_file_becomes_one_in_which_all_known_outputs_are_off(
    outputs: Path, text: str | None
) -> None:
    outputs.unlink()
    if text is not None:
        outputs.write_text(text, encoding="latin-1")
    off.turn_off(off.simulated_recipe(str(outputs), "pwm:17", ["pwm:17", "pwm:13", "led:A"]))
    assert json.loads(outputs.read_text()) == {"pwm": {"17": 0.0, "13": 0.0}, "led": {"A": 0.0}}


def test_unit_that_is_gone_has_nothing_on(tmp_path: Path) -> None:
    recipes = simulated_recipes(str(tmp_path / "gone"), ["pwm:17"])
    assert turn_all_off(recipes) == ["simulated outputs: off"]
    assert os.listdir(tmp_path) == []


def test_a_path_may_have_blanks_but_no_line_feed(outputs: Path) -> None:
    spaced = outputs.parent / "a b  c.json"
    outputs.rename(spaced)
    off.turn_off(off.simulated_recipe(str(spaced), off.EVERY, ["pwm:17"]))
    assert json.loads(spaced.read_text())["pwm"] == {"17": 0.0, "13": 0.0}
    with pytest.raises(ValueError, match="one line"):
        off.pwm_recipe("/sys/a\nb")


@pytest.mark.parametrize("recipe", ["", "pwm", "pwm ", "simulated a b", "line x /dev/null", "?"])
def test_what_is_no_recipe_is_refused(recipe: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        off.turn_off(recipe)


# -- a slip on the command line ----------------------------------------------------------


def _outputs(data_dir: Path, hat: str | None, model: str | None) -> launch.Outputs:
    config = launch.configuration(data_dir).current()
    return launch.outputs_of(data_dir, config, simulate=False, hat=hat, model=model)


@pytest.mark.parametrize(
    ("hat", "model"),
    [
        ("9.9", None),
        ("../..", None),
        (None, "nonsense"),
        (None, "../1"),
        (None, "a/1,5"),
        ("9", "a"),
    ],
)
def test_an_option_that_cannot_be_used_does_not_hide_what_the_unit_has(
    tmp_path: Path, hat: str | None, model: str | None
) -> None:
    (tmp_path / "unit_config.ini").write_text(
        "[piod]\nhat_version = 1.0\nmodel_name = mine\nmodel_version = 1\n"
    )
    for folder, entry in (("hats/1.0", "1: 22"), ("models/mine/1", "2: 23")):
        pwm = tmp_path / "hardware" / folder / "pwm.yaml"
        pwm.parent.mkdir(parents=True)
        pwm.write_text(f"pwm_to_pin: {{{entry}}}\n")
    configured = _outputs(tmp_path, None, None)
    assert {22, 23} <= set(configured.pins)
    assert [chip for chip, _ in configured.led_chips] == ["DAC43608"]
    found = _outputs(tmp_path, hat, model)
    assert set(configured.led_chips) <= set(found.led_chips)
    assert set(configured.pins) <= set(found.pins)


def test_a_hat_that_is_given_counts_beside_a_model_that_is_nonsense(tmp_path: Path) -> None:
    assert _outputs(tmp_path, "1.0", "nonsense") == _outputs(tmp_path, "1.0", None)
    (tmp_path / "unit_config.ini").write_text("[piod]\nhat_version = 1.0\nmodel_name = half\n")
    assert [chip for chip, _ in _outputs(tmp_path, None, None).led_chips] == ["DAC43608"]
