"""What an uploaded archive is refused for, before anything of it is used."""

from __future__ import annotations

import json
import stat
import struct
import time
import tracemalloc
import warnings
import zipfile
from io import BytesIO

import pytest

from piod.errors import BadRequest
from piod.storage import archives
from piod.storage.archives import Archive, check_archive
from tests.trees import ABOUT, METADATA, NEW, UNIT, zip_of, zip_of_entry


def check(packed: bytes, *, force: bool = False, **limits: int) -> Archive:
    return check_archive(BytesIO(packed), UNIT, force=force, **limits)


def test_an_archive_is_read_with_the_folders_that_it_does_not_name() -> None:
    archive = check(zip_of({"a/": "", "a/b/c.txt": "c", "./d//e.txt": "e"}))
    assert sorted(archive.files) == ["a/b/c.txt", "d/e.txt", METADATA]
    assert archive.folders == ["a", "a/b", "d"]
    assert archive.unpacked_bytes == 2 + len(ABOUT)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "//etc/passwd",
        "\\etc\\passwd",
        "\\\\server\\share",
        "C:\\x",
        "c:/x",
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "..\\x",
        "a\\..\\..\\x",
        "a/..\\x",
        "../",
    ],
)
def test_names_that_lead_outside_are_refused(name: str) -> None:
    with pytest.raises(BadRequest, match=r"absolute name|leads outside"):
        check(zip_of({name: "x"}))


def test_dots_that_lead_nowhere_else_are_only_names() -> None:
    assert "a..b/...txt" in check(zip_of({"a..b/...txt": "x"})).files


def test_a_nul_in_a_name_is_refused_and_not_cut_off_at() -> None:
    packed = zip_of({"config.iniQ.evil": "x"}).replace(b"config.iniQ.evil", b"config.ini\0.evil")
    with pytest.raises(BadRequest, match="NUL"):
        check(packed)


def test_the_folder_that_everything_is_in_may_be_named() -> None:
    assert check(zip_of({"./": ""})).folders == []


@pytest.mark.parametrize("name", ["x" * 256, "/".join(["long"] * 300), "."])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(BadRequest, match=r"too long|no name"):
        check(zip_of({name: "x"}))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (stat.S_IFLNK | 0o777, "link"),
        (stat.S_IFCHR | 0o666, "neither"),
        (stat.S_IFBLK | 0o666, "neither"),
        (stat.S_IFIFO | 0o666, "neither"),
        (stat.S_IFSOCK | 0o666, "neither"),
        (stat.S_IFDIR | 0o755, "neither"),
    ],
)
def test_links_and_devices_are_refused(kind: int, what: str) -> None:
    with pytest.raises(BadRequest, match=what):
        check(zip_of_entry("a", kind))


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a", "a/"),
        ("a/", "a/"),
        ("a/b", "a//b"),
        ("a/b", "./a/b"),
        (METADATA, METADATA),
    ],
)
def test_what_is_in_it_twice_is_refused(names: tuple[str, str]) -> None:
    packed = BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of what is to be tested
        for name in names:
            archive.writestr(name, ABOUT if name == METADATA else b"")
        if METADATA not in names:
            archive.writestr(METADATA, ABOUT)
    with pytest.raises(BadRequest, match="more than once"):
        check(packed.getvalue())


def test_a_file_that_is_a_folder_too_is_refused() -> None:
    for files in ({"a": "x", "a/b": "y"}, {"a/b": "y", "a": "x"}):
        with pytest.raises(BadRequest, match="both a file and a folder"):
            check(zip_of(files))
    with pytest.raises(BadRequest, match="must be a folder"):
        check(zip_of({"storage": "x"}))


def test_a_bomb_is_refused_by_its_ratio_and_by_its_size() -> None:
    zeros = zip_of({"a": b"\0" * 5_000_000})
    assert len(zeros) < 10_000
    with pytest.raises(BadRequest, match="200 times"):
        check(zeros)
    with pytest.raises(BadRequest, match="bytes unpacked"):
        check(zip_of({"a": "x" * 60, "b": "y" * 60}), max_unpacked_bytes=100)


def test_a_directory_that_says_more_than_2_gib_is_refused_unread() -> None:
    packed = bytearray(zip_of({"a": "x", "b": "y"}))
    entry = -1
    for _ in ("a", "b"):
        entry = packed.index(b"PK\x01\x02", entry + 1)
        packed[entry + 24 : entry + 28] = struct.pack("<I", 3 * 2**30)
    with pytest.raises(BadRequest, match="at most"):
        check(bytes(packed))


def test_overlapping_entries_are_no_way_around_the_ratio() -> None:
    """A thousand directory entries that share one body."""
    one = zip_of({"aaaa": b"\0" * 1_000_000}, about=None)
    start = one.index(b"PK\x01\x02")
    end = one.index(b"PK\x05\x06")
    directory = b"".join(one[start:end].replace(b"aaaa", f"{n:04}".encode()) for n in range(1000))
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1000, 1000, len(directory), start, 0)
    with pytest.raises(BadRequest, match="200 times"):
        check(one[:start] + directory + tail, force=True)


def test_too_many_entries_are_refused_before_objects_are_made_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = zip_of({f"{n}": "" for n in range(2001)}, about=None)
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2000)
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match="more than 2000 entries"):
            check(packed, force=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(packed)
    monkeypatch.setattr(archives, "MAX_ENTRIES", 2001)
    assert len(check(packed, force=True).files) == 2001


def test_a_directory_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zip_of({"x" * 200 + str(n): "" for n in range(100)}, about=None)
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 10_000)
    with pytest.raises(BadRequest, match="directory is larger"):
        check(packed, force=True)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(method: int) -> None:
    with pytest.raises(BadRequest, match="neither stored nor deflated"):
        check(zip_of({"a": "x"}, method=method))


def test_an_encrypted_entry_is_refused() -> None:
    packed = bytearray(zip_of({"a": "x"}, about=None))
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(BadRequest, match="encrypted"):
        check(bytes(packed), force=True)


def test_what_is_no_zip_or_not_a_whole_one_is_refused() -> None:
    packed = zip_of(NEW)
    for broken in (b"", b"no zip", packed[:-1], packed[: len(packed) // 2]):
        with pytest.raises(BadRequest, match="damaged or no zip"):
            check(broken, force=True)


def test_random_damage_is_refused_or_harmless() -> None:
    packed = zip_of(NEW)
    started = time.monotonic()
    for position in range(len(packed)):
        damaged = bytearray(packed)
        damaged[position] ^= 0xFF
        try:
            check(bytes(damaged))
        except BadRequest:
            pass  # anything else fails the test
        if time.monotonic() - started > 2:
            break


# -- whose it is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (None, "missing"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "too large"),
        (b"[" * 50_000, "not valid JSON"),
        (b"[]", "must be an object"),
        (b"null", "must be an object"),
        (b"{}", "must be an object"),
        (b'{"name": 5}', "must be an object"),
        (b'{"name": "pio02"}', "pio02"),
        (b'{"name": "PIO01"}', "PIO01"),
    ],
)
def test_the_archive_must_say_that_it_is_of_this_unit(about: bytes | None, words: str) -> None:
    packed = zip_of({"a": "x"}, about=about, method=zipfile.ZIP_STORED)
    with pytest.raises(BadRequest, match=words):
        check(packed)
    check(packed, force=True)


def test_other_keys_of_the_metadata_do_not_matter() -> None:
    check(zip_of({}, about=json.dumps({"name": UNIT, "metadata_version": "x"}).encode()))
