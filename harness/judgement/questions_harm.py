"""Questions about what is harmed, and what cures it; pure."""

from __future__ import annotations

from harness.judgement.mitigation_effect import EffectWord, effects
from harness.judgement.question_facts import (
    NO,
    NO_ANSWER,
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
    tally,
)
from harness.judgement.stacks import plain_kernel
from harness.model import BlockOwner, CacheMode, ClientKind, FilesystemKind
from harness.util.wording import count, joined, part_of, plural

NONE_SAFE = "Is cache=none safe on DRBD?"
MODES_SAFE = "Is my cache mode safe on DRBD, with these versions?"
WHOSE = "Which files or partitions hold the differing blocks, live or dead?"
UNPRIVILEGED = "Can an unprivileged user of the guest cause it?"
FILESYSTEMS = "Which filesystem of the guest is immune, and which is not?"
CURES = "What cures it, and what only narrows it?"
#: What the file of a user's own script is called, where the script works as such a user.
AS_A_USER = "unprivileged.sh"
_FILES_SHOWN = 3
_NO_FILESYSTEM = (FilesystemKind.RAW, FilesystemKind.SWAP, FilesystemKind.SWAPFILE, FilesystemKind.PAGEFILE)


def cache_none(facts: Facts) -> QuestionAnswer:
    """The question that comes first."""
    plays, play = facts.in_guest(CacheMode.NONE), "drbd-harness run --matrix quick -k none --repeat 5"
    found = tally(plays)
    if not found.answered:
        return _unanswered(facts, NONE_SAFE, play, plays, CacheMode.NONE)
    cells = cells_of(one for one in plays if one.weighs)
    if not found.hits:
        sentence = f"With cache=none {none_of(found.answered, 'harmed')}, which is no proof of safety; {_asked(plays)}."
        return QuestionAnswer(NONE_SAFE, NOT_SEEN, sentence, cells, play, Tone.OPEN)
    harmed = [one for one in plays if one.harmed]
    live = sum(_live(one) for one in harmed)
    sentence = (
        f"With cache=none replicas differed, or data was lost or read wrongly, in {part_of(found.hits, found.answered)}"
        f" plays ({each(plays, _work)}){_only_delayed(harmed)}{_alive(live)}{_left_out(facts, plays)}."
    )
    return QuestionAnswer(NONE_SAFE, NO, sentence, cells, play, Tone.BAD)


def _left_out(facts: Facts, plays: list[Play]) -> str:
    """The other plays of these in a guest, so that the numbers add up to those of the heat maps."""
    weak = sum(not one.weighs for one in plays)
    every = facts.where(lambda one: one.cell.client is ClientKind.GUEST and one.cell.cache is CacheMode.NONE)
    treated = len(every) - len(plays)
    parts = [f"{plural(weak, 'weak CLEAN')}"] if weak else []
    parts += [f"{plural(treated, 'play')} with something else against it, or a fault"] if treated else []
    return f"; not counted: {joined(parts)}" if parts else ""


def _alive(live: int) -> str:
    return f"; {count(live)} of the differing blocks hold live data" if live else ""


def cache_modes(facts: Facts) -> QuestionAnswer:
    """Each cache mode that was played."""
    play = "drbd-harness run --matrix quick --repeat 5"
    parts: list[str] = []
    cells: list[str] = []
    bad: list[bool] = []
    for cache in CacheMode:
        plays = facts.in_guest(cache)
        found = tally(plays)
        if found.answered:
            parts.append(f"cache={cache}: {counted(plays)}{_only_delayed([one for one in plays if one.harmed])}")
            cells += cells_of(one for one in plays if one.weighs)
            bad.append(found.hits > 0)
    if not parts:
        return _unanswered(facts, MODES_SAFE, play, facts.in_guest(*CacheMode), *CacheMode)
    short = NO if all(bad) else "Not each of them" if any(bad) else NOT_SEEN
    sentence = f"{_versions(facts)}, in plays that say something: {'; '.join(parts)}."
    tone = Tone.BAD if any(bad) else Tone.OPEN
    return QuestionAnswer(MODES_SAFE, short, sentence, tuple(dict.fromkeys(cells)), play, tone)


