"""How often something that crashed is made anew. The policy belongs to what crashes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RestartPolicy:
    """How often a child may be made anew. Times in seconds of the supervisor's clock.

    ``max_restarts`` None: for ever, at the capped pace.
    """

    max_restarts: int | None = 3
    within_s: float = 600.0
    backoff_s: float = 1.0
    max_backoff_s: float = 60.0

    def pause_before(self, restart: int) -> float:
        """The wait before the ``restart``-th restart in a row (from 1)."""
        return float(min(self.backoff_s * 2.0 ** (restart - 1), self.max_backoff_s))


NEVER = RestartPolicy(max_restarts=0)
FOR_EVER = RestartPolicy(max_restarts=None, backoff_s=0.5, max_backoff_s=10.0)
