"""Imports point downwards only (docs/architecture.md).

http → actors, plugins → calibrations/protocols → jobs → calibrations → hw, storage → the modules
at the bottom. Of hw, jobs see the ports alone. dbus_next and aiohttp_apispec each have one
importer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "piod"

PROTOCOLS = "calibrations.protocols"
"""A part of its own: protocols ask for the measurements of jobs, jobs for calibrations."""
RANKS = {
    "http": 6,
    "actors": 5,
    "plugins": 5,
    PROTOCOLS: 4,
    "jobs": 3,
    "calibrations": 2,
    "hw": 1,
    "storage": 1,
}
BOTTOM = {
    "errors",
    "clock",
    "config",
    "events",
    "host",
    "restarts",
    "yaml_text",
    "system",
    "update_files",
    "dbus",
    "dbus_refusals",
    "machine",
    "__init__",
}
TOP = {
    "update_runner",
    "update_conf",
    "daemon",
    "hardware",
    "stores",
    "front",
    "serve",
    "systemd",
    "listening",
    "journal",
    "units",
    "launch",
    "cli",
    "control",
    "terminal",
    "logs",
    "defaults",
    "ui_files",
    "__main__",
}
"""The composition root and what only it uses."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module that ``path`` imports, absolute, wherever the import stands."""
    package = ["piod", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def rank(part: str) -> int:
    """How high a part of piod stands."""
    if part in RANKS:
        return RANKS[part]
    assert part in BOTTOM | TOP, f"piod/{part}.py has no place in the layers yet"
    return 0 if part in BOTTOM else 9


def part_of(path: Path) -> str:
    return part(path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", "."))


def part(module: str) -> str:
    """The part that a module below piod belongs to."""
    return PROTOCOLS if module.startswith(PROTOCOLS) else module.split(".")[0]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path) -> None:
    here = part_of(path)
    for name in imported(path):
        root, _, rest = name.partition(".")
        if root != "piod" or not rest:
            continue
        there, first = part(rest), rest.split(".")[0]
        if not (PACKAGE / first).exists() and not (PACKAGE / f"{first}.py").exists():
            continue  # a name of piod itself, such as __version__
        fine = there == here or rank(there) < max(rank(here), 1) or rank(here) == 9
        assert fine, f"{path.relative_to(PACKAGE)} imports {name}: that points upwards"


@pytest.mark.parametrize(
    "path",
    sorted((PACKAGE / "jobs").rglob("*.py")),
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_jobs_see_the_ports_of_the_hardware_alone(path: Path) -> None:
    seen = {name for name in imported(path) if name.startswith("piod.hw")}
    assert all(name == "piod.hw" or name.startswith("piod.hw.ports") for name in seen)


@pytest.mark.parametrize(
    ("module", "only"),
    [("dbus_next", "dbus.py"), ("aiohttp_apispec", "http/openapi.py"), ("sqlite3", "storage/")],
)
def test_some_modules_have_one_importer(module: str, only: str) -> None:
    importers = {
        str(path.relative_to(PACKAGE))
        for path in modules()
        if any(name == module or name.startswith(f"{module}.") for name in imported(path))
    }
    assert all(importer.startswith(only) for importer in importers)
