"""``/etc/piod/update.conf``: by what commands piod is updated, and what a request may ask for.

::

    [update]
    command = /usr/bin/apt-get --yes install piod{version?=}{version}
    source_command = /usr/bin/apt-get --yes install {source}
    repair = …
    refresh = …
    version_command = …
    allow = version
    sources =
    timeout_s = 1800
    lock_wait_s = 300

A command is split into words as a shell would, and then no shell sees it. In its
words ``{field}`` is what the request gives for that field, and ``{field?text}`` is
``text`` if the request gives it; a word that comes out empty is left out. A value
never makes two words, and never one that starts with a dash by itself.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from piod.errors import ConfigurationError, Forbidden
from piod.system import VALUES, UpdateRequest

MAX_CONF_BYTES = 64 * 1024
FLAGS = ("no_deps", "defer_web_restart")
COMMANDS = ("command", "source_command", "repair", "refresh", "version_command")
KEYS = (*COMMANDS, "allow", "sources", "timeout_s", "lock_wait_s")
TIMEOUT_S, LOCK_WAIT_S = 1800.0, 300.0

_PLACEHOLDER = re.compile(r"\{([a-z_]+)(?:\?([^{}]*))?\}")

Words = tuple[str, ...]


@dataclass(frozen=True)
class UpdateConf:
    """What the file says. ``timeout_s``: of each command; ``lock_wait_s``: for a lock of apt."""

    path: Path
    command: Words
    source_command: Words = ()
    repair: Words = ()
    refresh: Words = ()
    version_command: Words = ()
    allow: tuple[str, ...] = ("version",)
    sources: tuple[str, ...] = ()
    timeout_s: float = TIMEOUT_S
    lock_wait_s: float = LOCK_WAIT_S

    def arguments(self, request: UpdateRequest, trusted: Iterable[int]) -> list[str]:
        """The command that does ``request``. ``trusted``: who may own a package on this unit.

        Raises Forbidden naming the field that is not allowed here.
        """
        given = {name: value for name, value in _values(request).items() if value is not None}
        for name in given:
            if name not in self.allow:
                raise Forbidden(
                    f"this unit is not updated by {name}: {self.path} allows "
                    f"{', '.join(self.allow) or 'no option'}",
                    remediation=f"Leave {name} out, or have an administrator of this unit add it "
                    f"to allow in {self.path}, with a command that uses it.",
                )
        key, words = self._chosen(request)
        idle = [name for name in given if name not in _fields_of(words)]
        if idle:
            raise Forbidden(
                f"this unit cannot update by {' and '.join(given)} at once: {key} in {self.path} "
                f"does not use {', '.join(idle)}",
                remediation=f"Leave {' or '.join(idle)} out.",
            )
        if "source" in given:
            given["source"] = self._checked_source(given["source"], trusted)
        return filled(words, given, request)

    def unused_flags(self, request: UpdateRequest) -> list[str]:
        """The flags of ``request`` that its command has no use for."""
        used = _fields_of(self._chosen(request)[1])
        return [name for name in FLAGS if getattr(request, name) and name not in used]

    def _chosen(self, request: UpdateRequest) -> tuple[str, Words]:
        """The command that does ``request``, and its key."""
        if request.source is None:
            return "command", self.command
        return "source_command", self.source_command

    def _checked_source(self, source: str, trusted: Iterable[int]) -> str:
        if source.startswith("/"):
            return self._checked_file(source, trusted)
        # an escaped ../ would be no less a way out of the prefix
        if "%" not in source and any(
            source.startswith(prefix) for prefix in self.sources if not prefix.startswith("/")
        ):
            return source
        raise self._foreign(source)

    def _checked_file(self, source: str, trusted: Iterable[int]) -> str:
        """The real path of a package file that nobody but ``trusted`` could have put there."""
        real = Path(os.path.realpath(source))
        folders = [os.path.realpath(place) for place in self.sources if place.startswith("/")]
        if str(real.parent) not in folders:
            raise self._foreign(source)
        if real.suffix != ".deb":
            raise Forbidden(
                f"{source} is not the file of a Debian package",
                remediation="Name a file that ends in .deb.",
            )
        try:
            fault = distrusted(real, trusted)
        except OSError as error:
            raise Forbidden(
                f"the package {source} cannot be used: {error.strerror or error}",
                remediation="Put the file there, then try again.",
            ) from error
        if fault is not None:
            raise Forbidden(
                f"the package {source} is not used: {fault}",
                remediation="The file and its directory must be root's, and writable by root only.",
            )
        return str(real)

    def _foreign(self, source: str) -> Forbidden:
        return Forbidden(
            f"{source} is in no place that {self.path} allows packages to come from "
            f"({', '.join(self.sources) or 'there are none'})",
            remediation=f"Have an administrator of this unit add its place to sources in "
            f"{self.path}.",
        )


def read_conf(path: Path, trusted: Iterable[int]) -> UpdateConf:
    """The file. Raises ConfigurationError; also when others than ``trusted`` could change it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            fault = distrusted(path, trusted, os.fstat(stream.fileno()))
            if fault is not None:
                raise _bad(path, fault, "It must be root's and writable by root only.")
            data = stream.read(MAX_CONF_BYTES + 1)
        if len(data) > MAX_CONF_BYTES:
            raise _bad(path, f"it is longer than {MAX_CONF_BYTES} bytes")
        parser = configparser.ConfigParser(interpolation=None, empty_lines_in_values=False)
        parser.read_string(data.decode("utf-8"))
    except OSError as error:
        raise _bad(path, error.strerror or str(error), "It must be a readable file.") from error
    except (configparser.Error, ValueError) as error:
        raise _bad(path, " ".join(str(error).split())) from error
    if parser.sections() != ["update"] or parser.defaults():
        raise _bad(path, "it must have the section [update] and no other")
    return _conf(path, parser["update"])


