"""The guest's machine type: the newest one that the QEMUs of both nodes know, or the one that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from locked_stack import RUNS, node
from test_software_parse import PRINTED

from harness.errors import StackError
from harness.lab.machine import guest_machine

OLDER = PRINTED.replace("pc-q35-10.0 ", "other ").replace("pc-q35-9.2 ", "other ")


def machine(cache: Path, asked: str = "", on_b: str = OLDER) -> str:
    pairs = [
        (node("nodea", {"-machine help": PRINTED}), RUNS),
        (node("nodeb", {"-machine help": on_b}), replace(RUNS, qemu="9.0.2", qemu_sha256="9" * 64)),
    ]
    return guest_machine(pairs, asked, cache)


def test_guest_machine_is_the_newest_that_both_know(tmp_path: Path) -> None:
    assert machine(tmp_path) == "pc-q35-9.0"
    assert machine(tmp_path / "other", on_b=PRINTED) == "pc-q35-10.0"


def test_guest_machine_is_the_one_that_is_asked_for_where_both_know_it(tmp_path: Path) -> None:
    assert machine(tmp_path, "pc-q35-4.0.1") == "pc-q35-4.0.1"
    with pytest.raises(StackError) as caught:
        machine(tmp_path, "pc-q35-10.0")
    assert str(caught.value) == (
        "the machine type pc-q35-10.0 is not known to QEMU 9.0.2 on nodeb; the newest that all nodes know is pc-q35-9.0"
    )


def test_guest_machine_of_qemus_without_a_common_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError) as caught:
        machine(tmp_path, on_b="pc-q35-3.1   Standard PC\n")
    assert str(caught.value) == (
        "the nodes' QEMUs have no machine type in common: QEMU 10.0.13 on nodea knows pc-q35-10.0 and older; "
        "QEMU 9.0.2 on nodeb knows pc-q35-3.1 and older"
    )


def test_guest_machine_of_one_qemu_that_names_none_is_left_to_it(tmp_path: Path) -> None:
    names_others = [(node(name, {"-machine help": "pc-q35-rhel9.4.0   RHEL\n"}), RUNS) for name in ("nodea", "nodeb")]
    assert guest_machine(names_others, "", tmp_path) == ""
    with pytest.raises(StackError, match="no machine type in common"):
        guest_machine([names_others[0], (names_others[1][0], replace(RUNS, qemu="9"))], "", tmp_path)


def test_guest_machine_asks_a_qemu_only_once(tmp_path: Path) -> None:
    assert machine(tmp_path) == "pc-q35-9.0"
    silent = [(node("nodea"), RUNS), (node("nodeb"), replace(RUNS, qemu_sha256="9" * 64))]
    assert guest_machine(silent, "", tmp_path) == "pc-q35-9.0"
    (kept,) = (tmp_path / "machine-types").glob("9*.json")
    kept.write_text("damaged")
    with pytest.raises(StackError, match="no machine type in common"):
        guest_machine(silent, "", tmp_path)
