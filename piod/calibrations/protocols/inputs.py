"""The fields of a form, and what a person types into them.

A step declares what it asks for::

    Number("volume_ml", "Volume", minimum=0.0001, help_text="In mL, as the scale shows it.")

and gets it typed, or the person hears what is wrong with it, by the field's name. Clients may
send numbers and yes/no as text, as pages do. A field that is ``required`` must be sent, also
when the page showed a default: what was measured is never guessed.

Source: handbook unit-api §4.2, §4.3, §8 (15).
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from piod.calibrations.names import check_name
from piod.errors import BadRequest
from piod.events import JsonValue

FieldType = Literal["string", "float", "int", "bool", "float_list", "choice"]
MAX_TEXT = 1000
MAX_NUMBERS = 100
"""In one list."""

_YES = frozenset({"true", "yes", "1", "y"})
_NO = frozenset({"false", "no", "0", "n"})


@dataclass(frozen=True)
class Field:
    """One field; ``label`` stands beside it, ``help_text`` below.

    ``default`` is what a page shows at first. One that is not ``required`` counts as its
    default when nothing is sent.
    """

    field_type: ClassVar[FieldType]

    name: str
    label: str
    default: JsonValue = None
    help_text: str | None = None
    required: bool = True

    def read(self, inputs: Mapping[str, object]) -> JsonValue:
        """What ``inputs`` hold for this field, typed; BadRequest that names the field."""
        given = inputs.get(self.name)
        if given is None or (isinstance(given, str) and not given.strip()):
            if self.required:
                raise BadRequest(
                    f"{self.name} is missing", remediation=f"Send the input {self.name}."
                )
            return self.default
        return self.parse(given)

    def parse(self, given: object) -> JsonValue:
        """The typed value of what was sent; BadRequest that names the field."""
        raise NotImplementedError

    def view(self) -> dict[str, JsonValue]:
        """The field as a page is told of it: every key, always."""
        return {
            "name": self.name,
            "label": self.label,
            "field_type": self.field_type,
            "required": self.required,
            "default": self.default,
            "options": None,
            "minimum": None,
            "maximum": None,
            "min_error_msg": None,
            "max_error_msg": None,
            "help_text": self.help_text,
        }


@dataclass(frozen=True)
class Text(Field):
    """One line of text, without blanks around it."""

    field_type = "string"

    def parse(self, given: object) -> JsonValue:
        if not isinstance(given, str):
            raise _wrong(self.name, "must be text", given)
        text = given.strip()
        if len(text) > MAX_TEXT:
            raise BadRequest(f"{self.name} must not be longer than {MAX_TEXT} characters")
        if not text.isprintable():
            raise BadRequest(f"{self.name} must be one line of printable text")
        return text


@dataclass(frozen=True)
class Name(Text):
    """The name of an artifact, by the rule of :mod:`piod.calibrations.names`."""

    def parse(self, given: object) -> JsonValue:
        text = super().parse(given)
        name = check_name(text, self.name)
        if len(name) > MAX_NAME:
            raise BadRequest(f"{self.name} must not be longer than {MAX_NAME} characters")
        return name


MAX_NAME = 250
"""The name of a file is it with .yaml behind it."""


@dataclass(frozen=True)
class Number(Field):
    """A finite number from ``minimum`` to ``maximum``, inclusive."""

    field_type: ClassVar[FieldType] = "float"

    minimum: float | None = None
    maximum: float | None = None
    min_error_msg: str | None = None
    max_error_msg: str | None = None

    def parse(self, given: object) -> JsonValue:
        number = _number(given, self.name)
        self._check(number)
        return number

    def _check(self, number: float) -> None:
        if self.minimum is not None and number < self.minimum:
            self._refuse(self.min_error_msg, f"at least {self.minimum:g}", number)
        if self.maximum is not None and number > self.maximum:
            self._refuse(self.max_error_msg, f"at most {self.maximum:g}", number)

    def _refuse(self, own_words: str | None, allowed: str, number: float) -> None:
        said = f"{self.name} must be {allowed}, got {number:g}"
        raise BadRequest(said if own_words is None else f"{self.name}: {own_words}", cause=said)

    def view(self) -> dict[str, JsonValue]:
        return {
            **super().view(),
            "minimum": self.minimum,
            "maximum": self.maximum,
            "min_error_msg": self.min_error_msg,
            "max_error_msg": self.max_error_msg,
        }


@dataclass(frozen=True)
class WholeNumber(Number):
    """A whole number from ``minimum`` to ``maximum``, inclusive."""

    field_type = "int"

    def parse(self, given: object) -> JsonValue:
        number = _number(given, self.name)
        if not number.is_integer():
            raise _wrong(self.name, "must be a whole number", given)
        self._check(number)
        return int(number)


@dataclass(frozen=True)
class Numbers(Field):
    """A list of finite numbers, at least one; as text with commas between them.

    ``above``: each must be greater than that. ``maximum``: none may be greater.
    """

    field_type = "float_list"

    above: float | None = None
    maximum: float | None = None

    def parse(self, given: object) -> JsonValue:
        items: Sequence[object]
        if isinstance(given, str):
            items = [item for item in given.split(",") if item.strip()]
        elif isinstance(given, list):
            items = given
        else:
            items = [given]
        if not items:
            raise BadRequest(f"{self.name} needs at least one number")
        if len(items) > MAX_NUMBERS:
            raise BadRequest(f"{self.name} takes at most {MAX_NUMBERS} numbers")
        return [self._checked(_number(item, self.name)) for item in items]

    def _checked(self, number: float) -> float:
        if self.above is not None and number <= self.above:
            raise BadRequest(f"each of {self.name} must be above {self.above:g}, got {number:g}")
        if self.maximum is not None and number > self.maximum:
            raise BadRequest(
                f"each of {self.name} must be at most {self.maximum:g}, got {number:g}"
            )
        return number


@dataclass(frozen=True)
class YesNo(Field):
    """Yes or no: true or false, in any of the usual words."""

    field_type = "bool"

    def parse(self, given: object) -> JsonValue:
        if isinstance(given, bool):
            return given
        if isinstance(given, int | float) and given in (0, 1):
            return bool(given)
        word = given.strip().lower() if isinstance(given, str) else ""
        if word not in _YES | _NO:
            raise _wrong(self.name, "must be yes or no", given)
        return word in _YES

    def view(self) -> dict[str, JsonValue]:
        return {**super().view(), "options": ["yes", "no"]}


@dataclass(frozen=True)
class Choice(Field):
    """One of ``options``."""

    field_type = "choice"

    options: tuple[str, ...] = ()

    def parse(self, given: object) -> JsonValue:
        text = given.strip() if isinstance(given, str) else None
        if text not in self.options:
            raise _wrong(self.name, f"must be one of {', '.join(self.options)}", given)
        return text

    def view(self) -> dict[str, JsonValue]:
        return {**super().view(), "options": list(self.options)}


def read_inputs(fields: Sequence[Field], inputs: Mapping[str, object]) -> dict[str, JsonValue]:
    """The typed values by field; BadRequest that names the first that is wrong.

    What no field asks for is ignored.
    """
    return {field.name: field.read(inputs) for field in fields}


def _number(given: object, name: str) -> float:
    value = given
    if isinstance(value, str):
        try:
            # Python's own grammar also takes 1_000, which nobody measures
            value = math.nan if "_" in value else float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "must be a number", given)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(name, "must be a finite number", given)
    return number


def _wrong(name: str, demand: str, given: object) -> BadRequest:
    return BadRequest(f"{name} {demand}, got {reprlib.repr(given)}")
