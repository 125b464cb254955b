"""Who may do what: piod what its API offers and no more, others nothing of it."""

from __future__ import annotations

import json

import pytest

from tests.machine.container import wait_until
from tests.machine.installed import DUMMIES, Installed

pytestmark = pytest.mark.machine

WEB_SERVER, BYSTANDER = DUMMIES
STRANGER = "games"
"""A user whom Debian has and who may nothing."""
LOGIN1 = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
TIMEDATE1 = (
    "org.freedesktop.timedate1",
    "/org/freedesktop/timedate1",
    "org.freedesktop.timedate1",
)
SYSTEMD1 = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
UPDATE = "piod-update.service"


def _call(unit: Installed, user: str, *call: str) -> tuple[bool, str]:
    """Whether a D-Bus call was allowed to ``user``, and what was said."""
    done = unit.run("busctl", "--timeout=20", "call", *call, user=user, check=False)
    return done.returncode == 0, done.stderr


def _refused(unit: Installed, user: str, *call: str) -> None:
    allowed, said = _call(unit, user, *call)
    assert not allowed, f"{user} may {call}"
    assert "authentication required" in said or "denied" in said, said


def test_web_server_restart_restarts_the_configured_unit_and_no_other(unit: Installed) -> None:
    before = {name: unit.invocation(name) for name in DUMMIES}
    own = unit.invocation()
    task = unit.finished(unit.post("/unit_api/system/web_server/restart"))
    assert task["status"] == "complete", task
    assert unit.invocation(WEB_SERVER) != before[WEB_SERVER]
    assert unit.unit(WEB_SERVER, "ActiveState") == "active"
    assert unit.invocation(BYSTANDER) == before[BYSTANDER]
    assert unit.invocation() == own


def test_a_unit_that_polkit_does_not_allow_is_refused_with_what_to_do(unit: Installed) -> None:
    unit.configure(f"[piod]\nweb_server_units={BYSTANDER}\n")
    before = unit.invocation(BYSTANDER)
    task = unit.finished(unit.post("/unit_api/system/web_server/restart"))
    assert task["status"] == "failed", task
    assert "polkit" in json.dumps(task["error_info"]), task
    assert unit.invocation(BYSTANDER) == before


def test_the_administrator_can_allow_another(unit: Installed) -> None:
    unit.configure(f"[piod]\nweb_server_units={BYSTANDER}\n")
    rules = unit.tree / "etc" / "polkit-1" / "rules.d" / "60-piod-web-server.rules"
    example = unit.tree / "usr/share/doc/piod/examples" / rules.name
    allowed = example.read_text().replace("nginx.service", BYSTANDER)
    assert BYSTANDER in allowed, "the example names nginx.service"
    before = unit.invocation(BYSTANDER)
    try:
        rules.write_text(allowed)
        wait_until("polkit to read it", lambda: _restart_succeeds(unit))
    finally:
        rules.unlink()
    assert unit.invocation(BYSTANDER) != before


def _restart_succeeds(unit: Installed) -> bool:
    task = unit.finished(unit.post("/unit_api/system/web_server/restart"))
    return bool(task["status"] == "complete")


def test_status_of_the_web_server_is_that_of_its_unit(unit: Installed) -> None:
    status = unit.get("/unit_api/system/web_server/status")
    assert (status["state"], status["raw_status"]) == ("ready", f"{WEB_SERVER}=active")


def test_piod_may_set_the_clock_as_far_as_a_container_may(unit: Installed) -> None:
    body = {"utc_clock_time": "2031-02-03T04:05:06Z"}
    task = unit.finished(unit.post("/unit_api/system/utc_clock", body))
    # polkit let it pass; then the kernel refused it to the container
    assert "Failed to set local time" in task["error"], task


def test_others_may_not_do_in_its_name(unit: Installed) -> None:
    before, own = unit.boot_id(), unit.invocation(WEB_SERVER)
    _refused(unit, STRANGER, *LOGIN1, "Reboot", "b", "false")
    _refused(unit, STRANGER, *LOGIN1, "PowerOff", "b", "false")
    _refused(unit, STRANGER, *TIMEDATE1, "SetTime", "xbb", "1790000000000000", "false", "false")
    _refused(unit, STRANGER, *SYSTEMD1, "StartUnit", "ss", UPDATE, "replace")
    _refused(unit, STRANGER, *SYSTEMD1, "RestartUnit", "ss", WEB_SERVER, "replace")
    assert unit.boot_id() == before
    assert unit.invocation(WEB_SERVER) == own
    assert unit.unit(UPDATE, "InvocationID") == ""


@pytest.mark.parametrize(
    "call",
    [
        ("RestartUnit", "ss", "dbus.service", "replace"),
        ("RestartUnit", "ss", UPDATE, "replace"),
        ("RestartUnit", "ss", BYSTANDER, "replace"),
        ("StopUnit", "ss", WEB_SERVER, "replace"),
        ("StartUnit", "ss", "systemd-journal-flush.service", "replace"),
        ("EnableUnitFiles", "asbb", "1", WEB_SERVER, "false", "true"),
        ("Reload",),
        (
            *("StartTransientUnit", "ssa(sv)a(sa(sv))", "of-piod.service", "replace", "1"),
            *("ExecStart", "a(sasb)", "1", "/bin/true", "1", "/bin/true", "false", "0"),
        ),
    ],
    ids=lambda call: f"{call[0]}-{call[2] if len(call) > 2 else ''}",
)
def test_piod_itself_may_no_more_than_its_api_offers(
    unit: Installed, call: tuple[str, ...]
) -> None:
    _refused(unit, "piod", *SYSTEMD1, *call)


@pytest.mark.parametrize(
    "path",
    ["/etc/piod/update.conf", "/etc/piod", "/var/lib/piod-update", "/usr/share/polkit-1/rules.d"],
)
def test_piod_cannot_write_what_root_goes_by(unit: Installed, path: str) -> None:
    assert unit.run("test", "-e", path, check=False).returncode == 0, f"there is no {path}"
    assert unit.run("test", "-w", path, user="piod", check=False).returncode != 0
