"""Numbers and lists as a sentence has them."""

from __future__ import annotations

import math
from collections.abc import Iterable


def count(number: int) -> str:
    """``12400`` as ``12 400``."""
    return f"{number:,}".replace(",", " ")


def plural(number: int, noun: str) -> str:
    """``1 block``, ``2 blocks``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def part_of(number: int, total: int) -> str:
    """``3 of 1 204``."""
    return f"{count(number)} of {count(total)}"


def joined(items: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    names = list(items)
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def between(low: float, high: float) -> str:
    """An interval of rates as percent, rounded outwards so that it is never narrower: ``14 % to 95 %``."""
    digits = 0 if high - low >= 0.1 else max(1, 1 - math.floor(math.log10(max(high - low, 1e-9) * 100)))
    scale = 10**digits
    bottom, top = math.floor(round(low * 100 * scale, 6)) / scale, math.ceil(round(high * 100 * scale, 6)) / scale
    return f"{bottom:.{digits}f} % to {top:.{digits}f} %"
