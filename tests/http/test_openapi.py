"""The document tells the truth about the routes; the page needs nothing from elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import TypedDict

import pytest
from aiohttp import web
from marshmallow import Schema, fields

from piod.http import openapi
from piod.http.answers import json_answer
from piod.http.decode import Decoded, Object, StrictNumber, StrictText
from piod.http.routes import COMMAND, DELETE, GET, POST, Answer, Route, undocumented


class PumpBody(TypedDict):
    ml: float
    options: dict[str, object]


def about(text: str) -> dict[str, str]:
    return {"description": text}


class PumpSchema(Decoded[PumpBody]):
    example = {"ml": 1.5}
    ml = StrictNumber(required=True, metadata=about("Volume to dose, mL."))
    options = Object(load_default=dict, metadata=about("More."))


class StopSchema(Decoded[PumpBody]):
    may_be_empty = True
    example = {"job_name": "stirring"}
    job_name = StrictText(load_default=None, metadata=about("Only the jobs of this name."))


class PageSchema(Decoded[dict[str, int]]):
    limit = fields.Integer(load_default=10, metadata=about("How many at most."))


class UploadSchema(Schema):
    archive = fields.Raw(required=True, metadata={"type": "file", **about("The archive.")})


class TaskSchema(Schema):
    task_id = fields.String(required=True, metadata=about("The task."))


async def ok(_request: web.Request) -> web.Response:
    return json_answer({})


TASK = {"task_id": "t1"}
HEALTH = Route(
    GET, "/unit_api/health", ok, summary="Health", answers={200: Answer("Well.", {"status": "ok"})}
)
PUMP = Route(
    COMMAND,
    "/unit_api/pumps/{pump}",
    ok,
    summary="Dose",
    tag="Pumps",
    path_params={"pump": "Which pump."},
    body=PumpSchema,
    answers={202: Answer("The task.", TASK, schema=TaskSchema)},
    errors=(404, 429),
)
STOP = Route(
    COMMAND,
    "/unit_api/stop",
    ok,
    summary="Stop",
    body=StopSchema,
    answers={202: Answer("The task.", TASK, schema=TaskSchema)},
)
FILES = Route(
    GET,
    "/unit_api/files/{file_path:.*}",
    ok,
    summary="A file",
    path_params={"file_path": "Where."},
    query=PageSchema,
    answers={
        200: Answer("Tasks.", [TASK], schema=TaskSchema(many=True)),
        206: Answer("Bytes.", "PK…", media="application/zip"),
    },
)
IMPORT = Route(
    POST,
    "/unit_api/import",
    ok,
    summary="Import",
    form=UploadSchema,
    answers={202: Answer("The task.", TASK)},
)
ROUTES = [HEALTH, PUMP, STOP, FILES, IMPORT]


@pytest.fixture
async def document(serve) -> dict:
    client = await serve(ROUTES)
    answer = await client.get("/unit_api/swagger.json")
    assert answer.status == 200
    assert answer.content_type == "application/json"
    return await answer.json()


def test_these_routes_are_documented():
    assert undocumented(ROUTES) == []


@pytest.mark.parametrize(
    ("route", "gap"),
    [
        (replace(HEALTH, summary=""), "no summary"),
        (replace(HEALTH, answers={}), "no answer"),
        (replace(HEALTH, answers={200: Answer("Well.")}), "answer 200 has no example"),
        (replace(HEALTH, answers={200: Answer("", {})}), "answer 200 has no description"),
        (replace(PUMP, path_params={}), "path parameter 'pump' is not described"),
        (replace(HEALTH, path_params={"x": "y"}), "'x' is described but not in the path"),
        (replace(FILES, query=type("Bare", (PageSchema,), {"more": StrictText()})), "'more'"),
        (replace(HEALTH, body=PageSchema), "the body has no example"),
    ],
)
def test_a_gap_in_the_documentation_is_told(route, gap):
    [told] = undocumented([route])
    assert gap in told
    assert route.path in told


def test_the_document_names_itself_and_its_version(document):
    assert document["swagger"] == "2.0"
    assert document["info"]["version"] == "1.2.3"


def test_every_method_of_every_route_is_in_the_document(document):
    there = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    for route in ROUTES:
        path = re.sub(r":[^}]*", "", route.path)
        assert {(method, path) for method in route.methods} <= there
    assert ("GET", "/unit_api/docs") in there
    assert len({o["operationId"] for m in document["paths"].values() for o in m.values()}) == len(
        there
    )


def test_bodies_are_required_unless_they_may_be_empty(document):
    def body(path: str, method: str) -> dict:
        [parameter] = [
            p for p in document["paths"][path][method]["parameters"] if p["in"] == "body"
        ]
        return parameter

    for method in ("post", "patch"):
        assert body("/unit_api/pumps/{pump}", method)["required"] is True
        assert body("/unit_api/stop", method)["required"] is False
        assert document["paths"]["/unit_api/stop"][method]["consumes"] == ["application/json"]
    pump = document["definitions"]["Pump"]
    assert pump["required"] == ["ml"]
    assert pump["example"] == {"ml": 1.5}
    assert pump["properties"]["ml"] == {"type": "number", "description": "Volume to dose, mL."}
    assert list(pump["properties"]) == ["ml", "options"]
    # unknown keys are ignored, not refused; answers may gain keys
    assert all(d.get("additionalProperties", True) for d in document["definitions"].values())


def test_parameters_are_described(document):
    [pump] = [
        p
        for p in document["paths"]["/unit_api/pumps/{pump}"]["patch"]["parameters"]
        if p["in"] == "path"
    ]
    assert pump == {
        "in": "path",
        "name": "pump",
        "required": True,
        "type": "string",
        "description": "Which pump.",
    }
    parameters = document["paths"]["/unit_api/files/{file_path}"]["get"]["parameters"]
    [limit] = [p for p in parameters if p["in"] == "query"]
    assert (limit["name"], limit["type"], limit["description"]) == (
        "limit",
        "integer",
        "How many at most.",
    )


def test_a_form_is_documented_as_one(document):
    operation = document["paths"]["/unit_api/import"]["post"]
    assert operation["consumes"] == ["multipart/form-data"]
    [archive] = operation["parameters"]
    assert (archive["in"], archive["type"], archive["required"]) == ("formData", "file", True)


def test_every_answer_has_a_schema_and_an_example(document):
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                assert response["description"]
                assert response["schema"]
                assert response["examples"]
                if int(status) >= 400:
                    assert response["schema"] == {"$ref": "#/definitions/Error"}
                    example = response["examples"]["application/json"]
                    assert example["error_info"]["status"] == int(status)
                else:
                    assert set(response["examples"]) <= set(operation["produces"])


def test_answers_refer_to_their_schemas(document):
    answers = document["paths"]["/unit_api/files/{file_path}"]["get"]["responses"]
    assert answers["200"]["schema"] == {"type": "array", "items": {"$ref": "#/definitions/Task"}}
    assert answers["206"]["schema"] == {"type": "file"}
    health = document["paths"]["/unit_api/health"]["get"]["responses"]["200"]["schema"]
    assert health == {"type": "object", "properties": {"status": {"type": "string"}}}
    text = json.dumps(document)
    for name in re.findall(r"#/definitions/(\w+)", text):
        assert name in document["definitions"]


def test_errors_are_the_declared_ones_and_those_that_follow(document):
    def errors(path: str, method: str) -> list[int]:
        responses = document["paths"][path][method]["responses"]
        return sorted(int(status) for status in responses if int(status) >= 400)

    assert errors("/unit_api/pumps/{pump}", "post") == [400, 401, 403, 404, 413, 429]
    assert errors("/unit_api/health", "get") == [403]


def test_a_delete_changes_something():
    assert replace(HEALTH, methods=DELETE).changes_something
    assert not HEALTH.changes_something


async def test_the_document_is_made_once_however_many_ask(serve, monkeypatch):
    made = []
    make = openapi.openapi_document

    def counted(*args):
        made.append(1)
        return make(*args)

    monkeypatch.setattr(openapi, "openapi_document", counted)
    client = await serve(ROUTES)
    answers = await asyncio.gather(*(client.get("/unit_api/swagger.json") for _ in range(4)))
    assert {answer.status for answer in answers} == {200}
    assert len({await answer.read() for answer in answers}) == 1
    assert made == [1]


def test_serving_does_not_import_what_only_the_document_needs():
    code = (
        "import sys, piod.http.application as a\n"
        "a.build_application([], version='1', access=lambda: None)\n"
        "print([m for m in ('aiohttp_apispec', 'apispec', 'webargs', 'jinja2') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


async def test_the_page_is_self_contained(serve):
    client = await serve(ROUTES)
    answer = await client.get("/unit_api/docs")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "max-age=" in answer.headers["Cache-Control"]
    page = await answer.text()
    assert len(page.encode()) < 25_000
    links = re.findall(r"""(?:src=|href=|url\()["']?([^"'\s>)]+)""", page)
    assert links
    assert [link for link in links if not link.startswith(("data:", "swagger.json"))] == []
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page) == []
    assert "innerHTML" not in page  # what the unit says is text, never markup
