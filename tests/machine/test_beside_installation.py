"""Beside an existing Pioreactor installation: its data directory, used as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machine.container import wait_until
from tests.machine.installed import SERVICE, Installed

pytestmark = pytest.mark.machine

OWNER = "pioreactor"
DATA = "/home/pioreactor/.pioreactor"


@pytest.fixture
def existing(unit: Installed) -> Iterator[Installed]:
    """The unit, on whose machine an installation appears that knows nothing of piod."""
    unit.run("useradd", "--create-home", OWNER)
    unit.run("chmod", "0755", f"/home/{OWNER}")
    unit.run("install", "-d", "-o", OWNER, "-g", OWNER, "-m", "2775", DATA)
    config = unit.tree / DATA.lstrip("/") / "config.ini"
    config.write_text("[cluster.topology]\nleader_hostname=leader07\n")
    unit.run("chown", f"{OWNER}:{OWNER}", f"{DATA}/config.ini")
    yield unit
    unit.run("gpasswd", "--delete", "piod", OWNER, check=False)
    unit.run("userdel", "--remove", OWNER, check=False)
    unit.run("systemctl", "restart", SERVICE)


def test_the_package_joins_its_group_and_writes_what_its_owner_may_write(
    existing: Installed,
) -> None:
    existing.run("systemctl", "restart", "--no-block", SERVICE)
    wait_until("a refusal", lambda: f"may not write the folder {DATA}" in existing.journal())
    assert f"sudo adduser piod {OWNER}" in existing.journal()

    existing.run("apt-get", "install", "-y", "-qq", "--reinstall", "/root/piod.deb")
    existing.run("systemctl", "restart", SERVICE)
    existing.wait_active()

    written = existing.output("find", DATA, "-user", "piod", "-printf", "%g %m %y %p\\n")
    assert f"{DATA}/storage/piod.sqlite" in written
    for line in written.splitlines():
        group, mode, kind, path = line.split(maxsplit=3)
        assert group == OWNER, line
        assert int(mode, 8) & 0o060 == 0o060, f"{path}: its owner may not write it"
        assert int(mode, 8) & 0o002 == 0, f"{path}: anybody may write it"
        assert kind != "d" or int(mode, 8) & 0o2000, f"{path}: what is made in it has another group"
    assert existing.output("cat", f"{DATA}/config.ini").endswith("leader07")
    assert existing.request("GET", "/unit_api/system/web_server/status")[0] == 403, "a worker now"
