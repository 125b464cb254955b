"""What growth_rate_calculating keeps of an experiment: the measure of its OD, and the filter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from piod.calibrations.fields import read_mapping
from piod.errors import BadRequest
from piod.events import JsonValue
from piod.jobs.growth.normalisation import OdStatistics
from piod.jobs.growth.passes import Source, Units
from piod.jobs.growth.state import FilterState
from piod.jobs.job import JobLog


@dataclass(frozen=True)
class Measure:
    """The first readings of an experiment, which are an OD of 1; ``units``: theirs."""

    source: Source
    statistics: OdStatistics
    units: Units | None
    """None: not known."""

    @property
    def json(self) -> JsonValue:
        units: dict[str, JsonValue] = dict(self.units or {})
        return {"source": self.source, "statistics": self.statistics.to_json(), "units": units}

    @classmethod
    def read(cls, log: JobLog, value: JsonValue) -> Measure | None:
        """What ``json`` gave; None, said in the log, for anything else."""
        match value:
            case None:
                return None
            case {"source": ("od" | "od_fused") as source, "statistics": statistics, **rest}:
                try:
                    units = read_units(rest.get("units"))
                    return cls(source, OdStatistics.from_json(statistics), units)
                except BadRequest as error:
                    log.warning("the kept measure of OD is not used: %s", error.message)
            case _:
                log.warning("the kept measure of OD cannot be read: it is taken anew")
        return None


@dataclass(frozen=True)
class KeptFilter:
    """The filter: its state, of which readings, and when."""

    source: Source
    channels: Sequence[str]
    at: float
    state: FilterState

    @property
    def json(self) -> JsonValue:
        return {
            "source": self.source,
            "channels": list(self.channels),
            "at": self.at,
            "state": self.state.to_json(),
        }

    @classmethod
    def read(cls, log: JobLog, value: JsonValue) -> KeptFilter | None:
        """What ``json`` gave; None, said in the log, for anything else."""
        match value:
            case None:
                return None
            case {
                "source": ("od" | "od_fused") as source,
                "channels": [*channels],
                "at": int() | float() as at,
                "state": state,
            } if math.isfinite(at):
                try:
                    read = FilterState.from_json(state)
                except BadRequest as error:
                    log.warning("the kept state of growth is not used: %s", error.message)
                    return None
                if len(read.noise) == len(channels):
                    return cls(source, [str(channel) for channel in channels], at, read)
                log.warning("the kept state of growth is of other photodiodes: not used")
            case _:
                log.warning("the kept state of growth cannot be read: it begins anew")
        return None


def read_units(value: object) -> Units | None:
    """By channel, what made OD of its voltage; None: not known. Raises BadRequest."""
    if value is None:
        return None
    units: dict[str, str | None] = {}
    for channel, name in read_mapping(value, "units").items():
        if not isinstance(name, str | None):
            raise BadRequest(f"units.{channel}: must be the name of a calibration, or null")
        units[channel] = name
    return units or None


def other_units(one: Units | None, other: Units | None) -> Sequence[str]:
    """The channels whose units are known to differ."""
    if one is None or other is None:
        return ()
    return [channel for channel in one if channel in other and one[channel] != other[channel]]
