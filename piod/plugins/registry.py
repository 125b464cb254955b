"""The jobs of a unit: built in, and added by plugins while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from piod.jobs.job import Job


class JobRegistry(Mapping[str, type[Job]]):
    """Every job by its name. What plugins add may be replaced at any time.

    Whoever looks a job up sees the newest; a job that runs keeps its class.
    """

    def __init__(self, built_in: Mapping[str, type[Job]]) -> None:
        self._built_in = dict(built_in)
        self._all = dict(built_in)

    @property
    def built_in(self) -> Mapping[str, type[Job]]:
        """The jobs that no plugin can replace."""
        return self._built_in

    def set_added(self, added: Mapping[str, type[Job]]) -> None:
        """Let ``added``, in place of what was added before, stand beside the built-in jobs."""
        self._all = {**added, **self._built_in}

    def __getitem__(self, job_name: str) -> type[Job]:
        return self._all[job_name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
