"""What DRBD and the kernel wrote to the kernel log: online verify, digests, split brain, error.

Understands the records of ``/dev/kmsg`` and the lines that ``dmesg`` prints.  DRBD starts its lines with
``block drbd0: `` (8.4 up to Linux 6.1), ``drbd r0/0 drbd0: `` (8.4 on 6.12) or ``drbd r0/0 drbd0 nodeb: `` (9).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.model import SECTOR_BYTES, SECTORS_PER_BLOCK, Extent, NodeVerify


@dataclass(frozen=True)
class KernelLine:
    """One line of the kernel log.  ``seq`` is its number in ``/dev/kmsg`` (None from dmesg); ``seconds`` since boot.

    ``left_out``: how many lines right before it came and were left out as repetitions that no oracle reads.
    """

    seq: int | None
    seconds: float
    text: str
    left_out: int = 0


# --------------------------------------------------------------------------- lines

#: How a line begins that stands for some that were left out: their number follows.
LEFT_OUT = "drbd-harness left out lines:"

_LEFT_OUT = re.compile(re.escape(LEFT_OUT) + r" (\d+)\b", re.ASCII)
_KMSG = re.compile(r"\d+,(\d+),(\d+),[^;]*;(.*)", re.ASCII)
_DMESG = re.compile(r"\[\s*(\d+\.\d+)\](?:\[\s*[CT]\d+\])? ?(.*)", re.ASCII)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def parse_kmsg(text: str) -> tuple[KernelLine, ...]:
    """The records of ``/dev/kmsg``; continuation lines (dictionaries) and torn records are left out.

    What was left out shows as a hole in the numbers: see :func:`missing`.
    """
    lines, left_out = [], 0
    for line in text.split("\n"):
        if m := _KMSG.fullmatch(line):
            lines.append(KernelLine(int(m[1]), int(m[2]) / 1e6, _unescape(m[3]), left_out))
            left_out = 0
        elif counted := _LEFT_OUT.match(line):
            left_out += int(counted[1])
    return tuple(lines)


def record_number(line: str) -> int | None:
    """The number of the record of ``/dev/kmsg`` that ``line`` is; None where it is none, or of a dictionary."""
    found = _KMSG.fullmatch(line)
    return int(found[1]) if found else None


def message(line: str) -> str:
    """What the record of ``/dev/kmsg`` that ``line`` is says; the line itself where it is none."""
    found = _KMSG.fullmatch(line)
    return _unescape(found[3]) if found else line


def parse_dmesg(text: str) -> tuple[KernelLine, ...]:
    """The lines of ``dmesg`` that carry a time; others are left out."""
    found = (_DMESG.fullmatch(line) for line in text.split("\n"))
    return tuple(KernelLine(None, float(m[1]), m[2]) for m in found if m)


def missing(lines: Iterable[KernelLine]) -> int:
    """How many records are missing between the first and the last of ``lines``; 0 where they have no numbers.

    The kernel overwrites what nobody read in time.  A log with holes proves nothing by what is not in it.  What came
    and was left out as repetitions is no hole.
    """
    numbered = [line for line in lines if line.seq is not None]
    return sum(max(0, _gap(one, other) - other.left_out) for one, other in pairwise(numbered))


def left_out(lines: Iterable[KernelLine]) -> int:
    """How many records between the first and the last of ``lines`` came and were left out as repetitions."""
    return sum(line.left_out for line in list(lines)[1:])


def _gap(one: KernelLine, other: KernelLine) -> int:
    return (other.seq or 0) - (one.seq or 0) - 1


def since(lines: Sequence[KernelLine], marker: str) -> tuple[KernelLine, ...]:
    """The lines after the last one that contains ``marker``; :class:`ValueError` if none does."""
    for index in range(len(lines) - 1, -1, -1):
        if marker in lines[index].text:
            return tuple(lines[index + 1 :])
    raise ValueError(f"the marker '{marker}' is not in the {len(lines)} lines of the kernel log")


def _unescape(text: str) -> str:
    """``/dev/kmsg`` writes unprintable bytes and the backslash as ``\\xNN``."""
    if "\\x" not in text:
        return text
    raw = _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), text.encode("utf-8", "replace"))
    return raw.decode("utf-8", "replace")


# --------------------------------------------------------------------------- online verify

_DEVICE = re.compile(r"(?:block drbd(\d+)|drbd \S+/\d+ drbd(\d+)(?: \S+)?): (.*)", re.ASCII | re.DOTALL)
_START = re.compile(r"(?:Starting Online Verify from|Online Verify start) sector:? (\d+)", re.ASCII)
_EXTENT = re.compile(r"Out of sync: start=(\d+), size=(\d+) \(sectors\)", re.ASCII)
_SKIPPED = re.compile(r"Skipped verify, too busy: start=\d+, size=(\d+) \(sectors\)", re.ASCII)
_DONE = re.compile(r"Online verify\s+done(?: but (\d+) (\d+)k blocks? skipped)? \(total ", re.ASCII)
_FOUND = re.compile(r"Online verify found (\d+) (\d+)k blocks? out of sync!", re.ASCII)


@dataclass(frozen=True)
class VerifyLog:
    """All that one node logged of one online verify.

    ``from_sector`` is None if its start was not seen; ``skipped_blocks`` (4 KiB) were too busy to be compared (DRBD 9).
    """

    from_sector: int | None = None
    finished: bool = False
    extents: tuple[Extent, ...] = ()
    found_blocks: int | None = None
    skipped_blocks: int = 0


def last_verify(lines: Iterable[KernelLine], minor: int) -> VerifyLog:
    """The last online verify of device ``minor`` in ``lines``; an empty one if there was none."""
    log = VerifyLog()
    extents: list[Extent] = []
    for text in _of_device(lines, minor):
        if start := _START.match(text):
            log, extents = VerifyLog(from_sector=int(start[1])), []
        elif extent := _EXTENT.match(text):
            if log.finished:  # the start of the next one was lost
                log, extents = VerifyLog(), []
            extents.append(Extent(int(extent[1]), int(extent[2])))
        elif skipped := _SKIPPED.match(text):
            if log.finished:
                log, extents = VerifyLog(), []
            log = replace(log, skipped_blocks=log.skipped_blocks + -(-int(skipped[1]) // SECTORS_PER_BLOCK))
        elif done := _DONE.match(text):
            if log.finished:
                log, extents = VerifyLog(), []
            # Each is logged twice, by itself and in the sum.
            log = replace(log, finished=True, skipped_blocks=max(log.skipped_blocks, _in_4k(done[1], done[2])))
        elif found := _FOUND.match(text):
            log = replace(log, found_blocks=_in_4k(found[1], found[2]))
    return replace(log, extents=tuple(extents))


def verify_of(lines: Iterable[KernelLine], node: str, minor: int) -> NodeVerify:
    """The last online verify of device ``minor`` as ``node`` logged it.

    One that did not start at sector 0 counts as not started: it did not look at the whole device.
    """
    log = last_verify(lines, minor)
    return NodeVerify(node, log.from_sector == 0, log.finished, log.extents, log.found_blocks)


def _of_device(lines: Iterable[KernelLine], minor: int) -> Iterator[str]:
    for line in lines:
        if (m := _DEVICE.fullmatch(line.text)) and int(m[1] or m[2]) == minor:
            yield m[3]


def _in_4k(count: str | None, kib: str | None) -> int:
    """DRBD 9 may keep one bit for more than 4 KiB."""
    return int(count) * int(kib) // 4 if count and kib else 0


# --------------------------------------------------------------------------- resync, digests, split brain

_RESYNC_BEGAN = re.compile(r"Began resync as Sync(?:Source|Target) \(will sync (\d+) KB ", re.ASCII)
_MISMATCH = re.compile(r"Digest mismatch, buffer modified by upper layers during write: (\d+)s \+(\d+)", re.ASCII)
_DIGEST_FAILED = re.compile(r"Digest integrity check FAILED: (\d+)s \+(\d+)", re.ASCII)
# The second is said of two Primaries of which only one has written since they lost each other: DRBD 9 tells that from a
# split brain by its UUIDs, and unites them as little.
_SPLIT_BRAIN = re.compile(
    "Split-Brain detected but unresolved, dropping connection|I shall become SyncTarget, but I am primary!"
)
_STAND_ALONE = re.compile(r"(?:block|drbd) [^:]+: .*\bconn\( \w+ -> StandAlone \)", re.ASCII)


def resync_kib(lines: Iterable[KernelLine], minor: int = 0) -> int | None:
    """How many KiB the last resync of device ``minor`` set out to copy; None if none began."""
    began = resyncs_kib(lines, minor)
    return began[-1] if began else None


def resyncs_kib(lines: Iterable[KernelLine], minor: int = 0) -> tuple[int, ...]:
    """How many KiB each resync of device ``minor`` set out to copy, in the order they began."""
    return tuple(int(m[1]) for text in _of_device(lines, minor) if (m := _RESYNC_BEGAN.match(text)))


def digest_mismatches(lines: Iterable[KernelLine], minor: int = 0) -> tuple[Extent, ...]:
    """The writes whose buffer changed between the sender's two digests, in the order they were logged."""
    return _writes(_MISMATCH, lines, minor)


