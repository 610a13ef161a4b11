"""What a run is that is merged from others: which fit together, its cells, what each play becomes; pure.

Plays of different runs are independent of each other, as repetitions are.  So a play that several of the runs have
evidence of is a repetition of its own in each of them, and gets a number that is free; where only one of them has, the
others planned it, and that one played it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

from harness.config.repetitions import play_order
from harness.config.shards import Shard, missing_parts
from harness.errors import UsageError
from harness.model import SCHEMA_VERSION, Cell, Evidence, MergedRun, Provenance, Run, Stack
from harness.util.tables import flat

Play = tuple[str, int]
# Facts of the machine that a run was played on, not of the versions under test: both stand in the merged run.
_MACHINE = ("controller", "cpu")
# In a table of specs: what a run did not keep, which an earlier version may not have known.
_UNKNOWN = object()
_GUEST_IMAGE = "guest.image.digest"


@dataclass(frozen=True)
class Part:
    """One of the runs, with the evidence of every attempt that is whole."""

    run: Run
    attempts: tuple[Evidence, ...]

    @property
    def plays(self) -> dict[Play, Cell]:
        """What it plans or has evidence of, without the controls."""
        cells = (*self.run.cells, *(one.cell for one in self.attempts))
        return {cell.play: cell for cell in reversed(cells) if cell.control is None}

    @property
    def played(self) -> frozenset[Play]:
        """Of what there is evidence, without the controls."""
        return frozenset(one.cell.play for one in self.attempts if one.cell.control is None)


@dataclass(frozen=True)
class MergePlan:
    """The merged ``run``, and by the id of a run and its play the ``repetition`` that this becomes."""

    run: Run
    repetition: Mapping[tuple[str, Play], int]


def in_order(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The oldest run first, in whatever order they were given."""
    return tuple(sorted(parts, key=lambda part: (part.run.started_at, part.run.id)))


def merge_plan(parts: Sequence[Part], run_id: str) -> MergePlan:
    """The plan for ``parts`` (:func:`in_order`); :class:`~harness.errors.UsageError` where they do not fit."""
    _must_fit(parts)
    runs = [part.run for part in parts]
    order = _order(runs)
    controls = {cell.id: cell for run in reversed(runs) for cell in reversed(run.cells) if cell.control is not None}
    cells, repetition = _numbered(parts, order, {(cell_id, 1) for cell_id in controls})
    seeds = {run.seed for run in runs}
    first, newest = runs[0], next((run for run in reversed(runs) if run.provenance != Provenance()), runs[-1])
    merged = Run(
        id=run_id,
        matrix=first.matrix,
        started_at=first.started_at,
        finished_at=max(run.finished_at for run in runs) if all(run.finished_at for run in runs) else "",
        cells=(*sorted(controls.values(), key=lambda cell: order[cell.id]), *cells),
        stack=_stack(runs),
        lab_seconds=_added(run.lab_seconds for run in runs),
        lab_spec=next((run.lab_spec for run in runs if run.lab_spec), {}),
        stack_spec=next((run.stack_spec for run in runs if run.stack_spec), {}),
        provenance=newest.provenance,
        notes=(*_remarks(runs), *(f"{run.id}: {note}" for run in runs for note in run.notes)),
        seed=seeds.pop() if len(seeds) == 1 else 0,
        given_up={lab: why for run in runs for lab, why in run.given_up.items()},
        matrix_digest=next((run.matrix_digest for run in runs if run.matrix_digest), ""),
        plan=tuple(order),
        chosen=first.chosen if all(run.chosen == first.chosen for run in runs) else None,
        merged=tuple(one for run in runs for one in run.merged or (_named(run),)),
        schema=SCHEMA_VERSION,
    )
    return MergePlan(merged, repetition)


def _named(run: Run) -> MergedRun:
    return MergedRun(run.id, run.started_at, run.finished_at, run.shard, run.seed)


def missing_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """The parts of their matrix, as ``4/6``, that none of ``runs`` is; empty too where no run is a part of one.

    A run that is no part stands for all of them where it has every cell that a part's plan names.
    """
    shards = [one.shard for run in runs for one in (run.merged or (run,))]
    parts = {Shard.parse(shard, "the part that a merged run was") for shard in shards if shard}
    planned = {cell_id for run in runs for cell_id in run.plan}
    wholes = [run for run in runs if any(not one.shard for one in run.merged or (run,))]
    if not parts or any(planned <= {cell.id for cell in run.cells} for run in wholes):
        return ()
    return tuple(map(str, missing_parts(parts)))


