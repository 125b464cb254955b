"""Which photodiode looks at the vial from which angle, and which one at the IR LED itself.

``[od_config.photodiode_channel]`` says it: channel = angle in degrees, or ``REF``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from piod.config import Config
from piod.errors import ConfigurationError

SECTION = "od_config.photodiode_channel"
CHANNELS = ("1", "2", "3", "4")
ANGLES = ("45", "90", "135", "180")
REF = "REF"
USUAL: Mapping[str, str] = {"1": REF, "2": "90"}
"""Of a unit without that section."""


def signal_of(channel: str) -> str:
    """The signal of the wiring that photodiode channel ``channel`` is on."""
    return f"pd{channel}"


@dataclass(frozen=True)
class Photodiodes:
    """The photodiodes of a unit. ``angles``: of those that see the vial, by channel."""

    angles: Mapping[str, str]
    reference: str | None
    """The channel that sees the IR LED itself, if there is one."""

    @classmethod
    def of(cls, config: Config, wired: Collection[str]) -> Photodiodes:
        """As the configuration says; ``wired`` are the signals that the ADCs have.

        Raises ConfigurationError naming the channel that cannot be, or when none is left
        that sees the vial.
        """
        told = config.items(SECTION) if config.has(SECTION) else USUAL
        angles: dict[str, str] = {}
        reference: str | None = None
        for channel, value in sorted(told.items()):
            role = value.strip().upper()
            if not role:
                continue
            where = f"[{SECTION}] {channel} = {value}"
            if channel not in CHANNELS or signal_of(channel) not in wired:
                known = ", ".join(name for name in CHANNELS if signal_of(name) in wired)
                raise ConfigurationError(
                    f"{where}: this unit has no photodiode channel {channel!r}; it has {known}"
                )
            if role == REF:
                if reference is not None:
                    raise ConfigurationError(f"{where}: channel {reference} is REF already")
                reference = channel
            elif role in ANGLES:
                angles[channel] = role
            else:
                raise ConfigurationError(
                    f"{where}: a photodiode's angle is {', '.join(ANGLES)} or REF"
                )
        if not angles:
            raise ConfigurationError(f"[{SECTION}] names no photodiode that sees the vial")
        return cls(angles, reference)

    @property
    def channels(self) -> tuple[str, ...]:
        """All of them, in order."""
        reference = () if self.reference is None else (self.reference,)
        return tuple(sorted((*self.angles, *reference)))
