"""``piod calibrate``: from the words of the command line to a unit and a session."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from piod import control, launch
from piod.errors import BadRequest, ConfigurationError, PiodError
from piod.terminal import drawing
from piod.terminal.asking import Terminal
from piod.terminal.pages import Offer, Page, read_offers, read_page
from piod.terminal.unit_client import UnitClient, UnitRefused
from piod.terminal.walk import SESSIONS, Walk

API_KEY_VARIABLE = "PIOD_API_KEY"
FIND_TIMEOUT_S = 2.0


def calibrate(
    *,
    device: str | None,
    protocol: str | None,
    session: str | None,
    url: str | None,
    data_dir: Path | None,
) -> int:
    """Run one session, or list what can be calibrated when neither is named; the exit status.

    Raises PiodError for what keeps it from going on.
    """
    if session is not None and (device is not None or protocol is not None):
        raise BadRequest(
            "--session goes on with a session, whose device and protocol are known",
            remediation="Leave the device and --protocol out, or leave --session out.",
        )
    client = client_for(url, data_dir)
    if device is None and session is None:
        print(drawing.offers_text(_offers(client), width=100))
        return 0
    terminal = Terminal()
    try:
        if session is not None:
            page = read_page(client.get(*SESSIONS, session))
        else:
            page = _started(client, terminal, device or "", protocol)
        return Walk(client, terminal).from_page(page)
    except UnitRefused as refusal:
        if refusal.http_status == 401:
            raise UnitRefused(
                401, refusal.message, f"Put it into the environment variable {API_KEY_VARIABLE}."
            ) from refusal
        raise


def client_for(url: str | None, data_dir: Path | None) -> UnitClient:
    """The unit at ``url``; else the one that lives on ``data_dir``, or where units do.

    Raises ConfigurationError when none lives there.
    """
    key = os.environ.get(API_KEY_VARIABLE)
    if url is not None:
        return UnitClient(url, key)
    directory = (data_dir or launch.default_data_dir()).absolute()
    try:
        answer = control.where(directory, FIND_TIMEOUT_S)
    except PermissionError as error:
        raise ConfigurationError(
            f"you may not speak with the piod on {directory}",
            remediation="Name its address with --url, or join the group of that directory.",
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"the piod on {directory} does not answer: {error}",
            remediation="Look at its log, or name its address with --url.",
        ) from error
    if answer is None:
        raise ConfigurationError(
            f"no piod runs on {directory}",
            remediation="Start it, name its directory with --data-dir, or its address with --url.",
        )
    at = answer.removeprefix("ok ")
    if at == answer or at.startswith("http://unix:"):
        raise ConfigurationError(
            f"the piod on {directory} cannot be asked over HTTP: {answer}",
            remediation="Name its address with --url.",
        )
    return UnitClient(at, key or _configured_key(directory))


def _configured_key(data_dir: Path) -> str | None:
    """The unit's own key, for who may read its configuration."""
    try:
        return launch.configuration(data_dir).current().text("ui_basic_auth", "api_key", None)
    except PiodError:
        return None


def _offers(client: UnitClient) -> list[Offer]:
    return read_offers(client.get("calibration_protocols"))


def _started(client: UnitClient, terminal: Terminal, device: str, protocol: str | None) -> Page:
    """The first page of a new session, of the first protocol for ``device`` unless one is named."""
    for_device = [offer for offer in _offers(client) if offer.device == device]
    name = _first(for_device, device) if protocol is None else protocol
    offer = next((offer for offer in for_device if offer.protocol == name), None)
    if offer is not None:
        terminal.say(drawing.offer_text(offer, terminal.width))
    page = read_page(client.post(*SESSIONS, body={"target_device": device, "protocol_name": name}))
    others = [offer.protocol for offer in for_device if offer.protocol != page.protocol]
    if others and protocol is None:
        terminal.say(f"\n(Other protocols for it: {', '.join(others)}; --protocol names one.)")
    terminal.say(
        f"\nSession {page.session_id}. At any question, :leave keeps it for later and :abort "
        "ends it."
    )
    return page


def _first(offers: Sequence[Offer], device: str) -> str:
    """The protocol that is used when none is named: the first that would start."""
    if not offers:
        raise BadRequest(
            f"this unit has no protocol for {device!r}",
            remediation="'piod calibrate' without a device lists what there is.",
        )
    ready = [offer for offer in offers if offer.unavailable_because is None]
    return (ready or offers)[0].protocol
