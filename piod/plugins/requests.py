"""What may be installed and uninstalled, and who forbids it.

A person forbids it on a unit with the file ``DISALLOW_UI_INSTALLS`` in the data
directory, or narrows it with ``plugins/api_plugins_allowlist.json``: a JSON list
of names, or an object with such a list. Where there is an allow-list nothing is
fetched from a URL that the request names: its name would say nothing of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from piod.errors import BadRequest, Forbidden
from piod.storage.layout import ALLOW_LIST, INSTALLS_MARKER

_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,49}")
_FILE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\.py")
_URL = re.compile(r"[!-~]{1,2000}")
ARCHIVES = (".whl", ".tar.gz", ".zip")


@dataclass(frozen=True)
class PackageRequest:
    """A package to install: by name from the index, or what lies at ``source``.

    ``source`` is an absolute path or an http(s) URL. ``version`` and ``source``
    exclude each other.
    """

    name: str
    version: str | None = None
    source: str | None = None

    @property
    def requirement(self) -> str:
        """How pip is told. It begins with a letter or a digit: never taken for an option."""
        if self.source is None:
            return self.name if self.version is None else f"{self.name}=={self.version}"
        url = self.source if _is_url(self.source) else Path(self.source).as_uri()
        return f"{self.name} @ {url}"


@dataclass(frozen=True)
class FileRequest:
    """A plugin file to put into ``plugins/``: the one at ``source``, a path or a URL."""

    file_name: str
    source: str

    @property
    def url(self) -> str | None:
        """``source``, if it is a URL."""
        return self.source if _is_url(self.source) else None


InstallRequest = PackageRequest | FileRequest


def normal_name(name: str) -> str:
    """``name`` as packages are compared: ``My_Plugin`` and ``my.plugin`` are ``my-plugin``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def install_request(wanted: str, source: str | None) -> InstallRequest:
    """What ``args`` and ``options.source`` of a request ask for; BadRequest naming what is wrong.

    A ``source`` on this machine is looked at: in a thread.
    """
    name, _, version = wanted.partition("==")
    if not _PACKAGE.fullmatch(name) or ("==" in wanted and not _VERSION.fullmatch(version)):
        raise BadRequest(
            f"args[0] {wanted[:80]!a} is not the name of a plugin",
            remediation="Name one package, such as pioreactor-my-plugin or "
            "pioreactor-my-plugin==1.2.0.",
        )
    if source is None:
        return PackageRequest(name, version or None)
    if version:
        raise BadRequest("a version in args[0] and options.source exclude each other")
    path = _path_of_url(source) if _is_url(source) else _checked_path(source)
    file_name = path.rpartition("/")[2]
    if path.endswith(ARCHIVES):
        return PackageRequest(name, None, source)
    if not _FILE_NAME.fullmatch(file_name):
        raise BadRequest(
            f"options.source {source[:80]!a} is neither a plugin file nor a package",
            remediation="Name a file my_plugin.py, whose name is that of a Python module, or a "
            f"package ({', '.join(ARCHIVES)}).",
        )
    return FileRequest(file_name, source)


def refuse_if_disallowed(data_dir: Path) -> None:
    """Forbidden where the marker file lies. Touches the disk."""
    if (data_dir / INSTALLS_MARKER).exists():
        raise Forbidden(
            "plugins are neither installed nor uninstalled over HTTP on this unit",
            cause=f"the file {INSTALLS_MARKER} lies in its data directory",
            remediation=f"Remove {INSTALLS_MARKER} from the data directory of this unit.",
        )


def refuse_unlisted(data_dir: Path, wanted: str, request: InstallRequest) -> None:
    """Forbidden when there is an allow-list that ``request`` does not fit. Touches the disk."""
    try:
        text = (data_dir / ALLOW_LIST).read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _broken_list(str(error)) from error
    try:
        allowed = {normal_name(name) for name in _names(json.loads(text))}
    except (ValueError, RecursionError) as error:
        raise _broken_list(str(error)) from error
    names = [wanted.partition("==")[0]]
    if isinstance(request, FileRequest):
        names.append(request.file_name.removesuffix(".py"))
    for name in names:
        if normal_name(name) not in allowed:
            raise Forbidden(
                f"the plugin {name!r} is not on the allow-list of this unit",
                remediation=f"Add it to {ALLOW_LIST} in the data directory of this unit.",
            )
    if request.source is not None and _is_url(request.source):
        raise Forbidden(
            "this unit has an allow-list of plugins, so it fetches none from a URL",
            remediation="Install the plugin by its name alone, or copy it to the unit and name "
            "its path.",
        )


def _broken_list(cause: str) -> Forbidden:
    return Forbidden(
        "no plugin can be installed: the allow-list of this unit cannot be read",
        cause=cause,
        remediation=f"Correct {ALLOW_LIST} in the data directory of this unit: a JSON list of "
        "names.",
    )


def _names(listed: object) -> Iterator[str]:
    """The names in an allow-list; ValueError if it is none."""
    lists = [listed]
    if isinstance(listed, dict):
        lists = [value for value in listed.values() if isinstance(value, list)]
    if not lists:
        raise ValueError("the object holds no list")
    for names in lists:
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it is not a list of names")
        yield from names


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _path_of_url(source: str) -> str:
    try:
        parts = urlsplit(source) if _URL.fullmatch(source) else None
        host = parts.hostname if parts is not None else None
    except ValueError:
        parts = host = None
    if parts is None or not host:
        raise BadRequest(f"options.source {source[:80]!a} is not a complete http(s) URL")
    return unquote(parts.path)


def _checked_path(source: str) -> str:
    path = Path(source)
    if not path.is_absolute():
        raise BadRequest(
            f"options.source {source[:80]!a} is neither an absolute path nor an http(s) URL"
        )
    try:
        target = path.resolve(strict=True)
        is_file = target.is_file()
    except (OSError, ValueError, RuntimeError):
        is_file = False
    if not is_file:
        raise BadRequest(
            f"options.source: there is no file {source[:200]!a} on this unit",
            remediation="Copy the plugin to the unit first, or name an http(s) URL.",
        )
    # by both names: a link named x.py must not make a plugin of whatever it points at
    return source if target.suffix == path.suffix else ""
