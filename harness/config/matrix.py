"""Matrix files: TOML in, an ordered tuple of cells with stable ids out.

A file has ``schema``, ``description``, ``[defaults]`` (any key of a cell), ``[[cells]]`` (a list as a value is
expanded; the first key written varies slowest; ``repeat`` is how often each is played; what a ``mitigation`` or a
``preset`` sets goes before the defaults), ``[[exclude]]`` (takes away the
cells that match), ``[[expect]]`` (the first that matches says what a cell should end as, unless the cell itself does)
and ``[[deciding]]`` (the cells that match are played more often than the others; each entry has to match one).
Whatever is wrong with it is one sentence: a :class:`~harness.errors.UsageError`.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.cell_rules import GUEST_ONLY, broken_rule
from harness.config.matrix_entry import (
    MOST_CELLS,
    MOST_PLAYS,
    CellsEntry,
    DecidingEntry,
    MatrixFile,
    Workloads,
    expectation,
    old_names,
)
from harness.config.sentences import hint, shown, validated
from harness.config.toml_text import is_there, read_toml
from harness.errors import UsageError
from harness.model import Cell, ClientKind, Expectation, aliases, settings
from harness.model.cell_pattern import matches


@dataclass(frozen=True)
class Expansion:
    """The cells of some entries, and one line for each old name that was written."""

    cells: tuple[Cell, ...]
    deprecated: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """One matrix file.

    ``digest`` is the SHA-256 of its bytes, to tell runs of different files apart; ``deprecated`` one line for each old
    name that it uses.
    """

    name: str
    description: str
    cells: tuple[Cell, ...]
    digest: str
    deprecated: tuple[str, ...] = ()


def load(path_or_name: str, workloads: Workloads, search: Path) -> Matrix:
    """The matrix in a TOML file, or the one of that name in the directory ``search``."""
    path = _find(path_or_name, search)
    raw, table = read_toml(path)
    expansion = expand(table, workloads, str(path))
    description = str(table.get("description", ""))
    return Matrix(path.stem, description, expansion.cells, hashlib.sha256(raw).hexdigest(), expansion.deprecated)


def names(search: Path) -> tuple[str, ...]:
    """The matrices in the directory ``search``."""
    return tuple(sorted(path.stem for path in search.glob("*.toml")))


def expand(table: Mapping[str, Any], workloads: Workloads, source: str) -> Expansion:
    """The cells of a matrix, in the order of ``table``; ``source`` is the file's name in a sentence."""
    file = validated(MatrixFile, table, source=source, context={"workloads": workloads})
    deciding = _Deciding(file.deciding)
    patterns = [(entry.values(), expectation(entry.verdicts, entry.reason, entry.says)) for entry in file.expect]
    made_by: dict[str, int] = {}
    cells: list[Cell] = []
    for number, entry in enumerate(file.cells, 1):
        where = f"{source}, [[cells]] number {number}"
        for cell in _cells(entry, file.defaults, workloads, where):
            if any(matches(pattern.values(), cell) for pattern in file.exclude):
                continue
            if cell.id in made_by:
                raise UsageError(
                    f"{where}: the cell '{cell.id}' is already made by [[cells]] number {made_by[cell.id]}"
                )
            made_by[cell.id] = number
            if cell.expected is None:
                expected = next((expected for pattern, expected in patterns if matches(pattern, cell)), None)
                cell = replace(cell, expected=expected)
            cells += _repeated([cell], entry.repeat or deciding.repeat(cell) or file.defaults.repeat)
            if len(cells) > MOST_PLAYS:
                raise UsageError(f"{where}: with it there are more than {MOST_PLAYS} plays, which is the most")
    if not cells:
        raise UsageError(f"{source}, [[cells]]: the matrix is empty: there is no cell, or all are excluded")
    if unmatched := deciding.unmatched:
        raise UsageError(f"{source}, [[deciding]] number {unmatched}: no cell of the matrix matches it")
    return Expansion(tuple(cells), tuple(_deprecations(table, source)))


class _Deciding:
    """The entries of ``[[deciding]]``, and which of them matched a cell."""

    def __init__(self, entries: Sequence[DecidingEntry]) -> None:
        self._entries = entries
        self._matched: set[int] = set()

    def repeat(self, cell: Cell) -> int | None:
        """How often ``cell`` is played by the first entry that matches it; None where none does."""
        found = [number for number, entry in enumerate(self._entries) if matches(entry.values(), cell)]
        self._matched.update(found)
        return self._entries[found[0]].repeat if found else None

    @property
    def unmatched(self) -> int | None:
        """The number of the first entry that matched no cell, counted from 1."""
        return next((number + 1 for number in range(len(self._entries)) if number not in self._matched), None)


