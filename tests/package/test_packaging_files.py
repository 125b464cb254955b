"""What is written by hand for the Debian package agrees with piod itself.

During the build of the package ``packaging/debian`` lies at ``debian``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from piod import __version__
from piod.cli import IN_USE

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = next(path for path in (ROOT / "packaging" / "debian", ROOT / "debian") if path.is_dir())


def options_of(*command: str) -> set[str]:
    """The long options that ``piod <command> --help`` names."""
    told = subprocess.run(
        [sys.executable, "-m", "piod", *command, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    return set(re.findall(r"--[a-z][a-z-]+", told))


def test_the_two_changelogs_and_piod_agree_on_the_version() -> None:
    debian = re.match(r"piod \(([^)]+)\) ", (DEBIAN / "changelog").read_text())
    ours = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert debian is not None
    assert ours is not None
    assert (debian[1], ours[1]) == (__version__, __version__)


def test_the_man_page_is_of_this_version() -> None:
    assert f'"piod {__version__}"' in (DEBIAN / "piod.1").read_text()


@pytest.mark.parametrize("file", ["piod.1", "completions/piod"])
def test_every_option_is_in(file: str) -> None:
    text = (DEBIAN / file).read_text().replace("\\-", "-")
    named = set(re.findall(r"--[a-z][a-z-]+", text))
    options = options_of() | options_of("serve") | options_of("safe-outputs")
    assert options - {"--help"} <= named


def test_the_comment_on_the_services_options_tells_what_safe_outputs_takes() -> None:
    """systemd passes PIOD_OPTIONS to both commands."""
    text = (DEBIAN / "environment").read_text()
    comment = re.search(r"of these it takes (.*?), and ignores", text.replace("\n# ", " "))
    assert comment is not None
    assert set(re.findall(r"--[a-z-]+", comment[1])) == options_of("safe-outputs") - {"--help"}
    assert options_of("safe-outputs") < options_of("serve")


def test_a_start_that_meets_a_living_daemon_is_not_repeated() -> None:
    assert f"\nRestartPreventExitStatus={IN_USE}\n" in (DEBIAN / "piod.service").read_text()
    page = (DEBIAN / "piod.1").read_text()
    assert f"\n{IN_USE} when another piod lives on the data directory" in page
