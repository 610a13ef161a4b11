"""Questions about what DRBD reports: verify, bitmap, resync, digest; pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from harness.judgement.question_facts import (
    NO_ANSWER,
    NOT_SEEN,
    PARTLY,
    YES,
    Facts,
    Play,
    QuestionAnswer,
    Tone,
    cells_of,
    each,
    groups,
    not_asked,
    seen,
    tally,
)
from harness.judgement.stats import rate_interval
from harness.model import CacheMode, ClientKind, blocks_of
from harness.model.claim import ClaimEvent
from harness.util.wording import between, count, part_of, plural

FALSE_ALARMS = "Are these out-of-sync blocks false alarms or corruption?"
COME_BACK = "Why do they come back after a resync?"
HARDWARE = 'Is "Digest integrity check FAILED" broken hardware?'
DIGEST_ON = "May I keep data-integrity-alg on, with two Primaries too?"
HOW_OFTEN = "How often must I verify?"
GUEST_OFF = "Does the difference persist with the guest off?"
FINISHED = "Did the verify finish, or did it end early?"
COUNTER = "UpToDate, and out-of-sync above 0: can it be a bitmap without a difference?"
_KIB_PER_BLOCK = 4
_QUICK = "drbd-harness run --matrix quick --repeat 5"
_ALARMS = "drbd-harness run --matrix alarms"


def _looked_at(facts: Facts) -> list[Play]:
    """The plays with a complete verify and a comparison of all blocks, also where these do not agree."""
    return [
        one for one in facts.every if one.evidence.verify and one.evidence.verify.complete and one.evidence.comparison
    ]


def _marked(play: Play) -> AbstractSet[int]:
    verify = play.evidence.verify
    return frozenset() if verify is None else blocks_of((*verify.source.extents, *verify.target.extents))


def _differing(play: Play) -> AbstractSet[int]:
    comparison = play.evidence.comparison
    return frozenset() if comparison is None else blocks_of(comparison.differing)


def false_alarms(facts: Facts) -> QuestionAnswer:
    """What verify reported, against the disks."""
    looked = [(one, _marked(one)) for one in _looked_at(facts)]
    plays = [one for one, marked in looked if marked]
    if not plays:
        return not_asked(FALSE_ALARMS, _QUICK, "No verify found anything")
    marked = sum(len(blocks) for _, blocks in looked)
    real = sum(len(blocks & _differing(one)) for one, blocks in looked if blocks)
    live = sum(one.evidence.ownership.allocated for one in plays)
    told = f"Of {plural(marked, 'block')} that a verify reported in {plural(len(plays), 'play')} {count(real)} differ"
    sentence = f"{told} on the disks, read outside of DRBD; {count(live)} blocks that differ are allocated: data."
    short = "No false alarms" if real == marked else "Some are false alarms" if real else "False alarms"
    return QuestionAnswer(FALSE_ALARMS, short, sentence, cells_of(plays), tone=Tone.BAD if real else Tone.NEUTRAL)


def come_back(facts: Facts) -> QuestionAnswer:
    """Repair, and the same work again."""
    mended = facts.where(lambda one: one.evidence.repair is not None)
    play = "drbd-harness run --matrix quick -k none-swap --repeat 3"
    if not mended:
        return not_asked(COME_BACK, play, "Nothing had to be resynced")
    equal = [one for one in mended if one.evidence.repair and one.evidence.repair.differing_after == 0]
    resync = f"the resync made all equal in {part_of(len(equal), len(mended))} plays"
    again, cells = 0, []
    for cell_id, some in groups(facts.plays, lambda one: one.cell.id).items():
        hits = [one for one in some if one.harmed and one.evidence.equal_before]
        if len(hits) > 1:
            again += len(hits) - 1
            cells.append(cell_id)
    if not again:
        sentence = f"A resync mends what is there, not what makes it: {resync}; no cell that diverged was played again."
        return QuestionAnswer(COME_BACK, PARTLY, sentence, cells_of(mended), play)
    more = f"the same work on equal replicas made new ones {plural(again, 'time')} more"
    sentence = f"A resync mends what is there, not what makes it: {resync}, and {more}."
    return QuestionAnswer(COME_BACK, "They are made anew", sentence, tuple(cells), tone=Tone.BAD)


def broken_hardware(facts: Facts) -> QuestionAnswer:
    """Who the digest's failures come from."""
    plays = facts.where(lambda one: bool(one.evidence.alarms and one.evidence.alarms.algorithm))
    failed = [one for one in plays if one.evidence.alarms and one.evidence.alarms.detections]
    if not plays:
        return not_asked(HARDWARE, _ALARMS)
    direct = [one for one in plays if one.cell.cache is not None and one.cell.cache.direct]
    copied = [one for one in plays if one not in direct]
    of_direct = f"{part_of(sum(one in failed for one in direct), len(direct))} plays with cache=none or directsync"
    of_copied = f" and in {part_of(sum(one in failed for one in copied), len(copied))} with a mode that copies"
    by_sender = sum(bool(one.evidence.alarms and one.evidence.alarms.mismatches) for one in failed)
    told = f"The digest failed in {of_direct}{of_copied if copied else ''}"
    if not failed:
        return QuestionAnswer(HARDWARE, NO_ANSWER, f"{told}.", cells_of(plays), _ALARMS, Tone.OPEN)
    modified = f'; in {part_of(by_sender, len(failed))} of these the sender logged "buffer modified by upper layers"'
    short = "Not by itself" if by_sender else NO_ANSWER
    why = ": the memory changed there, not on the wire" if by_sender else ""
    return QuestionAnswer(HARDWARE, short, f"{told}{modified}{why}.", cells_of([*failed, *plays]))


