"""Every refusal has the documented shape, whoever refuses."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest
from aiohttp import ClientResponse, web

from piod import errors
from piod.http.answers import json_answer
from piod.http.decode import Decoded, decode_json
from piod.http.routes import COMMAND, DELETE, GET, Answer, Route

OK = {200: Answer("It worked.", {"ok": True})}


def route(methods, path, handler, **more) -> Route:
    return Route(methods, path, handler, summary="For the test", answers=OK, **more)


def raising(error: BaseException):
    async def handler(_request: web.Request) -> web.Response:
        raise error

    return handler


async def ok(_request: web.Request) -> web.Response:
    return json_answer({"ok": True})


class AnySchema(Decoded[dict[str, object]]):
    pass


async def echo(request: web.Request) -> web.Response:
    return json_answer(await decode_json(request, AnySchema))


ROUTES = [
    route(GET, "/unit_api/thing", ok, max_age_s=5),
    route(DELETE, "/unit_api/thing", ok),
    route(COMMAND, "/unit_api/command", ok),
    route(COMMAND, "/unit_api/echo", echo),
    route(COMMAND, "/unit_api/things/new", ok),
    route(GET, "/unit_api/things/{name}", ok),
]


async def refusal(answer: ClientResponse, status: int) -> dict:
    assert answer.status == status
    assert answer.content_type == "application/json"
    text = await answer.text()
    body = json.loads(text)
    assert text == json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    assert body.keys() == {"error", "error_info"}
    assert body["error_info"].keys() == {"cause", "remediation", "status"}
    assert body["error_info"]["status"] == status
    assert body["error"]
    assert body["error_info"]["cause"]
    assert body["error_info"]["remediation"]
    return body


async def raw(client, request: bytes) -> tuple[int, bytes, bytes]:
    """Send bytes as they are; the status, head and body of the last answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
        await writer.wait_closed()
    if b"100 Continue" in answer.partition(b"\r\n")[0]:
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


KINDS = [
    errors.BadRequest,
    errors.Unauthorized,
    errors.Forbidden,
    errors.NotFound,
    errors.Conflict,
    errors.PayloadTooLarge,
    errors.TooManyRequests,
    errors.Unavailable,
    errors.StorageFull,
    errors.BusError,
]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refusal_tells_what_why_and_what_to_do(serve, kind, caplog):
    error = kind("The pump µ is not there.", cause="no answer at 0x2c", remediation="Plug it in.")
    client = await serve([route(GET, "/x", raising(error), max_age_s=5)])
    answer = await client.get("/x")
    body = await refusal(answer, kind.status)
    assert body["error"] == "The pump µ is not there."
    assert body["error_info"]["cause"] == "no answer at 0x2c"
    assert body["error_info"]["remediation"] == "Plug it in."
    assert "Cache-Control" not in answer.headers
    told = any("no answer at 0x2c" in record.getMessage() for record in caplog.records)
    assert told == (kind.status >= 500)  # what the unit lacks is the operator's business too


@pytest.mark.parametrize("path", ["/", "/nowhere", "/unit_api/nowhere", "/unit_api/thing/", "/é"])
async def test_an_unknown_path_is_404_everywhere(serve, path):
    client = await serve(ROUTES)
    body = await refusal(await client.get(path), 404)
    assert path in body["error"]


async def test_a_wrong_method_is_405_and_names_the_right_ones(serve):
    client = await serve(ROUTES)
    answer = await client.patch("/unit_api/thing")
    body = await refusal(answer, 405)
    assert answer.headers["Allow"] == "DELETE,GET,HEAD"
    assert "DELETE, GET, HEAD" in body["error"]


async def test_a_fixed_path_and_a_parameter_share_a_405(serve):
    client = await serve(ROUTES)
    answer = await client.delete("/unit_api/things/new")
    await refusal(answer, 405)
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD", "PATCH", "POST"}
    assert (await client.get("/unit_api/things/new")).status == 200


