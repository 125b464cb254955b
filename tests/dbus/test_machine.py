"""The machine over D-Bus, method by method, against mock services that record and misbehave."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from piod import machine as machine_module
from piod.dbus import SystemBus
from piod.dbus_refusals import BusAbsent, Denied, ServiceRefused, ServiceVanished
from piod.errors import Conflict, PiodError, Unavailable
from piod.machine import Machine
from piod.system import UpdateOutcome, UpdateRequest
from piod.update_files import UPDATE_UNIT, UpdateFiles, UpdateRecord
from tests.dbus.private_bus import (
    ACCESS_DENIED,
    AUTHORIZATION_REQUIRED,
    HANG,
    VANISH,
    ErrorReply,
    MachineServices,
    PrivateBus,
)

WEB = "lighttpd.service"
UNIX_S = 1_790_000_000.25
UPDATE = UpdateRequest("update-1", version="26.2.3")


@pytest.fixture
def files(tmp_path: Path) -> UpdateFiles:
    return UpdateFiles(tmp_path / "update.json", tmp_path / "outcome.json", boot_id="this boot")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again sooner than in life."""
    monkeypatch.setattr(machine_module, "POLL_S", 0.01)
    monkeypatch.setattr(machine_module, "UPDATE_POLL_S", 0.01)
    monkeypatch.setattr(machine_module, "CLOCK_POLL_S", 0.02)


