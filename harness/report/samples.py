"""Differing blocks in hex, both sides, with the bytes that differ told apart: for the page and as plain text; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby

from harness.model import BLOCK_BYTES, BlockOwner, Sample
from harness.report.formatting import count, plural

BYTES_A_ROW = 16
_LINES = 64

Piece = tuple[str, bool]


@dataclass(frozen=True)
class HexRow:
    """Up to 16 bytes of both sides, cut into pieces that agree and pieces that differ: as hex and as text."""

    offset: int
    a: tuple[Piece, ...]
    b: tuple[Piece, ...]
    text_a: tuple[Piece, ...]
    text_b: tuple[Piece, ...]


@dataclass(frozen=True)
class SampleView:
    """A differing block: where it is, its owner, what it looks like, both sides.

    ``lines``: the places from 0 to 63 of the block's lines of 64 bytes that differ; ``lines_sentence`` says how many.
    """

    title: str
    owner: BlockOwner
    detail: str
    looks: str
    sample: Sample
    lines: tuple[int, ...]
    lines_sentence: str

    @cached_property
    def rows(self) -> tuple[HexRow, ...]:
        """Both sides in hex; made only where they are shown, for that is most of the work of a large page."""
        return hex_rows(self.sample)


def sample_view(sample: Sample) -> SampleView:
    """The view of ``sample``."""
    lines = _lines(sample)
    bounds = f"{plural(len(lines), 'line')} of 64 bytes of {_LINES} differ" if lines else ""
    return SampleView(title_of(sample), sample.owner, sample.detail, looks_of(sample), sample, lines, bounds)


def title_of(sample: Sample) -> str:
    """Which block, how much of it differs, and where in its file that begins, where it is a file's."""
    differ = plural(sample.differing_bytes, "byte")
    title = f"Block {count(sample.block)}: {differ} of {count(BLOCK_BYTES)} differ, the first at offset {sample.offset}"
    if sample.path and sample.file_offset is not None:
        title += f", which is byte {count(sample.file_offset + sample.offset)} of {sample.path}"
    return title


def looks_of(sample: Sample) -> str:
    """What the block looks like, as a sentence without its stop; empty where nothing about it is known."""
    a, b = sample.looks_a, sample.looks_b
    if not (a or b):
        return ""
    return (
        f"Both sides look like {a}"
        if a == b
        else f"The first side looks like {a or 'nothing known'}, the second like {b or 'nothing known'}"
    )


def hex_rows(sample: Sample) -> tuple[HexRow, ...]:
    """Both sides of ``sample`` in rows of 16 bytes, the differing bytes told apart."""
    a, b = _pairs(sample.a), _pairs(sample.b)
    rows = []
    for start in range(0, max(len(a), len(b)), BYTES_A_ROW):
        part_a, part_b = a[start : start + BYTES_A_ROW], b[start : start + BYTES_A_ROW]
        marks_a, marks_b = _marks(part_a, part_b), _marks(part_b, part_a)
        rows.append(
            HexRow(
                _start(sample) + start,
                _pieces(part_a, marks_a, " "),
                _pieces(part_b, marks_b, " "),
                _pieces([_char(pair) for pair in part_a], marks_a),
                _pieces([_char(pair) for pair in part_b], marks_b),
            )
        )
    return tuple(rows)


def sample_lines(sample: Sample) -> list[str]:
    """``sample`` as plain text: rows of both sides that differ, below each the bytes that do, marked with ``^^``."""
    about = f"{sample.owner}{f', {sample.detail}' if sample.detail else ''}"
    lines = [f"{title_of(sample)}; block owner: {about}"]
    if looks := looks_of(sample):
        lines.append(looks)
    a, b = _pairs(sample.a), _pairs(sample.b)
    for start in range(0, max(len(a), len(b)), BYTES_A_ROW):
        part_a, part_b = a[start : start + BYTES_A_ROW], b[start : start + BYTES_A_ROW]
        marks = _marks(part_a, part_b) if len(part_a) >= len(part_b) else _marks(part_b, part_a)
        if not any(marks):
            continue
        where = f"{_start(sample) + start:5d}"
        lines.append(f"{where}  {_side(part_a)}")
        lines.append(f"{' ' * len(where)}  {_side(part_b)}")
        lines.append(f"{' ' * len(where)}  {' '.join('^^' if mark else '  ' for mark in marks)}".rstrip())
    return lines


def _start(sample: Sample) -> int:
    return sample.offset if sample.start is None else sample.start


def _side(pairs: Sequence[str]) -> str:
    filled = " ".join(pairs).ljust(3 * BYTES_A_ROW - 1)
    return f"{filled}  |{''.join(_char(pair) for pair in pairs)}|"


@lru_cache(1024)
def _char(pair: str) -> str:
    try:
        value = int(pair, 16)
    except ValueError:
        return "."
    return chr(value) if 0x20 <= value < 0x7F else "."


def _pairs(text: str) -> list[str]:
    return [text[at : at + 2] for at in range(0, len(text), 2)]


def _marks(side: Sequence[str], other: Sequence[str]) -> list[bool]:
    return [at >= len(other) or pair != other[at] for at, pair in enumerate(side)]


def _pieces(side: Sequence[str], marks: Sequence[bool], between: str = "") -> tuple[Piece, ...]:
    if side and not any(marks):
        # Most rows of most blocks agree.
        return ((between.join(side), False),)
    marked = zip(side, marks, strict=True)
    return tuple(
        (between.join(pair for pair, _ in run), differs) for differs, run in groupby(marked, key=lambda piece: piece[1])
    )


def _lines(sample: Sample) -> tuple[int, ...]:
    try:
        bits = f"{int(sample.lines, 16):0{_LINES}b}"
    except ValueError:
        return ()
    return tuple(place for place, bit in enumerate(bits) if bit == "1") if len(bits) == _LINES else ()
