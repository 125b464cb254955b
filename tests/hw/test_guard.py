"""The dead man's switch, with real processes."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_sysfs import FakeSysfs, environment, is_off, wait_until

from piod.hw.guard import GuardLink, spawn_guard
from piod.hw.off import line_recipe, pwm_recipe, simulated_recipe

DAEMON = """
import sys
from piod.hw.guard import spawn_guard
guard = spawn_guard()
assert "asyncio" not in sys.modules
import asyncio
from pathlib import Path
from piod.hw.linux import LinuxPwm

async def main():
    pwm = LinuxPwm([12, 17], guard, Path(sys.argv[1]))
    await pwm.open()
    guard.beat()
    await pwm.set_duty(17, 50, hz=200)
    await pwm.set_duty(12, 100, hz=250, off_after_s=60)
    print("on", flush=True)
    while True:
        await asyncio.sleep(0.5)
        guard.beat()

asyncio.run(main())
"""


class Unit:
    """Two outputs of a fake Pi, both on."""

    def __init__(self, directory: Path) -> None:
        sysfs = FakeSysfs(directory)
        self.root = sysfs.root
        soc = sysfs.add_chip("fe20c000.pwm", 2, exported=False)
        self.pump = sysfs.make_channel(soc, 0, period=4_000_000, duty=4_000_000)
        self.stirrer = sysfs.add_pwm_gpio(17)

    def turn_on(self, channel: Path) -> None:
        (channel / "period").write_text("5000000")
        (channel / "duty_cycle").write_text("2500000")
        (channel / "enable").write_text("1")

    @property
    def all_off(self) -> bool:
        return is_off(self.pump) and is_off(self.stirrer)


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    return Unit(tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., GuardLink]]:
    """Start guards that this test process is the daemon of; none survives the test."""
    links: list[GuardLink] = []

    def spawn(*args: object, **kwargs: object) -> GuardLink:
        links.append(spawn_guard(*args, **kwargs))  # type: ignore[arg-type]  # as given
        return links[-1]

    yield spawn
    for link in links:
        link.close()


@pytest.fixture
def guarded(unit: Unit, start: Callable[..., GuardLink]) -> GuardLink:
    """A guard that knows both outputs."""
    return introduce(unit, start())


@pytest.fixture
def impatient(unit: Unit, start: Callable[..., GuardLink]) -> GuardLink:
    """The same; it misses the heart after 0.2 s already."""
    return introduce(unit, start(late_after_s=0.2))


def introduce(unit: Unit, link: GuardLink) -> GuardLink:
    link.register("pwm:12", pwm_recipe(str(unit.pump)))
    link.register("pwm:17", pwm_recipe(str(unit.stirrer)))
    unit.turn_on(unit.pump)
    unit.turn_on(unit.stirrer)
    return link


@pytest.fixture
def daemon(unit: Unit) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(unit.root)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        assert not is_off(unit.pump)
        assert not is_off(unit.stirrer)
        yield process
        process.kill()


def reports(link: GuardLink, count: int, timeout_s: float = 2) -> list[str]:
    """The next ``count`` reports."""
    until = time.monotonic() + timeout_s
    lines: list[str] = []
    while len(lines) < count:
        select.select([link.report_fd], [], [], max(0, until - time.monotonic()))
        assert time.monotonic() < until, lines
        lines += link.read_reports()
    return lines


def test_killed_daemon_has_everything_off_at_once(
    unit: Unit, daemon: subprocess.Popen[str]
) -> None:
    daemon.kill()
    assert wait_until(lambda: unit.all_off, 1) < 1


def test_stopped_daemon_has_everything_off_within_3_s(
    unit: Unit, daemon: subprocess.Popen[str]
) -> None:
    daemon.send_signal(signal.SIGSTOP)
    assert wait_until(lambda: unit.all_off, 3) > 1, "the daemon was only a little late"
    assert daemon.poll() is None, "nothing needed the daemon to be killed"


def test_signals_to_the_whole_group_leave_the_guard_on_duty(unit: Unit, guarded: GuardLink) -> None:
    assert guarded.pid is not None
    guarded.beat()
    guarded.on("pwm:12", time.monotonic())
    reports(guarded, 1)  # it has come up
    unit.turn_on(unit.pump)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGABRT):
        os.kill(guarded.pid, number)
    guarded.on("pwm:12", time.monotonic())
    wait_until(lambda: is_off(unit.pump), 2)


def test_output_is_turned_off_when_its_deadline_has_passed_and_no_other(
    unit: Unit, guarded: GuardLink
) -> None:
    guarded.beat()
    guarded.on("pwm:17", 1e15)
    guarded.on("pwm:12", time.monotonic() + 0.1)
    assert reports(guarded, 1) == ["fired deadline pwm:12"]
    assert is_off(unit.pump)
    assert not is_off(unit.stirrer)


def test_a_new_start_is_not_undone_by_the_old_deadline(unit: Unit, guarded: GuardLink) -> None:
    guarded.on("pwm:12", time.monotonic() + 0.05)
    guarded.on("pwm:12", None)
    guarded.on("pwm:17", time.monotonic() + 0.05)
    guarded.off("pwm:17")
    guarded.on("pwm:99", time.monotonic() + 0.1)  # it fires after the others would have
    assert reports(guarded, 2) == ["failed pwm:99 is not registered", "fired deadline pwm:99"]
    assert not is_off(unit.pump)
    assert not is_off(unit.stirrer)


def test_missing_heartbeats_turn_everything_off_once_until_they_resume(
    unit: Unit, impatient: GuardLink
) -> None:
    impatient.beat()
    assert reports(impatient, 1) == ["fired heartbeat"]
    assert unit.all_off
    unit.turn_on(unit.pump)
    time.sleep(0.4)
    assert impatient.read_reports() == [], "once is enough"
    impatient.beat()
    assert reports(impatient, 1) == ["fired heartbeat"]
    assert unit.all_off


def test_daemon_that_has_not_begun_to_beat_is_left_alone(unit: Unit, impatient: GuardLink) -> None:
    time.sleep(0.4)
    assert impatient.read_reports() == []
    assert not is_off(unit.pump)


def test_what_a_hung_daemon_turns_on_goes_off_again(unit: Unit, impatient: GuardLink) -> None:
    impatient.beat()
    assert reports(impatient, 1) == ["fired heartbeat"]
    impatient.on("pwm:12")
    unit.turn_on(unit.pump)
    wait_until(lambda: is_off(unit.pump), 2)


def test_output_that_refuses_is_tried_again(
    tmp_path: Path, start: Callable[..., GuardLink]
) -> None:
    simulator = tmp_path / "simulator"
    simulator.mkdir()
    outputs = simulator / "outputs.json"
    outputs.mkdir()  # cannot be replaced by a file
    link = start()
    link.register("pwm:17", simulated_recipe(str(outputs), "pwm:17", ["pwm:17"]))
    link.on("pwm:17", time.monotonic())
    first, second = reports(link, 2)
    assert first.startswith("failed pwm:17 ")
    assert second == "fired deadline pwm:17"
    outputs.rmdir()
    wait_until(outputs.is_file, 2)
    assert outputs.read_text() == '{"pwm": {"17": 0.0}, "led": {}}'


def test_bad_lines_and_halves_of_lines_do_no_harm(unit: Unit) -> None:
    read_end, write_end = os.pipe()
    reports_read, reports_write = os.pipe()
    arguments = [str(read_end), str(reports_write), "1", "9"]
    code = f"from piod.hw.guard_process import main; main({arguments})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=(read_end, reports_write), env=environment()
    )
    os.set_blocking(read_end, False)
    unit.turn_on(unit.pump)
    recipe = pwm_recipe(str(unit.pump))
    for piece in [
        "\n\0\xff nonsense\non\nbeat now\non pwm:12 soon\nregi",
        f"ster pwm:12 {recipe}\n",
    ]:
        os.write(write_end, piece.encode("latin-1"))
        time.sleep(0.1)
    os.write(write_end, f"on pwm:12 {time.monotonic()}\nof".encode())
    wait_until(lambda: is_off(unit.pump), 2)
    for fd in (read_end, write_end, reports_read, reports_write):
        os.close(fd)
    assert process.wait(2) == 0


def test_a_guard_that_does_not_read_blocks_nobody_and_counts_as_dead(
    start: Callable[..., GuardLink],
) -> None:
    link = start()
    assert link.pid is not None
    assert link.alive
    os.kill(link.pid, signal.SIGSTOP)
    begun = time.monotonic()
    for _ in range(20_000):
        link.beat()
    assert time.monotonic() - begun < 2
    assert not link.alive
    select.select([link.report_fd], [], [], 1)
    assert os.read(link.report_fd, 1) == b"", "EOF tells the daemon"


def test_dead_guard_raises_nothing_and_its_successor_knows_all(
    unit: Unit, guarded: GuardLink
) -> None:
    assert guarded.pid is not None
    guarded.on("pwm:12", time.monotonic() + 0.3)
    guarded.on("pwm:17")
    guarded.off("pwm:17")
    os.kill(guarded.pid, signal.SIGKILL)
    wait_until(lambda: not guarded.alive, 2)
    guarded.beat()
    guarded.on("pwm:17", time.monotonic() + 0.1)
    guarded.off("pwm:17")
    assert guarded.read_reports() == []
    assert not is_off(unit.pump)

    guarded.restart()
    assert guarded.alive
    assert reports(guarded, 1) == ["fired deadline pwm:12"]
    assert is_off(unit.pump)
    assert not is_off(unit.stirrer)


def test_orderly_end_turns_off_what_is_on_and_leaves_no_process(
    unit: Unit, guarded: GuardLink
) -> None:
    guarded.on("pwm:12")
    pid = guarded.pid
    assert guarded.close()
    assert is_off(unit.pump)
    assert not is_off(unit.stirrer), "which the daemon never said it turned on"
    assert guarded.pid is None
    with pytest.raises(ChildProcessError):
        os.waitpid(pid or 0, os.WNOHANG)
    assert not guarded.alive
    guarded.beat()
    assert guarded.close() is False


def test_lock_on_the_data_directory_is_held_as_long_as_the_guard_lives(
    tmp_path: Path, start: Callable[..., GuardLink]
) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    other = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    link = start([lock])
    os.close(lock)
    link.on("nothing", time.monotonic())
    reports(link, 1)  # it has come up
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert link.close()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_files_of_the_daemon_are_not_held_open_by_the_guard(
    start: Callable[..., GuardLink],
) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)  # as a careless C library opens its files
    link = start()
    os.close(write_end)
    assert select.select([read_end], [], [], 2)[0], "EOF, though the guard lives"
    assert link.alive
    os.close(read_end)


HOLDER = """
import sys, time
from piod.hw.guard import spawn_guard
guard = spawn_guard(late_after_s=0.2)
guard.register("pwm:17", sys.argv[1])
guard.beat()
if sys.argv[2] == "on":
    guard.on("pwm:17")
