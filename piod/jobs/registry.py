"""The jobs that a unit can run: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from piod.jobs.job import Job
from piod.jobs.stirring import Stirring

JOBS: Mapping[str, type[Job]] = MappingProxyType({job.job_name: job for job in (Stirring,)})
"""Every job by its name."""
