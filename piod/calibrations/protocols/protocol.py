"""What a protocol is: how a person and the unit calibrate a device together, step by step.

A protocol is one class in one file: what it is called and needs, what must hold when a session
starts (:meth:`CalibrationProtocol.start`), and its steps, of which the first is where a session
begins. The smallest one::

    class OneDose(CalibrationProtocol):
        name = "one_dose"
        devices = ("media_pump",)
        title = "Volume by one dose"
        description = "Run the {device} for 10 s and weigh."
        requirements = ("A scale",)
        steps = (
            Step("dose", "action", "Dose", "The pump runs for 10 s.", then=dose),
            Step("weigh", "form", "Weigh", fields=(Number("ml", "mL", minimum=0.1),), then=fit),
        )

``dose`` and ``fit`` are coroutine functions of a
:class:`~piod.calibrations.protocols.turn.Turn`; see
:mod:`piod.calibrations.protocols.duration_based` for a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from piod.calibrations.protocols.steps import Step
from piod.calibrations.protocols.turn import Data, Facts
from piod.config import Config
from piod.errors import BadRequest


class CalibrationProtocol:
    """Base of all protocols. Never instantiated: a session's state is its data.

    ``{device}`` in ``title``, ``description`` and ``requirements`` becomes the device as a
    person calls it. Of several protocols for a device, that of the least ``priority`` comes
    first. ``aliases``: other names under which clients ask for it.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    devices: ClassVar[tuple[str, ...]] = ()
    title: ClassVar[str]
    description: ClassVar[str]
    requirements: ClassVar[tuple[str, ...]] = ()
    priority: ClassVar[int] = 99
    steps: ClassVar[tuple[Step, ...]]

    @classmethod
    def devices_of(cls, config: Config) -> Sequence[str]:
        """The devices that a unit of this configuration is offered it for."""
        return cls.devices

    @classmethod
    def takes(cls, device: str, config: Config) -> bool:
        """Whether a session may be asked for, for ``device``."""
        return device in cls.devices_of(config)

    @classmethod
    def describe(cls, device: str) -> dict[str, str]:
        """What else texts may name in braces, for ``device``."""
        return {}

    @classmethod
    def start(cls, device: str, facts: Facts) -> Data:
        """The data that a session starts with.

        Raises BadRequest, with what to do, when it cannot be done on this unit now.
        """
        return {}

    @classmethod
    def step(cls, step_id: str) -> Step | None:
        """The step of that id, if there is one."""
        return next((step for step in cls.steps if step.id == step_id), None)


class NotNow(BadRequest):
    """The protocol cannot be run on this unit, or not now; the message says why."""

    default_remediation = "Do what the message names, then start the session again."


def pwm_channel(facts: Facts, role: str, what: str) -> str:
    """The PWM channel of the device ``what``, such as ``media_pump``, that has that role.

    Raises NotNow when there is none that it could be driven by; ConfigurationError.
    """
    channel = facts.config.pwm_roles().get(role)
    if channel is None:
        raise NotNow(
            f"no PWM channel has the role {role!r}, so {what} cannot be calibrated",
            remediation=f"Give a channel the role in the section [PWM], such as 2={role}.",
        )
    if facts.pwm_channels is not None and channel not in facts.pwm_channels:
        known = ", ".join(sorted(facts.pwm_channels))
        raise NotNow(
            f"[PWM] gives the role {role!r} to channel {channel}, which this HAT does not have or "
            "the heater is wired to",
            remediation=f"Give the role to one of the channels {known} in the section [PWM].",
        )
    return channel


def refuse_while_running(facts: Facts, *job_names: str) -> None:
    """Raises NotNow naming those of ``job_names`` that run."""
    running = [name for name in job_names if name in facts.running_jobs]
    if running:
        jobs = " and ".join(running)
        verb = "runs" if len(running) == 1 else "run"
        raise NotNow(
            f"{jobs} {verb}, and this calibration needs that hardware for itself",
            remediation=f"Stop {jobs}, then start the session again.",
        )
