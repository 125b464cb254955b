"""pumps: doses and pauses, one after the other.

Options are the steps, in their order: ``media``, ``alt_media``, ``waste`` in mL and ``sleep``
in s; a name is repeated with ``_`` at its end, more each time. Before the first dose the whole
sequence is checked against the overflow, and each dose again when its turn has come.
Source: handbook jobs-and-hardware.md §2.7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from piod.errors import BadRequest, OverflowRefused
from piod.jobs.job import Option, Options, OptionValue, Unit
from piod.jobs.liquids import PumpRole
from piod.jobs.pump_actions.action import SOURCE, PumpAction
from piod.jobs.pumping import ROLES, Pump, PumpRun, open_pump

SLEEP = "sleep"
MAX_STEPS = 1000


@dataclass(frozen=True)
class _Step:
    """A dose of so many mL, or, without a role, a pause of so many seconds."""

    role: PumpRole | None
    amount: float


class Pumps(PumpAction):
    """See the module."""

    job_name = "pumps"
    help = "Run pumps one after the other."
    options = (
        Option("media", "float", "media to add, mL; repeat as media_, media__ …"),
        Option("alt_media", "float", "alternative media to add, mL"),
        Option("waste", "float", "waste to remove, mL"),
        Option(SLEEP, "float", "pause, s"),
        SOURCE,
    )

    def __init__(
        self,
        unit: Unit,
        options: Options,
        steps: Sequence[_Step],
        pumps: Mapping[PumpRole, Pump],
    ) -> None:
        super().__init__(unit, options)
        self._steps = steps
        self._pumps = pumps
        self._first: PumpRun | None = None

    @classmethod
    def parse_options(cls, given: Mapping[str, object]) -> dict[str, OptionValue]:
        declared = {option.name: option for option in cls.options}
        parsed: dict[str, OptionValue] = {}
        for key, value in given.items():
            name = key.replace("-", "_")
            option = declared.get(name.rstrip("_"))
            if option is None or (option is SOURCE and name != SOURCE.name):
                raise BadRequest(
                    f"pumps has no option {key!r}",
                    remediation=f"The options of pumps are: {', '.join(declared)}; media, "
                    "alt_media, waste and sleep are repeated as media_, media__ …",
                )
            if name in parsed:
                raise BadRequest(f"option {name} is given twice", remediation=f"Use {name}_.")
            parsed[name] = number = option.parse(value)
            if isinstance(number, int | float) and number <= 0:
                raise BadRequest(f"option {name} must be above 0, got {number:g}")
        steps = _steps(parsed)
        if not any(step.role for step in steps):
            raise BadRequest(f"pumps needs at least one of the options {', '.join(ROLES)}, in mL")
        if len(steps) > MAX_STEPS:
            raise BadRequest(f"pumps takes {MAX_STEPS} steps at most, got {len(steps)}")
        return parsed

    @classmethod
    async def create(cls, unit: Unit, options: Options) -> Pumps:
        steps = _steps(options)
        return cls(unit, options, steps, await _open(unit, steps))

    @classmethod
    async def refuse(cls, unit: Unit, options: Options) -> None:
        steps = _steps(options)
        await _check(unit, steps, await _open(unit, steps))

    async def begin(self, runs: AsyncExitStack) -> None:
        await _check(self._unit, self._steps, self._pumps)
        step = self._steps[0]
        if step.role is not None:
            pump = self._pumps[step.role]
            self._first = await runs.enter_async_context(pump.run(self._source))
            await self._first.start(pump.rate.seconds_for(step.amount))

    async def go_on(self, runs: AsyncExitStack) -> None:
        rest = self._steps
        if self._first is not None:
            await self._first.wait()
            await runs.aclose()
            rest = rest[1:]
        for step in rest:
            if step.role is None:
                await self._unit.clock.sleep(step.amount)
            else:
                await self._pumps[step.role].dose(step.amount, source=self._source)


def _steps(options: Options) -> list[_Step]:
    kinds: dict[str, PumpRole | None] = {SLEEP: None, **{role: role for role in ROLES}}
    return [
        _Step(kinds[key.rstrip("_")], float(amount))
        for key, amount in options.items()
        if key.rstrip("_") in kinds and isinstance(amount, int | float)
    ]


async def _open(unit: Unit, steps: Sequence[_Step]) -> dict[PumpRole, Pump]:
    roles = dict.fromkeys(step.role for step in steps if step.role is not None)
    return {role: await open_pump(unit, role) for role in roles}


async def _check(unit: Unit, steps: Sequence[_Step], pumps: Mapping[PumpRole, Pump]) -> None:
    """Refuse a sequence that would overflow at any step, or that a pump cannot do."""
    before = await unit.liquids.volumes()
    level_ml, efflux_ml = before.highest_ml, before.efflux_tube_volume_ml
    room_ml = await unit.liquids.room_ml()
    removed = False
    for number, step in enumerate(steps, 1):
        if step.role is None:
            continue
        rate = pumps[step.role].rate
        seconds = rate.seconds_for(step.amount)
        amount = rate.flow(seconds)
        if step.role == "waste":
            level_ml = min(level_ml, max(level_ml - amount.least_ml, efflux_ml))
            removed = True
            continue
        if not removed:
            await unit.liquids.check(step.role, rate.flow, seconds)
        level_ml += amount.most_ml
        if level_ml >= before.highest_ml + room_ml and before.doubt is None:
            raise OverflowRefused(
                f"step {number} of the sequence, adding {step.amount:g} mL, could bring the vial "
                f"to {level_ml:.2f} mL; it must stay below {before.highest_ml + room_ml:.2f} mL",
                remediation="Remove waste before it, or dose less.",
            )
