"""The unit's configuration: ``config.ini`` with ``unit_config.ini`` over it.

- :class:`ConfigFiles` watches the two files. :meth:`ConfigFiles.current` costs
  two ``stat`` calls while nothing has changed; a broken file never replaces
  the last good configuration, and :attr:`ConfigFiles.problem` says what is
  wrong with it.
- :class:`Config` is one immutable reading of them. A job keeps the one that it
  started with, with its overrides on top (:meth:`Config.with_overrides`).

The dialect is upstream's: sections and keys are case-sensitive, a repeated key
counts the last time, a key may stand without a value, only whole lines are
comments, nothing is interpolated, text is UTF-8. (``[DEFAULT]`` is a section
like any other.)
"""

from __future__ import annotations

import configparser
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from piod.errors import ConfigurationError

_Number = TypeVar("_Number", bound="float | None")
_Integer = TypeVar("_Integer", bound="int | None")
_Boolean = TypeVar("_Boolean", bound="bool | None")
_Text = TypeVar("_Text", bound="str | None")

logger = logging.getLogger(__name__)

SHARED_FILE = "config.ini"
UNIT_FILE = "unit_config.ini"

DEFAULT_PWM_ROLES: Mapping[str, str] = MappingProxyType(
    {"stirring": "1", "media": "2", "alt_media": "3", "waste": "4", "heating": "5"}
)
"""Role → PWM channel of a unit without a [PWM] section."""

DEFAULT_LED_ROLES: Mapping[str, str] = MappingProxyType({"IR": "A"})
"""Role → LED channel of a unit without a [leds] section."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


@dataclass(frozen=True)
class _Layer:
    """What one file, or one set of overrides, says; ``name`` is for messages."""

    name: str
    sections: Mapping[str, Mapping[str, str]]


class Config:
    """An immutable reading of the configuration.

    Values are looked up by section and key; one that is not there gives the
    default, one that is there and cannot be used raises
    :class:`ConfigurationError` with its place, its value and what is allowed.
    A key without a value is there, with the empty text.
    """

    __slots__ = ("_layers", "problem")

    def __init__(self, layers: Iterable[_Layer] = (), *, problem: str | None = None) -> None:
        self._layers = tuple(layers)
        self.problem = problem
        """Set when this (empty) configuration stands in for one that could not be read."""

    def has(self, section: str, key: str | None = None) -> bool:
        """Whether there is such a section, or such a key in it."""
        if key is not None:
            return self._find(section, key) is not None
        return any(section in layer.sections for layer in self._layers)

    def items(self, section: str) -> Mapping[str, str]:
        """Key → value of a section; empty when there is no such section."""
        merged: dict[str, str] = {}
        for layer in self._layers:
            merged.update(layer.sections.get(section, {}))
        return merged

    def text(self, section: str, key: str, default: _Text) -> str | _Text:
        """The value as it stands, without surrounding blanks."""
        found = self._find(section, key)
        return default if found is None else found[0]

    def number(
        self,
        section: str,
        key: str,
        default: _Number,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> float | _Number:
        """A finite number, from ``minimum`` to ``maximum`` inclusive.

        The default is not checked. Raises ConfigurationError.
        """
        found = self._find(section, key)
        if found is None:
            return default
        number = float(found[0]) if _DECIMAL.fullmatch(found[0]) else math.nan
        if not math.isfinite(number) or not _within(number, minimum, maximum):
            raise self._refusal(section, key, "a number" + _range_text(minimum, maximum))
        return number

    def integer(
        self,
        section: str,
        key: str,
        default: _Integer,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
    ) -> int | _Integer:
        """A whole number, from ``minimum`` to ``maximum`` inclusive.

        The default is not checked. Raises ConfigurationError.
        """
        found = self._find(section, key)
        if found is None:
            return default
        if not _WHOLE.fullmatch(found[0]) or not _within(int(found[0]), minimum, maximum):
            raise self._refusal(section, key, "a whole number" + _range_text(minimum, maximum))
        return int(found[0])

    def boolean(self, section: str, key: str, default: _Boolean) -> bool | _Boolean:
        """1, true, yes, on; 0, false, no, off; in any case. Raises ConfigurationError."""
        found = self._find(section, key)
        if found is None:
            return default
        word = found[0].lower()
        if word not in _TRUE and word not in _FALSE:
            raise self._refusal(section, key, "one of 1, true, yes, on, 0, false, no, off")
        return word in _TRUE

    def pwm_roles(self) -> Mapping[str, str]:
        """Role → PWM channel, from [PWM] (channel = role); without it, the usual wiring.

        Channels without a role are left out. The heater does not go by this: its
        channel is part of the wiring. Raises ConfigurationError when a role is
        given to two channels, or when the configuration could not be read: an
        output is never assigned by guess.
        """
        return self._roles("PWM", DEFAULT_PWM_ROLES)

    def led_roles(self) -> Mapping[str, str]:
        """Role → LED channel, from [leds] (channel = role). As :meth:`pwm_roles`."""
        return self._roles("leds", DEFAULT_LED_ROLES)

    def with_overrides(self, overrides: Iterable[tuple[str, str, str]]) -> Config:
        """This configuration with (section, key, value) triples over it.

        A key may be new, a section may not: ConfigurationError.
        """
        sections: dict[str, dict[str, str]] = {}
        for section, key, value in overrides:
            if not self.has(section):
                known = ", ".join(sorted({name for x in self._layers for name in x.sections}))
                raise ConfigurationError(
                    f"config_overrides: there is no section [{section}] in the configuration "
                    f"(there is: {known or 'none'})",
                    remediation="Name a section that the configuration of this unit has.",
                )
            sections.setdefault(section, {})[key] = value.strip()
        if not sections:
            return self
        return Config([*self._layers, _Layer("config_overrides", sections)], problem=self.problem)

    def _find(self, section: str, key: str) -> tuple[str, str] | None:
        """The value that counts and the name of the layer it stands in."""
        for layer in reversed(self._layers):
            value = layer.sections.get(section, {}).get(key)
            if value is not None:
                return value, layer.name
        return None

    def _refusal(self, section: str, key: str, allowed: str) -> ConfigurationError:
        value, place = self._find(section, key) or ("", "configuration")
        got = repr(value) if value else "nothing"
        return ConfigurationError(f"{place}: [{section}] {key} must be {allowed}, got {got}")

    def _roles(self, section: str, default: Mapping[str, str]) -> Mapping[str, str]:
        if self.problem is not None:
            raise ConfigurationError(
                f"no output can be assigned while the configuration cannot be read: {self.problem}",
                cause=self.problem,
            )
        if not self.has(section):
            return default
        roles: dict[str, str] = {}
        for channel, role in self.items(section).items():
            if role and role in roles:
                raise self._refusal(section, channel, f"a role that channel {roles[role]} lacks")
            if role:
                roles[role] = channel
        return roles


class ConfigFiles:
    """The files of the configuration, read again when they change.

    ``directory`` is the data directory. ``shared_file`` and ``unit_file``
    replace the usual paths (upstream's GLOBAL_CONFIG and LOCAL_CONFIG). A file
    that does not exist says nothing: a fresh install has none of them, where
    upstream gives up without the shared one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        shared_file: Path | None = None,
        unit_file: Path | None = None,
    ) -> None:
        self.paths = (shared_file or directory / SHARED_FILE, unit_file or directory / UNIT_FILE)
        self.problem: str | None = None
        """What is wrong with the files as they are now: file, line and reason; for health."""
        self._seen: list[tuple[int, int, int] | None] | None = None
        self._config = Config(problem="the configuration was not read yet")

    def current(self) -> Config:
        """The configuration now; never raises.

        While a file is broken, the last good configuration stays in force. If
        there never was one, an empty :class:`Config` that carries the problem.
        """
        # Stat before reading: a change while it is read is noticed next time.
        seen = [_identity(path) for path in self.paths]
        if seen != self._seen:
            self._seen = seen
            self._read()
        return self._config

    def _read(self) -> None:
        try:
            config = Config(_layer(path) for path in self.paths)
        except ConfigurationError as error:
            self.problem = error.message
            logger.error("Configuration not taken over: %s", error.message)
            if self._config.problem is not None:
                self._config = Config(problem=self.problem)
        else:
            self.problem = None
            self._config = config


