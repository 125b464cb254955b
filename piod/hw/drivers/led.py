"""The LEDs as every LED driver numbers them, and their levels: 8 bits."""

from __future__ import annotations

CHANNELS = "ABCD"


def led_number(channel: str) -> int:
    """0 for A. ValueError: there is no such LED."""
    if len(channel) != 1 or channel not in CHANNELS:
        raise ValueError(f"there is no LED channel {channel!r}")
    return CHANNELS.index(channel)


def led_level(percent: float) -> int:
    """The nearest level, 0 to 255. ValueError: not 0 to 100 %."""
    if not 0 <= percent <= 100:
        raise ValueError(f"the level of an LED must be 0 to 100 %, got {percent}")
    return round(percent / 100 * 255)
