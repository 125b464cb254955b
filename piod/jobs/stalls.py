"""How often a stirrer that does not turn is kicked, before somebody is asked to look."""

from __future__ import annotations

from piod.jobs.job import JobLog

MOST_KICKS = 3
"""In a row; then the stall is reported and kicking ends."""


class Stalls:
    """The stalls that were seen in a row."""

    def __init__(self, log: JobLog) -> None:
        self._log = log
        self._seen = 0

    @property
    def given_up(self) -> bool:
        """Kicks did not help."""
        return self._seen > MOST_KICKS

    @property
    def wants_kick(self) -> bool:
        """A stall was seen, and kicks may still help."""
        return 0 < self._seen <= MOST_KICKS

    def seen(self, duty_percent: float) -> bool:
        """No turn was seen; whether to kick. ``duty_percent`` is what it goes on at without."""
        if self._seen <= MOST_KICKS:
            self._seen += 1
            if self._seen <= MOST_KICKS:
                self._log.warning(
                    "the stirrer seems to have stalled; kick %d of %d", self._seen, MOST_KICKS
                )
            else:
                self._log.error(
                    "no turn of the stirrer was seen after %d kicks: check the stir bar and the "
                    "hall sensor. Going on at %.1f %% without kicks.",
                    MOST_KICKS,
                    duty_percent,
                )
        return self._seen <= MOST_KICKS

    def over(self) -> bool:
        """It turns; whether that is news, since kicking was given up."""
        was_given_up, self._seen = self.given_up, 0
        if was_given_up:
            self._log.info("the stirrer turns again")
        return was_given_up

    def forget(self) -> bool:
        """Begin anew; whether kicking was given up before."""
        was_given_up, self._seen = self.given_up, 0
        return was_given_up
