"""What a client may send, and what it hears when it is wrong."""

from __future__ import annotations

import json
import time
from typing import TypedDict

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from marshmallow import fields, validate

from piod.errors import BadRequest
from piod.http.answers import json_answer
from piod.http.decode import (
    Decoded,
    Object,
    StrictBool,
    StrictInteger,
    StrictNumber,
    StrictText,
    component,
    decode_json,
    decode_query,
    plain_text,
)
from piod.http.routes import COMMAND, GET, Answer, Route


class RunBody(TypedDict, total=False):
    name: str
    volume: float
    count: int
    flag: bool
    options: dict[str, object]
    env: dict[str, str]
    overrides: list[list[str]]
    mode: str


class RunSchema(Decoded[RunBody]):
    example = {"name": "stirring"}

    name = StrictText()
    volume = StrictNumber(validate=validate.Range(min=0, max=20))
    count = StrictInteger()
    flag = StrictBool()
    options = Object(load_default=dict)
    env = Object(keys=fields.String(), values=StrictText(may_be_empty=True))
    overrides = fields.List(fields.List(StrictText(), validate=validate.Length(equal=3)))
    mode = StrictText(validate=validate.OneOf(["fast", "slow"]))


class NeededBody(TypedDict):
    filepath: str


class NeededSchema(Decoded[NeededBody]):
    filepath = StrictText(required=True)


class OptionalSchema(Decoded[RunBody]):
    may_be_empty = True
    name = StrictText(load_default=None, allow_none=True)


class PageBody(TypedDict):
    limit: int


class PageSchema(Decoded[PageBody]):
    limit = fields.Integer(load_default=10, validate=validate.Range(min=1))


def decoding(schema):
    async def handler(request: web.Request) -> web.Response:
        return json_answer(await decode_json(request, schema))

    return handler


async def page(request: web.Request) -> web.Response:
    return json_answer(decode_query(request, PageSchema))


async def device(request: web.Request) -> web.Response:
    return json_answer({"device": component(request.match_info["device"], "device")})


async def experiment(request: web.Request) -> web.Response:
    return json_answer({"experiment": plain_text(request.match_info["name"], "experiment")})


OK = {200: Answer("It worked.", {})}


@pytest.fixture
async def client(serve):
    return await serve(
        [
            Route(COMMAND, "/run", decoding(RunSchema), summary="x", answers=OK),
            Route(COMMAND, "/needed", decoding(NeededSchema), summary="x", answers=OK),
            Route(COMMAND, "/optional", decoding(OptionalSchema), summary="x", answers=OK),
            Route(GET, "/page", page, summary="x", answers=OK),
            Route(GET, "/devices/{device}", device, summary="x", answers=OK),
            Route(GET, "/experiments/{name}", experiment, summary="x", answers=OK),
        ]
    )


async def error(client, path: str, body: bytes, content_type: str = "application/json") -> str:
    answer = await client.post(path, data=body, headers={"Content-Type": content_type})
    assert answer.status == 400, await answer.text()
    return (await answer.json())["error"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense", "x/y;z=1"],
)
async def test_json_is_read_whatever_the_content_type_says(client, content_type):
    answer = await client.post(
        "/run", data=b'{"name":"\xc2\xb5"}', headers={"Content-Type": content_type}
    )
    assert await answer.json() == {"name": "µ", "options": {}}


async def test_unknown_keys_are_ignored_and_the_last_of_twins_counts(client):
    answer = await client.post("/run", data=b'{"what":1,"name":"a","name":"b"}')
    assert await answer.json() == {"name": "b", "options": {}}


@pytest.mark.parametrize("body", [b"", b"  \r\n "])
async def test_an_empty_body_is_taken_only_where_the_schema_says_so(client, body):
    assert "empty" in await error(client, "/run", body)
    answer = await client.post("/optional", data=body)
    assert await answer.json() == {"name": None}


@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"[]", "list"), (b'"a"', "text"), (b"1", "number"), (b"true", "boolean"), (b"null", "null")],
)
async def test_a_body_must_be_an_object(client, body, kind):
    for path in ("/run", "/optional"):
        message = await error(client, path, body)
        assert "object" in message
        assert kind in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"options": []}, "options must be an object"),
        ({"options": "x"}, "options must be an object"),
        ({"name": 1}, "name must be text"),
        ({"name": None}, "name must not be null"),
        ({"name": ""}, "name must not be empty"),
        ({"volume": True}, "volume must be a number"),
        ({"volume": "1"}, "volume must be a number"),
        ({"volume": -1}, "volume must be greater than or equal to 0 and less than or equal to 20"),
        ({"count": 1.5}, "count must be a whole number"),
        ({"count": False}, "count must be a whole number"),
        ({"flag": 1}, "flag must be true or false"),
        ({"flag": "true"}, "flag must be true or false"),
        ({"env": {"A": 1}}, "env.A must be text"),
        ({"overrides": {}}, "overrides must be a list"),
        ({"overrides": [["a", "b", 3]]}, "overrides[0][2] must be text"),
        ({"overrides": [["a"]]}, "overrides[0] length must be 3"),
        ({"mode": "odd"}, "mode must be one of: fast, slow"),
        ({"name": 1, "count": "x"}, "name must be text; count must be a whole number"),
    ],
)
async def test_a_problem_names_its_field(client, value, message):
    assert await error(client, "/run", json.dumps(value).encode()) == message


async def test_a_missing_field_is_named(client):
    assert await error(client, "/needed", b"{}") == "filepath is missing"


