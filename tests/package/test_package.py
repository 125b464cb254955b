"""The Debian package, as ``make deb`` builds it: what is in it, and what it does to a Debian."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from piod import __version__
from tests.package.installing import NEXT_VERSION, Debian

pytestmark = pytest.mark.package

MAX_EXPOSURE = 2.0
"""Of systemd-analyze security, 0 to 10."""

DEBIANS_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"

SERVE = """
import json, subprocess, sys, time, urllib.request

piod = subprocess.Popen(["piod", "serve", "--simulate", "--port", "0", *sys.argv[1:]],
                        stdout=subprocess.PIPE, text=True)
url = piod.stdout.readline().removeprefix("piod: serving ").strip()

def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data)) as answer:
        return answer.status, json.load(answer)

_, task = ask("/unit_api/jobs/run/job_name/stirring", {"options": {"target_rpm": 500}})
until = time.monotonic() + 30
while (result := ask(task["result_url_path"]))[0] == 202 and time.monotonic() < until:
    time.sleep(0.05)
_, jobs = ask("/unit_api/jobs")
_, versions = ask("/unit_api/versions/app")
piod.terminate()
print(json.dumps({"started": result[1], "jobs": jobs, "versions": versions,
                  "exit_status": piod.wait(10)}))
"""
"""Serves a simulated unit, starts a job in it, ends it, and tells about it."""


def serve(debian: Debian, *options: str) -> dict[str, Any]:
    """What SERVE tells, run by the service's user in its own data directory."""
    said = debian.run(
        "env", "INVOCATION_ID=as-under-systemd", "python3", "-c", SERVE, *options, user="piod"
    )
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    return told


# -- what is in it ----------------------------------------------------------------------


def test_lintian_has_no_complaint(deb: Path) -> None:
    changes = next(deb.parent.glob("*.changes"))
    command = ["lintian", "-EvIL", "+pedantic", "--fail-on", "error,warning", str(changes)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    tags = set(re.findall(r"^[EWIPX]: piod: (\S+)", done.stdout, re.MULTILINE))
    assert tags <= {
        # there is no init script: the guard of the outputs relies on a service manager
        "package-supports-alternative-init-but-no-init.d-script",
        # the page of the API's documentation, which piod serves
        "package-contains-documentation-outside-usr-share-doc",
    }


def test_it_carries_all_that_an_administrator_expects(listed: dict[str, str]) -> None:
    for path in (
        "/usr/bin/piod",
        "/etc/piod/environment",
        "/etc/piod/update.conf",
        "/usr/lib/sysusers.d/piod.conf",
        "/usr/lib/tmpfiles.d/piod.conf",
        "/usr/share/polkit-1/rules.d/50-piod.rules",
        "/usr/share/bash-completion/completions/piod",
        "/usr/share/man/man1/piod.1.gz",
        "/usr/share/doc/piod/README.Debian",
        "/usr/share/doc/piod/examples/lighttpd-piod.conf",
        "/usr/lib/python3/dist-packages/piod/http/docs.html",
    ):
        assert path in listed
    # Debian 12's tools put these below /lib, later ones below /usr/lib
    below_lib = {path.removeprefix("/usr") for path in listed}
    for path in (
        "/lib/systemd/system/piod.service",
        "/lib/systemd/system/piod.socket",
        "/lib/systemd/system/piod-update.service",
        "/lib/udev/rules.d/60-piod.rules",
    ):
        assert path in below_lib


def test_it_carries_nothing_else(listed: dict[str, str]) -> None:
    assert not [path for path in listed if "/tests" in path or "/.hypothesis" in path]
    assert not [path for path in listed if path.endswith((".pyc", "/bench/", "/tools/"))]
    assert not [path for path, mode in listed.items() if mode[-2] == "w"], "for all to write"


def test_it_needs_only_what_debian_12_and_13_have_by_the_same_name(
    field: Callable[[str], str],
) -> None:
    assert field("Version") == __version__
    assert field("Architecture") == "all"
    depends = field("Depends")
    for package in ("aiohttp", "aiohttp-apispec", "marshmallow", "dbus-next", "periphery"):
        assert re.search(rf"\bpython3-{package}\b", depends), depends
    assert "python3-python-periphery" not in depends


def test_configuration_is_the_administrators(deb: Path) -> None:
    command = ["dpkg-deb", "--info", str(deb), "conffiles"]
    conffiles = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert conffiles == ["/etc/piod/environment", "/etc/piod/update.conf"]


def test_the_service_is_confined(deb: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", str(deb), str(tmp_path)], check=True)
    unit = next(tmp_path.rglob("piod.service"))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager",
         f"--threshold={MAX_EXPOSURE * 10:.0f}", str(unit)],
        capture_output=True, text=True,
    )  # fmt: skip
    verdict = re.search(r"Overall exposure level for piod.service: ([\d.]+)", done.stdout)
    assert verdict is not None, done.stderr
    assert float(verdict[1]) <= MAX_EXPOSURE
    assert done.returncode == 0


