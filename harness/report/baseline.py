"""A baseline in words, and a first one of a run's failures; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from harness.config.baseline_file import BASELINE_SCHEMA
from harness.judgement.baseline import BaselineOutcome, fails
from harness.model import Result, Run
from harness.model.baseline import Baseline, KnownFailure
from harness.report.formatting import clean
from harness.report.repetitions import play_name

#: How long an entry counts where nobody says it.
DAYS = 90


def baseline_lines(baseline: Baseline, outcome: BaselineOutcome) -> Iterator[str]:
    """One sentence for each play that is known, each entry that is over, is not needed any more, or matches nothing."""
    for result, entry in outcome.known:
        yield _line(result, f"known until {entry.until}: {entry.reason}")
    for result, entry in outcome.expired:
        yield _line(result, f"was known until {entry.until}, which is over: {entry.reason}")
    for entry in outcome.mended:
        yield f"{_place(baseline, entry)} is not needed any more: its cells are as expected"
    for entry in outcome.unmatched:
        yield f"{_place(baseline, entry)} matches no cell of this run: '{clean(entry.cell)}'"


def _line(result: Result, said: str) -> str:
    kind = result.verdict.kind if result.verdict else ""
    return clean(f"{play_name(result.cell)}: {kind}, {said}")


def _place(baseline: Baseline, entry: KnownFailure) -> str:
    return f"{baseline.source}, [[known]] number {entry.number}"


def baseline_toml(run: Run, results: Sequence[Result], today: date, until: date | None, reason: str) -> str:
    """A baseline of what fails in ``run``, an entry for each cell; an empty ``reason`` is to be filled in."""
    head = f"# What fails in the run {run.id} of the matrix {run.matrix or '(none)'}."
    lines = [" ".join(clean(head).split()), f"schema = {BASELINE_SCHEMA}"]
    failing: dict[str, dict[str, str]] = {}
    for result in results:
        if fails(result) and result.verdict is not None:
            failing.setdefault(result.cell.id, {}).setdefault(result.verdict.kind.value, result.verdict.sentence)
    if not failing:
        lines.append("# Nothing does: every answer is as expected.")
    for cell_id, verdicts in failing.items():
        lines += ["", "[[known]]"]
        lines += (f"# {kind}: {' '.join(clean(sentence).split())}" for kind, sentence in verdicts.items())
        lines += [
            f"cell = {_text(cell_id)}",
            f"verdicts = [{', '.join(_text(kind) for kind in verdicts)}]",
            f"reason = {_text(reason)}{'' if reason else '  # to be filled in: an empty one is refused'}",
            f"until = {until or today + timedelta(days=DAYS)}",
        ]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """A basic string of TOML."""
    escaped = "".join(
        f"\\u{ord(one):04x}" if ord(one) < 32 or ord(one) == 127 else one
        for one in text.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{escaped}"'
