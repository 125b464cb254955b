"""A unit's HTTP API as ``piod calibrate`` asks it: JSON in, JSON out, one connection a request.

:class:`UnitClient` gets and posts; :class:`UnitRefused` and :class:`UnitSilent` are what goes
wrong. With the standard library alone: this process starts beside a daemon that needs the
memory.
"""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote, urlsplit

from piod.errors import BadRequest, PiodError
from piod.events import JsonValue

ASK_TIMEOUT_S = 15.0
"""For what is answered at once; the unit itself gives up sooner."""


class UnitRefused(PiodError):
    """The unit answered with a refusal, in its words. ``http_status``: its status."""

    def __init__(self, http_status: int, message: str, remediation: str) -> None:
        super().__init__(message, remediation=remediation)
        self.http_status = http_status


class UnitSilent(PiodError):
    """The unit cannot be reached, or does not speak its API."""

    default_remediation = "Look whether the unit is on and piod runs there; then try again."


class UnitClient:
    """The unit at ``url``; ``api_key`` as leaders send it, if the unit has one.

    Raises BadRequest for a URL that is none.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            parts, self._host = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not self._host:
            raise BadRequest(
                f"{url[:200]!r} is no address of a unit",
                remediation="Write it as http://pio01.local or http://127.0.0.1:8000.",
            )
        self._secure = parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._api_key = api_key
        self.url = f"{parts.scheme}://{parts.netloc}{self._base}"

    def get(self, *path: str) -> JsonValue:
        """What is at ``path`` below /unit_api. Raises UnitRefused, UnitSilent."""
        return self._ask("GET", path, None, ASK_TIMEOUT_S)

    def post(
        self, *path: str, body: JsonValue = None, timeout_s: float = ASK_TIMEOUT_S
    ) -> JsonValue:
        """Post ``body`` to ``path`` below /unit_api. Raises UnitRefused, UnitSilent."""
        return self._ask("POST", path, body, timeout_s)

    def _ask(
        self, method: str, path: tuple[str, ...], body: JsonValue, timeout_s: float
    ) -> JsonValue:
        where = "/".join([f"{self._base}/unit_api", *(quote(part, safe="") for part in path)])
        headers = {"Accept": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Basic {self._api_key}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = make(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, where, data, headers)
            response = connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise UnitSilent(f"the unit at {self.url} does not answer: {why}") from error
        finally:
            connection.close()
        try:
            answer: JsonValue = json.loads(text)
        except ValueError as error:
            raise UnitSilent(
                f"{self.url} answered {status}, and not in JSON",
                remediation="Check the address: it is not that of a unit.",
            ) from error
        if status >= 400:
            raise _refusal(status, answer)
        return answer


def plain(text: str) -> str:
    """``text`` as a terminal may show it: nothing in it moves the cursor or changes colours."""
    return "".join(c for c in text if c == "\n" or c.isprintable())


def _refusal(status: int, answer: JsonValue) -> UnitRefused:
    told = answer if isinstance(answer, dict) else {}
    info = told.get("error_info")
    remediation = info.get("remediation") if isinstance(info, dict) else None
    return UnitRefused(
        status,
        plain(str(told.get("error") or f"the unit answered {status}")),
        plain(str(remediation or PiodError.default_remediation)),
    )
