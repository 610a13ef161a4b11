"""What a table of figures says of a group of plays: each measure is one text; pure.

The unit is the play of a cell.  Blocks and records are described by how they ranged from play to play.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.judgement.oracles import OracleAgreement, combine
from harness.judgement.planted_owner import right_owners
from harness.judgement.repetitions import HITS, TRIALS
from harness.judgement.stats import rate_interval
from harness.model import (
    BlockOwner,
    Evidence,
    MigrationOutcome,
    Ownership,
    Potency,
    Result,
    Stack,
    Verdict,
    VerdictKind,
)
from harness.model.acknowledgement import ACKNOWLEDGED, EARLY_OF_EACH, WRITES
from harness.report.formatting import between, count, joined, milliseconds, part_of, plural, seconds
from harness.report.table import differing_blocks
from harness.report.worth import weighed


@dataclass(frozen=True)
class Play:
    """One play of a cell, the name of the run that it is in, the versions it was played with and their stack."""

    result: Result
    run: str
    stack: Stack
    stack_name: str = ""

    @property
    def kind(self) -> VerdictKind | None:
        """Its verdict; None where it was not played."""
        return self.result.verdict.kind if self.result.verdict else None


Group = Sequence[Play]
_ENDED = tuple(kind for kind in VerdictKind if kind is not VerdictKind.INCONCLUSIVE)


def answered(plays: Group) -> list[Play]:
    """The plays that a rate is made of."""
    return [play for play in plays if play.kind in TRIALS]


def _facts(plays: Group) -> list[tuple[Verdict, Evidence]]:
    results = [play.result for play in answered(plays)]
    return [(one.verdict, one.evidence) for one in results if one.verdict is not None and one.evidence is not None]


# --------------------------------------------------------------------------- numbers


def spread(values: Iterable[float], text: Callable[[float], str] | None = None) -> str:
    """``304``; ``288 to 628``; of three or more ``288 to 628, median 432``; empty for none."""
    found = sorted(values)
    shown = text or (lambda value: count(round(value)))
    if not found:
        return ""
    if found[0] == found[-1]:
        return shown(found[0])
    middle = f", median {shown(statistics.median(found))}" if len(found) > 2 else ""
    return f"{shown(found[0])} to {shown(found[-1])}{middle}"


def _share(hits: int, total: int) -> str:
    return part_of(hits, total) if total else ""


def _interval(hits: int, total: int) -> str:
    found = rate_interval(hits, total)
    return between(found.low, found.high) if found else ""


def _whose(ownerships: Iterable[Ownership], blocks: int) -> str:
    """``all free``, or how many belong to whom; empty where nobody looked one up, or more than there are."""
    owned = list(ownerships)
    sums = {owner: sum(getattr(one, owner.value) for one in owned) for owner in BlockOwner}
    rest = blocks - sum(sums.values())
    if rest < 0 or rest == blocks:
        return ""
    named = [
        (number, "owner unknown" if owner is BlockOwner.UNKNOWN else owner.value) for owner, number in sums.items()
    ]
    named = [(number, name) for number, name in [*named, (rest, "not looked up")] if number]
    return f"all {named[0][1]}" if len(named) == 1 else joined(f"{count(number)} {name}" for number, name in named)


# --------------------------------------------------------------------------- measures of any cell


def n(plays: Group) -> str:
    """How many plays have an answer, and how many have none."""
    missing = sum(play.kind is VerdictKind.INCONCLUSIVE for play in plays)
    there = sum(play.kind in _ENDED for play in plays)
    return f"{count(there)}, and {count(missing)} without an answer" if missing else count(there)


def verdicts(plays: Group) -> str:
    """``CLEAN 1 of 5, **DIVERGED** 4 of 5``; a CLEAN that is weak says so."""
    named = [(list(VerdictKind).index(play.kind), _label(play)) for play in plays if play.kind in _ENDED]
    parts = []
    for order, label in sorted(set(named)):
        shown = f"**{label}**" if list(VerdictKind)[order] in HITS else label
        parts.append(f"{shown} {part_of(named.count((order, label)), len(named))}")
    missing = sum(play.kind is VerdictKind.INCONCLUSIVE for play in plays)
    return ", ".join([*parts, f"{count(missing)} without an answer"] if missing else parts)


def _label(play: Play) -> str:
    weak = weighed(play.result) is Potency.WEAK
    return f"{play.kind} (weak)" if weak else str(play.kind)


def interval(plays: Group) -> str:
    """The exact interval of the rate at which plays find harm."""
    trials = answered(plays)
    return _interval(sum(play.kind in HITS for play in trials), len(trials))


def sure(plays: Group) -> str:
    """The verdicts, and the exact interval of the rate at which plays find harm."""
    found = interval(plays)
    return f"{verdicts(plays)} (harmed: {found})" if found else verdicts(plays)


def differing(plays: Group) -> str:
    """How many blocks differed, and whose they are."""
    trials = answered(plays)
    blocks = [differing_blocks(play.result) for play in trials]
    owners = [play.result.evidence.ownership for play in trials if play.result.evidence]
    whose = _whose(owners, sum(blocks))
    return f"{spread(blocks)}; {whose}" if whose else spread(blocks)


def exposed(plays: Group) -> str:
    """How many block writes were exposed."""
    return spread(verdict.exposed_blocks for verdict, _ in _facts(plays))


def blocks(plays: Group) -> str:
    """``304 of 12 371 blocks, all free``; of several plays how both ranged."""
    trials = answered(plays)
    if not trials:
        return ""
    numbers = [differing_blocks(play.result) for play in trials]
    owners = [play.result.evidence.ownership for play in trials if play.result.evidence]
    whose = _whose(owners, sum(numbers))
    return f"{_short(numbers)} of {_short(v.exposed_blocks for v, _ in _facts(plays))}{f', {whose}' if whose else ''}"


def _short(values: Iterable[int]) -> str:
    found = sorted(values)
    ends = dict.fromkeys((found[0], found[-1])) if found else ()
    return "\u2013".join(count(value) for value in ends)


def opportunities(plays: Group) -> str:
    """How many chances to diverge were counted, and what they are."""
    counted = [verdict.opportunities for verdict, _ in _facts(plays) if verdict.opportunities is not None]
    what = joined(dict.fromkeys(one.what for one in counted if one.count), "or")
    return f"{spread(one.count for one in counted)} {what}" if what else ""


def reclaimed(plays: Group) -> str:
    """How many pages ``reclaim`` saw swapped out while they were being modified."""
    worked = [one.work for _, one in _facts(plays) if one.work is not None]
    return spread(one.facts["pages_reclaimed"] for one in worked if "pages_reclaimed" in one.facts)


def changed_in_flight(plays: Group) -> str:
    """Of how many block writes that the witness saw how many changed in flight."""
    seen = [one.witness for _, one in _facts(plays) if one.witness is not None and one.witness.watched]
    return part_of(sum(one.changed_block_writes for one in seen), sum(one.block_writes for one in seen)) if seen else ""


def message(plays: Group) -> str:
    """The sentence of a verdict that is REFUSED."""
    said = (play.result.verdict.sentence for play in plays if play.result.verdict and play.kind is VerdictKind.REFUSED)
    return "; ".join(dict.fromkeys(said))


# --------------------------------------------------------------------------- what verify names


def _marked(plays: Group) -> list[OracleAgreement]:
    """The oracles' answers of those plays in which verify marked anything."""
    whole = [
        one
        for _, one in _facts(plays)
        if one.verify is not None and one.verify.complete and one.comparison is not None and one.counter_kib
    ]
    return [combine(one) for one in whole]


