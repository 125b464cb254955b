"""The port to who installs packages, and the packages that offer plugins.

A package offers plugins by entry points of the group ``piod.plugins``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from piod.plugins.loading import Loaded, load_entries
from piod.plugins.requests import PackageRequest, normal_name

if TYPE_CHECKING:
    from importlib.metadata import Distribution, PackageMetadata

ENTRY_POINTS = "piod.plugins"
"""The group of entry points."""


@dataclass(frozen=True)
class Package:
    """One installed package that offers plugins, with its metadata; None: it says nothing.

    Two of them are equal when nothing has changed. ``entries``: names and values
    of its entry points; a simulated package has none.
    """

    name: str
    version: str
    summary: str | None = None
    homepage: str | None = None
    author: str | None = None
    entries: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """What it is told apart by."""
        return f"package {normal_name(self.name)}"

    @property
    def source(self) -> str:
        """Where the list of plugins says that it comes from."""
        return "entry_points"

    @property
    def about(self) -> dict[str, str]:
        """Its metadata, by the keys of the list of plugins."""
        said = {
            "name": self.name,
            "version": self.version,
            "description": self.summary,
            "homepage": self.homepage,
            "author": self.author,
        }
        return {key: text for key, text in said.items() if text}

    def load(self) -> Loaded:
        """Load its entry points; blocks."""
        return load_entries(self.name, self.entries)


class PackageInstaller(Protocol):
    """Who installs packages into piod's environment, and knows which are there."""

    def found(self) -> list[Package]:
        """The installed packages that offer plugins. Blocks: call it in a thread."""
        ...

    async def install(self, request: PackageRequest) -> str:
        """Install or upgrade; the last of what the installer printed.

        Raises PiodError with the reason; then nothing is known of what is installed.
        """
        ...

    async def uninstall(self, name: str) -> str | None:
        """Remove a package; what the installer printed, None if it is not installed."""
        ...


def entry_point_packages() -> list[Package]:
    """The packages on ``sys.path`` that have entry points for piod, by name. Blocks."""
    from importlib import metadata  # heavy: not before it is needed

    by_distribution: dict[str, tuple[Distribution, list[tuple[str, str]]]] = {}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        distribution = entry.dist
        if distribution is not None and distribution.metadata["Name"]:
            name = distribution.metadata["Name"]
            entries = by_distribution.setdefault(name, (distribution, []))[1]
            entries.append((entry.name, entry.value))
    return [
        _package(name, distribution, sorted(entries))
        for name, (distribution, entries) in sorted(by_distribution.items())
    ]


def _package(name: str, distribution: Distribution, entries: Iterable[tuple[str, str]]) -> Package:
    told = distribution.metadata
    return Package(
        name=name,
        version=_text(told, "Version") or "Unknown",
        summary=_text(told, "Summary"),
        homepage=_text(told, "Home-page") or _homepage(told),
        author=_text(told, "Author") or _text(told, "Author-email"),
        entries=tuple(entries),
    )


def _text(told: PackageMetadata, key: str) -> str | None:
    return str(told[key]) if key in told else None


def _homepage(told: PackageMetadata) -> str | None:
    """From lines such as ``Project-URL: Homepage, https://…``."""
    for line in told.get_all("Project-URL") or []:
        label, _, url = str(line).partition(",")
        if label.strip().lower() in ("homepage", "home", "repository", "source"):
            return url.strip()
    return None