print("up", flush=True)
time.sleep(0.6)
print(guard.read_reports())
"""


@pytest.mark.parametrize(("state", "status"), [("on", -signal.SIGKILL), ("off", 0)])
def test_hung_daemon_that_holds_a_line_is_killed_only_if_that_is_on(
    tmp_path: Path, state: str, status: int
) -> None:
    recipe = line_recipe(str(tmp_path / "gpiochip0"), 17)
    process = subprocess.run(
        [sys.executable, "-c", HOLDER, recipe, state],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        timeout=5,
    )
    assert process.returncode == status
    assert process.stdout == (b"up\n" if state == "on" else b"up\n['fired heartbeat']\n")


def test_guard_stays_tiny() -> None:
    """What it never loads: each of these is a tenth of its memory or more."""
    code = "import sys; import piod.hw.guard, piod.hw.safe; print(*sys.modules)"
    root = str(Path(__file__).resolve().parents[2])
    output = subprocess.check_output(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({root!r}); {code}"],
        text=True,
    )
    heavy = {"asyncio", "aiohttp", "json", "enum", "re", "typing", "dataclasses", "signal"}
    assert heavy.isdisjoint(output.split())


def test_refuses_to_register_what_the_pipe_cannot_carry(start: Callable[..., GuardLink]) -> None:
    link = start()
    for output, recipe in [
        ("two words", "pwm /x"),
        ("pwm:1", "pwm /x\non pwm:2 -"),
        ("a", "b" * 5000),
    ]:
        with pytest.raises(ValueError, match="cannot be told"):
            link.register(output, recipe)