def distrusted(
    path: Path, trusted: Iterable[int], status: os.stat_result | None = None
) -> str | None:
    """Why ``path`` could have been changed by others than the users ``trusted``; None: it is fine.

    ``path`` must be a regular file without links, its folder and those above theirs
    and not writable by others (a folder above may be as /tmp is). ``status``: of the
    open file. Raises OSError.
    """
    owners = frozenset(trusted)
    status = os.lstat(path) if status is None else status
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_uid not in owners:
        return f"it belongs to user {status.st_uid}, not to root"
    if status.st_mode & 0o022:
        return "its group or others may write it"
    real = Path(os.path.realpath(path.parent))
    for folder in (real, *real.parents):
        at = os.stat(folder)
        if at.st_uid not in owners | {0}:
            return f"its folder {folder} belongs to user {at.st_uid}, not to root"
        if at.st_mode & 0o022 and (folder == real or not at.st_mode & stat.S_ISVTX):
            return f"the group of {folder}, or others, may write it"
    return None


def filled(words: Words, given: Mapping[str, str], request: UpdateRequest) -> list[str]:
    """``words`` with what ``request`` gives in place of the placeholders."""

    def value(match: re.Match[str]) -> str:
        name, text = match[1], match[2]
        if text is None:
            return given.get(name, "")
        is_given = name in given or (name in FLAGS and getattr(request, name))
        return text if is_given else ""

    return [word for word in (_PLACEHOLDER.sub(value, word) for word in words) if word]


def _values(request: UpdateRequest) -> dict[str, str | None]:
    return {name: getattr(request, name) for name in VALUES}


def _fields_of(words: Words) -> set[str]:
    return {match[1] for word in words for match in _PLACEHOLDER.finditer(word)}


def _conf(path: Path, section: configparser.SectionProxy) -> UpdateConf:
    for key in section:
        if key not in KEYS:
            raise _bad(path, f"{key} is not one of its options: {', '.join(KEYS)}")
    commands = {key: _words(path, key, section.get(key, "")) for key in COMMANDS}
    if not commands["command"]:
        raise _bad(path, "command is missing")
    allow = tuple(_listed(section.get("allow", "version")))
    sources = tuple(_listed(section.get("sources", "")))
    for name in allow:
        if name not in VALUES:
            raise _bad(path, f"allow lists {name}; it may list {', '.join(VALUES)}")
        key = "source_command" if name == "source" else "command"
        if name not in _fields_of(commands[key]):
            raise _bad(path, f"allow lists {name}, but {key} does not use {{{name}}}")
    for place in sources:
        if not (place.startswith("https://") and place.endswith("/")) and place[0] != "/":
            raise _bad(
                path,
                f"sources lists {place}; it may list directories and https:// addresses that end "
                "in a slash",
            )
    return UpdateConf(
        path,
        **commands,
        allow=allow,
        sources=sources,
        timeout_s=_seconds(path, section, "timeout_s", TIMEOUT_S),
        lock_wait_s=_seconds(path, section, "lock_wait_s", LOCK_WAIT_S),
    )


def _words(path: Path, key: str, text: str) -> Words:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise _bad(path, f"{key} cannot be split into words: {error}") from error
    usable = {*VALUES, *FLAGS}
    for word in words:
        for match in _PLACEHOLDER.finditer(word):
            if match[1] not in usable or (match[1] in FLAGS and match[2] is None):
                raise _bad(path, f"{key} has {match[0]}, which stands for nothing")
    if words and (words[0][0:1] != "/" or _PLACEHOLDER.search(words[0])):
        raise _bad(path, f"{key} must start with the absolute path of a program")
    return words


def _listed(text: str) -> list[str]:
    return [entry for entry in re.split(r"[,\s]+", text) if entry]


def _seconds(path: Path, section: configparser.SectionProxy, key: str, default: float) -> float:
    try:
        seconds = section.getfloat(key, fallback=default)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise _bad(path, f"{key} must be 0 to 86400 seconds")
    return seconds


def _bad(path: Path, fault: str, remediation: str | None = None) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is not used: {fault}",
        remediation=remediation or f"Have an administrator of this unit correct {path}.",
    )
