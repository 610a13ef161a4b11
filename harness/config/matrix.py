"""Matrix files: TOML in, an ordered tuple of cells with stable ids out.

A file has ``schema``, ``description``, ``[defaults]`` (any key of a cell), ``[[cells]]`` (a list as a value is
expanded; the first key written varies slowest), ``[[exclude]]`` (takes away the cells that match) and ``[[expect]]``
(the first that matches says what a cell should end as, unless the cell itself does).
Whatever is wrong with it is one sentence: a :class:`~harness.errors.UsageError`.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import UsageError
from harness.model import (
    AioMode,
    CacheMode,
    Cell,
    ClientKind,
    Control,
    Crash,
    DelayProfile,
    DiskBus,
    Expectation,
    Fault,
    FilesystemKind,
    Layout,
    Protocol,
    ReplicationProfile,
    VerdictKind,
    aliases,
)

MATRIX_SCHEMA = 1

#: Each known workload and the filesystems it can use.
Workloads = Mapping[str, Collection[FilesystemKind]]

_CHOICES: Mapping[str, type[StrEnum]] = {
    "client": ClientKind,
    "filesystem": FilesystemKind,
    "layout": Layout,
    "cache": CacheMode,
    "aio": AioMode,
    "bus": DiskBus,
    "control": Control,
    "crash": Crash,
    "fault": Fault,
    "protocol": Protocol,
}
# Whole numbers, and the least each may be.
_NUMBERS = {
    "link_delay_ms": 0, "disk_delay_ms": 0, "seconds": 1, "deadline": 1, "migrations": 0, "migration_deadline": 5,
}  # fmt: skip
_FLAGS = ("disable_sendpage", "scatter_gather", "two_primaries", "unsafe_migration")
# Algorithms of data-integrity-alg that Debian's kernels have; "none" for none.
INTEGRITY = ("none", "crc32c", "md5", "sha1", "sha256")
_GUEST_ONLY = ("cache", "aio", "bus", "migrations", "unsafe_migration", "migration_deadline", "crash", "fault")
_AXES = ("workload", *_CHOICES, "integrity", *_FLAGS, *_NUMBERS)
# The keys that are fields of a cell's replication.
_REPLICATION = ("protocol", "integrity", "disable_sendpage", "scatter_gather", "two_primaries")
_EXPECTATION = ("verdicts", "reason")
_TOP = ("schema", "description", "defaults", "cells", "exclude", "expect")

_CONTROLS = (
    Cell(
        workload="planted",
        client=ClientKind.HOST,
        control=Control.PLANTED,
        seconds=1,
        expected=Expectation((VerdictKind.DIVERGED,), "known sectors were changed below DRBD: they must be found"),
    ),
    Cell(
        workload="no-writes",
        client=ClientKind.HOST,
        control=Control.IDLE,
        seconds=2,
        expected=Expectation((VerdictKind.CLEAN,), "nothing was written: nothing may differ"),
    ),
    Cell(
        workload="inflight-modify",
        client=ClientKind.HOST,
        control=Control.IN_FLIGHT,
        seconds=5,
        expected=Expectation((VerdictKind.DIVERGED,), "buffers were changed in flight on purpose: that must be seen"),
    ),
)


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
    try:
        raw = path.read_bytes()
        text = raw.decode()
        table = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    reader = _Reader(str(path), workloads)
    description, cells = reader.read(table)
    return Matrix(
        path.stem, description, cells, hashlib.sha256(raw).hexdigest(), tuple(dict.fromkeys(reader.deprecated))
    )


def cells_from(entry: Mapping[str, Any], workloads: Workloads, where: str) -> tuple[Cell, ...]:
    """The cells of one entry that stands outside a matrix file, with the keys and the checks of ``[[cells]]``."""
    reader = _Reader(where, workloads)
    reader._known("its keys", entry, (*_AXES, *_EXPECTATION))
    return tuple(reader._expand("its keys", entry))


def names(search: Path) -> tuple[str, ...]:
    """The matrices in the directory ``search``."""
    return tuple(sorted(path.stem for path in search.glob("*.toml")))


def with_controls(cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """``cells`` with the three controls of a run in front: planted, idle, in-flight.

    A cell that already plays a control moves to the front and gets the control's expectation if it has none.  A cell
    that asks just what a control asks becomes that control.
    """
    rest = list(cells)
    front: list[Cell] = []
    for control in _CONTROLS:
        playing = [cell for cell in rest if cell.control is control.control]
        playing = playing or [cell for cell in rest if cell.id == control.id and cell.control is None]
        for cell in playing:
            rest.remove(cell)
            front.append(replace(cell, control=control.control, expected=cell.expected or control.expected))
        if not playing:
            front.append(control)
    return (*front, *rest)


def _find(path_or_name: str, search: Path) -> Path:
    path = Path(path_or_name)
    if path.suffix == ".toml" or len(path.parts) > 1:
        if not path.is_file():
            raise UsageError(f"there is no matrix file {path}")
        return path
    known = names(search)
    if path_or_name not in known:
        raise UsageError(f"there is no matrix '{path_or_name}' in {search}{_hint(path_or_name, known)}")
    return search / f"{path_or_name}.toml"


def _hint(wrong: object, allowed: Iterable[str]) -> str:
    """The end of the sentence: the nearest allowed word, and all of them."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(wrong), allowed, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ";"
    return f"{meant} allowed: {', '.join(allowed)}" if allowed else ""


