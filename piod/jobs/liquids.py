"""The liquid in the vial as pumps and dosing automations see it.

There is one ledger of volumes per experiment (:mod:`piod.actors.volumes` keeps it). Every
run of a pump that moves liquid of the experiment is a *dose*: it is admitted before the pump
turns, which is durable by then (the intent), and what it moved is kept when the pump has
stopped (the fact), whoever stopped it. Every volume is known as a range: what it is expected
to be, and the least and the most that it can be. The overflow guard goes by the most.

All volumes are in mL, all times in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """An admitted run of a pump. Ends with the life of its owner if it was not finished."""

    @property
    def dose_id(self) -> str:
        """Unique for the life of the unit."""
        ...

    async def finish(self, seconds: float) -> Amount:
        """The pump is off, and was on for so long: keep what it moved; durable on return.

        A second call changes nothing, and answers the same.
        """
        ...


class Liquids(Protocol):
    """The ledger of volumes of the job's experiment."""

    async def volumes(self) -> Volumes:
        """What is in the vial now."""
        ...

    async def admit(self, role: PumpRole, flow: Flow, seconds: float, source: str) -> Dose:
        """Admit a run of ``seconds``, the time from which on the pump may turn.

        Refused for an inflow with OverflowRefused (409) if, with the most that this dose and all
        doses under way can move, the vial would reach the model's maximum fill volume, and with
        VolumeInDoubt (409) while there is a doubt. ``source``: for the events, such as
        ``dosing_automation:chemostat``.
        """
        ...

    async def room_ml(self) -> float:
        """How much more may flow in now, mL: below that, :meth:`admit` refuses nothing."""
        ...
