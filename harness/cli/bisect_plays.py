"""A cell on one stack after another, each time played by ``drbd-harness`` itself in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.config.run_specs import stack_from_options
from harness.config.stack_spec import StackSpec
from harness.errors import HarnessError, InfrastructureError, UsageError
from harness.images import by_role, stack_digests
from harness.images.mirror import why_no_packages
from harness.judgement.bisect import Answer, Counts, Question, Rate
from harness.lab.nested.leftovers import leftovers
from harness.model import Result, Run, Stack, VerdictKind
from harness.store import Store, judged_results, run_ids
from harness.util import logs

#: Runs ``drbd-harness`` with arguments until it ends, and says with which code.
Command = Callable[[Sequence[str]], int]
# So often a stack is played again for plays that had no answer.
_ROUNDS = 2


@dataclass(frozen=True)
class Asked:
    """Which cell of which matrix, and what is looked for; ``select`` is the -k that leaves only the cell."""

    matrix: str
    digest: str
    cell: str
    select: str
    question: Question


@dataclass(frozen=True)
class Played:
    """What the plays on one stack say.  ``why``: what stands in the way of an answer; ``ran``: the versions there."""

    stack: str
    answer: Answer
    counts: Counts = field(default_factory=Counts)
    kinds: Mapping[VerdictKind, int] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    why: str = ""
    ran: Stack = field(default_factory=Stack)


def own_process(arguments: Sequence[str]) -> int:
    """The command itself; what it prints goes to standard error, for the answer is what is printed here.

    An interruption is handed on to it once, and it is waited for: it takes its lab down.
    """
    argv = [sys.executable, "-P", "-m", "harness.cli.main", *arguments]
    process = subprocess.Popen(argv, stdout=sys.stderr, process_group=0)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise


def cell_of(matrix: str, select: str, bad: VerdictKind) -> Asked:
    """The one cell of ``matrix`` that ``select`` means: its id, or what is in the id of no other.

    :class:`~harness.errors.UsageError` where it is none, or several.
    """
    from harness.config.matrix import load
    from harness.model.aliases import present_id
    from harness.util import resources
    from harness.workloads import WORKLOADS

    loaded = load(matrix, WORKLOADS, resources.matrices())
    ids = list(dict.fromkeys(cell.id for cell in loaded.cells if cell.control is None))
    wanted = present_id(select)
    found = [wanted] if wanted in ids else [one for one in ids if select in one]
    if len(found) != 1:
        some = f": {', '.join(found[:5])}{' ...' if len(found) > 5 else ''}" if found else ""
        which = "none of them" if not found else f"{len(found)} of them"
        raise UsageError(f"-k names one cell of {matrix}, and '{select}' is {which}{some} ('drbd-harness list')")
    longer = [one for one in ids if found[0] in one and one != found[0]]
    words = f"{found[0]} and not ({' or '.join(longer)})" if longer else found[0]
    return Asked(matrix, loaded.digest, found[0], words, Question(bad))


def require_no_lab() -> None:
    """:class:`~harness.errors.InfrastructureError` where a lab runs here: it would be used, whatever its stack."""
    if running := [one for one in leftovers() if one.domains]:
        raise InfrastructureError(f"each stack needs a lab of its own, and {running[0].sentence}")


class Player:
    """Plays ``asked`` on stacks; ``reuse``: plays that ``runs`` has of the same images count, else only new ones."""

    def __init__(self, asked: Asked, runs: Path, command: Command = own_process, *, reuse: bool) -> None:
        self.asked = asked
        self._runs = runs
        self._command = command
        self._left_out = frozenset() if reuse else frozenset(run_ids(runs))

    def play(self, stack: str, wanted: int, *, all_of_them: bool = False) -> Played:
        """The answer of ``stack`` by ``wanted`` plays; fewer where one decides, unless ``all_of_them`` are wanted.

        Blocks for as long as building and playing take.  :class:`~harness.errors.InfrastructureError` where this
        machine can play nothing any more, :class:`~harness.errors.UsageError` where there is no such stack.
        """
        spec = stack_from_options({"stack": stack})
        why = ""
        for number in range(_ROUNDS + 1):
            played = self._kept(stack, spec, wanted)
            enough = played.counts.answered >= wanted
            if enough or (played.answer is not Answer.UNKNOWN and not all_of_them) or number == _ROUNDS or why:
                break
            why = self._play_on(stack, spec, wanted - played.counts.answered, all_of_them=all_of_them)
        return played if played.answer is not Answer.UNKNOWN else _without_answer(played, wanted, why)

    def _play_on(self, stack: str, spec: StackSpec, plays: int, *, all_of_them: bool) -> str:
        """Play; why nothing was played where it was not, empty where it was."""
        logs.progress(f"{stack}: {plays} plays of {self.asked.cell}")
        if code := self._command(["images", "build", "--stack", stack]):
            self._require_machine(code)
            if code != UsageError.exit_code and (why := why_no_packages(spec.suite)):
                raise InfrastructureError(f"no images could be made of {stack}, for there are no packages: {why}")
            return "no images could be made of it (the reason is above)"
        stop = [] if all_of_them else [f"--stop-at={kind}" for kind in sorted(self.asked.question.telling)]
        before = set(run_ids(self._runs))
        code = self._command(
            ["run", "--matrix", self.asked.matrix, "--stack", stack, "-k", self.asked.select, "--repeat", str(plays),
             "--runs", str(self._runs), *stop]
        )  # fmt: skip
        new = [run_id for run_id in run_ids(self._runs) if run_id not in before]
        if any(one.verdict for run_id in new for one in self._results(Store(self._runs / run_id))):
            return ""
        self._require_machine(code)
        return f"nothing could be played on it: the run ended with {code} (the reason is above)"

    def _require_machine(self, code: int) -> None:
        """Whether the stack is to blame: this machine could still play another."""
        if code < 0 or code >= 128:
            raise InfrastructureError(f"the command was killed by the signal {-code if code < 0 else code - 128}")
        if self._command(["doctor"]):
            raise InfrastructureError("no lab can come up on this machine any more: see above")

    # ----------------------------------------------------------------- what is kept

    def _kept(self, stack: str, spec: StackSpec, wanted: int) -> Played:
        found = list(self._kept_runs(spec))
        plays = [result for store, _ in found for result in self._results(store)]
        question = self.asked.question
        counts = question.counts(plays)
        kinds = [play.verdict.kind for play in plays if play.verdict is not None]
        why = next((play.verdict.sentence for play in reversed(plays) if play.verdict and _no_answer(play)), "")
        return Played(
            stack, question.answer(counts, wanted), counts, {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
            tuple(run.id for _, run in found), why, found[-1][1].stack if found else Stack(),
        )  # fmt: skip

    def _kept_runs(self, spec: StackSpec) -> Iterator[tuple[Store, Run]]:
        """The runs that played the cell on images like those that ``spec`` gets today."""
        runs = [(store, run) for store, run in self._readable() if self._asks_the_same(run, spec)]
        if not runs:
            return
        try:
            digests = stack_digests(spec)
        except HarnessError:
            return
        today = by_role(digests.a, digests.b, digests.guest)
        yield from ((store, run) for store, run in runs if run.provenance.images == today)

    def _readable(self) -> Iterator[tuple[Store, Run]]:
        for run_id in run_ids(self._runs):
            if run_id not in self._left_out:
                try:
                    store = Store.open(self._runs, run_id)
                    yield store, store.run()
                except HarnessError as error:
                    logs.progress(f"{run_id} is left out: {error}")

    def _asks_the_same(self, run: Run, spec: StackSpec) -> bool:
        if run.matrix_digest != self.asked.digest or all(cell.id != self.asked.cell for cell in run.cells):
            return False
        try:
            return StackSpec.from_table(run.stack_spec) == spec
        except UsageError:
            return False

    def _results(self, store: Store) -> list[Result]:
        """The plays of the cell that were played."""
        return [one for one in judged_results(store) if one.cell.id == self.asked.cell and one.verdict is not None]


def counted(played: Played) -> str:
    """The verdicts, for people: ``3 DIVERGED, 2 CLEAN``."""
    return ", ".join(f"{count} {kind}" for kind, count in played.kinds.items()) or "not played"


def rate_of(text: str, runs: Path, asked: Asked) -> Rate:
    """From ``3/10``, or as a run counted it; :class:`~harness.errors.UsageError` where that is no rate."""
    if (rate := Rate.parse(text)) is not None:
        return rate
    # A name that no file system takes is no error to os.path.
    if "/" in text and not os.path.exists(text):  # noqa: PTH110
        raise UsageError(f"--rate is '{text}'; it is hits of plays, such as 3/10, or a run that counted them")
    results = [one for one in judged_results(Store.open(runs, text)) if one.cell.id == asked.cell]
    counts = asked.question.counts(results)
    if not counts.telling:
        raise UsageError(
            f"the run '{text}' has no play of {asked.cell} that ended as {' or '.join(sorted(asked.question.telling))}:"
            " it says no rate"
        )
    return Rate(counts.telling, counts.answered)


def _no_answer(play: Result) -> bool:
    kinds = (VerdictKind.INCONCLUSIVE, VerdictKind.REFUSED)
    return play.verdict is not None and play.verdict.kind in kinds


def _without_answer(played: Played, wanted: int, why: str) -> Played:
    answered = f"{played.counts.answered} of {wanted} plays have an answer" if played.kinds else ""
    reason = ": ".join(part for part in (answered, why or played.why) if part)
    return Played(played.stack, Answer.UNKNOWN, played.counts, played.kinds, played.runs, reason, played.ran)
