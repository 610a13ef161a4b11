"""What README and docs show as an example is what its reader takes: files in TOML, a key with its value, a cell."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel, ValidationError
from test_docs import CHECKOUT, PAGES, cell_texts, command_of, options_of, spans, ticked
from typer.main import get_command

from harness.cli.main import app
from harness.config.baseline_file import read_baseline
from harness.config.claims_file import CellsEntry as PatternEntry
from harness.config.claims_file import read_claims
from harness.config.inspected import InspectedFile
from harness.config.inventory import InventoryFile, PowerEntry
from harness.config.matrix import expand, load
from harness.config.matrix import names as matrix_names
from harness.config.matrix_entry import CellsEntry
from harness.config.sentences import validated
from harness.config.stack_file import StackFile
from harness.config.stack_file import names as stack_names
from harness.config.stack_spec import PACKAGE_SUITES, NodeTable
from harness.drbd.resource import Resource
from harness.guest.disk import AttachedDisk
from harness.guest.domain import Guest
from harness.lab.base import FullLab, Node
from harness.model import DelayProfile, Evidence, Migration, Verdict
from harness.pytest_plugin import options
from harness.util import resources
from harness.workloads import WORKLOADS
from harness.workloads.fio_runner import FioRun

Read = Callable[[Mapping[str, Any], str], object]


def _powers(table: Mapping[str, Any], source: str) -> None:
    for host in table["hosts"].values():
        validated(PowerEntry, host["power"], source=source)


#: What a table has that only one reader's has, and that reader; the first that fits.
READERS: tuple[tuple[Callable[[Mapping[str, Any]], bool], Read], ...] = (
    (lambda table: "claims" in table, read_claims),
    (lambda table: "known" in table, read_baseline),
    (lambda table: "cells" in table, lambda table, source: expand(table, WORKLOADS, source)),
    (lambda table: "schema" not in table and "hosts" in table, _powers),
    (
        lambda table: any("storage" in host for host in table.get("hosts", {}).values()),
        lambda table, source: validated(InventoryFile, table, source=source),
    ),
    (lambda table: "hosts" in table, lambda table, source: validated(InspectedFile, table, source=source)),
    (lambda table: "suite" in table, lambda table, source: validated(StackFile, table, source=source)),
)


def files() -> Iterator[tuple[str, str]]:
    """Each file in TOML that a page shows: the page with a number, and the text."""
    for page in PAGES:
        for number, text in enumerate(re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)):
            yield f"{page.name}-{number}", text


@pytest.mark.parametrize(("place", "text"), [*files()], ids=[place for place, _ in files()])
def test_a_file_that_a_page_shows_is_taken_by_its_reader(place: str, text: str) -> None:
    table = tomllib.loads(text)
    reader = next((read for fits, read in READERS if fits(table)), None)
    assert reader is not None, "nothing reads such a file"
    reader(table, place)


#: Who takes a key with a value that stands in a sentence or in a table; the first that has such a key.
MODELS: tuple[type[BaseModel], ...] = (CellsEntry, PatternEntry, NodeTable)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_key_with_a_value_in_a_sentence_is_one_that_there_is(page: Path) -> None:
    text = re.sub(r"^(> )?```.*?^(> )?```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([a-z_]+ = [^`\n]+)`", text):
        table = tomllib.loads(span)
        if "pytest_plugins" in table:
            continue
        model = next((one for one in MODELS if set(table) <= _keys(one)), None)
        assert model is not None, f"{span}: there is no such key"
        try:
            model.model_validate(table, context={"workloads": WORKLOADS})
        except ValidationError as error:
            pytest.fail(f"{page.name}: {span}: {error.errors()[0]['msg']}")


def _keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def _ids(matrix: str) -> list[str]:
    return [cell.id for cell in load(matrix, WORKLOADS, resources.matrices()).cells]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_cell_that_a_command_chooses_is_in_its_matrix(page: Path) -> None:
    for span in spans(page):
        match = re.search(r"drbd-harness ([a-z-]+) .*-k ([a-z][\w.-]*)", span)
        if match is None or match[2] == "CELL":
            continue
        matrix = re.search(r"--matrix (\S+)", span)
        found = [one for one in _ids(matrix[1] if matrix else "quick") if match[2] in one]
        assert found, f"{span}: no cell"
        if match[1].startswith("bisect"):
            assert len(set(found)) == 1 or match[2] in found, f"{span}: several cells"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_stack_that_a_command_names_comes_along(page: Path) -> None:
    known = set(stack_names(resources.stacks()))
    for span in spans(page):
        for listed in re.findall(r"--(?:stack|versions) ([a-z][\w.,-]*)", span):
            wrong = {name for name in listed.split(",") if not name.endswith(".toml")} - known
            assert not wrong, f"{span}: {wrong}"


def test_stacks_page_has_every_stack_and_every_suite() -> None:
    page = CHECKOUT / "docs" / "stacks.md"
    rows = {ticked(row[0])[0] for row in cell_texts(page, "stack") if len(row) == 5}
    assert rows == set(stack_names(resources.stacks()))
    assert set(PACKAGE_SUITES) - rows == {"experimental"}, "which the page names in a sentence"


def test_every_matrix_is_in_the_helps_and_in_the_readme() -> None:
    said = next(param for param in command_of(["run"]).params if "--matrix" in param.opts)
    plugin = Path(options.__file__ or "").read_text()
    places = {
        "drbd-harness run --help": getattr(said, "help", ""),
        "--drbd-matrix": plugin[plugin.index('"--drbd-matrix"') : plugin.index('"--drbd-runs"')],
        "README.md": "\n".join(span for span in spans_with_comments(CHECKOUT / "README.md") if "--matrix" in span),
    }
    for place, text in places.items():
        words = set(re.findall(r"[a-z][\w-]*", text))
        assert not (missing := set(matrix_names(resources.matrices())) - words), f"{place}: {missing}"


def spans_with_comments(page: Path) -> list[str]:
    """The lines of the blocks of code of ``page``, with what stands behind ``#``."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


