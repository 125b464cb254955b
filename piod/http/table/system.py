"""The machine: power, clock, web server, updates; and the hardware check."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.routes import COMMAND, GET, Answer, Handler, Route
from piod.http.system import (
    CLOCK_EXAMPLE,
    STATUS_EXAMPLE,
    ClockSchema,
    HardwareHandlers,
    ModelSchema,
    SystemHandlers,
    UpdateSchema,
)
from piod.http.tasks import LAUNCHED

TAG = "System"
BUSY = "While one is under way, the answer names its task and its lock."


def system_routes(system: SystemHandlers, hardware: HardwareHandlers) -> Iterator[Route]:
    """The routes of this module's title."""
    api = "/unit_api"
    yield Route(
        COMMAND,
        f"{api}/hardware/check",
        hardware.check,
        tag="Unit",
        summary="Look for the hardware that a model needs",
        description="The result is {status, reason}; status is ok, warning or skipped.",
        body=ModelSchema,
        answers=LAUNCHED,
        errors=(503, 507),
    )
    yield Route(
        COMMAND,
        f"{api}/system/update/{{target}}",
        system.update_target,
        tag=TAG,
        summary="Update a target",
        description=f"As without a target. {BUSY}",
        path_params={"target": "app"},
        body=UpdateSchema,
        answers=LAUNCHED,
        errors=(404, 409, 429, 503, 507),
    )
    yield Route(
        COMMAND,
        f"{api}/system/update",
        system.update,
        tag=TAG,
        summary="Update piod",
        description="Refused while jobs run, unless the option force is there. The task goes on "
        f"over the restart that the update causes. {BUSY}",
        body=UpdateSchema,
        answers=LAUNCHED,
        errors=(409, 429, 503, 507),
    )
    # the aliases are what older leaders send to themselves
    for path in (f"{api}/system/reboot", f"{api}/reboot"):
        yield _power(path, system.reboot, "Reboot the unit")
    for path in (f"{api}/system/shutdown", f"{api}/shutdown"):
        yield _power(path, system.shutdown, "Shut the unit down")
    yield Route(
        GET,
        f"{api}/system/web_server/status",
        system.web_server_status,
        tag=TAG,
        summary="State of the leader's web server",
        description="Of the units that [piod] web_server_units lists. On a leader only.",
        answers={200: Answer("state is ready or disconnected.", STATUS_EXAMPLE)},
        errors=(400, 403, 503),
        max_age_s=3,
    )
    yield Route(
        COMMAND,
        f"{api}/system/web_server/restart",
        system.restart_web_server,
        tag=TAG,
        summary="Restart the leader's web server",
        description=f"On a leader only. {BUSY}",
        answers=LAUNCHED,
        errors=(400, 403, 503, 507),
    )
    yield Route(
        GET,
        f"{api}/system/utc_clock",
        system.clock_time,
        tag=TAG,
        summary="Time of the unit",
        answers={200: Answer("The time, UTC.", CLOCK_EXAMPLE)},
    )
    yield Route(
        COMMAND,
        f"{api}/system/utc_clock",
        system.set_clock,
        tag=TAG,
        summary="Set the clock",
        description="A leader takes the time of the body; a worker ignores the body and "
        f"synchronises with a time server. {BUSY}",
        body=ClockSchema,
        answers=LAUNCHED,
        errors=(503, 507),
    )


def _power(path: str, handler: Handler, summary: str) -> Route:
    return Route(
        COMMAND,
        path,
        handler,
        tag=TAG,
        summary=summary,
        description="Ends all jobs and turns every output off first. A leader waits 5 s, so "
        f"that it can pass the command on to its workers. No job starts meanwhile. {BUSY} Refused "
        "(409) during an update, an import, and while plugins are installed.",
        answers=LAUNCHED,
        errors=(409, 429, 503, 507),
    )
