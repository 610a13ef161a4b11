"""Every workload on every filesystem: it touches its device alone and proves its work; planted blocks; the seed."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workload_machine import (
    COMBINATIONS,
    FIO_JSON,
    PROGRAM,
    STORM,
    SWAP,
    Below,
    answers,
    is_fio,
    job_name,
    jobs,
    made,
    runner,
    script,
    storms,
    target,
)

from harness.drbd.resource import Resource
from harness.errors import InfrastructureError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import Offers
from harness.judgement.workload_proof import did_nothing
from harness.model import Cell, FilesystemKind, PlantedKind, Work, blocks_of
from harness.model.acknowledgement import QEMU_PROBES
from harness.remote.scripted import ScriptedRunner
from harness.workloads import WORKLOADS, workload_of
from harness.workloads.base import MARGIN_SECONDS, WorkloadTarget, numbers
from harness.workloads.controls import Planted

__all__ = ["runner", "target"]

DIRECT = ("steady", "inflight-modify", "fio-verify", "fio-direct", "fio-cost", "fio-job")
CACHED = ("buffered", "fio-buffered", "mmap", "fio-mmap", "truncate", "append-delete", "small-files",
          "sqlite-wal", "sqlite-journal")  # fmt: skip

ON_FILES, ON_SWAP = (
    {kind for kind, filesystem in FILESYSTEMS.items() if filesystem.offers is offers}
    for offers in (Offers.FILES, Offers.SWAP)
)


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


def test_numbers_key_value_text_only_numbers() -> None:
    assert numbers(json.dumps({"a": 1, "b": 2.5, "c": "x", "d": None})) == {"a": 1.0, "b": 2.5}
    assert MARGIN_SECONDS > 60, "an emulated machine is slow to start a program"


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
