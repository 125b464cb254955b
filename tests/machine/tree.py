"""Debian trees to install the package in: debootstrapped once, then copied.

:func:`base_tree` is a small Debian of this machine's own release with systemd, logind,
D-Bus and polkit; :func:`tree_for` is that with what the package depends on. Both are
kept in ``build/trees`` (or ``$PIOD_TREES``) until ``make clean`` and never changed: take
:func:`changeable` or :func:`a_copy`.
Mirror and proxy are those of this machine's apt. Everything here needs root.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
APT = Path("/etc/apt")
INCLUDED = (
    "systemd,systemd-sysv,dbus,dbus-bin,polkitd,libpam-systemd,ca-certificates,python3,procps"
)
COMMAND_TIMEOUT_S = 900.0
CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
_NEEDED = {
    "systemd-nspawn": "systemd-container",
    "debootstrap": "debootstrap",
    "nsenter": "util-linux",
    "dpkg-deb": "dpkg",
}
_FETCHING = re.compile(r"Acquire::(https?(::|\b)|Check-|Retries).*", re.IGNORECASE)


class CannotTest(Exception):
    """This machine cannot run these tests; the message says what it lacks."""


def require_tools() -> None:
    """Raises CannotTest naming everything that is missing here."""
    if os.geteuid() != 0:
        raise CannotTest("container tests need root: run sudo make system-test")
    path = CLEAN_ENVIRONMENT["PATH"]
    packages = {owner for tool, owner in _NEEDED.items() if shutil.which(tool, path=path) is None}
    if packages:
        raise CannotTest(
            f"container tests need more: sudo apt-get install {' '.join(sorted(packages))}"
        )


def another_version(deb: Path, version: str, to: Path) -> Path:
    """The same package under another version, as ``to``."""
    unpacked = to.with_suffix(".unpacked")
    _run(["dpkg-deb", "--raw-extract", str(deb), str(unpacked)])
    module = unpacked / "usr/lib/python3/dist-packages/piod/__init__.py"
    for path, field in (
        (unpacked / "DEBIAN" / "control", "Version: {}"),
        (module, '__version__ = "{}"'),
    ):
        one_line = re.compile("^" + re.escape(field).replace(re.escape("{}"), ".*") + "$", re.M)
        text, changed = one_line.subn(field.format(version), path.read_text())
        assert changed == 1, f"no version in {path}"
        path.write_text(text)
    _run(["dpkg-deb", "--root-owner-group", "--build", str(unpacked), str(to)])
    shutil.rmtree(unpacked)
    return to


# -- trees ----------------------------------------------------------------------------


def base_tree() -> Path:
    """A bare Debian of this machine's release; made in a minute or two, once."""
    require_tools()
    release = _release()
    with _making(f"base-{release}") as (tree, partial):
        if not tree.exists():
            mirror, keyring = _mirror(release)
            command = ["debootstrap", "--variant=minbase", f"--include={INCLUDED}"]
            if keyring is not None:
                command.append(f"--keyring={keyring}")
            _run([*command, release, str(partial), mirror], environment=_proxies())
            _settle(partial)
            partial.rename(tree)
    return tree


def tree_for(deb: Path) -> Path:
    """The base tree with everything that ``deb`` depends on, but not ``deb`` itself."""
    base = base_tree()
    fields = _run(["dpkg-deb", "--field", str(deb), "Pre-Depends", "Depends"]).stdout
    wanted = ", ".join(re.findall(r"^(?:Pre-)?Depends: *(.*)$", fields, re.MULTILINE))
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:12]
    with _making(f"{base.name}-for-{digest}") as (tree, partial):
        if not tree.exists():
            a_copy(base, partial)
            run_in(partial, "apt-get", "update", "-qq")
            run_in(partial, "apt-get", "satisfy", "-y", "-qq", "--no-install-recommends", wanted)
            run_in(partial, "apt-get", "clean")
            partial.rename(tree)
    return tree


def a_copy(tree: Path, to: Path) -> Path:
    """A copy of ``tree`` that may be changed."""
    _run(["cp", "-a", "--reflink=auto", str(tree), str(to)])
    return to


