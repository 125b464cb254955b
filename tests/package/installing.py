"""Packages of the working tree, and a Debian to install them in.

Building needs dpkg-dev and the build dependencies; the Debian needs root and what
``tests/machine/tree.py`` names. Nothing is skipped: what is missing fails, by name.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from piod import __version__
from tests.machine.tree import run_in

ROOT = Path(__file__).resolve().parents[2]
NEXT_VERSION = f"{__version__}.1"


class Debian:
    """A small Debian that is not booted. Commands run as root unless ``user`` is named."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def run(self, *command: str, user: str = "root") -> str:
        """What the command prints; fails when it does."""
        become = [] if user == "root" else ["runuser", "-u", user, "--"]
        return run_in(self.tree, *become, *command).stdout

    def install(self, deb: Path) -> None:
        """With apt, as an administrator would, whatever version is there."""
        target = self.tree / "root" / deb.name
        target.write_bytes(deb.read_bytes())
        self.run("apt-get", "install", "-y", "--no-install-recommends", "--allow-downgrades",
                 f"/root/{deb.name}")  # fmt: skip
        target.unlink()


def build(output: Path, *options: str) -> Path:
    """The package, without its tests: those have their own place in the checks."""
    command = [str(ROOT / "tools" / "build_deb.sh"), "--output", str(output), *options]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "DEB_BUILD_OPTIONS": "nocheck"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return Path(done.stdout.splitlines()[-1])
