"""What cells cost on a lab, by kind of cell and phase: learnt from stored runs, kept in a table.

The table ``costs.json`` comes with the harness; ``ci/costs`` writes it.  Each run that ends leaves its own costs beside
its report, so that the next one on the same machine knows better.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from harness.errors import HarnessError, UsageError
from harness.model import BLOCK_BYTES, SCHEMA_VERSION, Cell, ClientKind, Evidence, Run
from harness.report.phases import WORK
from harness.store import Store, run_ids
from harness.util.atomic_file import write_atomic
from harness.util.read_file import read_file
from harness.util.script import ScriptParser, run_script

FILE = "costs.json"
#: The table that comes with the harness.
TABLE = Path(__file__).parent / FILE
#: Seconds of an attempt that no phase claims, a new guest say, and those from its end to the next one's beginning.
OUTSIDE, BETWEEN = "between phases", "between cells"
# A longer pause is no cost of a cell: a lab was rebuilt, or attempts in between were not kept.
_LONGEST_PAUSE = 10.0
# What takes longer is no cost of a lab: images were built, or somebody came back to the run the next day.
_LONGEST_OF_LAB = 600.0
# Decades, in seconds: nothing of a run is as much.
_MOST = 1e9
# The newest runs of this machine that are asked.
_OWN_RUNS = 20


@dataclass(frozen=True)
class CellKind:
    """What the cost of a cell depends on, as a matrix writes it; ``disturbance`` as ``crash.node``, or empty."""

    client: str
    filesystem: str
    layout: str
    workload: str
    disturbance: str = ""

    @classmethod
    def of(cls, cell: Cell) -> CellKind:
        """The kind of ``cell``."""
        disturbances = (
            f"crash.{cell.crash}" if cell.crash else "",
            f"fault.{cell.fault}" if cell.fault else "",
            f"sabotage.{cell.sabotage}" if cell.sabotage else "",
            "migrations" if cell.migrations else "",
        )
        happens = next(filter(None, disturbances), "")
        return cls(str(cell.client), str(cell.filesystem), str(cell.layout), cell.workload, happens)

    @property
    def place(self) -> str:
        """The filesystem and layout, and whether the node itself is the client."""
        name = self.filesystem if self.layout == "raw" else f"{self.filesystem} on {self.layout}"
        disturbance = f", {self.disturbance}" if self.disturbance else ""
        return f"{'node: ' if self.client == ClientKind.HOST else ''}{name}{disturbance}"

    def __str__(self) -> str:
        parts = (
            "node:" if self.client == ClientKind.HOST else "",
            "" if self.layout == "raw" else self.layout,
            "" if self.filesystem == "raw" else self.filesystem,
            self.workload,
            f"({self.disturbance})" if self.disturbance else "",
        )
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class KindCost:
    """The mean of ``attempts`` at cells of one kind, in seconds by phase.

    ``work`` is what it took beyond the seconds that were asked for.  ``mib`` is the size of the device, ``moves`` how
    often the guest was migrated.
    """

    kind: CellKind
    attempts: int
    seconds: Mapping[str, float]
    mib: float
    moves: float = 0.0


@dataclass(frozen=True)
class RunCosts:
    """What one run cost, in seconds; None where that is not known.

    ``bring_up``: until its first cell began, without a guest.  ``guest``: to start the first one.  ``end``: from its
    last cell to its end.  ``resize``: to make the device anew with another size.  ``schema``: what its evidence was
    written in, for a cell cost less when less was looked at.  ``stack``: its name and the generation of DRBD, which
    other phases take other times on; empty where that was not noted.
    """

    run: str
    accelerator: str
    schema: int = SCHEMA_VERSION
    bring_up: float | None = None
    guest: float | None = None
    end: float | None = None
    resize: float | None = None
    kinds: tuple[KindCost, ...] = field(default=())
    stack: str = ""


_TABLE = TypeAdapter(tuple[RunCosts, ...])


def learnt(run: Run, attempts: Iterable[Evidence]) -> RunCosts:
    """What the cells of a stored run cost.  Attempts that failed are left out: how long one takes says nothing."""
    order = sorted(attempts, key=lambda one: one.started_at)
    by_kind: dict[CellKind, list[Evidence]] = {}
    seconds: dict[int, dict[str, float]] = {}
    guests: dict[str, float] = {}
    for number, one in enumerate(order):
        spent = dict(one.phases)
        spent[WORK] = spent.get(WORK, 0.0) - one.cell.seconds
        total = _seconds(one.started_at, one.finished_at)
        outside = max(0.0, total - sum(one.phases.values())) if total is not None else 0.0
        if one.cell.client is ClientKind.GUEST and one.lab not in guests:
            guests[one.lab], outside = outside, 0.0
        spent[OUTSIDE] = outside
        after = order[number + 1] if number + 1 < len(order) else None
        pause = _seconds(one.finished_at, after.started_at) if after is not None and after.lab == one.lab else None
        spent[BETWEEN] = pause if pause is not None and 0 <= pause < _LONGEST_PAUSE else 0.0
        seconds[id(one)] = spent
        if one.failure is None and one.phases:
            by_kind.setdefault(CellKind.of(one.cell), []).append(one)
    return RunCosts(
        run.id,
        run.stack.accelerator,
        max((one.schema for one in order), default=run.schema),
        bring_up=_short(_seconds(run.started_at, order[0].started_at)) if order else None,
        guest=_rounded(statistics.fmean(guests.values())) if guests else None,
        end=_short(_seconds(order[-1].finished_at, run.finished_at)) if order else None,
        resize=_each_resize(run, order),
        kinds=tuple(_kind_cost(kind, found, seconds) for kind, found in sorted(by_kind.items(), key=_by_name)),
        stack=f"{run.stack_name}, DRBD {run.stack.drbd.partition('.')[0]}" if run.stack_name else "",
    )


def _each_resize(run: Run, order: Sequence[Evidence]) -> float | None:
    times = sum(
        one.lab == after.lab and one.device_blocks != after.device_blocks for one, after in itertools.pairwise(order)
    )
    return _rounded(run.lab_seconds["resize"] / times) if times and "resize" in run.lab_seconds else None


def _by_name(item: tuple[CellKind, object]) -> tuple[str, ...]:
    kind = item[0]
    return kind.client, kind.filesystem, kind.layout, kind.workload, kind.disturbance


def _kind_cost(kind: CellKind, found: Sequence[Evidence], seconds: Mapping[int, Mapping[str, float]]) -> KindCost:
    spent = [seconds[id(one)] for one in found]
    phases = dict.fromkeys(name for one in spent for name in one)
    means = {name: statistics.fmean(one.get(name, 0.0) for one in spent) for name in phases}
    return KindCost(
        kind,
        len(found),
        {name: round(mean, 2) for name, mean in means.items() if round(mean, 2)},
        _rounded(statistics.fmean(one.device_blocks * BLOCK_BYTES / 2**20 for one in found)),
        _rounded(statistics.fmean(one.cell.migrations for one in found)),
    )


def _rounded(value: float) -> float:
    return round(value, 2)


def _short(seconds: float | None) -> float | None:
    return _rounded(seconds) if seconds is not None and 0 <= seconds < _LONGEST_OF_LAB else None


def _seconds(begin: str, end: str) -> float | None:
    try:
        return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    except (ValueError, TypeError):
        return None


# --------------------------------------------------------------------------- files


def read_table(path: Path = TABLE) -> tuple[RunCosts, ...]:
    """The runs of a table; :class:`ValueError` or :class:`OSError` where it cannot be read."""
    return _TABLE.validate_json(read_file(path))


def table_of_checkout() -> tuple[RunCosts, ...]:
    """The runs of the table that comes along; :class:`~harness.errors.UsageError` where it was damaged."""
    try:
        return read_table()
    except OSError as error:
        raise UsageError(f"{TABLE} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{TABLE} is damaged; 'git checkout' brings it back, or remove it") from error


def table_bytes(costs: Iterable[RunCosts]) -> bytes:
    """A table of ``costs``, the same for the same ones."""
    return _TABLE.dump_json(tuple(sorted(costs, key=lambda one: one.run)), indent=1) + b"\n"


def keep_costs(directory: Path, run: Run, attempts: Iterable[Evidence]) -> None:
    """Keep what a run cost in its folder; :class:`~harness.errors.StoreError` where there is no room."""
    write_atomic(directory / FILE, table_bytes([learnt(run, attempts)]))


def own_costs(runs: Path, accelerator: str) -> tuple[RunCosts, ...]:
    """The costs that the newest runs below ``runs`` left, those under ``accelerator``; what cannot be read is none."""
    found: list[RunCosts] = []
    try:
        newest = sorted(runs.glob(f"*/{FILE}"), reverse=True)[:_OWN_RUNS]
    except OSError:
        return ()
    for path in newest:
        with suppress(OSError, ValidationError):
            found += (one for one in read_table(path) if one.accelerator == accelerator and _plausible(one))
    return tuple(found)


def _plausible(one: RunCosts) -> bool:
    """Whether it can be reckoned with: a run may be somebody's, and what is no number or is endless leads nowhere."""
    numbers = [one.bring_up, one.guest, one.end, one.resize]
    for kind in one.kinds:
        numbers += [kind.mib, kind.moves, *kind.seconds.values()]
    finite = all(number is None or abs(number) < _MOST for number in numbers)
    return finite and all(0 < kind.attempts < _MOST for kind in one.kinds)


def main() -> int:
    """Write the table anew from the runs that are kept in the checkout; runs that are named are added to it."""
    parser = ScriptParser(prog="ci/costs", description=main.__doc__)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="the folder of a run to add to the table")
    parser.add_argument("--checkout", type=Path, required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    stored = [Store(path) for path in chosen.runs]
    try:
        found = {one.run: one for one in table_of_checkout()} if TABLE.exists() else {}
        for one in (*kept_runs(chosen.checkout), *stored):
            costs = learnt(one.run(), one.every_attempt())
            found[costs.run] = costs
        write_atomic(TABLE, table_bytes(found.values()))
    except HarnessError as error:
        print(f"ci/costs: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{TABLE}: {len(found)} runs")
    return 0


def kept_runs(checkout: Path) -> list[Store]:
    """The runs whose evidence is kept in the checkout."""
    roots = [checkout / "docs" / "evidence", checkout / "testcases" / "selftest" / "golden"]
    return [Store(root / run_id) for root in roots for run_id in run_ids(root)]


if __name__ == "__main__":
    run_script("ci/costs", main)
