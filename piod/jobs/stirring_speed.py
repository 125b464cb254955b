"""The stirrer's speed, from the edges of the hall sensor: one a turn."""

from __future__ import annotations

from collections.abc import Sequence

from piod.jobs.pid import clamp


def rpm_of(edges: Sequence[float]) -> float:
    """RPM from falling edges, one a turn: 60·(n−1)/Σ intervals, to 0.1; 0 below two edges."""
    if len(edges) < 2:
        return 0.0
    return round(60.0 * (len(edges) - 1) / (edges[-1] - edges[0]), 1)


def observation_window_s(target_rpm: float) -> float:
    """How long to watch the hall sensor: ten turns, between 1 s and 5 s (handbook §2.1).

    A target so slow that two edges may not fall into 5 s gets two and a half turns,
    15 s at most.
    """
    if target_rpm <= 0:
        return 1.0
    return max(clamp(1.0, 600.0 / target_rpm, 5.0), min(150.0 / target_rpm, 15.0))
