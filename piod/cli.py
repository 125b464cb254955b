"""The command line: ``piod serve``, ``safe-outputs``, ``calibrate``, ``--version``.

``serve`` locks the data directory, starts the guard and turns every output off
before it imports anything heavy. ``safe-outputs`` never does.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from piod import __version__
from piod.hw.guard import spawn_guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from piod.errors import PiodError

END_JOBS_TIMEOUT_S = 0.4
"""How long safe-outputs waits for a living daemon before it acts by itself."""
IN_USE = os.EX_TEMPFAIL
"""Exit status of a start beside a daemon that lives on the same data directory.

piod.service knows it (RestartPreventExitStatus), and so does safe-outputs after it.
"""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(arguments: list[str] | None = None) -> int:
    """Run ``piod``; the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["safe-outputs"] and not _asks_for_help(words):
        parsed = _what_counts(words[1:])
    else:
        parsed = _parser().parse_args(words)
    from piod.errors import PiodError

    try:
        if parsed.command == "calibrate":
            return _calibrate(parsed)
        return _serve(parsed) if parsed.command == "serve" else _safe_outputs(parsed)
    except PiodError as refusal:
        _tell(refusal)
        return 2


def _tell(refusal: PiodError) -> None:
    print(f"piod: {refusal.message}\n  {refusal.remediation}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="piod", description="The daemon that runs one Pioreactor."
    )
    parser.add_argument("--version", action="version", version=f"piod {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the unit and answer HTTP")
    off = commands.add_parser("safe-outputs", help="turn every output off, within a second")
    for command in (serve, off):
        _add_options_of_both(command)
    _add_options_of_serve(serve)
    _add_options_of_calibrate(
        commands.add_parser("calibrate", help="calibrate a device, step by step")
    )
    return parser


def _add_options_of_both(command: argparse.ArgumentParser) -> None:
    command.add_argument("--simulate", action="store_true", help="a simulated reactor")
    command.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where the unit keeps its files"
    )
    command.add_argument("--hat", metavar="X.Y", help="version of the HAT, such as 1.2")
    command.add_argument(
        "--model", metavar="NAME/VERSION", help="reactor model, such as pioreactor_20ml/1.5"
    )


def _add_options_of_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--host", metavar="H", help="address to listen on (default 127.0.0.1)")
    serve.add_argument("--port", type=_port, metavar="P", help="port; 0 takes a free one")
    serve.add_argument("--unit", metavar="NAME", help="name of the unit (default: host name)")
    serve.add_argument("--leader", metavar="NAME", help="name of the leader")
    serve.add_argument(
        "--time-scale", type=_scale, default=1.0, metavar="X",
        help="simulated seconds per second, at most (default 1)",
    )  # fmt: skip
    serve.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the simulated reactor (default 1)"
    )
    serve.add_argument("--verbose", action="store_true", help="log more")


def _add_options_of_calibrate(calibrate: argparse.ArgumentParser) -> None:
    calibrate.add_argument(
        "device", nargs="?", metavar="DEVICE",
        help="media_pump, stirring, od90, …; without it, what can be calibrated is listed",
    )  # fmt: skip
    calibrate.add_argument("--protocol", metavar="P", help="how, where there are several ways")
    calibrate.add_argument("--session", metavar="ID", help="go on with a session that was left")
    where = calibrate.add_mutually_exclusive_group()
    where.add_argument("--url", metavar="URL", help="of another unit, such as http://pio02.local")
    where.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="that of a piod on this machine"
    )


class _Unusable(Exception):
    """Words of a command line that mean nothing."""


