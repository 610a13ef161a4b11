"""Questions about migration, failover, other versions and costs; pure."""

from __future__ import annotations

from collections.abc import Iterable

from harness.judgement.cost_ratios import IOPS, P99, CostRatio, cost_ratios
from harness.judgement.question_facts import (
    NOT_SEEN,
    YES,
    Facts,
    Play,
    QuestionAnswer,
    Tone,
    cells_of,
    counted,
    each,
    groups,
    none_of,
    not_asked,
    seen,
)
from harness.judgement.stacks import PlayedRun, StackKey, short_names
from harness.model import CacheMode, Crash, MigrationOutcome, Preset, Protocol
from harness.model.claim import ClaimEvent
from harness.util.wording import count, joined, part_of, plural

MIGRATION = "Will a live migration harm my VM?"
SECOND = "Is a second migration safe?"
FAILOVER = "Will a failover lose what the VM was told to be safe?"
NEWER = "Did the new DRBD, kernel or QEMU change anything?"
COST = "What does the safe mode cost in IOPS and latency?"
PROXMOX = "I run Proxmox VE with DRBD as it comes: what happens to me?"
NINE = "Does DRBD 9 still have it?"
_SHOWN = 4
_COSTS_SHOWN = 6


def _moved(play: Play) -> int:
    return sum(move.outcome is MigrationOutcome.COMPLETED for move in play.evidence.migrations)


def migration(facts: Facts) -> QuestionAnswer:
    """What the guest read afterwards, by cache mode."""
    play = "drbd-harness run --matrix migration"
    return _misread(MIGRATION, facts.where(lambda one: _moved(one) > 0), play)


def second_migration(facts: Facts) -> QuestionAnswer:
    """The same where it moved twice."""
    play = "drbd-harness run --matrix migration"
    return _misread(SECOND, facts.where(lambda one: _moved(one) > 1), play)


def _misread(question: str, plays: list[Play], play: str) -> QuestionAnswer:
    wrong, asked = seen(ClaimEvent.MISREAD, plays)
    if not asked:
        return not_asked(question, play, "No guest that moved was read back" if plays else "")
    hit: list[str] = []
    spared: list[str] = []
    for cache, some in groups(asked, lambda one: f"cache={one.cell.cache}").items():
        hits = sum(one in wrong for one in some)
        (hit if hits else spared).append(f"{cache} in {part_of(hits, len(some))}" if hits else cache)
    told = [f"the guest read its data or memory wrongly afterwards with {joined(hit)} plays"] if hit else []
    number = sum(f"cache={one.cell.cache}" in spared for one in asked)
    told += [f"with {joined(spared)} in {none_of(number)}"] if spared else []
    lost, _ = seen(ClaimEvent.LOST, plays)
    modes = joined(dict.fromkeys(f"cache={one.cell.cache}" for one in lost))
    told += [f"acknowledged writes were lost in {plural(len(lost), 'play')}, with {modes}"] if lost else []
    sentence = f"{plural(sum(map(_moved, asked)), 'migration')} were completed: {'; '.join(told)}."
    bad = bool(hit or lost)
    short = NOT_SEEN if not bad else "With some cache modes" if spared else YES
    tone = Tone.BAD if bad else Tone.OPEN
    return QuestionAnswer(question, short, sentence, cells_of([*wrong, *asked]), play, tone)


def failover(facts: Facts) -> QuestionAnswer:
    """Acknowledged writes after a power cut, by cache mode."""
    play = "drbd-harness run --matrix failover"
    lost, asked = seen(ClaimEvent.LOST, facts.where(lambda one: one.cell.crash is Crash.NODE))
    if not asked:
        return not_asked(FAILOVER, play)
    parts = []
    for cache, some in groups(asked, _cache_and_protocol).items():
        hits = sum(one in lost for one in some)
        parts.append(f"{cache} lost some in {part_of(hits, len(some))}" if hits else f"{cache} in {none_of(len(some))}")
    sentence = f"Of what was acknowledged before the Primary's power was cut: {'; '.join(parts)}."
    short = NOT_SEEN if not lost else "With some settings" if len(lost) < len(asked) else YES
    tone = Tone.BAD if lost else Tone.OPEN
    return QuestionAnswer(FAILOVER, short, sentence, cells_of([*lost, *asked]), play, tone)


def _cache_and_protocol(play: Play) -> str:
    protocol = play.cell.replication.protocol
    return f"cache={play.cell.cache}{'' if protocol is Protocol.C else f' with protocol {protocol}'}"


