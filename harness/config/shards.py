"""Which part of a matrix a run plays, where several runs play it together; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.model import Cell

_WRITTEN = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)
# More plays than any run has: parts that together leave none of so many out are the whole.
_PLAYS = 1_000_000


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``of`` parts, counted from 1; as text ``2/3``."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str, option: str) -> Shard:
        """From ``2/3``; ``option`` is what a sentence (:class:`~harness.errors.UsageError`) calls it."""
        found = _WRITTEN.fullmatch(text)
        if found is None or int(found[1]) > int(found[2]):
            raise UsageError(f"{option} is '{text}'; it is one part of several, written as i/n, such as 1/3, 2/3, 3/3")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def of_cells(self, cells: Sequence[Cell], before: int = 0) -> tuple[Cell, ...]:
        """The plays among ``cells`` that are this part's, in the order given, and every control.

        The plays are dealt out in turn, all repetitions of a cell before those of the next: so both the parts and the
        shares that they have of one cell differ by one play at most.  ``before`` plays were dealt out already.
        """
        plays = [cell for cell in cells if cell.control is None]
        dealt = [cell for cell_id in plan_of(plays) for cell in plays if cell.id == cell_id]
        mine = {
            cell.play for number, cell in enumerate(dealt, before) if number % self.of == self.number - 1
        }  # fmt: skip
        return tuple(cell for cell in cells if cell.control is not None or cell.play in mine)


def plan_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """The ids of ``cells``, each once, in their order: what the parts need to be put in order again."""
    return tuple(dict.fromkeys(cell.id for cell in cells))


def missing_parts(parts: Collection[Shard], most: int = 12) -> tuple[Shard, ...]:
    """What ``parts``, of whatever sizes, leave out of the whole: empty where every play is in one of them.

    The i-th of n parts has the plays number i, i + n, i + 2n ...; so sixths and thirds can be put together.  What is
    left out is named in parts of the sizes that there are, the largest parts first, and where that does not go in
    parts of all sizes' least common multiple; ``most`` of them at most.
    """
    sizes = sorted({part.of for part in parts}) or [1]
    together = math.lcm(*sizes)
    count = min(together, _PLAYS)
    left = bytearray(b"\1") * count
    for part in parts:
        left[part.number - 1 :: part.of] = bytes(len(range(part.number - 1, count, part.of)))
    missing: list[Shard] = []
    for of in (*sizes, together):
        # A part of which all is left has its first play, which is among the first ``of``.
        place = left.find(1, 0, min(of, count))
        while place >= 0 and len(missing) < most:
            mine = slice(place, count, of)
            if all(left[mine]):
                missing.append(Shard(place + 1, of))
                left[mine] = bytes(len(left[mine]))
            place = left.find(1, place + 1, min(of, count))
    return tuple(missing)
