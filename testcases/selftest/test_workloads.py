"""What each workload asks of the machine it runs on, and whose blocks it says they are."""

from __future__ import annotations

import configparser
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.drbd.resource import Resource
from harness.errors import CommandError, InfrastructureError
from harness.filesystems import ownership
from harness.filesystems.ownership import Owned
from harness.model import Extent, Owner, Ownership, Work, blocks_of
from harness.remote.base import Completed
from harness.remote.local import LocalRunner
from harness.remote.scripted import ScriptedRunner
from harness.render.fio_job import Job, Option
from harness.workloads import base
from harness.workloads.base import (
    MARGIN_SECONDS,
    WORKLOADS,
    Ext4Buffered,
    Planted,
    Recovered,
    Site,
    Workload,
    workload_named,
)
from harness.workloads.fio_runner import run_fio

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

RECORDINGS = Path(__file__).parent / "recordings"
FIO_JSON = (RECORDINGS / "fio" / "write-then-verify.json").read_text()
WRONG_JSON = (RECORDINGS / "fio" / "verify-failed-three-times.txt").read_text()
WRONG_WORDS = (RECORDINGS / "fio" / "verify-failed-three-times.stderr.txt").read_text()
MEMINFO = (
    "MemTotal: 393216 kB\nMemAvailable: 204800 kB\nSwapTotal: 131072 kB\nSwapFree: 102400 kB\nHugePages_Total: 0\n"
)
STORM = '{"seconds": 8.25, "pages": 123456, "threads": 8, "note": "x"}\n'


def answers(argv: tuple[str, ...]) -> tuple[int, str, str]:
    if argv[0] == "fio":
        return 0, FIO_JSON, ""
    if argv[0] == "cat":
        return 0, MEMINFO, ""
    if argv[0].endswith("storm"):
        return 0, STORM, ""
    return 0, "", ""