class _CaseKeepingParser(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _layer(path: Path) -> _Layer:
    """Read one file; a missing one is empty. Raises ConfigurationError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _Layer(path.name, {})
    except OSError as error:
        raise ConfigurationError(f"{path.name} cannot be read: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path.name}, line {line}: this is not UTF-8 text") from error
    for number, content_line in enumerate(text.splitlines(), start=1):
        if content_line.startswith("[") and "]" not in content_line:
            # the parser would take it for a key, and what follows for the section before
            raise ConfigurationError(
                f"{path.name}, line {number}: {content_line.strip()!r} lacks the closing ]"
            )
    # A section name is never empty, so no section is a default one.
    parser = _CaseKeepingParser(strict=False, allow_no_value=True, default_section="")
    try:
        parser.read_string(text, source=path.name)
    except configparser.MissingSectionHeaderError as error:
        raise ConfigurationError(
            f"{path.name}, line {error.lineno}: {error.line.strip()!r} stands before any [section]"
        ) from error
    except configparser.ParsingError as error:
        line, content_repr = error.errors[0]
        raise ConfigurationError(
            f"{path.name}, line {line}: {content_repr} is neither a [section] nor key = value"
        ) from error
    except AttributeError as error:
        # Python before 3.13 trips over an indented line below a key without value.
        raise ConfigurationError(
            f"{path.name}: an indented line continues a key that has no value"
        ) from error
    return _Layer(
        path.name,
        {
            section: {key: (value or "").strip() for key, value in parser.items(section)}
            for section in parser.sections()
        },
    )


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Differs when the file differs; None: no such file (or no way to look)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _within(number: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or number >= minimum) and (maximum is None or number <= maximum)


def _range_text(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum:g} to {maximum:g}"
    if minimum is not None:
        return f" of at least {minimum:g}"
    if maximum is not None:
        return f" of at most {maximum:g}"
    return ""
