"""What a user may write in a matrix file and in a ``cell`` marker, as models that pydantic checks.

Each key of a cell takes a single value or a list of them.  Names of earlier versions are taken too;
:func:`old_names` finds them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from harness.config.sentences import (
    NoChoiceError,
    WrittenFile,
    WrittenModel,
    array,
    choice,
    hint,
    one_of,
    one_or_more,
)
from harness.model import (
    BITMAP_BLOCK_SIZES,
    AioMode,
    CacheMode,
    ClientKind,
    Control,
    Crash,
    DetectZeroes,
    Discard,
    DiskBus,
    Expectation,
    Fault,
    FilesystemKind,
    Layout,
    Mitigation,
    Preset,
    Protocol,
    Quorum,
    Sabotage,
    SwapOn,
    Transport,
    VerdictKind,
    aliases,
)

MATRIX_SCHEMA = 1

#: Each known workload and the filesystems it can use.
Workloads = Mapping[str, Collection[FilesystemKind]]

# Algorithms of data-integrity-alg that Debian's kernels have; "none" for none.
INTEGRITY = ("none", "crc32c", "md5", "sha1", "sha256")

# More seconds, milliseconds or migrations than any run has.
_MOST = 10**9
# More repetitions than anybody has the time for; each is a cell in memory and in the run's file.
MOST_REPETITIONS = 10_000
# For the same reason: more cells of one entry, and more plays of a matrix.
MOST_CELLS = 10_000
MOST_PLAYS = 100_000

T = TypeVar("T")
_Several = Annotated[tuple[T, ...], one_or_more(), Field(min_length=1)]


def _known_workload(value: object, info: ValidationInfo) -> str:
    workloads = info.context["workloads"] if info.context else {}
    if isinstance(value, str) and (value in workloads or value in aliases.WORKLOADS):
        return value
    raise NoChoiceError(sorted(workloads))


def _present_control(value: object) -> object:
    return aliases.CONTROLS.get(value, value) if isinstance(value, str) else value


def _no_digest_is_empty(algorithm: str) -> str:
    return "" if algorithm == "none" else algorithm


def _given_reason(reason: str) -> str:
    if not reason.strip():
        raise ValueError("'reason' is missing: an expectation says why")
    return reason


def _none_or(kind: type[StrEnum]) -> BeforeValidator:
    """For a field that is a member of an enumeration, or None, which is written as "none"."""

    def check(value: object) -> StrEnum | None:
        if isinstance(value, str) and value in ("none", *kind):
            return None if value == "none" else kind(value)
        raise NoChoiceError(("none", *kind))

    return BeforeValidator(check)


class Axes(WrittenModel):
    """The keys of a cell, each with the values that were given for it; empty: it was not given.

    A workload may have its former name.  ``integrity`` is empty where "none" was written.
    Validated with ``context={"workloads": ...}``.
    """

    workload: _Several[Annotated[str, BeforeValidator(_known_workload)]] = ()
    client: _Several[Annotated[ClientKind, choice(ClientKind)]] = ()
    filesystem: _Several[Annotated[FilesystemKind, choice(FilesystemKind)]] = ()
    layout: _Several[Annotated[Layout, choice(Layout)]] = ()
    cache: _Several[Annotated[CacheMode, choice(CacheMode)]] = ()
    aio: _Several[Annotated[AioMode, choice(AioMode)]] = ()
    bus: _Several[Annotated[DiskBus, choice(DiskBus)]] = ()
    control: _Several[Annotated[Control, choice(Control), BeforeValidator(_present_control)]] = ()
    crash: _Several[Annotated[Crash, choice(Crash)]] = ()
    fault: _Several[Annotated[Fault, choice(Fault)]] = ()
    sabotage: _Several[Annotated[Sabotage, choice(Sabotage)]] = ()
    protocol: _Several[Annotated[Protocol, choice(Protocol)]] = ()
    integrity: _Several[Annotated[str, one_of(INTEGRITY), AfterValidator(_no_digest_is_empty)]] = ()
    disable_sendpage: _Several[bool] = ()
    scatter_gather: _Several[bool] = ()
    two_primaries: _Several[bool] = ()
    allow_two_primaries: _Several[bool] = ()
    transport: _Several[Annotated[Transport, choice(Transport)]] = ()
    tls: _Several[bool] = ()
    quorum: _Several[Annotated[Quorum, choice(Quorum)]] = ()
    auto_promote: _Several[bool] = ()
    bitmap_block_size: _Several[Annotated[str, one_of(BITMAP_BLOCK_SIZES)]] = ()
    iothread: _Several[bool] = ()
    detect_zeroes: _Several[Annotated[DetectZeroes, choice(DetectZeroes)]] = ()
    discard: _Several[Annotated[Discard, choice(Discard)]] = ()
    guest_stable_writes: _Several[bool] = ()
    online_discard: _Several[bool] = ()
    swap_on: _Several[Annotated[SwapOn, choice(SwapOn)]] = ()
    mitigation: _Several[Annotated[Mitigation | None, _none_or(Mitigation)]] = ()
    preset: _Several[Annotated[Preset | None, _none_or(Preset)]] = ()
    unsafe_migration: _Several[bool] = ()
    link_delay_ms: _Several[Annotated[int, Field(ge=0, le=_MOST)]] = ()
    disk_delay_ms: _Several[Annotated[int, Field(ge=0, le=_MOST)]] = ()
    flush_delay_ms: _Several[Annotated[int, Field(ge=0, le=_MOST)]] = ()
    seconds: _Several[Annotated[int, Field(ge=1, le=_MOST)]] = ()
    deadline: _Several[Annotated[int, Field(ge=1, le=_MOST)]] = ()
    migrations: _Several[Annotated[int, Field(ge=0, le=_MOST)]] = ()
    migration_deadline: _Several[Annotated[int, Field(ge=5, le=_MOST)]] = ()

    _written: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _keep_order(cls, written: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """The order of the keys decides about the order of the cells."""
        made = handler(written)
        made._written = tuple(written)
        return made

    def values(self) -> dict[str, tuple[Any, ...]]:
        """The values by key, in the order in which the keys were written."""
        return {key: getattr(self, key) for key in self._written if key in Axes.model_fields}


class Entry(Axes):
    """The axes, and what to expect of the cells."""

    verdicts: Annotated[
        tuple[Annotated[VerdictKind, choice(VerdictKind)], ...] | None, array(), Field(min_length=1)
    ] = None
    reason: Annotated[str, AfterValidator(_given_reason)] | None = None
    says: str = ""


class CellsEntry(Entry):
    """An entry of ``[[cells]]``, ``[defaults]``, or the keys of a marker: what to play, and how often."""

    repeat: Annotated[int, Field(ge=1, le=MOST_REPETITIONS)] | None = None


class ExpectEntry(Entry):
    """An entry of ``[[expect]]``: a pattern, and what the cells that match it are expected to end as."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        expectation(self.verdicts, self.reason, self.says, required=True)
        return self


