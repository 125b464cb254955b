"""The package, installed in a container that most tests share."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.installed import Installed, install
from tests.machine.load import Load
from tests.machine.tree import changeable, require_tools, tree_for
from tests.package.installing import build


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package under test: ``$PIOD_DEB``, else one made of the working tree."""
    require_tools()
    named = os.environ.get("PIOD_DEB")
    return Path(named).resolve() if named else build(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def container(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The container that all tests share; the first that needs it boots it."""
    with changeable(tree_for(deb)) as tree:
        install(deb, tree)
        installed = Installed(tree, tmp_path_factory.mktemp("machine"))
        try:
            yield installed
        finally:
            installed.close()


@pytest.fixture
def unit(container: Installed) -> Installed:
    """A unit that is up, serves, and runs no job."""
    container.make_ready()
    return container


@pytest.fixture
def load(unit: Installed) -> Iterator[Load]:
    """Clients of the unit, from here to the end of the test."""
    clients = Load(unit)
    yield clients
    clients.end()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """With a test that fails comes the log of the unit that it tested."""
    report: pytest.TestReport = (yield).get_result()
    container = getattr(item, "funcargs", {}).get("container")
    if report.failed and container is not None and container.is_up:
        report.sections.append(("log of piod", container.journal(lines=80)))
