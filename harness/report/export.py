"""A stored run as what other programs and people take: JSON, a line of CSV for each play, and Markdown; pure.

The JSON is described in ``docs/report-formats.md``.  It changes in two ways only: a key is added, or
:data:`REPORT_SCHEMA` is raised.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from harness.judgement.cost_ratios import cost_ratios
from harness.judgement.known_faults import known_faults
from harness.model import Result, Run
from harness.report.axis_maps import AxisMap, Tile, axis_maps
from harness.report.cells import anchors
from harness.report.formatting import between, clean, count, owners, part_of
from harness.report.questions import question_page
from harness.report.repetitions import PlayedCell, answer_label, played_cells
from harness.report.replay import replay_command
from harness.report.summary import provenance_rows, stack_rows, summarize, title_of
from harness.report.table import SIGNS, differing_blocks

#: Raised where somebody who reads an older one would misread this one.
REPORT_SCHEMA = 1

CSV_COLUMNS = (
    "run", "cell", "repetition", "attempt", "control", "verdict", "worth", "expected", "as_expected", "hazard",
    "exposed_blocks", "opportunities", "differing_blocks", "allocated", "free", "metadata", "journal", "unknown",
    "cache", "client", "filesystem", "layout", "workload", "mitigation", "preset", "aio", "bus", "link_delay_ms",
    "disk_delay_ms", "flush_delay_ms", "replication", "migrations", "crash", "fault", "seconds", "seed", "started_at",
    "kernel", "drbd", "qemu", "libvirt", "accelerator", "sentence",
)  # fmt: skip


def as_json(run: Run, results: Sequence[Result], unreadable: Sequence[str] = ()) -> str:
    """The run, its headline, its questions, each cell with its plays, and costs; ends with a line break."""
    names = anchors(results)
    summary, asked = summarize(results), question_page(run, results, names)
    first = (asked.first,) if asked.first else ()
    document = {
        "report_schema": REPORT_SCHEMA,
        "run": {
            "id": run.id,
            "matrix": run.matrix,
            "started_at": run.started_at,
            "finished_at": run.finished_at,
            "schema": run.schema,
            "seed": run.seed,
            "stack": _plain(run.stack),
            "known_faults": [_plain(one) for one in known_faults(run.stack)],
            "provenance": _plain(run.provenance),
        },
        "headline": {"answer": str(summary.headline.answer), "sentence": summary.headline.sentence},
        "questions": [
            {
                "question": row.answer.question,
                "answer": row.answer.short,
                "sentence": row.answer.sentence,
                "cells": list(row.answer.cells),
                "play": row.answer.play,
            }
            for row in (*first, *asked.asked, *asked.unasked)
        ],
        "cells": [_cell(run, one) for one in played_cells(results)],
        "costs": [_plain(one) for one in cost_ratios(results)],
        "unreadable": list(unreadable),
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(run: Run, results: Sequence[Result]) -> str:
    """A line for each play, with the names of the columns in the first."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerow({name: _in_table(value) for name, value in _line(run, result).items()})
    return out.getvalue()


def as_markdown(run: Run, results: Sequence[Result], unreadable: Sequence[str] = ()) -> str:
    """What one pastes into an issue: the answer, the heat maps, what differs, the versions, the commands."""
    names = anchors(results)
    asked = question_page(run, results, names)
    lines = [f"## {_md(title_of(run))}", ""]
    if asked.first is not None:
        answer = asked.first.answer
        lines += [f"**{_md(answer.question)} {_md(answer.short)}.** {_md(answer.sentence)}", ""]
    head = summarize(results).headline
    lines += [f"**Do the two replicas hold the same data? {head.answer}.** {_md(head.sentence)}", ""]
    lines += [part for line in unreadable for part in (f"Unreadable: {_md(line)}", "")]
    for one in axis_maps(results, names):
        lines += _md_map(one)
    harmed = [one for one in played_cells(results) if one.answer.diverged and not one.answer.cell.tests_instrument]
    if harmed:
        rows = [_md_harmed(one) for one in harmed]
        lines += _md_table(("Cell", "Verdict", "Diverged", "Exact 95 % interval", "Whose, in the worst play"), rows)
        play = replay_command(run, harmed[0].answer.cell)
        lines += [part for part in (f"Play the first again: {_code(play)}", "") if play]
    lines += ["<details><summary>Versions</summary>", ""]
    lines += _md_table(("", ""), [tuple(map(_md, row)) for row in (*stack_rows(run.stack), *provenance_rows(run))])
    lines += [f"- Known fault: {_md(str(one))}" for one in known_faults(run.stack)]
    return "\n".join([*lines, "</details>", ""])


