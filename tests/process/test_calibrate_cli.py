"""``piod calibrate``: a person at a terminal, a script at a pipe, a real unit behind both."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from unit_process import (
    ROOT,
    Start,
    UnitProcess,
    all_off,
    environment,
    outputs,
    run_piod,
    wait_until,
)

from piod.cli import main
from piod.terminal.unit_client import UnitClient

pytestmark = pytest.mark.long  # walks and processes that wait: too slow for the fast tests

KEY = "c2VjcmV0"
SESSIONS = "/unit_api/calibrations/sessions"
MEDIA = "13"
RATE_ML_PER_S = 0.1
"""What the person pretends to weigh."""
TIMEOUT_S = 20.0
IN_A_TERMINAL = "import os, sys; os.login_tty(0); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UnitProcess]:
    """A fast unit that wants its api_key from who changes something, with a plugin's protocol."""
    data_dir = tmp_path_factory.mktemp("calibrate") / "unit"
    (data_dir / "plugins").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "examples" / "one_run.py", data_dir / "plugins")
    (data_dir / "unit_config.ini").write_text(
        f"[piod]\nrun_monitor = 0\n[ui_basic_auth]\napi_key = {KEY}\n"
    )
    one = UnitProcess(data_dir, "--time-scale", "200")
    try:
        yield one.wait_ready()
    finally:
        one.close()


class Person:
    """Sits at a terminal of 80 columns in which ``piod calibrate`` runs."""

    def __init__(self, *words: str) -> None:
        self._screen, shell = os.openpty()
        command = [sys.executable, "-m", "piod", "calibrate", *words]
        environ = {**environment(), "TERM": "dumb", "COLUMNS": "80", "INPUTRC": "/dev/null"}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", IN_A_TERMINAL, *command],
                stdin=shell,
                stdout=shell,
                stderr=shell,
                env=environ,
            )
        finally:
            os.close(shell)
        self.seen = ""
        self._read = 0

    def sees(self, text: str) -> str:
        """What came since the last time, up to ``text``; fails when that does not come."""
        return self.sees_one_of(text)

    def sees_one_of(self, *texts: str) -> str:
        until = time.monotonic() + TIMEOUT_S
        while True:
            new = self.seen[self._read :]
            ends = [new.index(text) + len(text) for text in texts if text in new]
            if ends:
                self._read += min(ends)
                return new[: min(ends)]
            assert self._look(until), f"{texts} did not come:\n{self.seen}"

    def _look(self, until: float) -> bool:
        """More of the screen; False when there is none in time, or ever."""
        if not select.select([self._screen], [], [], max(0.0, until - time.monotonic()))[0]:
            return False
        try:
            came = os.read(self._screen, 65536)
        except OSError:
            return False  # the terminal has ended
        self.seen += came.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(came)

    def types(self, line: str) -> None:
        os.write(self._screen, f"{line}\n".encode())

    def presses_ctrl_c(self) -> None:
        os.write(self._screen, b"\x03")

    def session_id(self) -> str:
        found = re.search(r"Session ([0-9a-f-]{36})", self.seen)
        assert found is not None, self.seen
        return found[1]

    def exit_status(self) -> int:
        """Once all that it shows was seen."""
        until = time.monotonic() + TIMEOUT_S
        while self._look(until):
            pass
        return self.process.wait(TIMEOUT_S)

    def leaves(self) -> None:
        """Whatever became of it."""
        self.process.kill()
        self.process.wait()
        os.close(self._screen)


Sit = Callable[..., Person]


@pytest.fixture
def sit() -> Iterator[Sit]:
    people: list[Person] = []

    def sit_down(*words: str) -> Person:
        people.append(Person(*words))
        return people[-1]

    yield sit_down
    for person in people:
        person.leaves()


def weighed(text: str) -> str:
    """What a run weighs, by what the page says of it."""
    found = re.search(r"run of\s+([0-9.]+)\s+s", text)
    assert found is not None, text
    return f"{float(found[1]) * RATE_ML_PER_S:.3f}"


def go_to_tracer(person: Person, name: str) -> None:
    """Through the pages that take no hardware but to fill the tubing."""
    for _ in range(3):
        person.sees("Press Enter to go on.")
        person.types("")
    person.sees("Name [media_pump-")
    person.types(name)
    person.sees("Volumes (mL) [1]:")
    person.types("")
    person.sees("Frequency (Hz) [250]:")
    person.types("")
    person.sees("Duty cycle (%) [100]:")
    person.types("")
    person.sees("Press Enter to go on.")
    person.types("")
    person.sees("Run for (s) [15]:")


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


