"""Tables as the page shows them: slots with a tone, and no column that nobody filled; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A table of more rows than that is moved to and fro on a phone.
MOST_FOLDED = 40


@dataclass(frozen=True)
class Slot:
    """One place of a table.

    ``tone`` names its look in the style sheet; with a ``sign`` it is a chip of that tone.  ``anchor`` is what it links
    to on the same page, empty for nothing.
    """

    text: str = ""
    tone: str = ""
    sign: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Grid:
    """A table with a name for those who cannot see it."""

    label: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Slot, ...], ...]

    @property
    def folds(self) -> bool:
        """Whether each row becomes a list on a phone, with the name of each column in it: not thousands of them."""
        return len(self.rows) <= MOST_FOLDED


def grid(label: str, columns: Sequence[str], rows: Iterable[Sequence[Slot]]) -> Grid | None:
    """The table without its empty columns; None where there is no row."""
    filled = [tuple(row) for row in rows]
    if not filled:
        return None
    used = [at for at in range(len(columns)) if any(row[at].text for row in filled)]
    return Grid(
        label,
        tuple(columns[at] for at in used),
        tuple(tuple(row[at] for at in used) for row in filled),
    )


def counted(number: int | None, text: str = "") -> Slot:
    """A number of bad things: it stands out unless it is zero.  ``text`` stands for it; None is empty."""
    if number is None:
        return Slot()
    return Slot(text or str(number), "bad" if number else "")
