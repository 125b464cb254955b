"""The calibration protocols that a unit offers, as a client lists them.

:func:`calibration_protocols` lists; :func:`find_protocol` finds the one that a session is to
be started with. Source: handbook unit-api.md §4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from piod.calibrations.protocols.engine import begin
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.turn import Facts
from piod.config import Config
from piod.errors import BadRequest, PiodError


@dataclass(frozen=True)
class Protocol:
    """One protocol for one device. Of several for a device, that of the least ``priority``
    comes first.

    ``unavailable_because``: why a session would be refused now; None: it would start.
    """

    target_device: str
    protocol_name: str
    priority: int
    title: str
    description: str
    requirements: tuple[str, ...]
    unavailable_because: str | None

    @property
    def id(self) -> str:
        """Device and protocol in one text."""
        return f"{self.target_device}_{self.protocol_name}"


def calibration_protocols(
    protocols: Iterable[type[CalibrationProtocol]], facts: Facts
) -> Sequence[Protocol]:
    """What is offered on a unit of which ``facts`` are true, by device, priority and title.

    A protocol may be there even when the unit cannot run it; it then tells why.
    """
    offered = [
        _offer(protocol, device, facts)
        for protocol in protocols
        for device in protocol.devices_of(facts.config)
    ]
    return sorted(offered, key=lambda p: (p.target_device, p.priority, p.title))


def find_protocol(
    protocols: Iterable[type[CalibrationProtocol]], name: str, device: str, config: Config
) -> type[CalibrationProtocol]:
    """The protocol called ``name``, or having that alias, for ``device``.

    BadRequest that names what there is.
    """
    known = list(protocols)
    for protocol in known:
        if name in (protocol.name, *protocol.aliases) and protocol.takes(device, config):
            return protocol
    here = [each.name for each in known if each.takes(device, config)]
    if here:
        raise BadRequest(
            f"protocol_name {name[:80]!r} is none of the protocols for {device}: "
            f"{', '.join(sorted(here))}"
        )
    devices = sorted({device for each in known for device in each.devices_of(config)})
    raise BadRequest(
        f"target_device {device[:80]!r} is nothing that this unit has a protocol for; "
        f"there are protocols for {', '.join(devices)}",
        remediation="Send one of GET /unit_api/calibration_protocols. Those of photodiodes need "
        "their angle in [od_config.photodiode_channel].",
    )


def _offer(protocol: type[CalibrationProtocol], device: str, facts: Facts) -> Protocol:
    words = {"device": device.replace("_", " "), **protocol.describe(device)}
    return Protocol(
        target_device=device,
        protocol_name=protocol.name,
        priority=protocol.priority,
        title=protocol.title.format_map(words),
        description=protocol.description.format_map(words),
        requirements=tuple(line.format_map(words) for line in protocol.requirements),
        unavailable_because=_why_not(protocol, device, facts),
    )


def _why_not(protocol: type[CalibrationProtocol], device: str, facts: Facts) -> str | None:
    try:
        begin(protocol, device, "", facts)
    except PiodError as refusal:
        return refusal.message
    return None
