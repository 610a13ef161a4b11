"""A node runs what its image holds, the other node's DRBD fits, and after a boot it runs what it ran; or is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from locked_stack import IMAGE, NINE, RUNS, lock, node
from test_software_parse import BUILD

from harness.errors import StackError
from harness.lab.stack import require_as_locked, require_unchanged
from harness.model import ImageLock, NodeLock, StackLock
from harness.model.stack_lock import not_as_its_image
from harness.remote.scripted import ScriptedRunner

# --------------------------------------------------------------------------- what runs is what the image holds


def test_node_that_runs_what_its_image_holds_is_taken() -> None:
    assert all(not_as_its_image(one) is None for one in lock().nodes)
    require_as_locked(lock(), node("nodea"), node("nodeb"))
    assert not_as_its_image(NodeLock("nodea", ImageLock(), RUNS)) is None, "of no image is nothing known"


@pytest.mark.parametrize(
    ("loaded", "sentence"),
    [
        (
            {"drbd_srcversion": "F73C670A7EC572DB9CF3E5B"},
            "nodea runs DRBD 8.4.11 (srcversion F73C670A7EC572DB9CF3E5B), where its image holds DRBD 8.4.11"
            " (srcversion 637677C4EAFCF5D1D5446B0)",
        ),
        (
            {"kernel_build": "#2 SMP own"},
            "nodea runs Linux 6.12.118+deb13-amd64 (#2 SMP own), where its image holds Linux 6.12.118+deb13-amd64"
            f" ({BUILD})",
        ),
        (
            {"qemu_sha256": "f" * 64},
            "nodea runs QEMU 10.0.13 (SHA-256 ffffffffffff), where its image holds QEMU 10.0.13 (SHA-256 d3c1a558ad22)",
        ),
        (
            {"kernel": "7.0.1", "qemu": "11.1.0"},
            f"nodea runs Linux 7.0.1 ({BUILD}), where its image holds Linux 6.12.118+deb13-amd64 ({BUILD}); and"
            " QEMU 11.1.0 (SHA-256 d3c1a558ad22), where its image holds QEMU 10.0.13 (SHA-256 d3c1a558ad22)",
        ),
    ],
)
def test_node_that_runs_something_else_is_refused_with_both(loaded: dict[str, str], sentence: str) -> None:
    wrong = replace(lock(), a=NodeLock("nodea", IMAGE, replace(RUNS, **loaded)))
    with pytest.raises(StackError) as caught:
        require_as_locked(wrong, node("nodea"), node("nodeb"))
    assert str(caught.value) == sentence and caught.value.exit_code == 2


def test_module_that_does_not_load_is_refused_in_the_words_of_the_kernel() -> None:
    gone = replace(lock(), b=NodeLock("nodeb", IMAGE, replace(RUNS, drbd="", drbd_srcversion="", drbd_protocols="")))
    said = {
        "dmesg": "modprobe: ERROR: could not insert 'drbd': Exec format error\n[9.1] drbd: version magic '6.1' wrong\n"
    }
    with pytest.raises(StackError) as caught:
        require_as_locked(gone, node("nodea"), node("nodeb", said))
    assert str(caught.value) == (
        "DRBD 8.4.11 of its image does not load on nodeb: modprobe: ERROR: could not insert 'drbd': Exec format error; "
        "[9.1] drbd: version magic '6.1' wrong"
    )


def test_qemu_that_does_not_start_is_refused_in_its_words() -> None:
    gone = replace(lock(), a=NodeLock("nodea", IMAGE, replace(RUNS, qemu="")))
    with pytest.raises(StackError, match=r"does not start on nodea: .*libfdt.so.1: cannot open shared object file"):
        require_as_locked(
            gone, node("nodea", {"--version": "error: libfdt.so.1: cannot open shared object file"}), node("b")
        )


def test_two_nodes_without_a_common_protocol_are_refused_naming_both() -> None:
    nine = lock(**NINE)
    older = lock(**{**NINE, "drbd": "9.0.19", "drbd_protocols": "110-115"})
    with pytest.raises(StackError) as caught:
        require_as_locked(replace(nine, a=replace(older.b, name="nodea")), node("nodea"), node("nodeb"))
    assert str(caught.value) == (
        "the two nodes cannot speak to each other: DRBD 9.0.19 on nodea has the network protocols 110-115, "
        "and DRBD 9.3.3 on nodeb has 118-124"
    )


# What 9.3.3 lists in /proc/drbd leaves out 86 to 101, which it speaks with DRBD 8.4 all the same.
@pytest.mark.parametrize("nine", [NINE, {"drbd": "9.1.4", "drbd_protocols": "86-121"}])
def test_two_generations_are_refused_for_how_they_are_set_up(nine: dict[str, str]) -> None:
    with pytest.raises(StackError, match=r"DRBD 8\.4\.11 on nodea and 9\.\S+ on nodeb are set up in different ways"):
        require_as_locked(lock(**nine), node("nodea"), node("nodeb"))


@pytest.mark.parametrize(
    ("utils", "fit"), [("9.15.0-1", False), ("1:9.16.9", False), ("9.17.0", True), ("10.0", True), ("", True)]
)
def test_drbd_utils_that_are_too_old_for_drbd_9_are_refused(utils: str, fit: bool) -> None:
    both = lock(**NINE, drbd_utils=utils)
    nine = replace(both, a=replace(both.b, name="nodea"))
    if fit:
        require_as_locked(nine, node("nodea"), node("nodeb"))
        return
    with pytest.raises(StackError) as caught:
        require_as_locked(nine, node("nodea"), node("nodeb"))
    assert str(caught.value) == (
        f"the drbd-utils {utils} of nodea are too old for DRBD 9.3.3: it takes 9.17 or newer, with 'drbd_utils' in the"
        " stack's file"
    )
    require_as_locked(lock(drbd_utils=utils), node("nodea"), node("nodeb"))


def test_two_versions_of_one_generation_are_taken() -> None:
    require_as_locked(lock(drbd="8.4.12", drbd_srcversion="9"), node("nodea"), node("nodeb"))


# --------------------------------------------------------------------------- a node that has booted


def says(**now: str) -> dict[str, str]:
    """What a node answers that runs what it ran, but for ``now``."""
    found = {name: value for name, value in vars(replace(RUNS, **now)).items() if value}
    return {"uname": "".join(f"{name}={value}\n" for name, value in found.items())}


def test_node_that_booted_and_runs_what_it_ran_is_taken() -> None:
    require_unchanged(lock(), node("nodea", says()), node("nodeb", says()))
    require_unchanged(StackLock(), node("nodea", says(kernel="7.1")))
    asked = node("nodea", says())
    require_unchanged(lock(), asked)
    (argv,) = cast(ScriptedRunner, cast(Any, asked.runner)).ran
    assert "sha256sum" not in " ".join(argv), "which takes an emulated node seconds"


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        (
            {"kernel": "6.12.120+deb13-amd64", "kernel_build": "#2 SMP"},
            "nodea has booted and runs Linux 6.12.120+deb13-amd64 (#2 SMP), where it ran Linux 6.12.118+deb13-amd64"
            f" ({BUILD}) before",
        ),
        (
            NINE,
            "nodea has booted and runs DRBD 9.3.3 (srcversion E0634C2B893C65C232A8771), where it ran DRBD 8.4.11"
            " (srcversion 637677C4EAFCF5D1D5446B0) before",
        ),
        (
            {"qemu": "11.1.0", "qemu_sha256": ""},
            "nodea has booted and runs QEMU 11.1.0, where it ran QEMU 10.0.13 (SHA-256 d3c1a558ad22) before",
        ),
    ],
)
def test_node_that_booted_with_another_version_is_refused_with_both(now: dict[str, str], sentence: str) -> None:
    with pytest.raises(StackError) as caught:
        require_unchanged(lock(), node("nodea", says(**now)))
    assert str(caught.value) == sentence


def test_node_that_booted_without_drbd_is_refused_in_the_words_of_the_kernel() -> None:
    answers = {
        "uname": "kernel=6.12.118+deb13-amd64\nqemu=10.0.13\n",
        "dmesg": "modprobe: FATAL: Module drbd not found",
    }
    with pytest.raises(StackError, match=r"^since it has booted: DRBD 8\.4\.11 .* not load on nodea: .*drbd not found"):
        require_unchanged(lock(), node("nodea", answers))