class Note:
    """There while NTP is to be turned on again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_there(self) -> bool:
        return self.path.exists()

    def leave(self) -> None:
        self.path.touch()


@pytest.fixture
def note(tmp_path: Path) -> Note:
    return Note(tmp_path / "note")


@pytest.fixture
def machine(client: SystemBus, files: UpdateFiles, note: Note) -> Machine:
    return Machine(client, files, note.path)


def names(calls: list[tuple[str, list[object]]]) -> list[str]:
    return [member for member, _ in calls]


# -- power ---------------------------------------------------------------------------


async def test_reboot_and_power_off_are_one_call_each_that_asks_nobody(
    machine: Machine, services: MachineServices
) -> None:
    await machine.check()
    await machine.reboot()
    await machine.power_off()
    assert services.logind.calls == [("Reboot", [False]), ("PowerOff", [False])]


@pytest.mark.parametrize("error_name", [ACCESS_DENIED, AUTHORIZATION_REQUIRED])
async def test_a_denied_reboot_names_the_actions_that_polkit_has_to_allow(
    machine: Machine, services: MachineServices, error_name: str
) -> None:
    services.logind.misbehave["Reboot"] = ErrorReply(error_name, "Interactive…")
    with pytest.raises(Denied, match=r"login1\.reboot-multiple-sessions"):
        await machine.reboot()


async def test_a_reboot_whose_answer_is_lost_is_not_asked_for_again(
    machine: Machine, services: MachineServices
) -> None:
    services.logind.misbehave["Reboot"] = VANISH
    with pytest.raises(ServiceVanished):
        await machine.reboot()
    assert services.logind.calls == [("Reboot", [False])]


async def test_a_lost_connection_is_made_anew_after_disconnect(
    machine: Machine, services: MachineServices
) -> None:
    await machine.reboot()
    await machine.disconnect()
    await machine.reboot()
    assert names(services.logind.calls) == ["Reboot", "Reboot"]


# -- clock ---------------------------------------------------------------------------


async def test_the_clock_is_set_with_ntp_off_meanwhile_and_on_again_afterwards(
    machine: Machine, services: MachineServices
) -> None:
    services.timedated.ntp = True
    await machine.set_time(UNIX_S)
    assert names(services.timedated.calls) == ["SetNTP", "SetTime", "SetNTP"]
    (_, off), (_, [usec, relative, interactive]), (_, on) = services.timedated.calls
    assert (off, on) == ([False, False], [True, False])
    assert (relative, interactive) == (False, False)
    assert 0 <= usec - UNIX_S * 1e6 < 5e6


async def test_that_ntp_is_off_is_noted_before_and_for_no_longer(
    machine: Machine, services: MachineServices, note: Note
) -> None:
    noted = []
    services.timedated.when_called = lambda member: noted.append((member, note.is_there))
    services.timedated.ntp = True
    await machine.set_time(UNIX_S)
    assert noted == [("SetNTP", True), ("SetTime", True), ("SetNTP", True)]
    assert not note.is_there
    await machine.set_time(UNIX_S, ntp=False)
    assert not note.is_there, "as somebody wants it"
    await machine.recover()
    assert services.timedated.ntp is False


@pytest.mark.parametrize("on", [True, False])
async def test_ntp_that_a_piod_before_left_off_is_turned_on_once(
    machine: Machine, services: MachineServices, note: Note, on: bool
) -> None:
    note.leave()
    services.timedated.ntp = on
    await machine.recover()
    await machine.recover()
    assert names(services.timedated.calls) == ([] if on else ["SetNTP"])
    assert services.timedated.ntp
    assert not note.is_there


async def test_ntp_that_could_not_be_turned_on_again_is_not_forgotten(
    machine: Machine, services: MachineServices, note: Note
) -> None:
    note.leave()
    services.timedated.misbehave["SetNTP"] = ErrorReply(ACCESS_DENIED, "no")
    with pytest.raises(Denied):
        await machine.recover()
    assert note.is_there
    services.timedated.misbehave.clear()
    await machine.set_time(UNIX_S)
    assert services.timedated.ntp is True, "it was, before piod turned it off"
    assert not note.is_there


async def test_a_clock_is_not_set_when_nobody_could_turn_ntp_on_again(
    client: SystemBus, files: UpdateFiles, services: MachineServices, tmp_path: Path
) -> None:
    services.timedated.ntp = True
    machine = Machine(client, files, tmp_path / "no folder" / "note")
    with pytest.raises(Unavailable, match="the clock was not set"):
        await machine.set_time(UNIX_S)
    assert services.timedated.calls == []


async def test_ntp_that_is_off_stays_off(machine: Machine, services: MachineServices) -> None:
    await machine.set_time(UNIX_S)
    assert names(services.timedated.calls) == ["SetTime"]


@pytest.mark.parametrize(
    ("was", "wanted", "calls"),
    [
        (True, False, ["SetNTP", "SetTime"]),
        (False, False, ["SetTime"]),
        (False, True, ["SetTime", "SetNTP"]),
        (True, True, ["SetNTP", "SetTime", "SetNTP"]),
    ],
)
async def test_ntp_is_what_was_asked_for_afterwards(
    machine: Machine, services: MachineServices, was: bool, wanted: bool, calls: list[str]
) -> None:
    services.timedated.ntp = was
    await machine.set_time(UNIX_S, ntp=wanted)
    assert names(services.timedated.calls) == calls
    assert services.timedated.ntp is wanted


async def test_a_time_service_that_takes_a_while_to_stop_is_waited_for(
    machine: Machine, services: MachineServices
) -> None:
    services.timedated.ntp = True
    services.timedated.stops_after = 2
    await machine.set_time(UNIX_S)
    assert names(services.timedated.calls) == ["SetNTP", *["SetTime"] * 3, "SetNTP"]
    first, last = services.timedated.calls[1][1][0], services.timedated.calls[3][1][0]
    waited_us = 2 * machine_module.CLOCK_POLL_S * 1e6
    assert last - first >= waited_us, "the time that passed is not lost"


async def test_a_time_service_that_never_stops_ends_in_its_words_and_ntp_is_on_again(
    machine: Machine, services: MachineServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "NTP_STOPS_WITHIN_S", 0.1)
    services.timedated.ntp = True
    services.timedated.stops_after = 1000
    with pytest.raises(ServiceRefused, match="Previous request is not finished"):
        await machine.set_time(UNIX_S)
    assert services.timedated.calls[-1] == ("SetNTP", [True, False])


@pytest.mark.parametrize(
    ("misbehaviour", "refusal"),
    [
        (ErrorReply(AUTHORIZATION_REQUIRED, "no"), Denied),
        (ErrorReply("org.freedesktop.DBus.Error.Failed", "Failed to set time"), ServiceRefused),
    ],
)
async def test_ntp_is_on_again_when_the_clock_could_not_be_set(
    machine: Machine,
    services: MachineServices,
    misbehaviour: ErrorReply,
    refusal: type[PiodError],
) -> None:
    services.timedated.ntp = True
    services.timedated.misbehave["SetTime"] = misbehaviour
    with pytest.raises(refusal):
        await machine.set_time(UNIX_S, ntp=False)
    assert services.timedated.ntp is True


async def test_ntp_is_on_again_when_setting_the_clock_is_cancelled(
    machine: Machine, services: MachineServices
) -> None:
    services.timedated.ntp = True
    services.timedated.misbehave["SetTime"] = HANG
    setting = asyncio.create_task(machine.set_time(UNIX_S))
    await services.timedated.called("SetTime")
    setting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await setting
    assert services.timedated.ntp is True


async def test_a_clock_that_was_set_without_ntp_coming_back_says_both(
    machine: Machine, services: MachineServices
) -> None:
    services.timedated.ntp = True

    def deny_from_now_on(member: str) -> None:
        if member == "SetTime":
            services.timedated.misbehave["SetNTP"] = ErrorReply(ACCESS_DENIED, "no more")

    services.timedated.when_called = deny_from_now_on
    with pytest.raises(Unavailable, match=r"the clock was set, but .* could not be turned on"):
        await machine.set_time(UNIX_S)


async def test_synchronising_turns_ntp_on_and_waits_for_a_time_server(
    machine: Machine, services: MachineServices
) -> None:
    synchronising = asyncio.create_task(machine.synchronise_clock())
    await services.timedated.called("SetNTP")
    assert services.timedated.calls == [("SetNTP", [True, False])]
    await asyncio.sleep(0.05)
    assert not synchronising.done()
    assert await machine.clock_synchronised() is False
    services.timedated.synchronised = True
    await synchronising
    assert await machine.clock_synchronised() is True


async def test_a_time_server_that_is_not_reached_is_waited_for_so_long_only(
    machine: Machine, services: MachineServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "SYNCHRONISED_WITHIN_S", 0.03)
    with pytest.raises(Unavailable, match="no time server has set the clock within"):
        await machine.synchronise_clock()
    assert services.timedated.ntp is True, "it goes on trying"


async def test_a_machine_without_a_time_service_says_so(
    machine: Machine, services: MachineServices
) -> None:
    services.timedated.can_ntp = False
    with pytest.raises(Unavailable, match="no service that sets its clock"):
        await machine.synchronise_clock()
    assert services.timedated.calls == []


async def test_whether_the_clock_is_synchronised_is_unknown_when_nobody_tells(
    bus: PrivateBus, machine: Machine
) -> None:
    assert await machine.clock_synchronised() is None
    await bus.kill()
    assert await machine.clock_synchronised() is None


# -- services ------------------------------------------------------------------------


async def test_states_are_systemds_words(machine: Machine, services: MachineServices) -> None:
    services.systemd.units = {WEB: "active", "huey.service": "failed"}
    states = await machine.unit_states([WEB, "huey.service", "none.service"])
    assert states == {WEB: "active", "huey.service": "failed", "none.service": "not-found"}


@pytest.mark.parametrize("signal_first", [False, True])
async def test_a_restart_waits_for_the_end_of_its_job(
    machine: Machine, services: MachineServices, signal_first: bool
) -> None:
    services.systemd.units = {WEB: "active", "huey.service": "active"}
    services.systemd.signal_first = signal_first
    for _ in range(2):  # the second time systemd is subscribed to already
        services.systemd.calls.clear()
        await machine.restart_units([WEB, "huey.service"])
        assert services.systemd.calls == [
            ("Subscribe", []),
            ("RestartUnit", [WEB, "replace"]),
            ("RestartUnit", ["huey.service", "replace"]),
        ]


@pytest.mark.parametrize("result", ["failed", "timeout", "dependency", "canceled", "skipped"])
async def test_a_restart_that_does_not_end_well_names_the_unit_and_the_result(
    machine: Machine, services: MachineServices, result: str
) -> None:
    services.systemd.units = {WEB: "active"}
    services.systemd.results = {WEB: result}
    with pytest.raises(Unavailable, match=f"{WEB} was not restarted.*{result}") as refused:
        await machine.restart_units([WEB])
    assert f"journalctl -u {WEB}" in refused.value.remediation


async def test_a_restart_that_never_ends_is_given_up(
    machine: Machine, services: MachineServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "RESTART_TIMEOUT_S", 0.05)
    services.systemd.units = {WEB: "active"}
    services.systemd.results = {WEB: "never"}
    with pytest.raises(Unavailable, match=r"not over after 0\.05 s"):
        await machine.restart_units([WEB])


async def test_a_restart_of_no_such_unit_or_denied_says_which(
    machine: Machine, services: MachineServices
) -> None:
    with pytest.raises(ServiceRefused, match=r"Unit none\.service not found"):
        await machine.restart_units(["none.service"])
    services.systemd.misbehave["RestartUnit"] = ErrorReply(ACCESS_DENIED, "Access denied")
    with pytest.raises(Denied, match=f"manage-units for {WEB}"):
        await machine.restart_units([WEB])


# -- updates -------------------------------------------------------------------------


async def test_an_update_is_written_first_and_then_started_without_being_awaited(
    machine: Machine, services: MachineServices, files: UpdateFiles
) -> None:
    services.systemd.units = {UPDATE_UNIT: "inactive"}
    services.systemd.results = {UPDATE_UNIT: "never"}
    seen = []

    def at_start(member: str) -> None:
        if member == "StartUnit":
            seen.append(json.loads(files.request.read_text())["request_id"])

    services.systemd.when_called = at_start
    await machine.start_update(UPDATE)
    assert seen == ["update-1"]
    assert ("StartUnit", [UPDATE_UNIT, "replace"]) in services.systemd.calls


@pytest.mark.parametrize("state", ["active", "activating"])
async def test_an_update_beside_another_is_refused_and_leaves_its_request_alone(
    machine: Machine, services: MachineServices, files: UpdateFiles, state: str
) -> None:
    services.systemd.units = {UPDATE_UNIT: state}
    with pytest.raises(Conflict, match="under way"):
        await machine.start_update(UPDATE)
    assert not files.request.exists()


async def test_a_machine_without_the_updater_says_so(
    machine: Machine, services: MachineServices, files: UpdateFiles
) -> None:
    with pytest.raises(Unavailable, match=f"it has no {UPDATE_UNIT}"):
        await machine.start_update(UPDATE)
    assert not files.request.exists()


def write_outcome(files: UpdateFiles, state: str, message: str = "", step: str = "") -> None:
    files.write_records(
        [
            UpdateRecord(
                UPDATE.request_id,
                state,  # type: ignore[arg-type] # one of the words of State
                files.boot_id,
                "2026-01-31T12:45:00.000Z",
                step=step,
                message=message,
            )
        ]
    )


async def test_the_outcome_is_awaited_while_the_updater_is_at_work(
    machine: Machine, services: MachineServices, files: UpdateFiles
) -> None:
    services.systemd.units = {UPDATE_UNIT: "activating"}
    write_outcome(files, "running", step="installing")
    waiting = asyncio.create_task(machine.update_outcome(UPDATE.request_id))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await services.systemd.vanish()  # systemd may begin anew in the middle of an update
    await asyncio.sleep(0.1)
    assert not waiting.done()
    write_outcome(files, "failed", "the disk is full")
    assert await waiting == UpdateOutcome(False, "the disk is full")


async def test_an_updater_that_systemd_has_yet_to_begin_is_at_work(
    machine: Machine, services: MachineServices, files: UpdateFiles
) -> None:
    services.systemd.units = {UPDATE_UNIT: "inactive"}
    await machine.start_update(UPDATE)
    services.systemd.queued = {UPDATE_UNIT}
    waiting = asyncio.create_task(machine.update_outcome(UPDATE.request_id))
    with pytest.raises(Conflict, match="under way"):
        await machine.start_update(UPDATE)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    services.systemd.queued = set()
    write_outcome(files, "succeeded")
    assert await waiting == UpdateOutcome(True)


async def test_an_outcome_of_another_boot_is_not_believed_while_the_updater_is_at_work(
    machine: Machine, services: MachineServices, files: UpdateFiles
) -> None:
    services.systemd.units = {UPDATE_UNIT: "activating"}
    elsewhere = UpdateFiles(files.request, files.outcome, boot_id="that of a container")
    write_outcome(elsewhere, "running", step="installing")
    waiting = asyncio.create_task(machine.update_outcome(UPDATE.request_id))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    services.systemd.units = {UPDATE_UNIT: "inactive"}
    write_outcome(elsewhere, "succeeded")
    assert await waiting == UpdateOutcome(True)


async def test_an_updater_that_ended_without_a_word_has_failed(
    machine: Machine, services: MachineServices, files: UpdateFiles
) -> None:
    services.systemd.units = {UPDATE_UNIT: "inactive"}
    await machine.start_update(UPDATE)
    services.systemd.units = {UPDATE_UNIT: "failed"}
    outcome = await machine.update_outcome(UPDATE.request_id)
    assert outcome is not None
    assert not outcome.succeeded
    assert "journalctl -u piod-update" in outcome.message

    write_outcome(files, "running", step="installing piod 26.2.3")
    outcome = await machine.update_outcome(UPDATE.request_id)
    assert outcome is not None
    assert "interrupted while installing piod 26.2.3" in outcome.message


async def test_an_update_that_was_never_started_has_no_outcome(
    machine: Machine, services: MachineServices
) -> None:
    services.systemd.units = {UPDATE_UNIT: "inactive"}
    assert await machine.update_outcome("another") is None


async def test_an_outcome_is_not_awaited_for_ever_when_nobody_can_be_asked(
    bus: PrivateBus, machine: Machine, files: UpdateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "UNKNOWN_FOR_S", 0.05)
    await bus.kill()
    assert await machine.update_outcome("another") is None


# -- nobody there --------------------------------------------------------------------


async def test_without_a_bus_everything_is_refused_at_once(
    tmp_path: Path, files: UpdateFiles
) -> None:
    machine = Machine(SystemBus(f"unix:path={tmp_path}/nothing"), files, tmp_path / "note")
    begun = time.monotonic()
    for call in (
        machine.check(),
        machine.reboot(),
        machine.power_off(),
        machine.set_time(UNIX_S),
        machine.synchronise_clock(),
        machine.unit_states([WEB]),
        machine.restart_units([WEB]),
        machine.start_update(UPDATE),
    ):
        with pytest.raises(BusAbsent, match="cannot be reached"):
            await call
    assert time.monotonic() - begun < 1
    assert not files.request.exists()
