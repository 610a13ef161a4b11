"""The tables of figures in README and docs, made from the runs that are kept beside them; run by ``ci/figures``.

A page has ``<!-- figures: NAME -->`` and ``<!-- /figures -->`` around each table; ``docs/figures.toml`` says what it
shows.  Runs are kept in ``docs/evidence``; the golden corpus of the selftests is looked through too.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from harness.config.claims_file import load_claims
from harness.config.sentences import validated
from harness.config.toml_text import parsed
from harness.errors import HarnessError, UsageError
from harness.judgement.claim_words import ENOUGH
from harness.judgement.claims import assess, stack_letters
from harness.judgement.stacks import PlayedRun, by_version, plain_kernel
from harness.judgement.stats import rate_interval
from harness.model.claim import ClaimSpec
from harness.report.claims import claims_table
from harness.report.figure_apart import told_apart
from harness.report.figure_measures import MEASURES, Play, answered
from harness.report.figure_remedies import cost_rows, effect_rows
from harness.report.figure_spec import KEYS, FigureTable, Selection, in_order
from harness.report.formatting import count, joined
from harness.store import Store, judged_results, keep_small, run_ids
from harness.util.atomic_file import write_atomic
from harness.util.read_file import read_file
from harness.util.script import ScriptParser, run_script

SPEC = Path("docs/figures.toml")
EVIDENCE = Path("docs/evidence")
CLAIMS = Path("testcases/claims.toml")
#: Where a table may take its runs from, below the checkout.
ROOTS = (EVIDENCE, Path("testcases/selftest/golden"))
_MARKED = re.compile(r"(<!-- figures: ([\w-]+) -->\n)(.*?)(<!-- /figures -->)", re.DOTALL)
_ANY_MARKER = re.compile(r"<!-- /?figures\b")


def main(arguments: Sequence[str] | None = None) -> int:
    """0, 1 where a table is not what the evidence gives (--check), or 4 with a sentence."""
    parser = ScriptParser(prog="ci/figures", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="*", help="a stored run (id or folder) to be kept in docs/evidence first")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where stored runs are (default: runs)")
    parser.add_argument("--check", action="store_true", help="write nothing: say which table is not what it should be")
    parser.add_argument("--checkout", type=Path, default=Path(), help="the checkout with README.md and docs")
    try:
        asked = parser.parse_args(arguments)
        if asked.check and asked.run:
            raise UsageError("--check keeps no run")
        for run in asked.run:
            print(keep(asked.checkout, Store.open(asked.runs, run)))
        wrong = list(differences(asked.checkout)) if asked.check else write(asked.checkout)
    except HarnessError as error:
        print(f"ci/figures: {error}", file=sys.stderr)
        return error.exit_code
    for sentence in wrong:
        print(sentence)
    return 1 if asked.check and wrong else 0


def keep(checkout: Path, store: Store) -> str:
    """Keep a run as ``MATRIX-ID``, and say where and how large; one that went on since it was kept replaces that.

    :class:`~harness.errors.UsageError` where the run has not ended, or what is kept has evidence that it has not.
    """
    run = store.run()
    if not run.finished_at:
        raise UsageError(
            f"{store.directory} has not ended: it is being played, or was killed; keep it once it has "
            f"(drbd-harness run --resume {store.directory} goes on with it)"
        )
    name = f"{Path(run.matrix).stem or 'own'}-{run.id}"
    if name in run_ids(checkout / EVIDENCE):
        before = Store.open(checkout / EVIDENCE, name)
        there = {str(where.relative_to(store.directory)): one for where, one in store.attempts()}
        if any(there.get(str(where.relative_to(before.directory))) != one for where, one in before.attempts()):
            raise UsageError(f"{before.directory} has evidence that {store.directory} has not")
        shutil.rmtree(before.directory)
    small = keep_small(store, checkout / EVIDENCE, name)
    size = sum(path.stat().st_size for path in small.directory.rglob("*") if path.is_file())
    return f"{small.directory}: {size / 1024:.0f} KiB"


# --------------------------------------------------------------------------- pages


def pages(checkout: Path) -> tuple[Path, ...]:
    """What may have tables of figures."""
    return (checkout / "README.md", *sorted((checkout / "docs").glob("*.md")))


def write(checkout: Path) -> list[str]:
    """Write every table again; a sentence for each page that changed."""
    changed = []
    for page, before, after in _written(checkout):
        if before != after:
            write_atomic(page, after.encode())
            changed.append(f"{page.relative_to(checkout)}: written")
    return changed


def differences(checkout: Path) -> Iterator[str]:
    """A sentence for each table that is not what the evidence gives."""
    for page, before, after in _written(checkout):
        for there, wanted in zip(_MARKED.finditer(before), _MARKED.finditer(after), strict=True):
            if there[0] != wanted[0]:
                name = page.relative_to(checkout)
                yield f"{name}: the table '{there[2]}' is not what its runs give; ./ci/figures writes it again"


def _written(checkout: Path) -> Iterator[tuple[Path, str, str]]:
    tables, kept, used = read_spec(checkout), KeptRuns(checkout), set()
    for page in pages(checkout):
        text = page.read_text()
        if len(_ANY_MARKER.findall(text)) != 2 * len(_MARKED.findall(text)):
            raise UsageError(f"{page.relative_to(checkout)}: a marker of a table is alone, or is not written like one")

        def table(match: re.Match[str]) -> str:
            if match[2] not in tables:
                raise UsageError(f"{SPEC} has no table '{match[2]}', which {page.relative_to(checkout)} shows")  # noqa: B023
            used.add(match[2])
            return f"{match[1]}{markdown(match[2], tables[match[2]], kept)}{match[4]}"

        yield page, text, _MARKED.sub(table, text)
    if unused := sorted(set(tables) - used):
        raise UsageError(f"{SPEC}: no page shows the table '{unused[0]}'")


def read_spec(checkout: Path) -> Mapping[str, FigureTable]:
    """The tables by name; :class:`~harness.errors.UsageError` with one sentence for what is wrong."""
    path = checkout / SPEC
    try:
        written = parsed(read_file(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{SPEC} cannot be read: it is not valid TOML: {error}") from error
    return {name: validated(FigureTable, table, source=str(SPEC), place=f"[{name}]") for name, table in written.items()}


# --------------------------------------------------------------------------- runs


class KeptRuns:
    """The runs that tables may be made from."""

    def __init__(self, checkout: Path) -> None:
        # By name, so that the tables stay as they are whichever run is the newest.
        self.where = {name: checkout / root for root in reversed(ROOTS) for name in sorted(run_ids(checkout / root))}
        self._checkout = checkout
        self._plays = cache(self._read)

    def plays(self, selection: Selection, table: str) -> list[Play]:
        """What ``table`` shows, by the names of the runs.

        :class:`~harness.errors.UsageError` where a run is not there.
        """
        names = self._names(selection, table)
        every = [play for name in names for play in self._plays(name)]
        chosen = [play for play in every if _chosen(play, selection)]
        if len(versions := {_told(play, selection) for play in chosen}) > 1:
            unlike = joined(sorted(" on ".join(filter(None, one)) for one in versions))
            raise UsageError(f"{SPEC}: the table '{table}' throws together what was played with {unlike}")
        return chosen

    def runs(self, selection: Selection, table: str) -> list[PlayedRun]:
        """The runs that ``table`` is made from, with all that was played in them."""
        plays = {name: self._plays(name) for name in self._names(selection, table)}
        return [
            PlayedRun(name, some[0].stack, tuple(one.result for one in some)) for name, some in plays.items() if some
        ]

    def claims(self) -> tuple[ClaimSpec, ...]:
        """The claims of the checkout."""
        return load_claims(self._checkout / CLAIMS)

    def _names(self, selection: Selection, table: str) -> dict[str, None]:
        names: dict[str, None] = {}
        for pattern in selection.runs:
            found = fnmatch.filter(self.where, pattern)
            if not found and "*" not in pattern:
                there = joined((str(root) for root in ROOTS), "or")
                raise UsageError(f"{SPEC}: the table '{table}' is made from '{pattern}', and no such run is in {there}")
            names |= dict.fromkeys(found)
        return names

    def root(self, name: str) -> Path:
        """In which of the places a run is."""
        return self.where[name].relative_to(self._checkout)

    def _read(self, name: str) -> tuple[Play, ...]:
        store = Store.open(self.where[name], name)
        if damaged := store.damaged():
            raise UsageError(damaged[0])
        run = store.run()
        return tuple(Play(result, name, run.stack, run.stack_name) for result in judged_results(store))


def _chosen(play: Play, selection: Selection) -> bool:
    cell = play.result.cell
    if play.kind is None or cell.control is not None or cell.sabotage is not selection.sabotage:
        return False
    if not play.stack.drbd.startswith(selection.drbd):
        return False
    if not any(fnmatch.fnmatch(play.stack_name, name) for name in selection.stacks):
        return False
    return all(KEYS[key].word(play) in words for key, words in selection.where.items())


def _told(play: Play, selection: Selection) -> tuple[str, str]:
    """What must not be thrown together in one table; DRBD's version may where each row says it."""
    return ("" if selection.tells_versions else f"DRBD {play.stack.drbd}", play.stack.accelerator)