class Script:
    """Answers through a pipe, to ``piod calibrate`` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def runs(self, *words: str, answers: str | None) -> Done:
        """``answers`` None: its input is /dev/null."""
        if answers is None:
            end = os.open("/dev/null", os.O_RDONLY)
        else:
            end, other = os.pipe()
            os.write(other, answers.encode())
            os.close(other)
        with os.fdopen(end) as lines:
            self._monkeypatch.setattr(sys, "stdin", lines)
            status = main(["calibrate", *words])
        captured = self._capsys.readouterr()
        return Done(status, captured.out, captured.err)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    return Script(monkeypatch, capsys)


def shown(unit: UnitProcess, text: str) -> dict[str, Any]:
    """The session whose id stands in ``text``."""
    found = re.search(r"Session ([0-9a-f-]{36})", text)
    assert found is not None, text
    session: dict[str, Any] = unit.get(f"{SESSIONS}/{found[1]}")["session"]
    return session


# -- by hand ------------------------------------------------------------------------------


def test_a_person_calibrates_a_pump(unit: UnitProcess, sit: Sit) -> None:
    person = sit("media_pump", "--data-dir", str(unit.data_dir))
    go_to_tracer(person, "by-hand")
    person.types("")
    person.sees("Press Enter to go on.")
    person.types("")
    person.sees("Volume (mL):")
    person.types("")
    person.sees("an answer is needed")
    person.types("none")
    person.sees("volume_ml must be a number, got 'none'")
    person.sees("Volume (mL) [none]:")
    person.types(f"{RATE_ML_PER_S}")
    runs = 0
    while runs < 11:
        page = person.sees("Press Enter to go on. ")
        redo = runs == 1
        assert (":redo_last  Do the last run again" in page) == (runs > 0)
        person.types(":redo_last" if redo else "")
        page = person.sees("Volume (mL): ")
        person.types(weighed(page))
        runs += 1
    end = person.sees("Good for doses of")
    assert person.exit_status() == 0, person.seen
    assert "The media pump is calibrated" in end
    assert "slope: 0.1 ±" in person.seen
    active = unit.get("/unit_api/active_calibrations")["media_pump"]
    assert active["calibration_name"] == "by-hand"
    assert active["curve_data_"]["coefficients"][0] == pytest.approx(RATE_ML_PER_S, rel=0.01)


def test_a_session_is_left_and_gone_on_with(unit: UnitProcess, sit: Sit) -> None:
    where = ("--data-dir", str(unit.data_dir))
    person = sit("media_pump", *where)
    person.sees("Press Enter to go on.")
    person.types("")
    person.sees("Water and a scale")
    person.sees("Press Enter to go on.")
    person.presses_ctrl_c()
    person.sees("(a)bort the session, (l)eave it for later, or (g)o on?")
    person.types("g")
    person.sees("Press Enter to go on.")
    person.types(":help")
    person.sees("Commands here: :leave, :abort.")
    person.presses_ctrl_c()
    person.sees("or (g)o on?")
    person.types("l")
    assert person.exit_status() == 1
    session_id = person.session_id()
    assert f"piod calibrate --session {session_id}" in person.seen
    assert unit.get(f"{SESSIONS}/{session_id}")["session"]["status"] == "in_progress"

    person = sit("--session", session_id, *where)
    person.sees("Water and a scale")
    person.sees("Press Enter to go on.")
    person.types(":abort")
    person.sees("The session is aborted.")
    assert person.exit_status() == 1
    assert unit.get(f"{SESSIONS}/{session_id}")["session"]["status"] == "aborted"


def test_what_was_answered_on_one_page_is_not_posted_to_another(
    unit: UnitProcess, sit: Sit
) -> None:
    person = sit("media_pump", "--data-dir", str(unit.data_dir))
    person.sees("Press Enter to go on.")
    browser = UnitClient(unit.url, KEY)
    path = ("calibrations", "sessions", person.session_id())
    browser.post(*path, "inputs", body={"inputs": {}})
    person.types("")
    person.sees("gone on elsewhere")
    person.sees("Water and a scale")
    person.sees("Press Enter to go on.")
    assert unit.get(f"{SESSIONS}/{path[-1]}")["session"]["step_id"] == "intro_confirm_2"
    browser.post(*path, "abort")
    person.types("")
    person.sees("The session is aborted.")
    assert person.exit_status() == 1


@pytest.mark.long
def test_ctrl_c_while_the_pump_runs_turns_it_off_and_aborts(
    start: Start, sit: Sit, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")  # in real time
    person = sit("media_pump", "--data-dir", str(unit.data_dir))
    go_to_tracer(person, "mine")
    person.types("60")
    wait_until("the pump", lambda: outputs(unit.data_dir)["pwm"][MEDIA] > 0, 10)
    person.sees("Ctrl-C stops and aborts")
    person.sees("%")
    person.presses_ctrl_c()
    wait_until("its end", lambda: all_off(unit.data_dir), 2)
    person.sees("The session is aborted.")
    assert person.exit_status() == 1
    session = unit.get(f"{SESSIONS}/{person.session_id()}")["session"]
    assert session["status"] == "aborted"


@pytest.mark.long
def test_a_terminal_that_is_closed_or_a_daemon_that_dies_leaves_the_session(
    start: Start, sit: Sit, tmp_path: Path
) -> None:
    unit = start(tmp_path / "unit")
    person = sit("media_pump", "--data-dir", str(unit.data_dir))
    go_to_tracer(person, "mine")
    session_id = person.session_id()
    person.process.send_signal(signal.SIGHUP)
    person.exit_status()
    person = sit("--session", session_id, "--data-dir", str(unit.data_dir))
    person.sees("Run for (s) [15]:")
    person.types("60")
    wait_until("the pump", lambda: outputs(unit.data_dir)["pwm"][MEDIA] > 0, 10)
    unit.kill9()
    person.sees(f"piod calibrate --session {session_id}")
    person.sees("does not answer")
    assert person.exit_status() == 2
    again = start(tmp_path / "unit")
    assert again.get(f"{SESSIONS}/{session_id}")["step"]["step_id"] == "prime_pump_duration"


# -- by a script --------------------------------------------------------------------------


def test_a_script_calibrates_the_stirrer(
    unit: UnitProcess, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIOD_API_KEY", KEY)
    monkeypatch.setattr("piod.terminal.waiting.QUICK_S", 0.0)  # a sweep takes 0.3 s here
    done = script.runs("stirring", "--url", unit.url, answers="\n\n")
    assert done.status == 0, done.err
    assert "The stirrer is calibrated" in done.out
    assert "working …" in done.out
    session = shown(unit, done.out)
    assert session["status"] == "complete"
    [link] = session["result"]["calibrations"]
    assert f"Saved and active: stirring {link['calibration_name']}" in done.out


def test_a_protocol_of_a_plugin_is_walked_through_as_any_other(
    unit: UnitProcess, script: Script
) -> None:
    words = ("waste_pump", "--data-dir", str(unit.data_dir))
    done = script.runs(*words, answers="")
    assert "Other protocols for it: one_run; --protocol names one" in done.out
    done = script.runs(*words, "--protocol", "one_run", answers="quick\n\n2.5\n")
    assert done.status == 0, done.out + done.err
    assert "Calibrated by one run" in done.out
    active = unit.get("/unit_api/active_calibrations")["waste_pump"]
    assert active["calibration_name"] == "quick"
    assert active["curve_data_"]["coefficients"] == [0.125, 0.0]
    done = script.runs(*words, "--protocol", "one_run", answers="quick\nn\nother\n")
    assert "There is one called 'quick' already" in done.out
    assert shown(unit, done.out)["step_id"] == "run"


@pytest.mark.parametrize(
    ("answers", "said", "step_id"),
    [
        ("\n\n\n../x\nmine\n1\n250\n100\n\n60\n", "calibration_name", "name_input"),
        ("\n\n\nmine\nten\n250\n100\n\n60\n", "mls_to_calibrate_for", "volume_targets"),
        ("\n\nmine\n1\n250\n", "asks for nothing, and was answered 'mine'", "intro_confirm_3"),
        ("\n\n:redo_last\n", "has no command ':redo_last'", "intro_confirm_3"),
        ("\n\n\nmine\n", "piod calibrate --session", "volume_targets"),
    ],
)
def test_a_script_that_is_out_of_step_does_nothing_further(
    unit: UnitProcess, script: Script, answers: str, said: str, step_id: str
) -> None:
    done = script.runs("media_pump", "--data-dir", str(unit.data_dir), answers=answers)
    assert done.status != 0
    assert said in done.out + done.err
    session = shown(unit, done.out)
    assert (session["status"], session["step_id"]) == ("in_progress", step_id)


def test_without_anybody_to_ask_no_session_is_begun(unit: UnitProcess, script: Script) -> None:
    done = script.runs("stirring", "--data-dir", str(unit.data_dir), answers=None)
    assert done.status == 2
    assert "nobody to ask" in done.err
    assert "Session" not in done.out


# -- which unit, which protocol -----------------------------------------------------------


def test_without_a_device_it_lists_what_there_is(unit: UnitProcess) -> None:
    done = run_piod("calibrate", "--data-dir", str(unit.data_dir))
    assert done.returncode == 0, done.stderr
    assert "media_pump  --protocol duration_based  (Volume by running time)" in done.stdout
    assert "not now: " in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("kettle",), "no protocol for 'kettle'"),
        (("stirring", "--protocol", "magic"), "magic"),
        (("--session", "../jobs"), "no calibration session"),
        (("stirring", "--session", "x"), "Leave the device"),
    ],
)
def test_what_the_unit_does_not_have_is_told(
    unit: UnitProcess, script: Script, words: tuple[str, ...], said: str
) -> None:
    done = script.runs(*words, "--data-dir", str(unit.data_dir), answers="")
    assert done.status == 2
    assert said in done.err


def test_a_unit_that_wants_a_key_says_so_before_anything_is_begun(
    unit: UnitProcess, script: Script
) -> None:
    done = script.runs("stirring", "--url", unit.url.removeprefix("http://"), answers="")
    assert done.status == 2
    assert "PIOD_API_KEY" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data-dir", "/nowhere"), "no piod runs on /nowhere"),
        (("--url", "http://127.0.0.1:1"), "does not answer"),
        (("--url", "ftp://unit"), "no address"),
        (("--url", "http://unit:port"), "no address"),
    ],
)
def test_a_unit_that_is_not_there_is_told(
    script: Script, words: tuple[str, ...], said: str
) -> None:
    done = script.runs("stirring", *words, answers="")
    assert done.status == 2
    assert said in done.err
