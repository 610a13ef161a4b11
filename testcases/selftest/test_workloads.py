"""What each workload asks of the machine it runs on, and whose blocks it says they are."""

from __future__ import annotations

import configparser
import itertools
import json
import re
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.user_work import OPTIONS
from harness.drbd.resource import Resource
from harness.errors import CommandError, InfrastructureError
from harness.filesystems import FILESYSTEMS, mounted
from harness.filesystems.base import CheckResult, Offers, OwnedBlock, ReplicaView
from harness.judgement.workload_proof import did_nothing
from harness.model import (
    BlockOwner,
    Cell,
    FilesystemCheck,
    FilesystemKind,
    PlantedChange,
    PlantedKind,
    UserFile,
    Work,
    blocks_of,
)
from harness.model.acknowledgement import QEMU_PROBES
from harness.remote.base import Completed
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.render.fio_job import Job, Option
from harness.workloads import WORKLOADS, fio, workload_of
from harness.workloads.base import MARGIN_SECONDS, Recovered, Workload, WorkloadTarget, numbers
from harness.workloads.controls import Planted
from harness.workloads.fio import Buffered

RECORDINGS = Path(__file__).parent / "recordings"
FIO_JSON = (RECORDINGS / "fio" / "write-then-verify.json").read_text()
WRONG_JSON = (RECORDINGS / "fio" / "verify-failed-three-times.txt").read_text()
WRONG_WORDS = (RECORDINGS / "fio" / "verify-failed-three-times.stderr.txt").read_text()
MEMINFO = (
    "MemTotal: 393216 kB\nMemAvailable: 204800 kB\nSwapTotal: 131072 kB\nSwapFree: 102400 kB\nHugePages_Total: 0\n"
)
VMSTAT = "nr_free_pages 812\npswpin 4000\npswpout 9000\n"
STORM = """{"seconds": 8.25, "threads": 8, "pages_dirtied": 123456, "pages_reclaimed": 289, "cuts": 3,
 "pages_truncated": 6100, "pages_checked": 130000, "pages_swapped_in_checked": 4000, "pages_wrong": 0, "note": "x"}\n"""


PROGRAM = {"files_found": 0, "files_left": 0, "files_made": 9, "files_rewritten": 8, "files_deleted": 7,
           "appended_bytes": 900, "truncations": 3, "transactions": 44, "wrong": 0, "seconds": 2.0}  # fmt: skip


def is_fio(argv: tuple[str, ...]) -> bool:
    return "fio" in argv


def answers(argv: tuple[str, ...]) -> tuple[int, str, str]:
    if argv[0] == "python3":
        return 0, json.dumps(PROGRAM), ""
    if is_fio(argv):
        return 0, FIO_JSON, ""
    if argv[0] == "cat":
        return 0, MEMINFO if argv[1] == "/proc/meminfo" else VMSTAT, ""
    if argv[0].endswith("storm"):
        return 0, STORM, ""
    return 0, "", ""


