"""The machine of the unit over HTTP: power, clock, web server, updates, hardware check."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypedDict, TypeVar

from aiohttp import web
from marshmallow import fields

from piod.actors.actor import Message, Ref
from piod.actors.model import ModelKey
from piod.actors.system import (
    COMMAND_TIMEOUT_S,
    UPDATE_TIMEOUT_S,
    CheckPower,
    CheckSystem,
    CheckUpdate,
    PowerOff,
    Reboot,
    RestartUnits,
    SetTime,
    SynchroniseClock,
    System,
    UnitStates,
    Update,
)
from piod.actors.tasks import POWER_LOCK, UPDATE_LOCK, Launch
from piod.clock import Clock, timestamp
from piod.config import ConfigFiles
from piod.errors import BadRequest, ConfigurationError, Forbidden, NotFound
from piod.events import JsonValue
from piod.http.answers import json_answer
from piod.http.decode import Decoded, Object, StrictBool, StrictText, decode_json
from piod.http.tasks import ASK_TIMEOUT_S, TaskHandlers
from piod.hw.models import Models
from piod.system import read_update

R = TypeVar("R")

CLOCK_LOCK = "clock-lock"
WEB_RESTART_LOCK = "web-restart-lock"

WEB_SERVER_UNITS = "lighttpd.service,huey.service"
STATUS_EXAMPLE = {
    "service": "lighttpd.service,huey.service",
    "state": "ready",
    "raw_status": "lighttpd.service=active, huey.service=active",
}
CLOCK_EXAMPLE = {"status": "success", "clock_time": "2026-01-31T12:45:00.000Z"}

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EARLIEST, _LATEST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_UNIT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9:_.@\\-]*\.(service|target|socket)")


class _UpdateBody(TypedDict):
    options: dict[str, object]
    args: list[object]


class UpdateSchema(Decoded[_UpdateBody]):
    example = {"options": {}, "args": []}
    options = Object(
        keys=StrictText(),
        load_default=dict,
        metadata={
            "description": "branch, repo, sha, version, source with a value; the flags no_deps, "
            "defer_web_restart and force (update although jobs run) with null."
        },
    )
    args = fields.List(
        fields.Raw(), load_default=list, metadata={"description": "An update takes none."}
    )


class _ClockBody(TypedDict):
    utc_clock_time: str
    ntp: bool | None


class ClockSchema(Decoded[_ClockBody]):
    may_be_empty = True  # a worker ignores the body
    example = {"utc_clock_time": "2026-01-31T12:45:00Z"}
    utc_clock_time = StrictText(
        required=True,
        metadata={
            "description": "ISO 8601 with Z or a numeric offset. Needed on a leader; "
            "a worker ignores the body."
        },
    )
    ntp = StrictBool(
        load_default=None,
        metadata={
            "description": "Whether a time server sets the clock from then on. Without it that "
            "stays as it was, and a time server that is reached corrects the time again."
        },
    )


class _ModelBody(TypedDict):
    model_name: str
    model_version: str


class ModelSchema(Decoded[_ModelBody]):
    example = {"model_name": "pioreactor_20ml", "model_version": "1.5"}
    model_name = StrictText(required=True, metadata={"description": "Name of the model."})
    model_version = StrictText(required=True, metadata={"description": "Its version, as text."})


class SystemHandlers:
    """``/unit_api/system``, as far as it is about the machine."""

    def __init__(
        self,
        *,
        system: Ref[System],
        tasks: TaskHandlers,
        clock: Clock,
        config: ConfigFiles,
        is_leader: bool,
    ) -> None:
        self._system = system
        self._tasks = tasks
        self._clock = clock
        self._config = config
        self._is_leader = is_leader

    # -- power ------------------------------------------------------------------------

    async def reboot(self, request: web.Request) -> web.Response:
        """End all jobs and reboot."""
        work = self._command(Reboot())
        check = self._checked(CheckPower())
        return await self._tasks.launch(Launch("reboot", work, lock=POWER_LOCK, check=check))

    async def shutdown(self, request: web.Request) -> web.Response:
        """End all jobs and power off."""
        work = self._command(PowerOff())
        check = self._checked(CheckPower())
        return await self._tasks.launch(Launch("shutdown", work, lock=POWER_LOCK, check=check))

    # -- clock ------------------------------------------------------------------------

    async def clock_time(self, request: web.Request) -> web.Response:
        return json_answer({"status": "success", "clock_time": timestamp(self._clock.time())})

    async def set_clock(self, request: web.Request) -> web.Response:
        """A leader takes the time that it is told, a worker that of a time server."""
        if self._is_leader:
            body = await decode_json(request, ClockSchema)
            kind, work = (
                "setting the clock",
                self._command(SetTime(_unix_s(body["utc_clock_time"]), body["ntp"])),
            )
        else:
            kind, work = "synchronising the clock", self._command(SynchroniseClock())
        check = self._checked(CheckSystem())
        return await self._tasks.launch(Launch(kind, work, lock=CLOCK_LOCK, check=check))

    # -- web server -------------------------------------------------------------------

    async def web_server_status(self, request: web.Request) -> web.Response:
        names = self._web_server_units()
        states = await self._system.ask(UnitStates(names), timeout=ASK_TIMEOUT_S)
        ready = all(states[name] == "active" for name in names)
        return json_answer(
            {
                "service": ",".join(names),
                "state": "ready" if ready else "disconnected",
                "raw_status": ", ".join(f"{name}={states[name]}" for name in names),
            }
        )

    async def restart_web_server(self, request: web.Request) -> web.Response:
        work = self._command(RestartUnits(self._web_server_units()))
        check = self._checked(CheckSystem())
        return await self._tasks.launch(
            Launch("restart of the web server", work, lock=WEB_RESTART_LOCK, check=check)
        )

    def _web_server_units(self) -> list[str]:
        """Forbidden on a worker: the web server is the leader's."""
        if not self._is_leader:
            raise Forbidden(
                "this unit is a worker: the web server runs on the leader",
                remediation="Ask the leader's own unit API.",
            )
        listed = self._config.current().text("piod", "web_server_units", WEB_SERVER_UNITS)
        names = [name.strip() for name in listed.split(",") if name.strip()]
        if not names or not all(_UNIT.fullmatch(name) for name in names):
            raise ConfigurationError(
                "[piod] web_server_units must be names of systemd units with commas between, "
                f"such as {WEB_SERVER_UNITS}; it is {listed[:100]!r}"
            )
        return names

    # -- updates ----------------------------------------------------------------------

    async def update(self, request: web.Request) -> web.Response:
        """Update piod itself."""
        body = await decode_json(request, UpdateSchema)
        if body["args"]:
            raise BadRequest("args must be empty: an update takes options only")
        update, force = read_update(str(uuid.uuid4()), body["options"])

        return await self._tasks.launch(
            Launch(
                "update",
                self._command(Update(update, force), UPDATE_TIMEOUT_S),
                lock=UPDATE_LOCK,
                check=self._checked(CheckUpdate(force)),
                task_id=update.request_id,
            )
        )

    async def update_target(self, request: web.Request) -> web.Response:
        target = request.match_info["target"]
        if target != "app":
            raise NotFound(
                f"there is no update target {target[:60]!r}", remediation="The only target is app."
            )
        return await self.update(request)

    # -- how it is asked --------------------------------------------------------------

    def _command(
        self, message: Message[System, None], timeout_s: float = COMMAND_TIMEOUT_S
    ) -> Callable[[], Awaitable[JsonValue]]:
        async def work() -> JsonValue:
            await self._system.ask(message, timeout=timeout_s)
            return True

        return work

    def _checked(self, message: Message[System, None]) -> Callable[[], Awaitable[None]]:
        return lambda: self._system.ask(message, timeout=ASK_TIMEOUT_S)


