"""Claims: the file that ties them to cells, what became of them, and the command that says it."""

from __future__ import annotations

import json
import random
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from _pytest.mark.expression import Expression
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import main as cli
from harness.config.claims_file import load_claims, read_claims
from harness.config.matrix import load
from harness.errors import UsageError
from harness.judgement.claim_events import Aside, shown
from harness.judgement.claim_words import Word
from harness.judgement.claims import Assessment, assess
from harness.judgement.stacks import PlayedRun, StackKey, by_version, short_names
from harness.model import (
    Alarms,
    CacheMode,
    Canary,
    Cell,
    Comparison,
    Control,
    DelayProfile,
    Evidence,
    Extent,
    FilesystemKind,
    FioFigures,
    FioPerformance,
    Layout,
    Migration,
    MigrationOutcome,
    Ownership,
    Potency,
    Readback,
    Repair,
    ReplicationProfile,
    Result,
    Sabotage,
    SplitBrain,
    Stack,
    State,
    Verdict,
    VerdictKind,
    Work,
)
from harness.model.claim import ClaimEvent, ClaimSpec, Says
from harness.report.claims import own_claims
from harness.store import Store, judged_results
from harness.util import resources
from harness.workloads import WORKLOADS

CHECKOUT = Path(__file__).parents[2]
GOLDEN = CHECKOUT / "testcases" / "selftest" / "golden"
SWAP = Cell("reclaim", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)
LATE = replace(SWAP, delays=DelayProfile(20, 0))
NAMED = Stack(drbd="8.4.11", kernel="6.12.1+x", qemu="10.0", accelerator="kvm", cpu="a processor")
K = VerdictKind
HIT, MISS = K.DIVERGED, K.CLEAN
CLAIM = """
id = "X1"
claim = "swap diverges"
[[ask]]
of = "swap"
cells = [{ cache = "none", filesystem = "swap", workload = "reclaim" }]
"""


def claim(says: str = "happens", **more: object) -> ClaimSpec:
    ask = {"of": "swap", "cells": [{"cache": "none", "filesystem": "swap", "workload": "reclaim"}]}
    entry = {"id": "X1", "claim": "swap diverges", "says": says, "ask": [ask], **more}
    return read_claims({"schema": 1, "claims": [entry]}, "x.toml", WORKLOADS)[0]


def result(cell: Cell, kind: VerdictKind | None, *, potency: Potency | None = None, **facts: object) -> Result:
    if kind is None:
        return Result(cell, None, None)
    evidence = Evidence(cell, 1, "2026-11-23T01:50:03Z", **facts)  # type: ignore[arg-type]
    blocks = 7 if kind is HIT else 0
    worth = potency or (Potency.STRONG if kind is MISS else None)
    return Result(cell, Verdict(kind, "", differing_blocks=blocks, potency=worth), evidence)


def run(*results: Result, stack: Stack = NAMED, name: str = "a-run") -> PlayedRun:
    return PlayedRun(name, stack, tuple(results))


def assessed(spec: ClaimSpec, *runs: PlayedRun) -> Assessment:
    return assess([spec], runs)[0]


# --------------------------------------------------------------------------- the file that comes with the harness


def test_claims_file_has_the_claims_of_the_sources() -> None:
    claims = load_claims(resources.claims(), WORKLOADS)
    assert [one.id for one in claims][:14] == [f"C{number}" for number in range(1, 15)]
    assert own_claims() == claims


def commands() -> list[tuple[str, int, str]]:
    return [(one.id, at, ask.play) for one in own_claims() for at, ask in enumerate(one.asks)]


@pytest.mark.parametrize(("claim_id", "at", "command"), commands())
def test_command_of_a_claim_plays_cells_that_decide_it(claim_id: str, at: int, command: str) -> None:
    assert command, "what nobody has asked yet needs a command that asks it"
    ask = next(one for one in own_claims() if one.id == claim_id).asks[at]
    cells = played_by(command)
    decided = [cell.id for cell in cells if ask.decided_by(cell)]
    assert decided or not ask.cells, f"{command} plays {[cell.id for cell in cells]}"


def played_by(command: str) -> list[Cell]:
    """The cells that a command would play; fails where ``drbd-harness`` does not know it."""
    words = shlex.split(command)
    assert words[:2] == ["drbd-harness", "run"]
    typer.main.get_command(cli.app).commands["run"].make_context("run", words[2:])  # type: ignore[attr-defined]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    cells = load(options["--matrix"], WORKLOADS, resources.matrices()).cells
    return [cell for cell in cells if "-k" not in options or selects(options["-k"], cell.id)]


