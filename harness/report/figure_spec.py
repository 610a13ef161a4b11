"""What a table of figures shows: which runs and cells it is made from, and what of them; pure.

``docs/figures.toml`` has one table of TOML for each that README and docs have between markers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from harness.config.recipe import DEFAULT_SUITE
from harness.config.sentences import NoChoiceError, WrittenModel, array, hint, one_or_more
from harness.judgement.stacks import by_version, plain_kernel
from harness.model import CacheMode, Cell, FilesystemKind, Layout, Sabotage
from harness.report.descriptions import CRASHES, FAULTS, replication_order
from harness.report.figure_measures import MEASURES, Play


@dataclass(frozen=True)
class Key:
    """A property of a play by which plays are chosen and grouped: as a word, and as a table shows it."""

    heading: str
    word: Callable[[Play], str]
    shown: Callable[[Play], str]


def _of_cell(heading: str, word: Callable[[Cell], str], shown: Callable[[Cell], str] | None = None) -> Key:
    return Key(heading, lambda play: word(play.result.cell), lambda play: (shown or word)(play.result.cell))


def _work(cell: Cell) -> str:
    on = "" if cell.filesystem is FilesystemKind.RAW else f" on {cell.filesystem}"
    layout = "" if cell.layout is Layout.RAW else f" on {cell.layout}"
    return f"`{cell.workload}`{on}{layout}"


def _delays(cell: Cell) -> str:
    return cell.delays.suffix().removeprefix("-") or "none"


def work_word(cell: Cell) -> str:
    """What a cell lets its guest do, on what: ``reclaim on swap``."""
    return _work(cell).replace("`", "")


def _versions(play: Play) -> str:
    stack = play.stack
    return f"Linux {plain_kernel(stack.kernel)}, DRBD {stack.drbd}, QEMU {stack.qemu}"


KEYS: Mapping[str, Key] = {
    "stack": Key("stack", lambda play: play.stack_name, lambda play: f"`{play.stack_name}`"),
    "versions": Key("versions", _versions, _versions),
    "cell": _of_cell("cell", lambda cell: cell.id, lambda cell: f"`{cell.id}`"),
    "cache": _of_cell("cache", lambda cell: cell.row),
    "work": _of_cell("work", work_word, _work),
    "workload": _of_cell("workload", lambda cell: cell.workload, lambda cell: f"`{cell.workload}`"),
    "filesystem": _of_cell("filesystem", lambda cell: cell.filesystem.value),
    "layout": _of_cell("layout", lambda cell: cell.layout.value),
    "aio": _of_cell("aio", lambda cell: cell.aio.value),
    "bus": _of_cell("bus", lambda cell: cell.bus.value),
    "delays": _of_cell("delays", _delays),
    "replication": _of_cell("replication", lambda cell: str(cell.replication)),
    "protocol": _of_cell("protocol", lambda cell: cell.replication.protocol.value),
    "digest": _of_cell("digest", lambda cell: cell.replication.integrity or "none"),
    "primaries": _of_cell("Primaries", lambda cell: "2" if cell.replication.two_primaries else "1"),
    "migrations": _of_cell("migrations", lambda cell: str(cell.migrations)),
    "crash": _of_cell(
        "crash",
        lambda cell: cell.crash.value if cell.crash else "none",
        lambda cell: CRASHES[cell.crash] if cell.crash else "none",
    ),
    "fault": _of_cell(
        "fault",
        lambda cell: cell.fault.value if cell.fault else "none",
        lambda cell: FAULTS[cell.fault] if cell.fault else "none",
    ),
}


def in_order(key: str, play: Play) -> tuple[object, ...]:
    """Where a row of ``key`` stands among the others; empty where that is the order in which they come."""
    cell = play.result.cell
    if key == "cache":
        modes = [mode.value for mode in CacheMode]
        return (modes.index(cell.row) if cell.row in modes else len(modes),)
    if key == "versions":
        return (by_version(play.stack.kernel), by_version(play.stack.drbd), by_version(play.stack.qemu))
    return tuple(replication_order(cell.replication)) if key == "replication" else ()


def _known(allowed: Mapping[str, object]) -> AfterValidator:
    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(name in allowed for name in names):
            raise NoChoiceError(allowed)
        return names

    return AfterValidator(check)


def _known_keys(where: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    if wrong := next((key for key in where if key not in KEYS), None):
        raise ValueError(f"'{wrong}' is no property of a play{hint(wrong, KEYS)}")
    return where


Names = Annotated[tuple[str, ...], array()]
Words = Annotated[dict[str, Annotated[tuple[str, ...], one_or_more()]], AfterValidator(_known_keys)]


class Selection(WrittenModel):
    """Which plays.  ``runs`` are names of kept runs, with ``*`` for any part of one; ``drbd`` begins their version.

    ``stacks`` are names of stacks, with ``*`` as well.  ``where``: the plays with one of the values in each of these
    properties.  Controls are in none, and sabotage only where ``sabotage`` asks for it, alone.
    """

    runs: Names = ()
    stacks: Names = (DEFAULT_SUITE,)
    drbd: str = ""
    where: Words = Field(default_factory=dict)
    sabotage: Annotated[Sabotage | None, Field(strict=False)] = None

    @property
    def tells_versions(self) -> bool:
        """Whether what is shown says of each play what it was played with."""
        return False


class FigureTable(Selection):
    """One table: a row for each value of ``rows``, a column for each of ``show``; or all of it for each ``across``.

    ``names`` are other headings, and other texts for values.  With ``command``, which asks for such plays, there may be
    none yet; the page says so then.  With ``claims`` it is what its runs say of the claims instead, with ``remedies``
    what each mitigation does against divergence in each of these works, with ``costs`` what each costs, and with
    ``bounds`` what still may be after so many plays without a hit.  ``apart`` is one of ``rows``: below the table
    stands whether its values differ by more than chance in how many plays lost an acknowledged write.
    """

    rows: Annotated[Names, _known(KEYS)] = ()
    across: Annotated[str, AfterValidator(lambda value: value and _one(value, KEYS))] = ""
    show: Annotated[Names, _known(MEASURES)] = ()
    names: dict[str, str] = Field(default_factory=dict)
    apart: str = ""
    command: str = ""
    claims: bool = False
    remedies: Names = ()
    costs: bool = False
    bounds: Annotated[tuple[int, ...], array()] = ()

    @property
    def tells_versions(self) -> bool:
        """Whether each row says what it was played with."""
        return "versions" in self.rows

    @model_validator(mode="after")
    def _one_kind(self) -> FigureTable:
        shows = (self.claims, bool(self.remedies), self.costs, bool(self.rows and self.show))
        if sum(one and bool(self.runs) for one in shows) + bool(self.bounds) != 1:
            raise ValueError(
                "a table has 'runs' and one of 'rows' with 'show', 'claims', 'remedies' and 'costs'; or 'bounds'"
            )
        if self.apart and self.apart not in self.rows:
            raise ValueError(f"'apart' is one of 'rows', and '{self.apart}' is not")
        return self


def _one(value: str, allowed: Mapping[str, object]) -> str:
    if value not in allowed:
        raise NoChoiceError(allowed)
    return value
