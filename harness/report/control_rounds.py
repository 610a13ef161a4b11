"""When the controls were played, what each round of them showed, and which cells lie beside a round that failed; pure.

A round is what was played without a cell in between; which one it is follows from its place among the cells of its lab.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.config.controls import REVIVAL_CONTROLS
from harness.judgement.controls_around import controls_around, interrupted, played_controls
from harness.model import Control, ControlOutcome, Evidence, Result
from harness.report.formatting import count, joined, plural, seconds, sentence
from harness.report.grid import Grid, Slot, grid
from harness.report.repetitions import play_name

# As often as a session plays all of them, in seconds, less what a clock may be off.
_HOURLY = 3500.0


@dataclass(frozen=True)
class ControlRound:
    """One round of controls on one lab.

    ``cells`` are the attempts at cells that followed on that lab until its next round; ``doubted`` those of them for
    which a control counts that failed, whether in this round, an earlier or the next one.
    """

    occasion: str
    lab: str
    began: str
    took: float | None
    outcomes: tuple[ControlOutcome, ...]
    cells: tuple[Evidence, ...]
    doubted: tuple[Evidence, ...]

    @property
    def failed(self) -> tuple[ControlOutcome, ...]:
        """The controls of this round that failed."""
        return tuple(one for one in self.outcomes if not one.held)


def control_rounds(attempts: Iterable[Evidence]) -> tuple[ControlRound, ...]:
    """The rounds among ``attempts`` in the order of time; a control that somebody interrupted showed nothing."""
    kept = (one for one in attempts if one.cell.control is None or not interrupted(one))
    in_time = sorted(kept, key=lambda one: one.started_at)
    controls = [one for one in in_time if one.cell.control is not None]
    played = played_controls(controls)
    seen = {id(one): control.outcome for one, control in zip(controls, played, strict=True)}
    labs: dict[str, list[_Round]] = {}
    for one in in_time:
        rounds = labs.setdefault(one.lab, [])
        if one.cell.control is None:
            if rounds:
                rounds[-1].cells.append(one)
        elif rounds and not rounds[-1].cells and not rounds[-1].has(one.cell.control):
            rounds[-1].controls.append(one)
        else:
            rounds.append(_Round([one], []))
    found = []
    for lab, rounds in labs.items():
        for number, this in enumerate(rounds):
            doubted = [
                one for one in this.cells if any(not held.held for held in controls_around(one, played).values())
            ]
            found.append(
                ControlRound(
                    _occasion(rounds, number), lab, this.controls[0].started_at, this.took,
                    tuple(seen[id(one)] for one in this.controls), tuple(this.cells), tuple(doubted),
                )
            )  # fmt: skip
    return tuple(sorted(found, key=lambda one: one.began))


def evidence_of(results: Iterable[Result]) -> tuple[Evidence, ...]:
    """The attempts that stand for ``results``, where no others are known."""
    return tuple(result.evidence for result in results if result.evidence is not None)


def round_grid(rounds: Sequence[ControlRound]) -> Grid | None:
    """One row for each round: when, each of its controls, and how many cells followed."""
    kinds = [kind for kind in Control if any(one.control is kind for this in rounds for one in this.outcomes)]
    labs = {this.lab for this in rounds}
    rows = [
        (
            Slot(this.occasion),
            Slot(this.lab if len(labs) > 1 else ""),
            Slot(when(this.began)),
            Slot("" if this.took is None else seconds(this.took)),
            *(_slot(this, kind) for kind in kinds),
            Slot(plural(len(this.cells), "play") if this.cells else ""),
            Slot(f"{count(len(this.doubted))} beside a failed control" if this.doubted else "", "bad"),
        )
        for this in rounds
    ]
    return grid("Rounds of controls", ("Round", "Lab", "Began (UTC)", "Took", *kinds, "Then played", "Of these"), rows)


def round_lines(rounds: Sequence[ControlRound]) -> tuple[str, ...]:
    """One sentence for each round, for a terminal."""
    return tuple(_line(this) for this in rounds)


def failures(rounds: Sequence[ControlRound]) -> tuple[str, ...]:
    """What each control that failed showed, and when."""
    return tuple(
        f"{this.occasion}, {when(this.began)}: {one.control} failed. {sentence(one.sentence)}"
        for this in rounds
        for one in this.failed
    )


def doubted_numbers(rounds: Sequence[ControlRound], results: Sequence[Result]) -> tuple[int, ...]:
    """The places in ``results`` of those that rest on an attempt beside a failed control."""
    doubted = {id(one) for this in rounds for one in this.doubted}
    plays = {(one.cell.play, one.attempt) for this in rounds for one in this.doubted}
    return tuple(
        number
        for number, result in enumerate(results)
        if result.evidence is not None
        and (id(result.evidence) in doubted or (result.cell.play, result.evidence.attempt) in plays)
    )


def when(moment: str) -> str:
    """``2026-11-24T13:13:41+00:00`` as ``2026-11-24 13:13:41``."""
    return moment[:19].replace("T", " ")


# --------------------------------------------------------------------------- rounds


@dataclass
class _Round:
    controls: list[Evidence]
    cells: list[Evidence]

    def has(self, control: Control) -> bool:
        return any(one.cell.control is control for one in self.controls)

    @property
    def took(self) -> float | None:
        return _between(self.controls[0].started_at, self.controls[-1].finished_at)

    @property
    def revived(self) -> bool:
        """Whether a cell that followed took a node's power away."""
        return any(one.fault_injected and one.cell.cuts_power for one in self.cells)


def _occasion(rounds: Sequence[_Round], number: int) -> str:
    this = rounds[number]
    if number == 0:
        return "opening"
    if number == len(rounds) - 1 and not this.cells:
        return "closing"
    if rounds[number - 1].revived and all(one.cell.control in REVIVAL_CONTROLS for one in this.controls):
        return "after a node came back"
    sizes = {one.device_blocks for before in rounds[:number] for one in before.controls if _is_planted(one)}
    if all(_is_planted(one) and one.device_blocks not in sizes for one in this.controls):
        return "on a device of another size"
    since = _between(rounds[number - 1].controls[0].started_at, this.controls[0].started_at)
    return "hourly" if since is not None and since >= _HOURLY else "in between"


def _is_planted(one: Evidence) -> bool:
    return one.cell.control is Control.PLANTED


def _between(began: str, ended: str) -> float | None:
    try:
        return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
    except (ValueError, TypeError):
        return None


def _slot(this: ControlRound, kind: Control) -> Slot:
    seen = [one.held for one in this.outcomes if one.control is kind]
    return Slot() if not seen else Slot("held", "good") if all(seen) else Slot("failed", "bad")


def _line(this: ControlRound) -> str:
    held = len(this.outcomes) - len(this.failed)
    text = f"{this.occasion}, {when(this.began)}: {count(held)} of {plural(len(this.outcomes), 'control')} held"
    if this.failed:
        text += f", {joined(str(one.control) for one in this.failed)} failed"
    if this.cells:
        text += f"; then {plural(len(this.cells), 'play')}"
    if this.doubted:
        names = joined(dict.fromkeys(play_name(one.cell) for one in this.doubted))
        text += f", beside a failed control: {names}"
    return text
