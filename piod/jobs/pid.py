"""The PID controller that the jobs share."""

from __future__ import annotations

from dataclasses import dataclass


def clamp(low: float | None, value: float, high: float | None) -> float:
    """``value`` pulled into [low, high]; None: no limit on that side."""
    if high is not None:
        value = min(value, high)
    return value if low is None else max(value, low)


@dataclass
class Pid:
    """Proportional, integral and derivative control in the position form.

    u = Kp·e + Ki·Σe·dt − Kd·dx/dt, limited to [low, high]. The derivative is of
    the measurement, so that a new setpoint gives no kick. Anti-windup: the
    *integral term* is kept within the limits, in units of the output (limiting the
    bare sum, as upstream does, would make its reach depend on Ki; handbook §2.0).
    """

    kp: float
    ki: float
    kd: float
    setpoint: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        self._integral = 0.0
        self._previous: float | None = None
        self.terms = (0.0, 0.0, 0.0)
        """Proportional, integral and derivative part of the last output."""

    def reset(self, setpoint: float) -> None:
        """Start anew for ``setpoint``."""
        self.setpoint = setpoint
        self._integral = 0.0
        self._previous = None

    def update(self, measured: float, dt: float = 1.0) -> float:
        """The output for ``measured``; ``dt`` since the last update, in any one unit."""
        error = self.setpoint - measured
        self._integral = clamp(self.low, self._integral + self.ki * error * dt, self.high)
        slope = 0.0 if self._previous is None else (measured - self._previous) / dt
        self._previous = measured
        self.terms = (self.kp * error, self._integral, -self.kd * slope)
        return clamp(self.low, sum(self.terms), self.high)
