"""README and docs say nothing of the program that is not so: commands, options, keys, fixtures, exit codes, links."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from harness.cli.main import app
from harness.config.matrix import load
from harness.config.matrix import names as matrix_names
from harness.config.matrix_entry import INTEGRITY, Axes, CellsEntry, ExpectEntry, MatrixFile
from harness.errors import HarnessError, NothingRanError, UsageError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import Offers
from harness.fixtures import __doc__ as named_fixtures
from harness.model import (
    AioMode,
    CacheMode,
    ClientKind,
    Control,
    Crash,
    DetectZeroes,
    Discard,
    DiskBus,
    Fault,
    FilesystemKind,
    Layout,
    Mitigation,
    Preset,
    Protocol,
    Sabotage,
    SwapOn,
    VerdictKind,
    aliases,
)
from harness.pytest_plugin import fixtures, options
from harness.util import resources
from harness.workloads import WORKLOADS

CHECKOUT = Path(__file__).parents[2]
README = CHECKOUT / "README.md"
DOCS = sorted((CHECKOUT / "docs").glob("*.md"))
PAGES = (README, CHECKOUT / "CONTRIBUTING.md", *DOCS)
AXES = (
    AioMode, CacheMode, ClientKind, Control, Crash, DetectZeroes, Discard, DiskBus, Fault, FilesystemKind, Layout,
    Mitigation, Preset, Protocol, Sabotage, SwapOn,
)  # fmt: skip
# Where the options of a script are: in itself, or in the module that it starts.
SCRIPTS = {
    "quickstart": ("ci/quickstart",),
    "test": ("ci/test",),
    "bench": ("harness/report/bench.py",),
    "bench-witness": ("ci/lib/bench_witness.py",),
    "bench-digests": ("ci/lib/bench_digests.py",),
    "figures": ("harness/report/figures.py",),
    "costs": ("harness/report/costs.py",),
    "example-report": ("ci/example-report",),
    "controller-machine": ("ci/controller-machine",),
    "foreign-machine": ("ci/foreign-machine",),
    "probe-flush": ("harness/doctor/flush_probe.py",),
    "probe-migration": ("harness/doctor/migration_probe.py",),
}
# Options of pytest and of its plugins that the docs name.
OF_PYTEST = {"--collect-only", "--dist", "--junitxml", "--html"}
# Those of package managers that safety.md names.
OF_PACKAGE_MANAGERS = {"--allowerasing", "--assumeno", "--noconfirm", "--non-interactive"}
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def spans(page: Path) -> Iterator[str]:
    """What stands as code in ``page``: the lines of its blocks without their comments, and what is in backticks."""
    text = page.read_text()
    for block in re.findall(r"^(?:> )?```\w*\n(.*?)^(?:> )?```", text, re.MULTILINE | re.DOTALL):
        yield from (line.partition(" #")[0] for line in re.sub(r"\\\n>? *", "", block).splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^(> )?```.*?^(> )?```", "", text, flags=re.MULTILINE | re.DOTALL))


def cell_texts(page: Path, header: str) -> Iterator[list[str]]:
    """The rows of each table of ``page`` whose first column is called ``header``."""
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(f"| {header} |") and lines[number + 1].startswith("| ---"):
            for row in lines[number + 2 :]:
                if not row.startswith("|"):
                    break
                yield [cell.strip() for cell in row.strip("|").split(" |")]


def ticked(cell: str) -> list[str]:
    """What is in backticks in a cell of a table."""
    return re.findall(r"`([^`]+)`", cell)


def command_of(words: list[str]) -> click.Command:
    """The command that ``words`` behind ``drbd-harness`` begin with; fails where there is none."""
    command: click.Command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command '{words[0]}'"
        command = command.commands[words.pop(0)]
    return command


def options_of(command: click.Command) -> set[str]:
    """All options of a command, and --help."""
    return {"--help", *(opt for param in command.params for opt in (*param.opts, *param.secondary_opts))}


def options_of_script(name: str) -> set[str]:
    """All options that a script of ``ci/`` knows."""
    assert name in SCRIPTS, f"there is no ci/{name}"
    return {"--help", *(one for file in SCRIPTS[name] for one in _OPTION.findall((CHECKOUT / file).read_text()))}


class _Group:
    """As much of pytest's parser as the options need."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def getgroup(self, *_: str) -> _Group:
        return self

    def addoption(self, name: str, **_: object) -> None:
        self.names.add(name)


