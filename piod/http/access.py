"""Who may call: the Origin rule and the api_key rule.

A browser names the page that makes it send a request in the ``Origin`` header.
A page that is neither this unit's own nor listed in ``[piod] allowed_origins``
is refused (403): no web page that somebody opens may run a pump. A page is the
unit's own if its host is the one that was called *and* a name that only the lab
can give: an address, a name without dots, one in ``.local``. Under any other name
somebody could point his own domain at the unit (DNS rebinding); list it. When
``[ui_basic_auth] api_key`` is set, every request that changes something needs
it (401), as leaders send it: ``Authorization: Basic <api_key>``, the key being
base64 already.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from piod.errors import Forbidden, Unauthorized, Unavailable

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Access(Protocol):
    """What the configuration says about callers, as of now."""

    @property
    def allowed_origins(self) -> Sequence[str]:
        """``scheme://host[:port]`` of the pages that may call besides the unit's own."""
        ...

    @property
    def api_key(self) -> str | None:
        """What a request that changes something must present; None or empty: nothing."""
        ...

    @property
    def unknown(self) -> str | None:
        """Why it is not known who may change something; None when it is."""
        ...


def refuse_foreign_origin(request: web.Request, origin: str, access: Access) -> None:
    """Raises :class:`~piod.errors.Forbidden` unless ``origin`` is this host or listed."""
    caller = _parts(origin)
    if caller is not None:
        scheme, *where = caller
        # not request.host: without the header that asks the resolver for a name
        host = request.headers.get(hdrs.HOST)
        own = None if host is None else _parts(f"{scheme}://{host}")
        if own is not None and own[1:] == tuple(where) and _only_the_lab_gives(own[1]):
            return
        if any(_parts(allowed) == caller for allowed in access.allowed_origins):
            return
    raise Forbidden(
        f"Pages from the origin {origin[:200]!r} may not use this unit.",
        remediation="Open the unit's own pages, or add the origin to allowed_origins in the "
        "section [piod] of this unit's configuration.",
    )


def refuse_without_key(request: web.Request, access: Access) -> None:
    """Raises :class:`~piod.errors.Unauthorized` unless the api_key is presented, if one is set.

    Raises :class:`~piod.errors.Unavailable` while that is not known.
    """
    if access.unknown is not None:
        raise Unavailable(
            f"Nothing can be changed while the configuration cannot be read: {access.unknown}",
            cause="It is not known whether an api_key is needed.",
            remediation="Correct the configuration of this unit; it is read again at once.",
        )
    key = access.api_key
    if not key:
        return
    scheme, _, presented = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "basic" and hmac.compare_digest(
        presented.strip().encode("utf-8", "surrogateescape"), key.encode("utf-8", "surrogateescape")
    ):
        return
    raise Unauthorized(
        "This request needs the api_key of the unit."
        if not presented
        else "The api_key that was sent is not the one of this unit."
    )


def _only_the_lab_gives(host: str) -> bool:
    if "." not in host or host.endswith((".local", ".localhost")):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _parts(origin: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of an origin; None when it is not one (``null``, say)."""
    try:
        url = urlsplit(origin.strip())
        port = url.port
    except ValueError:
        return None
    scheme = url.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not url.hostname or "@" in url.netloc:
        return None
    if url.path not in ("", "/") or url.query or url.fragment:
        return None
    return scheme, url.hostname, _DEFAULT_PORTS[scheme] if port is None else port