async def test_numbers_come_as_they_were_sent(client):
    answer = await client.post("/run", data=b'{"volume":2,"count":5.0,"flag":false}')
    text = await answer.text()
    assert text == '{"volume":2,"count":5,"flag":false,"options":{}}'


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("template", ['{"volume":%s}', '{"options":{"deep":[%s]}}'])
async def test_what_is_not_a_finite_number_is_refused(client, template, number):
    assert "number" in await error(client, "/run", (template % number).encode())


@pytest.mark.parametrize("digits", ["9223372036854775808", "-9223372036854775809", "1" * 5000])
async def test_huge_integers_are_refused(client, digits):
    assert "too large" in await error(client, "/run", f'{{"options":{{"a":{digits}}}}}'.encode())


@pytest.mark.parametrize("digits", ["9223372036854775807", "-9223372036854775807"])
async def test_64_bit_integers_are_taken(client, digits):
    answer = await client.post("/run", data=f'{{"options":{{"a":{digits}}}}}')
    assert digits in await answer.text()


@pytest.mark.parametrize(
    "body",
    [
        b'{"options":{"a":"\\u0000"}}',
        b'{"options":{"a":"x\\ud800"}}',
        b'{"options":{"a":["\\udfff"]}}',
        b'{"options":{"\\udfff":1}}',
        b'{"options":{"a\\u0000":1}}',
    ],
)
async def test_text_that_is_none_is_refused(client, body):
    assert "contains" in await error(client, "/run", body)


async def test_escaped_characters_and_pairs_are_text(client):
    answer = await client.post("/run", data=rb'{"name":"\ud83e\uddea \u00b5 \\u0000 \\ud800"}')
    assert (await answer.json())["name"] == r"🧪 µ \u0000 \ud800"


@pytest.mark.parametrize(
    "body", [b"{", b"{'a':1}", b'{"a":"\x01"}', b'{"a":1}x', b'{"a":01}', b"\xff", b'{"a":"\xff"}']
)
async def test_what_does_not_parse_is_refused(client, body):
    assert "body" in await error(client, "/run", body)


@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
async def test_nesting_is_limited_to_64(client, open_, close):
    def nested(depth: int) -> bytes:
        inside = open_ * (depth - 2) + "1" + close * (depth - 2)
        return f'{{"options":{{"a":{inside},"b":[[],[]]}}}}'.encode()

    assert (await client.post("/run", data=nested(64))).status == 200
    assert "64 deep" in await error(client, "/run", nested(65))


@pytest.mark.parametrize("bracket", [b"[", b'{"a":'])
async def test_a_storm_of_brackets_is_refused_quickly(client, bracket):
    start = time.monotonic()
    await error(client, "/run", b'{"options":' + bracket * (200_000 // len(bracket)))
    await error(client, "/run", bracket * (200_000 // len(bracket)))
    assert time.monotonic() - start < 1


async def test_a_form_hears_what_to_send(client):
    answer = await client.post("/run", data={"name": "stirring"})
    assert answer.status == 400
    body = await answer.json()
    assert "form" in body["error"]
    assert "application/json" in body["error_info"]["remediation"]


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 200, '{"limit":10}'),
        ("?limit=5&other=1", 200, '{"limit":5}'),
        ("?limit=x", 400, "limit must be a whole number"),
        ("?limit=0", 400, "limit"),
        ("?limit=%ff", 400, "UTF-8"),
    ],
)
async def test_queries_are_validated_too(client, query, status, said):
    from yarl import URL

    answer = await client.get(URL(f"/page{query}", encoded=True))
    assert answer.status == status
    assert said in await answer.text()


@pytest.mark.parametrize("name", ["pump1", "a b", "a.b", "A_b-1", "x" * 255])
async def test_a_component_of_a_path_may_be(client, name):
    from yarl import URL

    url = URL(f"/devices/{name.replace(' ', '%20')}", encoded=True)
    assert await (await client.get(url)).json() == {"device": name}


@pytest.mark.parametrize(
    "name",
    [
        "a%20%20b",
        ".x",
        "-x",
        "%2e%2e",
        "%c3%a9",
        "x%3Ay",
        "a%2Fb",
        "a%5Cb",
        "a%00",
        "a%0A",
        "a%20",
        "%20a",
        "%ff",
        "%",
        "a%25b",
        "x" * 256,
    ],
)
async def test_a_component_of_a_path_may_not_be(client, name):
    from yarl import URL

    answer = await client.get(URL(f"/devices/{name}", encoded=True))
    body = await answer.json()
    assert answer.status == (404 if name == "%2e%2e" and "nothing" in body["error"] else 400)
    assert "path" in body["error"] or "device" in body["error"] or answer.status == 404


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("Exp001", 200),
        ("$broadcast", 200),
        ("%C3%A9t%C3%A9%201", 200),
        ("a%2Fb", 200),
        ("%20", 400),
        ("a%00b", 400),
        ("a%0Ab", 400),
        ("a%C2%85", 400),
        ("%ff", 400),
        ("a%ED%A0%80", 400),
        ("x" * 256, 400),
        ("x" * 255, 200),
    ],
)
async def test_an_experiment_is_any_plain_text(client, name, status):
    from yarl import URL

    answer = await client.get(URL(f"/experiments/{name}", encoded=True))
    assert answer.status == status, await answer.text()


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_a_component_never_leaves_its_folder(name):
    try:
        assert component(name, "device") == name
    except BadRequest as refusal:
        json_answer({"error": refusal.message})  # can be sent
        return
    assert name.isascii()
    assert not set(name) & set("/\\\0\n")
    assert name[0] not in ".-"
    assert name == name.strip()
