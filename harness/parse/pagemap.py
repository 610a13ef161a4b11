"""Which pages of a process are in swap, from ``/proc/PID/pagemap`` (Documentation/admin-guide/mm/pagemap.rst)."""

from __future__ import annotations

_PRESENT, _SWAPPED = 1 << 63, 1 << 62
_TYPE_BITS = 5
_OFFSET_MASK = (1 << 50) - 1


def swap_slots(words: str) -> tuple[int, ...]:
    """The slots, as page numbers from the beginning of the swap area, that hold pages of a process; sorted.

    ``words`` are entries of a pagemap in hexadecimal, as ``od -An -v -tx8`` prints them; all slots are taken to be of
    one swap area.  :class:`ValueError` where a word is none.
    """
    found = set()
    for word in words.split():
        entry = int(word, 16)
        if entry & _SWAPPED and not entry & _PRESENT:
            found.add(entry >> _TYPE_BITS & _OFFSET_MASK)
    return tuple(sorted(found))
