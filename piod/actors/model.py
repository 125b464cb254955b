"""Which reactor model this unit is, and who said so.

``[piod] model_name`` and ``model_version`` (or ``serve --model``) fix it. Otherwise
it is the model that a leader last named, which the ledger keeps; a simulated
unit has a default beneath that. While none is known, the strictest limits of
all models hold.
"""

from __future__ import annotations

import json

from piod.errors import Conflict
from piod.hw.models import Limits, Models
from piod.storage.ledger import Ledger

_KEY = "model"

ModelKey = tuple[str, str]
"""Name and version."""


class UnitModel:
    """The model of this unit. ``fixed``: by configuration; ``default``: if nobody says."""

    def __init__(
        self, models: Models, ledger: Ledger, fixed: ModelKey | None, named: ModelKey | None
    ) -> None:
        self._models = models
        self._ledger = ledger
        self._fixed = fixed
        self._named = named
        self._kept = named
        self._considered: ModelKey | None = None
        if fixed is not None:
            models.get(*fixed)

    @property
    def key(self) -> ModelKey | None:
        """Name and version, or None while it is not known."""
        return self._fixed or self._considered or self._named

    @property
    def limits(self) -> Limits:
        """What the vial and heater may be brought to."""
        if self.key is None:
            return self._models.strictest_limits()
        return self._models.get(*self.key).limits

    def check(self, named: ModelKey | None, *, busy: bool) -> None:
        """Refuse the model that a leader names, if it contradicts; changes nothing.

        ``busy``: a job runs. Raises BadRequest for an unknown model, Conflict for
        another one than is fixed, or while a job runs.
        """
        if named is None or named == self.key:
            return
        self._models.get(*named)
        if self._fixed is not None:
            raise Conflict(
                f"this unit is configured as a {_title(self._fixed)}, not as a {_title(named)}",
                remediation="Correct the model in the inventory of the leader, or [piod] "
                "model_name and model_version of this unit.",
            )
        if busy and self.key is not None:
            raise Conflict(
                f"this unit runs jobs as a {_title(self.key)}, "
                f"so it cannot become a {_title(named)} now",
                remediation="Stop all jobs of this unit first.",
            )

    def take(self, named: ModelKey | None) -> None:
        """Be the model that was checked, at once; :meth:`keep` makes it last."""
        self._considered = None
        if named is not None and self._fixed is None:
            self._named = named

    def consider(self, named: ModelKey | None) -> None:
        """Be the model that was checked until :meth:`take` or the next of these; None: no more."""
        if self._fixed is None:
            self._considered = named

    async def keep(self) -> None:
        """Keep the named model in the ledger, if it is not there already; durable."""
        if self._named is not None and self._named != self._kept:
            named = self._named
            await self._ledger.put_meta(_KEY, json.dumps(named))
            self._kept = named


async def remembered_model(models: Models, ledger: Ledger) -> ModelKey | None:
    """The model that a leader named last, if it is still known."""
    kept = await ledger.get_meta(_KEY)
    if kept is None:
        return None
    name, version = json.loads(kept)
    known = {model.key for model in models}
    return (name, version) if (name, version) in known else None


def _title(key: ModelKey) -> str:
    return f"{key[0]} {key[1]}"