def digest_on(facts: Facts) -> QuestionAnswer:
    """What the digest costs, and what it leaves."""
    plays = facts.where(
        lambda one: bool(one.evidence.alarms and one.cell.replication.integrity) and one.cell.client is ClientKind.GUEST
    )
    if not plays:
        return not_asked(DIGEST_ON, _ALARMS)
    one_primary = [one for one in plays if not one.cell.replication.two_primaries]
    told, bad = [], False
    if one_primary:
        alarms = [one.evidence.alarms for one in one_primary if one.evidence.alarms]
        dropping, down = sum(one.drops > 0 for one in alarms), sum(one.down_seconds for one in alarms)
        left = [one for one in one_primary if one.harmed]
        told.append(
            f"with one Primary the connection was lost in {part_of(dropping, len(alarms))} plays ({down:.0f} s in all),"
            f" and after its resyncs blocks still differed in {part_of(len(left), len(one_primary))}"
        )
        bad = bool(left or dropping)
    split, asked = seen(ClaimEvent.SPLIT_AT_ONCE, [one for one in plays if one not in one_primary])
    if asked:
        told.append(f"with two Primaries it ended in split brain in {part_of(len(split), len(asked))}")
        bad = bad or bool(split)
    else:
        told.append("with two Primaries it was not asked")
    sentence = "; ".join(told)
    short = ("No" if split else "At a price") if bad else NOT_SEEN
    if not one_primary and not asked:
        return not_asked(DIGEST_ON, _ALARMS)
    play = "" if asked else "drbd-harness run --matrix alarms -k twoprimaries"
    tone = Tone.BAD if bad else Tone.OPEN
    return QuestionAnswer(DIGEST_ON, short, f"{sentence[0].upper()}{sentence[1:]}.", cells_of(plays), play, tone)