def digest_failures(lines: Iterable[KernelLine], minor: int = 0) -> tuple[Extent, ...]:
    """The writes whose digest the receiver found wrong, in the order they were logged."""
    return _writes(_DIGEST_FAILED, lines, minor)


def split_brain(lines: Iterable[KernelLine]) -> bool:
    """Whether DRBD found a split brain that it does not resolve by itself, or two Primaries that it does not unite."""
    return any(_SPLIT_BRAIN.search(line.text) for line in lines)


def is_digest_error(text: str) -> bool:
    """Whether this line reports, for any device, a write that does not match its digest."""
    m = _DEVICE.fullmatch(text)
    return m is not None and bool(_MISMATCH.match(m[3]) or _DIGEST_FAILED.match(m[3]))


def became_standalone(text: str) -> bool:
    """Whether this line reports that a connection ends for good: an unresolved split brain, or StandAlone.

    The side of DRBD 9 that did not find the split brain itself reports only that it is StandAlone.
    """
    return _SPLIT_BRAIN.search(text) is not None or _STAND_ALONE.match(text) is not None


_ABOUT_DRBD = re.compile(r"(?:block )?drbd", re.ASCII)
_READ_BY_ORACLES = re.compile(
    "|".join(
        one.pattern for one in (_START, _EXTENT, _SKIPPED, _DONE, _FOUND, _RESYNC_BEGAN, _MISMATCH, _DIGEST_FAILED)
    )
    + rf"|{_SPLIT_BRAIN.pattern}|StandAlone|Online [Vv]erify|network protocol|DRBD dialects",
    re.ASCII,
)


