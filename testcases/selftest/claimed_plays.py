"""A claim, and plays and runs made up to be asked about it; the command ``claims``.  Nothing here is a test."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from _pytest.mark.expression import Expression

from harness.cli import main as cli
from harness.config.claims_file import read_claims
from harness.config.matrix import load
from harness.judgement.stacks import PlayedRun
from harness.model import (
    CacheMode,
    Cell,
    Comparison,
    DelayProfile,
    Evidence,
    Extent,
    FilesystemKind,
    FioFigures,
    FioPerformance,
    Migration,
    MigrationOutcome,
    Ownership,
    Potency,
    Readback,
    Result,
    Stack,
    Verdict,
    VerdictKind,
    Work,
)
from harness.model.claim import ClaimSpec
from harness.util import resources
from harness.workloads import WORKLOADS

CHECKOUT = Path(__file__).parents[2]
GOLDEN = CHECKOUT / "testcases" / "selftest" / "golden"
SWAP = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
LATE = replace(SWAP, delays=DelayProfile(20, 0))
NAMED = Stack(drbd="8.4.11", kernel="6.12.1+x", qemu="10.0", accelerator="kvm", cpu="a processor")
K = VerdictKind
HIT, MISS = K.DIVERGED, K.CLEAN
READ = Readback(100, "a", "b", (Extent(0, 8),), Ownership(allocated=1))
FREE = Readback(100, "a", "b", (Extent(0, 8),), Ownership(free=1))
DIFFER = Comparison(100, (Extent(0, 8),), 1.0, "x")


def claim(says: str = "happens", **more: object) -> ClaimSpec:
    ask = {"of": "swap", "cells": [{"cache": "none", "filesystem": "swap", "workload": "reclaim"}]}
    entry = {"id": "X1", "claim": "swap diverges", "says": says, "ask": [ask], **more}
    return read_claims({"schema": 1, "claims": [entry]}, "x.toml", WORKLOADS)[0]


def result(cell: Cell, kind: VerdictKind | None, *, potency: Potency | None = None, **facts: object) -> Result:
    if kind is None:
        return Result(cell, None, None)
    evidence = Evidence(cell, 1, "2026-11-23T01:50:03Z", **facts)  # type: ignore[arg-type]
    blocks = 7 if kind is HIT else 0
    worth = potency or (Potency.STRONG if kind is MISS else None)
    return Result(cell, Verdict(kind, "", differing_blocks=blocks, potency=worth), evidence)


def run(*results: Result, stack: Stack = NAMED, name: str = "a-run") -> PlayedRun:
    return PlayedRun(name, stack, tuple(results))


def played_by(command: str) -> list[Cell]:
    """The cells that a command would play; fails where ``drbd-harness`` does not know it."""
    words = shlex.split(command)
    assert words[:2] == ["drbd-harness", "run"]
    typer.main.get_command(cli.app).commands["run"].make_context("run", words[2:])  # type: ignore[attr-defined]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    cells = load(options["--matrix"], WORKLOADS, resources.matrices()).cells
    return [cell for cell in cells if "-k" not in options or selects(options["-k"], cell.id)]


def selects(expression: str, cell_id: str) -> bool:
    """Whether pytest's -k selects the cell."""
    return Expression.compile(expression).evaluate(lambda name, **_: name in cell_id)


def made(plays: Sequence[tuple[VerdictKind | None, bool, bool]]) -> list[Result]:
    return [
        result(replace(LATE if late else SWAP, repetition=at), kind, potency=Potency.WEAK if weak else None)
        for at, (kind, late, weak) in enumerate(plays, 1)
    ]


def moved(**facts: object) -> Result:
    move = Migration(1, "a", "b", MigrationOutcome.COMPLETED, 0.0, 1.0)
    return result(replace(SWAP, migrations=1), HIT, migrations=(move,), **facts)


def cost(cache: CacheMode, iops: float, repetition: int, *, lab: str = "l1") -> Result:
    """A play of fio-cost on a disk whose flushes cost something."""
    cell = Cell("fio-cost", cache=cache, delays=DelayProfile(flush_delay_ms=8), repetition=repetition)
    figures = FioFigures("4k random writes", 100, iops, iops * 4096, 1000, 2000)
    return result(cell, MISS, potency=Potency.WEAK, lab=lab, work=Work(1.0, performance=FioPerformance((figures,))))


def pairs(number: int, *ratios: float) -> list[Result]:
    """Pairs with one of the ratios each, in turn."""
    both = [(cost(CacheMode.NONE, 1000.0, at), cost(CacheMode.WRITETHROUGH, 1000.0 * ratios[at % len(ratios)], at))
            for at in range(1, number + 1)]  # fmt: skip
    return [one for pair in both for one in pair]


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The exit code of ``drbd-harness claims``, what it printed, and its errors."""
    monkey = pytest.MonkeyPatch()
    monkey.setattr("sys.argv", ["drbd-harness", "claims", *map(str, arguments)])
    with monkey.context(), pytest.raises(SystemExit) as ended:
        cli.main()
    monkey.undo()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err
