"""Whether the readings of the heater's board agree with what the heater does.

A sensor can fail without failing to answer: it says the same for ever, or has come off
its board, or drifts. :class:`BoardWatch` finds out, while there is a duty cycle that
must show, from the shape that :class:`~piod.jobs.temperature.board.BoardExcess` expects.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from piod.jobs.temperature.board import BoardExcess

FROZEN_S = 50.0
"""So long one value to the bit, while the heater changes the board by…"""
FROZEN_K = 0.25
"""…so much, is no measurement. Four steps of the sensor."""

WINDOW_S = 80.0
SPACING_S = 1.9
"""Readings closer than this to one another add nothing to the window."""
CHECK_EVERY_S = 8.0
_SPAN_S = 60.0

CONTRADICTED_PERCENT = 10.0
_VISIBLE_K = 0.1
"""A bend of the expected course (root of its mean square) that no noise hides."""
_LEAST_ANSWER = 0.25
"""The part of the expected bend that every working sensor shows."""
_UNCLEAR_K = 0.08
"""A course that is bent in other ways (by a dose of cold medium) proves nothing."""
_CHECKS = 2
"""So many checks in a row have to find the sensor wanting."""
_FALL_K, _FALL_K_PER_PERCENT = 6.0, 0.1
"""No liquid cools so much within the window, even if the board's excess is twice or half…"""
_RISE_K, _RISE_K_PER_PERCENT = 4.0, 0.25
"""…of the usual, nor warms so much: three times what the usual volume does, and some."""


class _Reading(NamedTuple):
    at_s: float
    celsius: float
    excess_k: float
    duty_percent: float


class BoardWatch:
    """Judges one reading after another. Times in seconds, on one scale."""

    def __init__(self) -> None:
        self._excess = BoardExcess()
        self._duty_percent = 0.0
        self._window: deque[_Reading] = deque()
        self._checked_s = -math.inf
        self._unanswered_checks = 0
        self._same_since: _Reading | None = None
        self._same_excess_k = (0.0, 0.0)

    def driven(self, duty_percent: float, now_s: float) -> None:
        """From ``now_s`` on the heater is at ``duty_percent``."""
        self._excess.driven(duty_percent, now_s)
        self._duty_percent = duty_percent

    def forget(self) -> None:
        """Judge by what comes alone: somebody has looked after the sensor."""
        self._window.clear()
        self._unanswered_checks = 0
        self._same_since = None

    def problem(self, celsius: float, now_s: float) -> str | None:
        """What is wrong with the sensor, by this reading and those before; None: nothing."""
        reading = _Reading(now_s, celsius, self._excess.kelvin(now_s), self._duty_percent)
        return self._frozen(reading) or self._contradiction(reading)

    def _frozen(self, reading: _Reading) -> str | None:
        since = self._same_since
        if since is None or reading.celsius != since.celsius:
            self._same_since = reading
            self._same_excess_k = (reading.excess_k, reading.excess_k)
            return None
        low, high = self._same_excess_k
        low, high = min(low, reading.excess_k), max(high, reading.excess_k)
        self._same_excess_k = (low, high)
        if reading.at_s - since.at_s < FROZEN_S or high - low < FROZEN_K:
            return None
        return (
            f"its sensor has read {reading.celsius:g} °C for {reading.at_s - since.at_s:.0f} s, "
            f"to the bit, while the duty cycle changed"
        )

    def _contradiction(self, reading: _Reading) -> str | None:
        window = self._window
        if window and reading.at_s - window[-1].at_s < SPACING_S:
            return None
        window.append(reading)
        while reading.at_s - window[0].at_s > WINDOW_S:
            window.popleft()
        powers = [each.duty_percent for each in window]
        if not any(powers):
            return None
        rest = [each.celsius - each.excess_k for each in window]
        change = rest[-1] - rest[0]
        fall_k = _FALL_K + _FALL_K_PER_PERCENT * max(powers)
        rise_k = _RISE_K + _RISE_K_PER_PERCENT * max(powers)
        if not -fall_k <= change <= rise_k:
            return (
                f"its sensor has gone from {window[0].celsius:g} to {reading.celsius:g} °C within "
                f"{reading.at_s - window[0].at_s:.0f} s, which the heater at "
                f"{max(powers):g} % cannot explain"
            )
        if max(powers) < CONTRADICTED_PERCENT or reading.at_s - window[0].at_s < _SPAN_S:
            return None
        if reading.at_s - self._checked_s < CHECK_EVERY_S:
            return None
        self._checked_s = reading.at_s
        return self._unanswered(max(powers))

    def _unanswered(self, duty_percent: float) -> str | None:
        """How the board's course bends is compared with how it should.

        A line is taken off both: that is the liquid, which goes its slow way.
        """
        times = [each.at_s for each in self._window]
        expected = _bend(times, [each.excess_k for each in self._window])
        seen = _bend(times, [each.celsius for each in self._window])
        power = _dot(expected, expected)
        visible_k = math.sqrt(power / len(times))
        if visible_k < _VISIBLE_K:
            return None
        answer = _dot(expected, seen) / power
        left = [one - answer * other for one, other in zip(seen, expected, strict=True)]
        unclear_k = math.sqrt(_dot(left, left) / len(times))
        if answer >= _LEAST_ANSWER or unclear_k > _UNCLEAR_K:
            self._unanswered_checks = 0
            return None
        self._unanswered_checks += 1
        if self._unanswered_checks < _CHECKS:
            return None
        return (
            f"its sensor does not feel the heater: at {duty_percent:g} % it reads "
            f"{self._window[0].celsius:g} to {self._window[-1].celsius:g} °C in a way that shows "
            f"{max(answer, 0):.0%} of the warming and cooling to be expected"
        )


def _bend(times: Sequence[float], values: Sequence[float]) -> list[float]:
    """``values`` less the straight line that fits them best."""
    mean_time, mean = sum(times) / len(times), sum(values) / len(values)
    offsets = [time - mean_time for time in times]
    slope = _dot(offsets, values) / _dot(offsets, offsets)
    return [value - mean - slope * offset for value, offset in zip(values, offsets, strict=True)]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
