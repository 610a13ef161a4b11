"""A file of claims: TOML in, the claims with the cells that decide each out.

A file has ``schema`` and ``[[claims]]``; each of these has ``id``, ``claim``, ``says``, and one ``[[claims.ask]]`` or
more.  ``cells`` of an ask are patterns with the keys of a matrix.  Unlike there **a key that is left out has its
default**, so that a claim about cache=none is not decided by a cell in which something was done against it, also where
that something is invented after the claim was written; ``any`` names the keys that may be anything, ``"*"`` all.
Whatever is wrong with it is one sentence: a :class:`~harness.errors.UsageError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from harness.config.cell_rules import GUEST_ONLY, broken_rule
from harness.config.matrix_entry import Axes, Workloads
from harness.config.sentences import (
    WrittenFile,
    WrittenModel,
    array,
    choice,
    hint,
    one_or_more,
    quoted,
    validated,
)
from harness.config.toml_text import read_toml
from harness.errors import UsageError
from harness.model import CacheMode, Cell, ClientKind, FilesystemKind
from harness.model.cell_pattern import Pattern, value_of
from harness.model.claim import Ask, ClaimEvent, ClaimSpec, Component, Says

CLAIMS_SCHEMA = 1
#: What may be anything where nothing is said of it: it changes how much was asked, not what.
FREE = ("workload", "cache", "control", "sabotage", "seconds", "deadline", "migration_deadline", "unsafe_migration",
        "link_delay_ms", "disk_delay_ms", "flush_delay_ms")  # fmt: skip
_EVERY = "*"
# So many cells of a pattern are looked at for one that is possible.
_MOST_TRIED = 10_000
_DEFAULTS = Cell(workload="")


def _keys_of_a_cell(keys: tuple[str, ...]) -> tuple[str, ...]:
    if wrong := next((key for key in keys if key not in (_EVERY, *Axes.model_fields)), None):
        raise ValueError(f"{quoted(wrong)} in 'any' is no key of a cell{hint(wrong, (_EVERY, *Axes.model_fields))}")
    return keys


class CellsEntry(Axes):
    """A pattern: the keys of a matrix, and which of the others may be ``any``."""

    any_: Annotated[tuple[str, ...], one_or_more(), AfterValidator(_keys_of_a_cell)] = Field((), alias="any")

    def pattern(self) -> Pattern:
        """The values by key, with the defaults of what is neither written nor may be anything."""
        written = self.values()
        free = {*FREE, *self.any_, *(Axes.model_fields if _EVERY in self.any_ else ())}
        default = {key: (value_of(_DEFAULTS, key),) for key in Axes.model_fields if key not in {*free, *written}}
        return default | written


class AskEntry(WrittenModel):
    """An entry of ``[[claims.ask]]``; ``says`` where it is not the claim's own."""

    of: Annotated[str, Field(min_length=1)]
    event: Annotated[ClaimEvent, choice(ClaimEvent)] = ClaimEvent.DIFFERS
    says: Annotated[Says, choice(Says)] | None = None
    cells: Annotated[tuple[CellsEntry, ...], array()] = ()
    drbd: str = ""
    across: Annotated[Component, choice(Component)] | None = None
    play: str = ""


class ClaimEntry(WrittenModel):
    """An entry of ``[[claims]]``; ``needs`` is ``one`` or ``all`` of what is asked."""

    id: Annotated[str, Field(min_length=1)]
    claim: Annotated[str, Field(min_length=1)]
    says: Annotated[Says, choice(Says)] = Says.HAPPENS
    needs_all: bool = False
    ask: Annotated[tuple[AskEntry, ...], array()] = ()
    note: str = ""


class ClaimsFile(WrittenFile):
    """A file of claims as it is written."""

    reads = CLAIMS_SCHEMA

    claims: Annotated[tuple[ClaimEntry, ...], array()] = ()


def load_claims(path: Path, workloads: Workloads | None = None) -> tuple[ClaimSpec, ...]:
    """The claims of a file; names of workloads are checked where ``workloads`` are given.

    :class:`~harness.errors.UsageError` with one sentence for what is wrong with it, and for a claim that no cell can
    decide.
    """
    return read_claims(read_toml(path)[1], str(path), workloads)


def read_claims(table: Mapping[str, Any], source: str, workloads: Workloads | None = None) -> tuple[ClaimSpec, ...]:
    """The claims of a table that was read from ``source``."""
    known = _AnyWorkload() if workloads is None else workloads
    file = validated(ClaimsFile, table, source=source, context={"workloads": known})
    found: dict[str, ClaimSpec] = {}
    for number, entry in enumerate(file.claims, 1):
        where = f"{source}, [[claims]] number {number} ('{entry.id}')"
        if entry.id in found:
            raise UsageError(f"{where}: another claim has this id already")
        if not entry.ask:
            raise UsageError(f"{where}: no cell decides it; give it at least one [[claims.ask]] with 'cells'")
        found[entry.id] = ClaimSpec(
            entry.id,
            entry.claim,
            tuple(_ask(one, entry.says, known, f"{where}, ask '{one.of}'") for one in entry.ask),
            entry.needs_all,
            entry.note,
        )
    if not found:
        raise UsageError(f"{source}: there is no claim in it; write [[claims]]")
    return tuple(found.values())


def _ask(entry: AskEntry, says: Says, workloads: Workloads, where: str) -> Ask:
    if not entry.cells:
        raise UsageError(f"{where}: no cell decides it; 'cells' is missing or empty")
    for number, cells in enumerate(entry.cells, 1):
        if why := _impossible(cells, workloads):
            raise UsageError(f"{where}: no cell decides it: number {number} of 'cells' matches none, for {why}")
    patterns = tuple(one.pattern() for one in entry.cells)
    return Ask(entry.of, entry.event, entry.says or says, patterns, entry.drbd, entry.across, entry.play)


def _impossible(entry: CellsEntry, workloads: Workloads) -> str | None:
    """Why no cell can have these values together; None where one can, or where nobody can tell."""
    named, pattern = entry.values(), entry.pattern()
    if "workload" not in named or isinstance(workloads, _AnyWorkload):
        return None
    # What may be anything is no reason against a cell.
    if _EVERY in entry.any_:
        return None
    why = None
    for values in itertools.islice(_products(pattern), _MOST_TRIED):
        cell = Cell(values["workload"]).with_values(values)
        usable = workloads.get(cell.workload, tuple(FilesystemKind))
        if cell.client is ClientKind.GUEST and "cache" not in pattern:
            cell = replace(cell, cache=CacheMode.NONE)
        if "filesystem" not in pattern:
            cell = replace(cell, filesystem=next(iter(usable)))
        why = broken_rule(cell, [key for key in GUEST_ONLY if key in named], usable)
        if why is None:
            return None
    return why


def _products(pattern: Pattern) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*pattern.values()):
        yield dict(zip(pattern, combination, strict=True))


class _AnyWorkload(Mapping[str, tuple[FilesystemKind, ...]]):
    """Workloads where their names are not checked."""

    def __getitem__(self, name: str) -> tuple[FilesystemKind, ...]:
        return tuple(FilesystemKind)

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
