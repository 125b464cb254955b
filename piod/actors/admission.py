"""Whether a run is taken: what it names exists, fits, comes not too soon, and may be now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from piod.actors.gate import Gate
from piod.actors.model import UnitModel
from piod.actors.resume import RunRequest
from piod.config import Config, ConfigFiles
from piod.errors import BadRequest, TooManyRequests
from piod.jobs.automation import find_kind
from piod.jobs.job import Job, OptionValue

RATE_LIMIT_S = 1.0
"""The same job with the same options is taken once in this time (wall)."""
WIRING_SECTIONS = ("PWM", "leds")
"""An override of these could point a job at the heater or a pump."""


@dataclass(frozen=True)
class Admitted:
    """A run that may be: its kind, its typed options, the configuration it starts with."""

    kind: type[Job]
    options: dict[str, OptionValue]
    config: Config


class Admission:
    """Examines requests. ``kinds`` are the known jobs by their ``kind_name``."""

    def __init__(
        self, kinds: Mapping[str, type[Job]], config: ConfigFiles, model: UnitModel, gate: Gate
    ) -> None:
        self._kinds = kinds
        self._config = config
        self._model = model
        self._gate = gate
        self._slots: dict[tuple[str, str], float] = {}
        """Wall times of the last accepted requests, by job and options."""

    def examine(self, request: RunRequest, *, busy: bool) -> Admitted:
        """What ``request`` asks for, typed; ``busy``: jobs run, so the model is settled.

        Raises NotFound for an unknown job, BadRequest that names what is wrong, Conflict
        for another model, or while no new jobs are let in.
        """
        kind = find_kind(self._kinds, request.job_name, request.options)
        options = kind.parse_options(request.options)
        for section, key, _ in request.config_overrides:
            if section in WIRING_SECTIONS:
                raise BadRequest(
                    f"config_overrides: [{section}] {key} says how the unit is wired; "
                    "that is not overridden for one job",
                    remediation="Change it in the configuration of the unit.",
                )
        config = self._config.current().with_overrides(request.config_overrides)
        self._model.check(request.model, busy=busy)
        self._gate.refuse_if_held(request.job_name)
        return Admitted(kind, options, config)

    def take_slot(self, request: RunRequest, *, busy: bool) -> None:
        """As :meth:`examine`; and TooManyRequests for the same again within RATE_LIMIT_S."""
        admitted = self.examine(request, busy=busy)
        slot = (request.job_name, repr(sorted(admitted.options.items())))
        now = time.monotonic()
        self._slots = {s: at for s, at in self._slots.items() if now - at < RATE_LIMIT_S}
        if slot in self._slots:
            raise TooManyRequests(
                f"{request.job_name} was requested with the same options less than "
                f"{RATE_LIMIT_S:g} s ago"
            )
        self._slots[slot] = now