def cells_from(entry: Mapping[str, Any], workloads: Workloads, where: str) -> Expansion:
    """The cells of one entry that stands outside a matrix file, with the keys and the checks of ``[[cells]]``."""
    place = "its keys"
    valid = validated(CellsEntry, entry, source=where, place=place, context={"workloads": workloads})
    cells = tuple(_repeated(_cells(valid, CellsEntry(), workloads, f"{where}, {place}"), valid.repeat))
    return Expansion(cells, tuple(f"{where}: {line}" for line in old_names(entry)))


def _find(path_or_name: str, search: Path) -> Path:
    path = Path(path_or_name)
    if path.suffix == ".toml" or len(path.parts) > 1:
        if not is_there(path):
            raise UsageError(f"there is no matrix file {path}")
        return path
    known = names(search)
    if path_or_name not in known:
        raise UsageError(f"there is no matrix '{path_or_name}' in {search}{hint(path_or_name, known)}")
    return search / f"{path_or_name}.toml"


def _deprecations(table: Mapping[str, Any], source: str) -> Iterator[str]:
    for line in old_names(table.get("defaults", {})):
        yield f"{source}, [defaults]: {line}"
    for name in ("cells", "exclude", "expect", "deciding"):
        for number, entry in enumerate(table.get(name, ()), 1):
            for line in old_names(entry):
                yield f"{source}, [[{name}]] number {number}: {line}"


# --------------------------------------------------------------------------- from entries to cells


def _cells(entry: CellsEntry, defaults: CellsEntry, workloads: Workloads, where: str) -> Iterator[Cell]:
    """The cells of one entry over the defaults; ``where`` begins the sentence about what is wrong with them."""
    axes = _over(entry.values(), defaults.values())
    if "workload" not in axes:
        raise UsageError(f"{where}: 'workload' is missing{hint('', sorted(workloads))}")
    try:
        says = entry.says or defaults.says
        expected = expectation(entry.verdicts or defaults.verdicts, entry.reason or defaults.reason, says)
    except ValueError as wrong:
        raise UsageError(f"{where}: {wrong}") from None
    if (made := math.prod(map(len, axes.values()))) > MOST_CELLS:
        raise UsageError(f"{where}: its lists make {shown(made)} cells; the most is {MOST_CELLS}")
    for combination in itertools.product(*axes.values()):
        yield _cell(dict(zip(axes, combination, strict=True)), entry.values(), expected, workloads, where)


def _repeated(cells: Iterable[Cell], repeat: int | None) -> Iterator[Cell]:
    """Each of ``cells`` as often as was asked for; a control once."""
    for cell in cells:
        for repetition in range(1, (1 if cell.control else repeat or 1) + 1):
            yield replace(cell, repetition=repetition)


def _over(entry: dict[str, Any], defaults: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """An entry and the defaults it leaves alone.  What only a guest has is no default of the node itself."""
    host = entry.get("client", defaults.get("client")) == (ClientKind.HOST,)
    without = {*entry, *(GUEST_ONLY if host else ())}
    return {**entry, **{key: values for key, values in defaults.items() if key not in without}}


def _cell(
    values: dict[str, Any], own: Collection[str], expected: Expectation | None, workloads: Workloads, where: str
) -> Cell:
    """The cell of ``values``; of these the keys ``own`` stand in its entry, the others are defaults."""
    given = tuple(values)
    if (old := values["workload"]) not in workloads:
        kind, values["workload"] = aliases.WORKLOADS[old]
        if values.setdefault("filesystem", kind) is not kind:
            raise UsageError(f'{where}: workload = "{old}" is an old name and means filesystem = "{kind}"')
    preset, mitigation = values.get("preset"), values.get("mitigation")
    for key, value in settings(preset, mitigation).items():
        if key in own and values[key] != value:
            name = preset if mitigation is None or key not in settings(None, mitigation) else mitigation
            raise UsageError(f"{where}: '{key}' is {shown(values[key])}, and '{name}' makes it {shown(value)}")
        values[key] = value
    cell = Cell(values["workload"], expected=expected).with_values(values)
    if wrong := broken_rule(cell, given, workloads[cell.workload]):
        raise UsageError(f"{where}: {wrong}")
    return cell
