"""What comes in, as values that the rest can rely on.

- :func:`decode_json`: the body, read and validated;
- :func:`decode_query`: the query, the same way;
- :func:`component`, :func:`plain_text`: what stands in the path.

A schema is a subclass of :class:`Decoded` and names the type that it yields::

    class StopBody(TypedDict):
        job_name: str | None

    class StopSchema(Decoded[StopBody]):
        may_be_empty = True
        example = {"job_name": "stirring"}
        job_name = StrictText(load_default=None, metadata={"description": "…"})

    body = await decode_json(request, StopSchema)       # a StopBody

Everything that is wrong is a :class:`~piod.errors.BadRequest` whose message
names the field. Unknown keys are ignored.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Generic, NoReturn, TypeVar, cast
from urllib.parse import unquote_to_bytes

from aiohttp import hdrs, web
from marshmallow import EXCLUDE, Schema, ValidationError, fields
from marshmallow.orderedset import OrderedSet

from piod.errors import BadRequest, PayloadTooLarge

T_co = TypeVar("T_co", covariant=True)

MAX_BODY_BYTES = 1024 * 1024
"""The largest JSON body that is read; uploads of files have limits of their own."""

MAX_DEPTH = 64
"""How deep objects and lists may nest; the body itself is the first level."""

_MAX_INTEGER = 2**63 - 1
_MAX_PROBLEMS = 10
_MAX_PLACE = 200
_SEND_AN_OBJECT = "Send a JSON object such as {...} with the header Content-Type: application/json."


class Decoded(Schema, Generic[T_co]):
    """A schema whose result is a ``T_co``: a TypedDict of its fields, unless a
    ``post_load`` makes something else of it."""

    class Meta:
        unknown = EXCLUDE

    # marshmallow 3.18 keeps fields in a plain set; problems and document read in their order
    set_class = OrderedSet

    may_be_empty: ClassVar[bool] = False
    """Whether a request without a body stands for ``{}``."""

    example: ClassVar[Mapping[str, object] | None] = None
    """A body that works, for the document."""


# -- fields ---------------------------------------------------------------------
# marshmallow's own convert ("1" is a number, 1 is True). These take JSON's own types.
# They extend marshmallow's classes so that the OpenAPI document shows the right type.


class StrictText(fields.String):
    """Text, without NUL. Not empty unless ``may_be_empty``."""

    def __init__(self, *, may_be_empty: bool = False, **options: Any) -> None:
        # Any: the options are marshmallow's, which types them so
        super().__init__(**options)
        self.may_be_empty = may_be_empty

    def _deserialize(self, value: object, *_args: object, **_options: object) -> str:
        if not isinstance(value, str):
            raise ValidationError("must be text")
        if not value and not self.may_be_empty:
            raise ValidationError("must not be empty")
        if "\0" in value:
            raise ValidationError("must not contain NUL characters")
        return value


class StrictNumber(fields.Float):
    """A finite number, as it came (int or float); not a boolean, not text."""

    def _deserialize(self, value: object, *_args: object, **_options: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValidationError("must be a number")
        if not math.isfinite(value):
            raise ValidationError("must be a number")
        return value


class StrictInteger(fields.Integer):
    """A whole number; ``5.0`` counts, booleans and text do not."""

    def _deserialize(self, value: object, *_args: object, **_options: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValidationError("must be a whole number")
        if isinstance(value, float) and not value.is_integer():
            raise ValidationError("must be a whole number")
        return int(value)


class StrictBool(fields.Boolean):
    """``true`` or ``false``, nothing that resembles them."""

    def _deserialize(self, value: object, *_args: object, **_options: object) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value


class Object(fields.Dict):
    """An object of any keys; ``values`` may be a field that each value must fit."""

    def _deserialize(
        self, value: object, *args: Any, **options: Any
    ) -> dict[str, object]:  # Any: handed on to marshmallow as it came
        try:
            # no-untyped-call: marshmallow's own method has no annotations in 3.26
            result = super()._deserialize(value, *args, **options)  # type: ignore[no-untyped-call]
            return cast("dict[str, object]", result)
        except ValidationError as error:
            if not isinstance(error.messages, dict):
                raise
            # marshmallow tells {key: {"value": […]}}; the client knows only the key
            raise ValidationError(
                {
                    key: problem.get("value", problem.get("key"))
                    for key, problem in error.messages.items()
                }
            ) from error


# -- the body -------------------------------------------------------------------


async def decode_json(request: web.Request, schema: type[Decoded[T_co]]) -> T_co:
    """The JSON body of ``request`` as ``schema`` describes it.

    The content type does not matter. Raises BadRequest, and PayloadTooLarge
    over :data:`MAX_BODY_BYTES`.
    """
    return validate(await read_json_object(request, may_be_empty=schema.may_be_empty), schema)


def decode_query(request: web.Request, schema: type[Decoded[T_co]]) -> T_co:
    """The query of ``request`` as ``schema`` describes it; of a repeated key, the last counts.

    Values are text: use marshmallow's own Integer, Float and Boolean here.
    """
    raw = request.rel_url.raw_query_string
    if "%" in raw:
        refuse_invalid_utf8(raw, "query")
    return validate(dict(request.query), schema)


def validate(value: Mapping[str, object], schema: type[Decoded[T_co]]) -> T_co:
    """``value`` as ``schema`` describes it; raises BadRequest naming the fields."""
    try:
        return cast(T_co, _instance(schema).load(value))
    except ValidationError as error:
        problems = list(_problems(error.messages))
        more = len(problems) - _MAX_PROBLEMS
        text = "; ".join(problems[:_MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
        raise BadRequest(text) from error


@cache
def _instance(schema: type[Schema]) -> Schema:
    return schema()


async def read_json_object(request: web.Request, *, may_be_empty: bool) -> dict[str, object]:
    """The JSON object in the body, not validated further.

    Refused (BadRequest): what does not parse, is not UTF-8 or not an object;
    NaN, infinities, integers beyond 64 bits; nesting over :data:`MAX_DEPTH`;
    NUL characters and lone surrogates in text. Of a repeated key, the last counts.
    """
    if request.content_length is not None and request.content_length > MAX_BODY_BYTES:
        raise _too_large()
    raw = await request.read()
    if len(raw) > MAX_BODY_BYTES:
        raise _too_large()
    if not raw.strip():
        if may_be_empty:
            return {}
        raise BadRequest("The body is empty; a JSON object is needed.", remediation=_SEND_AN_OBJECT)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(
            "The body is not UTF-8 text; a JSON object is needed.",
            cause=f"{error.reason} at byte {error.start}",
            remediation=_SEND_AN_OBJECT,
        ) from error
    value = _parse(text, request.headers.get(hdrs.CONTENT_TYPE, ""))
    if not isinstance(value, dict):
        raise BadRequest(
            f"The body must be a JSON object, not {_kind(value)}.", remediation=_SEND_AN_OBJECT
        )
    return value


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {MAX_BODY_BYTES} bytes.")


def _parse(text: str, content_type: str) -> object:
    try:
        value: object = _decoder.decode(text)
    except json.JSONDecodeError as error:
        is_form = content_type.lower().startswith(
            ("application/x-www-form-urlencoded", "multipart/")
        )
        raise BadRequest(
            "The body is a form; a JSON object is needed."
            if is_form
            else f"The body is not valid JSON: {error}.",
            cause=str(error),
            remediation=_SEND_AN_OBJECT,
        ) from error
    except RecursionError as error:
        raise _too_deep() from error
    except BadRequest as refusal:  # of a number; the parser does not tell where it stands
        place = _place_of_odd_number(text)
        raise BadRequest(f"{place}: {refusal.message}" if place else refusal.message) from refusal
    # the walk below costs time: most bodies cannot be what it looks for
    if "\\u" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        _refuse_odd_content(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"The body contains {name}, which is not a number that JSON knows.")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise BadRequest(f"The body contains {digits[:40]}, which is too large a number.")
    return number


def _integer(digits: str) -> int:
    # 20 characters hold every 64-bit integer; Python refuses to read thousands of digits
    if len(digits) > 20 or abs(number := int(digits)) > _MAX_INTEGER:
        raise BadRequest(f"The body contains {digits[:40]}, which is too large a number.")
    return number


_decoder = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer
)


_ODD = object()


def _marking(read: Callable[[str], object]) -> Callable[[str], object]:
    def marked(digits: str) -> object:
        try:
            return read(digits)
        except BadRequest:
            return _ODD

    return marked


_finder = json.JSONDecoder(
    parse_constant=_marking(_refuse_constant),
    parse_float=_marking(_finite),
    parse_int=_marking(_integer),
)


def _place_of_odd_number(text: str) -> str:
    """Where a number stands that was refused: ``inputs.volume_ml``; empty if that is not clear."""
    try:
        ways: list[tuple[str, object]] = [("", _finder.decode(text))]
    except (ValueError, RecursionError):
        return ""
    while ways:
        way, value = ways.pop()
        if value is _ODD:
            return way
        if isinstance(value, dict):
            named = ((ascii(key[:40])[1:-1], one) for key, one in value.items())
            ways += [(f"{way}.{name}"[:_MAX_PLACE].removeprefix("."), one) for name, one in named]
        elif isinstance(value, list):
            ways += [(f"{way}[{index}]"[:_MAX_PLACE], one) for index, one in enumerate(value)]
    return ""


def _too_deep() -> BadRequest:
    return BadRequest(f"The body nests objects and lists more than {MAX_DEPTH} deep.")


def _refuse_odd_content(body: object) -> None:
    """Walk without recursion; raises BadRequest for depth, NUL and lone surrogates."""
    level: list[object] = [body]
    depth = 0
    while level:
        below: list[object] = []
        nests = False
        for value in level:
            if isinstance(value, str):
                _refuse_odd_text(value)
            elif isinstance(value, dict):
                nests = True
                below += value
                below += value.values()
            elif isinstance(value, list):
                nests = True
                below += value
        depth += nests
        if depth > MAX_DEPTH:
            raise _too_deep()
        level = below


def _refuse_odd_text(value: str) -> None:
    if "\0" in value:
        raise BadRequest(f"The text {_quoted(value)} in the body contains a NUL character.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"The text {_quoted(value)} in the body contains half a surrogate pair, "
            "which is not a character."
        ) from error


def _quoted(value: str) -> str:
    return ascii(value[:40])


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a number"


# -- what was wrong, in words ---------------------------------------------------

_OWN_WORDS = {
    "Missing data for required field.": "is missing",
    "Field may not be null.": "must not be null",
    "Not a valid string.": "must be text",
    "Not a valid number.": "must be a number",
    "Not a valid integer.": "must be a whole number",
    "Not a valid boolean.": "must be true or false",
    "Not a valid list.": "must be a list",
    "Not a valid mapping type.": "must be an object",
    "Invalid input type.": "must be an object",
}


def _problems(messages: object, path: str = "") -> Iterator[str]:
    """``{"options": {"rpm": ["Not a valid number."]}}`` → "options.rpm must be a number"."""
    if isinstance(messages, Mapping):
        for key, below in messages.items():
            if key == "_schema":
                yield from _problems(below, path)
            elif isinstance(key, int):
                yield from _problems(below, f"{path}[{key}]")
            else:
                yield from _problems(below, f"{path}.{key[:80]}" if path else str(key)[:80])
    elif isinstance(messages, str):
        words = _OWN_WORDS.get(messages)
        if words is None:
            words = messages[:1].lower() + messages[1:].rstrip(".")
        yield f"{path or 'the body'} {words}"
    elif isinstance(messages, Iterable):
        for message in messages:
            yield from _problems(message, path)


# -- the path -------------------------------------------------------------------

_COMPONENT = re.compile(r"(?![.-])[A-Za-z0-9._-]+(?: [A-Za-z0-9._-]+)*")


def component(value: str, field: str) -> str:
    """``value`` as the name of a device, calibration, estimator or plugin.

    One path component: ASCII letters, digits, ``.``, ``_``, ``-`` and single
    inner spaces, not starting with ``.`` or ``-``, at most 255 bytes. Raises
    BadRequest naming ``field``. Percent-decoding has been done by the router.
    """
    if len(value) > 255 or not _COMPONENT.fullmatch(value):
        raise BadRequest(
            f"{field} {_quoted(value)} is not a valid name.",
            cause="A name is one path component: letters, digits, '.', '_', '-' and single inner "
            "spaces; it does not start with '.' or '-' and has at most 255 characters.",
            remediation=f"Correct {field} and send the request again.",
        )
    return value


def plain_text(value: str, field: str, max_length: int = 255) -> str:
    """``value`` as a name that is only compared and shown: an experiment's, a job's.

    Any text of 1 to ``max_length`` characters that is not blank and has no
    control characters. Raises BadRequest naming ``field``.
    """
    if not value.strip():
        problem = "must not be empty"
    elif len(value) > max_length:
        problem = f"must have at most {max_length} characters"
    elif any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        problem = "must not contain control characters"
    else:
        return value
    raise BadRequest(f"{field} {problem}.")


def refuse_invalid_utf8(percent_encoded: str, what: str) -> None:
    """Raises BadRequest when ``percent_encoded`` does not decode to UTF-8.

    yarl leaves such sequences standing as they came, so that they would pass
    for the text ``%FF``.
    """
    try:
        unquote_to_bytes(percent_encoded).decode()
    except UnicodeError as error:
        raise BadRequest(f"The {what} of the URL is not valid UTF-8 once decoded.") from error
