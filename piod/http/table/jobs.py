"""Health, version, capabilities, tasks, jobs and settings."""

from __future__ import annotations

from collections.abc import Iterator

from piod.http.jobs import (
    ROW_EXAMPLE,
    SETTINGS_EXAMPLE,
    ChangeSchema,
    HistoryQuery,
    JobHandlers,
    RunSchema,
    StopSchema,
)
from piod.http.routes import COMMAND, GET, PATCH, Answer, Route
from piod.http.tasks import LAUNCHED, PENDING_EXAMPLE, RESULT_EXAMPLE, TaskHandlers, TaskSchema
from piod.http.unit import HEALTH_EXAMPLE, UnitHandlers

JOB_NAME = {"job_name": "Name of the job, such as stirring."}
JOB_ID = {"job_id": "Id of a running job."}

ROWS = {200: Answer("The running jobs, oldest first.", [ROW_EXAMPLE])}
HISTORY = {200: Answer("Jobs, newest first.", [{**ROW_EXAMPLE, "state": "ready", "reason": None}])}
SETTINGS = {200: Answer("Values as text, by setting.", SETTINGS_EXAMPLE)}


def job_routes(unit: UnitHandlers, tasks: TaskHandlers, jobs: JobHandlers) -> Iterator[Route]:
    """The routes of this module's title."""
    api = "/unit_api"
    yield Route(
        GET,
        f"{api}/health",
        unit.health,
        tag="Unit",
        summary="Whether the unit is well",
        description="Besides the documented keys: what is wrong now, and which jobs were lost.",
        answers={200: Answer("The unit answers.", HEALTH_EXAMPLE)},
        max_age_s=0,
    )
    yield Route(
        GET,
        f"{api}/versions/app",
        unit.app_version,
        tag="Unit",
        summary="Version of piod",
        answers={200: Answer("The version.", {"version": "v1.0.0"})},
        max_age_s=30,
    )
    yield Route(
        GET,
        f"{api}/capabilities",
        jobs.capabilities,
        tag="Unit",
        summary="What this unit can run, and what can be set",
        answers={
            200: Answer("Jobs with their options, and settings.", {"jobs": [], "settings": []})
        },
    )
    yield Route(
        GET,
        f"{api}/task_results/{{task_id}}",
        tasks.result,
        tag="Tasks",
        summary="State and result of a task",
        path_params={"task_id": "Id from the answer that launched it."},
        answers={
            200: Answer("The task is complete or failed.", RESULT_EXAMPLE, schema=TaskSchema),
            202: Answer("The task is pending or in progress.", PENDING_EXAMPLE, schema=TaskSchema),
        },
        errors=(404,),
    )
    yield Route(
        COMMAND,
        f"{api}/jobs/run/job_name/{{job_name}}",
        jobs.run,
        tag="Jobs",
        summary="Run a job",
        description="The task is complete when the job is ready, and failed, with the reason, "
        "when it refuses or crashes while it starts.",
        path_params=JOB_NAME,
        body=RunSchema,
        answers=LAUNCHED,
        errors=(404, 409, 429, 503, 507),
    )
    yield Route(
        COMMAND,
        f"{api}/jobs/stop/all",
        jobs.stop_all,
        tag="Jobs",
        summary="Stop all jobs",
        description="All but the daemon's own. The task is complete when they have ended and "
        "their outputs are off.",
        answers=LAUNCHED,
        errors=(503, 507),
    )
    yield Route(
        COMMAND,
        f"{api}/jobs/stop",
        jobs.stop,
        tag="Jobs",
        summary="Stop the jobs that match",
        description="Filters combine with AND; at least one is needed.",
        body=StopSchema,
        answers=LAUNCHED,
        errors=(503, 507),
    )
    yield Route(
        GET,
        f"{api}/jobs",
        jobs.history,
        tag="Jobs",
        summary="History of jobs",
        query=HistoryQuery,
        answers=HISTORY,
        errors=(503,),
    )
    yield Route(
        GET,
        f"{api}/jobs/running",
        jobs.running,
        tag="Jobs",
        summary="Running jobs",
        answers=ROWS,
    )
    yield Route(
        GET,
        f"{api}/jobs/running/experiments/{{experiment}}",
        jobs.running_in_experiment,
        tag="Jobs",
        summary="Running jobs of an experiment",
        path_params={"experiment": "Name of the experiment."},
        answers=ROWS,
    )
    yield Route(
        GET,
        f"{api}/jobs/running/{{job_name}}",
        jobs.running_job,
        tag="Jobs",
        summary="Running jobs of one name",
        path_params=JOB_NAME,
        answers=ROWS,
    )
    yield Route(
        GET,
        f"{api}/long_running_jobs/running",
        jobs.long_running,
        tag="Jobs",
        summary="Running jobs that belong to the daemon",
        answers=ROWS,
    )
    yield Route(
        GET,
        f"{api}/jobs/settings/job_name/{{job_name}}",
        jobs.settings,
        tag="Settings",
        summary="Settings of a running job",
        path_params=JOB_NAME,
        answers=SETTINGS,
        errors=(404,),
    )
    yield Route(
        PATCH,
        f"{api}/jobs/settings/job_name/{{job_name}}",
        jobs.change_by_name,
        tag="Settings",
        summary="Not implemented on a unit",
        description="Always 503. The remediation names the endpoint that changes settings.",
        path_params=JOB_NAME,
        answers={},
        errors=(503,),
    )
    yield Route(
        GET,
        f"{api}/jobs/settings/job_name/{{job_name}}/setting/{{setting}}",
        jobs.setting,
        tag="Settings",
        summary="One setting of a running job",
        path_params={**JOB_NAME, "setting": "Name of the setting."},
        answers={200: Answer("Its value as text.", {"target_rpm": "200"})},
        errors=(404,),
    )
    yield Route(
        GET,
        f"{api}/jobs/settings/job_id/{{job_id}}",
        jobs.settings_by_id,
        tag="Settings",
        summary="Settings of the job with an id",
        path_params=JOB_ID,
        answers=SETTINGS,
        errors=(404,),
    )
    yield Route(
        PATCH,
        f"{api}/jobs/settings/job_id/{{job_id}}",
        jobs.change,
        tag="Settings",
        summary="Change settings of a running job",
        description="All or none. $state may be set to sleeping, ready or disconnected.",
        path_params=JOB_ID,
        body=ChangeSchema,
        answers={200: Answer("The new values.", {"settings": {"target_rpm": "700"}})},
        errors=(404, 503),
    )
