"""The aiohttp application, made from the route table."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from piod.http.decode import MAX_BODY_BYTES
from piod.http.edge import AccessNow, BeforeAnswer, expect, guard, not_found
from piod.http.openapi import documentation
from piod.http.routes import Route


def build_application(
    routes: Iterable[Route],
    *,
    version: str,
    access: AccessNow,
    before_answer: BeforeAnswer | None = None,
) -> web.Application:
    """An application that answers ``routes`` and the documentation of them.

    ``version`` is the one that the document states. ``access`` is called at
    each request that needs it. ``before_answer`` is awaited before each answer
    of a route leaves. Whatever matches no route is 404 or 405.
    """
    table = list(routes)
    table += documentation(table, version)
    # one more than allowed: aiohttp 3.8 refuses a body of exactly this size, later ones do not
    application = web.Application(client_max_size=MAX_BODY_BYTES + 1)
    resources: dict[str, web.Resource] = {}
    for route in table:
        resource = resources.get(route.path)
        if resource is None:
            resource = resources[route.path] = application.router.add_resource(route.path)
        handler = guard(
            route.handler,
            needs_key=route.needs_key,
            has_path_params=bool(route.path_names),
            max_age_s=route.max_age_s,
            access=access,
            before_answer=before_answer,
        )
        for method in route.methods:
            resource.add_route(method, handler, expect_handler=expect)
            if method == "GET":
                resource.add_route("HEAD", handler, expect_handler=expect)
    fallback = not_found(tuple(resources.values()), access)
    application.router.add_route("*", r"/{path:[\s\S]*}", fallback, expect_handler=expect)
    return application
