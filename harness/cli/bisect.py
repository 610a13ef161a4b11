"""The commands that look for the first bad version: one step for ``git bisect run``, or a whole list of stacks."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table

from harness.cli.options import RunsOption, console
from harness.errors import NothingRanError, UsageError
from harness.model import VerdictKind

if TYPE_CHECKING:
    from harness.cli.bisect_plays import Played
    from harness.judgement.bisect import Rate

#: Without a rate, and at both ends of a list.
PLAYS = 5

CellOption = Annotated[str, typer.Option("-k", metavar="CELL", help="the cell: its id, or what no other id has in it")]
MatrixOption = Annotated[str, typer.Option(help="the matrix that has the cell, or a TOML file")]
BadIsOption = Annotated[
    str | None, typer.Option("--bad-is", metavar="VERDICT", help="what is bad: DIVERGED (or worse), CLEAN, REFUSED ...")
]
PlaysOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="play so often before it is not there")]


class GitAnswer(SystemExit):
    """What ``git bisect run`` reads: 0 good, 1 bad, 125 cannot tell, from 128 on it stops."""


def for_git_bisect(command: Callable[[], None]) -> NoReturn:
    """Run ``command``; whatever is no answer ends with 128 and more, so that git takes no trouble for one."""
    try:
        command()
    except GitAnswer:
        raise
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
        raise SystemExit(128 + code if code else 0) from None
    except BaseException:  # noqa: BLE001 - else git would take it for a bad version
        traceback.print_exc()
        raise SystemExit(129) from None
    raise SystemExit(129)


def bisect_step(
    stack: Annotated[str, typer.Option(metavar="FILE", help="the stack that your build fills, a TOML file or a name")],
    cell: CellOption,
    matrix: MatrixOption = "quick",
    rate: Annotated[
        str | None, typer.Option(metavar="K/N", help="how often the bad end fails: K of N plays, or a run that counted")
    ] = None,
    plays: PlaysOption = None,
    bad_is: BadIsOption = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """One step of 'git bisect run': 0 good, 1 bad, 125 cannot tell, 128 and more where the machine is to blame."""
    from harness.cli.bisect_plays import Player, cell_of, counted, own_process, rate_of, require_no_lab
    from harness.judgement.bisect import Answer, missed_rate

    if rate is not None and plays:
        raise UsageError("--rate says how often to play; leave --plays out")
    asked = cell_of(matrix, cell, _bad(bad_is) or VerdictKind.DIVERGED)
    wanted = rate_of(rate, runs, asked).plays_wanted if rate is not None else plays or PLAYS
    _require_readable(stack)
    require_no_lab()
    try:
        played = Player(asked, runs, own_process, reuse=False).play(stack, wanted)
    except UsageError as error:
        # Of a file that is there and right: what it names is not, or does not fit. So the build failed.
        print(f"cannot tell: {error}")
        raise GitAnswer(125) from None
    said = f"{asked.cell} on {_versions(played)}: {counted(played)}"
    if played.answer is Answer.UNKNOWN:
        said += f"; {played.why}"
    elif not played.counts.telling:
        said += f"; a rate of {missed_rate(played.counts.answered):.0%} or more would have shown (95 %)"
    print(f"{played.answer}: {said}")
    raise GitAnswer({Answer.GOOD: 0, Answer.BAD: 1, Answer.UNKNOWN: 125}[played.answer])


def bisect(
    versions: Annotated[str, typer.Option(metavar="A,B,...", help="stacks from old to new: names, or TOML files")],
    cell: CellOption,
    matrix: MatrixOption = "quick",
    plays: PlaysOption = None,
    bad_is: BadIsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for a program: docs/bisect.md")] = False,
    runs: RunsOption = Path("runs"),
) -> None:
    """Which of several stacks is the first bad one; what is played already is not played again.

    Ends with 0 where it is found, 2 where only a range is, or an end cannot tell, 3 where both ends are the same.
    """
    from harness.cli.bisect_plays import cell_of, own_process, require_no_lab
    from harness.cli.bisect_search import Search
    from harness.config.run_specs import stack_from_options
    from harness.images import check_stack

    stacks = [one.strip() for one in versions.split(",") if one.strip()]
    if len(stacks) < 2 or len(set(stacks)) < len(stacks):
        raise UsageError("--versions names two stacks or more, each once, from old to new, with commas between them")
    for stack in stacks:
        # Now, not hours later.
        check_stack(stack_from_options({"stack": stack}))
    asked, bad = cell_of(matrix, cell, VerdictKind.DIVERGED), _bad(bad_is)
    require_no_lab()
    search = Search(asked, stacks, runs, own_process, plays or PLAYS, bad)
    found = search.run()
    if as_json:
        print(json.dumps(search.as_json(found), indent=1))
    else:
        _print(search.played, search.rate, search.wanted)
        print(search.sentence(found))
    if found is None and search.same_ends:
        raise NothingRanError("the newest and the oldest stack give the same answer; there is nothing to look for")
    raise typer.Exit(0 if found is not None and not found.unknown else 2)


def _bad(text: str | None) -> VerdictKind | None:
    from harness.config.sentences import hint
    from harness.judgement.bisect import BAD_KINDS

    if text is None:
        return None
    if text not in [*BAD_KINDS]:
        raise UsageError(f"--bad-is is '{text}'{hint(text, BAD_KINDS)}")
    return VerdictKind(text)


def _require_readable(stack: str) -> None:
    """:class:`~harness.errors.UsageError` where there is no such stack, or its file is wrong whatever was built."""
    from harness.config.stack_file import require_well_formed
    from harness.util import resources

    require_well_formed(stack, resources.stacks())


def _versions(played: Played) -> str:
    ran = played.ran
    known = [(ran.kernel, "kernel"), (ran.drbd, "DRBD"), (ran.qemu, "QEMU")]
    return ", ".join(f"{name} {value}" for value, name in known if value) or played.stack


def _print(played: dict[str, Played], rate: Rate | None, wanted: int) -> None:
    from harness.cli.bisect_plays import counted

    if rate is not None:
        print(f"it comes in {rate} plays where it is; {wanted} plays without it say that it is not")
    table = Table("stack", "kernel", "DRBD", "QEMU", "plays", "answer")
    for one in played.values():
        answer = f"{one.answer}: {one.why}" if one.why and one.answer == "cannot tell" else str(one.answer)
        table.add_row(one.stack, one.ran.kernel, one.ran.drbd, one.ran.qemu, counted(one), answer)
    console.print(table)
