"""How answers look on the wire: compact JSON, and one shape for every refusal.

- :func:`json_answer`: what a handler returns.
- :func:`refusal_answer`: a :class:`~piod.errors.PiodError` as HTTP.
- :func:`http_error_answer`: the same for what aiohttp itself refuses.

Every status of 400 and above has the body
``{"error": …, "error_info": {"cause": …, "remediation": …, "status": …}}``.
Leaders forward only ``error``, so that text stands alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import hdrs, web

from piod.errors import PiodError

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

REMEDIATIONS: Mapping[int, str] = {
    400: "Correct the request and send it again.",
    401: "Send the unit's api_key in the Authorization header.",
    403: "Check the permissions and the configuration of this unit.",
    404: "Check the URL against the list of endpoints at /unit_api/docs.",
    405: "Use one of the methods that the Allow header lists.",
    409: "Resolve the conflict, then try again.",
    413: "Send a smaller body.",
    415: "Send the body as application/json.",
    416: "Ask for a range within the file.",
    417: "Send the request without the Expect header.",
    429: "Wait a second, then try again.",
    503: "Try again later; if it persists, look at the log of piod on this unit.",
    507: "Free space on the disk of this unit, then try again.",
}
"""The next step for a status when nothing more specific is known."""

LOOK_AT_THE_LOG = "Look at the log of piod on this unit."

CHALLENGE: Mapping[str, str] = {hdrs.WWW_AUTHENTICATE: 'Basic realm="Pioreactor unit"'}
"""What a 401 must carry (RFC 9110, 15.5.2)."""


JSON_HEADERS: Mapping[str, str] = {hdrs.CONTENT_TYPE: "application/json"}


def json_bytes(value: object) -> bytes:
    """Compact UTF-8 JSON.

    A lone surrogate (a file name that is not UTF-8, say) becomes its JSON
    escape. Raises ValueError for NaN and infinities, TypeError for what JSON
    cannot carry: both are bugs of the caller.
    """
    # backslashreplace writes a surrogate as \udcff, which is JSON's own escape for it
    return _encode(value).encode("utf-8", "backslashreplace")


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer with ``value`` as its JSON body."""
    response = web.Response(body=json_bytes(value), status=status, headers=JSON_HEADERS)
    if headers:
        response.headers.update(headers)
    return response


def error_body(status: int, error: str, cause: str, remediation: str) -> dict[str, object]:
    """The body of every refusal, as the reference documents it."""
    return {
        "error": error,
        "error_info": {"cause": cause, "remediation": remediation, "status": status},
    }


def refusal_answer(refusal: PiodError) -> web.Response:
    """``refusal`` as an answer."""
    return json_answer(
        error_body(refusal.status, refusal.message, refusal.cause, refusal.remediation),
        status=refusal.status,
        headers=CHALLENGE if refusal.status == 401 else None,
    )


def plain_refusal(
    status: int, error: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A refusal about which no more is known than its text and status."""
    remediation = REMEDIATIONS.get(status, LOOK_AT_THE_LOG if status >= 500 else REMEDIATIONS[400])
    return json_answer(
        error_body(status, error, error, remediation), status=status, headers=headers
    )


def http_error_answer(error: web.HTTPException) -> web.Response:
    """An aiohttp error (status 400 and above) as an answer, its own headers kept."""
    headers = {
        name: value
        for name, value in error.headers.items()
        if name not in (hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH)
    }
    if error.status == 401:
        headers = {**CHALLENGE, **headers}
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        text = f"{error.method} is not allowed here; allowed: {allowed}."
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        text = "The body is larger than this endpoint takes."
    else:
        default_text = f"{error.status}: {error.reason}"
        text = error.text if error.text and error.text != default_text else error.reason
    return plain_refusal(error.status, text, headers)
