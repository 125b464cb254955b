"""How calibrations, devices and estimators may be called: rule 3.6 of the handbook.

A name becomes a file or folder name, so it is one path component that cannot
climb, hide or look like an option.
"""

from __future__ import annotations

import re

from piod.errors import BadRequest

MAX_NAME_BYTES = 255

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?: [A-Za-z0-9._-]+)*")


def check_name(value: object, field: str) -> str:
    """``value``, if it is a name; else BadRequest that names ``field``."""
    if not isinstance(value, str):
        raise BadRequest(f"{field} must be text")
    if not value:
        raise BadRequest(f"{field} must not be empty")
    if len(value.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise BadRequest(f"{field} must not be longer than {MAX_NAME_BYTES} bytes")
    if not _NAME.fullmatch(value):
        raise BadRequest(
            f"{field} {value!a} is not allowed",
            remediation="Use ASCII letters, digits, '.', '_', '-' and single spaces between them; "
            "do not start with '.' or '-'.",
        )
    return value