def options_of_the_plugin() -> set[str]:
    """All ``--drbd-...`` options."""
    group = _Group()
    options.pytest_addoption(group)  # type: ignore[arg-type]
    return group.names


def every_option() -> set[str]:
    """What ``drbd-harness``, its scripts, the plugin and pytest know."""

    def below(command: click.Command) -> set[str]:
        return options_of(command).union(*(below(one) for one in getattr(command, "commands", {}).values()))

    scripts = (options_of_script(name) for name in SCRIPTS)
    return (
        below(typer.main.get_command(app))
        | options_of_the_plugin()
        | OF_PYTEST
        | OF_PACKAGE_MANAGERS
        | set().union(*scripts)
    )


def test_readme_has_at_most_200_lines() -> None:
    assert len(README.read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)\s]*))?\)", page.read_text()):
        if "://" not in target:
            there = (page.parent / target) if target else page
            assert there.exists(), f"{page.name}: {target}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}, anchor


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", README.read_text()))
    assert linked == {page.name for page in DOCS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_of_a_page_exist(page: Path) -> None:
    for span in spans(page):
        found = set(_OPTION.findall(span))
        if match := re.search(r"\bdrbd-harness ((?!is\b)[a-z-].*)", span):
            words = shlex.split(match[1].split(" > ")[0])
            command = command_of(words)
            assert not (wrong := found - options_of(command)), f"{span}: {wrong}"
        elif match := re.search(r"(?:^|/)ci/([a-z-]+)(?: |$)", span):
            assert not (wrong := found - options_of_script(match[1])), f"{span}: {wrong}"
        elif re.match(r"(\.venv/bin/python -m )?pytest\b", span) or span.startswith("--"):
            assert not (wrong := found - every_option()), f"{span}: {wrong}"


def test_every_command_is_in_the_readme() -> None:
    text = README.read_text()
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        for below in getattr(command, "commands", {"": None}):
            written = f"{name} {below}" if below else f"drbd-harness {name}"
            assert name == "version" or written in text, written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_matrices_and_variables_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"--(?:drbd-)?matrix ([a-z][\w-]*)", "\n".join(spans(page))):
        assert name in matrix_names(resources.matrices()), name
    source = "".join(path.read_text() for path in (CHECKOUT / "harness").rglob("*.py"))
    # "DRBD_HARNESS_{name}" is made of a name there.
    known = {*re.findall(r"DRBD_HARNESS_[A-Z_]+", source)}
    assert set(re.findall(r"DRBD_HARNESS_[A-Z_]+", text)) <= known


def test_pytest_options_in_write_tests_are_those_of_the_plugin() -> None:
    rows = cell_texts(CHECKOUT / "docs" / "write-tests.md", "option")
    assert {name for row in rows for name in ticked(row[0])} == options_of_the_plugin()


def test_fixtures_in_write_tests_are_the_public_ones_with_their_scope() -> None:
    page = CHECKOUT / "docs" / "write-tests.md"
    rows = {ticked(row[0])[0]: row[1] for row in cell_texts(page, "fixture")}
    assert set(rows) == set(re.findall(r"``(\w+)``", named_fixtures or ""))
    source = Path(fixtures.__file__ or "").read_text()
    for name, scope in rows.items():
        found = re.search(rf"@pytest\.fixture(\(scope=\"(\w+)\"\))?\ndef {name}\(", source)
        assert found is not None, name
        assert scope == (found[2] or "function"), name


def test_example_in_readme_and_write_tests_is_the_one_that_runs() -> None:
    example = (CHECKOUT / "testcases" / "examples" / "test_own.py").read_text().partition("import pytest")
    for page in (README, CHECKOUT / "docs" / "write-tests.md"):
        assert "".join(example[1:]).strip() in page.read_text(), page.name