class Below:
    """A resource that only remembers what was planted."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.a, self.b = "a", "b"
        self.planted: list[tuple[object, tuple[Extent, ...]]] = []

    def plant(self, node: object, extents: tuple[Extent, ...]) -> None:
        self.planted.append((node, extents))


@pytest.fixture
def runner() -> ScriptedRunner:
    return ScriptedRunner(answers)


@pytest.fixture
def site(runner: ScriptedRunner) -> Site:
    return Site(runner, "/dev/vdb", cast(Resource, Below(32768)))


def jobs(runner: ScriptedRunner, name: str) -> dict[str, dict[str, str]]:
    """The sections of the job file that was written for the workload ``name``."""
    parsed = configparser.RawConfigParser(default_section="none")
    parsed.read_string(runner.written[f"/tmp/drbd-harness-{name}.fio"])
    return {section: dict(parsed[section]) for section in parsed.sections()}


def script(argv: tuple[str, ...]) -> str:
    assert argv[:2] == ("sh", "-ec")
    return argv[2]


# --------------------------------------------------------------------------- all of them


def test_they_are_found_by_their_names() -> None:
    assert set(WORKLOADS) == {
        "idle", "planted", "mutator", "fio-verify", "swap", "swap-reclaim",
        "ext4-buffered", "ext4-mmap", "ext4-cut", "ext4-mutator",
    }  # fmt: skip
    assert all(workload_named(name) is workload for name, workload in WORKLOADS.items())
    with pytest.raises(InfrastructureError, match="there is no workload 'swop'"):
        workload_named("swop")


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_each_runs_from_preparation_to_quiet_on_the_given_device_only(
    name: str, site: Site, runner: ScriptedRunner
) -> None:
    workload = WORKLOADS[name]
    workload.prepare(site)
    work = workload.work(site, 2)
    assert workload.quiesce(site) == 0
    assert work.seconds >= 0 and work.read_back_errors == 0
    devices = {word for argv in runner.ran for word in argv if word.startswith("/dev/vd")}
    devices |= {
        options["filename"]
        for path in runner.written
        for options in jobs(runner, path.removeprefix("/tmp/drbd-harness-").removesuffix(".fio")).values()
        if options.get("filename", "").startswith("/dev/vd")
    }
    assert devices <= {"/dev/vdb"}
    assert all("/dev/" not in script(argv).replace("/dev/null", "").replace("/dev/zero", "")
               for argv in runner.ran if argv[0] == "sh")  # fmt: skip


def test_a_script_stops_at_its_first_error_and_gets_its_arguments_apart(site: Site, runner: ScriptedRunner) -> None:
    site.sh('echo "$1"', "a b")
    assert runner.ran == [("sh", "-ec", 'echo "$1"', "sh", "a b")]


# --------------------------------------------------------------------------- one by one


def test_idle_waits_and_owns_nothing(site: Site, runner: ScriptedRunner) -> None:
    assert Workload().work(site, 3) == Work(3.0)
    assert runner.ran == [("sleep", "3")]
    assert Workload().owners(site, [5]) == {5: Owned(Owner.UNKNOWN, "idle owns no blocks")}


def test_planted_changes_the_secondary_only(site: Site) -> None:
    below = cast(Any, site.resource)
    work = Planted().work(site, 8)
    assert below.planted == [("b", Planted.extents(32768))]
    assert work.facts == {"planted_sectors": 80.0}


@given(st.integers(5011, 2**22))
def test_planted_sectors_are_on_the_device_apart_and_reach_both_its_ends(blocks: int) -> None:
    extents = Planted.extents(blocks)
    touched = [block for extent in extents for block in extent.blocks()]
    assert len(touched) == len(set(touched)) == 10
    assert min(touched) == 0 and max(touched) == blocks - 1
    assert all(extent.start % 8 == extent.size % 8 == 0 for extent in extents)


def test_planted_sectors_fit_on_a_small_device_too() -> None:
    # So many MiB, less what DRBD keeps for itself.
    sizes = [mebibytes * 256 - own for mebibytes in range(2, 32) for own in range(9, 13)]
    assert [blocks for blocks in sizes if max(blocks_of(Planted.extents(blocks))) >= blocks] == []


def test_the_mutator_scribbles_over_the_buffer_it_writes_from(site: Site, runner: ScriptedRunner) -> None:
    work = WORKLOADS["mutator"].work(site, 7)
    found = jobs(runner, "mutator")
    writer, scribbler, common = found["writer"], found["scribbler"], found["global"]
    assert (writer["filename"], writer["direct"], writer["ioengine"]) == ("/dev/vdb", "1", "libaio")
    assert writer["mem"] == f"mmapshared:{scribbler['filename']}", "else nothing is changed in flight"
    kib = int(writer["iodepth"]) * int(writer["bs"].removesuffix("k"))
    assert scribbler["size"] == f"{kib}k", "all buffers, and nothing behind them"
    assert (scribbler["ioengine"], scribbler["rw"]) == ("mmap", "randwrite")
    assert int(scribbler["bs"]) < 4096
    assert (common["time_based"], common["runtime"]) == ("1", "7")
    made, removed = runner.ran[0], runner.ran[-1]
    assert int(made[-1]) >= kib * 1024 and scribbler["filename"] in made and scribbler["filename"] in removed
    assert work.facts["writer_write_bytes"] == 4 << 20 and work.seconds > 0
    assert WORKLOADS["mutator"].owners(site, [1])[1].owner is Owner.LIVE


def test_fio_verify_reads_back_around_the_page_cache_and_goes_on_after_an_error(
    site: Site, runner: ScriptedRunner
) -> None:
    work = WORKLOADS["fio-verify"].work(site, 7)
    job = jobs(runner, "fio-verify")["verified"]
    assert (job["filename"], job["direct"], job["verify"]) == ("/dev/vdb", "1", "crc32c")
    assert int(job["verify_backlog"]) * 4 < 64 * 1024, "read back while it works, not at the end"
    assert (job["continue_on_error"], job["time_based"], job["runtime"]) == ("verify", "1", "7")
    assert "mem" not in job, "nobody scribbles"
    assert work.notes == ()
    assert work.seconds > 0 and WORKLOADS["fio-verify"].owners(site, [1])[1].owner is Owner.LIVE


def test_what_fio_verify_read_wrongly_is_counted_and_kept_in_fios_words(site: Site) -> None:
    wrong = ScriptedRunner(lambda argv: (84, WRONG_JSON, WRONG_WORDS) if argv[0] == "fio" else (0, "", ""))
    work = WORKLOADS["fio-verify"].work(replace(site, runner=wrong), 7)
    assert work.read_back_errors == 3 and len(work.notes) == 3 and "offset 81920" in work.notes[1]


def test_the_mutator_on_ext4_writes_a_file(site: Site, runner: ScriptedRunner) -> None:
    workload = WORKLOADS["ext4-mutator"]
    workload.prepare(site)
    assert "mkfs.ext4" in script(runner.ran[0]) and "-b 4096" in script(runner.ran[0])
    assert "lazy_itable_init=0" in script(runner.ran[0]), "nothing of the file system may write behind our back"
    workload.work(site, 7)
    writer = jobs(runner, "ext4-mutator")["writer"]
    assert writer["filename"] == "/mnt/drbd-harness/mutated" and writer["direct"] == "1"
    workload.quiesce(site)
    assert "umount" in script(runner.ran[-1])


def test_the_storm_is_larger_than_the_memory_and_fits_with_the_swap(site: Site, runner: ScriptedRunner) -> None:
    workload = WORKLOADS["swap"]
    workload.prepare(site)
    assert "mkswap" in script(runner.ran[0]) and "swapon" in script(runner.ran[0]) and runner.ran[0][-1] == "/dev/vdb"
    work = workload.work(site, 8)
    argv = runner.ran[-1]
    asked = {name: argv[argv.index(name) + 1] for name in ("--mebibytes", "--threads", "--seconds")}
    assert asked == {"--mebibytes": str(200 + 60), "--threads": "8", "--seconds": "8"}
    assert "--reclaim-every" not in argv, "nothing but the pressure itself"
    assert work == Work(8.25, {"seconds": 8.25, "pages": 123456.0, "threads": 8.0})
    workload.quiesce(site)
    assert "swapoff" in script(runner.ran[-1])
    found = workload.owners(site, [0, 9])
    assert found == {0: Owned(Owner.LIVE, "swap header"), 9: Owned(Owner.DEAD, "free swap slot")}


def test_buffered_files_are_read_back_after_everything_was_dropped(site: Site, runner: ScriptedRunner) -> None:
    workload = WORKLOADS["ext4-buffered"]
    workload.work(site, 8)
    written = jobs(runner, "ext4-buffered")
    assert written["global"] == {"runtime": "8", "time_based": "1", "do_verify": "0"}
    del runner.ran[:]
    assert workload.quiesce(site) == 0
    steps = [argv[0] if argv[0] == "fio" else script(argv) for argv in runner.ran]
    assert ["umount" in steps[0], "mount -t ext4" in steps[1], steps[2], "umount" in steps[3]] == [
        True,
        True,
        "fio",
        True,
    ]
    read = jobs(runner, "ext4-buffered-read")["buffered"]
    write = written["buffered"]
    assert (read["rw"], write["rw"], read["verify"]) == ("read", "randwrite", "crc32c")
    assert {read[key] == write[key] for key in ("directory", "size", "bs", "numjobs", "randseed")} == {True}


def test_what_the_last_reading_finds_wrong_is_counted() -> None:
    def wrong(argv: tuple[str, ...]) -> tuple[int, str, str]:
        return (1, WRONG_JSON, WRONG_WORDS) if argv[0] == "fio" else (0, "", "")

    site = Site(ScriptedRunner(wrong), "/dev/vdb", cast(Resource, Below(9)))
    assert WORKLOADS["ext4-buffered"].quiesce(site) == 3


def test_the_storm_that_reclaims_differs_in_nothing_else(site: Site, runner: ScriptedRunner) -> None:
    WORKLOADS["swap"].work(site, 8)
    plain = runner.ran[-1]
    WORKLOADS["swap-reclaim"].work(site, 8)
    assert runner.ran[-1] == (*plain, "--reclaim-every", "8")


def test_a_mapped_file_is_dirtied_by_many_for_as_long_as_asked(site: Site, runner: ScriptedRunner) -> None:
    workload = WORKLOADS["ext4-mmap"]
    workload.prepare(site)
    work = workload.work(site, 8)
    argv = runner.ran[-1]
    asked = {name: argv[argv.index(name) + 1] for name in ("--file", "--threads", "--seconds")}
    assert asked == {"--file": "/mnt/drbd-harness/mapped", "--threads": "2", "--seconds": "8"}
    assert "--cut-every" not in argv, "what it wrote is looked at after the crash"
    assert work.seconds == 8.25
    WORKLOADS["ext4-cut"].work(site, 8)
    assert runner.ran[-1] == (*argv, "--cut-every", "2500")


# --------------------------------------------------------------------------- after a crash


def crashed(mount: tuple[int, str, str], fsck: tuple[int, str, str], read: tuple[int, str, str]) -> ScriptedRunner:
    """A machine whose mount, fsck and fio say what they are told."""
    said = {"mount": mount, "e2fsck": fsck, "fio": read}
    return ScriptedRunner(lambda argv: said.get(argv[0], (0, "", "")))


CLEAN_FSCK = (0, "Pass 5\n/dev/vdb1: 11/100 files, 200/400 blocks\n", "e2fsck 1.47\n")


def test_a_workload_without_data_has_nothing_to_recover(site: Site, runner: ScriptedRunner) -> None:
    for name in ("idle", "planted", "mutator", "fio-verify", "swap", "swap-reclaim"):
        assert WORKLOADS[name].recover(site) == Recovered()
    assert runner.ran == [], "nothing may write to what is to be looked at"


@pytest.mark.parametrize("name", ["ext4-buffered", "ext4-mmap", "ext4-cut", "ext4-mutator"])
def test_a_file_system_is_mounted_first_and_checked_when_its_journal_was_replayed(name: str) -> None:
    runner = crashed((0, "", ""), CLEAN_FSCK, (0, FIO_JSON, ""))
    found = WORKLOADS[name].recover(Site(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(0, "/dev/vdb1: 11/100 files, 200/400 blocks", 0)
    ran = [script(argv) if argv[0] == "sh" else " ".join(argv) for argv in runner.ran]
    steps = [next(at for at, step in enumerate(ran) if word in step) for word in ("mount -t ext4", "umount", "e2fsck")]
    assert steps == sorted(steps) and "e2fsck -fn /dev/vdb1" in ran, "fsck changes nothing"
    assert not any("mkfs" in step for step in ran)


def test_after_a_crash_the_checksummed_data_is_read_back() -> None:
    runner = crashed((0, "", ""), CLEAN_FSCK, (1, WRONG_JSON, WRONG_WORDS))
    assert WORKLOADS["ext4-buffered"].recover(Site(runner, "/dev/vdb1", cast(Resource, Below(9)))).wrong_reads == 3


def test_what_fsck_finds_is_kept_with_its_last_words() -> None:
    runner = crashed((0, "", ""), (4, "Pass 1\n/dev/vdb1: ***** ERRORS *****\n", ""), (0, FIO_JSON, ""))
    found = WORKLOADS["ext4-mutator"].recover(Site(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert (found.fsck_status, found.words) == (4, "/dev/vdb1: ***** ERRORS *****")


def test_a_file_system_that_does_not_mount_is_an_answer_and_nothing_is_read() -> None:
    runner = crashed((32, "", "mount: wrong fs type\n"), (8, "bad superblock\n", ""), (0, FIO_JSON, ""))
    found = WORKLOADS["ext4-buffered"].recover(Site(runner, "/dev/vdb1", cast(Resource, Below(9))))
    assert found == Recovered(8, "mount: mount: wrong fs type; fsck: bad superblock", 0)
    assert "fio" not in {argv[0] for argv in runner.ran}


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


class Slow(Ext4Buffered):
    """As on a machine that does not write all of it in the time it is given."""

    def _job(self) -> Job:
        job = super()._job()
        options: dict[str, Option] = {**job.options, "rate_iops": "1000000,400"}
        return replace(job, options=options)


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed")
def test_a_slow_machine_is_not_corruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOUNT_POINT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    site = Site(Unmounted(f"{tmp_path}/"), "/dev/null", cast(Resource, Below(9)))
    Ext4Buffered().prepare(site)
    workload = Slow()
    work = workload.work(site, 1)
    assert work.read_back_errors == 0
    assert workload.quiesce(site) == 0, "what was never written is no wrong data"


# --------------------------------------------------------------------------- fio


def fio_says(status: int, stdout: str, stderr: str = "") -> ScriptedRunner:
    return ScriptedRunner(lambda _: (status, stdout, stderr))


def test_fio_is_run_on_the_file_that_was_put_there() -> None:
    runner = fio_says(0, FIO_JSON)
    ran = run_fio(runner, (Job("one", {"rw": "write"}),), name="x", arguments=("--aux-path=/tmp",), timeout=5)
    assert runner.ran == [("fio", "--output-format=json", "--aux-path=/tmp", "/tmp/drbd-harness-x.fio")]
    assert runner.written == {"/tmp/drbd-harness-x.fio": "[one]\nrw=write\n"}
    assert ran.read_back_errors == 0 and ran.result.jobs[0].write.ios == 1024


def test_wrong_data_is_a_result_and_not_an_error() -> None:
    assert run_fio(fio_says(1, WRONG_JSON, WRONG_WORDS), ()).read_back_errors == 3
    assert run_fio(fio_says(1, WRONG_JSON, ""), ()).read_back_errors >= 1, "the JSON alone tells too"


@pytest.mark.parametrize(
    ("runner", "error"),
    [
        (fio_says(1, FIO_JSON, "fio: io_u error: No space left on device"), CommandError),
        (fio_says(1, "", "fio: unrecognized option"), CommandError),
        (fio_says(127, "", "fio: not found"), CommandError),
        (fio_says(0, "", ""), InfrastructureError),
        (fio_says(0, "{}", ""), InfrastructureError),
    ],
)
def test_anything_else_that_fails_is_an_error(runner: ScriptedRunner, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_fio(runner, (Job("one"),))


# --------------------------------------------------------------------------- whose the blocks are


def debugfs(argv: tuple[str, ...], stdin: str) -> str:
    """A small ext4: 10 and 11 are a file's, 12 its journal's, 13 metadata, all others are free."""
    inodes = {10: 14, 11: 14, 12: 8}
    out = []
    for line in stdin.splitlines():
        command, *words = line.split()
        numbers = [int(word) for word in words]
        if command == "icheck":
            out.append("Block\tInode number")
            out += [f"{block}\t{inodes.get(block, '<block not found>')}" for block in numbers]
        elif command == "testb":
            out += [f"Block {block} {'marked in use' if block in (*inodes, 13) else 'not in use'}" for block in numbers]
        elif command == "ncheck":
            out.append("Inode\tPathname")
            out += ["14\t//data/file" for inode in numbers if inode == 14]
    return "\n".join(out) + "\n"


class Debugfs(ScriptedRunner):
    """Answers by what comes on standard input, as debugfs does."""

    def __init__(self, answer: Callable[[tuple[str, ...], str], str]) -> None:
        super().__init__(lambda _: (0, "", ""))
        self._by_input = answer
        self.inputs: list[str] = []

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 60, ok: Collection[int] = (0,)
    ) -> Completed:
        self.ran.append(tuple(argv))
        self.inputs.append(stdin or "")
        return Completed(self.host, tuple(argv), 0, self._by_input(tuple(argv), stdin or ""), "", 0.0)


def test_blocks_of_ext4_are_live_or_dead_as_the_file_system_says() -> None:
    runner = Debugfs(debugfs)
    assert ownership.ext4(runner, "/dev/drbd0", [13, 10, 12, 99]) == {
        10: Owned(Owner.LIVE, "/data/file"),
        12: Owned(Owner.LIVE, "inode 8"),
        13: Owned(Owner.LIVE, "file system metadata"),
        99: Owned(Owner.DEAD, "free space"),
    }
    assert set(runner.ran) == {("debugfs", "-f", "-", "/dev/drbd0")}


def test_a_file_system_that_says_nothing_leaves_no_block_dead() -> None:
    found = ownership.ext4(Debugfs(lambda argv, stdin: ""), "/dev/drbd0", [7])
    assert found[7].owner is not Owner.DEAD


def test_many_blocks_are_asked_in_turns_and_all_are_answered() -> None:
    runner = Debugfs(debugfs)
    blocks = list(range(100, 1350))
    found = ownership.ext4(runner, "/dev/drbd0", blocks)
    assert sorted(found) == blocks and {one.owner for one in found.values()} == {Owner.DEAD}
    assert max(len(text.split()) for text in runner.inputs) <= 1001
    assert ownership.ext4(runner, "/dev/drbd0", []) == {}


def test_too_many_blocks_to_search_for_are_unknown_and_not_dead() -> None:
    runner = Debugfs(debugfs)
    found = ownership.ext4(runner, "/dev/drbd0", range(100, 100 + ownership.MAX_SEARCHED + 10))
    counted = ownership.summary(found, "ext4")
    assert (counted.live, counted.dead, counted.unknown) == (0, ownership.MAX_SEARCHED, 10)
    assert "not searched" in found[100 + ownership.MAX_SEARCHED + 9].detail


def test_owners_are_counted_and_named_once() -> None:
    live, dead = Owned(Owner.LIVE, "a"), Owned(Owner.DEAD, "free")
    found = ownership.summary({1: live, 2: live, 3: dead, 4: Owned(Owner.UNKNOWN, "")}, "asking")
    assert found == Ownership(2, 1, 1, "asking", ("", "a", "free"))
    assert ownership.summary({}, "asking") == Ownership(method="asking")
    assert ownership.application([4])[4].owner is Owner.LIVE
    assert ownership.unknown([4], "why") == {4: Owned(Owner.UNKNOWN, "why")}


def test_numbers_are_taken_and_words_left() -> None:
    assert ownership.numbers(json.dumps({"a": 1, "b": 2.5, "c": "x", "d": None})) == {"a": 1.0, "b": 2.5}
    assert MARGIN_SECONDS > 60, "an emulated machine is slow to start a program"
