"""A run that plays cells of a stored one again, on a lab like its own, with its stack unless another is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytest

from harness.config.controls import with_controls
from harness.config.repetitions import repeated
from harness.config.run_specs import specs_from_options, specs_of
from harness.errors import UsageError
from harness.model import Cell, Run
from harness.model.aliases import former_id
from harness.pytest_plugin.options import (
    CHOICE_OPTIONS,
    IMAGE_OPTIONS,
    INVENTORY_OPTIONS,
    LAB_OPTIONS,
    STACK_OPTIONS,
    USER_FILE_OPTIONS,
    flag,
)
from harness.store import Store
from harness.workloads import WORKLOADS

# Of a stack, which may be another; all else is the stored run's.
_STACK = ("suite", "guest_suite", *STACK_OPTIONS)
_REFUSED = ("matrix", "resume", *USER_FILE_OPTIONS, *CHOICE_OPTIONS, *IMAGE_OPTIONS, *INVENTORY_OPTIONS)


def planned_like(config: pytest.Config, repeat: int | None, seed: int) -> Run | None:
    """What is planned where ``--drbd-like`` names a run: its cells, each ``repeat`` times or as often as it has them.

    ``--drbd-cell`` chooses some of them by their ids.  None without the option; :class:`~harness.errors.UsageError`
    where the run does not know enough of itself, or another option says something else.
    """
    which: str | None = config.getoption(flag("like"))
    chosen: list[str] | None = config.getoption(flag("cell"))
    if which is None:
        if chosen:
            raise UsageError(f"{flag('cell')} chooses among the cells of a run: give it with {flag('like')} RUN")
        return None
    lab_options = [name for name in LAB_OPTIONS if name not in _STACK]
    if given := [name for name in (*_REFUSED, *lab_options) if config.getoption(flag(name))]:
        raise UsageError(f"{flag('like')} plays what the run has, on a lab like its own; leave {flag(given[0])} out")
    stored = Store.open(Path(config.getoption(flag("runs"))), which).run()
    cells = _chosen(stored, chosen or ())
    lab, stack = _specs(stored, {name: config.getoption(flag(name)) for name in _STACK})
    return Run(
        "", stored.matrix, "", with_controls(repeated(cells, repeat, seed)), seed=seed, lab_spec=lab, stack_spec=stack,
        matrix_digest=stored.matrix_digest,
    )  # fmt: skip


def _chosen(stored: Run, chosen: Sequence[str]) -> tuple[Cell, ...]:
    cells = [cell for cell in stored.cells if cell.control is None]
    names = {name: cell.id for cell in cells for name in (former_id(cell.id), cell.id)}
    for one in chosen:
        if one not in names:
            near = get_close_matches(one, names, n=1)
            meant = f"; did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"the run '{stored.id}' has no cell '{one}'{meant}")
    wanted = {names[one] for one in chosen}
    found = tuple(cell for cell in cells if not chosen or cell.id in wanted)
    if not found:
        raise UsageError(f"the run '{stored.id}' has no cell that could be played again")
    if own := next((cell for cell in found if cell.workload not in WORKLOADS), None):
        raise UsageError(f"the cell '{own.id}' of the run '{stored.id}' is a test's own; only that test plays it")
    return found


def _specs(stored: Run, asked: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    other = {name: value for name, value in asked.items() if value is not None}
    if not other and not stored.stack_spec:
        raise UsageError(f"the run '{stored.id}' does not say which stack it was played with: give {flag('stack')}")
    lab, stack = specs_of(replace(stored, stack_spec={}) if other else stored)
    if other:
        _, stack = specs_from_options(other)
    return lab.as_table(), stack.as_table()
