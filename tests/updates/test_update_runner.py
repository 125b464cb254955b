"""The updater as a process: what it runs, what it refuses, and that its outcome lasts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from updater_process import BOOT, ME, SOMEBODY_ELSE, Updater, request_object, until

from piod.system import UpdateOutcome
from piod.update_files import Running
from piod.update_runner import ENVIRONMENT, MAX_REQUEST_BYTES

NEXT_BOOT = "22222222-2222-2222-2222-222222222222"
NO_CHANGE = ["refresh|now", "installed|"]
SET_BY_THE_SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}


def installs(updater: Updater) -> list[str]:
    return [call for call in updater.calls if call.startswith(("install|", "take|"))]


def assert_failed(updater: Updater, *words: str, request_id: str = "one") -> None:
    """It failed, says why in the outcome, and installed nothing."""
    outcome = updater.files().read_outcome(request_id)
    assert isinstance(outcome, UpdateOutcome)
    assert not outcome.succeeded
    for word in words:
        assert word in outcome.message
    assert installs(updater) == []


# -- what it does ---------------------------------------------------------------------


def test_update_to_the_newest(updater: Updater) -> None:
    updater.ask()
    status, said = updater.run()
    assert status == 0, said
    assert updater.calls == ["installed|", "refresh|now", "install|--flag|piod", "installed|"]
    assert updater.files().read_outcome("one") == UpdateOutcome(
        True, "piod 0.2.0 is installed in place of 0.1.0"
    )
    record = updater.record()
    assert (record.version_before, record.version_after) == ("0.1.0", "0.2.0")
    assert record.boot_id == BOOT
    assert record.log == "Unpacking\n"
    assert record.ended_at is not None
    assert record.started_at <= record.ended_at
    assert "Unpacking" in said  # the journal has it all


def test_a_named_version_may_be_older(updater: Updater) -> None:
    updater.program("install", "echo 0.0.9 > @folder@/version")
    updater.ask(version="0.0.9")
    assert updater.run()[0] == 0
    assert installs(updater) == ["install|--flag|--allow-downgrades|piod=0.0.9"]
    assert updater.record().version_after == "0.0.9"


def test_another_version_than_the_named_one_is_a_failure(updater: Updater) -> None:
    updater.ask(version="0.3.0")
    assert updater.run()[0] == 1
    record = updater.record()
    assert record.state == "failed"
    assert "piod 0.3.0 was asked for, but piod 0.2.0 is installed" in record.message


def test_flags_that_the_command_has_no_use_for_are_noted(updater: Updater) -> None:
    updater.ask(no_deps=True, defer_web_restart=True)
    assert updater.run()[0] == 0
    assert installs(updater) == ["install|--flag|piod"]
    message = updater.record().message
    assert "no_deps has no meaning" in message
    assert "defer_web_restart has no meaning" in message


def test_flags_and_values_reach_a_command_that_uses_them(updater: Updater) -> None:
    updater.write_conf(
        "[update]\nallow = branch repo\n"
        "command = @folder@/install {no_deps?--no-deps} 'from {repo}' {branch}\n"
    )
    updater.ask(branch="develop", repo="pioreactor/piod", no_deps=True)
    assert updater.run()[0] == 0
    assert updater.calls == ["install|--no-deps|from pioreactor/piod|develop"]
    assert updater.record().message == "piod is updated"


def test_commands_get_nothing_of_the_environment(updater: Updater) -> None:
    updater.ask()
    assert updater.run(environment={"APT_CONFIG": "/tmp/evil", "LANG": "de_DE"})[0] == 0
    lines = (updater.folder / "environment").read_text().splitlines()
    got = dict(line.split("=", 1) for line in lines)
    assert {name: got[name] for name in ENVIRONMENT} == ENVIRONMENT
    assert set(got) - set(ENVIRONMENT) <= SET_BY_THE_SHELL


def test_a_failed_command_is_told_by_its_telling_line(updater: Updater) -> None:
    updater.program("install", "echo Reading; echo 'E: Unable to locate piod'; echo bye; exit 100")
    updater.ask()
    assert updater.run()[0] == 1
    record = updater.record()
    assert record.state == "failed"
    assert "installing the newest piod failed" in record.message
    assert "exit status 100" in record.message
    assert "E: Unable to locate piod" in record.message
    assert "journalctl -u piod-update.service" in record.message


def test_without_the_package_list_nothing_is_installed(updater: Updater) -> None:
    updater.program("refresh", "echo 'E: Failed to fetch'; exit 100")
    updater.ask()
    assert updater.run()[0] == 1
    assert_failed(updater, "fetching the package list failed", "E: Failed to fetch")


def test_repair_comes_first_and_may_fail(updater: Updater) -> None:
    updater.write_conf("[update]\nrepair = @folder@/repair\ncommand = @folder@/install\nallow =\n")
    updater.program("repair", "exit 1")
    updater.ask()
    assert updater.run()[0] == 0
    assert updater.calls == ["repair|", "install|"]


def test_a_lock_of_apt_is_waited_for(updater: Updater) -> None:
    locked = "Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)"
    once = f"[ -e @folder@/met ] || {{ touch @folder@/met; echo 'E: {locked}'; exit 100; }}"
    updater.program("refresh", once)
    updater.write_conf(
        "[update]\ncommand = @folder@/install\nrefresh = @folder@/refresh\nallow =\n"
        "lock_wait_s = 0.2\n"
    )
    updater.ask()
    assert updater.run()[0] == 0
    assert updater.calls == ["refresh|", "refresh|", "install|"]


def test_a_lock_that_stays_is_a_failure(updater: Updater) -> None:
    updater.program("refresh", "echo 'E: Could not get lock x'; exit 100")
    updater.ask()
    assert updater.run()[0] == 1
    assert_failed(updater, "E: Could not get lock x")


def test_a_command_that_hangs_is_ended(updater: Updater) -> None:
    updater.program("install", "echo begun; echo $$ > @folder@/pid; exec sleep 600")
    updater.write_conf("[update]\ncommand = @folder@/install\nallow =\ntimeout_s = 1\n")
    updater.ask()
    assert updater.run()[0] == 1
    record = updater.record()
    assert "install: stopped after 1 s" in record.message
    assert record.log == "begun\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int((updater.folder / "pid").read_text()), 0)


# -- hostile requests -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * MAX_REQUEST_BYTES, "not JSON"),
        (b" " * (MAX_REQUEST_BYTES + 1), "longer than"),
        ([], "alone"),
        (request_object(command="rm"), "alone"),
        (request_object(force=True), "alone"),
        (request_object(request_id="../../etc/passwd"), "request_id"),
        (request_object(request_id=7), "request_id"),
        ({"version": "1"}, "request_id"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_no_request_is_refused_and_leaves_no_outcome(
    updater: Updater, capsys: pytest.CaptureFixture[str], content: object, words: str
) -> None:
    updater.ask_raw(content)
    assert updater.run_here() == 2
    assert words in capsys.readouterr().out
    assert updater.calls == []
    assert updater.files().records() == []


@pytest.mark.parametrize(
    "values",
    [
        {"version": "-oDebug=1"},
        {"version": "1.0 --force"},
        {"version": "1.0\n"},
        {"version": ["1.0"]},
        {"version": "1.0-"},  # to apt: remove it
        {"version": "1.0+"},
        {"source": "/var/../etc/x.deb"},
        {"branch": "--upload-pack=x"},
        {"no_deps": "yes"},
    ],
    ids=str,
)
def test_a_value_that_piod_would_refuse_is_refused_again(
    updater: Updater, values: dict[str, object]
) -> None:
    updater.ask_raw(request_object(**values))
    assert updater.run_here() == 1
    assert_failed(updater, next(iter(values)))
    assert updater.calls == []


def test_a_link_is_not_followed(updater: Updater) -> None:
    updater.ask()
    updater.request.rename(updater.folder / "elsewhere")
    updater.request.symlink_to(updater.folder / "elsewhere")
    assert updater.run()[0] == 2
    assert updater.calls == []


def test_a_second_name_of_a_file_is_not_a_request(updater: Updater) -> None:
    updater.ask()
    os.link(updater.request, updater.folder / "elsewhere")
    assert updater.run()[0] == 2
    assert updater.calls == []


def test_a_pipe_or_a_folder_holds_nothing_up(updater: Updater) -> None:
    os.mkfifo(updater.request)
    assert updater.run()[0] == 2
    updater.request.unlink()
    updater.request.mkdir()
    assert updater.run()[0] == 2
    assert updater.calls == []


def test_a_request_of_another_user_is_refused(updater: Updater) -> None:
    updater.ask()
    status, said = updater.run(requester=SOMEBODY_ELSE)
    assert status == 2
    assert f"user {ME} may not ask" in said
    assert updater.calls == []


def test_no_request_at_all(updater: Updater) -> None:
    status, said = updater.run()
    assert status == 2
    assert "there is no request" in said
    assert "Traceback" not in said


# -- what the administrator allows ----------------------------------------------------


@pytest.mark.parametrize("name", ["branch", "repo", "sha", "source"])
def test_a_field_that_is_not_allowed_is_named_with_the_file(updater: Updater, name: str) -> None:
    value = {"branch": "develop", "repo": "a/b", "sha": "abcd", "source": "/x/y.deb"}[name]
    updater.ask(**{name: value})
    assert updater.run_here() == 1
    assert_failed(updater, f"not updated by {name}", str(updater.conf), "allows version")


def test_where_nothing_is_allowed_only_the_newest_can_be_had(updater: Updater) -> None:
    updater.write_conf("[update]\ncommand = @folder@/install\nallow =\n")
    updater.ask(version="0.2.0")
    assert updater.run()[0] == 1
    assert_failed(updater, "not updated by version", "allows no option")
    updater.ask("two")
    assert updater.run()[0] == 0
    assert installs(updater) == ["install|"]


def test_a_conf_of_another_user_is_not_used(updater: Updater) -> None:
    updater.ask()
    assert updater.run(trusted=SOMEBODY_ELSE)[0] == 1
    assert_failed(updater, str(updater.conf), "not to root")
    assert updater.calls == []


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_conf_that_others_may_write_is_not_used(updater: Updater, mode: int) -> None:
    updater.conf.chmod(mode)
    updater.ask()
    assert updater.run_here() == 1
    assert_failed(updater, str(updater.conf), "may write it")
    assert updater.calls == []


def test_a_conf_in_a_folder_that_others_may_write_is_not_used(updater: Updater) -> None:
    updater.folder.chmod(0o775)
    updater.ask()
    assert updater.run()[0] == 1
    assert_failed(updater, "may write it")
    updater.folder.chmod(0o700)


def test_a_missing_or_linked_conf_is_a_failure_that_says_so(updater: Updater) -> None:
    updater.conf.rename(updater.folder / "elsewhere.conf")
    updater.ask()
    assert updater.run()[0] == 1
    assert_failed(updater, f"{updater.conf} is not used")
    updater.conf.symlink_to(updater.folder / "elsewhere.conf")
    updater.ask("two")
    assert updater.run()[0] == 1
    assert_failed(updater, f"{updater.conf} is not used", request_id="two")


# -- packages on this unit ------------------------------------------------------------


@pytest.fixture
def depot(updater: Updater) -> Path:
    """A directory that packages may come from, with one in it."""
    folder = updater.folder / "depot"
    folder.mkdir(0o755)
    (folder / "piod_0.2.0_all.deb").write_bytes(b"package")
    (folder / "piod_0.2.0_all.deb").chmod(0o644)
    updater.write_conf(
        f"[update]\ncommand = @folder@/install\nsource_command = @folder@/take {{source}}\n"
        f"allow = source\nsources = {folder} https://example.org/piod/\n"
    )
    return folder


def test_a_package_of_an_allowed_directory_is_installed(updater: Updater, depot: Path) -> None:
    package = depot / "piod_0.2.0_all.deb"
    updater.ask(source=str(package))
    status, said = updater.run()
    assert status == 0, said
    assert updater.calls == [f"take|{package}"]


def test_an_allowed_address_is_handed_to_the_command(updater: Updater, depot: Path) -> None:
    updater.ask(source="https://example.org/piod/0.2.0.deb")
    assert updater.run()[0] == 0
    assert updater.calls == ["take|https://example.org/piod/0.2.0.deb"]


@pytest.mark.parametrize(
    "source",
    [
        "https://example.org/other/x.deb",
        "https://example.org.evil/piod/x.deb",
        "https://example.org/piod/%2e%2e/x.deb",
        "/etc/passwd",
    ],
)
def test_a_source_from_elsewhere_is_refused(updater: Updater, depot: Path, source: str) -> None:
    updater.ask(source=source)
    assert updater.run_here() == 1
    assert_failed(updater, source, "allows packages to come from")


def test_a_package_that_others_could_have_made_is_refused(updater: Updater, depot: Path) -> None:
    package = depot / "piod_0.2.0_all.deb"
    depot.chmod(0o777)
    updater.ask("open", source=str(package))
    assert updater.run_here() == 1
    assert_failed(updater, str(depot), "may write it", request_id="open")
    depot.chmod(0o755)

    package.chmod(0o666)
    updater.ask("writable", source=str(package))
    assert updater.run_here() == 1
    assert_failed(updater, "may write it", request_id="writable")

    package.rename(updater.folder / "piod.deb")
    package.symlink_to(updater.folder / "piod.deb")
    updater.ask("linked", source=str(package))
    assert updater.run_here() == 1
    assert_failed(updater, "allows packages to come from", request_id="linked")

    updater.ask("gone", source=str(depot / "no.deb"))
    assert updater.run()[0] == 1
    assert_failed(updater, "No such file", request_id="gone")


def test_fields_that_no_command_does_together_are_refused(updater: Updater, depot: Path) -> None:
    updater.write_conf(
        "[update]\ncommand = @folder@/install {branch}\nsource_command = @folder@/take {source}\n"
        f"allow = source branch\nsources = {depot}\n"
    )
    updater.ask(source=str(depot / "piod_0.2.0_all.deb"), branch="develop")
    assert updater.run()[0] == 1
    assert_failed(updater, "branch and source at once", "does not use branch")


# -- what lasts -----------------------------------------------------------------------


def test_progress_is_seen_while_it_runs(updater: Updater) -> None:
    updater.program("refresh", "until [ -e @folder@/go ]; do sleep 0.01; done")
    updater.program(
        "install", "until [ -e @folder@/go2 ]; do sleep 0.01; done; echo 0.2.0 > @folder@/version"
    )
    updater.ask(version="0.2.0")
    assert updater.files().read_outcome("one") is None
    running = updater.start()
    until("refresh", lambda: updater.calls[-1:] == ["refresh|now"])
    assert updater.files().read_outcome("one") == Running("fetching the package list")
    assert updater.outcome.stat().st_mode & 0o777 == 0o644
    (updater.folder / "go").touch()
    until("install", lambda: updater.calls[-1].startswith("install|"))
    assert updater.files().read_outcome("one") == Running("installing piod 0.2.0")
    (updater.folder / "go2").touch()
    assert running.wait(20) == 0


def test_a_killed_updater_is_found_out(updater: Updater) -> None:
    updater.program("install", "echo $$ > @folder@/pid; exec sleep 600")
    updater.ask()
    running = updater.start()
    until("install", lambda: (updater.folder / "pid").exists())
    until("pid", lambda: (updater.folder / "pid").read_text().endswith("\n"))
    running.kill()
    running.wait()
    os.kill(int((updater.folder / "pid").read_text()), signal.SIGKILL)

    # in this boot, only systemd knows
    assert updater.files().read_outcome("one") == Running("installing the newest piod")
    # a boot that cannot be known (a sandbox hides it) is no other boot
    assert updater.files("").read_outcome("one") == Running("installing the newest piod")
    # after a power cut, everybody
    outcome = updater.files(NEXT_BOOT).read_outcome("one")
    assert isinstance(outcome, UpdateOutcome)
    assert not outcome.succeeded
    assert "interrupted while installing the newest piod" in outcome.message

    updater.program("install", "echo 0.2.0 > @folder@/version")
    updater.ask("two")
    assert updater.run()[0] == 0
    assert updater.record().state == "failed"
    assert "interrupted while installing" in updater.record().message
    assert updater.record("two").state == "succeeded"


WAITS = "touch @folder@/begun; until [ -e @folder@/go ]; do sleep 0.01; done"


def test_an_updater_that_is_told_to_stop_begins_nothing_more(updater: Updater) -> None:
    updater.program("refresh", WAITS)
    updater.ask()
    running = updater.start()
    until("refresh", lambda: (updater.folder / "begun").exists())
    running.terminate()
    (updater.folder / "go").touch()
    assert running.wait(20) == 1
    assert_failed(updater, "told to stop before it installed anything")


def test_unpacking_is_not_broken_off_by_a_stop(updater: Updater) -> None:
    updater.program("install", f"{WAITS}; echo 0.2.0 > @folder@/version")
    updater.ask()
    running = updater.start()
    until("install", lambda: (updater.folder / "begun").exists())
    running.terminate()
    time.sleep(0.1)  # time for the signal to do harm
    (updater.folder / "go").touch()
    assert running.wait(20) == 0
    assert updater.record().version_after == "0.2.0"


def test_two_starts_at_once_do_the_update_once(updater: Updater) -> None:
    updater.program("install", "sleep 0.2; echo 0.2.0 > @folder@/version")
    updater.ask()
    both = [updater.start(), updater.start()]
    assert [process.wait(20) for process in both] == [0, 0]
    assert installs(updater) == ["install|--flag|piod"]
    assert len(updater.files().records()) == 1


def test_a_second_updater_waits_for_the_first(updater: Updater) -> None:
    updater.program("install", f"{WAITS}; echo 0.2.0 > @folder@/version")
    updater.ask()
    first = updater.start()
    until("install", lambda: (updater.folder / "begun").exists())
    updater.ask("two")
    second = updater.start()
    assert second.stdout is not None
    assert "another update is under way" in second.stdout.readline()
    assert updater.files().read_outcome("one") == Running("installing the newest piod")
    assert updater.files().read_outcome("two") is None
    (updater.folder / "go").touch()
    assert (first.wait(20), second.wait(20)) == (0, 0)
    assert [one.state for one in updater.files().records()] == ["succeeded", "succeeded"]


def test_a_request_is_done_once(updater: Updater) -> None:
    updater.ask()
    assert updater.run()[0] == 0
    status, said = updater.run()
    assert status == 0
    assert "dealt with before" in said
    assert installs(updater) == ["install|--flag|piod"]


def test_the_last_outcomes_are_kept(updater: Updater) -> None:
    updater.write_conf("[update]\ncommand = @folder@/install\nallow =\n")
    updater.ask("update-0")
    assert updater.run()[0] == 0
    record = updater.record("update-0")
    made_up = [{**record.__dict__, "request_id": f"update-{n}"} for n in range(1, 10)]
    updater.outcome.write_text(json.dumps({"updates": [record.__dict__, *made_up]}))
    updater.ask("newest")
    assert updater.run()[0] == 0
    kept = [one.request_id for one in updater.files().records()]
    assert kept == ["newest", *(f"update-{n}" for n in range(9))]
    assert updater.files().read_outcome("update-9") is None


def test_an_outcome_file_that_is_nonsense_is_begun_anew(updater: Updater) -> None:
    updater.outcome.write_text('{"updates": [{"state": "odd"}]}')
    updater.ask()
    assert updater.run()[0] == 0
    assert [one.request_id for one in updater.files().records()] == ["one"]
