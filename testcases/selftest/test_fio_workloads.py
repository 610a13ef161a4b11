"""Workloads that are a job of fio: what the job says, what is modified in flight, and what is read back wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import pytest
from workload_machine import EXT4, FIO_JSON, WRONG_JSON, WRONG_WORDS, Below, answers, jobs, made, runner, script, target

from harness.drbd.resource import Resource
from harness.filesystems.base import ReplicaView
from harness.model import BlockOwner
from harness.remote.scripted import ScriptedRunner
from harness.workloads.base import WorkloadTarget

__all__ = ["runner", "target"]


def test_steady_same_writer_as_inflight_modify_but_nobody_modifies(
    target: WorkloadTarget, runner: ScriptedRunner
) -> None:
    steady, modified = made("steady").work(target, 7), made("inflight-modify").work(target, 7)
    alone, both = jobs(runner, "steady"), jobs(runner, "inflight-modify")
    assert set(both) - set(alone) == {"scribbler"}
    assert (alone["writer"], alone["global"]) == (both["writer"], both["global"])
    buffer = alone["writer"]["mem"].removeprefix("mmapshared:")
    assert sum(buffer in argv for argv in runner.ran if argv[0] == "sh") == 4, "made and removed each time"
    assert steady.facts["writer_write_bytes"] == modified.facts["writer_write_bytes"] > 0
    assert steady.opportunities is None, "nothing it writes has a chance to diverge"


def test_inflight_modify_job_changes_its_buffer(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    work = made("inflight-modify").work(target, 7)
    found = jobs(runner, "inflight-modify")
    writer, scribbler, common = found["writer"], found["scribbler"], found["global"]
    assert (writer["filename"], writer["direct"], writer["ioengine"]) == ("/dev/vdb", "1", "libaio")
    assert writer["mem"] == f"mmapshared:{scribbler['filename']}", "else nothing is changed in flight"
    kib = int(writer["iodepth"]) * int(writer["bs"].removesuffix("k"))
    assert scribbler["size"] == f"{kib}k", "all buffers, and nothing behind them"
    assert (scribbler["ioengine"], scribbler["rw"]) == ("mmap", "randwrite")
    assert int(scribbler["bs"]) < 4096
    assert (common["time_based"], common["runtime"]) == ("1", "7")
    created, removed = runner.ran[0], runner.ran[-1]
    assert int(created[-1]) >= kib * 1024 and scribbler["filename"] in created and scribbler["filename"] in removed
    assert work.facts["writer_write_bytes"] == 4 << 20 and work.seconds > 0
    assert made("inflight-modify").owners(cast(ReplicaView, None), [1])[1].owner is BlockOwner.ALLOCATED


@pytest.mark.parametrize(("scribbles", "opportunities"), [(300, 300.0), (10**6, 1024.0), (0, 0.0)])
def test_inflight_modify_opportunities_no_more_than_blocks_or_modifications(
    target: WorkloadTarget, scribbles: int, opportunities: float
) -> None:
    both = json.loads(FIO_JSON)
    (writer,) = both["jobs"]
    write = {**writer["write"], "total_ios": scribbles, "io_bytes": 512 * scribbles}
    both["jobs"] = [writer, {**writer, "jobname": "scribbler", "write": write}]
    runner = ScriptedRunner(lambda argv: (0, json.dumps(both), "") if argv[0] == "fio" else answers(argv))
    work = made("inflight-modify").work(replace(target, runner=runner), 7)
    assert work.facts["scribbler_write_bytes"] == 512 * scribbles
    assert (work.opportunities, work.opportunity) == (
        opportunities, "blocks written from buffers that were being modified",
    )  # fmt: skip


def test_fio_verify_job_direct_continues_after_error(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    work = made("fio-verify").work(target, 7)
    job = jobs(runner, "fio-verify")["verified"]
    assert (job["filename"], job["direct"], job["verify"]) == ("/dev/vdb", "1", "crc32c")
    assert int(job["verify_backlog"]) * 4 < 64 * 1024, "read back while it works, not at the end"
    assert (job["continue_on_error"], job["time_based"], job["runtime"]) == ("verify", "1", "7")
    assert "mem" not in job, "nobody scribbles"
    assert work.notes == ()
    assert work.seconds > 0 and made("fio-verify").owners(cast(ReplicaView, None), [1])[1].owner is BlockOwner.ALLOCATED


def test_fio_verify_errors_counted_with_messages(target: WorkloadTarget) -> None:
    wrong = ScriptedRunner(lambda argv: (84, WRONG_JSON, WRONG_WORDS) if argv[0] == "fio" else (0, "", ""))
    work = made("fio-verify").work(replace(target, runner=wrong), 7)
    assert work.read_back_errors == 3 and len(work.notes) == 3 and "offset 81920" in work.notes[1]


def test_inflight_modify_ext4_writes_file(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    workload = made("inflight-modify", EXT4)
    workload.prepare(target)
    assert "mkfs.ext4" in script(runner.ran[0]) and "-b 4096" in script(runner.ran[0])
    assert "lazy_itable_init=0" in script(runner.ran[0]), "nothing of the file system may write behind our back"
    workload.work(target, 7)
    writer = jobs(runner, "inflight-modify")["writer"]
    assert writer["filename"] == "/mnt/drbd-harness/modified" and writer["direct"] == "1"
    workload.quiesce(target)
    assert "umount" in script(runner.ran[-1])


def test_buffered_read_back_after_caches_dropped(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    workload = made("buffered", EXT4)
    workload.work(target, 8)
    written = jobs(runner, "buffered")
    assert written["global"] == {"runtime": "8", "time_based": "1", "do_verify": "0"}
    del runner.ran[:]
    assert workload.quiesce(target) == 0
    steps = [argv[0] if argv[0] in ("fio", "rm") else script(argv) for argv in runner.ran]
    assert "umount" in steps[0] and "mount -t ext4" in steps[1] and steps[2:4] == ["fio", "rm"] and "umount" in steps[4]
    read = jobs(runner, "buffered-read")["buffered"]
    write = written["buffered"]
    assert (read["rw"], write["rw"], read["verify"]) == ("read", "randwrite", "crc32c")
    assert {read[key] == write[key] for key in ("directory", "size", "bs", "numjobs", "randseed")} == {True}


def test_buffered_last_read_back_errors_counted() -> None:
    def wrong(argv: tuple[str, ...]) -> tuple[int, str, str]:
        return (1, WRONG_JSON, WRONG_WORDS) if argv[0] == "fio" else (0, "", "")

    target = WorkloadTarget(ScriptedRunner(wrong), "/dev/vdb", cast(Resource, Below(9)))
    assert made("buffered", EXT4).quiesce(target) == 3
