"""What lies where in the data directory, and whose it is.

Most of the data directory is the unit's user's and is exported, imported, served
and removed. What this module names is piod's own, or somebody's fence. Cheap to
import: the start of the daemon needs it early.
"""

from __future__ import annotations

import os
from pathlib import Path

from piod.storage.files import TEMPORARY_PREFIX

LOCK_NAME = "piod.lock"
SOCKET_NAME = "piod.sock"
NTP_NOTE_NAME = "piod.ntp-off"
"""There while piod has turned the machine's time synchronisation off, to set the clock."""
WORK_FOLDER = ".piod-import"
"""Where an import is prepared; gone when it is over."""
PLUGIN_ENVIRONMENT = ".plugin_env"
"""Packages that were installed over HTTP; tied to this machine's Python."""
SIMULATOR_FOLDER = "simulator"
"""The simulated machine, which is no more in an archive than a real one."""

STORAGE_FOLDER = "storage"
LEDGER_NAME = "piod.sqlite"
"""In :data:`STORAGE_FOLDER`; what SQLite and piod keep beside it begins with that name."""
READINGS_NAME = f"{LEDGER_NAME}-readings"
"""In the same folder, so named that all that holds of the ledger's files holds of it."""

METADATA_NAME = "pioreactor_export_metadata.json"

FILE_SYSTEM_MARKER = "DISALLOW_UI_FILE_SYSTEM"
INSTALLS_MARKER = "DISALLOW_UI_INSTALLS"
MARKER_PREFIX = "DISALLOW_UI_"
PLUGINS_FOLDER = "plugins"
ALLOW_LIST = "plugins/api_plugins_allowlist.json"

_PRIVATE = frozenset({LOCK_NAME, SOCKET_NAME, NTP_NOTE_NAME, WORK_FOLDER})
_OF_THE_MACHINE = _PRIVATE | {SIMULATOR_FOLDER, PLUGIN_ENVIRONMENT}


def is_private(relative: str) -> bool:
    """Whether the path (below the data directory) is nobody's to see but piod's."""
    first, name = relative.partition("/")[0], relative.rpartition("/")[2]
    return first in _PRIVATE or name.startswith(TEMPORARY_PREFIX)


def is_ledger(relative: str) -> bool:
    """Whether the path is the ledger or what SQLite and piod keep beside it."""
    return relative.startswith(f"{STORAGE_FOLDER}/{LEDGER_NAME}")


def is_marker(relative: str) -> bool:
    """Whether the path is that of a file that keeps users of the HTTP API out."""
    return relative.startswith(MARKER_PREFIX) and "/" not in relative


def plugins_are_fenced(root: Path) -> bool:
    """Whether somebody limits what plugins this unit may have: then no import brings any."""
    return os.path.lexists(root / INSTALLS_MARKER) or os.path.lexists(root / ALLOW_LIST)


def is_plugin(relative: str) -> bool:
    """Whether the path is the folder of plugins or below it."""
    return relative.partition("/")[0] == PLUGINS_FOLDER


def stays_in_an_import(relative: str) -> bool:
    """Whether the path is left as it is when an archive replaces the tree."""
    first = relative.partition("/")[0]
    return first in _OF_THE_MACHINE or is_private(relative) or is_ledger(relative)


def is_protected(relative: str) -> bool:
    """Whether the path is not to be removed over HTTP."""
    return relative == ALLOW_LIST or is_marker(relative) or stays_in_an_import(relative)
