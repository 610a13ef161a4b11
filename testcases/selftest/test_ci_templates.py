"""The templates for CI: what they run exists, and their own kind of linter takes them and notices what is wrong."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from judged_evidence import oracles
from stored_run import stored
from test_docs import CHECKOUT, command_of, options_of, options_of_script

from harness.model import CacheMode
from harness.store import Store
from harness.store.run_store import dumped
from harness.util.atomic_file import write_atomic

TEMPLATES = CHECKOUT / "ci" / "templates"
GITHUB, GITLAB, JENKINS = (TEMPLATES / name for name in ("github-actions.yml", "gitlab-ci.yml", "Jenkinsfile"))
ALL = (GITHUB, GITLAB, JENKINS)
SCHEMAS = {
    GITHUB: ("--builtin-schema", "vendor.github-workflows"),
    GITLAB: ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"),
}
_RUN = re.compile(r"(?<![\w-])drbd-harness ((?:run|images|merge|judge|compare|report|status)\b[^;|>&\n]*)")


def linted(path: Path, kind: Path) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed")
    argv = [sys.executable, "-m", "check_jsonschema", *SCHEMAS[kind], str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def commands(path: Path) -> list[str]:
    """What it runs of the harness, as far as a shell's word or Groovy's quote goes."""
    return [found.split(" $(")[0].rstrip("'\\ ") for found in _RUN.findall(path.read_text())]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_template_commands_and_options_exist(path: Path) -> None:
    found = commands(path)
    assert {"run", "images", "merge", "judge"} <= {one.split()[0] for one in found}
    for one in found:
        words = [word for word in shlex.split(one) if word != "||"]
        command = command_of(words)
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options_of(command), one
    assert "harness/ci/quickstart --setup-only" in path.read_text() and "--setup-only" in options_of_script(
        "quickstart"
    )


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_template_only_the_code_of_no_answer_is_played_again(path: Path) -> None:
    text = path.read_text()
    again = {
        GITHUB: 'if [ "$status" -eq 2 ]; then\n',
        JENKINS: "if (status == 2) {\n",
        GITLAB: "exit_codes:\n      - 2\n  artifacts",
    }[path]
    assert again in text
    assert "junit" in text or path is GITHUB


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_template_what_is_known_fails_no_job(path: Path) -> None:
    # At GitHub a part's finding is said where all are together; elsewhere by its own job, or its JUnit file.
    needs = {GITHUB: ("compare", "judge"), GITLAB: ("run", "judge"), JENKINS: ("run", "judge")}[path]
    text = path.read_text().replace("\n          ", "\n")
    for command in needs:
        lines = [line for line in text.splitlines() if f"drbd-harness {command} " in line]
        assert lines and all(re.search(r'--baseline|\$known|known\[@\]|"\$@"', line) for line in lines), command
    assert path is not JENKINS or text.index("checkout scm") < text.index('if [ -f "$BASELINE" ]')


@pytest.mark.parametrize(("known", "gone", "code"), [(False, False, 1), (True, False, 0), (True, True, 0)])
def test_template_of_github_its_last_step_compares_merges_and_judges(
    known: bool, gone: bool, code: int, tmp_path: Path
) -> None:
    for part, other in ((1, {"writeback": None}), (2, {"none": None, "writeback": oracles({1}, {1})})):
        store = stored(tmp_path / "runs", f"2026112{part}T010203Z-0000", **other)
        store.save_run(replace(store.run(), shard=f"{part}/2"))
        for folder, found in list(store.attempts()):
            write_atomic(folder / "evidence.json", dumped(replace(found, lab=f"lab{part}")))
    before = stored(tmp_path / "before", "all")
    if gone:
        # The matrix had a cell more, on every good night until now.
        cells = before.run().cells
        before.save_run(replace(before.run(), cells=(*cells, replace(cells[-1], cache=CacheMode.UNSAFE))))
    if known:
        (tmp_path / "drbd-known.toml").write_text(
            'schema = 1\n[[known]]\ncell = "writeback-*"\nverdicts = "DIVERGED"\nreason = "so"\nuntil = 9999-12-31\n'
        )
    step = GITHUB.read_text().partition("- name: Merge, compare, judge\n        run: |\n")[2]
    script = textwrap.dedent(step.partition("      - uses:")[0])
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{own_command(tmp_path)}:{os.environ['PATH']}",
             "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "BASELINE": "drbd-known.toml"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert "newly failing (1)" in summary and ("Known until 9999-12-31: so." in summary) is known
    kept = Store.open(tmp_path, str(tmp_path / "before/all")).run()
    assert (len(kept.merged) == 2) is known, "only a good run is what the next night is held against"
    assert ("::warning::not every cell can be compared" in done.stdout) is gone


def own_command(folder: Path) -> Path:
    """A folder with the command as this Python has it."""
    program = folder / "bin" / "drbd-harness"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m harness.cli.main "$@"\n')
    program.chmod(0o755)
    return program.parent


def test_template_parts_are_all_of_them() -> None:
    assert "part: [1, 2, 3]\n" in GITHUB.read_text() and "PART: ${{ matrix.part }}/3\n" in GITHUB.read_text()
    assert "values '1', '2', '3'" in JENKINS.read_text() and '--shard "$PART/3"' in JENKINS.read_text()
    assert '--shard "$CI_NODE_INDEX/$CI_NODE_TOTAL"' in GITLAB.read_text() and "parallel: 3\n" in GITLAB.read_text()


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_template_is_what_its_schema_says(path: Path) -> None:
    done = linted(path, path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        (GITHUB, "runs-on: ubuntu-24.04", "runs_on: ubuntu-24.04"),
        (GITHUB, "contents: read", "contents: raed"),
        (GITHUB, "needs: play", "need: play"),
        (GITLAB, "when: always\n  needs", "when: never ever\n  needs"),
        (GITLAB, "    exit_codes:\n      - 2", "    exit_codes:\n      - two"),
        (GITLAB, "parallel: 3", "parallel: many"),
    ],
)
def test_template_that_is_broken_is_noticed(path: Path, right: str, wrong: str, tmp_path: Path) -> None:
    text = path.read_text()
    assert right in text
    (tmp_path / path.name).write_text(text.replace(right, wrong))
    assert linted(tmp_path / path.name, path).returncode == 1


def test_template_of_jenkins_every_bracket_is_closed() -> None:
    # No linter of Jenkins' own runs without a Jenkins.
    text = re.sub(r"'''.*?'''|'[^'\n]*'|\"[^\"\n]*\"|//[^\n]*", "", JENKINS.read_text(), flags=re.DOTALL)
    open_ones: list[str] = []
    for character in text:
        if character in "([{":
            open_ones.append({"(": ")", "[": "]", "{": "}"}[character])
        elif character in ")]}":
            assert open_ones and open_ones.pop() == character
    assert not open_ones and "'" not in text and '"' not in text