@contextmanager
def changeable(tree: Path) -> Iterator[Path]:
    """``tree``, to be changed at will; gone at the end. A layer over it, else a copy."""
    work = Path(tempfile.mkdtemp(prefix="piod-tree-"))
    place = work / "tree"
    for folder in (place, work / "changes", work / "scratch"):
        folder.mkdir()
    options = f"lowerdir={tree},upperdir={work}/changes,workdir={work}/scratch"
    mount = ["mount", "-t", "overlay", "-o", options, "piod-tree", str(place)]
    layered = subprocess.run(mount, capture_output=True).returncode == 0
    if not layered:  # /tmp is a layer itself
        place.rmdir()
        a_copy(tree, place)
    try:
        yield place
    finally:
        if layered:
            _run(["umount", str(place)])
        shutil.rmtree(work)


def run_in(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a tree that is not booted, as root, with this machine's network."""
    nspawn = ["systemd-nspawn", "-q", "--register=no", "--keep-unit", "--as-pid2"]
    nspawn += ["--resolv-conf=copy-host", "--link-journal=no", "--console=pipe", "-D", str(tree)]
    nspawn += [f"--setenv={name}={value}" for name, value in CLEAN_ENVIRONMENT.items()]
    return _run([*nspawn, *command])


def _settle(tree: Path) -> None:
    """Take from a fresh tree what is the host's, and give it the host's way to fetch."""
    (tree / "etc" / "hostname").write_text("piod-test\n")
    (tree / "etc" / "machine-id").write_text("")
    fetching = _apt_settings()
    if fetching:
        (tree / "etc" / "apt" / "apt.conf.d" / "90fetching").write_text("\n".join(fetching) + "\n")


@contextmanager
def _making(name: str) -> Iterator[tuple[Path, Path]]:
    """The place of a tree and, empty, one to make it in; one maker at a time."""
    trees = Path(os.environ.get("PIOD_TREES", ROOT / "build" / "trees")).resolve()
    trees.mkdir(parents=True, exist_ok=True)
    with (trees / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        partial = trees / f"{name}.partial"
        if partial.exists():  # of a maker that was interrupted
            shutil.rmtree(partial)
        yield trees / name, partial


def _run(
    command: Sequence[str], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**CLEAN_ENVIRONMENT, **(environment or {})},
        timeout=COMMAND_TIMEOUT_S,
    )
    assert done.returncode == 0, (
        f"{' '.join(command)}: exit status {done.returncode}\n"
        f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done


# -- this machine's apt -----------------------------------------------------------------


def _release() -> str:
    """The code name of the Debian that runs here."""
    text = Path("/etc/os-release").read_text()
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if fields.get("ID") != "debian" or "VERSION_CODENAME" not in fields:
        raise CannotTest("container tests debootstrap the Debian they run on; this is none")
    return fields["VERSION_CODENAME"].strip('"')


def _mirror(release: str) -> tuple[str, str | None]:
    """Where apt on this machine has ``release`` from, and the keyring it trusts for that."""
    for deb822 in sorted((APT / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", deb822.read_text()):
            fields = _fields(stanza)
            if release in fields.get("suites", "").split() and fields.get("enabled") != "no":
                keyring = fields.get("signed-by", "")
                return fields["uris"].split()[0], keyring if keyring.startswith("/") else None
    for listed in (APT / "sources.list", *sorted((APT / "sources.list.d").glob("*.list"))):
        one_line = rf"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+{release}\s"
        found = listed.exists() and re.search(one_line, listed.read_text(), re.MULTILINE)
        if found:
            return found[1], None
    raise CannotTest(f"apt on this machine has no source for {release}; see {APT}")


def _fields(stanza: str) -> dict[str, str]:
    """The fields of one deb822 stanza, without its comments."""
    lines = [line for line in stanza.splitlines() if not line.startswith("#")]
    found = re.findall(r"^(\S+):[ \t]*(.*(?:\n[ \t].*)*)", "\n".join(lines), re.MULTILINE)
    return {name.lower(): value.strip() for name, value in found}


def _apt_settings() -> list[str]:
    """How apt on this machine fetches: proxies, and what it does not check."""
    dump = _run(["apt-config", "dump", "--format", '%f "%v";%n', "--no-empty", "Acquire"])
    return [line for line in dump.stdout.splitlines() if _FETCHING.fullmatch(line)]


def _proxies() -> dict[str, str]:
    """The same for debootstrap, which asks wget: apt's proxies as environment variables."""
    found = {}
    for scheme, value in re.findall(
        r'Acquire::(https?)::Proxy "([^"]+)"', "\n".join(_apt_settings())
    ):
        if urlsplit(value).scheme:
            found[f"{scheme}_proxy"] = value
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        if name in os.environ:
            found.setdefault(name, os.environ[name])
    return found
