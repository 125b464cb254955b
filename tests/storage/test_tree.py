from __future__ import annotations

import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from piod.errors import BadRequest, Forbidden, NotFound, PiodError
from piod.storage.masking import mask_secrets
from piod.storage.tree import Listing, OpenFile, Tree
from tests.trees import write_tree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "unit"
    write_tree(
        root,
        {
            "config.ini": "[mqtt]\npassword = hunter2\n",
            "storage/b.txt": "b",
            "storage/a.txt": "a",
            "storage/.hidden": "h",
            "storage/__pycache__/x.pyc": "",
            "storage/sub/c.txt": "c",
            "piod.lock": "",
            ".piod-import/new/x": "",
            ".piod-unfinished-1": "",
        },
    )
    write_tree(tmp_path, {"outside/secret.txt": "secret", "unit-2/x.txt": "another unit's"})
    return root


def content(tree: Tree, path: str) -> bytes:
    found = tree.look(path)
    assert isinstance(found, OpenFile)
    with found.stream:
        data = found.stream.read()
    assert len(data) == found.size_bytes
    return data


def listing(tree: Tree, path: str) -> Listing:
    found = tree.look(path)
    assert isinstance(found, Listing)
    return found


def test_a_folder_is_listed_sorted_with_hidden_files_but_without_caches(root: Path) -> None:
    found = listing(Tree(root), "storage")
    assert found == Listing(f"{root}/storage", ["sub"], [".hidden", "a.txt", "b.txt"])


@pytest.mark.parametrize(
    ("path", "current"),
    [
        ("", "/"),
        ("storage/", "/storage/"),
        ("storage/sub/..", "/storage"),
        ("./storage", "/storage"),
    ],
)
def test_a_trailing_slash_is_kept_in_current(root: Path, path: str, current: str) -> None:
    assert listing(Tree(root), path).path == f"{root}{current}"


def test_work_under_way_is_not_listed_and_the_lock_is(root: Path) -> None:
    found = listing(Tree(root), "")
    assert found.dirs == ["storage"]
    assert found.files == ["config.ini", "piod.lock"]


def test_a_file_is_read_and_a_missing_one_is_not_found(root: Path) -> None:
    tree = Tree(root)
    assert content(tree, "storage/a.txt") == b"a"
    assert content(tree, f"{root}/storage/a.txt") == b"a"
    for missing in ("storage/nope", "storage/a.txt/x", "storage/a.txt/", "x" * 300, "x/" * 3000):
        with pytest.raises(NotFound):
            tree.look(missing)


OUTSIDE = ["..", "../outside/secret.txt", "storage/../../outside", "/etc/passwd", "../unit-2/x.txt"]


@pytest.mark.parametrize(
    "path", [*OUTSIDE, "//etc/passwd", "link/secret.txt", "file_link", "broken"]
)
def test_what_leads_outside_is_refused_whether_it_exists_or_not(root: Path, path: str) -> None:
    (root / "link").symlink_to(root.parent / "outside")
    (root / "file_link").symlink_to("../outside/secret.txt")
    (root / "broken").symlink_to("/nowhere/at/all")
    tree = Tree(root)
    with pytest.raises(Forbidden, match="outside"):
        tree.look(path)
    with pytest.raises(Forbidden, match="outside"):
        tree.remove(path)
    assert (root.parent / "outside/secret.txt").exists()


def test_links_inside_are_followed_and_circles_are_not_found(root: Path) -> None:
    (root / "inside").symlink_to("storage/a.txt")
    (root / "circle").symlink_to("circle")
    tree = Tree(root)
    assert content(tree, "inside") == b"a"
    with pytest.raises(NotFound):
        tree.look("circle")


def test_a_data_directory_may_be_reached_by_a_link(root: Path) -> None:
    alias = root.parent / "alias"
    alias.symlink_to(root)
    tree = Tree(alias)
    assert content(tree, "storage/a.txt") == b"a"
    assert tree.remove(f"{root}/storage/a.txt") is True
    assert tree.remove(f"{alias}/storage/b.txt") is True
    with pytest.raises(Forbidden):
        tree.remove(str(alias))
    assert alias.is_symlink()