async def test_commands_answer_patch_too(serve):
    client = await serve(ROUTES)
    assert (await client.post("/unit_api/command")).status == 200
    assert (await client.patch("/unit_api/command")).status == 200


async def test_head_answers_like_get_without_a_body(serve):
    client = await serve(ROUTES)
    answer = await client.head("/unit_api/thing")
    assert answer.status == 200
    assert answer.headers["Content-Length"] == str(len('{"ok":true}'))
    assert await answer.read() == b""


async def test_a_success_carries_the_age_that_its_route_states(serve):
    client = await serve(ROUTES)
    assert (await client.get("/unit_api/thing")).headers["Cache-Control"] == "public, max-age=5"
    assert "Cache-Control" not in (await client.delete("/unit_api/thing")).headers


@pytest.mark.parametrize(
    "error",
    [
        web.HTTPBadRequest(text="The frequency is odd."),
        web.HTTPConflict(),
        web.HTTPUnsupportedMediaType(),
        web.HTTPServiceUnavailable(headers={"Retry-After": "3"}),
        web.HTTPUnauthorized(),
    ],
)
async def test_errors_of_aiohttp_have_the_same_shape(serve, error):
    client = await serve([route(GET, "/x", raising(error))])
    answer = await client.get("/x")
    body = await refusal(answer, error.status)
    assert body["error"] == (error.reason if error.text.startswith("4") else body["error"])
    if error.status == 400:
        assert body["error"] == "The frequency is odd."
    if error.status == 503:
        assert answer.headers["Retry-After"] == "3"
    if error.status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_redirects_pass(serve):
    client = await serve([route(GET, "/x", raising(web.HTTPPermanentRedirect("/y")))])
    answer = await client.get("/x", allow_redirects=False)
    assert answer.status == 308
    assert answer.headers["Location"] == "/y"


async def test_a_bug_is_logged_with_its_traceback_and_tells_nothing(serve, caplog):
    client = await serve([route(GET, "/x", raising(RuntimeError("secret detail")))])
    answer = await client.get("/x")
    await refusal(answer, 500)
    assert "secret" not in await answer.text()
    [record] = [r for r in caplog.records if r.name == "piod.http.edge"]
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert "secret detail" in str(record.exc_info[1])


async def test_a_value_that_json_cannot_carry_is_a_bug(serve, caplog):
    async def nan(_request: web.Request) -> web.Response:
        return json_answer({"od": float("nan")})

    client = await serve([route(GET, "/x", nan)])
    await refusal(await client.get("/x"), 500)


async def test_a_timeout_is_503(serve, caplog):
    client = await serve([route(GET, "/x", raising(TimeoutError()))])
    await refusal(await client.get("/x"), 503)


async def test_a_body_over_the_limit_is_413_with_and_without_a_length(serve):
    client = await serve(ROUTES)
    big = b'{"a":"' + b"x" * (1024 * 1024) + b'"}'
    answer = await client.post("/unit_api/echo", data=io.BytesIO(big))
    await refusal(answer, 413)
    assert answer.headers["Connection"] == "close"  # the rest of the body is not a request

    async def pieces(body: bytes):
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    await refusal(await client.post("/unit_api/echo", data=pieces(big)), 413)
    one_too_many = b'{"a":"' + b"x" * (1024 * 1024 - 7) + b'"}'
    await refusal(await client.post("/unit_api/echo", data=pieces(one_too_many)), 413)
    assert (await client.get("/unit_api/thing")).status == 200


async def test_a_body_of_exactly_the_limit_is_read(serve):
    client = await serve(ROUTES)
    body = b'{"a":"' + b"x" * (1024 * 1024 - 8) + b'"}'
    assert len(body) == 1024 * 1024
    assert (await client.post("/unit_api/echo", data=body)).status == 200


