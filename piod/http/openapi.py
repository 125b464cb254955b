"""The documentation: an OpenAPI (Swagger 2.0) document and a page that shows it.

``GET /unit_api/swagger.json`` is made by aiohttp-apispec from the route table,
at the first request for it: importing that library costs a small Raspberry Pi
megabytes and a second. ``GET /unit_api/docs`` is one file of piod's own: it needs
nothing from elsewhere, and Debian ships no Swagger UI.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from pathlib import Path

from aiohttp import hdrs, web

from piod.http.answers import CHALLENGE, LOOK_AT_THE_LOG, REMEDIATIONS, error_body, json_bytes
from piod.http.routes import GET, JSON_MEDIA, Answer, Handler, Route

_PAGE = Path(__file__).with_name("docs.html")

_PAGE_HEADERS = {
    hdrs.CONTENT_TYPE: "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

_INTRODUCTION = (
    "The HTTP API of one Pioreactor. Commands answer 202 at once with the path of a task; "
    "read that path until its status is complete or failed. Every refusal has the same body, "
    "Error. When the unit has an api_key, requests that change something need it: "
    "Authorization: Basic <api_key>."
)

_ERROR_DEFINITION: dict[str, object] = {
    "type": "object",
    "required": ["error", "error_info"],
    "properties": {
        "error": {"type": "string", "description": "What was wrong; understandable alone."},
        "error_info": {
            "type": "object",
            "required": ["cause", "remediation", "status"],
            "properties": {
                "cause": {"type": "string", "description": "Why."},
                "remediation": {"type": "string", "description": "What to do next."},
                "status": {"type": "integer", "description": "The HTTP status again."},
            },
        },
    },
}


def documentation(routes: Sequence[Route], version: str) -> list[Route]:
    """The two routes that document ``routes`` and themselves."""
    document: bytes | None = None
    page: bytes | None = None
    building = asyncio.Lock()

    async def swagger(_request: web.Request) -> web.Response:
        nonlocal document
        async with building:
            if document is None:
                document = await asyncio.to_thread(openapi_document, [*routes, *own], version)
        return web.Response(body=document, headers={hdrs.CONTENT_TYPE: JSON_MEDIA})

    async def docs(_request: web.Request) -> web.Response:
        nonlocal page
        if page is None:
            page = await asyncio.to_thread(_PAGE.read_bytes)
        return web.Response(body=page, headers=_PAGE_HEADERS)

    own = [
        Route(
            GET,
            "/unit_api/swagger.json",
            swagger,
            summary="OpenAPI document",
            description="This API as a Swagger 2.0 document.",
            tag="Documentation",
            answers={200: Answer("The document.", {"swagger": "2.0"})},
            max_age_s=60,
        ),
        Route(
            GET,
            "/unit_api/docs",
            docs,
            summary="This page",
            description="The API to read and to try, in a browser.",
            tag="Documentation",
            answers={200: Answer("A page.", "<!doctype html>", media="text/html")},
            max_age_s=60,
        ),
    ]
    return own


def openapi_document(routes: Iterable[Route], version: str) -> bytes:
    """The Swagger 2.0 document of ``routes`` as JSON. Slow; callable from any thread."""
    # Old ways of these libraries that nobody here can change: state under text keys, which
    # aiohttp >= 3.9 dislikes; versions compared by distutils in Debian 12. For good and not in
    # catch_warnings(), which is not safe beside other threads.
    warnings.filterwarnings("ignore", "It is recommended to use web.AppKey")
    warnings.filterwarnings("ignore", "distutils Version classes are deprecated")
    warnings.filterwarnings("ignore", "The distutils package is deprecated")
    from aiohttp_apispec import setup_aiohttp_apispec  # heavy, and rarely needed

    routes = list(routes)
    # aiohttp-apispec reads an application; this one has the routes and serves nobody
    scratch = web.Application()
    for route in routes:
        for method in route.methods:
            scratch.router.add_route(method, route.path, _described(route, method))
    specification = setup_aiohttp_apispec(
        scratch,
        in_place=True,
        url=None,
        title="Pioreactor unit API",
        version=version,
        info={"description": _INTRODUCTION},
        tags=[{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        securityDefinitions={"api_key": {"type": "basic"}},
    )
    document: dict[str, object] = specification.swagger_dict()
    _complete(document, routes)
    return json_bytes(document)


def _described(route: Route, method: str) -> Handler:
    """A stand-in for the handler that carries what aiohttp-apispec reads."""
    from aiohttp_apispec import docs, form_schema, json_schema, querystring_schema, response_schema

    async def stand_in(_request: web.Request) -> web.Response:
        raise NotImplementedError

    is_twin = method != route.methods[0]
    details: dict[str, object] = {
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description,
        "operationId": _operation_id(route, method),
        "produces": list(dict.fromkeys([a.media for a in route.answers.values()] + [JSON_MEDIA])),
        "parameters": [
            {"in": "path", "name": name, "required": True, "type": "string", "description": text}
            for name, text in route.path_params.items()
        ],
    }
    if is_twin:
        details["x-same-as"] = route.methods[0].lower()
    if route.body is not None:
        details["consumes"] = [JSON_MEDIA]
    elif route.form is not None:
        details["consumes"] = ["multipart/form-data"]
    docs(**details)(stand_in)
    if route.query is not None:
        querystring_schema(route.query)(stand_in)
    if route.form is not None:
        form_schema(route.form)(stand_in)
    if route.body is not None:
        json_schema(
            route.body,
            required=not route.body.may_be_empty,
            example=dict(route.body.example or {}),
            add_to_refs=True,
        )(stand_in)
    for status, answer in route.answers.items():
        if answer.schema is not None:
            response_schema(answer.schema, status, description=answer.description)(stand_in)
    return stand_in


def _operation_id(route: Route, method: str) -> str:
    words = _formatter(route).removeprefix("/unit_api/").replace("{", "by/")
    return "_".join([method.lower(), *re.findall(r"\w+", words)])


def _complete(document: dict[str, object], routes: Iterable[Route]) -> None:
    """Add what aiohttp-apispec cannot say: examples, derived schemas, the shared error."""
    definitions = document.setdefault("definitions", {})
    paths = document["paths"]
    assert isinstance(definitions, dict)
    assert isinstance(paths, dict)
    for definition in definitions.values():
        # newer apispec writes this for plain schemas; but answers may gain keys, and get them
        if definition.get("additionalProperties") is False:
            del definition["additionalProperties"]
    definitions["Error"] = _ERROR_DEFINITION
    for route in routes:
        for method in route.methods:
            operation = paths[_formatter(route)][method.lower()]
            responses = operation["responses"]
            for status, answer in route.answers.items():
                response = responses.setdefault(str(status), {"description": answer.description})
                if answer.schema is None:
                    response["schema"] = (
                        _shape(answer.example)
                        if answer.media == JSON_MEDIA
                        else {"type": "string" if answer.media.startswith("text/") else "file"}
                    )
                if answer.example is not None:
                    response["examples"] = {answer.media: answer.example}
            for status in route.all_errors:
                responses[str(status)] = _error_response(status)


def _formatter(route: Route) -> str:
    """The path as the document has it: ``{name:regular expression}`` without the latter."""
    resource = web.UrlDispatcher().add_resource(route.path)
    return resource.canonical


def _error_response(status: int) -> dict[str, object]:
    phrase = HTTPStatus(status).phrase
    text = f"What was wrong ({phrase.lower()})."
    remediation = REMEDIATIONS.get(status, LOOK_AT_THE_LOG)
    response: dict[str, object] = {
        "description": phrase,
        "schema": {"$ref": "#/definitions/Error"},
        "examples": {JSON_MEDIA: error_body(status, text, text, remediation)},
    }
    if status == 401:
        response["headers"] = {name: {"type": "string"} for name in CHALLENGE}
    return response


def _shape(example: object) -> dict[str, object]:
    """A schema that ``example`` fits; every key of an object is taken for fixed."""
    match example:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": "integer"}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case list():
            return {"type": "array", "items": _shape(example[0]) if example else {}}
        case dict():
            return {
                "type": "object",
                "properties": {str(key): _shape(value) for key, value in example.items()},
            }
        case _:
            return {}
