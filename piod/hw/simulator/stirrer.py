"""The stirring motor, the bar that its magnets drag along, and the hall sensor.

Numbers: handbook, simulator recipe 6.3. The bar is in one of four modes:

- ``stalled``: the field does not drag it; it coasts to rest. Left when the duty
  reaches RESTART_PERCENT.
- ``starting``: dragged, not yet at MIN_TURNING_RPM; falls back to ``stalled``
  when the duty drops below RESTART_PERCENT.
- ``turning``: follows the motor. It stalls below MIN_TURNING_RPM or
  MIN_TURNING_PERCENT.
- ``lost``: decoupled; at rest until the motor has stood for RECOUPLING_S.

The recipe lets the bar go "if rpm_ss rises > 800 RPM at once". Here that holds
for a *turning* bar, which cannot follow a field that leaps ahead of it. A bar at
rest or coasting is caught by any field: a kick from 0 to 100 % starts it, as it
does in the real reactor.

Between two events all states have closed forms, so a step may have any length.
What is random is a function of the seed and of time or of the turn's number,
never of how often somebody looked.
"""

from __future__ import annotations

import math
import random

from .fields import Fields

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RPM_PER_PERCENT = 20.0
SPREAD = 0.05
"""Units differ by up to this fraction."""
IDLE_PERCENT = 5.0
"""The duty that only overcomes friction."""
SPEED_LOSS_PER_ML = 0.01
FULL_SPEED_ML = 15.0

DRAGGED_TAU_S = 0.8
COASTING_TAU_S = 0.3
MIN_TURNING_RPM = 60.0
MIN_TURNING_PERCENT = 8.0
RESTART_PERCENT = 18.0
MAX_LEAP_RPM = 800.0
RECOUPLING_S = 0.5
MEAN_S_BETWEEN_SLIPS = 60 / 1e-4

NOISE_RPM = 2.0
NOISE_CELL_S = 1.0
"""The speed's deviation stays the same for this long."""
JITTER_TURNS = 0.01
MAGNET_TURNS = 0.1
"""The part of a turn during which the magnet holds the hall sensor low."""
RING = 1021
"""Deviations drawn in advance; a prime, so that no period of a schedule meets it."""

MODES = ("stalled", "starting", "turning", "lost")


