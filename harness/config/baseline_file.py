"""A baseline: TOML in, what is known to fail out.

A file has ``schema`` and ``[[known]]``; each of these has ``cell``, ``verdicts``, ``reason`` and ``until``.  Whatever
is wrong with it is one sentence: a :class:`~harness.errors.UsageError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from harness.config.sentences import WrittenFile, WrittenModel, array, one_of, one_or_more, shown, validated
from harness.config.toml_text import read_toml
from harness.model import VerdictKind
from harness.model.baseline import Baseline, KnownFailure

BASELINE_SCHEMA = 1
# INCONCLUSIVE is no answer: nobody can know it.
_VERDICTS = tuple(kind.value for kind in VerdictKind if kind is not VerdictKind.INCONCLUSIVE)


def _a_reason(value: str) -> str:
    if not value.strip():
        raise ValueError("'reason' is empty; say why the failure is known, and where it is worked on")
    return value


def _an_answer(value: object) -> object:
    if value == VerdictKind.INCONCLUSIVE:
        raise ValueError("'verdicts' has INCONCLUSIVE, which is no answer: nothing is known by it")
    return value


def _a_day(value: object) -> object:
    if type(value) is not date:
        raise ValueError(f"'until' is {shown(value)}; it is a day without quotes, such as 2027-03-31")
    return value


class KnownEntry(WrittenModel):
    """An entry of ``[[known]]``."""

    cell: Annotated[str, Field(min_length=1)]
    verdicts: Annotated[
        tuple[Annotated[str, one_of(_VERDICTS), BeforeValidator(_an_answer)], ...],
        one_or_more(),
        Field(min_length=1),
    ]
    reason: Annotated[str, AfterValidator(_a_reason)]
    until: Annotated[date, BeforeValidator(_a_day)]


class BaselineFile(WrittenFile):
    """A baseline as it is written."""

    reads = BASELINE_SCHEMA

    known: Annotated[tuple[KnownEntry, ...], array()] = ()


def load_baseline(path: Path, option: str) -> Baseline:
    """The baseline that was given with ``option``; :class:`~harness.errors.UsageError` for what is wrong with it."""
    return read_baseline(read_toml(path, option)[1], str(path))


def read_baseline(table: Mapping[str, Any], source: str) -> Baseline:
    """The baseline of a table that was read from ``source``."""
    file = validated(BaselineFile, table, source=source)
    known = (
        KnownFailure(number, one.cell, tuple(VerdictKind(kind) for kind in one.verdicts), one.reason.strip(), one.until)
        for number, one in enumerate(file.known, 1)
    )
    return Baseline(source, tuple(known))
