"""Sessions without a unit: the hardware answers what a test says, and what is saved is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from piod.calibrations.estimators import FusedEstimator
from piod.calibrations.protocols import CalibrationProtocol
from piod.calibrations.protocols.engine import advance, begin, render
from piod.calibrations.protocols.turn import Artifact, Facts, Routine
from piod.config import ConfigFiles
from piod.errors import BadRequest, Conflict, NotFound, PiodError, StorageFull
from piod.storage.sessions import SessionRow

Q = TypeVar("Q")
R = TypeVar("R")

NOW_UNIX_S = 1_790_000_000.0
"""2026-09-21T14:13:20Z."""

Hardware = Callable[[object], object]
"""What a measurement gives, by its request; a PiodError is raised."""


def facts(directory: Path, config: str, *running: str, model: str | None = None) -> Facts:
    """Of a unit of that configuration on which those jobs run."""
    (directory / "config.ini").write_text(config)
    current = ConfigFiles(directory).current()
    return Facts("pio01", current, NOW_UNIX_S, frozenset(running), model)


class PlayedCluster:
    """Units and their estimators; a unit with None does not answer."""

    def __init__(self, units: Mapping[str, Mapping[str, FusedEstimator] | None]) -> None:
        self.has = dict(units)

    async def units(self) -> Sequence[str]:
        return list(self.has)

    async def estimator_names(self, unit_name: str) -> Sequence[str]:
        return sorted(self._of(unit_name))

    async def estimator(self, unit_name: str, name: str) -> FusedEstimator:
        if name not in self._of(unit_name):
            raise NotFound(f"there is no {name}")
        return self._of(unit_name)[name]

    def _of(self, unit_name: str) -> Mapping[str, FusedEstimator]:
        found = self.has[unit_name]
        if found is None:
            raise NotFound(f"{unit_name} did not answer")
        return found


class Played:
    """One session. ``saved``: what it has saved, by device and name."""

    def __init__(
        self,
        protocol: type[CalibrationProtocol],
        device: str,
        facts: Facts,
        hardware: Hardware,
        cluster: PlayedCluster | None = None,
    ) -> None:
        self.protocol = protocol
        self.facts = facts
        self.hardware = hardware
        self.cluster = cluster or PlayedCluster({"pio01": {}})
        self.saved: dict[tuple[str, str], Artifact] = {}
        self.others: Mapping[tuple[str, str], Artifact] = {}
        """What others have saved."""
        self.full: str | None = None
        """The device for which the disk is full."""
        self.asked: list[Any] = []
        """What was asked of the hardware."""
        self.row: SessionRow = begin(protocol, device, "s1", facts)

    # -- the bench

    async def run(self, routine: Routine[Q, R], request: Q) -> R:
        self.asked.append(request)
        answer: Any = self.hardware(request)
        if isinstance(answer, PiodError):
            raise answer
        return answer  # type: ignore[no-any-return] # the test knows what the routine gives

    async def exists(self, artifact_type: type[Artifact], device: str, name: str) -> bool:
        return (device, name) in self.others and (device, name) not in self.saved

    async def save(self, artifact: Artifact, device: str, *, may_replace: bool) -> str:
        fused = isinstance(artifact, FusedEstimator)
        name = artifact.estimator_name if fused else artifact.calibration_name
        if not may_replace and await self.exists(type(artifact), device, name):
            raise Conflict(f"there is {name} of {device}")
        if device == self.full:
            raise StorageFull("the disk is full")
        self.saved[device, name] = artifact
        return f"/{device}/{name}.yaml"

    # -- the person

    @property
    def at(self) -> str:
        return self.row.step_id

    @property
    def data(self) -> Mapping[str, Any]:
        return self.row.data

    @property
    def result(self) -> Mapping[str, Any]:
        assert self.row.status == "complete", self.at
        assert self.row.result is not None
        return self.row.result

    @property
    def page(self) -> Mapping[str, Any]:
        """What is shown now, as JSON has it."""
        page = render(self.protocol, self.row, self.facts)
        return dict(json.loads(json.dumps(page, allow_nan=False)))

    async def go(self, **inputs: object) -> str:
        """Take the step; where that leads. The session survives JSON, as on disk."""
        self.row = await advance(self.protocol, self.row, inputs, self, self.facts)
        assert json.loads(json.dumps(self.row.data, allow_nan=False)) == self.row.data
        return self.at

    async def refused(self, about: str, **inputs: object) -> BadRequest:
        """The refusal, which is about that; the session is as it was."""
        before = json.dumps(self.row.data)
        with pytest.raises(BadRequest, match=about) as refusal:
            await self.go(**inputs)
        assert json.dumps(self.row.data) == before
        assert refusal.value.remediation
        return refusal.value

    async def walk(self, inputs: Mapping[str, Mapping[str, object]], until: str) -> None:
        while self.at != until:
            assert self.row.status == "in_progress", f"it never came to {until}"
            await self.go(**inputs.get(self.at, {}))