#: What a fixture hands out, or what its call returns.
HANDED_OUT: Mapping[str, tuple[type, ...]] = {
    "lab": (FullLab, Node), "resource": (Resource, DelayProfile), "guest": (Guest,), "disk": (AttachedDisk,),
    "fio": (FioRun,), "migrate": (Migration,), "verify": (Evidence,), "verdict": (Verdict,),
}  # fmt: skip


def test_what_a_fixture_has_is_what_write_tests_says() -> None:
    for row in cell_texts(CHECKOUT / "docs" / "write-tests.md", "fixture"):
        kinds = HANDED_OUT[ticked(row[0])[0]]
        has = {name for kind in kinds for base in kind.__mro__ for name in _has(base)}
        for span in ticked(row[2]):
            found = re.match(r"(?:\.|(?:disk|lab)\.)(\w+)", span)
            assert found is None or found[1] in has, f"{row[0]}: {span}"
            for key in re.findall(r"\((?:\w+\()?(\w+)=", span):
                assert key in has or key == "timeout", f"{row[0]}: {span}"


def _has(kind: type) -> set[str]:
    """Its attributes: of the class, and what its methods set of an instance."""
    own = {*vars(kind), *getattr(kind, "__annotations__", {})}
    return own if kind.__module__ == "builtins" else own | {*re.findall(r"\bself\.(\w+)", inspect.getsource(kind))}


# What a page names by its path in the checkout.
_PATH = re.compile(r"(?:testcases|harness|ci|vm_images|docs)/[\w./*-]+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_that_a_page_names_is_there(page: Path) -> None:
    for span in spans(page):
        if _PATH.fullmatch(span.strip()):
            assert any(CHECKOUT.glob(span.strip().rstrip("/"))), f"{page.name}: {span}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_that_is_written_without_the_programs_name_exists(page: Path) -> None:
    names = "|".join(get_command(app).commands)  # type: ignore[attr-defined]
    for span in spans(page):
        if re.match(rf"(?:{names}) (?:--?[a-z]|[a-z]+$)", span):
            found = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", span))
            assert found <= options_of(command_of(span.split())), f"{page.name}: {span}"


def _commands(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
    for word, one in (below or {}).items():
        yield from _commands(one, f"{name} {word}".strip())


COMMANDS = dict(_commands(get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_on_a_page(name: str) -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for param in COMMANDS[name].params:
        written = [one for one in param.opts if one.startswith("-")]
        # A run's are also those of pytest, in one table.
        ways = [*written, *(f"--drbd-{one.removeprefix('--')}" for one in written)]
        said = any(re.search(rf"(?<![\w-]){way}(?![\w-])", text) for way in ways)
        assert said or not written, f"{name}: {written}"