def whose(facts: Facts) -> QuestionAnswer:
    """Whose the blocks are that differ."""
    harmed = facts.where(lambda one: any(_owned(one).values()))
    if not harmed:
        return not_asked(WHOSE, "drbd-harness run --matrix quick --repeat 5", "No block differed, or nobody was asked")
    sums = {owner: sum(_owned(one)[owner] for one in harmed) for owner in BlockOwner}
    alive = sums[BlockOwner.ALLOCATED] + sums[BlockOwner.METADATA] + sums[BlockOwner.JOURNAL]
    named: dict[str, int] = {}
    for one in harmed:
        for file in one.evidence.ownership.files:
            named[file.path] = named.get(file.path, 0) + file.blocks
    most = sorted(named, key=lambda path: -named[path])[:_FILES_SHOWN]
    files = f"; of files the most are in {joined(f'{path} ({count(named[path])})' for path in most)}" if most else ""
    unknown = f", {count(sums[BlockOwner.UNKNOWN])} of unknown owner" if sums[BlockOwner.UNKNOWN] else ""
    sentence = (
        f"{count(alive)} live (data, metadata or journal) and {count(sums[BlockOwner.FREE])} dead (free, read by nobody"
        f" before they are written again){unknown}, in {plural(len(harmed), 'play')}{files}."
    )
    both = {(True, True): "Live and dead", (True, False): "Live", (False, True): "Dead", (False, False): NO_ANSWER}
    short = both[alive > 0, sums[BlockOwner.FREE] > 0]
    return QuestionAnswer(WHOSE, short, sentence, cells_of(harmed), tone=Tone.BAD if alive else Tone.NEUTRAL)


def unprivileged(facts: Facts) -> QuestionAnswer:
    """Whether a program that any user of the guest may start does it."""
    asked = [
        one
        for one in facts.in_guest(CacheMode.NONE, CacheMode.DIRECTSYNC)
        if one.cell.user_file is not None and one.cell.user_file.name.endswith(AS_A_USER)
    ]
    play = f"drbd-harness run --guest-script testcases/examples/{AS_A_USER}"
    if not asked:
        return not_asked(UNPRIVILEGED, play, "Every workload that was played runs as root")
    found = tally(asked)
    if not found.answered:
        sentence = f"A program run as nobody: {plural(len(asked), 'play')} CLEAN, but weak."
        return QuestionAnswer(UNPRIVILEGED, NO_ANSWER, sentence, cells_of(asked), play, Tone.OPEN)
    short, tone = (YES, Tone.BAD) if found.hits else (NOT_SEEN, Tone.OPEN)
    sentence = f"A program run as nobody: {counted(asked)}."
    return QuestionAnswer(UNPRIVILEGED, short, sentence, cells_of(asked), play, tone)


def filesystems(facts: Facts) -> QuestionAnswer:
    """Each filesystem with the cache modes that hand DRBD the guest's pages."""
    plays = [
        one
        for one in facts.in_guest(CacheMode.NONE, CacheMode.DIRECTSYNC)
        if one.cell.filesystem not in _NO_FILESYSTEM and one.weighs
    ]
    play = "drbd-harness run --matrix full -k none"
    if not plays:
        return not_asked(FILESYSTEMS, play)
    by_kind = groups(plays, lambda one: one.cell.filesystem.value)
    hit = {kind: some for kind, some in by_kind.items() if any(one.harmed for one in some)}
    told = (
        [f"harmed were {each([one for some in hit.values() for one in some], _filesystem, len(hit))} plays"]
        if hit
        else []
    )
    spared = [one for kind, some in by_kind.items() if kind not in hit for one in some]
    told += (
        [f"no harm was seen in {each(spared, _filesystem, len(by_kind))} plays, which proves no immunity"]
        if spared
        else []
    )
    sentence = f"With cache=none or directsync {'; '.join(told)}."
    short = f"Not {joined(hit, 'nor')}" if hit else NOT_SEEN
    return QuestionAnswer(FILESYSTEMS, short, sentence, cells_of(plays), play, Tone.BAD if hit else Tone.OPEN)


