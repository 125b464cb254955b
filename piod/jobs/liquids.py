"""The liquid in the vial as pumps and dosing automations see it.

There is one ledger of volumes per experiment (:mod:`piod.actors.volumes` keeps it). Every
run of a pump that moves liquid of the experiment is a *dose*: it is admitted before the pump
turns, which is durable by then (the intent), and what it moved is kept when the pump has
stopped (the fact), whoever stopped it. Every volume is known as a range: what it is expected
to be, and the least and the most that it can be. The overflow guard goes by the most.

All volumes are in mL, all times in seconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

PumpRole = Literal["media", "alt_media", "waste"]
"""Roles of ``[PWM]``; media and alt media flow in, waste flows out."""


@dataclass(frozen=True)
class Amount:
    """A volume that a pump moves, mL: as expected, and the least and the most it can be."""

    least_ml: float
    expected_ml: float
    most_ml: float


Flow: TypeAlias = Callable[[float], Amount]
"""What a pump has moved after so many seconds at its duty cycle; of 0 s: nothing."""

Off: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when the hardware has confirmed that the output of a pump is off, however late."""


@dataclass(frozen=True)
class Volumes:
    """The vial of an experiment: handbook, jobs-and-hardware §4.2, and its range.

    ``current_volume_ml`` is what is expected to be in it, without the doses under way.
    ``doubt``: why nothing may be added until somebody confirms the volume or waste is
    removed down to the efflux tube, such as a power cut in the middle of a dose; None: no
    doubt.
    """

    current_volume_ml: float
    lowest_ml: float
    highest_ml: float
    efflux_tube_volume_ml: float
    alt_media_fraction: float
    cumulative_media_added_ml: float
    cumulative_alt_media_added_ml: float
    cumulative_waste_removed_ml: float
    doubt: str | None = None


class Dose(Protocol):
    """An admitted run of a pump. Ends with the life of its owner if it was not finished.

    It then counts as having moved from nothing up to what its pump can have moved since it
    was admitted; so does a dose that was under way when the power failed, and a doubt follows.
    """

    @property
    def dose_id(self) -> str:
        """Unique for the life of the unit."""
        ...

    async def finish(self, seconds: float, *, unsure_s: float = 0.0) -> Amount:
        """The pump is off, and was on for so long: keep what it moved; durable on return.

        ``unsure_s``: it may have been off for so long of these at their end.

        A second call changes nothing, and answers the same.
        """
        ...

    async def still_on(self, seconds: float, *, unsure_s: float, off: Off) -> Amount:
        """Instead of :meth:`finish`: the pump refuses to go off, and was on for so long by now.

        Nothing is added to the vial, whoever asks, until ``off`` returns. If that is soon, the
        dose is finished, and what it moved is answered. Else this raises BusError; the dose
        goes on until ``off`` returns, and a doubt stays.
        """
        ...


class Liquids(Protocol):
    """The ledger of volumes of the job's experiment.

    All raise StorageFull or StorageFailed when the disk refuses, and ConfigurationError while
    ``[bioreactor]`` cannot be used. The ledger publishes DoseEnded and VolumesChanged
    (:mod:`piod.events`) for each dose that is over, and records no readings.

    Pumps that run at once are counted at their worst: waste counts only against what was in
    the vial when it was admitted. So a waste pump that runs along with inflows is admitted in
    slices, each a dose of its own; what flowed in during one slice, the next one takes out.
    """

    async def volumes(self) -> Volumes:
        """What is in the vial now."""
        ...

    async def check(self, role: PumpRole, flow: Flow, seconds: float) -> None:
        """Refuse as :meth:`admit` would now, and do nothing else."""
        ...

    async def admit(self, role: PumpRole, flow: Flow, seconds: float, source: str) -> Dose:
        """Admit a run of ``seconds``, the time from which on the pump may turn.

        Refused for an inflow with OverflowRefused (400) if, with the most that this dose and all
        doses under way can move, the vial would reach the model's maximum fill volume, and with
        VolumeInDoubt (409) while there is a doubt. Waste is never refused for these. BadRequest
        for a dose that moves nothing, or is no number. When this raises, or is cancelled,
        there is no dose. ``source``: for the events, such as ``dosing_automation:chemostat``.
        """
        ...

    async def room_ml(self) -> float:
        """How much more may flow in now, mL: below that, :meth:`admit` refuses nothing.

        0 while there is a doubt.
        """
        ...

    async def change(self, values: Mapping[str, float]) -> Volumes:
        """Set variables to what a person says, all or none; durable; the volumes then.

        ``values`` by variable: those of the API, current_volume_ml and the others. Setting
        current_volume_ml ends the doubt and closes the range. BadRequest that names the
        variable; Conflict for current_volume_ml and efflux_tube_volume_ml during a dose.
        """
        ...