def test_matrix_reference_has_every_matrix_with_its_plays() -> None:
    rows = {ticked(row[0])[0]: row[2] for row in cell_texts(CHECKOUT / "docs" / "matrix-reference.md", "matrix")}
    assert set(rows) == set(matrix_names(resources.matrices()))
    for name, plays in rows.items():
        cells = load(name, WORKLOADS, resources.matrices()).cells
        assert plays.partition(";")[0] in ("", str(sum(cell.control is None for cell in cells))), name


def test_matrix_reference_has_every_key_and_no_other() -> None:
    page = CHECKOUT / "docs" / "matrix-reference.md"
    rows = list(cell_texts(page, "key"))
    keys = [name for row in rows for name in ticked(row[0])]
    of_a_file = {field.alias or name for name, field in MatrixFile.model_fields.items()}
    models = (Axes, CellsEntry, ExpectEntry)
    assert sorted(keys) == sorted({*of_a_file, *(name for model in models for name in model.model_fields)})


def test_matrix_reference_has_every_value() -> None:
    page = CHECKOUT / "docs" / "matrix-reference.md"
    rows = {ticked(row[0])[0]: row[1] for row in cell_texts(page, "key")}
    for axis in AXES:
        values = {value.value for value in axis}
        # What may be left out may be written as "none" too.
        ways = (values, values | {"none"})
        key = next((key for key, written in rows.items() if set(ticked(written.partition(" (")[0])) in ways), None)
        assert key is not None, f"{axis.__name__}: {sorted(values)}"
    assert set(ticked(rows["integrity"].partition(" (")[0])) == set(INTEGRITY)
    assert all(kind.value in page.read_text() for kind in VerdictKind)


#: What the page calls the filesystems that a workload goes with.
WORDS_FOR_FILESYSTEMS = {"`raw`": Offers.DEVICE, "swap": Offers.SWAP, "files": Offers.FILES}


def test_matrix_reference_has_every_workload_with_its_filesystems() -> None:
    page = CHECKOUT / "docs" / "matrix-reference.md"
    rows = {ticked(row[0])[0]: row for row in cell_texts(page, "`workload`")}
    assert set(rows) == set(WORKLOADS)
    for name, row in rows.items():
        offered = {*Offers} if row[1] == "any" else {WORDS_FOR_FILESYSTEMS[word] for word in row[1].split(", ")}
        assert {kind for kind, one in FILESYSTEMS.items() if one.offers in offered} == set(WORKLOADS[name]), name
    assert {old for row in rows.values() for old in ticked(row[3])} == set(aliases.WORKLOADS)


def test_matrix_reference_has_every_filesystem() -> None:
    rows = cell_texts(CHECKOUT / "docs" / "matrix-reference.md", "`filesystem`")
    assert {ticked(row[0])[0] for row in rows} == set(FilesystemKind) == set(FILESYSTEMS)


@pytest.mark.parametrize("page", [README, CHECKOUT / "docs" / "ci.md"], ids=lambda page: page.name)
def test_table_of_exit_codes_is_that_of_the_code(page: Path) -> None:
    rows = {int(row[0]): row[1:] for row in cell_texts(page, "code")}
    assert set(rows) == {0, 1, HarnessError.exit_code, NothingRanError.exit_code, UsageError.exit_code}
    assert "finding" in rows[1][0]
    assert "inconclusive" in rows[HarnessError.exit_code][0]
    assert "nothing ran" in rows[NothingRanError.exit_code][0]
    assert "usage" in rows[UsageError.exit_code][0]
    assert all(row[1] for row in rows.values()), "what CI does about it"
    said = importlib.import_module("harness.cli.main").__doc__ or ""
    assert all(f"{code} " in said for code in rows)


def test_readme_has_no_figure_of_a_finding_outside_of_its_marked_tables() -> None:
    text = re.sub(r"<!-- figures:.*?<!-- /figures -->|```.*?```", "", README.read_text(), flags=re.DOTALL)
    assert re.findall(r"\d+ (?:of \d+|blocks)|(?<!the exact )\b\d+ %|\bn = \d+", text) == []