def cures(facts: Facts) -> QuestionAnswer:
    """Each mitigation, against the same cells without it."""
    plays = facts.where(lambda one: one.cell.mitigation is not None and one.cell.client is ClientKind.GUEST)
    plain = {one.cell.id: one for one in facts.plays if one.cell.mitigation is None and one.harmed}
    # What did not differ without it is no trial of a cure.
    asked = [one for one in plays if one.cell.without_presets().id in plain]
    play = "drbd-harness run --matrix mitigations"
    if not asked:
        return not_asked(CURES, play)
    # One play without harm may be luck, beside a few with it.
    found = [one for run in facts.runs for one in effects(run.results)]
    named = {word: {one.mitigation for one in found if one.word is word} for word in EffectWord}
    less = named[EffectWord.NARROWS] - named[EffectWord.NEITHER]
    free: dict[str, str] = {}
    narrowed: list[str] = []
    hit: list[str] = []
    for name, some in groups(asked, lambda one: str(one.cell.mitigation)).items():
        hits = sum(one.harmed for one in some)
        told = f"{name} {part_of(hits, len(some))}"
        if hits:
            (narrowed if name in less else hit).append(told)
        else:
            free[name] = told
    parts = [f"no harm was seen any more with {joined(free.values())}"] if free else []
    parts += [f"it happened less with {joined(narrowed)}"] if narrowed else []
    parts += [f"it still happened with {joined(hit)}"] if hit else []
    sentence = f"In cells that were harmed without: {'; '.join(parts)} plays."
    short, tone = "None of these", Tone.NEUTRAL
    if named[EffectWord.NOT_OBSERVED] & free.keys():
        short = "Some do"
    elif free:
        short, tone = "Not enough plays to say", Tone.OPEN
    return QuestionAnswer(CURES, short, sentence, cells_of(asked), play, tone)


# --------------------------------------------------------------------------- words


def _unanswered(facts: Facts, question: str, play: str, plays: list[Play], *caches: CacheMode) -> QuestionAnswer:
    missing = [one.cell for one in facts.every if one not in facts.plays and one.cell.cache in caches and one.untreated]
    if not missing and not plays:
        return not_asked(question, play)
    weak = f"{plural(len(plays), 'play')} CLEAN, but weak: nothing shows that the work could have diverged"
    none = f"{plural(len(missing), 'play')} without an answer"
    sentence = f"{joined(part for part, some in ((weak, plays), (none, missing)) if some)}."
    cells = tuple(dict.fromkeys([*cells_of(plays), *(cell.id for cell in missing)]))
    return QuestionAnswer(question, NO_ANSWER, sentence, cells, play, Tone.OPEN)


def _work(play: Play) -> str:
    on = "" if play.cell.filesystem is FilesystemKind.RAW else f" on {play.cell.filesystem}"
    return f"{play.cell.workload}{on}"


def _filesystem(play: Play) -> str:
    return play.cell.filesystem.value


def _asked(plays: list[Play]) -> str:
    return f"asked by {joined(dict.fromkeys(_work(one) for one in plays if one.weighs))}"


def _only_delayed(harmed: list[Play]) -> str:
    return ", each with delays" if harmed and not any(one.cell.delays.undelayed for one in harmed) else ""


def _owned(play: Play) -> dict[BlockOwner, int]:
    return {owner: getattr(play.evidence.ownership, owner.value) for owner in BlockOwner}


def _live(play: Play) -> int:
    owned = _owned(play)
    return owned[BlockOwner.ALLOCATED] + owned[BlockOwner.METADATA] + owned[BlockOwner.JOURNAL]


def _versions(facts: Facts) -> str:
    stacks = dict.fromkeys(
        f"DRBD {run.stack.drbd or '(unknown)'}, Linux {plain_kernel(run.stack.kernel) or '(unknown)'},"
        f" QEMU {run.stack.qemu or '(unknown)'}"
        for run in facts.runs
    )
    return joined(stacks)
