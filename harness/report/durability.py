"""Durability in the guest: two read-backs of the device, the canary's records, the state after a crash; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from harness.model import CacheMode, Canary, Cell, CrashRecovery, Evidence, FilesystemCheck, Readback, Result
from harness.parse.fsck import fsck_meaning
from harness.report.descriptions import CRASHES, FAULTS, delays_text, filesystem_text, replication_order
from harness.report.formatting import blocks_size, count, joined, owners, part_of, plural, row_name, seconds
from harness.report.grid import Grid, Slot, counted, grid
from harness.report.migrations import migrations_in_short
from harness.report.repetitions import play_name, unit

_WRITE_MODES = ("fsync", "dsync", "direct")

Row = tuple[str, str]


def durability_grid(results: Sequence[Result], names: Sequence[str]) -> Grid | None:
    """One row for each cell with read-backs, a canary or a crash; ``names`` are the anchors of ``results``."""
    shown = [
        (result, result.evidence, name)
        for result, name in zip(results, names, strict=True)
        if result.evidence is not None and _has_durability(result.evidence)
    ]
    write_modes = _write_modes(evidence.canary for _, evidence, _ in shown)
    columns = (
        "Cell",
        "Disturbance",
        "Two read-backs",
        *(f"Lost, {mode}" for mode in write_modes),
        "Corrupt records",
        "Records in memory",
        "Longest gap",
        "fsck",
        "Wrong reads",
        "Promoted after",
        "Guest answers after",
        "Rejoined after",
        "Differing blocks at the crash",
    )
    rows = [
        (Slot(play_name(result.cell), anchor=name), Slot(disturbance_text(result)), *_durability(evidence, write_modes))
        for result, evidence, name in shown
    ]
    return grid("Durability in the guest", columns, rows)


def loss_grid(results: Sequence[Result], names: Sequence[str]) -> Grid | None:
    """What was acknowledged and lost in a crash: cache mode, aio mode and replication down, what died across."""
    crashed: dict[Cell, dict[str, list[tuple[Canary, str]]]] = {}
    for result, name in zip(results, names, strict=True):
        cell, canary = result.cell, result.evidence.canary if result.evidence else None
        if cell.crash is not None and canary is not None:
            crashed.setdefault(_without_crash(cell), {}).setdefault(cell.crash.value, []).append((canary, name))
    cells = sorted(crashed, key=_loss_order)
    labels = [f"{row_name(cell.row)}, aio={cell.aio}, {cell.replication}" for cell in cells]
    labels = _told_apart(labels, [f"{cell.workload} {filesystem_text(cell)}" for cell in cells])
    labels = _told_apart(labels, [delays_text(cell.delays) for cell in cells])
    rows = [
        (Slot(label), *(_lost(crashed[cell].get(crash.value, ())) for crash in CRASHES))
        for label, cell in zip(labels, cells, strict=True)
    ]
    columns = ("", *(f"{text[:1].upper()}{text[1:]}" for text in CRASHES.values()))
    return grid("Acknowledged records that a crash lost", columns, rows)


def durability_sentence(results: Sequence[Result]) -> str:
    """Whether the guest lost acknowledged records, and how its read-backs compare; empty where there is neither."""
    seen = [result.evidence for result in results if result.evidence is not None and _has_durability(result.evidence)]
    canaries = [evidence.canary for evidence in seen if evidence.canary is not None]
    noun = unit(evidence.cell for evidence in seen)
    parts = [_records_sentence(canaries, noun)] if canaries else []
    if readback := [evidence.readback for evidence in seen if evidence.readback is not None]:
        parts.append(_readback_sentence(readback, noun))
    return " ".join(parts)


def disturbance_text(result: Result) -> str:
    """What was done to the guest or around it: its migrations, the crash, the fault."""
    cell = result.cell
    parts = (
        migrations_in_short(result),
        CRASHES[cell.crash] if cell.crash else "",
        FAULTS[cell.fault] if cell.fault else "",
    )
    return ", ".join(part for part in parts if part)


def readback_rows(evidence: Evidence) -> list[Row]:
    """The two read-backs of one cell."""
    readback = evidence.readback
    if readback is None:
        return []
    return [
        ("Read", f"{blocks_size(readback.blocks)} on {readback.before}, then on {readback.after}"),
        ("Duration", seconds(readback.seconds) if readback.seconds else ""),
        ("Result", "equal" if not readback.differing else f"{plural(readback.differing_blocks, 'block')} differ"),
        ("Owners", owners(readback.ownership)),
        ("Found by", readback.ownership.method),
        ("Names", ", ".join(readback.ownership.names[:20])),
    ]


def canary_rows(evidence: Evidence) -> list[Row]:
    """What the canary of one cell kept and lost."""
    canary = evidence.canary
    if canary is None:
        return []
    return [
        *(
            (f"Lost of acknowledged, {write_mode}", _lost_of(canary, write_mode))
            for write_mode in _write_modes([canary])
        ),
        ("Corrupt records", count(canary.corrupt)),
        ("Records in memory", _memory(canary)),
        ("Longest gap", seconds(canary.longest_gap_seconds)),
        ("Canary process", "ran to the end" if canary.survived else "died before the end"),
    ]


def crash_recovery_rows(evidence: Evidence) -> list[Row]:
    """What was found after the crash of one cell."""
    after = evidence.crash_recovery
    if after is None:
        return []
    differed = after.differing_blocks
    resynced = after.resynced_kib
    return [
        ("Crash", f"{CRASHES[after.crash]}, {seconds(after.crashed_at)} into the work"),
        ("Peer promoted", _after(after.promoted_seconds)),
        ("Guest answers", _after(after.guest_seconds)),
        ("Replicas rejoined", _after(after.rejoined_seconds)),
        ("Differing blocks at the crash", "" if differed is None else blocks_size(differed)),
        ("Resynced", "" if resynced is None else f"{count(resynced)} KiB"),
        ("Mount", "" if after.mounted is not False else f"it could not be mounted: {after.mount_message}"),
        ("fsck", _fsck(after.fsck_status)),
        ("fsck's message", after.fsck_message),
        ("Read back by the workload", after.looked_at),
        ("Wrong reads", count(after.wrong_reads)),
        ("What was wrong", "; ".join(after.findings)),
    ]


# --------------------------------------------------------------------------- the places of the tables


def _has_durability(evidence: Evidence) -> bool:
    return not (evidence.readback is None and evidence.canary is None and evidence.crash_recovery is None)


def _durability(evidence: Evidence, write_modes: Sequence[str]) -> tuple[Slot, ...]:
    canary, after = evidence.canary, evidence.crash_recovery
    wrong = after.wrong_reads if after else None
    return (
        _readback_slot(evidence.readback),
        *(_write_mode(canary, write_mode) for write_mode in write_modes),
        counted(canary.corrupt, count(canary.corrupt)) if canary else Slot(),
        Slot(_memory(canary), "bad" if canary.memory_wrong else "") if canary else Slot(),
        Slot(seconds(canary.longest_gap_seconds)) if canary else Slot(),
        _filesystem(after),
        counted(wrong, count(wrong)) if wrong is not None else Slot(),
        Slot(_short(after.promoted_seconds if after else None)),
        Slot(_short(after.guest_seconds if after else None)),
        Slot(_short(after.rejoined_seconds if after else None)),
        Slot("" if after is None or after.differing_blocks is None else count(after.differing_blocks)),
    )


def _readback_slot(readback: Readback | None) -> Slot:
    if readback is None:
        return Slot()
    if not readback.differing:
        return Slot("equal", "good")
    owned = owners(readback.ownership)
    return Slot(f"{plural(readback.differing_blocks, 'block')} differ{f': {owned}' if owned else ''}", "bad")


def _write_modes(canaries: Iterable[Canary | None]) -> tuple[str, ...]:
    used = {
        write_mode for canary in canaries if canary is not None for write_mode in (*canary.acknowledged, *canary.lost)
    }
    return (*(write_mode for write_mode in _WRITE_MODES if write_mode in used), *sorted(used.difference(_WRITE_MODES)))


def _write_mode(canary: Canary | None, write_mode: str) -> Slot:
    if canary is None or (write_mode not in canary.acknowledged and write_mode not in canary.lost):
        return Slot()
    return counted(canary.lost.get(write_mode, 0), _lost_of(canary, write_mode))


def _lost_of(canary: Canary, write_mode: str) -> str:
    return part_of(canary.lost.get(write_mode, 0), canary.acknowledged.get(write_mode, 0))


def _lost(plays: Sequence[tuple[Canary, str]]) -> Slot:
    """What all plays of a row lost; it leads to the first that lost something."""
    if not plays:
        return Slot()
    lost: Counter[str] = Counter()
    for canary, _ in plays:
        lost.update(canary.lost)
    modes = joined(f"{count(number)} {write_mode}" for write_mode, number in _sorted(lost) if number)
    text = part_of(lost.total(), sum(sum(canary.acknowledged.values()) for canary, _ in plays))
    losing = [name for canary, name in plays if canary.total_lost]
    often = f", in {part_of(len(losing), len(plays))} plays" if len(plays) > 1 else ""
    anchor = losing[0] if losing else plays[0][1]
    return Slot(f"{text}{f' ({modes})' if modes else ''}{often}", "bad" if losing else "good", anchor=anchor)


def _sorted(lost: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(
        lost.items(),
        key=lambda one: (_WRITE_MODES.index(one[0]) if one[0] in _WRITE_MODES else len(_WRITE_MODES), one[0]),
    )


def _memory(canary: Canary) -> str:
    if not canary.memory_checked and not canary.memory_wrong:
        return ""
    return f"{count(canary.memory_wrong)} wrong in {plural(canary.memory_checked, 'check')}"


def _fsck(status: int | None) -> str:
    if status is None:
        return ""
    found, _ = fsck_meaning(status)
    return str(found) if found is FilesystemCheck.CLEAN else f"{found} (status {status})"


def _filesystem(after: CrashRecovery | None) -> Slot:
    if after is None:
        return Slot()
    if after.mounted is False:
        return Slot("not mounted", "bad")
    return counted(after.fsck_status, _fsck(after.fsck_status))


def _short(after: float | None) -> str:
    return "" if after is None else seconds(after)


def _after(passed: float | None) -> str:
    return "" if passed is None else f"{seconds(passed)} after the crash"


def _without_crash(cell: Cell) -> Cell:
    # Only what names the row: two cells that differ in their lengths or expectations are the same place.
    return replace(
        Cell(cell.workload), client=cell.client, filesystem=cell.filesystem, layout=cell.layout, cache=cell.cache,
        aio=cell.aio, bus=cell.bus, delays=cell.delays, replication=cell.replication,
    )  # fmt: skip


def _told_apart(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """``labels``, with its name behind each one that stands for several names."""
    meant: dict[str, set[str]] = {}
    for label, name in zip(labels, names, strict=True):
        meant.setdefault(label, set()).add(name)
    return [f"{label}, {name}" if len(meant[label]) > 1 else label for label, name in zip(labels, names, strict=True)]


def _loss_order(cell: Cell) -> tuple[int, tuple[int, str], str]:
    modes = list(CacheMode)
    return modes.index(cell.cache) if cell.cache in modes else len(modes), replication_order(cell.replication), cell.id


# --------------------------------------------------------------------------- the sentence


def _records_sentence(canaries: Sequence[Canary], noun: str) -> str:
    acknowledged = sum(sum(canary.acknowledged.values()) for canary in canaries)
    losing = [canary for canary in canaries if canary.total_lost]
    sentence = f"The guest kept every acknowledged record ({count(acknowledged)} of them)"
    if losing:
        lost = plural(sum(canary.total_lost for canary in losing), "acknowledged record")
        sentence = f"The guest lost {lost} of {count(acknowledged)} in {plural(len(losing), noun)}"
    elif not acknowledged:
        sentence = "No record of the guest was acknowledged"
    corrupt, wrong = sum(one.corrupt for one in canaries), sum(one.memory_wrong for one in canaries)
    more = [plural(corrupt, "corrupt record")] if corrupt else []
    more += [f"{count(wrong)} wrong in its memory"] if wrong else []
    return f"{sentence}{f'; {joined(more)}' if more else ''}."


def _readback_sentence(readback: Sequence[Readback], noun: str) -> str:
    differing = [one for one in readback if one.differing]
    if not differing:
        return f"Its two read-backs of the device were equal in {plural(len(readback), noun)}."
    blocks = plural(sum(one.differing_blocks for one in differing), "block")
    where = f"{count(len(differing))} of {plural(len(readback), noun)}"
    return f"Its two read-backs of the device differ in {where}: {blocks}."
