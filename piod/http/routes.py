"""The route table: what the unit answers, and how that is documented.

One list of :class:`Route` reads top to bottom; the application and the OpenAPI
document are both made from it. A handler is a coroutine function, usually a
bound method, that takes the request and returns an answer::

    Route(
        COMMAND, "/unit_api/jobs/run/job_name/{job_name}", jobs.run,
        tag="Jobs", summary="Run a job",
        path_params={"job_name": "Name of the job."},
        body=RunJobBody,
        answers={202: Answer("The task that starts it.", TASK_EXAMPLE, schema=TaskSchema)},
        errors=(404, 409, 429),
    )

Each error is declared by its status alone. Those that follow from the rest of
the route (400 and 413 with a body, 401 when it changes something, …) need not be.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from marshmallow import Schema

from piod.http.decode import Decoded

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

GET = ("GET",)
POST = ("POST",)
PATCH = ("PATCH",)
DELETE = ("DELETE",)
COMMAND = ("POST", "PATCH")
"""A documented POST command: leaders' pages and experiment profiles send PATCH."""

JSON_MEDIA = "application/json"

_READING = frozenset(("GET", "HEAD", "OPTIONS"))
_PATH_PARAM = re.compile(r"{(\w+)(?::[^{}]*)?}")


@dataclass(frozen=True)
class Answer:
    """One way in which a route succeeds.

    ``example`` is the JSON value (or the text, for another ``media``) that the
    document shows. ``schema`` says what keys there are; without one, the
    document derives it from the example, which is right for fixed keys only.
    """

    description: str
    example: object = None
    schema: type[Schema] | Schema | None = None
    media: str = JSON_MEDIA


@dataclass(frozen=True)
class Route:
    """One line of the table.

    ``path`` may hold ``{name}`` and ``{name:regular expression}``. ``body`` is
    the JSON body, ``query`` the query; the handler decodes them with
    :func:`piod.http.decode.decode_json` and ``decode_query``. ``form`` only
    documents a multipart body that the handler reads itself. ``max_age_s``
    makes successful answers carry ``Cache-Control: public, max-age=…``; None
    sends no such header.
    """

    methods: tuple[str, ...]
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    tag: str = "Unit"
    path_params: Mapping[str, str] = field(default_factory=dict)
    query: type[Decoded[object]] | None = None
    body: type[Decoded[object]] | None = None
    form: type[Schema] | None = None
    errors: tuple[int, ...] = ()
    max_age_s: int | None = None
    shows_secrets: bool = False
    """Reading it needs the api_key, too."""

    @property
    def needs_key(self) -> bool:
        """Whether the api_key is needed, if the unit has one."""
        return self.changes_something or self.shows_secrets

    @property
    def changes_something(self) -> bool:
        """Whether it is more than reading."""
        return not _READING.issuperset(self.methods)

    @property
    def path_names(self) -> tuple[str, ...]:
        """The parameters in the path, in their order."""
        return tuple(_PATH_PARAM.findall(self.path))

    @property
    def all_errors(self) -> tuple[int, ...]:
        """The declared errors and those that follow from the rest, sorted."""
        follow = {403}
        if self.path_names or self.query or self.body or self.form:
            follow.add(400)
        if self.body or self.form:
            follow.add(413)
        if self.needs_key:
            follow.add(401)
        return tuple(sorted(follow.union(self.errors)))


def undocumented(routes: Iterable[Route]) -> list[str]:
    """What the document would lack, one line for each gap; empty when it is complete."""
    return [
        f"{'/'.join(route.methods)} {route.path}: {gap}" for route in routes for gap in _gaps(route)
    ]


def _gaps(route: Route) -> Iterator[str]:
    if not route.summary:
        yield "no summary"
    if not route.answers:
        yield "no answer"
    for status, answer in route.answers.items():
        if not answer.description:
            yield f"answer {status} has no description"
        if answer.example is None:
            yield f"answer {status} has no example"
    described = set(route.path_params)
    for name in route.path_names:
        if not route.path_params.get(name):
            yield f"path parameter {name!r} is not described"
    for name in described.difference(route.path_names):
        yield f"path parameter {name!r} is described but not in the path"
    if route.body is not None and route.body.example is None:
        yield "the body has no example"
    for schema in (route.query, route.body, route.form):
        if schema is None:
            continue
        for name, spec in schema().fields.items():
            if not spec.metadata.get("description"):
                yield f"field {name!r} of {schema.__name__} has no description"
