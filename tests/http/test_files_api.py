"""Looking at, reading and removing files over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from tests.trees import write_tree
from tests.unit import Unit

PATH = "/unit_api/system/path"
REMOVE = "/unit_api/system/remove_file"
MARKER = "DISALLOW_UI_FILE_SYSTEM"


def assert_refusal(answer: tuple[int, Any], status: int, *words: str) -> None:
    got, body = answer
    assert got == status, body
    assert set(body) == {"error", "error_info"}
    assert set(body["error_info"]) == {"cause", "remediation", "status"}
    assert body["error_info"]["status"] == status
    text = json.dumps(body)
    for word in words:
        assert word in text


class Got:
    """An answer, whole."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


async def get(unit: Unit, raw_path: str, method: str = "GET", **headers: str) -> Got:
    """Exactly this path on the wire: a client would take the dots out of it."""
    reader, writer = await asyncio.open_connection(unit.client.host, unit.client.port)
    lines = [f"{method} {raw_path} HTTP/1.1", "Host: unit", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    first, *rest = head.decode().split("\r\n")
    return Got(int(first.split()[1]), CIMultiDict(line.split(": ", 1) for line in rest), body)


# -- folders ------------------------------------------------------------------------


async def test_a_folder_is_listed(unit: Unit) -> None:
    write_tree(unit.data_dir, {"z.txt": "", "a.txt": "", "x/__pycache__/y": "", "x/b": ""})
    got = await get(unit, f"{PATH}/")
    body = json.loads(got.body)
    assert body["current"] == f"{unit.data_dir}/"
    assert [name for name in body["dirs"] if name != "simulator"] == ["storage", "x"]
    assert body["files"] == ["a.txt", "z.txt"]
    assert got.headers["Cache-Control"] == "public, max-age=5"
    assert await unit.get(f"{PATH}/x") == {
        "current": f"{unit.data_dir}/x",
        "dirs": [],
        "files": ["b"],
    }


async def test_the_path_without_a_slash_leads_to_the_one_with_it(unit: Unit) -> None:
    got = await get(unit, PATH)
    assert (got.status, got.headers["Location"]) == (308, f"{PATH}/")


# -- files --------------------------------------------------------------------------


async def test_a_file_comes_as_text_with_all_that_a_cache_needs(unit: Unit) -> None:
    write_tree(unit.data_dir, {"a/page.html": "<script>ü</script>", "a/x.txt.gz": "not this"})
    got = await get(unit, f"{PATH}/a/page.html")
    assert got.status == 200
    assert got.body == "<script>ü</script>".encode()
    assert got.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Cache-Control"] == "no-cache"
    assert got.headers["Content-Length"] == str(len(got.body))
    assert got.headers["Content-Disposition"].startswith('inline; filename="page.html"')
    head = await get(unit, f"{PATH}/a/page.html", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"]
    tag, modified = got.headers["ETag"], got.headers["Last-Modified"]
    for condition in (
        {"If_None_Match": tag},
        {"If_None_Match": f'"other", {tag}'},
        {"If_None_Match": "*"},
        {"If_None_Match": f"W/{tag}"},
        {"If_Modified_Since": modified},
    ):
        again = await get(unit, f"{PATH}/a/page.html", **condition)
        assert (again.status, again.body) == (304, b""), condition
        assert again.headers["ETag"] == tag
    for condition in (
        {"If_None_Match": '"other"'},
        {"If_None_Match": '"other"', "If_Modified_Since": modified},
        {"If_Modified_Since": "Thu, 01 Jan 1970 00:00:01 GMT"},
        {"If_Modified_Since": "yesterday"},
    ):
        assert (await get(unit, f"{PATH}/a/page.html", **condition)).status == 200, condition
    (unit.data_dir / "a/page.html").write_text("changed, and longer")
    assert (await get(unit, f"{PATH}/a/page.html", If_None_Match=tag)).status == 200


RANGES = [
    ("bytes=0-3", b"0123", "bytes 0-3/10"),
    ("bytes=7-", b"789", "bytes 7-9/10"),
    ("bytes=-4", b"6789", "bytes 6-9/10"),
    ("bytes=-400", b"0123456789", "bytes 0-9/10"),
    ("bytes=5-500", b"56789", "bytes 5-9/10"),
    ("bytes=9-9", b"9", "bytes 9-9/10"),
]


async def test_a_part_of_a_file(unit: Unit) -> None:
    write_tree(unit.data_dir, {"x": "0123456789"})
    for wanted, body, content_range in RANGES:
        got = await get(unit, f"{PATH}/x", Range=wanted)
        assert (got.status, got.body) == (206, body)
        assert got.headers["Content-Range"] == content_range
        assert got.headers["Content-Length"] == str(len(body))


async def test_what_is_no_range_is_ignored(unit: Unit) -> None:
    write_tree(unit.data_dir, {"x": "0123456789"})
    for wanted in (
        "bytes=5-2",
        "bytes=-",
        "bytes=a-b",
        "lines=1-2",
        "bytes=0-1,4-5",
        "",
        "bytes=٣-٤",
    ):
        got = await get(unit, f"{PATH}/x", Range=wanted)
        assert (got.status, got.body) == (200, b"0123456789"), wanted


async def test_a_part_beyond_the_end_is_416(unit: Unit) -> None:
    write_tree(unit.data_dir, {"x": "0123456789", "empty": ""})
    for path, wanted in (("x", "bytes=10-"), ("x", "bytes=-0"), ("empty", "bytes=0-")):
        got = await get(unit, f"{PATH}/{path}", Range=wanted)
        assert_refusal((got.status, json.loads(got.body)), 416, "range")
        assert got.headers["Content-Range"].startswith("bytes */")
    assert (await get(unit, f"{PATH}/empty")).body == b""


async def test_a_part_is_only_sent_of_the_file_that_the_client_knows(unit: Unit) -> None:
    write_tree(unit.data_dir, {"x": "0123456789"})
    known = await get(unit, f"{PATH}/x")
    for condition, status in (
        (known.headers["ETag"], 206),
        (known.headers["Last-Modified"], 206),
        ('"other"', 200),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 200),
    ):
        got = await get(unit, f"{PATH}/x", Range="bytes=0-1", If_Range=condition)
        assert got.status == status


async def test_a_large_file_comes_whole(unit: Unit) -> None:
    large = bytes(range(256)) * 4096
    (unit.data_dir / "large.bin").write_bytes(large)
    assert (await get(unit, f"{PATH}/large.bin")).body == large
    assert (await get(unit, f"{PATH}/large.bin", Range="bytes=300000-")).body == large[300000:]


async def test_any_name_can_be_asked_for_and_is_safe_in_the_header(unit: Unit) -> None:
    for name in ("a b.txt", 'q"uote.txt', "ü%.txt", "semi;colon", "new\nline"):
        (unit.data_dir / name).write_text("x")
        got = await get(unit, URL.build(path=f"{PATH}/{name}").raw_path)
        assert (got.status, got.body) == (200, b"x"), name
        disposition = got.headers["Content-Disposition"]
        assert disposition.count('"') == 2
        assert disposition.isascii()


async def test_secrets_are_masked_and_the_length_fits(unit: Unit) -> None:
    write_tree(unit.data_dir, {"config.ini": "[mqtt]\nusername = me\npassword = hunter2\n"})
    got = await get(unit, f"{PATH}/config.ini")
    assert got.body == b"[mqtt]\nusername = me\npassword = ********\n"
    assert got.headers["Content-Length"] == str(len(got.body))
    part = await get(unit, f"{PATH}/config.ini", Range="bytes=33-")
    assert part.body == got.body[33:]


async def test_a_file_may_bear_any_time(unit: Unit) -> None:
    write_tree(unit.data_dir, {"x": "x"})
    for unix_s, year in ((2**32, "2106"), (-1000, "1970")):
        os.utime(unit.data_dir / "x", (unix_s, unix_s))
        got = await get(unit, f"{PATH}/x")
        assert got.status == 200
        assert year in got.headers["Last-Modified"]


# -- refusals -----------------------------------------------------------------------


NOT_TO_BE_SEEN = [
    ("..", 403),
    ("../outside.txt", 403),
    ("%2e%2e/outside.txt", 403),
    ("%2E%2E%2Foutside.txt", 403),
    ("x/..%2f../outside.txt", 403),
    ("x/../../outside.txt", 403),
    ("%2Fetc%2Fpasswd", 403),
    ("/etc/passwd", 403),
    ("%252e%252e/outside.txt", 404),
    ("..%5coutside.txt", 404),
    ("%00", 400),
    ("config.ini%00.txt", 400),
    ("%ff", 400),
    ("%c0%ae%c0%ae/outside.txt", 400),
    ("x" * 300, 404),
    ("x/" * 2500, 404),
    ("nope", 404),
    ("storage/piod.sqlite", 403),
    ("storage/piod.sqlite-wal", 403),
    ("storage//piod.sqlite", 403),
    ("piod.lock", 403),
    ("link/outside.txt", 403),
]


async def test_what_is_not_to_be_seen(unit: Unit) -> None:
    write_tree(unit.data_dir, {"piod.lock": "", "x/y": ""})
    outside = unit.data_dir.parent / "outside.txt"
    outside.write_text("secret")
    (unit.data_dir / "link").symlink_to("..")
    for raw, status in NOT_TO_BE_SEEN:
        got = await get(unit, f"{PATH}/{raw}")
        assert_refusal((got.status, json.loads(got.body)), status)
        assert b"secret" not in got.body
    outside.unlink()


async def test_a_wrong_verb_is_405(unit: Unit) -> None:
    assert_refusal(await unit.request("DELETE", f"{PATH}/x"), 405, "GET")
    assert_refusal(await unit.request("GET", REMOVE), 405, "POST")


async def test_the_marker_comes_before_everything_else(unit: Unit) -> None:
    (unit.data_dir / MARKER).touch()
    for method, path in (
        ("GET", f"{PATH}/"),
        ("GET", f"{PATH}/nope"),
        ("GET", f"{PATH}/%2e%2e/x"),
        ("POST", REMOVE),
        ("GET", "/unit_api/zipped_dot_pioreactor"),
        ("POST", "/unit_api/import_zipped_dot_pioreactor"),
    ):
        got = await get(unit, path, method)
        assert_refusal((got.status, json.loads(got.body)), 403, MARKER)


# -- removing -----------------------------------------------------------------------


async def test_a_file_is_removed_by_either_verb_and_path(unit: Unit) -> None:
    write_tree(unit.data_dir, {"storage/cache.txt": "", "config.ini": "", "unit_config.ini": ""})
    for verb, path in (
        ("POST", "storage/cache.txt"),
        ("PATCH", "config.ini"),
        ("POST", f"{unit.data_dir}/unit_config.ini"),
    ):
        status, accepted = await unit.request(verb, REMOVE, {"filepath": path})
        assert status == 202
        task = await unit.task(accepted)
        assert (task["status"], task["result"]) == ("complete", True)
        assert not (unit.data_dir / path).exists()


async def test_removing_what_is_no_file_removes_nothing(unit: Unit) -> None:
    for path in ("nope.txt", "storage", ".", "storage/"):
        task = await unit.post(REMOVE, {"filepath": path})
        assert (task["status"], task["result"]) == ("complete", False)
        assert (unit.data_dir / "storage").is_dir()


WRONG_BODIES: list[tuple[object, list[str]]] = [
    (None, ["body"]),
    ([], ["object"]),
    ({}, ["filepath", "missing"]),
    ({"filepath": ""}, ["filepath", "empty"]),
    ({"filepath": None}, ["filepath", "null"]),
    ({"filepath": 5}, ["filepath", "text"]),
    ({"filepath": ["x"]}, ["filepath", "text"]),
    ({"filepath": "a\0b"}, ["NUL"]),
]


async def test_a_wrong_body_is_400_and_names_the_field(unit: Unit) -> None:
    for body, words in WRONG_BODIES:
        assert_refusal(await unit.request("POST", REMOVE, body), 400, *words)


async def test_null_and_broken_json_are_400(unit: Unit) -> None:
    for data in (b"null", b"{", b"\xff", b"filepath=x"):
        async with unit.client.post(REMOVE, data=data) as answer:
            assert_refusal((answer.status, await answer.json()), 400)


NOT_TO_BE_REMOVED = [
    "../outside.txt",
    "/etc/hostname",
    "~root/x",
    "link",
    "storage/piod.sqlite",
    "storage/piod.sqlite-wal",
    "storage/pioreactor.sqlite",
    "piod.lock",
    "piod.sock",
    "DISALLOW_UI_INSTALLS",
    "plugins/api_plugins_allowlist.json",
]


async def test_what_is_not_to_be_removed_is_403_at_once(unit: Unit) -> None:
    write_tree(unit.data_dir, {"storage/pioreactor.sqlite": "x", "piod.lock": ""})
    outside = unit.data_dir.parent / "outside.txt"
    outside.write_text("x")
    (unit.data_dir / "link").symlink_to(outside)
    for path in NOT_TO_BE_REMOVED:
        assert_refusal(await unit.request("POST", REMOVE, {"filepath": path}), 403)
    assert outside.exists()
    outside.unlink()


async def test_a_path_that_no_file_can_have_is_404(unit: Unit) -> None:
    for path in ("x" * 300, "x/" * 2500):
        assert_refusal(await unit.request("POST", REMOVE, {"filepath": path}), 404)