def cut_differently(runs: Sequence[Run]) -> tuple[str, ...]:
    """Why the parts among ``runs`` are no parts of one whole, in sentences; empty where nothing says so.

    A part is dealt out of the plays that its ``--repeat`` makes, and its ``-k`` leaves some of those out: with other
    options the i-th of n parts is one of something else.  Of runs that do not know their options it shows where cells
    are in none of the parts although none is missing.
    """
    parts = [run for run in runs if run.shard or any(one.shard for one in run.merged)]
    found = []
    for option in dict.fromkeys(name for run in parts for name in run.chosen or {}):
        given = {run.id: _given(option, run.chosen) for run in parts if run.chosen is not None}
        if len(set(given.values())) > 1:
            each = ", ".join(f"{run_id} {how}" for run_id, how in given.items())
            found.append(f"the parts were played with another {option} ({each}): they are not parts of one whole")
    narrowed = any("-k" in (run.chosen or {}) for run in parts)
    there = {cell.id for run in runs for cell in run.cells}
    absent = [cell_id for run in parts for cell_id in run.plan if cell_id not in there]
    if absent and not found and not narrowed and not missing_of(runs):
        found.append(
            f"'{absent[0]}'{_and_more(len(set(absent)) - 1)} of the matrix {'are' if len(set(absent)) > 1 else 'is'} in"
            " none of the parts, as with another -k or --repeat for one of them"
        )
    return tuple(found)


def _given(option: str, chosen: Mapping[str, str]) -> str:
    return f"{option} {chosen[option]}" if option in chosen else f"no {option}"


def _and_more(count: int) -> str:
    return f" and {count} more cell{'s' if count > 1 else ''}" if count > 0 else ""


# --------------------------------------------------------------------------- what fits


def _must_fit(parts: Sequence[Part]) -> None:
    first = parts[0].run
    # Where all other parts of it died, what is left is a whole that lacks them.
    if len(parts) < 2 and not first.shard:
        raise UsageError("one run alone is merged already; name two or more")
    for earlier, part in pairwise(parts):
        if earlier.run.id == part.run.id:
            raise UsageError(f"the run '{part.run.id}' is named twice")
    for part in parts:
        if any(not one.lab for one in part.attempts):
            why = "an earlier version kept it, and it does not say on which lab its cells were played"
            raise UsageError(f"the run '{part.run.id}' cannot be merged: {why}")
        if part.run.matrix != first.matrix:
            names = (run.matrix or "no matrix" for run in (first, part.run))
            raise _misfit(first, part.run, "played the matrix", *names)
    _must_be_one([part.run for part in parts])
    _must_ask_the_same(parts)
    _must_be_different_plays(parts)


def _must_be_one(runs: Sequence[Run]) -> None:
    """One matrix file, the same versions, labs of one kind; what a run did not keep is not held against it."""
    _all_same(runs, "has the matrix file with the digest", {run.id: run.matrix_digest[:12] for run in runs})
    for field in fields(Stack):
        if field.name not in _MACHINE:
            what = f"ran with {field.name.replace('_', ' ')}"
            _all_same(runs, what, {run.id: getattr(run.stack, field.name) for run in runs})
    for spec in ("lab_spec", "stack_spec"):
        tables = {run.id: _asked_for(getattr(run, spec)) for run in runs}
        for name in {name: None for table in tables.values() for name in table}:
            if name != "name":
                values = {run_id: table.get(name, _UNKNOWN) for run_id, table in tables.items()}
                _all_same(runs, f"asked for {name.replace('.', ' ')}", values, unknown=_UNKNOWN)


def _asked_for(spec: Mapping[str, object]) -> dict[str, object]:
    """What a spec has, by the names that lead to it; a guest of before there were images of the user's has none."""
    table = dict(flat(spec))
    return {_GUEST_IMAGE: "", **table} if "guest" in spec else table


def _all_same(runs: Sequence[Run], what: str, values: Mapping[str, object], unknown: object = "") -> None:
    known = [run for run in runs if values[run.id] != unknown]
    for run in known[1:]:
        if values[run.id] != values[known[0].id]:
            raise _misfit(known[0], run, what, values[known[0].id], values[run.id])