class HardwareHandlers:
    """``/unit_api/hardware``. ``check``: see :mod:`piod.actors.hardware_check`."""

    def __init__(
        self,
        *,
        tasks: TaskHandlers,
        models: Models,
        check: Callable[[ModelKey], Awaitable[JsonValue]],
    ) -> None:
        self._tasks = tasks
        self._models = models
        self._check = check

    async def check(self, request: web.Request) -> web.Response:
        """Look for the chips that a model needs."""
        body = await decode_json(request, ModelSchema)
        model = self._models.get(body["model_name"], body["model_version"])
        return await self._tasks.launch(Launch("hardware check", lambda: self._check(model.key)))


def _unix_s(utc_clock_time: str) -> float:
    try:
        if not _TIME.fullmatch(utc_clock_time):
            raise ValueError
        moment = datetime.fromisoformat(utc_clock_time)
    except ValueError:
        raise BadRequest(
            "utc_clock_time must be a time with Z or a numeric offset, such as "
            f"2026-01-31T12:45:00Z; it is {utc_clock_time[:60]!r}"
        ) from None
    if not _EARLIEST <= moment < _LATEST:
        raise BadRequest(
            f"utc_clock_time must lie in the years 2020 to 2099; it is {utc_clock_time!r}"
        )
    return moment.timestamp()
