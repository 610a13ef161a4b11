"""Workloads that are a storm of pages: pressure, reclaim, mmap and truncate; what of it the kernel counted."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from workload_machine import EXT4, STORM, SWAP, answers, made, runner, script, storms, target

from harness.filesystems.base import OwnedBlock, ReplicaView
from harness.judgement.workload_proof import did_nothing
from harness.model import BlockOwner
from harness.remote.scripted import ScriptedRunner
from harness.workloads.base import WorkloadTarget

__all__ = ["runner", "target"]


def test_pressure_size_beyond_memory_within_swap(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    workload = made("pressure", SWAP)
    workload.prepare(target)
    assert ["mkswap" in script(runner.ran[0]), "swapon" in script(runner.ran[1])] == [True, True]
    assert runner.ran[0][-1] == runner.ran[1][-1] == "/dev/vdb"
    work = workload.work(target, 8)
    argv = storms(runner)[-1]
    names = ("--mebibytes", "--threads", "--seconds", "--sweep-seconds")
    assert {name: argv[argv.index(name) + 1] for name in names} == {
        "--mebibytes": str(200 + 60), "--threads": "8", "--seconds": "8", "--sweep-seconds": "5",
    }  # fmt: skip
    assert "--reclaim-every" not in argv, "nothing but the pressure itself"
    assert work.seconds == 8.25 and work.facts["pages_dirtied"] == 123456.0
    assert (work.opportunities, work.read_back_errors, work.notes) == (None, 0, ())
    workload.quiesce(target)
    assert "swapoff" in script(runner.ran[-1])
    found = workload.owners(cast(ReplicaView, None), [0, 9])
    assert found == {
        0: OwnedBlock(BlockOwner.METADATA, "swap header"),
        9: OwnedBlock(BlockOwner.FREE, "free swap slot"),
    }


def test_reclaim_as_pressure_but_reclaiming(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    made("pressure", SWAP).work(target, 8)
    work = made("reclaim", SWAP).work(target, 8)
    plain, reclaiming = storms(runner)
    assert reclaiming == (*plain, "--reclaim-every", "8")
    assert (work.opportunities, work.opportunity) == (289.0, "pages reclaimed while they were being changed")


def test_pressure_pages_swapped_counted_by_the_kernel(target: WorkloadTarget) -> None:
    counters = iter([(3, 100), (5, 4100)])

    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        if argv == ("cat", "/proc/vmstat"):
            read, written = next(counters)
            return 0, f"pswpin {read}\npswpout {written}\n", ""
        return answers(argv)

    facts = made("pressure", SWAP).work(replace(target, runner=ScriptedRunner(answer)), 8).facts
    assert (facts["pages_swapped_in"], facts["pages_swapped_out"]) == (2.0, 4000.0)
    silent = ScriptedRunner(lambda argv: (0, "", "") if argv[-1] == "/proc/vmstat" else answers(argv))
    facts = made("pressure", SWAP).work(replace(target, runner=silent), 8).facts
    assert "pages_swapped_out" not in facts, "what the kernel does not say is no zero"


def test_pressure_pages_put_out_for_a_move_are_no_proof_that_it_swaps(target: WorkloadTarget) -> None:
    counters = iter([100, 170])
    storm = STORM.replace('"pages_wrong": 0', '"pages_wrong": 0, "pages_put_out": 70')

    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        if argv == ("cat", "/proc/vmstat"):
            return 0, f"pswpout {next(counters)}\n", ""
        return (0, storm, "") if argv[0].endswith("storm") else answers(argv)

    work = made("pressure", SWAP).work(replace(target, runner=ScriptedRunner(answer)), 8)
    assert work.facts["pages_swapped_out"] == 0.0
    assert did_nothing("pressure", work) is not None


def test_pressure_wrong_pages_are_wrong_reads_with_sentences(target: WorkloadTarget) -> None:
    sentence = "swapstorm: page 5, read from swap, is wrong: its checksum does not fit"
    storm = STORM.replace('"pages_wrong": 0', '"pages_wrong": 2')
    wrong = ScriptedRunner(lambda argv: (0, storm, f"{sentence}\n") if argv[0].endswith("storm") else answers(argv))
    work = made("reclaim", SWAP).work(replace(target, runner=wrong), 8)
    assert (work.read_back_errors, work.notes, work.facts["pages_wrong"]) == (2, (sentence,), 2.0)


def test_mmap_processes_and_seconds_as_requested(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    workload = made("mmap", EXT4)
    workload.prepare(target)
    work = workload.work(target, 8)
    argv = runner.ran[-1]
    asked = {name: argv[argv.index(name) + 1] for name in ("--file", "--threads", "--seconds")}
    assert asked == {"--file": "/mnt/drbd-harness/mapped", "--threads": "2", "--seconds": "8"}
    assert "--cut-every" not in argv, "what it wrote is looked at after the crash"
    assert (work.seconds, work.opportunities) == (8.25, None)
    work = made("truncate", EXT4).work(target, 8)
    assert runner.ran[-1] == (*argv, "--cut-every", "2500")
    assert (work.opportunities, work.opportunity) == (6100.0, "changed pages that were truncated")