# --------------------------------------------------------------------------- one cell, one play


def _cell(run: Run, one: PlayedCell) -> dict[str, Any]:
    answer = one.answer
    return {
        "id": answer.cell_id,
        "control": answer.cell.control.value if answer.cell.control else None,
        "verdict": answer.worst.verdict.kind.value if answer.worst.verdict else None,
        "verdicts": {kind.value: number for kind, number in answer.kinds.items()},
        "diverged": answer.diverged,
        "answered": answer.answered,
        "interval_95": [answer.interval.low, answer.interval.high] if answer.interval else None,
        "disagree": answer.disagree,
        "play": replay_command(run, answer.cell),
        "plays": [_line(run, play) | {"reasons": _reasons(play)} for play in answer.plays],
    }


def _reasons(result: Result) -> list[str]:
    return list(result.verdict.reasons) if result.verdict else []


def _line(run: Run, result: Result) -> dict[str, Any]:
    cell, verdict, evidence = result.cell, result.verdict, result.evidence
    owned, chances = evidence.ownership if evidence else None, verdict.opportunities if verdict else None
    values: dict[str, Any] = {
        "run": run.id,
        "cell": cell.id,
        "attempt": evidence.attempt if evidence else None,
        "control": cell.control,
        "verdict": verdict.kind if verdict else None,
        "worth": verdict.potency if verdict else None,
        "expected": list(cell.expected.verdicts) if cell.expected else None,
        "as_expected": verdict.meets(cell.expected) if verdict and cell.expected else None,
        "hazard": verdict.hazard if verdict else None,
        "exposed_blocks": verdict.exposed_blocks if verdict else None,
        "opportunities": chances.count if chances else None,
        "differing_blocks": differing_blocks(result) if verdict else None,
        "replication": str(cell.replication),
        "started_at": evidence.started_at if evidence else None,
        "sentence": verdict.sentence if verdict else None,
    }
    for name in ("allocated", "free", "metadata", "journal", "unknown"):
        values[name] = getattr(owned, name) if owned else None
    for name in ("kernel", "drbd", "qemu", "libvirt", "accelerator"):
        values[name] = getattr(run.stack, name)
    for name in ("link_delay_ms", "disk_delay_ms", "flush_delay_ms"):
        values[name] = getattr(cell.delays, name)
    return {name: _plain(values[name] if name in values else getattr(cell, name)) for name in CSV_COLUMNS}


def _plain(value: Any) -> Any:
    """``value`` as JSON holds it: enumerations by their values, what is no number as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict) or hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode()
    return value


def _in_table(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str):
        value = clean(value)
    # What a spreadsheet would take for a formula is text.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


# --------------------------------------------------------------------------- Markdown


def _md(text: str) -> str:
    """``text`` as nothing but text in Markdown, on one line."""
    flat = " ".join(clean(str(text)).split()).replace("&", "&amp;").replace("<", "&lt;")
    for char in "\\`*_[]|#":
        flat = flat.replace(char, f"\\{char}")
    return flat


def _code(text: str) -> str:
    """``text`` as code on one line."""
    return f"`{' '.join(clean(text).split()).replace('`', '').replace('|', '').replace('<', '')}`"


def _md_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _md_tile(tile: Tile | None) -> str:
    return f"{tile.sign} {tile.word} {tile.short}".strip() if tile else ""


def _md_map(one: AxisMap) -> list[str]:
    rows = [
        (
            _md(row.name),
            *(_md_tile(tile) for tile in row.tiles),
        )
        for row in one.rows
    ]
    return _md_table((_md(one.axis), *map(_md, one.columns)), rows)


def _md_harmed(one: PlayedCell) -> tuple[str, ...]:
    answer, worst = one.answer, one.answer.worst
    kind = worst.verdict.kind if worst.verdict else None
    interval = between(answer.interval.low, answer.interval.high) if answer.interval else ""
    whose = owners(worst.evidence.ownership) if worst.evidence else ""
    blocks = f"{count(differing_blocks(worst))}: {whose}" if whose else count(differing_blocks(worst))
    often = part_of(answer.diverged, answer.answered)
    return _code(answer.cell_id), f"{SIGNS[kind]} {answer_label(answer)}", often, interval, blocks
