"""Versions with faults of their own: each end of each range, the order of versions, nodes that differ."""

from __future__ import annotations

import json
from io import StringIO
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported_results import clean_result, nodes, run_of
from rich.console import Console

from harness.judgement.known_faults import FAULTS, known_faults, linux_version, within
from harness.model import Stack
from harness.report.export import as_json, as_markdown
from harness.report.html import render_html
from harness.report.terminal import print_report

LB_TCP, DISKLESS, LOST_9, LATE_9, NO_RESYNC, UNNAMED, CONFLICT, LOST_8, LATE_8, QEMU_OLD, QEMU_NEW, QUEUES = FAULTS


def hit(**versions: str) -> list[str]:
    """Which entries of the table a stack has, in short."""
    names = {
        LB_TCP.fault: "lb-tcp", DISKLESS.fault: "diskless", LOST_9.fault: "lost by 9", LATE_9.fault: "late in 9",
        UNNAMED.fault: "unnamed", CONFLICT.fault: "conflict", LOST_8.fault: "lost by 8", LATE_8.fault: "late in 8",
        QEMU_OLD.fault: "QEMU before 10", QEMU_NEW.fault: "QEMU since 10.0.3", QUEUES.fault: "queues",
        NO_RESYNC.fault: "no resync",
    }  # fmt: skip
    return [names[one.fault] for one in known_faults(Stack(**versions))]


@pytest.mark.parametrize(
    ("drbd", "faults"),
    [
        ("8.4.11", ["unnamed", "conflict", "late in 8"]),
        ("9.0.0", ["lb-tcp", "diskless", "unnamed", "conflict"]),
        ("9.0.13", ["lb-tcp", "diskless", "unnamed", "conflict"]),
        ("9.0.14", ["lb-tcp", "diskless", "conflict"]),
        ("9.1.3", ["lb-tcp", "diskless", "conflict"]),
        ("9.1.4", ["lb-tcp", "diskless"]),
        ("9.1.24", ["lb-tcp", "diskless"]),
        ("9.2.0", ["lb-tcp", "diskless", "lost by 9"]),
        ("9.2.16", ["lb-tcp", "diskless", "lost by 9"]),
        ("9.2.17-rc.1", ["lb-tcp", "diskless", "lost by 9"]),
        ("9.2.17", ["diskless", "late in 9"]),
        ("9.2.18", ["diskless", "late in 9"]),
        ("9.2.19", ["late in 9"]),
        ("9.3.0", ["lb-tcp", "diskless", "lost by 9"]),
        ("9.3.1", ["diskless", "late in 9"]),
        ("9.3.2", ["diskless", "late in 9"]),
        ("9.3.3", ["late in 9", "no resync"]),
        ("9.3.4", ["late in 9"]),
        ("10.0.0a4", ["late in 9"]),
        ("10.0.0", []),
    ],
)
def test_known_faults_of_drbd_end_where_they_were_mended(drbd: str, faults: list[str]) -> None:
    assert hit(drbd=drbd, kernel="6.12.118+deb13-amd64") == faults


@pytest.mark.parametrize(
    ("kernel", "build", "flag"),
    [
        ("6.10.14", "", None),
        ("6.11-rc1", "", None),
        ("6.11", "", "lost"),
        ("6.12", "", "lost"),
        ("6.12.74+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.74-1 (2026-03-01)", "lost"),
        ("6.12.75+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.75-1 (2026-03-09)", "late"),
        ("6.12.118+deb13-amd64", "", "late"),
        ("6.13.0", "", "lost"),
        ("6.18.13", "", "lost"),
        ("6.18.14", "", "late"),
        ("6.19.3", "", "lost"),
        ("6.19.4+deb14-amd64", "", "late"),
        ("7.0.1+deb13-amd64", "", "late"),
        # Debian names its ABI; what it is stands in its build.
        ("6.1.0-37-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.140-1 (2025-05-22)", None),
        ("6.11.0-1-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.80-1~bpo12+1 (2026-04-01)", "late"),
    ],
)
def test_known_faults_of_linux_are_those_of_its_own_drbd(kernel: str, build: str, flag: str | None) -> None:
    assert hit(drbd="8.4.11", kernel=kernel, kernel_build=build) == ["unnamed", "conflict", *{
        "lost": ["lost by 8"], "late": ["late in 8"], None: []
    }[flag]]  # fmt: skip
    assert not {"lost by 8", "late in 8"} & set(hit(drbd="9.3.3", kernel=kernel, kernel_build=build))
    assert hit(kernel=kernel, kernel_build=build) == [], "which DRBD it was is not known"


@pytest.mark.parametrize(("drbd", "fault"), [("9.2.10", "lost by 9"), ("9.3.3", "late in 9")])
def test_known_faults_of_drbd_9_before_there_was_the_flag_are_fewer(drbd: str, fault: str) -> None:
    assert fault in hit(drbd=drbd, kernel="6.11.2")
    assert fault not in hit(drbd=drbd, kernel="6.1.0-37-amd64", kernel_build="#1 SMP Debian 6.1.140-1 (2025)")
    assert fault in hit(drbd=drbd), "with a kernel that is not known it is named"


@pytest.mark.parametrize(
    ("qemu", "fault"),
    [
        ("5.2.0", "QEMU before 10"),
        ("7.2.22", "QEMU before 10"),
        ("9.2.4", "QEMU before 10"),
        ("10.0.0", None),
        ("10.0.2", None),
        ("10.0.3", "QEMU since 10.0.3"),
        ("10.0.13", "QEMU since 10.0.3"),
        ("11.1.3", "QEMU since 10.0.3"),
    ],
)
def test_known_faults_of_qemu(qemu: str, fault: str | None) -> None:
    assert hit(qemu=qemu) == ([fault] if fault else [])


