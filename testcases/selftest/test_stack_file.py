"""Stack files: what they say, which node gets what, and what is wrong with them in one sentence."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_lab_spec import RUN

from harness.config import matrix, stack_file
from harness.config.run_specs import specs_of, stack_from_options
from harness.config.sentences import quoted
from harness.config.stack_spec import NodeStack, StackSpec
from harness.errors import UsageError
from harness.util import resources

MIXED = """
schema = 1
description = "a rolling upgrade"
suite = "trixie"
machine = "pc-q35-7.2"
[node]
kernel = "trixie-backports"
drbd = "mods"
qemu = "debs/*.deb"
[a]
kernel = "trixie"
drbd = "in-tree"
[guest]
kernel = "bookworm"
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A stack file with the paths that it names."""
    (tmp_path / "mods").mkdir()
    (tmp_path / "debs").mkdir()
    for name in ("b.deb", "a.deb", "notes.txt"):
        (tmp_path / "debs" / name).touch()
    path = tmp_path / "mixed.toml"
    path.write_text(MIXED)
    return path


def loaded(path: Path) -> StackSpec:
    return stack_file.load(str(path), resources.stacks())


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        loaded(path)
    return str(caught.value)


@pytest.mark.parametrize("name", stack_file.names(resources.stacks()))
def test_every_stack_that_comes_along_is_read_and_says_what_it_is(name: str) -> None:
    spec = stack_file.load(name, resources.stacks())
    assert spec.label == name
    assert stack_file.description(name, resources.stacks())


def test_page_about_stacks_has_every_one_that_comes_along() -> None:
    page = (resources.recipes().parent / "docs" / "stacks.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| Debian", page, re.MULTILINE)
    assert sorted(rows) == list(stack_file.names(resources.stacks()))


def test_stack_of_a_suite_alone_is_the_stack_that_the_suite_option_asks_for() -> None:
    assert stack_from_options({"stack": "bookworm"}) == stack_from_options({"suite": "bookworm"})
    assert stack_from_options({}) == StackSpec() == stack_from_options({"stack": "trixie"})


def test_stack_file_says_what_each_node_gets_with_absolute_paths(written: Path) -> None:
    spec, here = loaded(written), written.parent
    debs = tuple(str(here / "debs" / name) for name in ("a.deb", "b.deb"))
    assert spec.of_node("a") == NodeStack("trixie", qemu=debs)
    assert spec.of_node("b") == NodeStack(
        "trixie", kernel=("trixie-backports",), drbd=(str(here / "mods"),), qemu=debs
    )  # fmt: skip
    assert spec.differs and not spec.plain
    assert (spec.guest_kernel, spec.machine, spec.label) == (("bookworm",), "pc-q35-7.2", str(written))


def test_stack_of_a_run_is_the_one_it_was_started_with(written: Path) -> None:
    spec = loaded(written)
    stored = json.loads(json.dumps(spec.as_table()))
    assert specs_of(replace(RUN, stack_spec=stored))[1] == spec


def test_option_drbd_is_for_both_nodes_unless_one_says_its_own(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written.parent)
    spec = stack_from_options({"stack": "mixed.toml", "modules": "debs"})
    assert (spec.of_node("a").drbd, spec.of_node("b").drbd) == ((), (str(written.parent / "debs"),))
    both = written.read_text().replace("[guest]", '[b]\ndrbd = "in-tree"\n[guest]')
    (written.parent / "both.toml").write_text(both)
    with pytest.raises(UsageError, match=r"--drbd mods would be on no node: the stack '.*both\.toml' says"):
        stack_from_options({"stack": "both.toml", "modules": "mods"})
    plain = stack_from_options({"suite": "bookworm", "modules": "mods"})
    assert plain.of_node("a").drbd == plain.of_node("b").drbd == (str(written.parent / "mods"),)
    assert stack_from_options({"modules": "in-tree"}).plain
    with pytest.raises(UsageError, match=r"^--drbd: 'drbd' is empty; it names a path"):
        stack_from_options({"modules": ""})
    with pytest.raises(UsageError, match=r"^--drbd: 'drbd' is 'mod', and there is no .*/mod; did you mean 'mods'\?$"):
        stack_from_options({"modules": "mod"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("schema = 2", "'schema' is 2; this program reads schema = 1"),
        ('schema = 1\nsuit = "trixie"', "the top level: 'suit' is no key; did you mean 'suite'? allowed: "),
        ('schema = 1\n[node]\nkernle = "sid"', "[node]: 'kernle' is no key; did you mean 'kernel'? allowed: kernel, "),
        ('schema = 1\n[node]\nkernel = "trixe"', "[node]: 'trixe' is no suite for 'kernel'; did you mean 'trixie'? "),
        ('schema = 1\n[a]\nqemu = ["sid", "./x.deb"]', "[a]: 'qemu' has 'sid' beside others; it is one suite, or only"),
        ('schema = 1\n[b]\nqemu = "./debz/*.deb"', "[b]: 'qemu' is './debz/*.deb', and there is no {here}/debz/*.deb; "
         "did you mean 'debs'?"),
        ('schema = 1\n[node]\nkernel = "/**/*.deb"', "'kernel' is '/**/*.deb', and '**' may be any number of folders"),
        ('schema = 1\n[node]\nkernel = "./out/**/*.deb"', "any number of folders; write a '*' for each"),
        ('schema = 1\n[b]\ndrbd = "/*/../*"', "[b]: 'drbd' is '/*/../*', a pattern of any folder; name"),
        ('schema = 1\n[b]\nqemu = "/us[r]/bin"', "a pattern of any folder; name the folder that it is in"),
        ('schema = 1\n[b]\nqemu = "/"', "[b]: 'qemu' is '/', which is the whole machine; name the folder"),
        ('schema = 1\n[node]\ndrbd = "intree"', "and there is no {here}/intree; did you mean 'in-tree'?"),
        ('schema = 1\n[node]\ndrbd = ""', "[node]: 'drbd' is empty; it names a path, or in-tree"),
        ('schema = 1\nmachine = "q35"', "'machine' is 'q35'; it is a versioned q35 that both nodes' QEMUs know"),
        ('schema = 1\nsuite = "trixi"', "there is no node image of 'trixi'; there is one of "),
        ("schema = 1\nnode = 1", "[node]: it is not a table"),
        ("schema = ", "is not valid TOML"),
    ],
)  # fmt: skip
def test_stack_file_with_a_mistake_is_refused_in_one_sentence(written: Path, text: str, sentence: str) -> None:
    message = refusal(written, text)
    assert message.startswith(str(written)) and sentence.format(here=written.parent) in message


def test_stack_or_matrix_where_nobody_may_look_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    spec, user = StackSpec(), os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        for name in ("x.deb", "*.deb"):
            path = tmp_path / "closed" / name
            # Of a long path, as another worker's folder has, the first part alone is quoted.
            why = re.escape(f"--drbd: 'drbd' is {quoted(str(path))}, and {path} cannot be looked at: Permission denied")
            with pytest.raises(UsageError, match=f"^{why}$"):
                stack_file.with_module(spec, str(path), "--drbd")
        with pytest.raises(UsageError, match=r"^/.*/x\.toml cannot be read: Permission denied$"):
            stack_file.load(str(tmp_path / "closed" / "x.toml"), resources.stacks())
        with pytest.raises(UsageError, match=r"^/.*/x\.toml cannot be read: Permission denied$"):
            matrix.load(str(tmp_path / "closed" / "x.toml"), {}, resources.matrices())
    finally:
        os.seteuid(user)
    with pytest.raises(UsageError, match=r"cannot be looked at: File name too long$"):
        stack_file.with_module(spec, f"./{'y' * 300}/x.deb", "--drbd")


def test_stack_that_is_not_there_is_refused_with_a_near_one(written: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no stack 'trixi' in .*; did you mean 'trixie'\? allowed: "):
        stack_file.load("trixi", resources.stacks())
    with pytest.raises(UsageError, match=r"there is no stack file .*mixd.toml; did you mean 'mixed.toml'\?"):
        loaded(written.with_name("mixd.toml"))
    with pytest.raises(UsageError, match="says its suites itself; leave the suite out"):
        stack_from_options({"stack": str(written), "suite": "trixie"})
