"""The steps that a protocol is made of.

A step says what a page shows, which inputs it takes, and what follows::

    Step(
        "pwm_settings", "form", "How the pump is driven",
        body="The same values are used when the calibration is.",
        fields=(Number("hz", "Frequency", default=250, minimum=0.1, maximum=10_000),),
        then="tubing_into_water",
    )

The inputs are checked, then kept in the data of the session under the names of their fields,
then the step is taken: ``then`` is the id of the next one, or a coroutine function that is
given the :class:`~piod.calibrations.protocols.turn.Turn` and returns it. What a page shows may
depend on the session: instead of a text, a tuple of fields or metadata, give a function of a
:class:`~piod.calibrations.protocols.turn.View`.

:func:`name_steps` are the two steps that every protocol begins with: the name of the result,
and whether it may replace another of that name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

from piod.calibrations.protocols.inputs import Field, Name, YesNo
from piod.calibrations.protocols.turn import Artifact, Data, Turn, View
from piod.events import JsonValue

T = TypeVar("T")

StepType = Literal["info", "form", "action"]
FromView: TypeAlias = T | Callable[[View], T]
Take: TypeAlias = Callable[[Turn], Awaitable[str]]

PICTURES = "/unit_api/static/"
"""Where the unit serves the drawings of its protocols."""
ACTION = "action"
"""The input that chooses one of a step's ``actions`` instead of going on."""


@dataclass(frozen=True)
class Action:
    """Another button of a step: it posts ``{"action": name}`` and takes no other inputs.

    ``shown``: whether the page offers it now; what the action itself cannot do, it refuses.
    """

    name: str
    label: str
    take: Take
    shown: Callable[[View], bool] = lambda view: True


@dataclass(frozen=True)
class Step:
    """One step. ``type``: ``info`` to read, ``form`` to fill in, ``action`` for a deed: of the
    hardware, once the person goes on, or of the person."""

    id: str
    type: FromView[StepType]
    title: FromView[str]
    body: FromView[str] = ""
    fields: FromView[tuple[Field, ...]] = ()
    metadata: FromView[Data] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    then: str | Take = ""

    def fields_now(self, view: View) -> Sequence[Field]:
        """The fields, as the session stands."""
        return _now(self.fields, view)

    def render(self, view: View) -> dict[str, JsonValue]:
        """The step as a page is told of it."""
        metadata: Data = dict(_now(self.metadata, view))
        actions: list[JsonValue] = [
            {"label": action.label, "inputs": {ACTION: action.name}}
            for action in self.actions
            if action.shown(view)
        ]
        if actions:
            metadata["actions"] = actions
        fields: list[JsonValue] = [each.view() for each in self.fields_now(view)]
        return {
            "step_id": self.id,
            "step_type": _now(self.type, view),
            "title": _now(self.title, view),
            "body": _now(self.body, view),
            "fields": fields,
            "metadata": metadata,
        }

    async def take(self, turn: Turn) -> str:
        """Go on; the id of the next step."""
        return self.then if isinstance(self.then, str) else await self.then(turn)


def _now(what: FromView[T], view: View) -> T:
    return what(view) if callable(what) else what


def image(name: str, alt: str, caption: str | None = None) -> dict[str, JsonValue]:
    """A picture that piod serves, for the metadata keys ``image`` and ``loading_images``."""
    return {"src": PICTURES + name, "alt": alt, "caption": caption}


def name_steps(
    artifact_type: type[Artifact],
    then: str | Take,
    *,
    default: Callable[[View], str],
    devices: Callable[[View], Sequence[str]] = lambda view: (view.device,),
    field_name: str = "calibration_name",
    step_ids: tuple[str, str] = ("name_input", "name_overwrite_confirm"),
    title: str = "Name",
    body: str = "",
) -> tuple[Step, Step]:
    """The step that asks for a name, and the one that asks whether to replace what has it.

    ``devices``: those that get an artifact of that name. Afterwards ``data`` has the name
    under ``field_name``, and ``overwrite``.
    """
    ask, confirm = step_ids

    async def go_on(turn: Turn) -> str:
        return then if isinstance(then, str) else await then(turn)

    async def named(turn: Turn) -> str:
        turn.data["overwrite"] = False
        name = turn.text(field_name)
        for device in devices(turn):
            if await turn.exists(artifact_type, device, name):
                return confirm
        return await go_on(turn)

    async def confirmed(turn: Turn) -> str:
        return await go_on(turn) if turn.flag("overwrite") else ask

    return (
        Step(
            ask,
            "form",
            title,
            body or "Letters, digits, '.', '_', '-' and single spaces.",
            fields=lambda view: (Name(field_name, "Name", default=default(view)),),
            then=named,
        ),
        Step(
            confirm,
            "form",
            "This name is taken",
            lambda view: (
                f"There is one called {view.text(field_name)!r} already. "
                "Shall it be replaced when this session is complete?"
            ),
            fields=(YesNo("overwrite", "Replace it", default=False),),
            then=confirmed,
        ),
    )