def test_known_faults_of_an_unknown_stack_are_none() -> None:
    assert known_faults(Stack()) == () == known_faults(Stack(drbd="(unknown)", kernel="none", qemu="?"))


def test_known_faults_of_nodes_that_differ_say_which_node() -> None:
    *_, lost, late = known_faults(Stack(drbd="8.4.11", kernel="6.12.118+deb13-amd64 / 6.17.13+deb14-amd64"))
    assert (late.where, late.version) == ("node a", "6.12.118+deb13-amd64")
    assert str(lost).startswith(
        "Linux 6.17.13+deb14-amd64 (node b): with its own DRBD 8.4 the flag that asks for stable"
    )
    assert str(lost).endswith("[commit 2ebc8d600fb9 of Linux]")
    one, other = known_faults(Stack(qemu="10.0.13 / 7.2.22"))
    assert (one.where, one.version, other.where, other.version) == ("node b", "7.2.22", "node a", "10.0.13")
    both = known_faults(Stack(qemu="10.0.13 / 11.0.4"))
    assert [(one.where, one.version) for one in both] == [("node a", "10.0.13"), ("node b", "11.0.4")]
    (same,) = known_faults(Stack(qemu="10.0.13"))
    assert same.where == "both nodes"


@pytest.mark.parametrize(
    ("qemu", "where"),
    [
        ("10.0.13 / 11.1.3", ["node a"]),
        ("11.1.3 / 10.0.14", ["node b"]),
        ("10.0.12 / 11.1.3", []),
        ("10.1.0 / 11.1.3", []),
        ("10.0.13 / 11.0.4", []),
        ("10.0.13", []),
        ("11.1.3", []),
    ],
)
def test_fault_of_virtqueues_needs_both_versions(qemu: str, where: list[str]) -> None:
    found = [one for one in known_faults(Stack(qemu=qemu)) if one.fault == QUEUES.fault]
    assert [one.where for one in found] == where


def test_linux_version_of_another_distribution_is_its_release() -> None:
    assert linux_version("6.8.0-45-generic", "#45-Ubuntu SMP PREEMPT_DYNAMIC") == "6.8.0-45-generic"


# --------------------------------------------------------------------------- the order of versions

NUMBERS = st.lists(st.integers(0, 200), min_size=1, max_size=4)


def text(numbers: list[int]) -> str:
    return ".".join(map(str, numbers))


@given(NUMBERS, NUMBERS)
def test_within_orders_versions_as_numbers(one: list[int], other: list[int]) -> None:
    width = max(len(one), len(other))
    padded = [[*numbers, *[0] * (width - len(numbers))] for numbers in (one, other)]
    assert within(text(one), text(other), "") == (padded[0] >= padded[1])
    assert within(text(one), "", text(other)) == (padded[0] < padded[1])


@given(NUMBERS, NUMBERS, NUMBERS)
def test_within_bounds_are_the_first_and_before_the_end(one: list[int], start: list[int], end: list[int]) -> None:
    inside = within(text(one), text(start), text(end))
    assert inside == (within(text(one), text(start), "") and within(text(one), "", text(end)))
    assert within(text(start), text(start), "") and not within(text(end), "", text(end))


@given(NUMBERS, st.sampled_from(["-rc1", "~rc2", "rc.3", "a4", "-beta", "-pre1", "~"]))
def test_within_puts_what_comes_before_a_release_before_it(numbers: list[int], early: str) -> None:
    assert within(f"{text(numbers)}{early}", "", text(numbers)) and not within(
        text(numbers), "", f"{text(numbers)}{early}"
    )
    assert not within(f"{text(numbers)}{early}", text(numbers), "")


@given(NUMBERS, st.sampled_from(["+deb13-amd64", "-37-amd64", "-arch1-1", "-generic", "+", " (Debian 1:10)", "-1"]))
def test_within_does_not_count_what_a_distribution_adds(numbers: list[int], added: str) -> None:
    assert within(f"{text(numbers)}{added}", text(numbers), "") and not within(
        f"{text(numbers)}{added}", "", text(numbers)
    )
    assert within(f"{text(numbers)}{added}", "", "") and not within(added, "", "")


# --------------------------------------------------------------------------- where it is said


def test_known_faults_are_on_the_page_the_terminal_and_in_every_form() -> None:
    results = [clean_result()]
    run = run_of(results, stack=Stack(drbd="9.2.10", kernel="6.12.118", qemu="10.0.1"))
    page = nodes(render_html(run, results), "//ul[@class='plain faults']/li")
    said = [" ".join("".join(one.itertext()).split()) for one in page]
    assert said == [str(one) for one in known_faults(run.stack)] and len(said) == 3
    printed = Console(width=400, file=StringIO())
    print_report(run, results, printed)
    forms = (cast(StringIO, printed.file).getvalue(), as_markdown(run, results).replace("\\", ""))
    assert all(one.fault in form for one in known_faults(run.stack) for form in forms)
    exported = json.loads(as_json(run, results))["run"]["known_faults"]
    assert [one["fault"] for one in exported] == [one.fault for one in known_faults(run.stack)]


def test_versions_without_known_faults_are_said_nothing_of() -> None:
    results = [clean_result()]
    run = run_of(results, stack=Stack(drbd="9.3.4", kernel="6.1.140", qemu="10.0.1"))
    assert "nown faults" not in render_html(run, results) and "nown fault" not in as_markdown(run, results)
