"""The versions under test, as two nodes report them."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from fake_lab import FakeNode
from fake_story import Story

from harness.lab import stack as module
from harness.lab.node import Node
from harness.lab.stack import read_software, stack_of
from harness.model import Stack
from harness.remote.scripted import ScriptedRunner

RECORDINGS = Path(__file__).parent / "recordings"
PRINTED = """\
kernel=6.12.57+deb13-amd64
kernel_build=#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)
drbd=8.4.11
drbd_srcversion=F73C670A7EC572DB9CF3E5B
drbd_git_hash=
drbd_utils=9.22.0-1+b1
qemu=10.0.7
libvirt=11.3.0
"""


def node(name: str, printed: str) -> Node:
    made = FakeNode(Story(), name)
    made.runner = ScriptedRunner(lambda argv: (0, printed, ""), name)
    return cast(Node, cast(Any, made))


def read_stack(a: Node, b: Node, suite: str, accelerator: str) -> Stack:
    return stack_of(*read_software(a, b), suite, accelerator)


def test_read_stack_of_two_equal_nodes_has_each_version_once() -> None:
    stack = read_stack(node("nodea", PRINTED), node("nodeb", PRINTED), "trixie", "tcg")
    assert (stack.suite, stack.accelerator) == ("trixie", "tcg")
    assert (stack.kernel, stack.drbd, stack.drbd_utils) == ("6.12.57+deb13-amd64", "8.4.11", "9.22.0-1+b1")
    assert stack.kernel_build == "#1 SMP PREEMPT_DYNAMIC Debian 6.12.57-1 (2025-11-05)"
    assert (stack.drbd_srcversion, stack.drbd_git_hash) == ("F73C670A7EC572DB9CF3E5B", "")
    assert (stack.qemu, stack.libvirt) == ("10.0.7", "11.3.0")


def test_read_stack_of_two_nodes_that_differ_has_both_versions() -> None:
    other = PRINTED.replace("F73C670A7EC572DB9CF3E5B", "637677C4EAFCF5D1D5446B0").replace("qemu=10.0.7\n", "")
    stack = read_stack(node("nodea", PRINTED), node("nodeb", other), "trixie", "tcg")
    assert stack.drbd_srcversion == "F73C670A7EC572DB9CF3E5B / 637677C4EAFCF5D1D5446B0"
    assert stack.qemu == "10.0.7 / ", "one does not report its QEMU"


def test_read_stack_of_a_node_that_reports_something_else_ignores_it() -> None:
    noise = f"Welcome to this=that\n\n{PRINTED}suite=potato\n"
    assert read_stack(node("nodea", noise), node("nodeb", noise), "trixie", "tcg").suite == "trixie"
    silent = read_stack(node("nodea", ""), node("nodeb", ""), "trixie", "tcg")
    assert (silent.kernel, silent.drbd_srcversion) == ("", "")


@pytest.mark.parametrize(
    ("recording", "version", "git_hash"),
    [
        ("drbd-8.4.11-linux-6.12/proc-drbd-after-verify.txt", "8.4.11", ""),
        ("drbd-8.4.11-linux-6.1/proc-drbd-after-verify.txt", "8.4.11", ""),
        ("drbd-9.3.3-linux-6.12/proc-drbd.txt", "9.3.3", "HEAD"),
    ],
)
def test_commands_of_the_stack_read_a_recorded_proc_drbd(recording: str, version: str, git_hash: str) -> None:
    def printed(name: str) -> str:
        command = module._COMMANDS[name].replace("/proc/drbd", shlex.quote(str(RECORDINGS / recording)))
        return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.strip()

    assert (printed("drbd"), printed("drbd_git_hash")) == (version, git_hash)


def test_read_stack_names_the_processor_of_the_controller() -> None:
    printed = Path("/proc/cpuinfo").read_text()
    cpu = read_stack(node("nodea", PRINTED), node("nodeb", PRINTED), "trixie", "tcg").cpu
    assert cpu in printed and bool(cpu) == ("model name" in printed)
