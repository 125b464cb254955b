"""The configuration files as they may be shown: without passwords.

The text stays as it is, comments, case and order included; only the values of
secret keys are replaced.
"""

from __future__ import annotations

import re

MASK = b"********"

_CONFIGURATION = re.compile(r"config|\.ini", re.IGNORECASE)
_SECRET = re.compile(
    rb"(?P<key>[ \t#;]*(?:password|api_key)[ \t]*[=:][ \t]*)(?P<value>[^\r\n]*)", re.IGNORECASE
)
_CONTINUATION = re.compile(rb"(?P<indent>[ \t]+)(?P<value>\S[^\r\n]*)")


def holds_secrets(name: str) -> bool:
    """Whether a file of this name may be a configuration file, or somebody's copy of one."""
    return _CONFIGURATION.search(name) is not None


def mask_secrets(text: bytes) -> bytes:
    """``text`` of an ini file with the values of ``password`` and ``api_key`` masked.

    In every section, commented out or not, whatever the case of the key, and
    however many indented lines a value goes on for.
    """
    shown: list[bytes] = []
    in_secret = False
    for line in text.splitlines(keepends=True):
        end = line[len(line.rstrip(b"\r\n")) :]
        if found := _SECRET.match(line):
            in_secret = True
            shown.append(found["key"] + (MASK if found["value"].strip() else b"") + end)
        elif in_secret and (found := _CONTINUATION.match(line)):
            shown.append(found["indent"] + MASK + end)
        else:
            in_secret = in_secret and not line.strip()  # an empty line ends no value
            shown.append(line)
    return b"".join(shown)
