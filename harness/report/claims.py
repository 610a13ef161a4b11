"""What may be said of the cells of a run, and what became of the claims, in words; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from harness.config.claims_file import load_claims
from harness.judgement.claim_words import CellWords, Claim, Word, cell_words
from harness.judgement.claims import Assessment, Part, assess, stacks_of
from harness.judgement.repetitions import answers
from harness.judgement.stacks import PlayedRun
from harness.model import Result, Run
from harness.model.claim import ClaimSpec
from harness.report.cells import first_anchors
from harness.report.formatting import clean
from harness.report.questions import questions_json, questions_markdown, questions_text
from harness.util import resources

#: In words.
CLAIMS = {
    Claim.HAPPENS: "that blocks diverge or data is lost",
    Claim.NEVER: "that nothing diverges or is lost",
}
_STYLES = {
    Word.CONFIRMED: "bold", Word.OBSERVED: "bold", Word.REFUTED: "bold red", Word.COUNTEREXAMPLE: "bold red",
    Word.NOT_OBSERVED: "", Word.NO_ANSWER: "yellow", Word.NOT_ASKED: "dim",
}  # fmt: skip
_INDENT = (0, 0, 0, 4)
JSON_SCHEMA = 1


def claim_line(words: CellWords) -> str:
    """``none-swap-reclaim, that blocks diverge or data is lost: observed (3 of 5)``."""
    return f"{words.cell_id}, {CLAIMS[words.claim]}: {words.text}"


@cache
def own_claims() -> tuple[ClaimSpec, ...]:
    """The claims that come with the harness."""
    return load_claims(resources.claims())


# --------------------------------------------------------------------------- a terminal


def claims_text(assessed: Sequence[Assessment], runs: Sequence[PlayedRun]) -> Iterator[RenderableType]:
    """Each claim with its word, its numbers and what could change it, between what it rests on and the questions."""
    yield Text("Stacks", style="bold")
    yield from (Padding(Text(clean(line)), _INDENT) for line in stacks_of(runs))
    for one in assessed:
        yield Text("")
        yield Text.assemble((f"{one.claim}  {clean(one.sentence)}: ", "bold"), (one.answer.value, _STYLES[one.answer]))
        for part in one.parts:
            yield Padding(Text(clean(f"{part.of}: {part.text}")), _INDENT)
        for name, value in (("could change it", one.could_change), ("note", one.note), ("play", one.play)):
            if value and not (name == "play" and one.answer in (Word.CONFIRMED, Word.REFUTED)):
                yield Padding(Text(clean(f"{name}: {value}"), style="dim"), _INDENT)
    yield Text("\nQuestions\n", style="bold")
    yield from questions_text(runs)


# --------------------------------------------------------------------------- Markdown and JSON


def claims_markdown(assessed: Sequence[Assessment], runs: Sequence[PlayedRun]) -> str:
    """A table of the claims, the stacks below it, and a table of the questions."""
    stacks = "".join(f"- {_escaped(line).replace('<', '&lt;')}\n" for line in stacks_of(runs))
    return f"{claims_table(assessed)}\n{stacks}\n{questions_markdown(runs)}".rstrip("\n")


def claims_table(assessed: Iterable[Assessment]) -> str:
    """The claims as a table of Markdown, one row each."""
    rows = [("", "claim", "so far", "numbers", "what could change it"), ("---",) * 5]
    rows += [(one.claim, one.sentence, f"**{one.answer}**", _numbers(one), one.could_change or "-") for one in assessed]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in row)} |\n" for row in rows)


def _numbers(one: Assessment) -> str:
    if all(part.word is Word.NOT_ASKED for part in one.parts):
        return one.note or "-"
    return "; ".join([*(f"{part.of}: {part.text}" for part in one.parts), *filter(None, [one.note])])


def _escaped(text: str) -> str:
    return clean(text).replace("|", "\\|").replace("\n", " ")


def claims_json(assessed: Sequence[Assessment], runs: Sequence[PlayedRun]) -> str:
    """All of it for a program; ``schema`` is raised where a key changes what it means."""
    return json.dumps(
        {
            "schema": JSON_SCHEMA,
            "runs": [run.name for run in runs],
            "stacks": list(stacks_of(runs)),
            "claims": [
                {
                    "claim": one.claim,
                    "sentence": one.sentence,
                    "answer": one.answer.value,
                    "numbers": one.numbers,
                    "cells": list(one.cells),
                    "could_change": one.could_change,
                    "play": one.play,
                    "note": one.note,
                    "parts": [_part_json(part) for part in one.parts],
                }
                for one in assessed
            ],
            "questions": questions_json(runs),
        },
        indent=1,
        ensure_ascii=False,
    )


def _part_json(part: Part) -> dict[str, object]:
    return {
        "of": part.of,
        "answer": part.word.value,
        "text": part.text,
        "play": part.play,
        "stacks": [
            {
                "stack": one.stack,
                "runs": list(one.runs),
                "answer": one.word.value,
                "hits": one.tally.hits,
                "answered": one.tally.answered,
                "hits_without_delays": one.tally.undelayed_hits,
                "cells": list(one.cells),
            }
            for one in part.stacks
        ],
    }


# --------------------------------------------------------------------------- a page


@dataclass(frozen=True)
class ClaimRow:
    """A claim as the page shows it: the look of its word, and the cells that decided it with their places."""

    claim: Assessment
    style: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class ClaimPage:
    """What became of the claims in one run, those that it does not ask, and the words for each of its cells."""

    rows: tuple[ClaimRow, ...]
    unasked: tuple[Assessment, ...]
    cells: tuple[tuple[CellWords, str], ...]


_TONES = {
    Word.CONFIRMED: "clean", Word.OBSERVED: "refused", Word.REFUTED: "diverged", Word.COUNTEREXAMPLE: "diverged",
    Word.NOT_OBSERVED: "inconclusive", Word.NO_ANSWER: "transient", Word.NOT_ASKED: "notrun",
}  # fmt: skip


def claim_page(run: Run, results: Sequence[Result], names: Sequence[str]) -> ClaimPage:
    """The claims for the page of one run; ``names`` are the anchors of ``results``."""
    assessed = assess(own_claims(), [PlayedRun(run.id, run.stack, tuple(results))])
    places = first_anchors(results, names)
    asked = [one for one in assessed if any(part.stacks for part in one.parts)]
    return ClaimPage(
        tuple(ClaimRow(one, _TONES[one.answer], tuple((cell, places[cell]) for cell in one.cells)) for one in asked),
        tuple(one for one in assessed if one not in asked),
        tuple((one, CLAIMS[one.claim]) for one in cell_words(answers(results), run.stack)),
    )