class DecidingEntry(Axes):
    """An entry of ``[[deciding]]``: a pattern; the cells that match it are played ``repeat`` times, and why."""

    repeat: Annotated[int, Field(ge=2, le=MOST_REPETITIONS)]
    reason: Annotated[str, AfterValidator(_given_reason)]


class MatrixFile(WrittenFile):
    """A matrix file as it is written: no defaults applied, nothing multiplied out."""

    reads = MATRIX_SCHEMA

    defaults: CellsEntry = CellsEntry()
    cells: Annotated[tuple[CellsEntry, ...], array()] = ()
    exclude: Annotated[tuple[Axes, ...], array()] = ()
    expect: Annotated[tuple[ExpectEntry, ...], array()] = ()
    deciding: Annotated[tuple[DecidingEntry, ...], array()] = ()


def expectation(
    verdicts: tuple[VerdictKind, ...] | None, reason: str | None, says: str = "", *, required: bool = False
) -> Expectation | None:
    """What is expected, or None where nothing is; half an expectation is a :class:`ValueError` with the sentence."""
    if verdicts is None and reason is None and not says and not required:
        return None
    if verdicts is None:
        raise ValueError(f"'verdicts' is missing{hint('', VerdictKind)}")
    if reason is None:
        raise ValueError("'reason' is missing: an expectation says why")
    return Expectation(verdicts, reason, says)


def old_names(written: Mapping[str, Any]) -> Iterator[str]:
    """One line for each old name in an entry that was found to be right, and what to write instead."""
    for value in _listed(written.get("workload", ())):
        if value in aliases.WORKLOADS:
            kind, now = aliases.WORKLOADS[value]
            yield f'workload = "{value}" is an old name; write filesystem = "{kind}", workload = "{now}"'
    for value in _listed(written.get("control", ())):
        if value in aliases.CONTROLS:
            yield f'control = "{value}" is an old name; write "{aliases.CONTROLS[value]}"'


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)
