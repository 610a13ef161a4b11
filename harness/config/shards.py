"""Which part of a matrix a run plays, where several runs play it together; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.model import Cell

_WRITTEN = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})", re.ASCII)


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