def selects(expression: str, cell_id: str) -> bool:
    """Whether pytest's -k selects the cell."""
    return Expression.compile(expression).evaluate(lambda name, **_: name in cell_id)


def test_claim_about_a_plain_cell_is_not_decided_by_what_was_done_against_it() -> None:
    ask = claim().asks[0]
    assert ask.decided_by(SWAP) and ask.decided_by(LATE) and ask.decided_by(replace(SWAP, seconds=77))
    others = (
        replace(SWAP, layout=Layout.CRYPT),
        replace(SWAP, replication=ReplicationProfile(integrity="crc32c")),
        replace(SWAP, replication=ReplicationProfile(scatter_gather=False)),
        replace(SWAP, migrations=2),
        replace(SWAP, control=Control.STEADY),
        replace(SWAP, sabotage=Sabotage.SILENT_VERIFY),
        replace(SWAP, cache=CacheMode.DIRECTSYNC),
    )
    assert not [cell.id for cell in others if ask.decided_by(cell)]
    anything = claim(ask=[{"of": "x", "cells": [{"any": "*", "cache": "none"}]}]).asks[0]
    assert [anything.decided_by(cell) for cell in others] == [True] * 4 + [False] * 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("[[ask]]", "[[asks]]"), "'asks' is no key; did you mean 'ask'?"),
        (('of = "swap"\n', ""), "[[claims.ask]] number 1: 'of' is missing"),
        (('cache = "none"', 'cache = "nonne"'), "'nonne' is no value of 'cache'; did you mean 'none'?"),
        (('"reclaim"', '"reclame"'), "'reclame' is no value of 'workload'; did you mean 'reclaim'?"),
        (("cells = [", "event = 'difers'\ncells = ["), "'difers' is no value of 'event'; did you mean 'differs'?"),
        (("cells = [", "says = 'newer'\ncells = ["), "'newer' is no value of 'says'; did you mean 'never'?"),
        (('workload = "reclaim"', 'any = "buss"'), "'buss' in 'any' is no key of a cell; did you mean 'bus'?"),
        ((CLAIM[CLAIM.index("[[ask") :], ""), "number 1 ('X1'): no cell decides it; give it at least one"),
        (
            ('[{ cache = "none", filesystem = "swap", workload = "reclaim" }]', "[]"),
            "ask 'swap': no cell decides it; 'cells' is missing or empty",
        ),
        (('filesystem = "swap"', 'filesystem = "ext4"'), "no cell decides it: number 1 of 'cells' matches none, for the"
         " workload 'reclaim' does not go with filesystem = \"ext4\""),
        (('cache = "none"', 'client = "host", cache = "none"'), "no cell decides it: number 1 of 'cells' matches none"),
        (('id = "X1"', "id = 1"), "'id' is 1, not text"),
    ],
)  # fmt: skip
def test_claims_file_that_is_wrong_one_sentence(
    change: tuple[str, str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert change[0] in CLAIM
    body = CLAIM.replace(*change, 1).replace("[[ask", "[[claims.ask")
    (tmp_path / "mine.toml").write_text(f"schema = 1\n[[claims]]\n{body}")
    code, _, err = command(capsys, GOLDEN / "quick-drbd-8.4", "--claims", tmp_path / "mine.toml")
    assert code == 4 and sentence in err and len(err.splitlines()) == 1 and err.startswith("drbd-harness: ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("schema = 2", "'schema' is 2; this program reads schema = 1"),
        ("schema = 1", "there is no claim in it; write [[claims]]"),
        ("schema = ", "is not valid TOML"),
        (None, "cannot be read: No such file or directory"),
        (
            f"schema = 1\n[[claims]]{CLAIM}\n[[claims]]{CLAIM}".replace("[[ask", "[[claims.ask"),
            "another claim has this id",
        ),
    ],
)
def test_claims_file_that_is_none_one_sentence(text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError) as refused:
        load_claims(tmp_path / "mine.toml", WORKLOADS)
    assert sentence in str(refused.value)


# --------------------------------------------------------------------------- words


def test_confirmed_takes_ten_plays_of_one_cell_undelayed_and_named_hardware() -> None:
    ten = [result(replace(SWAP, repetition=at), HIT) for at in range(1, 11)]
    assert assessed(claim(), run(*ten)).answer is Word.CONFIRMED
    assert assessed(claim("never"), run(*ten)).answer is Word.REFUTED
    assert assessed(claim(), run(*ten[:9])).answer is Word.OBSERVED
    assert assessed(claim(), run(*ten, stack=replace(NAMED, cpu=""))).answer is Word.OBSERVED
    late = [replace(one, cell=replace(one.cell, delays=LATE.delays)) for one in ten]
    found = assessed(claim(), run(*late))
    assert found.answer is Word.OBSERVED and "one without delays that shows it" in found.could_change
    assert found.numbers == "swap: observed (10 of 10), only with delays"


def test_ten_plays_of_several_cells_or_on_several_processors_confirm_nothing() -> None:
    wide = claim(ask=[{"of": "swap", "cells": [{"cache": "none", "filesystem": "swap", "any": ["aio", "workload"]}]}])
    five = [result(replace(SWAP, repetition=at), HIT) for at in range(1, 6)]
    other = [result(replace(one.cell, workload="pressure"), HIT) for one in five]
    assert assessed(wide, run(*five, *other)).answer is Word.OBSERVED
    elsewhere = run(*five, stack=replace(NAMED, cpu="another"), name="b-run")
    found = assessed(claim(), run(*five), elsewhere)
    assert found.answer is Word.OBSERVED and "observed (10 of 10)" in found.numbers
    assert "(so far 5)" in found.could_change


def test_weak_clean_inconclusive_and_refused_count_neither_way() -> None:
    weak = result(SWAP, MISS, potency=Potency.WEAK)
    found = assessed(claim("never"), run(weak, result(SWAP, K.INCONCLUSIVE), result(SWAP, K.REFUSED)))
    assert found.answer is Word.NO_ANSWER and found.cells == ()
    assert found.numbers == (
        "swap: asked, without an answer (set aside: 1 CLEAN (weak), 1 without an answer and 1 refused by the stack)"
    )
    assert assessed(claim("never"), run(weak, result(SWAP, MISS))).parts[0].stacks[0].tally.answered == 1
    unplayed = assessed(claim("never"), run(result(SWAP, None)))
    assert unplayed.answer is Word.NOT_ASKED and "names no command ('play')" in unplayed.could_change


def test_split_brain_is_no_divergence_in_flight() -> None:
    split = Alarms(split_brain=SplitBrain(1.0, {}, 900, "b", True))
    assert isinstance(shown(ClaimEvent.DIFFERS, result(SWAP, HIT, alarms=split)), Aside)


def test_claim_that_needs_all_is_not_asked_where_a_part_is_not() -> None:
    other = {"of": "files", "cells": [{"cache": "none", "filesystem": "ext4", "workload": "truncate"}]}
    spec = claim(needs_all=True)
    both = replace(spec, asks=(*spec.asks, *claim(ask=[other]).asks))
    found = assessed(both, run(result(SWAP, HIT)))
    assert found.answer is Word.NOT_ASKED and "what was not asked: files" in found.could_change
    assert assessed(replace(both, needs_all=False), run(result(SWAP, HIT))).answer is Word.OBSERVED
    never = replace(both, asks=(both.asks[0], replace(both.asks[1], says=Says.NEVER)))
    files = replace(SWAP, filesystem=FilesystemKind.EXT4, workload="truncate")
    assert assessed(never, run(result(SWAP, HIT), result(files, MISS))).answer is Word.OBSERVED
    assert assessed(never, run(result(SWAP, HIT), result(files, HIT))).answer is Word.COUNTEREXAMPLE


def test_rates_are_told_by_undelayed_plays_on_hardware_only() -> None:
    plays = [result(replace(SWAP, repetition=at), HIT) for at in range(1, 13)]
    assert assessed(claim("often"), run(*plays)).answer is Word.CONFIRMED
    assert assessed(claim("rarely"), run(*plays)).answer is Word.REFUTED
    assert assessed(claim("often"), run(*plays[:2])).answer is Word.NO_ANSWER
    emulated = assessed(claim("often"), run(*plays, stack=replace(NAMED, accelerator="tcg")))
    assert emulated.answer is Word.NO_ANSWER and "whose timing is none of hardware" in emulated.numbers
    assert "without delays on nodes that are not emulated" in emulated.could_change
    late = [replace(one, cell=replace(one.cell, delays=LATE.delays)) for one in plays]
    assert "12 with delays, which say nothing about how often" in assessed(claim("often"), run(*late)).numbers
    misses = [result(replace(SWAP, repetition=at), MISS) for at in range(1, 41)]
    assert assessed(claim("rarely"), run(*misses)).answer is Word.CONFIRMED
    assert assessed(claim("often"), run(*misses)).answer is Word.REFUTED


KINDS = st.sampled_from([HIT, MISS, K.TRANSIENT, K.INCONCLUSIVE, K.REFUSED, K.CORRUPT, None])
PLAYS = st.lists(st.tuples(KINDS, st.booleans(), st.booleans()), max_size=14)


def made(plays: Sequence[tuple[VerdictKind | None, bool, bool]]) -> list[Result]:
    return [
        result(replace(LATE if late else SWAP, repetition=at), kind, potency=Potency.WEAK if weak else None)
        for at, (kind, late, weak) in enumerate(plays, 1)
    ]


@given(plays=PLAYS, says=st.sampled_from(["happens", "never"]), seed=st.integers())
def test_words_hold_what_they_promise(plays: list[tuple[VerdictKind | None, bool, bool]], says: str, seed: int) -> None:
    results = made(plays)
    found = assessed(claim(says), run(*results))
    hits = sum(one.verdict is not None and one.verdict.differing_blocks > 0 for one in results)
    answered = sum(kind is not None and kind not in (K.INCONCLUSIVE, K.REFUSED) for kind, *_ in plays)
    weak = sum(kind is MISS and weak for kind, _, weak in plays)
    tallies = [one.tally for part in found.parts for one in part.stacks]
    assert sum(one.hits for one in tallies) == hits and sum(one.answered for one in tallies) == answered - weak
    if found.answer in (Word.CONFIRMED, Word.REFUTED):
        assert answered - weak >= 10 and any(kind is HIT and not late for kind, late, _ in plays)
    assert (found.answer in (Word.OBSERVED, Word.CONFIRMED, Word.COUNTEREXAMPLE, Word.REFUTED)) is (hits > 0)
    assert (found.answer is Word.NOT_ASKED) is all(kind is None for kind, *_ in plays)
    assert found.could_change
    shuffled = list(results)
    random.Random(seed).shuffle(shuffled)
    assert assessed(claim(says), run(*shuffled)).answer is found.answer
    control = result(replace(SWAP, control=Control.IN_FLIGHT), HIT)
    assert assessed(claim(says), run(*results, control)) == found


@given(first=PLAYS, second=PLAYS)
def test_another_run_takes_back_no_counterexample(first: list, second: list) -> None:  # type: ignore[type-arg]
    one, other = run(*made(first)), run(*made(second), stack=replace(NAMED, drbd="9.3.3"), name="b-run")
    alone, both = (assessed(claim("never"), *runs) for runs in ([one], [one, other]))
    if alone.answer in (Word.COUNTEREXAMPLE, Word.REFUTED):
        assert both.answer in (Word.COUNTEREXAMPLE, Word.REFUTED)
    for part in both.parts:
        assert all(answer.runs in (("a-run",), ("b-run",)) for answer in part.stacks), "two stacks are never pooled"


# --------------------------------------------------------------------------- events


def moved(**facts: object) -> Result:
    move = Migration(1, "a", "b", MigrationOutcome.COMPLETED, 0.0, 1.0)
    return result(replace(SWAP, migrations=1), HIT, migrations=(move,), **facts)


READ = Readback(100, "a", "b", (Extent(0, 8),), Ownership(allocated=1))
FREE = Readback(100, "a", "b", (Extent(0, 8),), Ownership(free=1))
UP = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate")
DIFFER = Comparison(100, (Extent(0, 8),), 1.0, "x")


@pytest.mark.parametrize(
    ("event", "play", "expected"),
    [
        ("lost", result(SWAP, MISS), "without a canary's records in the evidence"),
        ("lost", result(SWAP, K.CORRUPT, canary=Canary(lost={"fsync": 2})), True),
        ("lost", result(SWAP, MISS, potency=Potency.WEAK, canary=Canary(lost={"fsync": 0})), False),
        ("reread", moved(readback=FREE), True),
        ("reread-allocated", moved(readback=FREE), False),
        ("reread-allocated", moved(readback=READ), True),
        ("misread", moved(readback=READ), True),
        ("misread", moved(readback=FREE), False),
        ("misread", moved(readback=FREE, canary=Canary(memory_wrong=1, memory_checked=5)), True),
        ("misread", moved(), "without a read-back in the evidence"),
        ("misread", result(SWAP, HIT, readback=READ), ""),
        ("died", moved(canary=Canary(survived=False)), True),
        ("died", result(SWAP, HIT, canary=Canary(survived=False)), ""),
        ("split-at-once", result(SWAP, HIT), "without DRBD's alarms in the evidence"),
        ("split-at-once", result(SWAP, MISS, alarms=Alarms("crc32c")), "in which the digest had nothing to notice"),
        ("split-at-once", result(SWAP, HIT, alarms=Alarms("crc32c", failures=(Extent(0, 8),))), False),
        ("split-at-once", result(SWAP, HIT, alarms=Alarms(split_brain=SplitBrain(0.8, {}, 1, "b", True))), True),
        ("split-at-once", result(SWAP, HIT, alarms=Alarms(split_brain=SplitBrain(11.0, {}, 1, "b", True))), False),
        ("split-at-once",
         result(SWAP, HIT, alarms=Alarms(split_brain=SplitBrain(0.8, {}, 1, "b", True, confirmed=False))), False),
        ("silent", result(SWAP, HIT, after=UP), True),
        ("silent", result(SWAP, HIT, after=replace(UP, peer_disk="Inconsistent")), False),
        ("silent", result(SWAP, HIT, after=replace(UP, connection="StandAlone")), False),
        ("silent", result(SWAP, HIT), "without DRBD's state at the end in the evidence"),
        ("silent", result(SWAP, MISS, after=UP), ""),
        ("silent", result(SWAP, K.INCONCLUSIVE, after=UP), ""),
        ("only-verify", result(SWAP, HIT, after=UP), "without a complete verify in the evidence"),
        ("digest-noticed", result(SWAP, HIT), "without a digest's alarms in the evidence"),
        ("digest-noticed", result(SWAP, HIT, alarms=Alarms("crc32c", mismatches=(Extent(0, 8),))), True),
        ("digest-noticed", result(SWAP, HIT, alarms=Alarms("crc32c", failures=(Extent(0, 8),))), False),
        ("digest-noticed", result(SWAP, HIT, alarms=Alarms("crc32c"), comparison=DIFFER), False),
        ("repaired-by-reconnect", result(SWAP, HIT, repair=Repair("disconnect + connect", 1.0, 0)), True),
        ("repaired-by-reconnect", result(SWAP, HIT, repair=Repair("disconnect + connect", 1.0, 3)), False),
        ("repaired-by-reconnect",
         result(SWAP, HIT, repair=Repair("disconnect + connect, then invalidate-remote", 1.0, 0)), False),
        ("repaired-by-reconnect", result(SWAP, HIT, repair=Repair("invalidate-remote", 1.0, 0)), ""),
        ("slow", result(SWAP, MISS), "without fio's figures in the evidence"),
    ],
)  # fmt: skip
def test_event_of_a_play(event: str, play: Result, expected: bool | str) -> None:
    seen = shown(ClaimEvent(event), play)
    assert (seen if isinstance(seen, bool) else (seen.why)) == expected or (
        isinstance(seen, Aside) and expected and seen.why.startswith(str(expected))
    )


@pytest.mark.parametrize("event", ClaimEvent)
def test_every_event_is_judged_from_any_evidence(event: ClaimEvent) -> None:
    assert isinstance(shown(event, result(SWAP, MISS)), bool | Aside)


# --------------------------------------------------------------------------- costs


def cost(cache: CacheMode, iops: float, repetition: int, *, lab: str = "l1") -> Result:
    """A play of fio-cost on a disk whose flushes cost something."""
    cell = Cell("fio-cost", cache=cache, delays=DelayProfile(flush_delay_ms=8), repetition=repetition)
    figures = FioFigures("4k random writes", 100, iops, iops * 4096, 1000, 2000)
    return result(cell, MISS, potency=Potency.WEAK, lab=lab, work=Work(1.0, performance=FioPerformance((figures,))))


def slow() -> ClaimSpec:
    ask = {"of": "slow", "event": "slow", "cells": [{"cache": "writethrough", "flush_delay_ms": 8}]}
    return claim(ask=[ask])


def pairs(number: int, *ratios: float) -> list[Result]:
    """Pairs with one of the ratios each, in turn."""
    both = [(cost(CacheMode.NONE, 1000.0, at), cost(CacheMode.WRITETHROUGH, 1000.0 * ratios[at % len(ratios)], at))
            for at in range(1, number + 1)]  # fmt: skip
    return [one for pair in both for one in pair]


def test_slow_is_told_by_the_interval_of_a_ratio() -> None:
    found = assessed(slow(), run(*pairs(5, 0.02, 0.03)))
    assert found.answer is Word.OBSERVED and "of those with cache=none" in found.numbers
    assert found.cells == ("writethrough-fio-cost-flush8ms",)
    assert assessed(slow(), run(*pairs(12, 0.02, 0.03))).answer is Word.CONFIRMED
    assert assessed(slow(), run(*pairs(12, 0.02, 0.03), stack=replace(NAMED, cpu=""))).answer is Word.OBSERVED
    assert assessed(slow(), run(*pairs(5, 0.5, 0.6))).answer is Word.NOT_OBSERVED
    assert assessed(slow(), run(*pairs(5, 0.05, 0.3))).answer is Word.NO_ANSWER


def test_slow_without_pairs_is_not_decided() -> None:
    alone = assessed(slow(), run(cost(CacheMode.WRITETHROUGH, 1.0, 1)))
    assert alone.answer is Word.NO_ANSWER and "1 without pairs with cache=none" in alone.numbers
    plain = Cell("fio-cost", cache=CacheMode.WRITETHROUGH, delays=DelayProfile(flush_delay_ms=8))
    unmeasured = assessed(slow(), run(result(plain, MISS)))
    assert unmeasured.answer is Word.NOT_ASKED and "without fio's figures in the evidence" in unmeasured.numbers


# --------------------------------------------------------------------------- several stacks


def across(which: str = "drbd") -> ClaimSpec:
    ask = {"of": "another", "across": which, "cells": [{"cache": "none", "filesystem": "swap"}]}
    return claim(ask=[ask])


def test_another_version_is_not_asked_by_one_stack() -> None:
    found = assessed(across(), run(result(SWAP, HIT)))
    assert found.answer is Word.NOT_ASKED and "all of it was played with DRBD 8.4.11" in found.numbers
    unknown = run(result(SWAP, HIT), stack=replace(NAMED, cpu=""), name="b-run")
    assert assessed(across("hardware"), run(result(SWAP, HIT)), unknown).answer is Word.NOT_ASKED


def test_another_version_is_asked_in_the_same_cells_only() -> None:
    newer = replace(NAMED, drbd="9.3.3")
    same = run(result(SWAP, HIT), stack=newer, name="b-run")
    found = assessed(across(), run(result(SWAP, HIT)), same)
    assert (found.answer, found.numbers) == (
        Word.OBSERVED, "another: 8.4.11 and 9.3.3: seen once, without any delay"
    )  # fmt: skip
    assert found.parts[0].stacks[0].runs == ("b-run",)
    cured = assessed(across(), run(result(SWAP, HIT)), run(result(SWAP, MISS), stack=newer))
    assert cured.answer is Word.NOT_OBSERVED
    other = run(result(replace(SWAP, workload="pressure"), HIT), stack=newer)
    assert "no cell was played with two of them" in assessed(across(), run(result(SWAP, HIT)), other).numbers
    assert assessed(across(), run(result(SWAP, MISS)), run(result(SWAP, MISS), stack=newer)).answer is Word.NO_ANSWER


def test_stacks_are_named_by_what_tells_them_apart() -> None:
    newer = StackKey.of(replace(NAMED, drbd="9.3.3"))
    names = short_names([StackKey.of(NAMED), newer, newer])
    assert list(names.values()) == ["DRBD 8.4.11", "DRBD 9.3.3"]
    assert list(short_names([newer]).values()) == [""]
    assert sorted(["9.10.1", "9.2.0", "8.4.11"], key=by_version) == ["8.4.11", "9.2.0", "9.10.1"]


# --------------------------------------------------------------------------- the command


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The exit code of ``drbd-harness claims``, what it printed, and its errors."""
    monkey = pytest.MonkeyPatch()
    monkey.setattr("sys.argv", ["drbd-harness", "claims", *map(str, arguments)])
    with monkey.context(), pytest.raises(SystemExit) as ended:
        cli.main()
    monkey.undo()
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


# By runs that are never changed: two generations of DRBD, of an older schema.
EXPECTED = {
    "C1": Word.OBSERVED, "C2": Word.COUNTEREXAMPLE, "C3": Word.NOT_OBSERVED, "C4": Word.NOT_ASKED, "C5": Word.NOT_ASKED,
    "C6": Word.COUNTEREXAMPLE, "C7": Word.OBSERVED, "C8": Word.COUNTEREXAMPLE, "C9": Word.OBSERVED,
    "C10": Word.NOT_ASKED, "C11": Word.OBSERVED, "C12": Word.OBSERVED, "C13": Word.NOT_ASKED, "C14": Word.OBSERVED,
    "W1": Word.OBSERVED, "W2": Word.NOT_OBSERVED, "L1": Word.COUNTEREXAMPLE, "S1": Word.NOT_ASKED,
    "S2": Word.NOT_ASKED, "S3": Word.OBSERVED, "P1": Word.NOT_ASKED,
}  # fmt: skip
STORED = ("full-drbd-8.4", "disturbances-drbd-8.4", "alarms-drbd-9.3.3", "smoke-drbd-9.3.3", "quick-drbd-8.4")


def test_claims_of_stored_runs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, *STORED, "--runs", GOLDEN, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {one["claim"]: one["answer"] for one in found["claims"]} == {
        one: word.value for one, word in EXPECTED.items()
    }
    assert found["runs"] == list(STORED) and len(found["stacks"]) == 2
    nine = next(one for one in found["claims"] if one["claim"] == "C9")["parts"][0]["stacks"]
    assert [(one["stack"], one["runs"], one["hits"]) for one in nine][-1] == ("DRBD 9.3.3", ["alarms-drbd-9.3.3"], 1)


def test_claims_in_words_and_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, GOLDEN / "quick-drbd-8.4")
    assert code == 0 and "C2  cache=directsync is reliable with DRBD: counterexample found" in " ".join(out.split("\n"))
    code, out, _ = command(capsys, GOLDEN / "quick-drbd-8.4", "--markdown")
    assert code == 0 and out.startswith("|  | claim | so far | numbers | what could change it |\n| --- |")
    assert command(capsys, GOLDEN / "quick-drbd-8.4", "--markdown", "--json")[0] == 4


def test_run_that_is_not_there_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "quik-drbd-8.4", "--runs", GOLDEN)
    assert (code, out) == (4, "") and "did you mean 'quick-drbd-8.4'?" in err


def test_run_given_twice_is_not_counted_twice(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "quick-drbd-8.4", tmp_path / "copy")
    code, _, err = command(capsys, GOLDEN / "quick-drbd-8.4", tmp_path / "copy")
    assert code == 4 and "would be counted twice; leave one of them out" in err


def test_damaged_evidence_is_said_and_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "quick-drbd-8.4", tmp_path / "run")
    damaged = next((tmp_path / "run" / "cells" / "none-swap-reclaim-link20ms").rglob("evidence.json*"))
    damaged.write_bytes(b"{")
    code, out, err = command(capsys, tmp_path / "run", "--json")
    assert code == 0 and "is damaged: it is not whole JSON; it counts as missing" in err
    before = json.loads(command(capsys, GOLDEN / "quick-drbd-8.4", "--json")[1])
    asked = [one["claims"][0]["parts"][0]["stacks"] for one in (before, json.loads(out))]
    assert [some[0]["answered"] if some else 0 for some in asked] == [1, 0]


def test_runs_without_evidence_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "quick-drbd-8.4", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "cells")
    assert command(capsys, tmp_path / "run") == (3, "", "drbd-harness: no cell of run has evidence\n")


@pytest.mark.parametrize("run_id", sorted(path.parent.name for path in GOLDEN.glob("*/run.json")))
def test_every_stored_run_has_claims(run_id: str) -> None:
    store = Store.open(GOLDEN, run_id)
    found = assess(own_claims(), [PlayedRun(run_id, store.run().stack, tuple(judged_results(store)))])
    assert {one.claim for one in found} == {one.id for one in own_claims()}
    assert next(one for one in found if one.claim == "C10").answer is Word.NOT_ASKED, "one stack cannot say"