# -- what it does to a Debian -----------------------------------------------------------

# What dpkg, apt and passwd keep for themselves, and what is not of the disk.
NOT_OF_THE_PACKAGE = re.compile(
    r"/(var/(cache|log|lib/(apt|dpkg))|run|tmp|proc|sys|dev)(/.*)?"
    r"|/etc/(passwd|group|shadow|gshadow|subuid|subgid)-|/etc/\.pwd\.lock"
)


def content(debian: Debian) -> dict[str, str]:
    """Every path of its disk with what it holds, but for NOT_OF_THE_PACKAGE."""
    found = {}
    for path in debian.tree.rglob("*"):
        name = f"/{path.relative_to(debian.tree)}"
        if NOT_OF_THE_PACKAGE.fullmatch(name):
            continue
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "not a file"
    return found


def existing_installation(debian: Debian) -> None:
    """The data directory of a Pioreactor, with its group."""
    debian.run("groupadd", "pioreactor")
    home = debian.tree / "home" / "pioreactor" / ".pioreactor"
    (home / "storage" / "calibrations").mkdir(parents=True)
    (home / "config.ini").write_text("[cluster.topology]\nleader_hostname = leader\n")
    debian.run("chgrp", "-R", "pioreactor", "/home/pioreactor/.pioreactor")
    debian.run("chmod", "-R", "g+ws", "/home/pioreactor/.pioreactor")


def test_it_runs_when_installed_and_leaves_nothing_when_purged(debian: Debian, deb: Path) -> None:
    before = content(debian)
    debian.install(deb)
    assert debian.run("piod", "--version").strip() == f"piod {__version__}"
    assert {"i2c", "gpio"} <= set(debian.run("id", "-nG", "piod").split())

    told = serve(debian)
    assert told["started"]["status"] == "complete", told
    assert told["exit_status"] == 0
    assert (debian.tree / "var/lib/piod/storage/piod.sqlite").exists()
    off = debian.run("piod", "safe-outputs", "--simulate", "--data-dir", "/var/lib/piod")
    assert off.strip() == "simulated outputs: off"

    debian.run("apt-get", "remove", "-y", "piod")
    assert (debian.tree / "var/lib/piod/storage/piod.sqlite").exists(), "remove keeps the data"
    assert not (debian.tree / "usr/lib/python3/dist-packages/piod").exists()
    debian.run("apt-get", "purge", "-y", "piod")

    after = content(debian)
    accounts = {f"/etc/{name}" for name in ("passwd", "group", "shadow", "gshadow")}
    differing = {
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    }
    assert differing <= accounts, "left, lost or changed"
    users = (debian.tree / "etc/passwd").read_text() + (debian.tree / "etc/group").read_text()
    assert "piod" not in users
    assert "gpio" in users, "the groups of the devices stay"


