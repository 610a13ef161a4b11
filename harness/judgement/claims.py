"""What became of each claim, by what was played of the cells that decide it; pure.

The unit is the play: one repetition of one cell.  A play counts towards *confirmed* and *refuted* together with the
others of the same cell (delays aside) on the same hardware only; what else is said pools the cells of a question, never
two stacks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.judgement.claim_costs import slow_words, slowest
from harness.judgement.claim_events import LACKING, NOT_PLAYED, Aside, shown, with_split_brain
from harness.judgement.claim_words import ENOUGH, Claim, Tally, Word, all_in_words, hardware_of, undelayed_id, word
from harness.judgement.stacks import PlayedRun, StackKey, by_version, component, letters, short_names
from harness.judgement.stats import rate_interval
from harness.model import Result, Stack
from harness.model.claim import Ask, ClaimEvent, ClaimSpec, Component, Says
from harness.util.wording import between, count, joined, part_of, plural

#: How *often* and *rarely* are read: as the share of plays without any delay.
OFTEN_FROM, RARELY_TO = 0.5, 0.1
_STRENGTH = [
    Word.NOT_ASKED, Word.NO_ANSWER, Word.NOT_OBSERVED, Word.OBSERVED, Word.COUNTEREXAMPLE, Word.CONFIRMED, Word.REFUTED
]  # fmt: skip
_EMULATED = "on emulated nodes, whose timing is none of hardware"
_AGAINST = (Word.COUNTEREXAMPLE, Word.REFUTED)


@dataclass(frozen=True)
class StackAnswer:
    """One question, answered by the runs of one stack; ``stack`` tells it from the others, empty for the only one.

    ``most``: the plays of that one cell on one hardware of which most are known, among those that show it.
    """

    stack: str
    runs: tuple[str, ...]
    word: Word
    text: str
    tally: Tally
    cells: tuple[str, ...] = ()
    most: int = 0


@dataclass(frozen=True)
class Part:
    """One question behind a claim: its word, the numbers of each stack, and a command that plays its cells."""

    of: str
    word: Word
    text: str
    stacks: tuple[StackAnswer, ...]
    play: str = ""
    lacks: str = ""


@dataclass(frozen=True)
class Assessment:
    """What became of one claim.

    ``numbers`` are the words of each question with their counts, ``cells`` the ids of the cells that decided,
    ``could_change`` what another word would take, and ``play`` a command for that, empty where there is none.
    """

    claim: str
    sentence: str
    answer: Word
    numbers: str
    cells: tuple[str, ...]
    could_change: str
    play: str = ""
    note: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class _Play:
    """A play that decides something: whether it shows the event, or why it is set aside."""

    result: Result
    stack: Stack
    run: str
    shows: bool | Aside

    @property
    def undelayed(self) -> bool:
        return self.result.cell.delays.undelayed


@dataclass
class _Counted:
    """The plays of one question on one stack."""

    trials: list[_Play] = field(default_factory=list)
    aside: Counter[str] = field(default_factory=Counter)
    runs: dict[str, None] = field(default_factory=dict)

    def add(self, play: _Play) -> None:
        if isinstance(play.shows, Aside):
            if play.shows.why:
                self.aside[play.shows.why] += 1
                self.runs[play.run] = None
        else:
            self.trials.append(play)
            self.runs[play.run] = None


def assess(claims: Iterable[ClaimSpec], runs: Sequence[PlayedRun]) -> tuple[Assessment, ...]:
    """What became of each of ``claims`` by all of ``runs`` together, in the order of the claims."""
    names = short_names(_of_each_stack(runs))
    return tuple(_assessed(claim, runs, names) for claim in claims)


def _assessed(claim: ClaimSpec, runs: Sequence[PlayedRun], names: Mapping[StackKey, str]) -> Assessment:
    parts = tuple(_part(ask, runs, names) for ask in claim.asks)
    answer = _together(claim, parts)
    cells = dict.fromkeys(cell for part in parts for one in part.stacks for cell in one.cells)
    return Assessment(
        claim=claim.id,
        sentence=claim.sentence,
        answer=answer,
        numbers="; ".join(f"{part.of}: {part.text}" for part in parts),
        cells=tuple(cells),
        could_change=_could_change(claim, parts, answer),
        play=next((part.play for part in _open(parts) if part.play), ""),
        note=claim.note,
        parts=parts,
    )


def _together(claim: ClaimSpec, parts: Sequence[Part]) -> Word:
    words = [part.word for part in parts]
    against = [one for one in words if one in _AGAINST]
    if against or not claim.needs_all:
        return max(against or words, key=_STRENGTH.index)
    # That something which should never happen was not observed holds nothing up, beside what was observed.
    never = {part.of for part, ask in zip(parts, claim.asks, strict=True) if ask.says is Says.NEVER}
    limiting = [part.word for part in parts if not (part.of in never and part.word is Word.NOT_OBSERVED)]
    return min(limiting or words, key=_STRENGTH.index)


# --------------------------------------------------------------------------- one question


def _part(ask: Ask, runs: Sequence[PlayedRun], names: Mapping[StackKey, str]) -> Part:
    plays = _plays(ask, runs)
    if ask.across is not None:
        return _part_across(ask, ask.across, plays)
    if ask.event is ClaimEvent.SLOW and (part := _part_slow(ask, runs, names)):
        return part
    counted: dict[StackKey, _Counted] = {}
    for play in plays:
        counted.setdefault(StackKey.of(play.stack), _Counted()).add(play)
    answers = tuple(_stack_answer(ask, name, counted[key]) for key, name in names.items() if key in counted)
    answers = tuple(one for one in answers if one.runs)
    if not answers:
        return Part(ask.of, Word.NOT_ASKED, Word.NOT_ASKED.value, (), ask.play)
    lacks = dict.fromkeys(why for some in counted.values() for why in some.aside if why.endswith(LACKING))
    return _of_stacks(ask, answers, letters(names.values()), joined(lacks))


def _part_slow(ask: Ask, runs: Sequence[PlayedRun], names: Mapping[StackKey, str]) -> Part | None:
    """By the ratios of fio's figures; None where there is none."""
    answers = []
    for key, name in names.items():
        of_stack = [run for run in runs if StackKey.of(run.stack) == key]
        if ratios := slowest(ask, of_stack):
            found, text, tally = slow_words(ratios)
            cells = tuple(dict.fromkeys(one.cell for one, _ in ratios))
            some = tuple(run.name for run in of_stack)
            answers.append(StackAnswer(name, some, found, text, tally, cells, tally.hits))
    return _of_stacks(ask, tuple(answers), letters(names.values())) if answers else None


