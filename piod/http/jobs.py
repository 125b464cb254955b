"""Running and stopping jobs, finding them, and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from aiohttp import web
from marshmallow import fields

from piod.actors.actor import Ref
from piod.actors.job import ChangeSettings
from piod.actors.jobs import (
    START_TIMEOUT_S,
    CheckRun,
    JobFilter,
    Jobs,
    JobView,
    Run,
    Running,
    Stop,
)
from piod.actors.resume import UNIVERSAL_EXPERIMENT, RunRequest
from piod.actors.tasks import Launch
from piod.errors import BadRequest, NotFound, Unavailable
from piod.events import JsonValue
from piod.http.answers import JSON_HEADERS, json_answer, json_bytes
from piod.http.decode import Decoded, Object, StrictText, decode_json, decode_query, plain_text
from piod.http.tasks import ASK_TIMEOUT_S, TaskHandlers
from piod.jobs.capabilities import capabilities
from piod.jobs.job import Job
from piod.storage.ledger import Ledger
from piod.storage.rows import JobRow

SETTING_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
REMEMBERED_ROWS = 100

ENVIRONMENT = ("EXPERIMENT", "JOB_SOURCE", "ACTIVE", "MODEL_NAME", "MODEL_VERSION")
"""The keys of ``env`` that mean something here. Path-like ones of a leader never do."""


class _RunBody(TypedDict):
    options: dict[str, object]
    env: dict[str, str]
    args: list[str]
    config_overrides: list[list[str]]


class RunSchema(Decoded[_RunBody]):
    may_be_empty = True
    example = {
        "options": {"target_rpm": "200"},
        "env": {"EXPERIMENT": "Exp001"},
        "args": [],
        "config_overrides": [],
    }
    options = Object(
        keys=StrictText(),
        load_default=dict,
        metadata={
            "description": "Values by option: text, number, boolean, or null for a bare flag. "
            "What a job takes, GET /unit_api/capabilities tells."
        },
    )
    env = Object(
        keys=StrictText(),
        values=StrictText(may_be_empty=True),
        load_default=dict,
        metadata={"description": "EXPERIMENT, JOB_SOURCE and others; unknown keys are ignored."},
    )
    args = fields.List(
        StrictText(may_be_empty=True),
        load_default=list,
        metadata={"description": "Positional arguments; no job of this unit takes any."},
    )
    config_overrides = fields.List(
        fields.List(StrictText(may_be_empty=True)),
        load_default=list,
        metadata={
            "description": "[section, parameter, value] texts; they apply to this job alone."
        },
    )


class _StopBody(TypedDict):
    job_name: str | None
    experiment: str | None
    job_source: str | None
    job_id: str | int | None


class _JobId(StrictText):
    """Text, or a whole number as upstream's clients send it."""

    def _deserialize(self, value: object, *args: object, **options: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return super()._deserialize(value, *args, **options)


class StopSchema(Decoded[_StopBody]):
    example = {"job_name": "stirring", "experiment": "Exp001"}
    job_name = StrictText(
        load_default=None,
        allow_none=True,
        may_be_empty=True,
        metadata={"description": "Jobs of this name."},
    )
    experiment = StrictText(
        load_default=None,
        allow_none=True,
        may_be_empty=True,
        metadata={"description": "Jobs of this experiment."},
    )
    job_source = StrictText(
        load_default=None,
        allow_none=True,
        may_be_empty=True,
        metadata={"description": "Jobs that this source started."},
    )
    job_id = _JobId(
        load_default=None,
        allow_none=True,
        may_be_empty=True,
        metadata={"description": "The job with this id."},
    )


class _ChangeBody(TypedDict):
    settings: dict[str, object]


class ChangeSchema(Decoded[_ChangeBody]):
    example = {"settings": {"target_rpm": 700}}
    settings = Object(
        keys=StrictText(),
        required=True,
        metadata={
            "description": "New values by setting, all or none. $state may be ready, sleeping "
            "or disconnected."
        },
    )


class _HistoryQuery(TypedDict):
    limit: int
    offset: int


class HistoryQuery(Decoded[_HistoryQuery]):
    limit = fields.Integer(load_default=10_000, metadata={"description": "How many at most."})
    offset = fields.Integer(load_default=0, metadata={"description": "How many to leave out."})


ROW_EXAMPLE = {
    "job_name": "stirring",
    "job_id": "12",
    "experiment": "Exp001",
    "unit": "pio01",
    "job_source": "user",
    "started_at": "2026-01-31T12:45:00.000Z",
    "is_running": 1,
    "leader": "leader01",
    "pid": 1234,
    "is_long_running_job": 0,
    "ended_at": None,
}
SETTINGS_EXAMPLE = {"settings": {"target_rpm": "200", "duty_cycle": "15.2", "$state": "ready"}}


class JobHandlers:
    """``/unit_api/jobs`` and ``/unit_api/capabilities``."""

    def __init__(
        self,
        *,
        jobs: Ref[Jobs],
        tasks: TaskHandlers,
        ledger: Ledger,
        kinds: Mapping[str, type[Job]],
    ) -> None:
        self._jobs = jobs
        self._tasks = tasks
        self._ledger = ledger
        self._kinds = kinds
        self._described: tuple[type[Job], ...] | None = None
        """The jobs that ``_capabilities`` tells of: plugins come and go."""
        self._capabilities = b""
        self._encoded: dict[str, tuple[JobRow, bytes]] = {}

    # -- running and stopping -------------------------------------------------------

    async def run(self, request: web.Request) -> web.Response:
        """Check what can be checked now, then start the job in the background."""
        job_name = plain_text(request.match_info["job_name"], "job_name")
        body = await decode_json(request, RunSchema)
        wanted = _run_request(job_name, body)
        await self._jobs.ask(CheckRun(wanted), timeout=ASK_TIMEOUT_S)

        async def start() -> JsonValue:
            job_id = await self._jobs.ask(Run(wanted), timeout=START_TIMEOUT_S)
            return {"ok": True, "job_id": job_id}

        return await self._tasks.launch(Launch(f"run {job_name}", start))

    async def stop(self, request: web.Request) -> web.Response:
        """Stop the jobs that match all given filters."""
        body = await decode_json(request, StopSchema)
        which = JobFilter(
            job_name=body["job_name"] or None,
            experiment=body["experiment"] or None,
            job_source=body["job_source"] or None,
            job_id=None if body["job_id"] in (None, "") else str(body["job_id"]),
        )
        if which == JobFilter():
            raise BadRequest(
                "stopping jobs needs at least one of job_name, experiment, job_source, job_id",
                remediation="Name one of them, or use /unit_api/jobs/stop/all.",
            )
        return await self._stop(which)

    async def stop_all(self, request: web.Request) -> web.Response:
        """Stop all jobs but the daemon's own."""
        return await self._stop(JobFilter(long_running=False))

    async def _stop(self, which: JobFilter) -> web.Response:
        async def stop() -> JsonValue:
            stopped = await self._jobs.ask(Stop(which), timeout=STOP_TIMEOUT_S)
            if stopped == 0:
                return {"ok": True, "stopped": 0, "msg": "No running job matched."}
            return {"ok": True, "stopped": stopped}

        # at once: turning outputs off does not wait for the disk
        return await self._tasks.launch(Launch("stop jobs", stop, at_once=True))

    # -- finding --------------------------------------------------------------------

    async def running(self, request: web.Request) -> web.Response:
        return await self._rows(JobFilter())

    async def running_job(self, request: web.Request) -> web.Response:
        return await self._rows(JobFilter(job_name=request.match_info["job_name"]))

    async def running_in_experiment(self, request: web.Request) -> web.Response:
        return await self._rows(JobFilter(experiment=request.match_info["experiment"]))

    async def long_running(self, request: web.Request) -> web.Response:
        views = await self._running(JobFilter())
        return json_answer([_row(v.row) for v in views if v.row.is_long_running_job])

    async def history(self, request: web.Request) -> web.Response:
        """All jobs that the unit remembers, the newest first."""
        query = decode_query(request, HistoryQuery)
        limit, offset = query["limit"], query["offset"]
        if not (0 < limit <= 100_000 and 0 <= offset < 2**53):
            raise BadRequest("limit must be 1 to 100000, and offset at least 0")
        rows = await self._ledger.history(limit, offset)
        return json_answer(
            [{**_row(row), "state": row.state, "reason": row.reason} for row in rows]
        )

    async def capabilities(self, request: web.Request) -> web.Response:
        kinds = tuple(self._kinds.values())
        if kinds != self._described:
            self._capabilities = json_bytes(capabilities(kinds))
            self._described = kinds
        return web.Response(body=self._capabilities, content_type="application/json")

    async def _running(self, which: JobFilter) -> list[JobView]:
        return await self._jobs.ask(Running(which), timeout=ASK_TIMEOUT_S)

    async def _rows(self, which: JobFilter) -> web.Response:
        rows = [self._row_bytes(view.row) for view in await self._running(which)]
        return web.Response(body=b"[" + b",".join(rows) + b"]", headers=JSON_HEADERS)

    def _row_bytes(self, row: JobRow) -> bytes:
        """A running job as JSON, encoded once: leaders ask often, and rows seldom change."""
        row_then, encoded = self._encoded.get(row.job_id, (None, b""))
        if row_then is not row:
            if len(self._encoded) >= REMEMBERED_ROWS:
                self._encoded.clear()
            encoded = json_bytes(_row(row))
            self._encoded[row.job_id] = (row, encoded)
        return encoded

    # -- settings -------------------------------------------------------------------

    async def settings(self, request: web.Request) -> web.Response:
        """The settings of the running jobs of one name; of several, the newest wins."""
        return json_answer({"settings": await self._settings(request.match_info["job_name"])})

    async def setting(self, request: web.Request) -> web.Response:
        job_name, setting = request.match_info["job_name"], request.match_info["setting"]
        settings = await self._settings(job_name)
        if setting not in settings:
            raise NotFound(
                f"{job_name} publishes no setting {setting!r} now",
                remediation=f"It publishes: {', '.join(settings)}.",
            )
        return json_answer({setting: settings[setting]})

    async def settings_by_id(self, request: web.Request) -> web.Response:
        view = await self._by_id(request.match_info["job_id"])
        return json_answer({"settings": dict(view.settings)})

    async def change(self, request: web.Request) -> web.Response:
        """Change settings of one running job, all or none."""
        view = await self._by_id(request.match_info["job_id"])
        body = await decode_json(request, ChangeSchema)
        if not body["settings"]:
            raise BadRequest("settings must name at least one setting")
        changed = await view.ref.ask(ChangeSettings(body["settings"]), timeout=SETTING_TIMEOUT_S)
        return json_answer({"settings": changed})

    async def change_by_name(self, request: web.Request) -> web.Response:
        """The documented refusal; it names the endpoint that does it."""
        raise Unavailable(
            "settings are not changed by job name on a unit",
            remediation="Use PATCH /unit_api/jobs/settings/job_id/{job_id} with "
            '{"settings": {...}}; GET /unit_api/jobs/running tells the job_id.',
        )

    async def _settings(self, job_name: str) -> dict[str, str]:
        views = await self._running(JobFilter(job_name=job_name))
        if not views:
            raise NotFound(
                f"no job named {job_name!r} is running",
                remediation="GET /unit_api/jobs/running lists the jobs that are.",
            )
        merged: dict[str, str] = {}
        for view in views:
            merged |= view.settings
        return merged

    async def _by_id(self, job_id: str) -> JobView:
        views = await self._running(JobFilter(job_id=job_id))
        if not views:
            raise NotFound(
                f"no job with the id {job_id!r} is running",
                remediation="GET /unit_api/jobs/running lists the jobs that are.",
            )
        return views[0]


def _meant(env: Mapping[str, str], key: str) -> str | None:
    value = env.get(key, "")
    return None if value in ("", "None") else value


def _run_request(job_name: str, body: _RunBody) -> RunRequest:
    if body["args"]:
        raise BadRequest(
            f"{job_name} takes no positional arguments, got {body['args'][0]!r}",
            remediation="Give options by name.",
        )
    overrides: list[tuple[str, str, str]] = []
    for index, override in enumerate(body["config_overrides"]):
        if len(override) != 3:
            raise BadRequest(
                f"config_overrides[{index}] must be exactly three texts: "
                "[section, parameter, value]"
            )
        overrides.append((override[0], override[1], override[2]))
    env = body["env"]
    model_name, model_version = _meant(env, "MODEL_NAME"), _meant(env, "MODEL_VERSION")
    return RunRequest(
        job_name=job_name,
        options=body["options"],
        experiment=plain_text(_meant(env, "EXPERIMENT") or UNIVERSAL_EXPERIMENT, "EXPERIMENT"),
        job_source=plain_text(_meant(env, "JOB_SOURCE") or "user", "JOB_SOURCE"),
        config_overrides=tuple(overrides),
        active=_meant(env, "ACTIVE") != "0",
        model=(model_name, model_version) if model_name and model_version else None,
    )


def _row(row: JobRow) -> dict[str, object]:
    return {
        "job_name": row.job_name,
        "job_id": row.job_id,
        "experiment": row.experiment,
        "unit": row.unit,
        "job_source": row.job_source,
        "started_at": row.started_at,
        "is_running": int(row.is_running),
        "leader": row.leader,
        "pid": row.pid,
        "is_long_running_job": int(row.is_long_running_job),
        "ended_at": row.ended_at,
    }
