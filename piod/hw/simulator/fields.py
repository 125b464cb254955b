"""Reading of JSON that somebody else wrote: patches, faults, the state file.

Everything is refused with :class:`piod.errors.BadRequest` that names the field
and what is allowed; nothing is converted silently.
"""

from __future__ import annotations

import math

from piod.errors import BadRequest

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TEXT = 500


class Fields:
    """The members of one JSON object, by name.

    ``name`` is what the refusals call the object; empty for the outermost one.
    Members other than ``known`` are refused.
    """

    def __init__(self, value: object, name: str, known: Iterable[str]) -> None:
        if not isinstance(value, dict):
            raise BadRequest(f"{name or 'the body'} must be an object.")
        self._name = name
        self._members: dict[object, object] = value
        allowed = tuple(known)
        for member in value:
            if member not in allowed:
                raise BadRequest(
                    f"{self.path(str(member)[:60])} is not known here; "
                    f"known are: {', '.join(allowed) or 'none'}."
                )

    def __contains__(self, member: str) -> bool:
        return member in self._members

    def path(self, member: str) -> str:
        """How refusals call ``member``."""
        return f"{self._name}.{member}" if self._name else member

    def value(self, member: str) -> object:
        """Whatever it is; missing is refused."""
        if member not in self._members:
            raise BadRequest(f"{self.path(member)} is missing.")
        return self._members[member]

    def number(self, member: str, minimum: float, maximum: float) -> float:
        """A finite number within the bounds, both included."""
        value = self.value(member)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not minimum <= value <= maximum
            or not math.isfinite(value)
        ):
            raise BadRequest(
                f"{self.path(member)} must be a number from {minimum:g} to {maximum:g}."
            )
        return float(value)

    def integer(self, member: str, minimum: int, maximum: int) -> int:
        """A whole number within the bounds, both included."""
        value = self.value(member)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise BadRequest(
                f"{self.path(member)} must be a whole number from {minimum} to {maximum}."
            )
        return value

    def flag(self, member: str) -> bool:
        """True or false."""
        value = self.value(member)
        if not isinstance(value, bool):
            raise BadRequest(f"{self.path(member)} must be true or false.")
        return value

    def choice(self, member: str, choices: Iterable[str]) -> str:
        """One of some words."""
        value, allowed = self.value(member), tuple(choices)
        if not isinstance(value, str) or value not in allowed:
            raise BadRequest(f"{self.path(member)} must be one of: {', '.join(allowed)}.")
        return value

    def text(self, member: str) -> str:
        """Text of 1 to MAX_TEXT characters."""
        value = self.value(member)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT:
            raise BadRequest(f"{self.path(member)} must be text of 1 to {MAX_TEXT} characters.")
        return value
