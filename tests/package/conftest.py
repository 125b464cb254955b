"""The packages that the tests look at and install, and what they ask about them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine.tree import changeable, tree_for
from tests.package.installing import NEXT_VERSION, Debian, build


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of the working tree."""
    return build(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def next_deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as NEXT_VERSION."""
    return build(tmp_path_factory.mktemp("next"), "--version", NEXT_VERSION)


@pytest.fixture
def debian(deb: Path) -> Iterator[Debian]:
    """A Debian with what piod depends on, but not piod."""
    with changeable(tree_for(deb)) as tree:
        yield Debian(tree)


@pytest.fixture(scope="session")
def listed(deb: Path) -> dict[str, str]:
    """The mode of each file and folder in the package, by its path."""
    text = subprocess.run(
        ["dpkg-deb", "--contents", str(deb)], capture_output=True, text=True, check=True
    ).stdout
    rows = re.findall(r"^(\S+) (\S+) +\d+ \S+ \S+ \.(\S*)", text, re.MULTILINE)
    assert all(owner == "root/root" for _, owner, _ in rows)
    return {path: mode for mode, _, path in rows}


@pytest.fixture(scope="session")
def field(deb: Path) -> Callable[[str], str]:
    """A field of the package's control file."""

    def read(name: str) -> str:
        command = ["dpkg-deb", "--field", str(deb), name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return read
