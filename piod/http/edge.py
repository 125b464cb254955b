"""What stands around every handler: access, errors and caching.

:func:`guard` wraps a handler once, when the application is built, with all that
is fixed for its route, so that a request pays for a few comparisons; there are no
middlewares. :func:`not_found` answers whatever no route matches. After them nothing
but an answer leaves: a refusal has the error object, a bug is logged with its
traceback and answered 500 without internals.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import HttpVersion11, hdrs, web

from piod.errors import PiodError
from piod.http.access import Access, refuse_foreign_origin, refuse_without_key
from piod.http.answers import http_error_answer, plain_refusal, refusal_answer
from piod.http.decode import refuse_invalid_utf8
from piod.http.routes import Handler

log = logging.getLogger(__name__)

AccessNow = Callable[[], Access]
"""Asked at each request that needs to know: the configuration may have been read anew."""

BeforeAnswer = Callable[[], Awaitable[None]]
"""Awaited before each answer of a route leaves, whatever its status."""


def guard(
    handler: Handler,
    *,
    needs_key: bool,
    has_path_params: bool,
    max_age_s: int | None,
    access: AccessNow,
    before_answer: BeforeAnswer | None,
) -> Handler:
    """``handler`` with access checked before it and every error answered after it."""
    cache_control = None if max_age_s is None else f"public, max-age={max_age_s}"

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            origin = request.headers.get(hdrs.ORIGIN)
            if origin is not None:
                refuse_foreign_origin(request, origin, access())
            if needs_key:
                refuse_without_key(request, access())
            path = request.raw_path
            if has_path_params and ("%" in path or not path.isascii()):
                refuse_invalid_utf8(path.partition("?")[0], "path")
            response = await handler(request)
        except Exception as error:  # the edge: nothing may leave but an answer
            response = answer_for(request, error)
        if before_answer is not None:
            try:
                await before_answer()
            except Exception as error:  # the edge, as above
                response = answer_for(request, error)
        if cache_control is not None and response.status < 300 and not response.prepared:
            response.headers.setdefault(hdrs.CACHE_CONTROL, cache_control)
        if not request.content.is_eof() and not response.prepared:
            # the client is still sending: the connection cannot carry another request
            response.force_close()
        return response

    return guarded


def answer_for(request: web.Request, error: Exception) -> web.StreamResponse:
    """The answer that tells ``error``.

    Raises ``error`` again where there is none to give: a redirect, which aiohttp
    sends, and a failure after the answer has begun, where aiohttp can only close
    the connection.
    """
    if isinstance(error, web.HTTPException) and error.status < 400:
        raise error
    if isinstance(error, (ConnectionError, web.RequestPayloadError)) and _client_is_gone(request):
        return web.Response(status=499, reason="Client Closed Request")  # nobody reads it
    if request.writer.output_size > 0:
        raise error
    return _rendered(request, error)


def _rendered(request: web.Request, error: Exception) -> web.Response:
    match error:
        case PiodError():
            if error.status >= 500:
                why = "" if error.cause == error.message else f" ({error.cause})"
                log.warning("%s %r: %s%s", request.method, request.path, error, why)
            return refusal_answer(error)
        case web.HTTPException():
            return http_error_answer(error)
        case web.RequestPayloadError():
            return plain_refusal(400, "The body could not be read: its encoding is broken.")
        case TimeoutError():
            log.warning("%s %r: timed out", request.method, request.path, exc_info=error)
            return plain_refusal(503, "A part of the unit did not answer in time.")
        case _:
            log.error("%s %r failed", request.method, request.path, exc_info=error)
            return plain_refusal(500, "The unit failed to do this: an unexpected error in piod.")


def _client_is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def not_found(resources: Sequence[web.AbstractResource], access: AccessNow) -> Handler:
    """The handler of all that no route of ``resources`` matches: 405 or 404."""

    async def refuse(request: web.Request) -> web.StreamResponse:
        allowed: set[str] = set()
        for resource in resources:
            _, methods = await resource.resolve(request)
            allowed |= methods
        if allowed:
            raise web.HTTPMethodNotAllowed(request.method, allowed)
        raise web.HTTPNotFound(text=f"There is nothing at {request.path[:200]!r} on this unit.")

    return guard(
        refuse,
        needs_key=False,
        has_path_params=False,
        max_age_s=None,
        access=access,
        before_answer=None,
    )


async def expect(request: web.Request) -> None:
    """Answer the header ``Expect``: aiohttp's own refusal would not be the error object."""
    expectation = request.headers.get(hdrs.EXPECT, "")
    if request.version < HttpVersion11:
        return
    if expectation.lower() != "100-continue":
        answer = plain_refusal(417, f"The expectation {expectation[:80]!r} cannot be met.")
        # raised, because aiohttp 3.8 drops what this returns; no guard stands around it
        refusal = web.HTTPExpectationFailed()
        refusal.body = answer.body
        refusal.content_type = answer.content_type
        refusal.charset = None
        raise refusal
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
