"""Whatever is sent to whichever endpoint: a 4xx with the error object, soon, never a 5xx.

Each test runs over every route of a whole unit, so a new route is met by it.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from piod.clock import SimulatedClock
from tests.unit import Unit, running_unit

PATIENCE_S = 5.0
"""A refusal is to come within a second; this machine may be busy."""

Operation = tuple[str, str, dict[str, Any]]
"""Verb, path and description of the document."""

BAD_BODIES: dict[str, bytes] = {
    "malformed": b'{"options": ',
    "not JSON at all": b"hello",
    "not UTF-8": b'{"a": "\xff"}',
    "null": b"null",
    "a list": b"[1, 2]",
    "a number": b"5",
    "NaN": b'{"options": NaN}',
    "infinity": b'{"options": {"a": -Infinity}}',
    "a number that is too large": b'{"options": {"a": 1e999}}',
    "a huge integer": b'{"options": {"a": ' + b"9" * 5000 + b"}}",
    "NUL in a text": b'{"options": {"a": "x\\u0000y"}, "filepath": "a\\u0000b"}',
    "half a surrogate pair": b'{"options": {"a": "\\ud800"}}',
    "200,000 brackets": b"[" * 200_000,
    "deep objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a form": b"options=1&args=2",
}
BAD_SEGMENTS = {
    "up": "..",
    "up, encoded": "%2e%2e",
    "up, half encoded": ".%2e",
    "up, encoded twice": "%252e%252e",
    "up and a name": "..%2f..%2fetc%2fpasswd",
    "backslashes": "..%5c..%5cetc",
    "NUL": "a%00b",
    "300 characters": "n" * 300,
    "a line break": "a%0ab",
    "not UTF-8": "%ff%fe",
    "half an escape": "%e",
    "a blank": "%20",
    "text in another script": "%e6%a0%b9",
}


@pytest.fixture
async def unit(tmp_path: Path, clock: SimulatedClock) -> AsyncIterator[Unit]:
    """A leader: a worker takes any body for its clock."""
    async with running_unit(tmp_path, clock, leader_name="pio01") as one:
        yield one


@pytest.fixture
async def operations(unit: Unit) -> list[Operation]:
    document = await unit.get("/unit_api/swagger.json")
    return [
        (verb.upper(), path, described)
        for path, verbs in document["paths"].items()
        for verb, described in verbs.items()
    ]


def taking_json(operations: list[Operation]) -> Iterator[Operation]:
    for verb, path, described in operations:
        if any(parameter["in"] == "body" for parameter in described["parameters"]):
            yield verb, path, described


def filled(path: str, segment: str = "nothing-here") -> str:
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + segment + rest.partition("}")[2]
    return path


async def send(unit: Unit, verb: str, path: str, data: bytes | None = None) -> tuple[int, bytes]:
    """Status and body, of a request whose path is sent exactly as it is written."""
    url = unit.client.make_url("/").join(URL(path, encoded=True))
    headers = (
        {"Content-Type": "application/x-www-form-urlencoded"} if data == b"options=1&args=2" else {}
    )
    began = time.monotonic()
    stream = None if data is None else io.BytesIO(data)
    async with unit.client.session.request(verb, url, data=stream, headers=headers) as answer:
        body = await answer.read()
    assert time.monotonic() - began < PATIENCE_S, (verb, path)
    return answer.status, body


def assert_error_object(body: bytes, status: int, what: object) -> None:
    error = json.loads(body)
    assert set(error) >= {"error", "error_info"}, what
    assert set(error["error_info"]) == {"cause", "remediation", "status"}, what
    assert error["error_info"]["status"] == status, what


@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_a_bad_body_is_4xx_everywhere(
    unit: Unit, operations: list[Operation], kind: str
) -> None:
    refused = 0
    for verb, path, _ in taking_json(operations):
        status, body = await send(unit, verb, filled(path), BAD_BODIES[kind])
        assert 400 <= status < 500, (verb, path, status, body)
        assert_error_object(body, status, (verb, path))
        refused += 1
    assert refused > 10
    assert unit.duty == 0
    assert await unit.get("/unit_api/jobs") == []


@pytest.mark.parametrize("kind", BAD_SEGMENTS)
async def test_a_bad_path_is_never_a_5xx(
    unit: Unit, operations: list[Operation], kind: str
) -> None:
    before = sorted(path for path in unit.data_dir.rglob("*") if "storage" not in path.parts)
    tried = 0
    for verb, path, _ in operations:
        if "{" not in path:
            continue
        status, body = await send(unit, verb, filled(path, BAD_SEGMENTS[kind]), b"{}")
        documented_503 = verb == "PATCH" and "/jobs/settings/job_name/" in path
        assert status < 500 or documented_503, (verb, path, status, body)
        assert b"root:" not in body
        if status >= 400 and verb != "HEAD":
            assert_error_object(body, status, (verb, path))
        tried += 1
    assert tried > 20
    after = sorted(path for path in unit.data_dir.rglob("*") if "storage" not in path.parts)
    assert after == before


async def test_a_body_of_60_mb_is_refused_everywhere(
    unit: Unit, operations: list[Operation]
) -> None:
    too_large = 0
    large = b'{"options": {"a": "' + b"x" * 60_000_000 + b'"}}'
    for verb, path, _ in taking_json(operations):
        try:
            status, body = await send(unit, verb, filled(path), large)
        except OSError:
            continue  # the unit hung up before it was all sent, as it may
        assert 400 <= status < 500, (verb, path, status, body[:300])
        assert_error_object(body, status, (verb, path))
        too_large += status == 413
    assert too_large > 5


async def test_the_wrong_verb_is_405_with_allow_everywhere(
    unit: Unit, operations: list[Operation]
) -> None:
    verbs: dict[str, set[str]] = {}
    for verb, path, _ in operations:
        verbs.setdefault(path, set()).add(verb)
    for path, allowed in verbs.items():
        wrong = next(verb for verb in ("PUT", "DELETE") if verb not in allowed)
        async with unit.client.request(wrong, filled(path)) as answer:
            assert answer.status == 405, (wrong, path)
            assert allowed <= set(re.split(", *", answer.headers["Allow"]))
            assert_error_object(await answer.read(), 405, path)