def newer_stack(facts: Facts) -> QuestionAnswer:
    """The cells that two stacks played, side by side."""
    names = short_names(StackKey.of(run.stack) for run in facts.runs)
    if len(names) < 2:
        why = "All of it was played with one stack"
        return not_asked(NEWER, "drbd-harness compare RUN RUN", why)
    by_stack = {key: _harmed_by_cell(run for run in facts.runs if StackKey.of(run.stack) == key) for key in names}
    common = set.intersection(*(set(one) for one in by_stack.values()))
    if not common:
        why = f"No cell was answered with each of {joined(names.values())}"
        return not_asked(NEWER, "drbd-harness compare RUN RUN", why)
    changed = sorted(cell for cell in common if len({one[cell] for one in by_stack.values()}) > 1)
    both, differ = f"Of {plural(len(common), 'cell')} that {joined(names.values())} answered", count(len(changed))
    sentence = f"{both} {differ if changed else 'none'} differ in whether anything was harmed"
    if changed:
        shown = joined([*changed[:_SHOWN], *(["others"] if len(changed) > _SHOWN else [])])
        sentence += f": {shown}; how sure that is, compare says"
    cells = tuple(changed or sorted(common))
    return QuestionAnswer(NEWER, YES if changed else NOT_SEEN, f"{sentence}.", cells, "drbd-harness compare RUN RUN")


def _harmed_by_cell(runs: Iterable[PlayedRun]) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for one in Facts.of([*runs]).plays:
        if one.weighs:
            found[one.cell.id] = found.get(one.cell.id, False) or one.harmed
    return found


def cost(facts: Facts) -> QuestionAnswer:
    """fio's figures against those of cache=none."""
    ratios = [one for run in facts.runs for one in cost_ratios(run.results) if one.measure.endswith((IOPS, P99))]
    # The cache modes first, for these are what is asked; as one has them before slow flushes.
    ratios.sort(key=lambda one: (one.cache == CacheMode.NONE or bool(one.preset), one.flush_delay_ms))
    if not ratios:
        return not_asked(COST, "drbd-harness run --matrix mitigations -k fio-cost")
    told = [
        f"{_what(one)}, {one.measure}: {one.ratio:.2g} of cache=none's ({one.low:.2g} to {one.high:.2g}, n = {one.n})"
        for one in ratios[:_COSTS_SHOWN]
    ]
    more = f"; {count(len(ratios) - _COSTS_SHOWN)} more in the table of costs" if len(ratios) > _COSTS_SHOWN else ""
    cells = dict.fromkeys(one.cell for one in ratios if one.cell)
    return QuestionAnswer(COST, "As ratios", f"{'; '.join(told)}{more}.", tuple(cells))


def _what(ratio: CostRatio) -> str:
    flush = f" where a flush takes {ratio.flush_delay_ms} ms" if ratio.flush_delay_ms else ""
    return f"{ratio.mitigation or ratio.preset or f'cache={ratio.cache}'}{flush}"


def proxmox(facts: Facts) -> QuestionAnswer:
    """The cells with Proxmox VE's settings."""
    plays = facts.where(lambda one: one.cell.preset is Preset.PROXMOX_VE)
    asked = [one for one in plays if one.weighs]
    if not asked:
        return not_asked(PROXMOX, "drbd-harness run --matrix proxmox-ve")
    harmed = [one for one in asked if one.harmed]
    sentence = f"With its settings {counted(asked)}: {each(asked, lambda one: one.cell.id)}."
    short, tone = ("You are harmed", Tone.BAD) if harmed else (NOT_SEEN, Tone.OPEN)
    return QuestionAnswer(PROXMOX, short, sentence, cells_of(asked), tone=tone)


def drbd_nine(facts: Facts) -> QuestionAnswer:
    """Plays with DRBD 9, with a mode that hands it the guest's pages."""
    direct = facts.in_guest(CacheMode.NONE, CacheMode.DIRECTSYNC)
    plays = [one for one in direct if one.stack.drbd.startswith("9.") and one.weighs]
    if not plays:
        why = "No run here is of DRBD 9, whose modules a user brings; the images that the harness builds have 8.4.11"
        return not_asked(NINE, "drbd-harness run --matrix quick -k 'none or directsync' --drbd FOLDER", why)
    harmed = [one for one in plays if one.harmed]
    versions = joined(dict.fromkeys(one.stack.drbd for one in plays))
    sentence = f"With {versions}: {counted(plays)} with cache=none or directsync."
    short, tone = (YES, Tone.BAD) if harmed else (NOT_SEEN, Tone.OPEN)
    return QuestionAnswer(NINE, short, sentence, cells_of(plays), tone=tone)
