"""Which files hold differing blocks, and how many blocks are allocated or free; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.model import BlockOwner, FileBlocks, Ownership, Sample
from harness.report.formatting import count, joined, plural
from harness.report.grid import Grid, Slot, grid

_FILES_SHOWN = 4
_OFFSETS_SHOWN = 4
_NAMES_SHOWN = 3


def file_grid(ownership: Ownership, samples: Sequence[Sample] = ()) -> Grid | None:
    """The files of one attempt, the most hit first, with the first offsets of what differs; None where none is hit.

    What they look like is what ``samples`` of their blocks do.
    """
    rows = [
        (
            Slot(file.path, "text"),
            Slot(str(file.owner)),
            Slot(count(file.blocks)),
            Slot(_places(file), "text"),
            Slot(_looks(file.path, samples), "text"),
        )
        for file in ownership.files
    ]
    columns = ("File", "Its blocks are", "Differing blocks", "At byte of the file", "Sample blocks look like")
    return grid("Files that hold differing blocks", columns, rows)


def _looks(path: str, samples: Sequence[Sample]) -> str:
    seen = (side for one in samples if one.path == path for side in (one.looks_a, one.looks_b) if side)
    return joined(dict.fromkeys(seen))


def owner_counts(owned: Iterable[Ownership]) -> str:
    """``12 allocated, 918 free`` over several plays."""
    all_of_them = list(owned)
    counted = {owner: sum(getattr(one, owner.value) for one in all_of_them) for owner in BlockOwner}
    return ", ".join(f"{count(number)} {owner}" for owner, number in counted.items() if number)


def hit_files(owned: Iterable[Ownership]) -> str:
    """The files with the most differing blocks over several plays; what is hit instead where none is a file."""
    blocks: dict[str, int] = {}
    offsets: dict[str, list[int]] = {}
    names: dict[str, None] = {}
    for one in owned:
        names.update(dict.fromkeys(one.names))
        for file in one.files:
            blocks[file.path] = blocks.get(file.path, 0) + file.blocks
            offsets.setdefault(file.path, []).extend(file.offsets)
    if not blocks:
        shown = [*names][:_NAMES_SHOWN]
        more = [f"{count(len(names) - len(shown))} more"] if len(names) > len(shown) else []
        return "; ".join([*shown, *more])
    order = sorted(blocks, key=lambda path: (-blocks[path], path))
    parts = [f"{path}: {plural(blocks[path], 'block')}{_at(offsets[path])}" for path in order[:_FILES_SHOWN]]
    if len(order) > len(parts):
        parts.append(f"{plural(len(order) - len(parts), 'more file')}")
    return "; ".join(parts)


def _places(file: FileBlocks) -> str:
    more = ["..."] if file.blocks > len(file.offsets) > 0 else []
    return ", ".join([*map(count, file.offsets), *more])


def _at(offsets: Sequence[int]) -> str:
    places = sorted(set(offsets))
    if not places:
        return ""
    shown = ", ".join(map(count, places[:_OFFSETS_SHOWN]))
    return f" at byte {shown}{' and further on' if len(places) > _OFFSETS_SHOWN else ''}"
