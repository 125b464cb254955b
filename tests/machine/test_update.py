"""Updates over HTTP: piod asks, the updater's own service does it as root."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.machine.installed import SERVICE, Installed
from tests.machine.load import Load
from tests.machine.tree import another_version

pytestmark = pytest.mark.machine

UPDATE = "piod-update.service"
NEWER = "99.1.0"
SHARED = "var/cache/piod-update"
CONF = "etc/piod/update.conf"
FAKE = """\
[update]
command = /usr/bin/touch /var/lib/piod-update/asked-for-{version}
allow = version
"""
FAILING = """\
[update]
command = /bin/ls /nowhere/{version}
allow = version
"""


SAME_PROC = "[Service]\nProtectProc=invisible\n"
"""The container's boot id is mounted over that in /proc. A service with a /proc of its own
sees the host's, and so piod and the updater would see two; of a real machine there is one."""


@pytest.fixture
def updatable(unit: Installed) -> Iterator[Installed]:
    """The unit; its update.conf is what it was when the test is over."""
    shipped = (unit.tree / CONF).read_text()
    unit.with_drop_in(SAME_PROC, UPDATE)
    unit.run("systemctl", "restart", SERVICE)  # an update right after another is refused
    unit.wait_active()
    yield unit
    unit.run("systemctl", "stop", UPDATE)  # one that a failed test has left
    (unit.tree / CONF).write_text(shipped)
    unit.without_drop_in(UPDATE)


def _update(unit: Installed, **options: object) -> dict[str, Any]:
    """The task of an update, when it is over."""
    launched = unit.post("/unit_api/system/update", {"options": options})
    return unit.finished(launched, timeout_s=120)


def test_an_update_runs_as_root_in_a_service_of_its_own(updatable: Installed) -> None:
    (updatable.tree / CONF).write_text(FAKE)
    before = updatable.invocation()
    task = _update(updatable, version=NEWER)
    assert task["status"] == "complete", task
    done = updatable.tree / "var/lib/piod-update" / f"asked-for-{NEWER}"
    assert done.stat().st_uid == 0
    done.unlink()
    assert updatable.unit(UPDATE, "Result") == "success"
    assert updatable.invocation() == before


def test_an_update_that_fails_says_why(updatable: Installed) -> None:
    (updatable.tree / CONF).write_text(FAILING)
    task = _update(updatable, version=NEWER)
    assert task["status"] == "failed", task
    assert "/nowhere/" in task["error"] or "/nowhere/" in str(task["error_info"]), task


def test_a_package_is_upgraded_and_rolled_back_over_http(
    updatable: Installed, deb: Path, load: Load
) -> None:
    shared = updatable.tree / SHARED
    shared.mkdir(exist_ok=True)
    newer = another_version(deb, NEWER, shared / f"piod_{NEWER}_all.deb")
    shutil.copy(deb, shared)
    version = updatable.output("dpkg-query", "--show", "--showformat=${Version}", "piod")
    conf = re.sub(r"(?m)^refresh = .*$", "", (updatable.tree / CONF).read_text())  # no network
    conf = re.sub(r"(?m)^allow = .*$", "allow = version source", conf)
    conf = re.sub(r"(?m)^sources =.*$", f"sources = /{SHARED}", conf)
    (updatable.tree / CONF).write_text(conf)

    job_id = updatable.run_stirring()
    _, refused = updatable.request("POST", "/unit_api/system/update", {"options": {}})
    assert job_id in refused["error"], "a running job is not interrupted unasked"

    for package, expected in ((newer, NEWER), (deb, version)):
        before = updatable.invocation()
        task = _update(updatable, source=f"/{SHARED}/{package.name}", force=None)
        assert task["status"] == "complete", (task, updatable.output("journalctl", "-u", UPDATE))
        updatable.wait_active()
        assert updatable.invocation() != before, "the new version runs"
        assert updatable.get("/unit_api/versions/app") == {"version": f"v{expected}"}
        assert updatable.all_off()
        assert not updatable.row(job_id)["is_running"]
    load.end()
    print(load.summary)
    assert set(load.answers) == {"200"}, "an update drops no request"
