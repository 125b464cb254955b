"""The machine that piod runs on: power, clock, services, updates of piod.

:class:`SystemPort` is what the rest of piod asks of it: :class:`piod.machine.Machine`
speaks with systemd, a simulated unit has a simulated machine
(:mod:`piod.hw.simulator.system`), and :class:`NoSystem` refuses everything with the
reason. :class:`UpdateRequest` is an update that has been validated: only what stands
in it ever reaches an updater.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from piod.errors import BadRequest, PiodError, Unavailable


class UpdateFailed(PiodError):
    """An update ran and did not succeed."""

    default_remediation = "Look at the log of the update on this unit, then try again."


@dataclass(frozen=True)
class UpdateRequest:
    """An update of piod. ``request_id`` names it over restarts of the daemon.

    Without ``version``, ``source``, ``branch`` or ``sha`` it is to the newest
    release. ``repo`` is ``owner/repository``; ``no_deps`` leaves what piod depends
    on alone; ``defer_web_restart`` leaves the web server running as it is.
    """

    request_id: str
    branch: str | None = None
    repo: str | None = None
    sha: str | None = None
    version: str | None = None
    source: str | None = None
    no_deps: bool = False
    defer_web_restart: bool = False


@dataclass(frozen=True)
class UpdateOutcome:
    """How an update ended; ``message`` says why when it failed."""

    succeeded: bool
    message: str = ""


class SystemPort(Protocol):
    """The machine. Calls raise Unavailable when it cannot be reached or refuses, Forbidden
    when it does not allow piod to do this.

    Times are Unix seconds (UTC); units are names such as ``lighttpd.service``.
    """

    async def check(self) -> None:
        """Refuse, with the reason, while nothing can be asked of the machine."""
        ...

    async def disconnect(self) -> None:
        """Let go of the machine; a later call finds it again. Raises nothing."""
        ...

    async def recover(self) -> None:
        """Put right what a piod that was killed meanwhile has left half done on the machine."""
        ...

    async def reboot(self) -> None:
        """Returns when it is about to happen; this process is told to end soon after."""
        ...

    async def power_off(self) -> None:
        """As :meth:`reboot`."""
        ...

    async def set_time(self, unix_s: float, ntp: bool | None = None) -> None:
        """Make ``unix_s`` the time of now.

        ``ntp``: whether a time server sets the clock from then on; None: as before.
        """
        ...

    async def synchronise_clock(self) -> None:
        """Set the clock by a time server; returns when that is done."""
        ...

    async def clock_synchronised(self) -> bool | None:
        """Whether a time server sets the clock; None: that is not known."""
        ...

    async def unit_states(self, names: Sequence[str]) -> Mapping[str, str]:
        """The state of each unit in systemd's word: active, inactive, failed, …"""
        ...

    async def restart_units(self, names: Sequence[str]) -> None:
        """Restart the units, in this order; returns when they have started."""
        ...

    async def start_update(self, request: UpdateRequest) -> None:
        """Start an update that goes on without this process; returns when it has started."""
        ...

    async def update_outcome(self, request_id: str) -> UpdateOutcome | None:
        """How that update ended; waits while it runs. None: no such update was started."""
        ...


class NoSystem:
    """A machine that cannot be asked for anything; ``reason`` ends the sentence that says so."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def check(self) -> None:
        raise Unavailable(
            f"this unit cannot control its machine: {self._reason}",
            remediation="Do it on the machine itself, for example with sudo systemctl.",
        )

    async def disconnect(self) -> None:
        pass

    async def recover(self) -> None:
        pass

    async def reboot(self) -> None:
        await self.check()

    async def power_off(self) -> None:
        await self.check()

    async def set_time(self, unix_s: float, ntp: bool | None = None) -> None:
        await self.check()

    async def synchronise_clock(self) -> None:
        await self.check()

    async def clock_synchronised(self) -> bool | None:
        return None

    async def unit_states(self, names: Sequence[str]) -> Mapping[str, str]:
        await self.check()
        return {}

    async def restart_units(self, names: Sequence[str]) -> None:
        await self.check()

    async def start_update(self, request: UpdateRequest) -> None:
        await self.check()

    async def update_outcome(self, request_id: str) -> UpdateOutcome | None:
        await self.check()
        return None


# -- the options of an update -------------------------------------------------------

MAX_VALUE = 255
FLAGS = ("no_deps", "defer_web_restart", "force")


def _is_branch(text: str) -> bool:
    return (
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", text) is not None
        and not any(odd in text for odd in ("..", "//", "/.", ".lock/"))
        and not text.endswith((".", "/", ".lock"))
    )


def _is_repo(text: str) -> bool:
    owner_and_name = r"[A-Za-z0-9][A-Za-z0-9-]*/(?!\.{1,2}$)[A-Za-z0-9_.][A-Za-z0-9._-]*"
    return re.fullmatch(owner_and_name, text) is not None


def _is_sha(text: str) -> bool:
    return re.fullmatch(r"[0-9A-Fa-f]{4,40}", text) is not None


def _is_version(text: str) -> bool:
    # apt takes a + or - at the end for a command of its own: install, or remove
    return re.fullmatch(r"[0-9A-Za-z]([0-9A-Za-z.+!~_-]{0,62}[0-9A-Za-z~])?", text) is not None


def _is_source(text: str) -> bool:
    place = r"(/|https://[A-Za-z0-9][A-Za-z0-9.:-]*/)[A-Za-z0-9._~+@%=&?/-]*[A-Za-z0-9]"
    return re.fullmatch(place, text) is not None and ".." not in text.split("/")


VALUES: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "branch": (_is_branch, "the name of a branch, such as develop"),
    "repo": (_is_repo, "owner/repository, such as pioreactor/piod"),
    "sha": (_is_sha, "4 to 40 hexadecimal digits of a commit"),
    "version": (_is_version, "a version, such as 26.2.3"),
    "source": (_is_source, "an absolute path on this unit, or an https:// address"),
}


def read_update(request_id: str, options: Mapping[str, object]) -> tuple[UpdateRequest, bool]:
    """The update that ``options`` ask for, and whether it is to be done while jobs run.

    A dash in a name counts as an underscore. A flag is given as null or true.
    Raises BadRequest naming the option.
    """
    values: dict[str, str] = {}
    flags: dict[str, bool] = {}
    for given, value in options.items():
        name = given.replace("-", "_")
        if name in values or name in flags:
            raise BadRequest(f"options.{name} is given twice")
        if name in FLAGS:
            flags[name] = _flag(name, value)
        elif name in VALUES:
            values[name] = _value(name, value)
        else:
            allowed = ", ".join([*VALUES, *FLAGS])
            raise BadRequest(
                f"{given[:60]!r} is not an option of an update",
                remediation=f"The options of an update are: {allowed}.",
            )
    request = UpdateRequest(
        request_id,
        branch=values.get("branch"),
        repo=values.get("repo"),
        sha=values.get("sha"),
        version=values.get("version"),
        source=values.get("source"),
        no_deps=flags.get("no_deps", False),
        defer_web_restart=flags.get("defer_web_restart", False),
    )
    return request, flags.get("force", False)


def _flag(name: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise BadRequest(f"options.{name} is a flag: it must be null, true or false")
    return value is not False


def _value(name: str, value: object) -> str:
    fits, what = VALUES[name]
    if not isinstance(value, str) or len(value) > MAX_VALUE or not fits(value):
        needs = "needs a value:" if value is None else "must be"
        raise BadRequest(f"options.{name} {needs} {what}")
    return value
