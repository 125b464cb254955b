"""What somebody wants to run, and which lost jobs are run anew after an outage.

Nothing starts by itself unless ``[piod] resume_jobs`` names it, the job allows it,
and the outage was shorter than ``resume_within_min``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from piod.actors.model import ModelKey
from piod.config import Config
from piod.errors import PiodError
from piod.jobs.automation import find_kind
from piod.jobs.job import Job
from piod.storage.rows import JobRow, LostJobs

log = logging.getLogger(__name__)

UNIVERSAL_EXPERIMENT = "$experiment"
RESUME_WITHIN_MIN = 15.0
CLOCK_STEP_S = 5.0
"""A clock that woke further in the past than this cannot tell how long the outage was."""


@dataclass(frozen=True)
class RunRequest:
    """What somebody wants to run. ``options`` are as given, not parsed yet."""

    job_name: str
    options: Mapping[str, object]
    experiment: str = UNIVERSAL_EXPERIMENT
    job_source: str = "user"
    config_overrides: Sequence[tuple[str, str, str]] = ()
    active: bool = True
    model: ModelKey | None = None
    """The reactor model that the unit is, as a leader sees it."""
    is_resumed: bool = False
    """It goes on with what an outage of the daemon ended."""


def to_resume(
    lost: LostJobs, config: Config, kinds: Mapping[str, type[Job]], now_unix_s: float | None
) -> list[tuple[JobRow, RunRequest]]:
    """Which of the ``lost`` jobs are to be run anew, and how; says in the log why not.

    ``now_unix_s`` None: the clock cannot be trusted, so nobody knows how long the
    outage was, and nothing is run: a machine without a clock chip wakes at about
    the time when it lost its power, whether that was seconds or weeks ago.
    Raises ConfigurationError.
    """
    named = {name.strip() for name in config.text("piod", "resume_jobs", "").split(",")} - {""}
    within_min = config.number("piod", "resume_within_min", RESUME_WITHIN_MIN, minimum=0)
    for name in sorted(named):
        of_that_name = [kind for kind in kinds.values() if kind.job_name == name]
        if not any(kind.resumable for kind in of_that_name):
            why = "it never starts by itself" if of_that_name else "there is no such job"
            log.warning("[piod] resume_jobs: %s is not resumed, %s", name, why)
    wanted = [row for row in lost.jobs if row.job_name in named and _is_resumable(row, kinds)]
    if not wanted or lost.alive_at is None:
        return []
    alive_unix_s = datetime.fromisoformat(lost.alive_at).timestamp()
    if now_unix_s is None:
        why = "the clock is not synchronised, so the length of the outage is not known"
    elif now_unix_s < alive_unix_s - CLOCK_STEP_S:
        why = "the clock woke in the past, so the length of the outage is not known"
    elif now_unix_s > alive_unix_s + 60 * within_min:
        why = f"the outage took {now_unix_s - alive_unix_s:.0f} s"
    else:
        return [(row, _again(row)) for row in wanted]
    for row in wanted:
        log.warning("%s is not resumed: %s", title(row), why)
    return []


def title(row: JobRow) -> str:
    """How messages name a job."""
    return f"{row.job_name} (job {row.job_id})"


def _is_resumable(row: JobRow, kinds: Mapping[str, type[Job]]) -> bool:
    try:
        return find_kind(kinds, row.job_name, row.options).resumable
    except PiodError:
        return False  # its plugin is gone


def _again(row: JobRow) -> RunRequest:
    return RunRequest(
        row.job_name,
        row.options,
        row.experiment,
        row.job_source,
        row.config_overrides,
        is_resumed=True,
    )
