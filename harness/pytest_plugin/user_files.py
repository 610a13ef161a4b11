"""A user's own job file or script among the options: read and checked before anything starts, with what to play."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.config.matrix import cells_from
from harness.config.matrix_entry import Workloads
from harness.config.user_work import FIO_JOB, GUEST_SCRIPT, entry, read_user_file, with_user_files
from harness.errors import UsageError
from harness.model import Cell, UserFile
from harness.pytest_plugin.options import CHOICE_OPTIONS, flag
from harness.workloads.user_work import check_user_files

_OPTION = {FIO_JOB: flag("fio_job"), GUEST_SCRIPT: flag("guest_script")}


def user_files(config: pytest.Config) -> Mapping[str, UserFile]:
    """The files that were given, by their workload; :class:`~harness.errors.UsageError` where one cannot be used."""
    given = {workload: config.getoption(option) for workload, option in _OPTION.items()}
    files = {workload: read_user_file(Path(path), _OPTION[workload]) for workload, path in given.items() if path}
    check_user_files(files, _OPTION)
    return files


def cells_without_matrix(config: pytest.Config, files: Mapping[str, UserFile], workloads: Workloads) -> list[Cell]:
    """What to play with ``files`` where there is no matrix, by the options that say with what."""
    chosen = {name: config.getoption(flag(name)) for name in CHOICE_OPTIONS}
    refuse_choices(config, "a job or a script of yours", refused=not files)
    made = (cells_from(entry(workload, chosen), workloads, "the command line").cells for workload in files)
    return [*with_user_files((cell for cells in made for cell in cells), files)]


def refuse_choices(config: pytest.Config, what: str, *, refused: bool) -> None:
    """:class:`~harness.errors.UsageError` where one of these options was given that is only for ``what``."""
    given = [name for name in CHOICE_OPTIONS if config.getoption(flag(name))]
    if refused and given:
        raise UsageError(f"{flag(given[0])} is only for {what} without a matrix; a matrix says it itself")