# --------------------------------------------------------------------------- tables


def markdown(name: str, table: FigureTable, kept: KeptRuns) -> str:
    """The table as it stands between its markers, and what it was made from below it."""
    if table.bounds:
        return _table(["plays without a hit", "the rate may still be"], [_bound_row(most) for most in table.bounds])
    if table.claims:
        runs = kept.runs(table, name)
        plays = [Play(one, run.name, run.stack) for run in runs for one in run.results if one.verdict is not None]
        where = " ".join(dict.fromkeys(f"{kept.root(run.name)}/*/" for run in runs))
        table_of_claims = claims_table(assess(kept.claims(), runs))
        legend = "".join(f"- {line}\n" for line in stack_letters(runs)) + "\n"
        return f"{table_of_claims}\n{legend.lstrip()}*{_stacks(plays)} From: `drbd-harness claims {where}`.*\n"
    plays = kept.plays(table, name)
    if not plays and not table.command:
        raise UsageError(f"{SPEC}: no play of its runs is one that the table '{name}' asks for")
    body = _remedies_table(table, plays) or (_plays_table(name, table, plays) if plays else "")
    from_what = f"{_times(plays)} {_stacks(plays)} {_sources(plays, kept)}"
    if not plays:
        from_what = f"Not asked yet by a run whose evidence is kept: `{table.command}`."
    apart = "".join(f"*{sentence}*\n\n" for sentence in told_apart(table, plays))
    return f"{body}{chr(10) if body else ''}{apart}*{from_what}*\n"