def _of_stacks(
    ask: Ask, answers: tuple[StackAnswer, ...], labels: Mapping[str, str] | None = None, lacks: str = ""
) -> Part:
    """The strongest word of several stacks, with the text of each; those that say the same are said together."""
    found = max((one.word for one in answers), key=_STRENGTH.index)
    alike: dict[str, list[str]] = {}
    for one in answers:
        alike.setdefault(one.text, []).append((labels or {}).get(one.stack, one.stack))
    text = "; ".join(f"{_named(some)}{text}" for text, some in alike.items())
    return Part(ask.of, found, text, answers, ask.play, lacks)


def _named(stacks: Sequence[str]) -> str:
    """``A: `` or ``A and B each: ``; empty for the only stack that there is."""
    return f"{joined(stacks)}{' each' if len(stacks) > 1 else ''}: " if any(stacks) else ""


def _plays(ask: Ask, runs: Sequence[PlayedRun]) -> list[_Play]:
    found = []
    for run in runs:
        if not run.stack.drbd.startswith(ask.drbd):
            continue
        found += [
            _Play(result, run.stack, run.name, _shown(ask, result))
            for result in run.results
            if ask.decided_by(result.cell)
        ]
    return found


def _shown(ask: Ask, result: Result) -> bool | Aside:
    seen = shown(ask.event, result)
    if ask.says in (Says.OFTEN, Says.RARELY) and isinstance(seen, bool) and not result.cell.delays.undelayed:
        return Aside("with delays, which say nothing about how often")
    return seen


def _stack_answer(ask: Ask, name: str, counted: _Counted) -> StackAnswer:
    tally = _tally(counted.trials)
    if ask.says in (Says.OFTEN, Says.RARELY):
        found, text = _rate_words(ask.says, tally, counted.trials)
    else:
        found, text = _words(Claim.HAPPENS if ask.says is Says.HAPPENS else Claim.NEVER, tally, counted.trials)
    if not tally.answered:
        # What the evidence does not tell was not asked by it.
        unasked = all(why == NOT_PLAYED or why.endswith(LACKING) for why in counted.aside)
        found = Word.NOT_ASKED if unasked else Word.NO_ANSWER
        text = found.value
    text += with_split_brain(ask.event, (play.result for play in counted.trials if play.shows))
    aside = [f"{count(number)} {why}" for why, number in counted.aside.items() if why != NOT_PLAYED]
    if aside:
        text += f" (set aside: {joined(aside)})"
    most = max((len(group) for group in _groups(counted.trials).values() if any(one.shows for one in group)), default=0)
    return StackAnswer(name, tuple(counted.runs), found, text, tally, _cells(counted.trials), most)


