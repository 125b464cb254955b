"""The drawings of the steps: there, well-formed, accessible, cached, and nothing else is served."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from piod.http.pictures import STATIC, PictureHandlers
from piod.http.table.pictures import picture_routes

ROOT = Path(__file__).parents[2]
DRAWINGS = sorted(STATIC.iterdir())
SVG = "{http://www.w3.org/2000/svg}"
ALLOWED = {"title", "desc", "rect", "path", "circle", "g", "text"}
URL = "/unit_api/static/place-standard.svg"

KEPT_FOR_PLUGINS = {"vial-in-reactor.svg", "pump-running.svg", "remove-vial.svg"}
"""Of use to any protocol, such as one of the owner's own."""


@pytest.fixture
async def client(serve):
    return await serve(list(picture_routes(PictureHandlers())))


def test_every_picture_that_a_protocol_names_is_there_and_every_one_there_is_named() -> None:
    sources = [*(ROOT / "piod" / "calibrations" / "protocols").rglob("*.py")]
    examples = [*(ROOT / "docs" / "examples").rglob("*.py")]
    named = {
        name
        for path in (*sources, *examples)
        for name in re.findall(r"[\w./-]+\.svg", path.read_text())
    }
    assert len(named) > 5
    assert named <= {path.name for path in DRAWINGS}
    assert {path.name for path in DRAWINGS} <= named | KEPT_FOR_PLUGINS


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)
def test_a_drawing_is_small_well_formed_and_tells_those_who_cannot_see_it(path: Path) -> None:
    text = path.read_text()
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    labels = {child.get("id"): (child.text or "").strip() for child in root if child.get("id")}
    assert [len(labels[part]) > 5 for part in root.get("aria-labelledby", "").split()] == [True] * 2
    # nothing that a drawing does not need: no script, no link, no font or picture from elsewhere
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= ALLOWED | {"svg"}
    assert "href" not in text
    assert not [name for node in root.iter() for name in node.attrib if name.startswith("on")]
    assert len(text) < 4_000


async def test_a_drawing_is_served_and_known_again_by_its_etag(client) -> None:
    answer = await client.get(URL)
    assert answer.status == 200
    assert answer.content_type == "image/svg+xml"
    assert await answer.read() == (STATIC / "place-standard.svg").read_bytes()
    assert answer.headers["Cache-Control"] == "public, max-age=86400"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for known in (answer.headers["ETag"], f'"other", {answer.headers["ETag"]}', "*"):
        again = await client.get(URL, headers={"If-None-Match": known})
        assert again.status == 304
        assert await again.read() == b""
        assert again.headers["ETag"] == answer.headers["ETag"]
        assert again.headers["Cache-Control"] == answer.headers["Cache-Control"]
    changed = await client.get(URL, headers={"If-None-Match": '"other"'})
    assert changed.status == 200
    head = await client.head(URL)
    assert (head.status, head.headers["ETag"]) == (200, answer.headers["ETag"])


@pytest.mark.parametrize(
    "name",
    [
        "nothing.svg",
        "",
        "..%2fdocs.html",
        "..%2f..%2f__init__.py",
        "%2e%2e%2fdocs.html",
        "../docs.html",
        "..%5cdocs.html",
        "%2fetc%2fpasswd",
        "place-standard.svg%00",
        "place-standard.svg/",
        "PLACE-STANDARD.SVG",
        ".",
    ],
)
async def test_nothing_else_is_served(client, name: str) -> None:
    # no client between: what is asked for arrives as it stands here
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(f"GET /unit_api/static/{name} HTTP/1.0\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    assert " 404 " in head.splitlines()[0]
    assert json.loads(body)["error_info"]["status"] == 404
    assert "Cache-Control" not in head


async def test_a_unit_serves_what_its_steps_refer_to(unit) -> None:
    async with unit.client.get(URL) as answer:
        assert answer.status == 200
    document = await unit.get("/unit_api/swagger.json")
    assert "/unit_api/static/{name}" in document["paths"]
