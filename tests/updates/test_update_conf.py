"""The updater's configuration: the shipped file, and what is refused in one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from piod.errors import ConfigurationError
from piod.system import UpdateRequest
from piod.update_conf import UpdateConf, read_conf

ROOT = Path(__file__).resolve().parents[2]
# the package is built from a tree in which it has moved to where Debian wants it
FOLDERS = (ROOT / "packaging" / "debian", ROOT / "debian")
SHIPPED = next(folder for folder in FOLDERS if folder.is_dir()) / "update.conf"
TRUSTED = (os.getuid(),)
APT = ["/usr/bin/apt-get", "-q", "--yes"]
OPTIONS = [
    *("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"),
    *("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"),
    "install",
]


def conf(tmp_path: Path, text: str) -> UpdateConf:
    path = tmp_path / "update.conf"
    path.write_text(text)
    path.chmod(0o644)
    return read_conf(path, TRUSTED)


def test_the_shipped_file_updates_the_debian_package(tmp_path: Path) -> None:
    shipped = conf(tmp_path, SHIPPED.read_text())
    newest = shipped.arguments(UpdateRequest("one"), TRUSTED)
    assert newest == [*APT, "--only-upgrade", "--no-remove", *OPTIONS, "piod"]
    named = shipped.arguments(UpdateRequest("one", version="0.1.0~rc1"), TRUSTED)
    assert named == [
        *(*APT, "--only-upgrade", "--no-remove", "--allow-downgrades", *OPTIONS),
        "piod=0.1.0~rc1",
    ]
    assert shipped.refresh[0] == "/usr/bin/apt-get"
    assert shipped.version_command[-2:] == ("--showformat=${Version}", "piod")
    assert (shipped.allow, shipped.sources) == (("version",), ())


def test_the_shipped_file_can_be_opened_for_local_packages(tmp_path: Path) -> None:
    depot = tmp_path / "depot"
    depot.mkdir(0o755)
    package = depot / "piod_0.2.0_all.deb"
    package.touch(0o644)
    text = SHIPPED.read_text().replace("allow = version", "allow = version, source")
    opened = conf(tmp_path, text.replace("\nsources =\n", f"\nsources = {depot}\n"))
    argv = opened.arguments(UpdateRequest("one", source=str(package)), TRUSTED)
    assert argv == [*APT, "--no-remove", "--allow-downgrades", *OPTIONS, str(package)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "[update]"),
        ("command = /x\n", "no section headers"),
        ("[update]\n", "command is missing"),
        ("[update]\ncommand = /x\n[other]\n", "and no other"),
        ("[DEFAULT]\nallow = version\n[update]\ncommand = /x\n", "and no other"),
        ("[update]\ncommand = /x {versoin}\nallow =\n", "{versoin}"),
        ("[update]\ncommand = /x {no_deps}\nallow =\n", "{no_deps}"),
        ("[update]\ncommand = apt-get install\nallow =\n", "absolute path"),
        ("[update]\ncommand = /{branch}\nallow = branch\n", "absolute path"),
        ("[update]\ncommand = /x 'open\nallow =\n", "split into words"),
        ("[update]\ncommand = /x\n", "command does not use {version}"),
        ("[update]\ncommand = /x\nallow = source\n", "source_command does not use {source}"),
        ("[update]\ncommand = /x\nallow = force\n", "allow lists force"),
        ("[update]\ncommand = /x\nallow =\nsources = http://x/\n", "sources lists http://x/"),
        ("[update]\ncommand = /x\nallow =\nsources = https://x\n", "sources lists https://x"),
        ("[update]\ncommand = /x\nallow =\ntimeout_s = soon\n", "timeout_s"),
        ("[update]\ncommand = /x\nallow =\nallowed = source\n", "allowed is not one"),
        ("[update]\ncommand = /x\nallow =\n#" + "x" * 70_000, "longer than"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        conf(tmp_path, text)
    assert words in refused.value.message
    assert "update.conf" in refused.value.message
