"""Who may call: pages by their origin, changes by the api_key."""

from __future__ import annotations

import pytest
from aiohttp import web

from piod.http.answers import json_answer
from piod.http.routes import COMMAND, DELETE, GET, Answer, Route

OK = {200: Answer("It worked.", {"ok": True})}


async def ok(_request: web.Request) -> web.Response:
    return json_answer({"ok": True})


ROUTES = [
    Route(GET, "/thing", ok, summary="Read", answers=OK),
    Route(COMMAND, "/pump", ok, summary="Pump", answers=OK),
    Route(DELETE, "/thing", ok, summary="Delete", answers=OK),
]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("pio01.local:8000", "http://pio01.local:8000"),
        ("pio01.local", "http://pio01.local"),
        ("pio01.local:80", "http://pio01.local"),
        ("pio01.local", "http://pio01.local:80"),
        ("pio01.local", "https://pio01.local"),
        ("pio01.local:443", "https://pio01.local"),
        ("PIO01.local", "http://pio01.LOCAL"),
        ("[::1]:8000", "http://[::1]:8000"),
    ],
)
async def test_the_units_own_pages_may_call(serve, host, origin):
    client = await serve(ROUTES)
    answer = await client.post("/pump", headers={"Host": host, "Origin": origin})
    assert answer.status == 200


async def test_a_domain_that_somebody_points_at_the_unit_is_not_its_own(serve):
    client = await serve(ROUTES)
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    answer = await client.post("/pump", headers=headers)
    assert answer.status == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://pio01.local:8001",
        "http://pio01.local.evil.example",
        "http://evil.example@pio01.local",
        "http://pio01.local:port",
        "file://",
        "http://[::1",
        "chrome-extension://pio01.local",
        "http://pio01.local/page",
    ],
)
@pytest.mark.parametrize("path", ["/thing", "/nowhere", "/unit_api/docs"])
async def test_pages_from_elsewhere_may_not_even_read(serve, configured, path, origin):
    configured.allowed_origins = ["null", "", "http://lab.example"]
    client = await serve(ROUTES)
    answer = await client.get(path, headers={"Host": "pio01.local", "Origin": origin})
    assert answer.status == 403
    body = await answer.json()
    assert "origin" in body["error"]
    assert "allowed_origins" in body["error_info"]["remediation"]


async def test_a_listed_origin_may_call_and_the_list_is_read_anew(serve, configured):
    client = await serve(ROUTES)
    headers = {"Origin": "https://Lab.Example:443"}
    assert (await client.post("/pump", headers=headers)).status == 403
    configured.allowed_origins = ["https://lab.example"]
    assert (await client.post("/pump", headers=headers)).status == 200
    assert (await client.post("/pump", headers={"Origin": "http://lab.example"})).status == 403


async def test_the_origin_is_refused_before_anything_runs(serve):
    ran = []

    async def pump(_request: web.Request) -> web.Response:
        ran.append(1)
        return json_answer({})

    client = await serve([Route(COMMAND, "/pump", pump, summary="Pump", answers=OK)])
    assert (await client.post("/pump", headers={"Origin": "http://evil.example"})).status == 403
    assert not ran


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_a_change_needs_the_key_when_one_is_set(serve, configured, method):
    client = await serve(ROUTES)
    assert (await client.request(method, "/pump")).status == 200
    configured.api_key = "dXNlcjpzZWNyZXQ="
    answer = await client.request(method, "/pump")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert (await answer.json())["error_info"]["status"] == 401
    for right in ("Basic dXNlcjpzZWNyZXQ=", "basic  dXNlcjpzZWNyZXQ="):
        answer = await client.request(method, "/pump", headers={"Authorization": right})
        assert answer.status == 200


@pytest.mark.parametrize(
    "wrong", ["Basic", "Basic x", "Basic dXNlcjpzZWNyZXQ", "Bearer dXNlcjpzZWNyZXQ=", "Basic é"]
)
async def test_a_wrong_key_is_refused(serve, configured, wrong):
    configured.api_key = "dXNlcjpzZWNyZXQ="
    client = await serve(ROUTES)
    assert (await client.delete("/thing", headers={"Authorization": wrong})).status == 401


async def test_reading_needs_no_key(serve, configured):
    configured.api_key = "dXNlcjpzZWNyZXQ="
    client = await serve(ROUTES)
    assert (await client.get("/thing")).status == 200
    assert (await client.head("/thing")).status == 200
    assert (await client.get("/unit_api/swagger.json")).status == 200
