"""What ``piod serve`` decides before the heavy imports, and ``piod safe-outputs`` at all.

Who this unit is, where its data lies, how it is wired; and the first act of a
start: every output off. Cheap to import.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from piod.config import Config, ConfigFiles
from piod.errors import BadRequest, ConfigurationError, Conflict, PiodError
from piod.hw import safe
from piod.hw.simulator.run_on import Resumed, output_names, run_on
from piod.hw.wiring import (
    detect_hat,
    is_folder_name,
    is_known_hat,
    led_chip_to_turn_off,
    pins_to_turn_off,
)

log = logging.getLogger(__name__)

SIMULATED_MODEL = ("pioreactor_20ml", "1.1")
DEFAULT_HAT = "1.2"
"""Of a simulated unit, and of a real one whose HAT cannot be read."""
SIMULATED_PORT = 8000
LOCK_TIMEOUT_S = 6.0
"""How long a start waits for the guard of a killed daemon to finish."""

HOME_OF_PIOREACTOR = Path("/home/pioreactor/.pioreactor")
HOME_OF_SERVICE = Path("/var/lib/piod")


@dataclass(frozen=True)
class Wired:
    """Which hardware this unit is."""

    hat_version: str
    fixed_model: tuple[str, str] | None
    """Name and version, when the configuration or the command line fixes them."""
    model: tuple[str, str] | None
    """The model whose hardware files count."""


@dataclass(frozen=True)
class Identity:
    """Who a unit is and how it is wired: what only counts from a start on."""

    wired: Wired
    leader_name: str


@dataclass(frozen=True)
class Launch:
    """Everything that is known when the daemon starts."""

    data_dir: Path
    config: ConfigFiles
    unit_name: str
    leader_name: str
    host: str
    port: int
    simulate: bool
    time_scale: float
    seed: int
    wired: Wired
    lock_fd: int
    verbose: bool
    resumed_plant: Resumed | None
    """The simulated reactor as it was left, brought up to now."""
    outputs_not_off: list[str]
    """What the first act of the start could not turn off, in words."""
    problems: list[str]
    """What piod may not do in its data directory and can live without, in words."""
    anew: Callable[[], Launch]
    """:func:`decide` once more, for a daemon that starts anew in this process. Blocks."""
    identity: Callable[[], Identity]
    """Who this unit would be if it started now. Raises PiodError."""


def default_data_dir() -> Path:
    """``$DOT_PIOREACTOR``, an existing installation's, the service's, or one's own."""
    named = os.environ.get("DOT_PIOREACTOR")
    if named:
        return Path(named)
    if os.path.isdir(HOME_OF_PIOREACTOR):  # no: also when it is not to be seen
        return HOME_OF_PIOREACTOR
    if "INVOCATION_ID" in os.environ:  # set by systemd
        home = HOME_OF_PIOREACTOR.parent
        closed = os.path.isdir(home) and not os.access(home, os.X_OK)
        # a closed home is likely that of an installation: its permissions are refused, with words
        return HOME_OF_PIOREACTOR if closed else HOME_OF_SERVICE
    if os.access(HOME_OF_SERVICE, os.W_OK):  # root beside the service, ``piod safe-outputs``
        return HOME_OF_SERVICE
    return Path.home() / ".pioreactor"


def configuration(data_dir: Path) -> ConfigFiles:
    """The configuration files of ``data_dir``; upstream's variables override the paths."""
    shared, unit = os.environ.get("GLOBAL_CONFIG"), os.environ.get("LOCAL_CONFIG")
    return ConfigFiles(
        data_dir,
        shared_file=Path(shared) if shared else None,
        unit_file=Path(unit) if unit else None,
    )


def share_files_with_group() -> None:
    """From now on the group may write what piod makes; others what the umask leaves, never write.

    People and leaders of the group edit these files too. The group itself comes from
    the folders, which are setgid in an existing installation.
    """
    others = os.umask(0o002) & 0o007
    os.umask(others | 0o002)