def test_a_process_of_its_user_does_not_leave_it_half_purged(debian: Debian, deb: Path) -> None:
    debian.install(deb)
    purge = "setpriv --reuid=piod --clear-groups sleep 60 & apt-get purge -y piod"
    said = debian.run("sh", "-c", purge)
    assert "piod: the user piod stays" in said
    assert "piod" not in debian.run("sh", "-c", "dpkg-query --show || true")
    assert not (debian.tree / "var/lib/piod").exists()


def test_an_existing_installation_is_shared_and_never_removed(debian: Debian, deb: Path) -> None:
    existing_installation(debian)
    before = content(debian)
    debian.install(deb)
    assert "pioreactor" in debian.run("id", "-nG", "piod").split()
    debian.run("touch", "/home/pioreactor/.pioreactor/storage/mine", user="piod")
    debian.run("apt-get", "purge", "-y", "piod")
    kept = {path: now for path, now in content(debian).items() if path.startswith("/home/")}
    kept.pop("/home/pioreactor/.pioreactor/storage/mine")
    assert debian.run("id", "-u", "piod"), "the owner of a file that stays, stays"
    assert kept == {path: then for path, then in before.items() if path.startswith("/home/")}


def test_upgrade_and_downgrade_keep_history_and_configuration(
    debian: Debian, deb: Path, next_deb: Path
) -> None:
    debian.install(deb)
    environment = debian.tree / "etc/piod/environment"
    environment.write_text("PIOD_OPTIONS=--simulate\n")
    first = serve(debian)
    stirred = {job["job_id"] for job in first["jobs"] if job["job_name"] == "stirring"}
    for package, version in ((next_deb, NEXT_VERSION), (deb, __version__)):
        debian.install(package)
        assert debian.run("piod", "--version").strip() == f"piod {version}"
        again = serve(debian)
        assert again["started"]["status"] == "complete", again
        known = {job["job_id"] for job in again["jobs"] if job["job_name"] == "stirring"}
        assert stirred <= known
    assert len(known) == 3
    assert environment.read_text() == "PIOD_OPTIONS=--simulate\n"


# -- Debian 13 --------------------------------------------------------------------------


def test_its_dependencies_resolve_on_debian_13(deb: Path, tmp_path: Path) -> None:
    """With an apt of its own: that release's index, and nothing installed."""
    if "trixie" in Path("/etc/os-release").read_text():
        pytest.skip("this machine runs Debian 13: the tests above have shown it")
    for folder in ("lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "status").touch()
    (tmp_path / "sources.list").write_text(
        f"deb [signed-by={DEBIANS_KEYS}] {mirror()} trixie main\n"
    )
    options = [
        f"Dir::State::Lists={tmp_path}/lists",
        f"Dir::State::Status={tmp_path}/status",
        f"Dir::State::extended_states={tmp_path}/extended_states",
        f"Dir::Cache={tmp_path}",
        f"Dir::Etc::SourceList={tmp_path}/sources.list",
        f"Dir::Etc::SourceParts={tmp_path}/etc",
        f"Dir::Etc::PreferencesParts={tmp_path}/etc/preferences.d",
        "APT::Install-Recommends=true",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
    update = subprocess.run([*apt, "update"], capture_output=True, text=True, timeout=300)
    assert update.returncode == 0, update.stderr
    install = [*apt, "--simulate", "install", str(deb)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    would = set(re.findall(r"^Inst (\S+) ", done.stdout, re.MULTILINE))
    assert {"piod", "python3-aiohttp-apispec", "python3-dbus-next", "polkitd"} <= would


def mirror() -> str:
    """Where apt on this machine has Debian from."""
    rows = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)",
         "Created-By: Packages", "Origin: Debian", "Label: Debian"],
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert rows, "apt on this machine has no source for Debian, or no index of it: apt-get update"
    return rows[0]