def _remedies_table(table: FigureTable, plays: Sequence[Play]) -> str:
    """Every remedy, also those that no play asks; empty where the table is of something else."""
    results = [play.result for play in plays]
    if table.costs:
        head, *rows = cost_rows(results)
    elif table.remedies:
        head, *rows = effect_rows(results, table.remedies)
    else:
        return ""
    return _table([table.names.get(one, one) for one in head], rows)


def _plays_table(name: str, table: FigureTable, plays: Sequence[Play]) -> str:
    groups: dict[tuple[str, ...], list[Play]] = {}
    for play in sorted(plays, key=lambda one: [in_order(key, one) for key in table.rows]):
        groups.setdefault(tuple(KEYS[key].shown(play) for key in table.rows), []).append(play)
    named = table.names

    def shown(text: str) -> str:
        return named.get(text, text)

    head = [shown(KEYS[key].heading) for key in table.rows]
    if not table.across:
        head += [shown(MEASURES[one].heading) for one in table.show]
        for some in groups.values():
            _one_cell(name, some)
        rows = [[*map(shown, key), *(MEASURES[one].text(some) for one in table.show)] for key, some in groups.items()]
        return _table(head, rows)
    across = KEYS[table.across].shown
    columns = dict.fromkeys(across(play) for play in plays)
    rows = []
    for key, some in groups.items():
        places = [[play for play in some if across(play) == column] for column in columns]
        rows.append([*map(shown, key), *(_place(name, table, place) for place in places)])
    return _table([*head, *map(shown, columns)], rows)