class Below:
    """A resource that only remembers what was planted, and when its cache was emptied."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.a, self.b = SimpleNamespace(name="nodea"), SimpleNamespace(name="nodeb")
        self.steps: list[tuple[str, list[PlantedChange]]] = []

    def sync(self) -> None:
        self.steps.append(("sync", []))

    def plant_below(self, node: SimpleNamespace, changes: Iterable[PlantedChange]) -> None:
        self.steps.append((node.name, list(changes)))


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner(answers)


@pytest.fixture
def target(runner: ScriptedRunner) -> WorkloadTarget:
    return WorkloadTarget(runner, "/dev/vdb", cast(Resource, Below(32768)))


def job_name(path: str) -> str:
    """What a job file is of; between its folder and this stands what nobody can know before."""
    found = re.fullmatch(r"/tmp/drbd-harness-[0-9a-f]{16}-(.+)\.fio", path)
    assert found is not None, path
    return found[1]


def jobs(runner: ScriptedRunner, name: str) -> dict[str, dict[str, str]]:
    """The sections of the job file that was written for the workload ``name``."""
    parsed = configparser.RawConfigParser(default_section="none")
    (text,) = {text for path, text in runner.written.items() if path.endswith(".fio") and job_name(path) == name}
    parsed.read_string(text)
    return {section: dict(parsed[section]) for section in parsed.sections()}


def made(workload: str, filesystem: FilesystemKind = FilesystemKind.RAW) -> Workload:
    file = UserFile("mine", "ab" * 32, "[mine]\nrw=write\n") if workload in OPTIONS else None
    return workload_of(Cell(workload, filesystem=filesystem, user_file=file))


def storms(runner: ScriptedRunner) -> list[tuple[str, ...]]:
    """The storms that were run."""
    return [argv for argv in runner.ran if argv[0].endswith("storm")]


# Those of Windows: test_windows.py; the probes of QEMU: test_flush_workload.py.
COMBINATIONS = [
    (name, kind)
    for name, kinds in WORKLOADS.items()
    for kind in kinds
    if FILESYSTEMS[kind].linux and name not in QEMU_PROBES
]
DIRECT = ("steady", "inflight-modify", "fio-verify", "fio-direct", "fio-cost", "fio-job")
CACHED = ("buffered", "fio-buffered", "mmap", "fio-mmap", "truncate", "append-delete", "small-files",
          "sqlite-wal", "sqlite-journal")  # fmt: skip
EXT4, SWAP = FilesystemKind.EXT4, FilesystemKind.SWAP
ON_FILES, ON_SWAP = (
    {kind for kind, filesystem in FILESYSTEMS.items() if filesystem.offers is offers}
    for offers in (Offers.FILES, Offers.SWAP)
)


def script(argv: tuple[str, ...]) -> str:
    assert argv[:2] == ("sh", "-ec")
    return argv[2]


# --------------------------------------------------------------------------- all of them


def test_workload_of_known_names_over_their_filesystems() -> None:
    assert {name: set(kinds) for name, kinds in WORKLOADS.items()} == {
        **{name: set(FilesystemKind) for name in ("no-writes", "guest-script")},
        **{name: {FilesystemKind.RAW} for name in QEMU_PROBES},
        "planted": {FilesystemKind.RAW},
        **{name: {FilesystemKind.RAW, *ON_FILES} for name in DIRECT},
        **dict.fromkeys(("pressure", "reclaim"), ON_SWAP),
        **dict.fromkeys(CACHED, ON_FILES),
    }
    for name, kind in COMBINATIONS:
        assert (made(name, kind).name, made(name, kind).filesystem) == (name, FILESYSTEMS[kind])


def test_workload_of_unknown_name_is_an_error() -> None:
    with pytest.raises(InfrastructureError, match="there is no workload 'swop'"):
        made("swop")


class Worker(ScriptedRunner):
    """A machine on which every program runs to its end and does what it is made for, or nothing at all."""

    def __init__(self, works: bool) -> None:
        super().__init__(self.reply)
        self._works = works
        self._swapped = 100

    def reply(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        if argv[-1] == "/proc/vmstat":
            self._swapped += 4000 if self._works else 0
            return 0, f"pswpin 5\npswpout {self._swapped}\n", ""
        if is_fio(argv):
            return 0, self._fio(job_name(argv[-1])), ""
        if argv[0] == "python3" and not self._works:
            return 0, json.dumps(dict.fromkeys(PROGRAM, 0)), ""
        if argv[0].endswith("storm") and not self._works:
            return 0, json.dumps(dict.fromkeys(json.loads(STORM), 0)), ""
        return answers(argv)

    def _fio(self, name: str) -> str:
        printed = json.loads(FIO_JSON)
        (job,) = printed["jobs"]
        write = job["write"] if self._works else {**job["write"], "io_bytes": 0, "total_ios": 0}
        names = [one for one in jobs(self, name) if one != "global"]
        printed["jobs"] = [{**job, "jobname": one, "write": write} for one in names]
        return json.dumps(printed)


@pytest.mark.parametrize(("name", "kind"), COMBINATIONS)
def test_workload_counts_what_proves_its_work(name: str, kind: FilesystemKind, target: WorkloadTarget) -> None:
    assert did_nothing(name, made(name, kind).work(replace(target, runner=Worker(works=True)), 2)) is None
    if name not in ("no-writes", "planted", "guest-script"):
        idle = made(name, kind).work(replace(target, runner=Worker(works=False)), 2)
        assert "did not do what it is made for" in (did_nothing(name, idle) or "")


@pytest.mark.parametrize(("name", "kind"), COMBINATIONS)
def test_workload_every_combination_touches_the_given_device_only(
    name: str, kind: FilesystemKind, runner: ScriptedRunner
) -> None:
    target = WorkloadTarget(runner, "/dev/vdb", cast(Resource, Below(81920)))
    workload = made(name, kind)
    workload.prepare(target)
    work = workload.work(target, 2)
    assert workload.quiesce(target) == 0
    assert work.seconds >= 0 and work.read_back_errors == 0
    devices = {word for argv in runner.ran for word in argv if word.startswith("/dev/vd")}
    devices |= {
        options["filename"]
        for path in runner.written
        if path.endswith(".fio")
        for options in jobs(runner, job_name(path)).values()
        if options.get("filename", "").startswith("/dev/vd")
    }
    assert devices <= {"/dev/vdb"}
    assert all("/dev/" not in script(argv).replace("/dev/null", "").replace("/dev/zero", "")
               for argv in runner.ran if argv[0] == "sh")  # fmt: skip
    variables = [word.partition("=")[2] for argv in runner.ran for word in argv if word.startswith("DRBD_FILE=")]
    files = {"/mnt/drbd-harness/fio-data", "/mnt/drbd-harness/user-data"}
    assert {*variables} <= (files if kind in ON_FILES else {"/dev/vdb"})


def test_script_error_stops_arguments_separate(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    target.sh('echo "$1"', "a b")
    assert runner.ran == [("sh", "-ec", 'echo "$1"', "sh", "a b")]


# --------------------------------------------------------------------------- one by one


def test_no_writes_only_waits(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    assert made("no-writes").work(target, 3) == Work(3.0)
    assert runner.ran == [("sleep", "3")]


def test_planted_both_sides_changed_below_flushed_device(target: WorkloadTarget) -> None:
    below = cast(Any, target.resource)
    workload = made("planted")
    work = workload.work(target, 8)
    assert [step for step, _ in below.steps] == ["sync", "nodea", "nodeb"]
    planted = {name: changes for name, changes in below.steps if changes}
    assert sorted(workload.planted) == sorted(one for changes in planted.values() for one in changes)
    assert {(one.node, one.kind) for one in workload.planted} == set(itertools.product(planted, PlantedKind))
    assert all(one.node == name for name, changes in planted.items() for one in changes)
    assert workload.planted == Planted.changes(32768, int(work.facts["seed"]), "nodea", "nodeb")
    assert work.facts["planted_sectors"] == sum(one.size for one in workload.planted)


def test_planted_seed_is_another_each_time_and_decides_all(target: WorkloadTarget) -> None:
    seeds = {made("planted").work(target, 8).facts["seed"] for _ in range(4)}
    assert len(seeds) == 4
    places = {Planted.changes(32768, seed, "a", "b") for seed in range(50)}
    assert len(places) == 50 and Planted.changes(32768, 7, "a", "b") in places


# So many MiB, less what DRBD keeps for itself.
SMALL = st.builds(lambda mebibytes, own: mebibytes * 256 - own, st.integers(2, 32), st.integers(9, 13))


@given(SMALL | st.integers(500, 2**22), st.integers(0, 2**32 - 1))
def test_planted_places_apart_inside_and_at_both_ends(blocks: int, seed: int) -> None:
    changes = Planted.changes(blocks, seed, "a", "b")
    touched = [sorted(blocks_of([one])) for one in changes]
    assert touched == sorted(touched) and touched[0] == [0] and touched[-1] == [blocks - 1]
    assert len(touched) == 2 + len(Planted.PLACES)
    gaps = [behind[0] - before[-1] for before, behind in itertools.pairwise(touched[1:-1])]
    assert min(gaps) >= (blocks - 2) // len(Planted.PLACES) // 2, "DRBD 8.4 does not print all of close neighbours"
    assert touched[1][0] >= 1 and touched[-2][-1] < blocks - 1
    for one in changes:
        assert (one.byte is not None) == (one.kind is PlantedKind.BYTE)
        assert one.byte is None or (0 <= one.byte < 512 and one.size == 1)


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


# --------------------------------------------------------------------------- after a crash


def crashed(mount: tuple[int, str, str], fsck: tuple[int, str, str], read: tuple[int, str, str]) -> ScriptedRunner:
    """A machine whose mount, fsck and fio say what they are told."""
    answers = {"mount": mount, "e2fsck": fsck, "fio": read}

    def answer(argv: tuple[str, ...]) -> tuple[int, str, str]:
        program = "mount" if argv[0] == "sh" and "mount -t" in argv[2] else argv[0]
        return answers.get(program, (0, "", ""))

    return ScriptedRunner(answer)


CLEAN_FSCK = (0, "Pass 5\n/dev/vdb1: 11/100 files, 200/400 blocks\n", "e2fsck 1.47\n")


def test_recover_without_data_nothing_done(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    for name, kind in COMBINATIONS:
        if kind in (FilesystemKind.RAW, SWAP):
            assert made(name, kind).recover(target) == Recovered()
    assert runner.ran == [], "nothing may write to what is to be looked at"


@pytest.mark.parametrize("name", ["buffered", "mmap", "truncate", "inflight-modify"])
def test_recover_ext4_mounted_then_checked(name: str) -> None:
    runner = crashed((0, "", ""), CLEAN_FSCK, (0, FIO_JSON, ""))
    found = made(name, EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(True, "", CheckResult(0, "/dev/vdb1: 11/100 files, 200/400 blocks"), 0)
    assert found.check.found is FilesystemCheck.CLEAN
    ran = [script(argv) if argv[0] == "sh" else " ".join(argv) for argv in runner.ran]
    steps = [next(at for at, step in enumerate(ran) if word in step) for word in ("mount -t ext4", "umount", "e2fsck")]
    assert steps == sorted(steps) and "e2fsck -fn /dev/vdb1" in ran, "fsck changes nothing"
    assert not any("mkfs" in step for step in ran)


def test_recover_buffered_data_read_back() -> None:
    runner = crashed((0, "", ""), CLEAN_FSCK, (1, WRONG_JSON, WRONG_WORDS))
    assert (
        made("buffered", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9)))).wrong_reads == 3
    )


def test_recover_fsck_errors_status_and_message() -> None:
    runner = crashed((0, "", ""), (4, "Pass 1\n/dev/vdb1: ***** ERRORS *****\n", ""), (0, FIO_JSON, ""))
    found = made("inflight-modify", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(True, "", CheckResult(4, "/dev/vdb1: ***** ERRORS *****"), 0)
    assert found.check.found is FilesystemCheck.DAMAGED


def test_recover_mount_fails_reported_nothing_read() -> None:
    said = "mount: wrong fs type\n       dmesg(1) may have more\n"
    runner = crashed((32, "", said), (8, "bad superblock\n", ""), (0, FIO_JSON, ""))
    found = made("buffered", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(False, "mount: wrong fs type dmesg(1) may have more", CheckResult(8, "bad superblock"), 0)
    assert "fio" not in {argv[0] for argv in runner.ran}


def test_recover_mount_not_tried_is_no_finding() -> None:
    runner = crashed((2, "", "there is no block device /dev/vdb1\n"), CLEAN_FSCK, (0, FIO_JSON, ""))
    with pytest.raises(CommandError, match="there is no block device"):
        made("buffered", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9))))


def test_recover_fsck_unable_says_why() -> None:
    errors = "e2fsck 1.47.0 (5-Feb-2023)\ne2fsck: Device or resource busy while trying to open /dev/vdb1\n"
    runner = crashed((0, "", ""), (8, "Possibly in use\n\n", errors), (0, FIO_JSON, ""))
    check = made("mmap", EXT4).recover(WorkloadTarget(runner, "/dev/vdb1", cast(Resource, Below(9)))).check
    assert check == CheckResult(8, "e2fsck: Device or resource busy while trying to open /dev/vdb1")
    assert check.found is FilesystemCheck.UNCHECKED and CheckResult().found is None


class Unmounted:
    """Runs fio here and passes over everything that mounts."""

    host = "controller"

    def __init__(self, options: str) -> None:
        self._here = LocalRunner()
        self._options = options

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        if argv[0] != "fio":
            return Completed(self.host, tuple(argv), 0, "", "", 0.0)
        path = self._options + Path(argv[-1]).name
        return self._here.run([*argv[:-1], path], timeout=timeout, ok=ok)

    def write(self, path: str, text: str) -> None:
        self._here.write(self._options + Path(path).name, text)


class Slow(Buffered):
    """As on a machine that does not write all of it in the time it is given."""

    def _job(self) -> Job:
        job = super()._job()
        options: dict[str, Option] = {**job.options, "rate_iops": "1000000,400"}
        return replace(job, options=options)


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
def test_verify_pattern_slow_machine_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fio, "MOUNT_POINT", str(tmp_path))
    monkeypatch.setattr(mounted, "MOUNT_POINT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    target = WorkloadTarget(Unmounted(f"{tmp_path}/"), "/dev/null", cast(Resource, Below(32768)))
    Buffered(FILESYSTEMS[EXT4]).prepare(target)
    workload = Slow(FILESYSTEMS[EXT4])
    work = workload.work(target, 1)
    assert work.read_back_errors == 0
    assert workload.quiesce(target) == 0, "what was never written is no wrong data"


def test_numbers_key_value_text_only_numbers() -> None:
    assert numbers(json.dumps({"a": 1, "b": 2.5, "c": "x", "d": None})) == {"a": 1.0, "b": 2.5}
    assert MARGIN_SECONDS > 60, "an emulated machine is slow to start a program"


# --------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("workload", ["steady", "inflight-modify", "fio-verify", "buffered"])
def test_seed_reaches_every_job_of_fio(target: WorkloadTarget, runner: ScriptedRunner, workload: str) -> None:
    kind = FilesystemKind.EXT4 if workload == "buffered" else FilesystemKind.RAW
    seeded = workload_of(Cell(workload, filesystem=kind, seed=77))
    seeded.prepare(target)
    seeded.work(target, 3)
    found = jobs(runner, workload)
    common = found.pop("global", {})
    assert [{**common, **job}["randseed"] for job in found.values()] == ["77"] * len(found) and found
    if workload == "buffered":
        seeded.read_back(target)
        assert {
            job["buffered"]["randseed"] for job in (jobs(runner, "buffered-layout"), jobs(runner, "buffered-read"))
        } == {"77"}, "what is read back is what was written"


def test_seed_unknown_leaves_fio_its_own_choice(target: WorkloadTarget, runner: ScriptedRunner) -> None:
    made("steady").work(target, 3)
    assert "randseed" not in jobs(runner, "steady")["global"] and jobs(runner, "steady")["global"]["randrepeat"] == "0"


@pytest.mark.parametrize(
    ("workload", "kind"), [("pressure", SWAP), ("reclaim", SWAP), ("mmap", FilesystemKind.EXT4)]
)  # fmt: skip
def test_seed_reaches_the_storms(
    target: WorkloadTarget, runner: ScriptedRunner, workload: str, kind: FilesystemKind
) -> None:
    workload_of(Cell(workload, filesystem=kind, seed=77)).work(target, 3)
    argv = storms(runner)[-1]
    assert argv[argv.index("--seed") + 1] == "77"
    workload_of(Cell(workload, filesystem=kind)).work(target, 3)
    assert "--seed" not in storms(runner)[-1]