def _misfit(one: Run, other: Run, what: str, *values: object) -> UsageError:
    first, second = (_shown(value) for value in values)
    return UsageError(
        f"the runs '{one.id}' and '{other.id}' do not fit together: the first {what} {first}, the second"
        f" {second} ('drbd-harness compare' puts them side by side)"
    )


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_shown, value)) or "none"
    return "none" if value in (None, "") else str(value)


def _must_ask_the_same(parts: Sequence[Part]) -> None:
    asked: dict[str, tuple[str, Cell]] = {}
    for part in parts:
        for cell in part.run.cells:
            what = replace(cell, repetition=1, seed=0, expected=None, control=None)
            run_id, before = asked.setdefault(cell.id, (part.run.id, what))
            if what != before:
                names = [item.name for item in fields(Cell) if getattr(what, item.name) != getattr(before, item.name)]
                raise UsageError(
                    f"the runs '{run_id}' and '{part.run.id}' do not fit together:"
                    f" their cell '{cell.id}' has another {' and '.join(names)}"
                )


def _must_be_different_plays(parts: Sequence[Part]) -> None:
    seen: dict[tuple[str, str, str], str] = {}
    for part in parts:
        for one in part.attempts:
            run_id = seen.setdefault((one.cell.id, one.lab, one.started_at), part.run.id)
            if run_id != part.run.id:
                raise UsageError(
                    f"the runs '{run_id}' and '{part.run.id}' have the same play of '{one.cell.id}'"
                    f" (lab {one.lab}, {one.started_at}): it would count twice"
                )


# --------------------------------------------------------------------------- what becomes of it


def _order(runs: Sequence[Run]) -> dict[str, int]:
    """The place of each cell in the matrix; those that say what the whole matrix has come first."""
    planned = [run.plan for run in runs if run.plan]
    planned += [tuple(cell.id for cell in run.cells) for run in runs]
    return {cell_id: place for place, cell_id in enumerate(dict.fromkeys(one for ids in planned for one in ids))}


def _numbered(
    parts: Sequence[Part], order: Mapping[str, int], taken: set[Play]
) -> tuple[tuple[Cell, ...], dict[tuple[str, Play], int]]:
    """The plays in the order of the plan, and what each play of each run becomes."""

    def place(play: Play) -> tuple[tuple[int, int], str]:
        cell_id, repetition = play
        return play_order(order.get(cell_id, len(order)), repetition), cell_id

    own = [(part, part.plays, part.played) for part in parts]
    every = sorted({play for _, plays, _ in own for play in plays}, key=place)
    taken = taken | set(every)
    cells: list[Cell] = []
    repetition: dict[tuple[str, Play], int] = {}
    for play in every:
        having = [(part, plays[play]) for part, plays, played in own if play in played]
        planning = [(part, plays[play]) for part, plays, _ in own if play in plays]
        for number, (part, cell) in enumerate(having or planning[:1]):
            one = play if not number else _free(play[0], taken)
            taken.add(one)
            repetition[part.run.id, play] = one[1]
            cells.append(replace(cell, repetition=one[1], expected=planning[0][1].expected))
    return tuple(sorted(cells, key=lambda cell: place(cell.play))), repetition


def _free(cell_id: str, taken: set[Play]) -> Play:
    return cell_id, max(number for name, number in taken if name == cell_id) + 1


def _stack(runs: Sequence[Run]) -> Stack:
    known = {
        item.name: list(dict.fromkeys(filter(None, (getattr(run.stack, item.name) for run in runs))))
        for item in fields(Stack)
    }
    return Stack(**{name: " / ".join(values) for name, values in known.items()})


def _added(seconds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in seconds:
        for name, took in one.items():
            total[name] = total.get(name, 0.0) + took
    return total


def _remarks(runs: Sequence[Run]) -> list[str]:
    named = [f"{run.id} (part {run.shard})" if run.shard else run.id for run in runs]
    remarks = [f"merged from {', '.join(named)}"]
    if missing := missing_of(runs):
        remarks.append(f"without the part{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    remarks += cut_differently(runs)
    remarks += [
        f"the {role} images of the merged runs are not all the same"
        for role in sorted({role for run in runs for role in run.provenance.images})
        if len({run.provenance.images[role] for run in runs if role in run.provenance.images}) > 1
    ]
    if len({run.provenance.harness_commit for run in runs if run.provenance.harness_commit}) > 1:
        remarks.append("the merged runs were made by different versions of the harness")
    if any(not run.matrix_digest for run in runs):
        remarks.append("of some of the merged runs it is not known whether their matrix files were the same")
    return remarks
