"""The flush probe as a cell: what it asks the node's QEMU, what it makes of the answers, and what the verdict says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from judged_evidence import evidence, observed
from test_flush_probe import EARLY, FLUSHED, RECORDINGS

from harness.config.matrix import cells_from, load
from harness.errors import InfrastructureError, RefusedError, UsageError
from harness.filesystems.base import WorkloadTarget
from harness.judgement.acknowledged import NONE_EARLY
from harness.judgement.bisect import Answer, Question
from harness.judgement.judge import judge
from harness.judgement.standing import Level, level_of
from harness.judgement.workload_proof import did_nothing
from harness.model import (
    AioMode,
    CacheMode,
    Cell,
    ClientKind,
    Control,
    ControlOutcome,
    DelayProfile,
    Expectation,
    Result,
    VerdictKind,
    Work,
)
from harness.remote.scripted import Answer as Scripted
from harness.remote.scripted import ScriptedRunner
from harness.util.resources import matrices
from harness.workloads import WORKLOADS, workload_of

CELL = Cell(
    "flush-probe", client=ClientKind.HOST, cache=CacheMode.WRITETHROUGH, delays=DelayProfile(flush_delay_ms=800)
)
# A write that nobody flushed, as qemu-io reports it.
PLAIN = "wrote 4096/4096 bytes at offset 524288\n4 KiB, 1 ops; 00.01 sec (399 KiB/sec and 99.9 ops/sec)\n"
NEEDED = {
    "qemu-io": "qemu-io version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright",
    "qemu-system-x86_64": "QEMU emulator version 10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)\nCopyright",
}


def node(plays: str, flush_ms: str = "812", plain: str = PLAIN, has: Mapping[str, str] = NEEDED) -> ScriptedRunner:
    def answer(argv: tuple[str, ...]) -> Scripted:
        if "--version" in argv:
            return (0, has[argv[0]], "") if argv[0] in has else (127, "", "sh: 1: not found")
        if argv[0] == "qemu-io":
            return (0, plain if "aio_write 512k 4k" in argv else plays, "")
        return (0, flush_ms if "fdatasync" in argv[2] else "", "")

    return ScriptedRunner(answer)


def target(runner: ScriptedRunner) -> WorkloadTarget:
    return WorkloadTarget(runner, "/dev/drbd1000", cast(Any, SimpleNamespace(blocks=32768)))


def played(runner: ScriptedRunner, cell: Cell = CELL, seconds: int = 0) -> Work:
    workload = workload_of(cell)
    workload.prepare(target(runner))
    return workload.work(target(runner), seconds)


# --------------------------------------------------------------------------- what is asked, and counted


def test_work_writes_that_waited_for_their_flush_are_not_early() -> None:
    work = played(runner := node(FLUSHED))
    assert work.facts == {
        "flush_ms": 812.0, "unflushed_write_ms": 10.0, "acknowledged_writes": 3.0, "acknowledged_early": 0.0,
        "early_first": 0.0, "early_alone": 0.0, "early_meanwhile": 0.0,
    }  # fmt: skip
    assert work.notes[0] == "cache=writethrough, aio=threads, host_device"
    assert "the next write, alone: flushed first 1 of 1 (0.8" in work.notes[2]
    asked = [argv for argv in runner.ran if argv[0] == "qemu-io" and "--version" not in argv]
    assert [argv[:3] for argv in asked] == [("qemu-io", "-t", "writeback"), ("qemu-io", "-t", "writethrough")]
    assert asked[1][4] == "driver=host_device,filename=/dev/drbd1000,aio=threads"
    assert asked[1][5:9] == ("-c", "aio_write 64k 4k", "-c", "sleep 1000")
    assert did_nothing("flush-probe", work) is None and did_nothing("flush-probe", Work(1.0)) is not None


def test_work_writes_that_did_not_are_counted_by_which_they_are() -> None:
    work = played(node(EARLY))
    assert (work.facts["acknowledged_early"], work.facts["acknowledged_writes"]) == (2.0, 3.0)
    assert [work.facts[f"early_{which}"] for which in ("first", "alone", "meanwhile")] == [1.0, 0.0, 1.0]
    assert work.notes[1].startswith("the first write after opening: early 1 of 1 (0.0")


def test_work_below_a_raw_layer_asks_so() -> None:
    played(runner := node(FLUSHED), replace(CELL, workload="flush-probe-raw-layer", aio=AioMode.IO_URING))
    plain, asked = [argv for argv in runner.ran if argv[0] == "qemu-io" and "--version" not in argv]
    assert plain[2] == "writeback", "not flushed"
    assert asked[4] == "driver=raw,file.driver=host_device,file.filename=/dev/drbd1000,file.aio=io_uring"


# What the QEMU 10.0.13 of a node did on DRBD: first threads, then threads below a raw layer, then io_uring.
ON_DRBD = (RECORDINGS / "10.0-drbd.txt").read_text().split("== ")[1:]


def test_work_of_a_recorded_node_on_drbd() -> None:
    early = {}
    for part in ON_DRBD:
        image, _, output = part.partition("\n")
        early.setdefault(image, []).append(played(node(output)).facts["acknowledged_early"])
    assert early == {
        "cache=writethrough, aio=threads, host_device": [2.0, 2.0],
        "cache=writethrough, aio=threads, raw above host_device": [2.0, 2.0],
        "cache=writethrough, aio=io_uring, host_device": [0.0, 0.0],
    }


@pytest.mark.parametrize(
    ("runner", "kind", "words"),
    [
        (node(FLUSHED, flush_ms="12"), InfrastructureError, "took 12 ms, and 800 ms were asked for"),
        (node(FLUSHED, plain=PLAIN.replace("00.01 sec", "0:00:01.50")), InfrastructureError, "too slow to tell"),
        (node(FLUSHED, plain="wrote nothing"), InfrastructureError, "took unknown"),
        (node("\n".join(FLUSHED.splitlines()[:4])), InfrastructureError, "reports 2 of 3 writes"),
        (node("it does not open"), RefusedError, "it does not open"),
        (node(FLUSHED, has={}), RefusedError, "it has no qemu-io"),
        (node(FLUSHED, has=NEEDED | {"qemu-io": "qemu-io version 7.2.22"}), RefusedError, "is 7.2.22, its QEMU 10"),
    ],
)  # fmt: skip
def test_work_that_cannot_tell_says_why(runner: ScriptedRunner, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words.replace(".", r"\.")):
        played(runner)


def test_work_of_a_real_qemu_on_a_slow_disk() -> None:
    """In a process of its own: it leaves the mount namespace of the others."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        pytest.skip("needs root, FUSE and loop devices")
    if any(shutil.which(program) is None for program in NEEDED):
        pytest.skip("needs qemu-io and qemu-system-x86_64")
    script = """
import tempfile
from pathlib import Path
from types import SimpleNamespace
from test_flush_workload import CELL
from harness.doctor.other_root import private_mounts
from harness.doctor.slow_flush import slow_disk
from harness.filesystems.base import WorkloadTarget
from harness.remote.local import LocalRunner
from harness.workloads import workload_of
private_mounts()
with tempfile.TemporaryDirectory() as folder, slow_disk(Path(folder), 0.8) as disk:
    target, workload = WorkloadTarget(LocalRunner(), str(disk), SimpleNamespace(blocks=256)), workload_of(CELL)
    workload.prepare(target)
    facts = workload.work(target, 1).facts
    assert facts["acknowledged_writes"] == 3 and facts["early_alone"] == 0 and facts["unflushed_write_ms"] < 790, facts
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, env=environment)


# --------------------------------------------------------------------------- the cell


def test_matrix_flush_has_four_cells_with_an_id_each() -> None:
    ids = [cell.id for cell in load("flush", WORKLOADS, matrices()).cells]
    assert ids == [
        "host-flush-probe-writethrough-flush800ms", "host-flush-probe-writethrough-iouring-flush800ms",
        "host-flush-probe-raw-layer-writethrough-flush800ms",
        "host-flush-probe-raw-layer-writethrough-iouring-flush800ms",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"client": "guest"}, 'write client = "host"'),
        ({"cache": "writeback"}, 'is about cache = "writethrough", with which QEMU flushes by itself, not writeback'),
        ({"cache": "directsync"}, "QEMU may flush by FUA then"),
        ({"cache": None}, "not none given"),
        ({"flush_delay_ms": 100}, "'flush_delay_ms' of 200 at least"),
        ({"link_delay_ms": 20}, "no other delay than 'flush_delay_ms'"),
        ({"layout": "lvm"}, 'goes with layout = "raw" only'),
        ({"bus": "scsi"}, "'bus' is given with client = \"host\""),
        ({"workload": "steady"}, "'cache' is given with client = \"host\""),
    ],
)
def test_matrix_probe_that_cannot_tell_one_sentence(changed: dict[str, Any], words: str) -> None:
    entry = {"workload": "flush-probe", "client": "host", "cache": "writethrough", "flush_delay_ms": 800, **changed}
    with pytest.raises(UsageError) as refused:
        cells_from({key: value for key, value in entry.items() if value is not None}, WORKLOADS, "here")
    assert words in str(refused.value)


# --------------------------------------------------------------------------- the verdict


def found(early: float, *, cell: Cell = CELL, **facts: Any) -> Result:
    counted = {"acknowledged_writes": 12.0, "acknowledged_early": early, "early_first": early / 2,
               "early_alone": 0.0, "early_meanwhile": early / 2}  # fmt: skip
    seen = replace(observed(cell), flush_delay_ms=cell.delays.flush_delay_ms)
    one = evidence(cell, observed=seen, work=Work(30.0, counted), **facts)
    return Result(cell, judge(one, HELD), one)


HELD = {control: ControlOutcome(control, True, "it held") for control in Control}


def test_verdict_none_early_begins_with_it() -> None:
    verdict = found(0.0).verdict
    assert verdict is not None and verdict.kind is VerdictKind.CLEAN, verdict
    assert verdict.sentence.startswith(f"{NONE_EARLY} (0 of 12); ") and verdict.acknowledged_early == 0
    assert verdict.meets(None) and level_of(found(0.0)) is Level.EQUAL


def test_verdict_some_early_is_a_finding_and_no_corruption() -> None:
    result = found(8.0)
    verdict = result.verdict
    assert verdict is not None and verdict.kind is VerdictKind.CLEAN, "nothing was lost"
    assert verdict.sentence.startswith(
        "8 of 12 writes were acknowledged before they were flushed (the first write after opening: 4 of 4,"
        " a write that came while another was being flushed: 4 of 4); "
    )
    assert not verdict.meets(None) and not verdict.meets(Expectation((VerdictKind.CLEAN,), "why", NONE_EARLY))
    assert Level.EQUAL < Level.REFUSED < Level.EARLY < Level.DIVERGED and level_of(result) is Level.EARLY


def test_verdict_without_an_answer_says_nothing_of_it() -> None:
    verdict = found(8.0, equal_before=False).verdict
    assert verdict is not None and verdict.kind is VerdictKind.INCONCLUSIVE and verdict.acknowledged_early is None


def test_bisect_early_acknowledgement_is_bad_with_what_diverges() -> None:
    question = Question(VerdictKind.DIVERGED)
    assert question.answer(question.counts([found(0.0), found(8.0)]), 5) is Answer.BAD
    assert question.answer(question.counts([found(0.0)]), 1) is Answer.GOOD
    assert Question(VerdictKind.CORRUPT).answer(Question(VerdictKind.CORRUPT).counts([found(8.0)]), 1) is Answer.GOOD
