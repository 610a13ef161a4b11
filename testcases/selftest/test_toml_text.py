"""Files that a user wrote in TOML: what an editor did to them, and what is too much of it, in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_command import run_here

from harness.config import stack_file
from harness.config.baseline_file import load_baseline
from harness.config.claims_file import load_claims
from harness.config.inspected import load_cluster
from harness.config.inventory import table_of
from harness.config.matrix import load
from harness.config.toml_text import parsed
from harness.errors import LostNodeError, UsageError
from harness.judgement.bisect import Rate
from harness.remote.host_keys import presented
from harness.util import resources
from harness.workloads import WORKLOADS

CELL = '[[cells]]\ncache = "none"\nworkload = "buffered"\nfilesystem = "ext4"\n'
READERS: dict[str, Callable[[Path], object]] = {
    "matrix": lambda path: load(str(path), WORKLOADS, resources.matrices()),
    "baseline": lambda path: load_baseline(path, "--baseline"),
    "claims": load_claims,
    "inventory": table_of,
    "stack": lambda path: stack_file.load(str(path), resources.stacks()),
}


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_load_matrix_that_an_editor_of_windows_wrote(tmp_path: Path, ends: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + f"schema = 1\n{CELL}".encode().replace(b"\n", ends))
    assert [cell.id for cell in load(str(path), WORKLOADS, resources.matrices()).cells] == ["none-ext4-buffered"]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("schema = 1\n".encode("utf-16"), r"no text in UTF-8"),
        (b"schema = 1\n# \xff", r"no text in UTF-8"),
        (b"schema = 1\nx = " + 3000 * b"[" + 3000 * b"]", r"its values are nested too deeply$"),
        (b"schema = 1" + 5000 * b"0", r"it has a number of thousands of digits$"),
        (b"schema = 1\n\0", r"\(at line 2, column 1\)$"),
    ],
    ids=["utf-16", "latin-1", "deep", "digits", "nul"],
)
def test_load_file_that_is_no_toml_one_sentence_without_python(
    tmp_path: Path, reader: str, raw: bytes, why: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=why) as raised:
        READERS[reader](path)
    assert str(path) in str(raised.value) and "codec" not in str(raised.value) and "sys." not in str(raised.value)


@given(st.binary() | st.text().map(str.encode))
def test_parsed_any_bytes_a_table_or_one_sentence(raw: bytes) -> None:
    try:
        assert isinstance(parsed(raw), dict)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (f"{CELL}link_delay_ms = {[*range(200)]}\ndisk_delay_ms = {[*range(100)]}\n", "lists make 20000 cells"),
        (f"{CELL}repeat = 10000\nlink_delay_ms = {[*range(11)]}\n", "more than 100000 plays"),
    ],
)
def test_load_matrix_of_more_than_anybody_can_play_one_sentence(tmp_path: Path, written: str, why: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"schema = 1\n{written}")
    with pytest.raises(UsageError, match=rf"mine\.toml, \[\[cells\]\] number 1: .*{why}"):
        load(str(path), WORKLOADS, resources.matrices())


def test_load_paths_of_nobody_usage_error(tmp_path: Path) -> None:
    stack = tmp_path / "stack.toml"
    stack.write_text('schema = 1\n[node]\ndrbd = "~no-such-user/drbd"\n')
    with pytest.raises(UsageError, match=r"\[node\]: 'drbd' is '~no-such-user/drbd', and nobody is called so here$"):
        stack_file.load(str(stack), resources.stacks())
    machines = tmp_path / "machines.toml"
    machines.write_text('schema = 1\n[hosts.a]\nansible_ssh_private_key_file = "~no-such-user/key"\n[hosts.b]\n')
    with pytest.raises(UsageError, match="the private key of a is '~no-such-user/key'"):
        load_cluster(machines)


def test_load_stack_that_is_a_folder_is_not_offered_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").mkdir()
    with pytest.raises(UsageError, match=r"mine\.toml is no file$"):
        stack_file.load(str(tmp_path / "mine.toml"), resources.stacks())


def test_rate_of_thousands_of_digits_is_none() -> None:
    assert Rate.parse(f"{5000 * '9'}/5") is None and Rate.parse("3/10") is not None


def test_presented_by_no_machine_says_why_without_a_number() -> None:
    with pytest.raises(LostNodeError, match=r"^no ssh to a at no such host:22: [^\[]*$"):
        presented("a", "no such host", 22)


@pytest.mark.parametrize("name", ["", "-x", "--all"])
def test_inspect_resource_that_is_an_option_usage_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    asked = ("inspect", "--inventory", "none.toml", f"--resource={name}")
    said = f"drbd-harness: --resource is '{name}', and no resource of DRBD's is called so\n"
    assert run_here(monkeypatch, capfd, *asked) == (4, "", said)
