"""How sure a count makes us: exact intervals and comparisons of rates, and a bootstrap where they would lie.

The unit of a trial is a *repetition* of a cell: it diverged or it did not, whatever the others did.  Of repetitions the
intervals and the comparison here are exact: they cover the truth in at least the share of cases that they state.

Blocks of one repetition are no such trials: a workload hits neighbouring blocks in bursts, and one repetition may lose
hundreds where the next one loses none.  An interval that takes each block for a trial of its own is far too narrow;
:func:`bootstrapped_rate` describes a rate of blocks by how it varies from repetition to repetition instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# At once, for its numpy: a processor that this does not start on is to be found before anything is played.
import scipy  # noqa: F401

#: The fewest repetitions whose variation says anything.
BOOTSTRAP_FROM = 3
#: Less than this is more than chance.
LEVEL = 0.05
#: So many trials are never asked for.
MOST_TRIALS = 60
_ROUNDING = 1e-9
_RESAMPLES = 2000
_SEED = 20261128


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, both between 0 and 1."""

    low: float
    high: float


@dataclass(frozen=True)
class RateComparison:
    """Two rates side by side.

    ``p_value``: how likely counts at least this far apart are if both rates are the same (Fisher's exact test, two
    sided).  ``larger`` is ``a``, ``b``, or None for equal rates.
    """

    rate_a: float
    rate_b: float
    p_value: float
    larger: str | None

    def significant(self, level: float = 0.05) -> bool:
        """Whether the difference is more than chance at ``level``."""
        return self.p_value < level


def rate_upper(hits: int, trials: int, confidence: float = 0.95) -> float | None:
    """The one-sided upper bound (Clopper-Pearson) of the rate behind ``hits`` in ``trials``.

    None if the counts make no rate: no trials, or more hits than trials.
    """
    if not _rate(hits, trials, confidence):
        return None
    if hits == trials:
        return 1.0
    if hits == 0:
        return float(1 - (1 - confidence) ** (1 / trials))
    return float(_scipy().beta.ppf(confidence, hits + 1, trials - hits))


def rate_interval(hits: int, trials: int, confidence: float = 0.95) -> Interval | None:
    """The two-sided interval (Clopper-Pearson) of the rate behind ``hits`` in ``trials``.

    None if the counts make no rate: no trials, or more hits than trials.
    """
    one_sided = (1 + confidence) / 2
    upper = rate_upper(hits, trials, one_sided)
    if upper is None:
        return None
    below = rate_upper(trials - hits, trials, one_sided)
    assert below is not None
    return Interval(1 - below, upper)


def bootstrapped_rate(counts: Sequence[tuple[int, int]], confidence: float = 0.95) -> Interval | None:
    """A percentile bootstrap of the rate of all hits among all trials; ``counts`` has both for each repetition.

    It resamples whole repetitions, with a fixed seed.  With a handful of them it describes how the rate varied; it is
    no interval that covers the truth as often as ``confidence`` says.  None for fewer than ``BOOTSTRAP_FROM``
    repetitions with trials.
    """
    counted = [(hits, trials) for hits, trials in counts if trials]
    if len(counted) < BOOTSTRAP_FROM:
        return None
    found = _scipy().bootstrap(
        tuple(zip(*counted, strict=True)),
        lambda hits, trials, axis: hits.sum(axis=axis) / trials.sum(axis=axis),
        n_resamples=_RESAMPLES, paired=True, vectorized=True, confidence_level=confidence, method="percentile",
        random_state=_SEED,
    )  # fmt: skip
    # Where the rate never varied the two may be apart by a rounding error, the wrong way round.
    low, high = sorted((float(found.confidence_interval.low), float(found.confidence_interval.high)))
    return Interval(low, high)


def compare(hits_a: int, trials_a: int, hits_b: int, trials_b: int) -> RateComparison | None:
    """Whether two rates differ by more than chance; None if the counts of either side make no rate."""
    if not (_rate(hits_a, trials_a) and _rate(hits_b, trials_b)):
        return None
    a, b = hits_a / trials_a, hits_b / trials_b
    p_value = _scipy().fisher_exact([[hits_a, trials_a - hits_a], [hits_b, trials_b - hits_b]])[1]
    return RateComparison(a, b, float(p_value), "a" if a > b else "b" if b > a else None)


def at_least_so_far_apart(few: tuple[int, int], many: tuple[int, int]) -> float:
    """How likely ``many`` has so many hits, or more, if its rate is that of ``few`` (Fisher's exact test, one sided).

    Each is hits and trials.  1 where either has no trials: nothing was seen that chance alone could not do.
    """
    if not (_rate(*few) and _rate(*many)):
        return 1.0
    table = [[many[0], many[1] - many[0]], [few[0], few[1] - few[0]]]
    return min(1.0, float(_scipy().fisher_exact(table, alternative="greater")[1]))


def significant(p_value: float, level: float = LEVEL) -> bool:
    """Whether that is less than ``level``; a table of three and three, which has exactly 0.05, is not."""
    return p_value < level - _ROUNDING


def trials_to_tell(few: tuple[int, int], many: tuple[int, int], level: float = LEVEL) -> int | None:
    """How many trials of each would tell the two rates apart at ``level``, if they stay about as they were seen.

    The larger rate is rounded down to whole hits and the smaller one up.  None where that takes more than
    ``MOST_TRIALS``, or where the rates are not so far apart in that direction.
    """
    if not (_rate(*few) and _rate(*many)) or few[0] * many[1] >= many[0] * few[1]:
        return None
    for trials in range(1, MOST_TRIALS + 1):
        seldom, often = -(-few[0] * trials // few[1]), many[0] * trials // many[1]
        if significant(at_least_so_far_apart((seldom, trials), (often, trials)), level):
            return trials
    return None


def students_quantile(share: float, degrees: int) -> float:
    """Below what a variable with Student's distribution of so many ``degrees`` of freedom is in that share of cases."""
    return float(_scipy().t.ppf(share, degrees))


def _rate(hits: int, trials: int, confidence: float = 0.95) -> bool:
    """Whether the counts make a rate; :class:`ValueError` for what no count can be."""
    if hits < 0 or trials < 0:
        raise ValueError(f"{hits} hits in {trials} trials is not possible")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
    return 0 < trials >= hits


def _scipy() -> Any:
    """``scipy.stats``, which takes most of a second to load: commands that count nothing do without."""
    import scipy.stats

    return scipy.stats
