"""Whether two rows of a table of figures that differ in one property alone differ by more than chance; pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from harness.judgement.stats import compare
from harness.report.compare_notes import probability
from harness.report.figure_measures import Play, losers
from harness.report.figure_spec import KEYS, FigureTable

#: Fewer plays on either side cannot be told from chance: all of three against none of three has p = 0.1.
LEAST = 4


def told_apart(table: FigureTable, plays: Sequence[Play]) -> list[str]:
    """A sentence for each pair of rows that differ in ``table.apart`` alone and have ``LEAST`` plays each."""
    if not table.apart:
        return []
    groups: dict[tuple[str, ...], dict[str, list[Play]]] = {}
    for play in plays:
        rest = tuple(KEYS[key].shown(play) for key in table.rows if key != table.apart)
        groups.setdefault(rest, {}).setdefault(KEYS[table.apart].shown(play), []).append(play)
    return [
        sentence
        for rest, values in groups.items()
        for one, other in combinations(values, 2)
        if (sentence := _sentence(table.apart, rest, (one, losers(values[one])), (other, losers(values[other]))))
    ]


def _sentence(
    key: str, rest: Sequence[str], one: tuple[str, tuple[int, int]], other: tuple[str, tuple[int, int]]
) -> str:
    (first, (hits, trials)), (second, (others, of)) = one, other
    found = compare(hits, trials, others, of) if min(trials, of) >= LEAST else None
    if found is None:
        return ""
    return (
        f"{', '.join(rest)}: {KEYS[key].heading} {first} lost an acknowledged write in {hits} of {trials} plays,"
        f" {second} in {others} of {of}: {probability(found.p_value)} (Fisher's exact test, two-sided)."
    )
