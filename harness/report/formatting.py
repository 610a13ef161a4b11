"""Numbers, and text from machines, as a page or a terminal can show them; pure."""

from __future__ import annotations

import math
import unicodedata

from harness.judgement.rates import upper_bound as upper_bound
from harness.model import BLOCK_BYTES, BlockOwner, Ownership
from harness.util.wording import between as between
from harness.util.wording import count as count
from harness.util.wording import joined as joined
from harness.util.wording import part_of as part_of
from harness.util.wording import plural as plural

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def clean(text: str) -> str:
    """``text`` without what no page and no terminal should be handed: control characters and half surrogates.

    Kernel logs and serial consoles carry escape sequences; each stray character becomes U+FFFD.
    """
    if text.isprintable():
        # Nearly all of a page is, and nothing of that is one of those.
        return text
    return "".join(char if char in "\n\t" or unicodedata.category(char) not in _UNPRINTABLE else "\ufffd"
                   for char in text.replace("\r\n", "\n"))  # fmt: skip


_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Cn"})


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