class Stirrer:
    """Motor, bar and hall sensor of one unit; ``seed`` draws the unit and its noise."""

    PATCHABLE = ("rpm_per_percent", "bar_lost")
    STATE = ("rpm_per_percent", "rpm", "turns", "mode", "idle_s", "slips", "slip_in_s")

    def __init__(self, seed: int) -> None:
        self._seed = seed
        drawn = random.Random(f"{seed}:stirrer")
        self.rpm_per_percent = RPM_PER_PERCENT * drawn.uniform(1 - SPREAD, 1 + SPREAD)
        self._noise_rpm = [_bounded(drawn, NOISE_RPM) for _ in range(RING)]
        self._jitter_turns = [_bounded(drawn, JITTER_TURNS) for _ in range(RING)]
        self.duty_percent = 0.0
        self.jammed = False
        self.rpm = 0.0
        self.turns = 0.0
        self.mode = "stalled"
        self._idle_s = 0.0
        self._slips = 0
        self._slip_in_s = self._next_slip_s()

    def steady_rpm(self, duty_percent: float, volume_ml: float) -> float:
        """The speed of a bar that follows the motor, RPM."""
        load = 1 - SPEED_LOSS_PER_ML * max(0.0, volume_ml - FULL_SPEED_ML)
        return max(0.0, self.rpm_per_percent * (duty_percent - IDLE_PERCENT) * load)

    def drive(self, duty_percent: float, volume_ml: float) -> None:
        """The motor's duty changes now."""
        leap = self.steady_rpm(duty_percent, volume_ml) - self.steady_rpm(
            self.duty_percent, volume_ml
        )
        self.duty_percent = duty_percent
        if self.mode == "turning" and leap > MAX_LEAP_RPM:
            self._lose_bar()
        if duty_percent > 0:
            self._idle_s = 0.0
        self._settle()

    def jam(self, jammed: bool) -> None:
        """The bar is held, or let go, now."""
        self.jammed = jammed
        self._settle()

    def hall_level(self) -> bool:
        """The level of the hall line now; low while the magnet passes."""
        return self.turns % 1.0 >= MAGNET_TURNS

    def advance(
        self, now: float, until: float, volume_ml: float, recordings: Sequence[list[float]]
    ) -> None:
        """Go on from ``now`` to ``until``; append falling edges to each recording."""
        while now < until:
            dragged = self.mode in ("starting", "turning")
            target_rpm = self.steady_rpm(self.duty_percent, volume_ml) if dragged else 0.0
            change_in_s, next_mode = self._next_change(target_rpm)
            changes = change_in_s <= until - now
            step_s = change_in_s if changes else until - now
            if recordings:
                self._turn_recorded(now, step_s, target_rpm, recordings)
            else:
                self._turn(step_s, target_rpm, 0.0)
            if self.mode == "turning":
                self._slip_in_s -= step_s
            if self.duty_percent == 0:
                self._idle_s = min(RECOUPLING_S, self._idle_s + step_s)
            if changes:
                self._change(next_mode)
            now = now + step_s if changes else until

    def steady_for_s(self, volume_ml: float, rpm: float) -> float:
        """How long it will neither change its mode nor pass the speed ``rpm`` by itself, s."""
        dragged = self.mode in ("starting", "turning")
        target_rpm = self.steady_rpm(self.duty_percent, volume_ml) if dragged else 0.0
        change_in_s, _ = self._next_change(target_rpm)
        if (self.rpm - rpm) * (target_rpm - rpm) < 0:
            passing_in_s = self._tau_s() * math.log((self.rpm - target_rpm) / (rpm - target_rpm))
            return min(change_in_s, passing_in_s)
        return change_in_s

    # -- modes -----------------------------------------------------------------

    def _settle(self) -> None:
        """Take the mode that the duty commands."""
        if self.mode == "lost":
            return
        least_percent = MIN_TURNING_PERCENT if self.mode == "turning" else RESTART_PERCENT
        if self.jammed or self.duty_percent < least_percent:
            self.mode = "stalled"
        elif self.mode == "stalled":
            self.mode = "starting"

    def _next_change(self, target_rpm: float) -> tuple[float, str]:
        """When the mode changes if nothing else happens (inf: never), and to which."""
        if self.mode == "starting" and target_rpm > MIN_TURNING_RPM:
            if self.rpm >= MIN_TURNING_RPM:
                return 0.0, "turning"
            return _crossing_s(self.rpm, target_rpm), "turning"
        if self.mode == "turning":
            if target_rpm < MIN_TURNING_RPM:
                stall_in_s = _crossing_s(max(self.rpm, MIN_TURNING_RPM), target_rpm)
                if stall_in_s < self._slip_in_s:
                    return stall_in_s, "stalled"
            return max(0.0, self._slip_in_s), "lost"
        if self.mode == "lost" and self.duty_percent == 0:
            return RECOUPLING_S - self._idle_s, "stalled"
        return math.inf, self.mode

    def _change(self, mode: str) -> None:
        """The mode changes by itself now."""
        if mode == "lost":
            self._slips += 1
            self._slip_in_s = self._next_slip_s()
            self._lose_bar()
        else:
            self.mode = mode

    def _lose_bar(self) -> None:
        self.mode = "lost"
        self._idle_s = 0.0

    def _next_slip_s(self) -> float:
        """Turning time until the bar decouples by chance, s."""
        drawn = random.Random(f"{self._seed}:slip:{self._slips}")
        return drawn.expovariate(1 / MEAN_S_BETWEEN_SLIPS)

    # -- turning ---------------------------------------------------------------

    def _tau_s(self) -> float:
        return DRAGGED_TAU_S if self.mode in ("starting", "turning") else COASTING_TAU_S

    def _turned(self, seconds: float, target_rpm: float, noise_rpm: float) -> float:
        """Turns within ``seconds`` from now: the integral of the speed."""
        tau_s = self._tau_s()
        catching_up = (self.rpm - target_rpm) * tau_s * -math.expm1(-seconds / tau_s)
        return ((target_rpm + noise_rpm) * seconds + catching_up) / 60

    def _turn(self, seconds: float, target_rpm: float, noise_rpm: float) -> None:
        self.turns += self._turned(seconds, target_rpm, noise_rpm)
        lag_rpm = self.rpm - target_rpm
        self.rpm = target_rpm + lag_rpm * math.exp(-seconds / self._tau_s())

    def _turn_recorded(
        self, now: float, step_s: float, target_rpm: float, recordings: Sequence[list[float]]
    ) -> None:
        """Turn for ``step_s`` with the speed's noise, cell by cell, and note the edges.

        The noise is left out where nobody records: its mean is 0.
        """
        end = now + step_s
        cell = math.floor(now / NOISE_CELL_S)
        while now < end:
            cell_end = min((cell + 1) * NOISE_CELL_S, end)
            noise_rpm = self._noise_rpm[cell % RING] if self.mode == "turning" else 0.0
            for edge_s in self._edges(cell_end - now, target_rpm, noise_rpm):
                for recording in recordings:
                    recording.append(now + edge_s)
            self._turn(cell_end - now, target_rpm, noise_rpm)
            now, cell = cell_end, cell + 1

    def _edges(self, seconds: float, target_rpm: float, noise_rpm: float) -> Sequence[float]:
        """When, within ``seconds`` from now, the magnet passes: once a turn.

        Edge n comes when n + jitter(n) turns are done, so windows that touch
        share no edge and miss none.
        """
        edges: list[float] = []
        turns = self._turned(seconds, target_rpm, noise_rpm)
        number = math.floor(self.turns)
        after_s, tau_s = 0.0, self._tau_s()
        lag_rpm = self.rpm - target_rpm
        while True:
            due = number + self._jitter_turns[number % RING] - self.turns
            number += 1
            if due <= 0:
                continue
            if due > turns:
                return edges
            after_s = self._reach_s(due, after_s, seconds, target_rpm + noise_rpm, lag_rpm, tau_s)
            edges.append(after_s)

    def _reach_s(
        self, turns: float, low_s: float, high_s: float, rpm: float, lag_rpm: float, tau_s: float
    ) -> float:
        """When ``turns`` are done: Newton's method within a bracket that shrinks."""
        seconds = low_s
        for _ in range(60):
            decay = math.exp(-seconds / tau_s)
            excess = (rpm * seconds + lag_rpm * tau_s * (1 - decay)) / 60 - turns
            if excess > 0:
                high_s = seconds
            else:
                low_s = seconds
            speed = (rpm + lag_rpm * decay) / 60
            step = excess / speed if speed > 0 else math.inf
            following = seconds - step
            if not low_s <= following <= high_s:
                following = (low_s + high_s) / 2
            if abs(following - seconds) < 1e-9:
                return following
            seconds = following
        return seconds

    # -- what others see and put in ----------------------------------------------

    def truth(self) -> dict[str, object]:
        return {
            "rpm_per_percent": round(self.rpm_per_percent, 4),
            "bar_lost": self.mode == "lost",
            "stalled": self.mode == "stalled" and self.duty_percent > 0,
            "jammed": self.jammed,
        }

    def patch(self, value: object) -> Callable[[], None]:
        """What to call to make the change that ``value`` asks for; BadRequest."""
        fields = Fields(value, "stirrer", self.PATCHABLE)
        rpm_per_percent = self.rpm_per_percent
        if "rpm_per_percent" in fields:
            rpm_per_percent = fields.number("rpm_per_percent", 10, 40)
        bar_lost = fields.flag("bar_lost") if "bar_lost" in fields else None

        def apply() -> None:
            self.rpm_per_percent = rpm_per_percent
            if bar_lost:
                self._lose_bar()
            elif bar_lost is False and self.mode == "lost":
                self.mode = "stalled"
            self._settle()

        return apply

    def to_json(self) -> dict[str, object]:
        """Everything that time has made; the duty is the plant's to keep."""
        return {
            "rpm_per_percent": self.rpm_per_percent,
            "rpm": self.rpm,
            "turns": self.turns,
            "mode": self.mode,
            "idle_s": self._idle_s,
            "slips": self._slips,
            "slip_in_s": self._slip_in_s,
        }

    @classmethod
    def from_json(cls, state: object, seed: int, duty_percent: float) -> Stirrer:
        """The stirrer as it was left, its motor at ``duty_percent``; BadRequest."""
        fields = Fields(state, "stirrer", cls.STATE)
        stirrer = cls(seed)
        stirrer.rpm_per_percent = fields.number("rpm_per_percent", 10, 40)
        stirrer.rpm = fields.number("rpm", 0, 1e5)
        stirrer.turns = fields.number("turns", 0, 1e12)
        stirrer.mode = fields.choice("mode", MODES)
        stirrer._idle_s = fields.number("idle_s", 0, RECOUPLING_S)
        stirrer._slips = fields.integer("slips", 0, 10**9)
        stirrer._slip_in_s = fields.number("slip_in_s", 0, 1e12)
        stirrer.duty_percent = duty_percent
        stirrer._settle()
        return stirrer


def _bounded(drawn: random.Random, sigma: float) -> float:
    """A normal deviate, at most three sigma from 0, so that edges keep their order."""
    return max(-3 * sigma, min(3 * sigma, drawn.gauss(0.0, sigma)))


def _crossing_s(rpm: float, target_rpm: float) -> float:
    """When a dragged bar on its way from ``rpm`` to ``target_rpm`` passes MIN_TURNING_RPM."""
    return DRAGGED_TAU_S * math.log((rpm - target_rpm) / (MIN_TURNING_RPM - target_rpm))