def _tally(trials: Iterable[_Play]) -> Tally:
    trials = list(trials)
    hits = [play for play in trials if play.shows]
    return Tally(len(hits), len(trials), sum(play.undelayed for play in hits))


def _cells(trials: Iterable[_Play]) -> tuple[str, ...]:
    ordered = sorted(trials, key=lambda play: not play.shows)
    return tuple(dict.fromkeys(play.result.cell.id for play in ordered))


def _words(claim: Claim, tally: Tally, trials: Sequence[_Play]) -> tuple[Word, str]:
    """The word by the plays of the one cell on the one hardware that carries the strongest, with all counts."""
    groups = {key: _tally(group) for key, group in _groups(trials).items()}
    words = {key: word(claim, seen, key[1]) for key, seen in groups.items()}
    found = max(words.values(), key=_STRENGTH.index, default=Word.NOT_ASKED)
    if found not in (Word.CONFIRMED, Word.REFUTED):
        return found, all_in_words(claim, tally, tally, "", ())
    best = max((key for key, one in words.items() if one is found), key=lambda key: groups[key].answered)
    return found, all_in_words(claim, tally, groups[best], best[1], [play.stack for play in trials])


def _groups(trials: Iterable[_Play]) -> Mapping[tuple[str, str], list[_Play]]:
    """The plays by cell, delays aside, and hardware: repetitions of the same."""
    groups: dict[tuple[str, str], list[_Play]] = {}
    for play in trials:
        groups.setdefault((undelayed_id(play.result.cell), hardware_of(play.stack)), []).append(play)
    return groups


def _rate_words(says: Says, tally: Tally, trials: Sequence[_Play]) -> tuple[Word, str]:
    interval = rate_interval(tally.hits, tally.answered)
    if interval is None:
        return Word.NOT_ASKED, Word.NOT_ASKED.value
    figures = f"{part_of(tally.hits, tally.answered)}; {between(interval.low, interval.high)} of plays, 95 %"
    holds, fails = interval.low >= OFTEN_FROM, interval.high < OFTEN_FROM
    if says is Says.RARELY:
        holds, fails = interval.high <= RARELY_TO, interval.low > RARELY_TO
    if any(play.stack.accelerator not in ("kvm", "hardware") for play in trials):
        return Word.NO_ANSWER, f"{Word.NO_ANSWER} ({figures}; {_EMULATED})"
    if not holds and not fails:
        return Word.NO_ANSWER, f"{Word.NO_ANSWER} ({figures})"
    hardware = {hardware_of(play.stack) for play in trials}
    strong = tally.answered >= ENOUGH and len(hardware) == 1 and all(hardware)
    found = (
        (Word.CONFIRMED if strong else Word.OBSERVED) if holds else (Word.REFUTED if strong else Word.COUNTEREXAMPLE)
    )
    return found, f"{found} ({figures}{f'; on {hardware.pop()}' if strong else ''})"


# --------------------------------------------------------------------------- one question about two stacks


def _part_across(ask: Ask, which: Component, plays: Sequence[_Play]) -> Part:
    """Whether what happened with one component happens with another too, in the same cells."""
    trials: dict[str, list[_Play]] = {}
    for play in plays:
        if isinstance(play.shows, bool) and (value := component(play.stack, which)):
            trials.setdefault(value, []).append(play)
    values = sorted(trials, key=by_version)
    if len(values) < 2:
        names = {Component.DRBD: "DRBD ", Component.KERNEL: "Linux ", Component.QEMU: "QEMU "}
        only = f": all of it was played with {names.get(which, '')}{values[0]}" if values else ""
        return Part(ask.of, Word.NOT_ASKED, f"{Word.NOT_ASKED}{only}", (), ask.play)
    first = next((value for value in values if any(play.shows for play in trials[value])), values[0])
    cells = {play.result.cell.id for play in trials[first] if play.shows}
    answers = []
    for value in values[values.index(first) + 1 :]:
        same = [play for play in trials[value] if play.result.cell.id in cells]
        if same:
            found, text = _words(Claim.HAPPENS if ask.says is Says.HAPPENS else Claim.NEVER, _tally(same), same)
            runs = tuple(dict.fromkeys(play.run for play in same))
            answers.append(StackAnswer(f"{first} and {value}", runs, found, text, _tally(same), _cells(same)))
    if not answers:
        why = "nothing shows it with the first of them" if not cells else "no cell was played with two of them"
        return Part(ask.of, Word.NO_ANSWER, f"{Word.NO_ANSWER} ({joined(values)}: {why})", (), ask.play)
    return _of_stacks(ask, tuple(answers))