class _NeverExits(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Unusable(message)


def _what_counts(words: list[str]) -> argparse.Namespace:
    """The options of safe-outputs among ``words``; what means nothing is told, and ignored.

    The service passes on what ``serve`` was started with, or was refused for. Nothing in
    there may keep an output on.
    """
    parser = _NeverExits(add_help=False)
    _add_options_of_both(parser)
    _add_options_of_serve(parser)
    parsed = argparse.Namespace(command="safe-outputs")
    ignored = []
    # each option for itself: one that is wrong takes no other with it
    groups: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            groups.append([])
        groups[-1].append(word)
    for group in groups:
        try:
            _, unknown = parser.parse_known_args(group, parsed)
        except _Unusable:
            unknown = group
        ignored += unknown
    if ignored:
        print(f"piod: ignoring what safe-outputs does not know: {' '.join(ignored)}",
              file=sys.stderr)  # fmt: skip
    return parsed


def _asks_for_help(words: list[str]) -> bool:
    """By hand: of a service that has ended nobody asks for help."""
    return not {"-h", "--help"}.isdisjoint(words) and "SERVICE_RESULT" not in os.environ


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is 0 to 65535, not {port}")
    return port


def _scale(text: str) -> float:
    scale = float(text)
    if not 0 < scale <= 1e6:
        raise argparse.ArgumentTypeError(f"a time scale is above 0 and at most 1e6, not {text}")
    return scale


def _serve(parsed: argparse.Namespace) -> int:
    from piod import control, launch, systemd
    from piod.errors import ConfigurationError, Conflict

    given = systemd.received()  # before there is a child that would inherit it
    launch.share_files_with_group()
    data_dir = (parsed.data_dir or launch.default_data_dir()).absolute()
    try:
        lock_fd = launch.lock(data_dir)
    except ConfigurationError:
        # outputs come first, also where piod can do nothing else
        for line in _turn_off(parsed, data_dir, daemon_lives=False):
            print(f"piod: {line}", file=sys.stderr)
        raise
    except Conflict as refusal:
        if not control.is_listening(data_dir, END_JOBS_TIMEOUT_S):
            raise  # a guard that is not done yet, or a daemon on its way: worth another start
        _tell(refusal)
        return IN_USE
    guard = spawn_guard(keep_fds=(lock_fd,))
    try:
        decided = launch.decide(
            data_dir,
            lock_fd,
            simulate=parsed.simulate,
            host=parsed.host,
            port=parsed.port,
            unit_name=parsed.unit,
            leader_name=parsed.leader,
            hat=parsed.hat,
            model=parsed.model,
            time_scale=parsed.time_scale,
            seed=parsed.seed,
            verbose=parsed.verbose,
        )
        for line in decided.outputs_not_off:
            print(f"piod: {line}", file=sys.stderr)
        from piod.serve import serve

        return serve(decided, guard, given)
    finally:
        guard.close()


def _safe_outputs(parsed: argparse.Namespace) -> int:
    """Tell a living daemon to end all jobs, then turn everything off."""
    from piod import control, launch

    data_dir = (parsed.data_dir or launch.default_data_dir()).absolute()
    if _after_refused_start() and control.is_listening(data_dir, END_JOBS_TIMEOUT_S):
        print(f"another piod lives on {data_dir}: its jobs and its outputs are left to it")
        return 0
    try:
        answer = control.end_jobs(data_dir, "safe-outputs", END_JOBS_TIMEOUT_S)
        lives = answer is not None
    except OSError as error:
        lives = True
        print(f"piod: the daemon does not answer ({error}); acting by myself", file=sys.stderr)
    else:
        if answer is not None and answer.startswith("ok "):
            print(f"jobs ended by the daemon: {answer.removeprefix('ok ')}")
        elif lives:
            print(f"piod: the daemon cannot end its jobs ({answer}); going on", file=sys.stderr)
    lines = _turn_off(parsed, data_dir, daemon_lives=lives)
    for line in lines:
        print(line)
    return 1 if launch.failures(lines) else 0


def _calibrate(parsed: argparse.Namespace) -> int:
    from piod.terminal.command import calibrate

    try:
        return calibrate(
            device=parsed.device,
            protocol=parsed.protocol,
            session=parsed.session,
            url=parsed.url,
            data_dir=parsed.data_dir,
        )
    except KeyboardInterrupt:  # before there was a session; afterwards it asks what is meant
        return INTERRUPTED


def _after_refused_start() -> bool:
    """Whether systemd runs this because the service ended with IN_USE (systemd.exec(5))."""
    ended = os.environ.get("EXIT_CODE"), os.environ.get("EXIT_STATUS")
    return ended == ("exited", str(IN_USE))


def _turn_off(parsed: argparse.Namespace, data_dir: Path, *, daemon_lives: bool) -> list[str]:
    """Every output off; what was done, in words."""
    from piod import launch

    outputs = launch.outputs_of(
        data_dir,
        launch.configuration(data_dir).current(),
        simulate=parsed.simulate,
        hat=parsed.hat,
        model=parsed.model,
    )
    lines, _ = launch.turn_outputs_off(
        data_dir, outputs, simulate=parsed.simulate, daemon_lives=daemon_lives
    )
    return lines


if __name__ == "__main__":
    sys.exit(main())
