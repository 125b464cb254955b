"""Task results, and how a handler answers that something was launched."""

from __future__ import annotations

import time
from dataclasses import replace

from aiohttp import web
from marshmallow import Schema, fields

from piod.actors.actor import Ref
from piod.actors.tasks import GetTask, Launch, Launched, LookAtLock, Tasks
from piod.errors import PiodError
from piod.http.answers import json_answer
from piod.http.routes import Answer
from piod.storage.rows import TaskRow

ASK_TIMEOUT_S = 5.0
REFUSE_BEFORE_S = 0.5
"""So long before the end of an ask a launch that has not been accepted is refused."""

TASK_EXAMPLE = {
    "unit": "pio01",
    "task_id": "1f0c8a50-6b1e-4c8e-9f0c-0a4f6b1f2d33",
    "result_url_path": "/unit_api/task_results/1f0c8a50-6b1e-4c8e-9f0c-0a4f6b1f2d33",
}
RESULT_EXAMPLE = {
    "task_id": TASK_EXAMPLE["task_id"],
    "result_url_path": TASK_EXAMPLE["result_url_path"],
    "status": "complete",
    "result": {"ok": True, "job_id": "12"},
}
PENDING_EXAMPLE = {**RESULT_EXAMPLE, "status": "in_progress"}
del PENDING_EXAMPLE["result"]


class TaskSchema(Schema):
    """A task, whatever its state; ``result`` is any JSON value."""

    task_id = fields.String()
    result_url_path = fields.String()
    status = fields.String()
    result = fields.Raw()
    error = fields.String()
    error_info = fields.Dict()


LAUNCHED = {202: Answer("Accepted: the task that does it.", TASK_EXAMPLE)}
"""The answers of a route that launches a task."""


def result_path(task_id: str) -> str:
    """Where a task's result is found."""
    return f"/unit_api/task_results/{task_id}"


class TaskHandlers:
    """``/unit_api/task_results``, and launches for the other handlers."""

    def __init__(self, tasks: Ref[Tasks], unit_name: str) -> None:
        self._tasks = tasks
        self._unit_name = unit_name

    async def launch(self, launch: Launch, *, timeout_s: float = ASK_TIMEOUT_S) -> web.Response:
        """Launch, and answer 202 with where the result will be.

        ``timeout_s``: how long its check may take.
        """
        return self.accepted(await self.begin(launch, timeout_s=timeout_s))

    async def begin(self, launch: Launch, *, timeout_s: float = ASK_TIMEOUT_S) -> Launched:
        """As :meth:`launch`, for those that have to know whether it is theirs that runs."""
        accept_by = time.monotonic() + timeout_s - REFUSE_BEFORE_S
        return await self._tasks.ask(replace(launch, accept_by=accept_by), timeout=timeout_s)

    def accepted(self, launched: Launched) -> web.Response:
        """The answer that tells of ``launched``."""
        return json_answer(self._launched(launched), status=202)

    async def busy(self, lock: str) -> web.Response | None:
        """What to answer at once because ``lock`` is held; Conflict as for a launch."""
        held = await self._tasks.ask(LookAtLock(lock), timeout=ASK_TIMEOUT_S)
        return None if held is None else self.accepted(held)

    async def result(self, request: web.Request) -> web.Response:
        """The state of one task: 202 while it is under way, 200 when it is over."""
        task_id = request.match_info["task_id"]
        task = await self._tasks.ask(GetTask(task_id), timeout=ASK_TIMEOUT_S)
        over = task.status in ("complete", "failed")
        return json_answer(_told(task), status=200 if over else 202)

    def _launched(self, launched: Launched) -> dict[str, object]:
        task = launched.task
        body: dict[str, object] = {
            "unit": self._unit_name,
            "task_id": task.task_id,
            "result_url_path": result_path(task.task_id),
        }
        if launched.busy:
            body |= {"status": "in_progress", "lock": task.lock}
        return body


def _told(task: TaskRow) -> dict[str, object]:
    body: dict[str, object] = {
        "task_id": task.task_id,
        "result_url_path": result_path(task.task_id),
        "status": task.status,
    }
    if task.status == "complete":
        body["result"] = task.result
    elif task.status == "failed":
        error = task.error or "the task failed"
        body["error"] = error
        body["error_info"] = {
            "cause": task.cause or error,
            "remediation": task.remediation or PiodError.default_remediation,
            "status": task.error_status or 500,
        }
    return body
