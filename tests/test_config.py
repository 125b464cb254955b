"""The configuration: dialect, typed access, and what a broken file does."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import pytest

from piod.config import Config, ConfigFiles
from piod.errors import ConfigurationError


def config_of(tmp_path: Path, shared: str | bytes | None, unit: str | None = None) -> Config:
    """The configuration that these two files make."""
    files = ConfigFiles(tmp_path)
    if shared is not None:
        files.paths[0].write_bytes(shared.encode() if isinstance(shared, str) else shared)
    if unit is not None:
        files.paths[1].write_text(unit)
    config = files.current()
    assert files.problem is None
    return config


def test_unit_file_wins_key_by_key(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        "[stirring.config]\npwm_hz=200\nuse_rpm=1\n[only.shared]\na=1\n",
        "[stirring.config]\npwm_hz=67\n[only.unit]\nb=2\n",
    )
    assert config.number("stirring.config", "pwm_hz", 1.0) == 67.0
    assert config.boolean("stirring.config", "use_rpm", False) is True
    assert config.items("stirring.config") == {"pwm_hz": "67", "use_rpm": "1"}
    assert config.has("only.shared", "a")
    assert config.has("only.unit")
    assert not config.has("only.unit", "a")


def test_dialect_is_upstreams(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        b"\xef\xbb\xbf# a comment\n[leds]\nA=IR\na = other\n; another\nblank=\nbare\n"
        b"note = 5 ; no comment\nrate = %(x)s 100%\nA=White\n[leds]\nB:UV\n"
        b"[DEFAULT]\nq=1\n[\xc3\xa9t\xc3\xa9]\nk=\xc2\xb5\n",
    )
    assert config.items("leds") == {
        "A": "White",
        "a": "other",
        "blank": "",
        "bare": "",
        "note": "5 ; no comment",
        "rate": "%(x)s 100%",
        "B": "UV",
    }
    assert config.text("été", "k", "") == "µ"
    assert not config.has("leds", "q")
    assert config.items("DEFAULT") == {"q": "1"}


def test_fresh_install_has_an_empty_configuration(tmp_path: Path) -> None:
    config = config_of(tmp_path, None)
    assert config.problem is None
    assert not config.has("stirring.config")
    assert config.items("stirring.config") == {}
    assert config.text("a", "b", None) is None
    assert config.text("a", "b", "c") == "c"
    assert config.number("a", "b", None) is None
    assert config.integer("a", "b", 3) == 3
    assert config.boolean("a", "b", None) is None


def test_paths_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "cluster.ini").write_text("[a]\nk=1\nl=1\n")
    (tmp_path / "mine.ini").write_text("[a]\nk=2\n")
    files = ConfigFiles(
        tmp_path / "nowhere",
        shared_file=tmp_path / "cluster.ini",
        unit_file=tmp_path / "mine.ini",
    )
    assert files.current().items("a") == {"k": "2", "l": "1"}


@pytest.mark.parametrize(
    ("text", "number"), [("5", 5.0), ("-.5", -0.5), ("2.", 2.0), ("1e-3", 1e-3), ("+4", 4.0)]
)
def test_number_is_read(tmp_path: Path, text: str, number: float) -> None:
    assert config_of(tmp_path, f"[s]\nk= {text} \n").number("s", "k", None) == number


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e999", "1_000", "5 ; five", "0x10", "٣"])
def test_number_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    config = config_of(tmp_path, "", f"[stirring.config]\npwm_hz = {text}\n")
    with pytest.raises(ConfigurationError) as refusal:
        config.number("stirring.config", "pwm_hz", 200.0)
    message = refusal.value.message
    assert message.startswith("unit_config.ini: [stirring.config] pwm_hz must be a number, got ")
    assert text in message


@pytest.mark.parametrize(
    ("value", "fits"), [("0", True), ("100", True), ("-1", False), ("101", False)]
)
def test_number_and_integer_keep_their_range(tmp_path: Path, value: str, fits: bool) -> None:
    config = config_of(tmp_path, f"[s]\nk={value}\n")
    if fits:
        assert config.number("s", "k", 5, minimum=0, maximum=100) == float(value)
        assert config.integer("s", "k", 5, minimum=0, maximum=100) == int(value)
        return
    with pytest.raises(ConfigurationError, match=r"config\.ini: \[s\] k .*from 0 to 100, got"):
        config.number("s", "k", 5, minimum=0, maximum=100)
    with pytest.raises(ConfigurationError, match=r"a whole number from 0 to 100, got"):
        config.integer("s", "k", 5, minimum=0, maximum=100)


def test_range_open_to_one_side_is_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, "[s]\nk=5\n")
    with pytest.raises(ConfigurationError, match="of at least 6, got '5'"):
        config.number("s", "k", None, minimum=6)
    with pytest.raises(ConfigurationError, match="of at most 4, got '5'"):
        config.integer("s", "k", None, maximum=4)


@pytest.mark.parametrize("text", ["1.0", "", "1e3", "9" * 5000])
def test_integer_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="must be a whole number"):
        config_of(tmp_path, f"[s]\nk={text}\n").integer("s", "k", 1)


@pytest.mark.parametrize("word", ["1", "true", "YES", "On"])
def test_boolean_true(tmp_path: Path, word: str) -> None:
    assert config_of(tmp_path, f"[s]\nk={word}\n").boolean("s", "k", False) is True


@pytest.mark.parametrize("word", ["0", "False", "no", "OFF"])
def test_boolean_false(tmp_path: Path, word: str) -> None:
    assert config_of(tmp_path, f"[s]\nk={word}\n").boolean("s", "k", True) is False


@pytest.mark.parametrize("word", ["", "2", "y", "true # yes"])
def test_boolean_is_refused(tmp_path: Path, word: str) -> None:
    with pytest.raises(ConfigurationError, match=r"\[s\] k must be one of 1, true"):
        config_of(tmp_path, f"[s]\nk={word}\n").boolean("s", "k", True)


def test_overrides_win_and_leave_the_original_alone(tmp_path: Path) -> None:
    config = config_of(tmp_path, "[s]\nk=1\n", "[s]\nk=2\n")
    overridden = config.with_overrides([("s", "k", "3"), ("s", "new", "x"), ("s", "k", " 4 ")])
    assert overridden.items("s") == {"k": "4", "new": "x"}
    assert config.items("s") == {"k": "2"}
    with pytest.raises(ConfigurationError, match=r"config_overrides: \[s\] new must be a number"):
        overridden.number("s", "new", 1.0)


def test_override_of_an_unknown_section_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, "[s]\nk=1\n")
    with pytest.raises(ConfigurationError, match=r"no section \[S\].*there is: s\)"):
        config.with_overrides([("s", "k", "2"), ("S", "k", "2")])


def test_roles_default_to_the_usual_wiring(tmp_path: Path) -> None:
    config = config_of(tmp_path, None)
    assert config.pwm_roles() == {
        "stirring": "1",
        "media": "2",
        "alt_media": "3",
        "waste": "4",
        "heating": "5",
    }
    assert config.led_roles() == {"IR": "A"}


def test_roles_come_from_their_sections_and_empty_ones_are_dropped(tmp_path: Path) -> None:
    config = config_of(tmp_path, "[PWM]\n1=media\n2=\n3=stirring\n[leds]\nA=White\nB=IR\nC\n")
    assert config.pwm_roles() == {"media": "1", "stirring": "3"}
    assert config.led_roles() == {"White": "A", "IR": "B"}


def test_unit_file_can_move_a_role(tmp_path: Path) -> None:
    config = config_of(tmp_path, "[PWM]\n1=stirring\n2=media\n", "[PWM]\n1=media\n2=stirring\n")
    assert config.pwm_roles() == {"media": "1", "stirring": "2"}


def test_role_given_twice_is_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, "[PWM]\n2=media\n4=media\n")
    with pytest.raises(ConfigurationError, match=r"config\.ini: \[PWM\] 4 .*channel 2.*'media'"):
        config.pwm_roles()


def test_change_is_seen(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    files.paths[0].write_text("[s]\nk=1\n")
    before = files.current()
    assert files.current() is before
    replacement = tmp_path / "new"
    replacement.write_text("[s]\nk=2\n")  # as long as the old one
    os.replace(replacement, files.paths[0])
    assert files.current().text("s", "k", "") == "2"
    assert before.text("s", "k", "") == "1"
    files.paths[1].write_text("[s]\nk=3\n")
    assert files.current().text("s", "k", "") == "3"
    files.paths[1].unlink()
    assert files.current().text("s", "k", "") == "2"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[s]\nk=1\n[oops]\n= 3\n", "line 4: '= 3\\n' is neither"),
        (b"\nk=1\n", "line 2: 'k=1' stands before any [section]"),
        (b"[s]\nk=1\nl=\xff\n", "line 3: this is not UTF-8 text"),
        # Pythons differ in what they say about it
        (b"[s]\nbare\n  more\n", "unit_config.ini"),
    ],
)
def test_broken_file_leaves_the_last_good_configuration_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, problem: str
) -> None:
    files = ConfigFiles(tmp_path)
    files.paths[0].write_text("[PWM]\n1=stirring\n")
    good = files.current()
    files.paths[1].write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert files.current() is good
        assert files.current() is good
    assert files.problem is not None
    assert files.problem.startswith("unit_config.ini")
    assert problem in files.problem
    assert [record.getMessage() for record in caplog.records] == [
        f"Configuration not taken over: {files.problem}"
    ]
    assert good.pwm_roles() == {"stirring": "1"}
    files.paths[1].write_text("[PWM]\n2=media\n")
    assert files.current().pwm_roles() == {"stirring": "1", "media": "2"}
    assert files.problem is None


def test_unreadable_file_is_a_problem(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    files.paths[0].mkdir()
    files.current()
    assert files.problem == "config.ini cannot be read: Is a directory"


def test_broken_from_the_start_is_empty_and_assigns_no_output(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    files.paths[0].write_text("[PWM]\n1=media\n")
    files.paths[1].write_text("1=stirring\n")
    config = files.current()
    assert files.problem is not None
    assert config.problem == files.problem
    assert not config.has("PWM")
    with pytest.raises(
        ConfigurationError, match=r"no output can be assigned.*unit_config\.ini, line 1"
    ):
        config.pwm_roles()
    with pytest.raises(ConfigurationError, match="no output can be assigned"):
        config.with_overrides([]).led_roles()
    files.paths[1].write_text("still broken\n")
    assert files.current().problem == files.problem
    files.paths[1].unlink()
    assert files.current().pwm_roles() == {"media": "1"}


def test_no_change_costs_no_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ConfigFiles(tmp_path)
    files.paths[0].write_text("[s]\nk=1\n")
    config = files.current()

    def refuse(self: Path) -> bytes:
        raise AssertionError(f"{self} was read again")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert files.current() is config
    assert math.isclose(config.number("s", "k", 0.0), 1.0)


def test_a_section_header_without_its_bracket_is_refused_with_its_line(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    files.paths[0].write_text("[leds]\nA=IR\n[PWM\n1=media\n")
    config = files.current()
    assert files.problem is not None
    assert "config.ini, line 3" in files.problem
    with pytest.raises(ConfigurationError):
        config.pwm_roles()
