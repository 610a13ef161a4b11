"""fio job files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Option = str | int | bool


@dataclass(frozen=True)
class Job:
    """One job of a job file: its name and its options by fio's own names."""

    name: str
    options: Mapping[str, Option] = field(default_factory=dict)


def job_file(jobs: tuple[Job, ...], common: Mapping[str, Option] | None = None) -> str:
    """The job file for ``jobs``; ``common`` goes into ``[global]``.  True becomes 1, False 0."""
    sections = ([Job("global", common)] if common else []) + list(jobs)
    return "\n".join(_section(job) for job in sections)


def _section(job: Job) -> str:
    if any(character in job.name for character in "[]\n"):
        raise ValueError(f"'{job.name}' cannot be the name of a fio job")
    for key, value in job.options.items():
        if "\n" in f"{key}{value}":
            raise ValueError(f"the option {key!r} of the fio job '{job.name}' has a line break in it")
    lines = [f"{key}={int(value) if isinstance(value, bool) else value}" for key, value in job.options.items()]
    return "\n".join([f"[{job.name}]", *lines, ""])