def test_nul_is_a_bad_request(root: Path) -> None:
    for path in ("a\0b", "\0", "~\0"):
        with pytest.raises(BadRequest):
            Tree(root).look(path)
        with pytest.raises(BadRequest):
            Tree(root).remove(path)


def test_pipes_and_sockets_are_never_opened(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    for path in ("pipe", "socket"):
        with pytest.raises(Forbidden, match="pipe or a socket"):
            Tree(root).look(path)


@pytest.mark.parametrize(
    "path", ["piod.lock", ".piod-import", ".piod-import/new/x", ".piod-unfinished-1"]
)
def test_what_is_piods_own_is_neither_shown_nor_removed(root: Path, path: str) -> None:
    (root / "link").symlink_to(path)
    for way in (path, "link"):
        with pytest.raises(Forbidden):
            Tree(root).look(way)
        with pytest.raises(Forbidden):
            Tree(root).remove(way)


# -- databases ------------------------------------------------------------------------


def test_databases_are_refused_by_name_and_by_content(root: Path) -> None:
    """Renamed copies, logs and journals too (upstream judges by the end of the name)."""
    database = root / "storage" / "data"
    with closing(sqlite3.connect(database, isolation_level=None)) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("CREATE TABLE t (x)")
        for part in ("data", "data-wal", "data-shm"):
            (root / f"copy-of-{part}.txt").write_bytes((root / "storage" / part).read_bytes())
        refused = ["storage/data", "storage/data-wal", "storage/data-shm"]
        refused += [f"copy-of-data{part}.txt" for part in ("", "-wal", "-shm")]
        write_tree(
            root,
            {
                "x.SQLITE": "",
                "x.sqlite.backup": "",
                "x.sqlite-journal": "",
                "storage/piod.sqlite.corrupt-20260101T000000Z": "",
                "storage/data-journal": "its header is zeroed, its pages are not",
                "j.txt": b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7 and pages",
            },
        )
        refused += ["x.SQLITE", "x.sqlite.backup", "x.sqlite-journal", "j.txt"]
        refused += ["storage/data-journal", "storage/piod.sqlite.corrupt-20260101T000000Z"]
        (root / "link").symlink_to("storage/data")
        for path in [*refused, "link"]:
            with pytest.raises(Forbidden, match="database"):
                Tree(root).look(path)
        for path in refused:
            with pytest.raises(Forbidden):
                Tree(root).remove(path)
            assert (root / path).exists()


def test_a_lab_journal_is_no_database(root: Path) -> None:
    write_tree(root, {"lab-journal": "Monday", "my-wal": "x"})
    assert content(Tree(root), "lab-journal") == b"Monday"
    assert content(Tree(root), "my-wal") == b"x"


def test_the_ledger_is_known_by_any_name_without_being_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a second descriptor of it would drop the locks of the connection that is open."""
    with closing(sqlite3.connect(root / "storage/piod.sqlite")) as ledger:
        ledger.execute("CREATE TABLE t (x)")
    os.link(root / "storage/piod.sqlite", root / "twin")
    write_tree(root, {"twin-wal": "x"})
    opened: list[object] = []
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda *a, **k: (opened.append(a[0]), real_open(*a, **k))[1])
    monkeypatch.setattr(Path, "open", lambda path, *_, **__: opened.append(path))
    for path in ("storage/piod.sqlite", "twin", "twin-wal"):
        opened.clear()
        with pytest.raises(Forbidden, match="database"):
            Tree(root).look(path)
        with pytest.raises(Forbidden):
            Tree(root).remove(path)
        assert opened == []


# -- secrets --------------------------------------------------------------------------


def test_secrets_are_masked_in_place() -> None:
    text = (
        b"# broker\r\n[mqtt]\r\nusername=me\r\nPassword : a = b\r\n[leds]\r\nA=IR\r\n"
        b"[ui_basic_auth]\napi_key=Zm9v\n  YmFy\n\n\tYmF6\nother = x\n  y\n"
        b"# password = old one\npassword_hint = blue\npassword =\npassword\n[password]\n"
    )
    assert mask_secrets(text) == (
        b"# broker\r\n[mqtt]\r\nusername=me\r\nPassword : ********\r\n[leds]\r\nA=IR\r\n"
        b"[ui_basic_auth]\napi_key=********\n  ********\n\n\t********\nother = x\n  y\n"
        b"# password = ********\npassword_hint = blue\npassword =\npassword\n[password]\n"
    )


@pytest.mark.parametrize(
    "name", ["config.ini", "unit_config.ini", "config_pio02.ini", "config.ini.bak", "Config.ini~"]
)
def test_configuration_files_are_shown_without_secrets(root: Path, name: str) -> None:
    write_tree(root, {name: "[mqtt]\npassword = hunter2\n"})
    (root / "link.txt").symlink_to(name)
    for path in (name, "link.txt"):
        assert content(Tree(root), path) == b"[mqtt]\npassword = ********\n"
    assert (root / name).read_text() == "[mqtt]\npassword = hunter2\n"


def test_other_files_are_shown_as_they_are(root: Path) -> None:
    write_tree(root, {"experiment_profiles/x.yaml": "password = 1\n"})
    assert content(Tree(root), "experiment_profiles/x.yaml") == b"password = 1\n"


def test_a_huge_configuration_file_is_refused_rather_than_shown(root: Path) -> None:
    write_tree(root, {"config.ini": "#" * 2_000_000 + "\npassword = x\n"})
    with pytest.raises(Forbidden, match="too large"):
        Tree(root).look("config.ini")


# -- removing and fences --------------------------------------------------------------


def test_a_file_is_removed_and_what_is_none_is_not(root: Path) -> None:
    tree = Tree(root)
    assert tree.remove("storage/a.txt") is True
    assert tree.remove("config.ini") is True  # leaders do that
    assert tree.remove("storage/a.txt") is False
    assert tree.remove("storage/a.txt/x") is False
    assert tree.remove("storage") is False
    assert tree.remove(".") is False
    assert sorted(os.listdir(root / "storage")) == [".hidden", "__pycache__", "b.txt", "sub"]


def test_a_home_directory_may_stand_at_the_beginning(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(root.parent))
    assert Tree(root).remove("~/unit/storage/a.txt") is True
    with pytest.raises(Forbidden):
        Tree(root).remove("~/outside/secret.txt")


def test_of_a_link_only_the_link_is_removed(root: Path) -> None:
    (root / "link").symlink_to("storage/a.txt")
    assert Tree(root).remove("link") is True
    assert (root / "storage/a.txt").exists()
    assert not (root / "link").is_symlink()


def test_a_folder_outside_is_not_reached_by_way_of_a_file_that_leads_back(root: Path) -> None:
    (root.parent / "outside/back").symlink_to(root / "storage/a.txt")
    (root / "door").symlink_to(root.parent / "outside")
    with pytest.raises(Forbidden, match="outside"):
        Tree(root).remove("door/back")
    assert (root.parent / "outside/back").is_symlink()


@pytest.mark.parametrize(
    "path",
    [
        "DISALLOW_UI_INSTALLS",
        "DISALLOW_UI_UPLOADS",
        "plugins/api_plugins_allowlist.json",
        "simulator/outputs.json",
        ".plugin_env/bin/python",
        "door/outputs.json",
    ],
)
def test_fences_and_the_machine_are_not_removed(root: Path, path: str) -> None:
    write_tree(root, {path: ""} if not path.startswith("door") else {"simulator/outputs.json": ""})
    (root / "door").symlink_to("simulator")
    with pytest.raises(Forbidden, match="may not be removed"):
        Tree(root).remove(path)
    assert (root / path).exists()


def test_the_marker_disallows_everything(root: Path) -> None:
    tree = Tree(root)
    tree.refuse_if_disallowed()
    (root / "DISALLOW_UI_FILE_SYSTEM").mkdir()
    tree.refuse_if_disallowed()  # a folder is no marker
    (root / "DISALLOW_UI_FILE_SYSTEM").rmdir()
    (root / "DISALLOW_UI_FILE_SYSTEM").touch()
    with pytest.raises(PiodError) as refusal:
        tree.refuse_if_disallowed()
    assert refusal.value.status == 403
    assert "DISALLOW_UI_FILE_SYSTEM" in refusal.value.remediation
