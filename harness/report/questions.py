"""A user's questions, as a page, a terminal and a table have them; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from harness.judgement import questions
from harness.judgement.question_facts import QuestionAnswer, Tone
from harness.judgement.stacks import PlayedRun
from harness.model import Result, Run
from harness.report.cells import first_anchors
from harness.report.formatting import clean

CELLS_SHOWN = 12
_STYLES = {
    Tone.BAD: "diverged",
    Tone.NEUTRAL: "refused",
    Tone.OPEN: "inconclusive",
    Tone.NOT_ASKED: "notrun",
}
_COLOURS = {Tone.BAD: "bold red", Tone.NEUTRAL: "bold", Tone.OPEN: "bold yellow", Tone.NOT_ASKED: "dim"}


@dataclass(frozen=True)
class QuestionRow:
    """One answer: its look, and the first of the cells that it rests on with their places; ``more`` are left out."""

    answer: QuestionAnswer
    style: str
    cells: tuple[tuple[str, str], ...]
    more: int


@dataclass(frozen=True)
class QuestionPage:
    """What stands where the eye falls first, the other questions that have an answer, and those that were not asked."""

    first: QuestionRow | None
    asked: tuple[QuestionRow, ...]
    unasked: tuple[QuestionRow, ...]


def question_page(run: Run, results: Sequence[Result], names: Sequence[str]) -> QuestionPage:
    """The questions for the page of one run; ``names`` are the anchors of ``results``.

    A run without any verdict answers none.
    """
    if not any(result.verdict for result in results):
        return QuestionPage(None, (), ())
    places = first_anchors(results, names)
    first, *others = (_row(one, places) for one in questions.answers([PlayedRun(run.id, run.stack, tuple(results))]))
    asked = tuple(row for row in others if row.answer.tone is not Tone.NOT_ASKED)
    return QuestionPage(first, asked, tuple(row for row in others if row not in asked))


def _row(answer: QuestionAnswer, places: Mapping[str, str]) -> QuestionRow:
    cells = tuple((cell, places[cell]) for cell in answer.cells[:CELLS_SHOWN])
    return QuestionRow(answer, _STYLES[answer.tone], cells, max(0, len(answer.cells) - CELLS_SHOWN))


# --------------------------------------------------------------------------- a terminal, Markdown, JSON


def questions_text(runs: Sequence[PlayedRun]) -> Iterator[RenderableType]:
    """Each question that has an answer, and below them those that were not asked."""
    answers = questions.answers(runs)
    for one in answers:
        if one.tone is not Tone.NOT_ASKED:
            yield Text(clean(one.question), style="bold")
            said = Text.assemble((f"{one.short}.", _COLOURS[one.tone]), f" {clean(one.sentence)}")
            yield Padding(said, (0, 0, 0, 4))
    for one in answers:
        if one.tone is Tone.NOT_ASKED:
            yield Text(clean(f"{one.question} {one.short}: {one.sentence} {one.play}".rstrip()), style="dim")


def questions_markdown(runs: Sequence[PlayedRun]) -> str:
    """A table of the questions."""
    rows = [("question", "answer", "play")] + [("---",) * 3]  # noqa: RUF005
    rows += [
        (one.question, f"**{one.short}.** {one.sentence}", f"`{one.play}`" if one.play else "-")
        for one in questions.answers(runs)
    ]
    return "".join(f"| {' | '.join(clean(cell).replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def questions_json(runs: Sequence[PlayedRun]) -> list[dict[str, object]]:
    """The questions for a program."""
    return [
        {
            "question": one.question,
            "asked": one.tone is not Tone.NOT_ASKED,
            "answer": one.short,
            "sentence": one.sentence,
            "bad": one.tone is Tone.BAD,
            "cells": list(one.cells),
            "play": one.play,
        }
        for one in questions.answers(runs)
    ]