def _one_cell(name: str, plays: Sequence[Play]) -> None:
    """Repetitions are plays of one cell: :class:`~harness.errors.UsageError` where these are of several."""
    if len(cells := sorted({play.result.cell.id for play in plays})) > 1:
        raise UsageError(
            f"{SPEC}: the table '{name}' throws together plays of {joined(cells)};"
            " 'rows' or 'across' have to name what tells them apart, or 'where' what is meant"
        )


def _place(name: str, table: FigureTable, plays: Sequence[Play]) -> str:
    _one_cell(name, plays)
    return "; ".join(text for one in table.show if (text := MEASURES[one].text(plays)))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _bound_row(plays: int) -> list[str]:
    found = rate_interval(0, plays)
    assert found is not None
    return [f"0 of {count(plays)}", f"up to {found.high * 100:.2g} %"]


def _sources(plays: Sequence[Play], kept: KeptRuns) -> str:
    """The commands that print the verdicts of the runs again."""
    names = sorted({play.run for play in plays})
    parts = []
    for root in ROOTS:
        here = [name for name in names if kept.root(name) == root]
        if here:
            which = here[0] if len(here) == 1 else "RUN"
            listed = f" with {joined((f'`{name}`' for name in here), 'or')}" if len(here) > 1 else ""
            parts.append(f"`drbd-harness judge {which} --runs {root}`{listed}")
    return f"From: {'; '.join(parts)}."


def _times(plays: Sequence[Play]) -> str:
    numbers: dict[tuple[str, str, str], int] = {}
    for play in answered(plays):
        where = (play.result.cell.id, play.stack_name, play.stack.drbd)
        numbers[where] = numbers.get(where, 0) + 1
    if not numbers:
        return "No play has an answer."
    least, most = min(numbers.values()), max(numbers.values())
    if most == 1:
        return "Each cell was played once (n = 1)."
    to = "or" if most - least == 1 else "to"
    spread = f"{least} times" if least == most else f"{least} {to} {most} times"
    return f"Each cell was played {spread}{'' if least >= ENOUGH else ' (n in the table)'}."


def _stacks(plays: Sequence[Play]) -> str:
    """What they were played with, as a sentence."""
    stacks = list(dict.fromkeys(play.stack for play in plays))

    def each(name: str) -> str:
        found = {plain_kernel(version) for stack in stacks if (version := str(getattr(stack, name)))}
        return joined(sorted(found, key=by_version))

    known = joined(dict.fromkeys(stack.cpu for stack in stacks if stack.cpu))
    on = f" on {known}" if known else ""
    nodes = f"nodes with hardware KVM{on}"
    if stacks and all(stack.accelerator == "hardware" for stack in stacks):
        nodes = f"real machines{on}"
    elif any(stack.accelerator != "kvm" for stack in stacks):
        nodes = f"nodes under QEMU's TCG with emulated SVM{on}, not representative in timing"
    return f"Linux {each('kernel')}, DRBD {each('drbd')}, QEMU {each('qemu')}; {nodes}."


if __name__ == "__main__":
    run_script("ci/figures", main)