def marking(plays: Group) -> str:
    """In how many plays verify marked anything, and how many blocks."""
    found = _marked(plays)
    return f"{count(len(found))}; {plural(sum(one.marked for one in found), 'block')}" if found else ""


def unnamed(plays: Group) -> str:
    """In how many of these its log names fewer blocks than it marked, and how many of all it leaves out."""
    found = _marked(plays)
    short = sum(one.unnamed > 0 for one in found)
    return f"{part_of(short, len(found))}; {plural(sum(one.unnamed for one in found), 'block')}" if found else ""


# --------------------------------------------------------------------------- owners that were planted


def right(plays: Group) -> str:
    """Of how many blocks that were changed below DRBD the owner was found as it is known; the verdicts without one."""
    found, known = (
        sum(column) for column in zip((0, 0), *(right_owners(one) for _, one in _facts(plays)), strict=True)
    )
    return _share(found, known) or verdicts(plays)


def whose_planted(plays: Group) -> str:
    """Whose the blocks are that were changed below DRBD: ``2 allocated, 1 free and 2 metadata``."""
    owners = [change.owner for _, one in _facts(plays) for change in one.planted if change.owner is not None]
    return joined(f"{count(owners.count(owner))} {owner}" for owner in BlockOwner if owner in owners)


def means(plays: Group) -> str:
    """How the owners were looked up."""
    return "; ".join(dict.fromkeys(one.ownership.method for _, one in _facts(plays) if one.ownership.method))


# --------------------------------------------------------------------------- canary, read-back, migrations


def _canaries(plays: Group) -> list[tuple[int, int]]:
    found = [one.canary for _, one in _facts(plays) if one.canary is not None]
    return [(one.total_lost, sum(one.acknowledged.values())) for one in found]


def losers(plays: Group) -> tuple[int, int]:
    """How many plays lost a record that had been acknowledged, of how many that can tell."""
    found = _canaries(plays)
    return sum(lost > 0 for lost, _ in found), len(found)


def losing(plays: Group) -> str:
    """How many plays lost a record that had been acknowledged."""
    return _share(*losers(plays))


def losing_interval(plays: Group) -> str:
    """The exact interval of the rate at which plays lose one."""
    return _interval(*losers(plays))


def records(plays: Group) -> str:
    """How many acknowledged records were kept, of how many."""
    lost, acknowledged = (sum(column) for column in zip((0, 0), *_canaries(plays), strict=True))
    return _share(acknowledged - lost, acknowledged)