def how_often(facts: Facts) -> QuestionAnswer:
    """What ordinary timing shows, and that nothing else tells."""
    plays = [
        one
        for one in facts.in_guest(CacheMode.NONE, CacheMode.DIRECTSYNC)
        if one.cell.delays.undelayed and one.cell.crash is None and one.cell.fault is None and one.weighs
    ]
    play = "drbd-harness run --matrix natural --repeat 5"
    if not plays:
        return not_asked(HOW_OFTEN, play, "Every play was slowed down, or could not have diverged")
    found = tally(plays)
    lasted = sorted({one.cell.seconds for one in plays if one.weighs})
    emulated = any(one.stack.accelerator not in ("kvm", "hardware") for one in plays)
    only, telling = seen(ClaimEvent.ONLY_VERIFY, plays)
    rate = _interval(found.hits, found.answered)
    caveat = ", on emulated nodes, whose rate is none of hardware" if emulated else ""
    told = (
        f"Without delays {part_of(found.hits, found.answered)} plays of {_long(lasted)} s diverged{rate}{caveat}"
        f" ({each(plays, lambda one: one.cell.id)})"
    )
    if not found.hits:
        sentence = f"{told}; no interval follows from that."
        return QuestionAnswer(HOW_OFTEN, NOT_SEEN, sentence, cells_of(plays), play, Tone.OPEN)
    nothing = f"; nothing but the verify told in {part_of(len(only), len(telling))} of these" if telling else ""
    sentence = f"{told}{nothing}; a verify says what was so, and the next write of this kind may differ again."
    return QuestionAnswer(HOW_OFTEN, "No interval is short enough", sentence, cells_of(plays), play, Tone.BAD)


def _long(seconds: list[int]) -> str:
    return f"{seconds[0]}" if len(seconds) == 1 else f"{seconds[0]} to {seconds[-1]}"


def _interval(hits: int, answered: int) -> str:
    found = rate_interval(hits, answered)
    return f" ({between(found.low, found.high)}, 95 %)" if found else ""


def guest_off(facts: Facts) -> QuestionAnswer:
    """The comparison comes after the guest gave the disk back."""
    plays = [one for one in facts.where(lambda one: one.cell.client is ClientKind.GUEST) if _differing(one)]
    if not plays:
        return not_asked(GUEST_OFF, _QUICK, "No block differed at the end")
    blocks = sum(len(_differing(one)) for one in plays)
    sentence = (
        f"The disks were compared after the guest had given the disk back and everything was written: {count(blocks)}"
        f" blocks differed then, in {plural(len(plays), 'play')}."
    )
    return QuestionAnswer(GUEST_OFF, YES, sentence, cells_of(plays), tone=Tone.BAD)


def verify_finished(facts: Facts) -> QuestionAnswer:
    """Whether both ends of each verify are in the kernel log."""
    plays = [one for one in facts.every if one.evidence.verify is not None]
    if not plays:
        return not_asked(FINISHED, "drbd-harness run --matrix smoke")
    verifies = [one.evidence.verify for one in plays if one.evidence.verify is not None]
    complete, skipped = sum(one.complete for one in verifies), sum(one.skipped_blocks for one in verifies)
    sentence = (
        f"{part_of(complete, len(verifies))} verifies began and ended in the kernel log of the node that ran them, and"
        f" {plural(skipped, 'block')} were skipped as busy."
    )
    whole = complete == len(verifies) and not skipped
    tone = Tone.NEUTRAL if whole else Tone.BAD
    return QuestionAnswer(FINISHED, "It finished" if whole else "Not each", sentence, cells_of(plays), tone=tone)


def counter_alone(facts: Facts) -> QuestionAnswer:
    """DRBD's counter, against the disks."""
    plays = [one for one in _looked_at(facts) if one.evidence.counter_kib]
    if not plays:
        return not_asked(COUNTER, _QUICK, "The counter was 0 after each verify")
    more = [one for one in plays if (one.evidence.counter_kib or 0) > len(_differing(one)) * _KIB_PER_BLOCK]
    above = f"The counter was above 0 after a verify in {plural(len(plays), 'play')}, and in"
    sentence = f"{above} {count(len(more)) if more else 'none'} of them it counted more than differs on the disks."
    return QuestionAnswer(COUNTER, YES if more else NOT_SEEN, sentence, cells_of(plays))