def lock(data_dir: Path) -> int:
    """Make ``data_dir`` this daemon's; the file descriptor that holds it.

    The guard inherits it, so a start waits until the guard of a killed daemon
    has turned everything off. Raises Conflict when another daemon lives there.
    """
    path = data_dir / "piod.lock"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
        except PermissionError:
            descriptor = os.open(path, os.O_RDONLY)  # of another user's piod: enough for a lock
    except OSError as error:
        from piod.storage.permissions import refusal

        refused = refusal(data_dir)
        if refused is not None:
            raise refused from error
        raise ConfigurationError(
            f"the data directory {data_dir} cannot be used: {error.strerror}",
            remediation="Name another one with --data-dir, or correct its permissions.",
        ) from error
    until = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(descriptor)
                raise Conflict(
                    f"another piod uses the data directory {data_dir}",
                    remediation="End it first, or name another directory with --data-dir.",
                ) from None
            time.sleep(0.02)
        else:
            return descriptor


def machine_name() -> str:
    """This machine's name; the variable HOSTNAME wins, as upstream."""
    return os.environ.get("HOSTNAME") or socket.gethostname()


def model_key(text: str) -> tuple[str, str]:
    """``pioreactor_20ml/1.5`` as name and version."""
    name, _, version = text.partition("/")
    if not (is_folder_name(name) and is_folder_name(version)):
        raise BadRequest(
            f"a model is written NAME/VERSION, such as pioreactor_20ml/1.5, not {text!r}"
        )
    return name, version


def wired(config: Config, *, simulate: bool, hat: str | None, model: str | None) -> Wired:
    """HAT and model: as given, as configured in ``[piod]``, as detected, or the usual ones."""
    version = _hat_version(config, hat)
    if model is not None:
        fixed: tuple[str, str] | None = model_key(model)
    else:
        name = config.text("piod", "model_name", None)
        number = config.text("piod", "model_version", None)
        if (name is None) != (number is None):
            raise ConfigurationError(
                "[piod] model_name and model_version belong together; one of them is missing"
            )
        fixed = None if name is None or number is None else (name, number)
    return Wired(version, fixed, SIMULATED_MODEL if fixed is None and simulate else fixed)


def _hat_version(config: Config, hat: str | None) -> str:
    return hat or config.text("piod", "hat_version", None) or detect_hat() or DEFAULT_HAT


def listen_address(config: Config, simulate: bool) -> tuple[str, int]:
    """Host and port, from ``[piod] listen`` (``host`` or ``host:port``) and ``[ui] port``."""
    host, port = "127.0.0.1", SIMULATED_PORT
    if not simulate:
        port = config.integer("ui", "port", 80, minimum=1, maximum=65535)
    listen = config.text("piod", "listen", "")
    if listen:
        address, colon, number = listen.rpartition(":")
        if colon and number.isdigit() and (":" not in address or address.endswith("]")):
            host, port = address.strip("[]") or host, int(number)
        else:
            host = listen.strip("[]")
    return host, port


@dataclass(frozen=True)
class Outputs:
    """Every output of a unit: pins of PWM outputs, and the LEDs' chips with their addresses."""

    pins: tuple[int, ...]
    led_chips: tuple[tuple[str, int], ...]

    def and_those(self, before: Outputs | None) -> Outputs:
        """These, and those that were outputs before."""
        if before is None:
            return self
        return Outputs(
            tuple(sorted({*self.pins, *before.pins})),
            tuple(sorted({*self.led_chips, *before.led_chips})),
        )


def outputs_of(
    data_dir: Path, config: Config, *, simulate: bool, hat: str | None, model: str | None
) -> Outputs:
    """Every output; never raises.

    What is wrong with the configuration is logged: it must not keep an output on.
    A ``hat`` or ``model`` that cannot be used does not hide what the unit is without it.
    """
    try:
        hardware = wired(config, simulate=simulate, hat=hat, model=model)
    except PiodError as refusal:
        log.warning("Turning off what is usual: %s", refusal.message)
        if model is not None:
            return outputs_of(data_dir, config, simulate=simulate, hat=hat, model=None)
        hardware = Wired(_hat_version(config, hat), None, None)
    where = (data_dir / "hardware", hardware.hat_version, hardware.model)
    outputs = Outputs(pins_to_turn_off(*where), (led_chip_to_turn_off(*where),))
    if hat is None or is_known_hat(data_dir / "hardware", hat):
        return outputs
    log.warning("HAT version %r is unknown; turning off what there is without it, too", hat)
    without = outputs_of(data_dir, config, simulate=simulate, hat=None, model=model)
    return without.and_those(outputs)


