"""Numbers, and text from machines, as a page or a terminal can show them; pure."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

from harness.judgement.rates import upper_bound as upper_bound
from harness.model import BLOCK_BYTES, BlockOwner, Ownership

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def clean(text: str) -> str:
    """``text`` without what no page and no terminal should be handed: control characters and half surrogates.

    Kernel logs and serial consoles carry escape sequences; each stray character becomes U+FFFD.
    """
    return "".join(char if char in "\n\t" or unicodedata.category(char) not in _UNPRINTABLE else "\ufffd"
                   for char in text.replace("\r\n", "\n"))  # fmt: skip


_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Cn"})


def count(number: int) -> str:
    """``12400`` as ``12 400``."""
    return f"{number:,}".replace(",", " ")


def plural(number: int, noun: str) -> str:
    """``1 block``, ``2 blocks``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def seconds(duration: float) -> str:
    """A duration, as exact as its length deserves: ``0.42 s``, ``12.3 s``, ``3 min 05 s``."""
    if duration < 10 or not math.isfinite(duration):
        return f"{duration:.2f} s"
    if round(duration, 1) < 120:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    return f"{minutes} min {rest:02d} s"


def milliseconds(duration: float) -> str:
    """A short time given in milliseconds: ``0.4 ms``, ``420 ms``, ``1.2 s``."""
    if duration < 10:
        return f"{duration:.1f}".removesuffix(".0") + " ms"
    if not math.isfinite(duration) or round(duration) < 1000:
        return f"{duration:.0f} ms"
    return f"{duration / 1000:.1f} s" if round(duration / 1000, 1) < 120 else seconds(duration / 1000)


def size(number_of_bytes: int) -> str:
    """``4096`` as ``4 KiB``."""
    value = float(number_of_bytes)
    unit = _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def blocks_size(blocks: int) -> str:
    """So many 4 KiB blocks, as a number and as a size."""
    return f"{plural(blocks, 'block')} ({size(blocks * BLOCK_BYTES)})"


def between(low: float, high: float) -> str:
    """An interval of rates as percent, rounded outwards so that it is never narrower: ``14 % to 95 %``."""
    digits = 0 if high - low >= 0.1 else max(1, 1 - math.floor(math.log10(max(high - low, 1e-9) * 100)))
    scale = 10**digits
    bottom, top = math.floor(round(low * 100 * scale, 6)) / scale, math.ceil(round(high * 100 * scale, 6)) / scale
    return f"{bottom:.{digits}f} % to {top:.{digits}f} %"


def percent(share: float) -> str:
    """A share of a whole: ``0.123`` as ``12.3 %``."""
    return f"{share * 100:.1f} %"


def figure(value: float) -> str:
    """A workload's own figure: whole numbers whole, others with three significant digits."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) or abs(value) >= 1000:
        return count(round(value))
    return f"{value:.3g}"


def part_of(number: int, total: int) -> str:
    """``3 of 1 204``."""
    return f"{count(number)} of {count(total)}"


def joined(items: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    names = list(items)
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def sentence(text: str) -> str:
    """``text`` with a stop at its end, so that another sentence can follow."""
    text = text.rstrip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def owners(ownership: Ownership) -> str:
    """The owners of the differing blocks, counted: ``12 allocated, 918 free``; empty where nothing was counted."""
    counted = ((getattr(ownership, owner.value), owner) for owner in BlockOwner)
    return ", ".join(f"{count(number)} {owner}" for number, owner in counted if number)


def row_name(row: str) -> str:
    """A heat map's row in a sentence."""
    return "a writer on the node itself" if row == "host" else f"cache={row}"
