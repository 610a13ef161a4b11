"""What DRBD noticed by itself (its alarms), and the same cell under several replication profiles; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.model import Alarms, Evidence, ReplicationProfile, Result, SplitBrain
from harness.report.descriptions import replication_order, state_text
from harness.report.formatting import blocks_size, count, percent, plural, seconds, size
from harness.report.grid import Grid, Slot, counted, grid
from harness.report.repetitions import play_name, unit
from harness.report.table import SIGNS, differing_blocks, style_of

Row = tuple[str, str]

ALARM_COLUMNS = (
    "Cell", "Digest", "Protocol", "Writes noticed", "Drops", "Drops a minute", "Down", "Resynced", "Split brain",
    "At the end", "Same cell without digest",
)  # fmt: skip


def alarm_grid(results: Sequence[Result], names: Sequence[str]) -> Grid | None:
    """One row for each cell in which DRBD could notice something, or lost its connection."""
    by_play = {result.cell.play: number for number, result in enumerate(results)}
    rows = []
    for result, name in zip(results, names, strict=True):
        alarms = alarms_of(result)
        if alarms is None:
            continue
        other = by_play.get(_without_digest(result)) if result.cell.replication.integrity else None
        without_digest = Slot() if other is None else _ending(results[other], names[other])
        rows.append(
            (
                Slot(play_name(result.cell), anchor=name),
                Slot(alarms.algorithm or "none"),
                Slot(result.cell.replication.protocol),
                *_alarm_slots(alarms),
                _ending(result),
                without_digest,
            )
        )
    return grid("DRBD's own alarms", ALARM_COLUMNS, rows)


def replication_grid(results: Sequence[Result], names: Sequence[str]) -> Grid | None:
    """The cells that differ in nothing but their replication profile, one below the other.  None: there are none."""
    groups: dict[str, list[tuple[Result, str]]] = {}
    for result, name in zip(results, names, strict=True):
        if result.cell.control is None:
            groups.setdefault(replace(result.cell, replication=ReplicationProfile()).id, []).append((result, name))
    rows = []
    for cell_id, group in groups.items():
        if len({result.cell.replication for result, _ in group}) < 2:
            continue
        ordered = sorted(group, key=lambda one: replication_order(one[0].cell.replication))
        for number, (result, name) in enumerate(ordered):
            rows.append((Slot("" if number else cell_id), *_replication_slots(result, name)))
    columns = (
        "Cell but for replication",
        "Replication profile",
        "Verdict",
        "Differing",
        "Exposed",
        "Read differently",
        "Lost records",
    )
    return grid("Replication profiles", columns, rows)


def alarms_of(result: Result) -> Alarms | None:
    """The alarms of ``result`` where there is something in them: a digest, a drop, a detection or a split brain."""
    alarms = result.evidence.alarms if result.evidence else None
    if alarms is None:
        return None
    return alarms if alarms.algorithm or alarms.drops or alarms.detections or alarms.split_brain else None


def alarm_sentence(results: Sequence[Result]) -> str:
    """What DRBD noticed, in one sentence; empty where no cell has alarms."""
    found = [alarms for alarms in map(alarms_of, results) if alarms is not None]
    if not found:
        return ""
    noun = unit(result.cell for result in results if alarms_of(result) is not None)
    detecting = [one for one in found if one.detections]
    noticed = sum(one.detections for one in detecting)
    parts = ["DRBD noticed no write that changed in flight"]
    if detecting:
        where = f"{count(len(detecting))} of {plural(len(found), noun)}"
        parts = [f"DRBD noticed {plural(noticed, 'write')} that changed in flight in {where}"]
    if drops := sum(one.drops for one in found):
        down, watched = sum(one.down_seconds for one in found), sum(one.watched_seconds for one in found)
        parts.append(f"it lost its connection {_times(drops)} ({seconds(down)} of {seconds(watched)})")
    if split := sum(one.split_brain is not None for one in found):
        parts.append(f"split brain in {plural(split, noun)}")
    return f"{'; '.join(parts)}."


def alarm_rows(evidence: Evidence) -> list[Row]:
    """The alarms of one cell."""
    alarms = evidence.alarms
    if alarms is None:
        return []
    return [
        ("Digest", alarms.algorithm or "none"),
        ("Writes noticed", _noticed(alarms)),
        ("Connection lost", _times(alarms.drops)),
        ("Down", _down(alarms)),
        ("Watched for", seconds(alarms.watched_seconds)),
        ("Resynced", size(alarms.resynced_kib * 1024)),
        *_split_rows(alarms.split_brain),
    ]


# --------------------------------------------------------------------------- the places of the tables


def _without_digest(result: Result) -> tuple[str, int]:
    """The same repetition of the same cell without the digest."""
    return replace(result.cell, replication=replace(result.cell.replication, integrity="")).play


def _alarm_slots(alarms: Alarms) -> tuple[Slot, ...]:
    split = alarms.split_brain
    rate = f"{60 * alarms.drops / alarms.watched_seconds:.1f}" if alarms.watched_seconds > 0 else ""
    return (
        Slot(_noticed(alarms)),
        counted(alarms.drops, count(alarms.drops)),
        Slot(rate if alarms.drops else ""),
        Slot(_down(alarms)),
        Slot(size(alarms.resynced_kib * 1024) if alarms.resynced_kib else ""),
        Slot(_split_text(split), "text bad") if split else Slot(),
    )


def _replication_slots(result: Result, name: str) -> tuple[Slot, ...]:
    verdict, evidence = result.verdict, result.evidence
    readback, canary = (evidence.readback, evidence.canary) if evidence else (None, None)
    return (
        Slot(f"{result.cell.replication}{_repetition(result)}", anchor=name),
        Slot(verdict.kind, style_of(verdict.kind), SIGNS[verdict.kind]) if verdict else Slot("not run", "soft"),
        Slot(count(differing_blocks(result)) if verdict else ""),
        Slot(count(verdict.exposed_blocks) if verdict else ""),
        counted(readback.differing_blocks, plural(readback.differing_blocks, "block")) if readback else Slot(),
        counted(canary.total_lost, count(canary.total_lost)) if canary else Slot(),
    )


def _repetition(result: Result) -> str:
    return f", repetition {result.cell.repetition}" if result.cell.repetition > 1 else ""


def _ending(result: Result, name: str = "") -> Slot:
    verdict, evidence = result.verdict, result.evidence
    if verdict is None:
        return Slot("not run", "soft", anchor=name)
    compared = evidence.comparison if evidence else None
    blocks = compared.differing_blocks if compared else differing_blocks(result)
    text = f"{verdict.kind} {count(blocks)}" if compared or blocks else str(verdict.kind)
    return Slot(text, "bad" if blocks else "", anchor=name)


def _noticed(alarms: Alarms) -> str:
    if not alarms.detections:
        return "none"
    sides = f"sender {count(len(alarms.mismatches))}, receiver {count(len(alarms.failures))}"
    return f"{count(alarms.detections)} ({sides})"


def _down(alarms: Alarms) -> str:
    if not alarms.down_seconds:
        return ""
    share = f" ({percent(alarms.down_seconds / alarms.watched_seconds)})" if alarms.watched_seconds > 0 else ""
    return f"{seconds(alarms.down_seconds)}{share}"


def _times(number: int) -> str:
    return "never" if not number else "once" if number == 1 else f"{count(number)} times"


def _split_text(split: SplitBrain) -> str:
    after, differed = split.after_seconds, split.differing_blocks
    parts = [
        "no digest failure before it" if after is None else f"after {seconds(after)}",
        *(f"{node}: {state_text(state)}" for node, state in split.states.items()),
        "" if differed is None else f"{plural(differed, 'differing block')} then",
        f"changes of {split.victim} discarded" if split.victim else "",
        "repaired" if split.repaired else "not repaired",
    ]
    return "; ".join(part for part in parts if part)


def _split_rows(split: SplitBrain | None) -> list[Row]:
    if split is None:
        return []
    after = split.after_seconds
    return [
        (
            "Split brain",
            "no digest failure before it" if after is None else f"{seconds(after)} after the first failure",
        ),
        *((f"{node} reported", state_text(state)) for node, state in split.states.items()),
        ("Differing blocks then", "" if split.differing_blocks is None else blocks_size(split.differing_blocks)),
        ("Changes discarded", f"those of {split.victim}" if split.victim else ""),
        ("Repaired", "yes" if split.repaired else "no"),
    ]