def memory(plays: Group) -> str:
    """How many checks of records in the guest's memory found a wrong one."""
    found = [one.canary for _, one in _facts(plays) if one.canary is not None and one.canary.memory_checked]
    return spread(one.memory_wrong for one in found)


def reread(plays: Group) -> str:
    """How many blocks the guest read differently after its last move, and whose they are."""
    found = [one.readback for _, one in _facts(plays) if one.readback is not None]
    numbers = [one.differing_blocks for one in found]
    whose = _whose((one.ownership for one in found), sum(numbers))
    return f"{spread(numbers)}; {whose}" if whose else spread(numbers)


def moves(plays: Group) -> str:
    """How many migrations were completed, of how many."""
    moved = [move for _, one in _facts(plays) for move in one.migrations]
    return _share(sum(one.outcome is MigrationOutcome.COMPLETED for one in moved), len(moved))


def downtime(plays: Group) -> str:
    """How long the guest was paused by a migration that was completed."""
    moved = [move for _, one in _facts(plays) for move in one.migrations]
    done = (one.downtime_ms for one in moved if one.outcome is MigrationOutcome.COMPLETED)
    return spread((one for one in done if one is not None), milliseconds)


# --------------------------------------------------------------------------- crash, alarms


def promoted(plays: Group) -> str:
    """How long after the crash the peer was promoted."""
    found = [one.crash_recovery.promoted_seconds for _, one in _facts(plays) if one.crash_recovery]
    return spread((one for one in found if one is not None), seconds)


def answering(plays: Group) -> str:
    """How long after the crash the guest answered again."""
    found = [one.crash_recovery.guest_seconds for _, one in _facts(plays) if one.crash_recovery]
    return spread((one for one in found if one is not None), seconds)


def noticed(plays: Group) -> str:
    """How many writes DRBD's digest noticed."""
    return spread(one.alarms.detections for _, one in _facts(plays) if one.alarms is not None)


def drops(plays: Group) -> str:
    """How often the connection was lost."""
    return spread(one.alarms.drops for _, one in _facts(plays) if one.alarms is not None)


def split_brain(plays: Group) -> str:
    """In how many plays the brain was split, and how long after the first failure of the digest."""
    found = [one.alarms.split_brain for _, one in _facts(plays) if one.alarms is not None]
    split = [one for one in found if one is not None and one.confirmed]
    after = spread((one.after_seconds for one in split if one.after_seconds is not None), seconds)
    return f"{_share(len(split), len(found))}{f', after {after}' if after else ''}"


def acknowledged_early(which: str) -> Callable[[Group], str]:
    """How many of those writes of a flush probe were acknowledged before they were flushed."""

    def text(plays: Group) -> str:
        found = [one.work.facts for _, one in _facts(plays) if one.work is not None and which in one.work.facts]
        writes = sum(facts[ACKNOWLEDGED] for facts in found) / len(EARLY_OF_EACH)
        return _share(int(sum(facts[which] for facts in found)), int(writes))

    return text


@dataclass(frozen=True)
class Measure:
    """The heading of its column, and its text for a group of plays."""

    heading: str
    text: Callable[[Group], str]


MEASURES: Mapping[str, Measure] = {
    "n": Measure("n", n),
    "verdicts": Measure("verdict, in plays", verdicts),
    "interval": Measure("share of plays with harm, 95 %", interval),
    "sure": Measure("verdict, in plays (share with harm, 95 %)", sure),
    "blocks": Measure("blocks, of exposed", blocks),
    "differing": Measure("blocks that differ", differing),
    "exposed": Measure("exposed block writes", exposed),
    "opportunities": Measure("chances to diverge", opportunities),
    "reclaimed": Measure("pages swapped out while being modified", reclaimed),
    "changed": Measure("changed in flight, of block writes watched", changed_in_flight),
    "marking": Measure("plays in which verify marked blocks", marking),
    "unnamed": Measure("its log leaves some out", unnamed),
    "right": Measure("owners found", right),
    "whose_planted": Measure("whose the blocks are", whose_planted),
    "means": Measure("by", means),
    "message": Measure("message", message),
    "losing": Measure("plays that lost an acknowledged write", losing),
    "losing_interval": Measure("their share, 95 %", losing_interval),
    "records": Measure("acknowledged records kept", records),
    "memory": Measure("wrong records in memory", memory),
    "reread": Measure("blocks read differently after the move", reread),
    "moves": Measure("migrations completed", moves),
    "downtime": Measure("downtime", downtime),
    "promoted": Measure("peer promoted after", promoted),
    "answering": Measure("guest answers after", answering),
    "noticed": Measure("writes that the digest noticed", noticed),
    "drops": Measure("connections lost", drops),
    "split": Measure("split brain", split_brain),
    **{
        name: Measure(f"acknowledged before it was flushed: {what}", acknowledged_early(name))
        for name, what in zip(EARLY_OF_EACH, WRITES, strict=True)
    },
}
