"""How sure a count makes us: bounds and a comparison of rates.

All of it treats block writes as independent trials.  They are not: a workload that scribbles hits neighbouring
blocks in bursts.  So every bound here is an optimistic one, the narrowest that the count could support.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import beta, fisher_exact


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
    return float(beta.ppf(confidence, hits + 1, trials - hits))


def compare(hits_a: int, trials_a: int, hits_b: int, trials_b: int) -> RateComparison | None:
    """Whether two rates differ by more than chance; None if the counts of either side make no rate."""
    if not (_rate(hits_a, trials_a) and _rate(hits_b, trials_b)):
        return None
    a, b = hits_a / trials_a, hits_b / trials_b
    p_value = fisher_exact([[hits_a, trials_a - hits_a], [hits_b, trials_b - hits_b]])[1]
    return RateComparison(a, b, float(p_value), "a" if a > b else "b" if b > a else None)


def _rate(hits: int, trials: int, confidence: float = 0.95) -> bool:
    """Whether the counts make a rate; :class:`ValueError` for what no count can be."""
    if hits < 0 or trials < 0:
        raise ValueError(f"{hits} hits in {trials} trials is not possible")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
    return 0 < trials >= hits