@pytest.mark.parametrize("path", ["/unit_api/echo", "/unit_api/nowhere"])
async def test_an_unknown_expectation_is_417(serve, path):
    client = await serve(ROUTES)
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: miracle\r\nConnection: close\r\n"
    status, head, body = await raw(client, request.encode() + b"Content-Length: 2\r\n\r\n{}")
    assert status == 417
    assert b"application/json" in head
    assert json.loads(body)["error_info"]["status"] == 417


@pytest.mark.parametrize(("sent", "status"), [(b"{}", 200), (b"[]", 400)])
async def test_a_client_that_waits_for_100_continue_gets_an_answer(serve, sent, status):
    client = await serve(ROUTES)
    request = b"POST /unit_api/echo HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\n"
    request += b"Content-Length: 2\r\nConnection: close\r\n\r\n" + sent
    got, _, body = await raw(client, request)
    assert got == status
    assert isinstance(json.loads(body), dict)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!",
        b"Content-Encoding: deflate\r\nContent-Length: 9\r\n\r\nnot zlib!",
    ],
)
async def test_a_body_with_a_broken_encoding_is_refused(serve, head, caplog):
    client = await serve(ROUTES)
    start = b"POST /unit_api/echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    status, _, _ = await raw(client, start + head)
    assert status == 400
    assert not [r for r in caplog.records if r.name.startswith("piod")]


@pytest.mark.parametrize(
    "target",
    [b"/unit_api/things/\xff", b"/unit_api/\xff\xfe", b"/\xc3\xa9", b"/%ff", b"/unit_api/%", b"*"],
)
@pytest.mark.parametrize("method", [b"GET", b"OPTIONS"])
async def test_odd_bytes_in_the_path_never_make_a_server_error(serve, method, target):
    client = await serve(ROUTES)
    status, _, _ = await raw(
        client, method + b" " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert 400 <= status < 500


async def test_what_is_not_unicode_still_makes_json(serve):
    async def names(_request: web.Request) -> web.Response:
        return json_answer({"files": ["\udcff", "é"]})

    client = await serve([route(GET, "/x", names)])
    assert await (await client.get("/x")).read() == '{"files":["\\udcff","é"]}'.encode()


@pytest.mark.parametrize(
    ("error", "is_told"), [(None, False), (ConnectionResetError(), False), (RuntimeError(), True)]
)
async def test_a_client_that_leaves_is_not_an_error_but_a_bug_is(serve, caplog, error, is_told):
    started, finished = asyncio.Event(), asyncio.Event()

    async def read(request: web.Request) -> web.Response:
        started.set()
        try:
            return json_answer({"read": len(await request.read())})
        except (Exception, asyncio.CancelledError):  # newer test servers cancel
            if error is not None:
                raise error from None
            raise
        finally:
            finished.set()

    client = await serve([route(COMMAND, "/x", read)])
    _, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    await started.wait()
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(finished.wait(), 5)
    await asyncio.sleep(0.05)
    servers = ("piod", "aiohttp.server")
    told = [
        r for r in caplog.records if r.levelno >= logging.WARNING and r.name.startswith(servers)
    ]
    assert bool(told) == is_told


async def test_a_failure_in_the_middle_of_an_answer_ends_the_connection(serve, caplog):
    async def half(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise errors.NotFound("The other half is gone.")

    client = await serve([route(GET, "/x", half)])
    status, _, body = await raw(client, b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == 200
    assert b"error" not in body
    assert not body.endswith(b"0\r\n\r\n")


async def test_the_hook_runs_before_each_answer_and_its_failure_is_told(serve):
    kept: list[str] = []
    failing = False

    async def keep() -> None:
        if failing:
            raise errors.StorageFull("The disk is full.")
        kept.append("kept")

    client = await serve(
        [
            route(GET, "/x", ok, max_age_s=5),
            route(GET, "/y", raising(errors.NotFound("There is no y."))),
        ],
        before_answer=keep,
    )
    assert (await client.get("/x")).status == 200
    assert kept == ["kept"]
    await refusal(await client.get("/y"), 404)
    assert kept == ["kept", "kept"]
    failing = True
    await refusal(await client.get("/x"), 507)
