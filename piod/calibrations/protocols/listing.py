"""The calibration protocols that a unit offers, as a client lists them.

:func:`calibration_protocols` lists; :func:`find_protocol` finds the one that a session is to
be started with. Source: handbook unit-api.md §4.1.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from piod.calibrations.protocols.engine import begin
from piod.calibrations.protocols.protocol import CalibrationProtocol
from piod.calibrations.protocols.turn import Facts
from piod.config import Config
from piod.errors import BadRequest, PiodError

log = logging.getLogger(__name__)


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
    offered: list[Protocol] = []
    for protocol in protocols:
        try:
            devices = protocol.devices_of(facts.config)
            offered += [_offer(protocol, device, facts) for device in devices]
        except Exception:  # a plugin's may raise anything, and must not hide the others
            log.exception("the calibration protocol %s cannot be offered", protocol.name)
    return sorted(offered, key=lambda p: (p.target_device, p.priority, p.title))


def find_protocol(
    protocols: Iterable[type[CalibrationProtocol]], name: str, device: str, config: Config
) -> type[CalibrationProtocol]:
    """The protocol called ``name``, or having that alias, for ``device``.

    BadRequest that names what there is.
    """
    every = list(protocols)
    for protocol in every:
        # by name first: each look at a session comes here, and the others' devices cost more
        if name in (protocol.name, *protocol.aliases) and _takes(protocol, device, config):
            return protocol
    for_device = [protocol for protocol in every if _takes(protocol, device, config)]
    if for_device:
        names = ", ".join(sorted(protocol.name for protocol in for_device))
        raise BadRequest(
            f"protocol_name {name[:80]!r} is none of the protocols for {device}: {names}"
        )
    raise BadRequest(
        f"target_device {device[:80]!r} is nothing that this unit has a protocol for",
        remediation="Send one of GET /unit_api/calibration_protocols. Those of photodiodes need "
        "their angle in [od_config.photodiode_channel].",
    )


def _takes(protocol: type[CalibrationProtocol], device: str, config: Config) -> bool:
    try:
        return protocol.takes(device, config)
    except Exception:  # as above
        log.exception("the calibration protocol %s cannot be used", protocol.name)
        return False


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