def bears_on_oracles(text: str) -> bool:
    """Whether an oracle, the alarms or whoever waits for a handshake reads this line: it must not be left out."""
    return _ABOUT_DRBD.match(text) is not None and _READ_BY_ORACLES.search(text) is not None


def _writes(pattern: re.Pattern[str], lines: Iterable[KernelLine], minor: int) -> tuple[Extent, ...]:
    found = (pattern.match(text) for text in _of_device(lines, minor))
    return tuple(Extent(int(m[1]), int(m[2]) // SECTOR_BYTES) for m in found if m)


# --------------------------------------------------------------------------- error

# What DRBD before 9.1.4 logs of an epoch of writes that it does not end: docs/drbd-write-conflict.md.
_EPOCH_NOT_ENDED = re.compile(
    r"\bBAD! BarrierAck\b|\bfailed to answer a P_BARRIER\b|\bcurrent_epoch->list not empty", re.ASCII
)
# Of DRBD 8.4 and of 9; what the other side, or the loss itself, logs thereafter is no cause.
_GIVEN_UP = re.compile(
    r"^drbd [^:]+: (PingAck did not arrive in time|peer failed to send PingAck in time"
    r"|Remote failed to (?:finish a request|answer a P_BARRIER) within \d+\w*)",
    re.ASCII,
)
_ERRORS = re.compile(
    r"^WARNING: (?!.*(?:Spectre|eBPF))|\bBUG\b|\bOops\b|\bCall Trace:|\bKernel panic\b|\bgeneral protection\b"
    r"|\bblocked for more than \d|\bsoft lockup - |\bhard LOCKUP\b|\bdetected (?:expedited )?stall"
    r"|\bI/O error\b(?!.*\bdev(?:ice)? (?:fd|sr)\d)|\bLocal IO failed\b|\bEXT4-fs error \("
    r"|\b[Oo]ut of memory: |\binvoked oom-killer\b|\bASSERTION (?:.* )?FAILED\b|\bASSERT\("
    rf"|{_EPOCH_NOT_ENDED.pattern}",
    re.ASCII,
)


def error_lines(lines: Iterable[KernelLine]) -> tuple[str, ...]:
    """The lines that report an error of the kernel itself, its memory or a disk, verbatim.

    Left out on purpose: what a boot prints about the processor's weaknesses, and drives without a medium.
    """
    return tuple(line.text for line in lines if is_error(line.text))


def is_error(text: str) -> bool:
    """Whether one line, without its time, is what :func:`error_lines` looks for."""
    return _ERRORS.search(text) is not None


def epoch_not_ended(text: str) -> bool:
    """Whether this line is one of those that an epoch leaves behind in which a write was dropped for a conflict."""
    return _EPOCH_NOT_ENDED.search(text) is not None


def peer_given_up(lines: Iterable[KernelLine]) -> tuple[str, ...]:
    """What DRBD says when it ends the connection because its peer did not answer in time, verbatim, each once."""
    return tuple(dict.fromkeys(match[1] for line in lines if (match := _GIVEN_UP.match(line.text))))