def turn_outputs_off(
    data_dir: Path, outputs: Outputs, *, simulate: bool, daemon_lives: bool = False
) -> tuple[list[str], Resumed | None]:
    """Every output off, from outside; what was done, and the simulated plant as it is now.

    ``outputs`` are those of :func:`outputs_of`. A simulated plant first runs on with
    its outputs as they were left, unless ``daemon_lives``: then it is in the
    daemon's hands.
    """
    if not simulate:
        recipes = safe.linux_recipes(outputs.pins)
        for chip, address in outputs.led_chips:
            for output, recipe in safe.led_recipes(chip, address).items():
                recipes[f"{output} (0x{address:02X})"] = recipe
        return safe.turn_all_off(recipes), None
    resumed = None
    if not daemon_lives:
        try:
            resumed = run_on(data_dir / "simulator", time.time())
        except OSError as error:
            log.warning("The simulated plant could not be brought up to now: %s", error)
    recipes = safe.simulated_recipes(str(data_dir), output_names(outputs.pins))
    return safe.turn_all_off(recipes), resumed


def failures(lines: list[str]) -> list[str]:
    """Those of the lines of :func:`turn_outputs_off` that tell of an output still on."""
    return [line for line in lines if line.startswith(safe.FAILED)]


def decide(
    data_dir: Path,
    lock_fd: int,
    *,
    simulate: bool,
    host: str | None,
    port: int | None,
    unit_name: str | None,
    leader_name: str | None,
    hat: str | None,
    model: str | None,
    time_scale: float,
    seed: int,
    verbose: bool,
    outputs_before: Outputs | None = None,
) -> Launch:
    """Turn every output off and decide the rest; None: not named on the command line.

    Outputs come first: what is wrong with the rest is refused after that. Then an
    interrupted import is completed, and a simulated unit's missing files are made.
    ``outputs_before``: those under a wiring that was in force before.
    """
    unit = unit_name or machine_name()
    config = configuration(data_dir)
    outputs = outputs_of(data_dir, config.current(), simulate=simulate, hat=hat, model=model)
    outputs = outputs.and_those(outputs_before)
    lines, resumed = turn_outputs_off(data_dir, outputs, simulate=simulate)
    # only now: nothing that is not needed for that is imported before the outputs are off
    from piod.storage.permissions import check_permissions
    from piod.storage.swap import recover

    problems = check_permissions(data_dir, config.paths)
    for problem in problems:
        log.warning("%s", problem)
    if recover(data_dir):
        # the interrupted import may have brought the wiring, only now in its place
        outputs = outputs_of(data_dir, config.current(), simulate=simulate, hat=hat, model=model)
        lines += turn_outputs_off(data_dir, outputs, simulate=simulate, daemon_lives=True)[0]
    if simulate:
        from piod.defaults import write_defaults

        write_defaults(data_dir, leader_hostname=leader_name or unit)

    def identity() -> Identity:
        now = config.current()
        configured_leader = now.text("cluster.topology", "leader_hostname", None)
        return Identity(
            wired(now, simulate=simulate, hat=hat, model=model),
            leader_name or configured_leader or (unit if simulate else ""),
        )

    me = identity()
    listen_host, listen_port = listen_address(config.current(), simulate)
    return Launch(
        data_dir=data_dir,
        config=config,
        unit_name=unit,
        leader_name=me.leader_name,
        host=host or listen_host,
        port=listen_port if port is None else port,
        simulate=simulate,
        time_scale=time_scale,
        seed=seed,
        wired=me.wired,
        lock_fd=lock_fd,
        verbose=verbose,
        resumed_plant=resumed,
        outputs_not_off=failures(lines),
        problems=problems,
        anew=partial(
            decide,
            data_dir,
            lock_fd,
            simulate=simulate,
            host=host,
            port=port,
            unit_name=unit,
            leader_name=leader_name,
            hat=hat,
            model=model,
            time_scale=time_scale,
            seed=seed,
            verbose=verbose,
            outputs_before=outputs,
        ),
        identity=identity,
    )