# --------------------------------------------------------------------------- what could change it


def _open(parts: Sequence[Part]) -> list[Part]:
    """The parts, what was least asked first."""
    return sorted(parts, key=lambda part: _STRENGTH.index(part.word))


def _could_change(claim: ClaimSpec, parts: Sequence[Part], answer: Word) -> str:
    said: list[str] = []
    open_parts = [part.of for part in parts if part.word is Word.NOT_ASKED]
    if open_parts and len(open_parts) < len(parts) and (claim.needs_all or answer not in _AGAINST):
        said.append(f"what was not asked: {joined(open_parts)}")
    tallies = [one.tally for part in parts for one in part.stacks]
    if answer is Word.NOT_ASKED and len(open_parts) == len(parts):
        if not any(part.play for part in parts):
            said.append("a run of the cells that decide it; the claim names no command ('play') that plays them")
        else:
            said.append("a run that asks it")
    elif answer is Word.NO_ANSWER:
        emulated = any(_EMULATED in part.text for part in parts)
        said.append(f"plays that have an answer{', without delays on nodes that are not emulated' if emulated else ''}")
    elif answer is Word.NOT_OBSERVED:
        most = max((one.answered for one in tallies if not one.hits), default=0)
        bound = rate_interval(0, 3 * most)
        further = (
            f"; {count(2 * most)} more without it would lower the bound to {bound.high * 100:.2g} %" if bound else ""
        )
        said.append(f"one play that shows it{further}")
    elif answer in (Word.OBSERVED, Word.COUNTEREXAMPLE):
        said.append(_for_the_stronger_word(answer, parts))
    elif answer in (Word.CONFIRMED, Word.REFUTED):
        said.append("nothing that is played on this stack; another version or other hardware is another question")
    if lacking := dict.fromkeys(part.lacks for part in parts if part.lacks):
        said.append(f"evidence that has what it lacks now ({joined(lacking)})")
    return "; ".join(said)


def _for_the_stronger_word(answer: Word, parts: Sequence[Part]) -> str:
    wanted = Word.CONFIRMED if answer is Word.OBSERVED else Word.REFUTED
    showing = [one for part in parts for one in part.stacks if part.word is answer and one.tally.hits]
    most = max((one.most for one in showing), default=0)
    takes = [f"{ENOUGH} plays of one cell on one named processor" + (f" (so far {most})" if most < ENOUGH else "")]
    if not any(one.tally.undelayed_hits for one in showing):
        takes.append("one without delays that shows it")
    fact = "a counterexample stays one; " if answer is Word.COUNTEREXAMPLE else ""
    return f"{fact}'{wanted}' takes {joined(takes)}"


def stacks_of(runs: Sequence[PlayedRun]) -> tuple[str, ...]:
    """One line for each stack: what it is, and how many plays of which runs are of it."""
    found = _of_each_stack(runs)
    return tuple(
        f"{letter}{key}: {plural(_played(some), 'play')} of {joined(run.name for run in some)}"
        for (key, some), letter in zip(found.items(), _letters(found), strict=True)
    )


def stack_letters(runs: Sequence[PlayedRun]) -> tuple[str, ...]:
    """``A: DRBD 8.4.11, Linux 6.12.118, ...`` for each stack that the answers name by a letter; else nothing."""
    found = _of_each_stack(runs)
    return tuple(f"{letter}{key}" for letter, key in zip(_letters(found), found, strict=True) if letter)


def _letters(keys: Iterable[StackKey]) -> list[str]:
    """``A: `` for each; empty where stacks are few enough to be said in full."""
    return [f"{label}: " if label != name else "" for name, label in letters(short_names(keys).values()).items()]


def _of_each_stack(runs: Sequence[PlayedRun]) -> Mapping[StackKey, list[PlayedRun]]:
    """The runs by their stack, what was played most first."""
    found: dict[StackKey, list[PlayedRun]] = {}
    for run in runs:
        found.setdefault(StackKey.of(run.stack), []).append(run)
    return dict(sorted(found.items(), key=lambda one: -_played(one[1])))


def _played(runs: Iterable[PlayedRun]) -> int:
    return sum(result.evidence is not None for run in runs for result in run.results if not result.cell.control)
