"""The heater, the board that carries it, the liquid above it, and the sensor on the board.

Numbers: handbook, simulator recipe 6.2. Three independent first-order states, so
that a step of any length is exact while the heater's duty stays the same::

    dL/dt  = (ambient + 1.4864·u − L) / 1500     the liquid, °C
    dx1/dt = (0.0852·u − x1) / 22.81             fast excess of the board, K
    dx2/dt = (0.1081·u − x2) / 103.1             slow excess of the board, K
    board  = L + 0.237 + x1 + x2

u is the duty in percent. As in the recipe, neither the volume nor the temperature of
what is pumped in counts. The sensor's noise is drawn from the seed, by time.
"""

from __future__ import annotations

import math
import random

from .fields import Fields

TYPE_CHECKING = False  # typing itself is not needed at run time
if TYPE_CHECKING:
    from collections.abc import Callable

AMBIENT_CELSIUS = 24.0
LIQUID_K_PER_PERCENT = 1.4864
LIQUID_TAU_S = 1500.0
FAST_K_PER_PERCENT = 0.0852
FAST_TAU_S = 22.81
SLOW_K_PER_PERCENT = 0.1081
SLOW_TAU_S = 103.1
BOARD_EXCESS_K = 0.237

SENSOR_NOISE_K = 0.03
NOISE_RING = 4093
NOISE_HZ = 1000.0
"""Readings within one millisecond have the same noise."""

MIN_CELSIUS, MAX_CELSIUS = -50.0, 300.0
MAX_EXCESS_K = 100.0


class Heat:
    """Temperatures of one unit, at first all those of the room."""

    PATCHABLE = ("ambient_celsius", "liquid_celsius")
    STATE = ("ambient_celsius", "liquid_celsius", "fast_k", "slow_k")

    def __init__(self) -> None:
        self.ambient_celsius = self.liquid_celsius = AMBIENT_CELSIUS
        self.fast_k = self.slow_k = 0.0
        self.duty_percent = 0.0
        """What the output asks for."""
        self.stuck_percent: float | None = None
        """What a broken heater gets instead; None: it is sound."""

    @property
    def power_percent(self) -> float:
        """The duty that really heats."""
        return self.duty_percent if self.stuck_percent is None else self.stuck_percent

    @property
    def board_celsius(self) -> float:
        return self.liquid_celsius + BOARD_EXCESS_K + self.fast_k + self.slow_k

    @property
    def unsettled_k(self) -> float:
        """How far the liquid is from where it is going."""
        return abs(self._liquid_goal() - self.liquid_celsius)

    def liquid_in(self, seconds: float) -> float:
        """The temperature of the liquid, °C, ``seconds`` from now."""
        goal = self._liquid_goal()
        return goal + (self.liquid_celsius - goal) * math.exp(-seconds / LIQUID_TAU_S)

    def advance(self, seconds: float) -> None:
        self.liquid_celsius = self.liquid_in(seconds)
        fast, slow = (k * self.power_percent for k in (FAST_K_PER_PERCENT, SLOW_K_PER_PERCENT))
        self.fast_k = fast + (self.fast_k - fast) * math.exp(-seconds / FAST_TAU_S)
        self.slow_k = slow + (self.slow_k - slow) * math.exp(-seconds / SLOW_TAU_S)

    def truth(self) -> dict[str, object]:
        return {
            "ambient_celsius": self.ambient_celsius,
            "liquid_celsius": round(self.liquid_celsius, 4),
            "pcb_celsius": round(self.board_celsius, 4),
            "heater_percent": self.power_percent,
        }

    def patch(self, fields: Fields) -> Callable[[], None]:
        """What to call to make the change that ``fields`` asks for; BadRequest."""
        ambient, liquid = self.ambient_celsius, self.liquid_celsius
        if "ambient_celsius" in fields:
            ambient = fields.number("ambient_celsius", -20, 60)
        if "liquid_celsius" in fields:
            liquid = fields.number("liquid_celsius", -20, 100)

        def apply() -> None:
            self.ambient_celsius, self.liquid_celsius = ambient, liquid

        return apply

    def to_json(self) -> dict[str, object]:
        """Everything that time has made; the duty is the plant's to keep."""
        return {name: getattr(self, name) for name in self.STATE}

    @classmethod
    def from_json(cls, state: object, duty_percent: float) -> Heat:
        """As it was left, the heater at ``duty_percent``; BadRequest."""
        fields = Fields(state, "heat", cls.STATE)
        heat = cls()
        heat.ambient_celsius = fields.number("ambient_celsius", MIN_CELSIUS, MAX_CELSIUS)
        heat.liquid_celsius = fields.number("liquid_celsius", MIN_CELSIUS, MAX_CELSIUS)
        heat.fast_k = fields.number("fast_k", 0, MAX_EXCESS_K)
        heat.slow_k = fields.number("slow_k", 0, MAX_EXCESS_K)
        heat.duty_percent = duty_percent
        return heat

    def _liquid_goal(self) -> float:
        return self.ambient_celsius + LIQUID_K_PER_PERCENT * self.power_percent


class TemperatureSensor:
    """What the sensor on the board feels, with its noise and its faults; not quantised."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._noise_k: list[float] = []
        self._stuck_celsius: float | None = None
        self._offset_k = 0.0
        self._drift_k_per_s = 0.0
        self._drifts_from_s = 0.0

    def celsius(self, board_celsius: float, now_s: float) -> float:
        """What a reading at ``now_s`` shows of a board at that temperature."""
        if self._stuck_celsius is not None:
            return self._stuck_celsius
        if not self._noise_k:  # only now: safe-outputs is in a hurry
            drawn = random.Random(f"{self._seed}:temperature_sensor")
            self._noise_k = [drawn.gauss(0.0, SENSOR_NOISE_K) for _ in range(NOISE_RING)]
        noise_k = self._noise_k[math.floor(now_s * NOISE_HZ) % NOISE_RING]
        drift_k = self._drift_k_per_s * (now_s - self._drifts_from_s)
        return board_celsius + noise_k + self._offset_k + drift_k

    def stick(self, stuck: bool, celsius: float | None, board_celsius: float, now_s: float) -> None:
        """It shows ``celsius``, or what it shows now, until it is let go."""
        if not stuck:
            self._stuck_celsius = None
        elif celsius is not None:
            self._stuck_celsius = celsius
        else:
            self._stuck_celsius = self.celsius(board_celsius, now_s)

    def lie(self, offset_k: float, drift_k_per_s: float, now_s: float) -> None:
        """It shows so much too much; the drift begins when it was none before."""
        if self._drift_k_per_s == 0:
            self._drifts_from_s = now_s
        self._offset_k, self._drift_k_per_s = offset_k, drift_k_per_s

    def call_now(self, before_s: float, now_s: float) -> None:
        """The present, ``before_s`` until now, is called ``now_s``."""
        self._drifts_from_s += now_s - before_s
