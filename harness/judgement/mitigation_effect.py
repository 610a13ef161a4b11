"""What a mitigation does against divergence: whether nothing diverged any more, less or as much; pure.

Each cell with a mitigation or a preset, or with another cache mode than none, is compared with its baseline, which is
the same cell with nothing done about it.  The unit is a repetition: Fisher's exact test of how many of each diverged.
Where it diverges as before, the share of differing blocks says whether there are fewer: repetitions of one number on
one lab make a pair (as in :mod:`harness.judgement.cost_ratios`), and all of the interval of their ratio has to be
below 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.judgement.cost_ratios import ratio_interval
from harness.judgement.rates import resynced_kib, trials
from harness.judgement.repetitions import CellAnswer, answers
from harness.judgement.stats import compare, rate_interval
from harness.model import Result, VerdictKind


class EffectWord(StrEnum):
    """What a mitigation does, as far as the repetitions tell."""

    NOT_OBSERVED = "not observed"  # nothing diverged, and without it significantly more did
    NARROWS = "narrows"  # something diverged, and significantly less than without it
    NEITHER = "neither"  # as much diverged as without it, as far as the repetitions tell
    OPEN = "not enough"  # too few repetitions to say
    NO_ANSWER = "no answer"  # it was refused or had no answer, or nothing diverged without it either


@dataclass(frozen=True)
class Effect:
    """One cell against its baseline, both by their ids; ``diverged`` of ``answered`` repetitions each.

    ``p_value``: how likely counts at least this far apart are by chance.  ``share``: the differing blocks as a ratio to
    the baseline's, and the ends of its 95 % interval, where both have pairs; else None.  ``reason`` is a sentence where
    there is no answer.
    """

    mitigation: str
    cache: str
    preset: str
    cell: str
    baseline: str
    word: EffectWord
    diverged: int
    answered: int
    baseline_diverged: int
    baseline_answered: int
    p_value: float | None = None
    share: tuple[float, float, float] | None = None
    reason: str = ""

    @property
    def not_ruled_out(self) -> str:
        """``up to 52 %``: the upper end of the exact two-sided 95 % interval where none diverged; else empty."""
        interval = rate_interval(self.diverged, self.answered)
        return f"up to {interval.high * 100:.2g} %" if interval is not None and not self.diverged else ""


def effects(results: Iterable[Result]) -> tuple[Effect, ...]:
    """That of each cell whose baseline was played too, in their order; cells that only measure costs are left out."""
    by_id = {one.cell_id: one for one in answers(results) if one.cell.control is None and one.cell.sabotage is None}
    found = []
    for one in by_id.values():
        baseline = by_id.get(one.cell.without_presets().id)
        measures = any(play.evidence and play.evidence.work and play.evidence.work.performance for play in one.plays)
        if baseline is not None and baseline is not one and not measures:
            found.append(_effect(one, baseline))
    return tuple(found)


def _effect(one: CellAnswer, baseline: CellAnswer) -> Effect:
    word, p_value, share, reason = EffectWord.NO_ANSWER, None, None, ""
    compared = compare(one.diverged, one.answered, baseline.diverged, baseline.answered)
    if compared is None:
        who, kinds = (one, one.kinds) if not one.answered else (baseline, baseline.kinds)
        reason = f"{who.cell_id} ended as {' and '.join(kinds) or 'nothing that was played'}"
        if kinds.keys() == {VerdictKind.REFUSED} and who.worst.verdict is not None:
            reason = who.worst.verdict.sentence
    elif not baseline.diverged:
        reason = f"nothing diverged in {baseline.cell_id} either"
    else:
        p_value, share = compared.p_value, _share(one, baseline)
        fewer = compared.significant() and compared.larger == "b"
        if not one.diverged:
            word = EffectWord.NOT_OBSERVED if fewer else EffectWord.OPEN
        else:
            # That it cures is off the table after one play; that it does not narrow needs pairs.
            less = fewer or (share is not None and share[2] < 1)
            word = EffectWord.NARROWS if less else EffectWord.NEITHER if share is not None else EffectWord.OPEN
    cell = one.cell
    return Effect(
        str(cell.mitigation or ""), str(cell.cache or ""), str(cell.preset or ""), one.cell_id, baseline.cell_id, word,
        one.diverged, one.answered, baseline.diverged, baseline.answered, p_value, share, reason,
    )  # fmt: skip


def _share(one: CellAnswer, baseline: CellAnswer) -> tuple[float, float, float] | None:
    mine, theirs = _shares(one), _shares(baseline)
    return ratio_interval([mine[play] / theirs[play] for play in mine if play in theirs])


def _shares(one: CellAnswer) -> Mapping[tuple[str, int], float]:
    """Which share of its chances differed in each repetition, by lab and number; half a block for none."""
    found = {}
    for play in one.plays:
        if play.evidence is None or play.verdict is None or play.evidence.comparison is None:
            continue
        count, _ = trials(play.evidence)
        if count and not resynced_kib(play.evidence) and play.verdict.kind is not VerdictKind.INCONCLUSIVE:
            differing = play.evidence.comparison.differing_blocks
            found[play.evidence.lab, play.cell.repetition] = max(differing, 0.5) / count
    return found
