"""The one vial of the unit, and what each experiment knows of it: arithmetic without I/O.

Each experiment has volumes of its own, but there is one vial: where another experiment has
changed it since, the range of what may be in it reaches over what both say. All doses
under way count together, whoever pumps.

Of doses that run at once nobody knows which drop came first, so the range takes the worst
order: for the most that can be in the vial, waste was pumped before what flowed in meanwhile;
for the least, after it. The formulas are those of handbook jobs-and-hardware §4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from piod.errors import BadRequest, OverflowRefused, VolumeInDoubt
from piod.jobs.liquids import Amount, PumpRole, Volumes

DECIMALS = 10
"""Volumes and fractions are rounded to this many (handbook §4.1)."""

NOTHING = Amount(0.0, 0.0, 0.0)

TubeSource = Literal["told", "vial"]
"""Who says where the efflux tube ends: a person of this experiment, or of one before it."""


def check_amount(amount: Amount) -> None:
    """BadRequest for what is no range of volumes from 0 up."""
    least, expected, most = amount.least_ml, amount.expected_ml, amount.most_ml
    if not (math.isfinite(most) and 0 <= least <= expected <= most):
        raise BadRequest(
            f"a dose must be a volume above 0 mL, got {expected:g} mL ({least:g} to {most:g})",
            remediation="Correct the volume, or the calibration of the pump.",
        )


@dataclass
class UnderWay:
    """A dose that is under way."""

    experiment: str
    role: PumpRole
    planned: Amount
    highest_at_start_ml: float
    """What could be in the vial when it was admitted, without the doses under way then."""
    inflow_since_ml: float = 0.0
    """The most that other doses have added since."""
    drained_ml: float = 0.0
    """The most that waste may have taken of what this one added so far."""


class Vial:
    """``volumes``: by experiment; ``turns``: highest where the vial was changed last.

    ``tubes``: by experiment, who says where the efflux tube ends, where that is not the
    configuration: a person, or whoever told of the vial before. ``initial``: what an
    experiment begins with (may raise ConfigurationError); ``capacity_ml``: of the vial.
    ``unconfirmed``: why nothing is known of what is in it; None: something is.
    """

    def __init__(
        self,
        volumes: Mapping[str, Volumes],
        turns: Mapping[str, int],
        *,
        tubes: Mapping[str, TubeSource] | None = None,
        initial: Callable[[], Volumes],
        capacity_ml: Callable[[], float],
        unconfirmed: str | None = None,
    ) -> None:
        self._initial = initial
        self._capacity_ml = capacity_ml
        self._volumes = dict(volumes)
        self._turns = {experiment: turn for experiment, turn in turns.items() if turn}
        self._tubes = dict(tubes or {})
        self.unconfirmed = unconfirmed
        self.under_way: dict[str, UnderWay] = {}
        self.flowing: dict[str, str] = {}
        """By dose: why nobody knows what its pump still moves. Nothing lifts that but its end."""

    def knows(self, experiment: str) -> bool:
        """Whether the experiment has volumes of its own."""
        return experiment in self._volumes

    def own(self, experiment: str) -> Volumes:
        """What the experiment itself says: what was kept, else what it begins with.

        The efflux tube is that of the vial, if somebody has told that of another experiment,
        and nobody that of this one.
        """
        own = self._volumes.get(experiment) or self._initial()
        last = self._last
        if last is None or self.tube_source(experiment) != "vial":
            return own
        return replace(own, efflux_tube_volume_ml=self._volumes[last].efflux_tube_volume_ml)

    def kept(self, experiment: str) -> Volumes | None:
        """What was kept of it; None: nothing."""
        return self._volumes.get(experiment)

    def tube_source(self, experiment: str) -> TubeSource | None:
        """Who says where its efflux tube ends; None: the configuration."""
        mine, last = self._tubes.get(experiment), self._last
        if mine == "told" or last in (None, experiment) or last not in self._tubes:
            return mine
        return "vial"

    def turn(self, experiment: str) -> int:
        """Its turn; 0: it has never changed the vial."""
        return self._turns.get(experiment, 0)

    def look(self, experiment: str) -> Volumes:
        """What may be in the vial as the experiment sees it, doubts included."""
        now = self._seen(experiment)
        if not self.flowing:
            return now
        highest = max(now.highest_ml, self._capacity_ml())
        why = next(iter(self.flowing.values()))
        return replace(now, highest_ml=highest, doubt=now.doubt or why)

    def _seen(self, experiment: str) -> Volumes:
        """The same, without what flows still."""
        own = self.own(experiment)
        if self.unconfirmed is not None:
            highest = max(own.highest_ml, self._capacity_ml())
            return replace(own, lowest_ml=0.0, highest_ml=highest, doubt=self.unconfirmed)
        last = self._last
        if last is None or last == experiment:
            return own
        vial = self._volumes[last]
        return replace(
            own,
            lowest_ml=min(own.lowest_ml, vial.lowest_ml),
            highest_ml=max(own.highest_ml, vial.highest_ml),
            doubt=vial.doubt,
        )

    @property
    def last_doubt(self) -> str | None:
        """Why nothing may be added, as whoever changed the vial last knows."""
        last = self._last
        known = None if last is None else self._volumes[last].doubt
        return self.unconfirmed or known or next(iter(self.flowing.values()), None)

    @property
    def _last(self) -> str | None:
        """The experiment that changed the vial last."""
        return max(self._turns, key=self._turns.__getitem__, default=None)

    def inflow_under_way_ml(self) -> float:
        """The most that the doses under way can add."""
        return sum(d.planned.most_ml for d in self.under_way.values() if d.role != "waste")

    # -- doses --------------------------------------------------------------------

    def room_ml(self, experiment: str, max_fill_ml: float) -> float:
        """How much more may flow in now: below that nothing is refused."""
        now = self.look(experiment)
        if now.doubt is not None:
            return 0.0
        return max(0.0, max_fill_ml - now.highest_ml - self.inflow_under_way_ml())

    def check(self, role: PumpRole, experiment: str, planned: Amount, max_fill_ml: float) -> None:
        """Refuse a dose that must not be: BadRequest, VolumeInDoubt, OverflowRefused."""
        check_amount(planned)
        if not planned.expected_ml > 0:
            raise BadRequest(f"a dose must be above 0 mL, got {planned.expected_ml:g} mL")
        now = self.look(experiment)
        if role == "waste":
            return
        endpoint = f"PATCH /unit_api/bioreactor/experiments/{experiment}"
        if now.doubt is not None:
            raise VolumeInDoubt(
                f"nothing may be added to the vial: {now.doubt}",
                cause=f"there may be {now.lowest_ml:.2f} to {now.highest_ml:.2f} mL in it",
                remediation=f"Look at the vial and set current_volume_ml with {endpoint}, or "
                f"run remove_waste until it is down to the efflux tube "
                f"({now.efflux_tube_volume_ml:g} mL).",
            )
        under_way_ml = self.inflow_under_way_ml()
        reached_ml = now.highest_ml + under_way_ml + planned.most_ml
        if reached_ml >= max_fill_ml:
            others = f", {under_way_ml:.2f} mL may be on its way" if under_way_ml else ""
            raise OverflowRefused(
                f"adding {planned.expected_ml:.2f} mL could bring the vial to {reached_ml:.2f} mL; "
                f"it must stay below {max_fill_ml:g} mL",
                cause=f"there may be {now.highest_ml:.2f} mL in it{others}, and this dose may "
                f"add {planned.most_ml:.2f} mL",
                remediation="Run remove_waste first, dose less, or correct current_volume_ml "
                f"with {endpoint}.",
            )

    def begin(self, dose_id: str, experiment: str, role: PumpRole, planned: Amount) -> None:
        """A dose has been admitted."""
        highest_ml = self.look(experiment).highest_ml
        # from here on the configuration may change, or break
        self._keep(experiment, self.own(experiment))
        self.under_way[dose_id] = UnderWay(experiment, role, planned, highest_ml)

    def end(self, dose_id: str, moved: Amount) -> Volumes:
        """A dose under way is over and has moved so much; the volumes of its experiment."""
        dose = self.under_way.pop(dose_id)
        before = self._seen(dose.experiment)
        if moved == NOTHING:
            return before
        if dose.role == "waste" and self.flowing:
            moved = replace(moved, least_ml=0.0)  # what flows still may have followed it
        changed = self._less if dose.role == "waste" else self._more
        return self._put(dose.experiment, changed(before, moved, dose))

    def _more(self, before: Volumes, moved: Amount, dose: UnderWay) -> Volumes:
        for other in self.under_way.values():
            other.inflow_since_ml += moved.most_ml
        is_alt = dose.role == "alt_media"
        volume, added = before.current_volume_ml, moved.expected_ml
        alt_ml = before.alt_media_fraction * volume + (added if is_alt else 0.0)
        fraction = alt_ml / (volume + added) if volume + added > 0 else before.alt_media_fraction
        efflux = before.efflux_tube_volume_ml
        return replace(
            before,
            current_volume_ml=volume + added,
            lowest_ml=drawn(before.lowest_ml + moved.least_ml, dose.drained_ml, efflux),
            highest_ml=before.highest_ml + moved.most_ml,
            alt_media_fraction=min(max(fraction, 0.0), 1.0),
            cumulative_media_added_ml=before.cumulative_media_added_ml + (0 if is_alt else added),
            cumulative_alt_media_added_ml=before.cumulative_alt_media_added_ml
            + (added if is_alt else 0),
        )

    def _less(self, before: Volumes, moved: Amount, dose: UnderWay) -> Volumes:
        efflux = before.efflux_tube_volume_ml
        lowest = drawn(before.lowest_ml, moved.most_ml, efflux)
        for other in self.under_way.values():
            if other.role != "waste":
                other.drained_ml += moved.most_ml - (before.lowest_ml - lowest)
        highest = min(
            before.highest_ml,
            drawn(dose.highest_at_start_ml, moved.least_ml, efflux) + dose.inflow_since_ml,
        )
        # down to the tube by its own pump: nothing that was in doubt can be above it any more
        empty = highest <= efflux and moved.least_ml > 0
        return replace(
            before,
            current_volume_ml=drawn(before.current_volume_ml, moved.expected_ml, efflux),
            lowest_ml=lowest,
            highest_ml=highest,
            cumulative_waste_removed_ml=before.cumulative_waste_removed_ml + moved.expected_ml,
            doubt=None if empty else before.doubt,
        )

    # -- what persons say -----------------------------------------------------------

    def set(self, experiment: str, values: Mapping[str, float]) -> Volumes:
        """Take over ``values`` by variable; ``current_volume_ml`` is what is in the vial."""
        after = Volumes(**{**asdict(self.own(experiment)), **values})
        told = "efflux_tube_volume_ml" in values
        if "current_volume_ml" in values:
            volume = values["current_volume_ml"]
            after = replace(after, lowest_ml=volume, highest_ml=volume, doubt=None)
            after = self._put(experiment, after)
        elif told:  # of the vial, so it holds for what comes next, too
            seen = Volumes(**{**asdict(self._seen(experiment)), **values})
            after = self._put(experiment, seen)
        else:
            self._keep(experiment, after)
        if told:
            self._tubes[experiment] = "told"
        return after

    def doubt(self, experiment: str, why: str) -> Volumes:
        """Let nothing be added until somebody confirms the volume, or waste is removed."""
        return self._put(experiment, replace(self._seen(experiment), doubt=why))

    def restore(
        self, experiment: str, volumes: Volumes, turn: int, tube: TubeSource | None
    ) -> None:
        """Let an experiment be as it was before :meth:`set`."""
        self._volumes[experiment] = volumes
        self._turns.pop(experiment, None)
        if turn:
            self._turns[experiment] = turn
        self._tubes.pop(experiment, None)
        if tube:
            self._tubes[experiment] = tube

    def _keep(self, experiment: str, volumes: Volumes) -> None:
        source = self.tube_source(experiment)
        self._volumes[experiment] = volumes
        if source is not None:
            self._tubes[experiment] = source

    def _put(self, experiment: str, after: Volumes) -> Volumes:
        rounded = {
            name: round(getattr(after, name), DECIMALS)
            for name in Volumes.__dataclass_fields__
            if name != "doubt"
        }
        after = replace(after, **rounded)
        capacity = self._capacity_ml()
        if after.highest_ml > capacity:
            after = replace(
                after,
                current_volume_ml=min(after.current_volume_ml, capacity),
                lowest_ml=min(after.lowest_ml, capacity),
                highest_ml=capacity,
                doubt=after.doubt
                or f"there may be more in the vial than the {capacity:g} mL that it holds",
            )
        self._keep(experiment, after)
        self._turns[experiment] = max(self._turns.values(), default=0) + 1
        self.unconfirmed = None  # from here on it is in the doubt and the range of this one
        return after


def drawn(volume_ml: float, waste_ml: float, efflux_ml: float) -> float:
    """What the waste pump leaves: nothing goes out from below the end of the efflux tube."""
    return volume_ml if volume_ml <= efflux_ml else max(volume_ml - waste_ml, efflux_ml)