@dataclass(frozen=True)
class _Reader:
    """Checks one file.  ``where`` in the methods names the entry, for the sentence that says what is wrong."""

    file: str
    workloads: Workloads
    #: One line for each old name that was used.
    deprecated: list[str] = field(default_factory=list)

    def read(self, table: Mapping[str, Any]) -> tuple[str, tuple[Cell, ...]]:
        self._known("the top level", table, _TOP)
        schema = table.get("schema")
        if schema != MATRIX_SCHEMA or isinstance(schema, bool):
            self._fail("the top level", f"'schema' is {schema!r}; this program reads schema = {MATRIX_SCHEMA}")
        description = table.get("description", "")
        if not isinstance(description, str):
            self._fail("the top level", f"'description' is {description!r}, not text")

        defaults = table.get("defaults", {})
        if not isinstance(defaults, dict):
            self._fail("[defaults]", "it is not a table")
        self._known("[defaults]", defaults, (*_AXES, *_EXPECTATION))
        entries = [(where, _over(entry, defaults)) for where, entry in self._entries(table, "cells")]
        excluded = [self._pattern(where, entry, ()) for where, entry in self._entries(table, "exclude")]
        expected = [
            (self._pattern(where, entry, _EXPECTATION), self._expectation(where, entry, required=True))
            for where, entry in self._entries(table, "expect")
        ]

        seen: dict[str, str] = {}
        cells: list[Cell] = []
        for where, entry in entries:
            self._known(where, entry, (*_AXES, *_EXPECTATION))
            for cell in self._expand(where, entry):
                if any(_matches(pattern, cell) for pattern in excluded):
                    continue
                if cell.id in seen:
                    self._fail(where, f"the cell '{cell.id}' is already made by {seen[cell.id]}")
                seen[cell.id] = where
                if cell.expected is None:
                    cell = replace(cell, expected=next((e for p, e in expected if _matches(p, cell)), None))
                cells.append(cell)
        if not cells:
            self._fail("[[cells]]", "the matrix is empty: there is no cell, or all are excluded")
        return description, tuple(cells)

    def _expand(self, where: str, entry: Mapping[str, Any]) -> Iterator[Cell]:
        expected = self._expectation(where, entry, required=False)
        if "workload" not in entry:
            self._fail(where, f"'workload' is missing{_hint('', sorted(self.workloads))}")
        keys = [key for key in entry if key not in _EXPECTATION]
        axes = [self._values(where, key, entry[key]) for key in keys]
        for combination in itertools.product(*axes):
            yield self._cell(where, dict(zip(keys, combination, strict=True)), expected)

    def _cell(self, where: str, values: dict[str, Any], expected: Expectation | None) -> Cell:
        given = [key for key in _GUEST_ONLY if key in values]
        if (old := values["workload"]) in aliases.WORKLOADS and old not in self.workloads:
            kind, values["workload"] = aliases.WORKLOADS[old]
            if values.setdefault("filesystem", kind) is not kind:
                self._fail(where, f'workload = "{old}" is an old name and means filesystem = "{kind}"')
        delays = DelayProfile(values.pop("link_delay_ms", 0), values.pop("disk_delay_ms", 0))
        replication = ReplicationProfile(**{key: values.pop(key) for key in _REPLICATION if key in values})
        cell = Cell(**values, delays=delays, replication=replication, expected=expected)
        usable = self.workloads[cell.workload]
        if cell.filesystem not in usable:
            self._fail(
                where,
                f"the workload '{cell.workload}' does not go with filesystem = \"{cell.filesystem}\""
                f"{_hint(cell.filesystem, usable)}",
            )
        if cell.client is ClientKind.HOST and given:
            self._fail(where, f"'{given[0]}' is given with client = \"host\", which has no QEMU; leave it out")
        if cell.client is ClientKind.GUEST and cell.cache is None:
            self._fail(where, f"'cache' is missing, a guest needs one{_hint('', CacheMode)}")
        if cell.fault is not None and cell.fault.needs_migration and not cell.migrations:
            self._fail(where, f"'fault' is '{cell.fault}', which strikes in mid-migration; give 'migrations' too")
        if cell.unsafe_migration and not cell.migrations:
            self._fail(where, "'unsafe_migration' is given without 'migrations'")
        if cell.migrations and cell.deadline <= cell.migration_deadline:
            self._fail(
                where, f"'deadline' is {cell.deadline}, no more than 'migration_deadline', {cell.migration_deadline}"
            )
        if cell.replication.two_primaries and (cell.migrations or cell.crash is not None or cell.fault is not None):
            self._fail(where, "'two_primaries' goes with none of 'migrations', 'crash' and 'fault'")
        if cell.crash is not None and (cell.migrations or cell.fault is not None):
            self._fail(where, "'crash' goes with neither 'migrations' nor 'fault': one thing at a time")
        if cell.deadline <= cell.seconds:
            self._fail(where, f"'deadline' is {cell.deadline}, which leaves no time behind 'seconds' = {cell.seconds}")
        return cell

    def _pattern(self, where: str, entry: Mapping[str, Any], others: tuple[str, ...]) -> dict[str, tuple[Any, ...]]:
        """An [[exclude]] or [[expect]]: the values a cell must have one of, by key."""
        self._known(where, entry, (*_AXES, *others))
        return {key: self._values(where, key, value) for key, value in entry.items() if key not in others}

    def _expectation(self, where: str, entry: Mapping[str, Any], *, required: bool) -> Expectation | None:
        if "verdicts" not in entry and "reason" not in entry and not required:
            return None
        kinds, reason = entry.get("verdicts"), entry.get("reason")
        if not isinstance(kinds, list) or not kinds:
            self._fail(where, f"'verdicts' is {kinds!r}, not a list of verdicts{_hint('', VerdictKind)}")
        if not isinstance(reason, str) or not reason.strip():
            self._fail(where, "'reason' is missing: an expectation says why")
        return Expectation(tuple(self._word(where, "verdicts", kind, VerdictKind) for kind in kinds), reason)

    def _values(self, where: str, key: str, value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            return (self._value(where, key, value),)
        if not value:
            self._fail(where, f"'{key}' is an empty list")
        return tuple(self._value(where, key, item) for item in value)

    def _value(self, where: str, key: str, value: object) -> Any:
        if key == "workload":
            if isinstance(value, str) and value in aliases.WORKLOADS and value not in self.workloads:
                kind, now = aliases.WORKLOADS[value]
                self.deprecated.append(
                    f'{self.file}, {where}: workload = "{value}" is an old name; write filesystem = "{kind}", '
                    f'workload = "{now}"'
                )
                return value
            if not isinstance(value, str) or value not in self.workloads:
                self._fail(where, f"{value!r} is no workload{_hint(value, sorted(self.workloads))}")
            return value
        if key == "control" and isinstance(value, str) and value in aliases.CONTROLS:
            now = aliases.CONTROLS[value]
            self.deprecated.append(f'{self.file}, {where}: control = "{value}" is an old name; write "{now}"')
            return now
        if key in _CHOICES:
            return self._word(where, key, value, _CHOICES[key])
        if key == "integrity":
            if value not in INTEGRITY:
                self._fail(where, f"{value!r} is no value of 'integrity'{_hint(value, INTEGRITY)}")
            return "" if value == "none" else value
        if key in _FLAGS:
            if not isinstance(value, bool):
                self._fail(where, f"'{key}' is {value!r}, not true or false")
            return value
        if not isinstance(value, int) or isinstance(value, bool):
            self._fail(where, f"'{key}' is {value!r}, not a whole number")
        if value < _NUMBERS[key]:
            self._fail(where, f"'{key}' is {value}; the least it may be is {_NUMBERS[key]}")
        return value

    def _word(self, where: str, key: str, value: object, words: type[StrEnum]) -> Any:
        if value not in list(words):
            self._fail(where, f"{value!r} is no value of '{key}'{_hint(value, words)}")
        return words(str(value))

    def _entries(self, table: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
        """The entries of an array of tables, each with the name that an error calls it by."""
        found = table.get(name, [])
        if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
            self._fail(f"'{name}'", f"it is not an array of tables; write [[{name}]]")
        return [(f"[[{name}]] number {number}", entry) for number, entry in enumerate(found, 1)]

    def _known(self, where: str, entry: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
        for key in entry:
            if key not in allowed:
                self._fail(where, f"'{key}' is no key{_hint(key, allowed)}")

    def _fail(self, where: str, what: str) -> NoReturn:
        raise UsageError(f"{self.file}, {where}: {what}")


def _over(entry: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """An entry and the defaults it leaves alone.  What only a guest has is no default of the node itself."""
    without = _GUEST_ONLY if entry.get("client", defaults.get("client")) == ClientKind.HOST else ()
    rest = {key: value for key, value in defaults.items() if key not in entry and key not in without}
    return {**entry, **rest}


def _matches(pattern: Mapping[str, tuple[Any, ...]], cell: Cell) -> bool:
    values = {
        "client": cell.client,
        "filesystem": cell.filesystem,
        "layout": cell.layout,
        "cache": cell.cache,
        "aio": cell.aio,
        "bus": cell.bus,
        "control": cell.control,
        "link_delay_ms": cell.delays.link_delay_ms,
        "disk_delay_ms": cell.delays.disk_delay_ms,
        "seconds": cell.seconds,
        "deadline": cell.deadline,
        "crash": cell.crash,
        "fault": cell.fault,
        "migrations": cell.migrations,
        "migration_deadline": cell.migration_deadline,
        "unsafe_migration": cell.unsafe_migration,
        **{name: getattr(cell.replication, name) for name in _REPLICATION},
    }
    # A workload matches by the name it has now and by the one it had.
    named = {cell.workload, *(old for old, new in aliases.WORKLOADS.items() if new == (cell.filesystem, cell.workload))}
    return all(
        bool(named & {*allowed}) if key == "workload" else values[key] in allowed for key, allowed in pattern.items()
    )
