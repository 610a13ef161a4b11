"""What qemu-io of QEMU 7.2.22, 10.0.13 and 11.1.3 reports of its writes, recorded, and what follows from it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.doctor import flush_probe
from harness.doctor.flush_probe import IMAGES, lines
from harness.doctor.other_root import Root, root_of
from harness.errors import UsageError
from harness.parse.qemu_io import durations, unflushed
from harness.render.qemu_io import Image, three_writes

RECORDINGS = Path(__file__).parent / "recordings" / "qemu-io"
RAW, BARE = (
    Image("writethrough", "threads", "host_device", True),
    Image("writethrough", "threads", "host_device", False),
)
FIRST, LONE, MEANWHILE = range(3)


def recorded(name: str) -> dict[str, list[str]]:
    """The outputs of each image, by its name, in a file that --record wrote."""
    found: dict[str, list[str]] = {}
    for part in (RECORDINGS / name).read_text().split("== ")[1:]:
        image, _, output = part.partition("\n")
        found.setdefault(image, []).append(output)
    return found


FLUSHED = recorded("7.2-device.txt")[str(RAW)][0]
EARLY = recorded("10.0-device.txt")[str(RAW)][0]


def test_durations_of_a_recording_are_in_order() -> None:
    assert durations(FLUSHED) == pytest.approx((0.8, 0.8, 1.3), abs=0.1)
    assert durations(EARLY) == pytest.approx((0.0, 0.8, 0.5), abs=0.1)
    wrote = "wrote 4096/4096 bytes at offset 0\n4 KiB, 1 ops; "
    assert durations(f"{wrote}0:00:01.50 (2.66 KiB/sec and 0.67 ops/sec)\n") == (1.5,), "so it tells from 1 s on"
    assert durations(f"{wrote}1:01:02.50 (1 KiB/sec and 1 ops/sec)\n") == (3662.5,)
    assert durations("read 4096/4096 bytes at offset 0\n4 KiB, 1 ops; 00.40 sec (1 KiB/sec and 1 ops/sec)\n") == ()


def test_durations_of_writes_that_ended_out_of_order_are_the_same() -> None:
    of_each = EARLY.splitlines(keepends=True)
    assert durations("".join(of_each[2:4] + of_each[4:6] + of_each[0:2])) == durations(EARLY)


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1"])
@pytest.mark.parametrize("on", sorted(IMAGES))
def test_unflushed_of_each_recorded_version_is_what_the_docs_say(version: str, on: str) -> None:
    plays = recorded(f"{version}-{on}.txt")
    assert set(plays) == {str(image) for image in IMAGES[on]}
    for image in IMAGES[on]:
        took = [durations(output) for output in plays[str(image)]]
        assert len(took) == 5
        # In 7.2 the layer above flushed; since 10.0.3 it hands that down, where io_uring and native have RWF_DSYNC.
        affected = not image.raw if version == "7.2" else image.aio == "threads"
        early = [unflushed(one) for one in took]
        assert all((FIRST in one) is affected for one in early), f"{version}, {image}"
        assert not any(LONE in one for one in early), f"{version}, {image}"
        if not affected:
            assert not any(early), f"{version}, {image}"
        elif image.cache == "writethrough":
            assert any(MEANWHILE in one for one in early), f"{version}, {image}"


def test_tables_of_the_bug_report_are_the_recordings() -> None:
    text = (Path(__file__).parents[2] / "docs" / "qemu-missed-flush.md").read_text(encoding="utf-8")
    tables = text.partition("cache=directsync, where")
    written: dict[tuple[str, str], list[str]] = {}
    for cache, table in (("writethrough", tables[0]), ("directsync", tables[2])):
        for line in table.splitlines():
            row = [part.strip(" *").replace("*", "") for part in line.strip("|").split("|")]
            if len(row) == 4 and row[0].startswith(("threads, ", "native, ", "io_uring, ")):
                written[cache, row[0]] = row[1:]
    counted: dict[tuple[str, str], list[str]] = {}
    for on, images in IMAGES.items():
        for image in images:
            name = f"{image.aio}, {'raw above ' if image.raw else ''}{image.driver}"
            for version in ("7.2", "10.0", "11.1"):
                early = [unflushed(durations(output)) for output in recorded(f"{version}-{on}.txt")[str(image)]]
                figures = " / ".join(str(sum(which in one for one in early)) for which in (FIRST, LONE, MEANWHILE))
                counted.setdefault((image.cache, name), []).append(figures)
    assert written == counted


@pytest.mark.parametrize(("told", "status"), [(FLUSHED, 0), (EARLY, 1)])
def test_main_status_is_one_where_a_write_did_not_wait(
    told: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flush_probe.shutil, "which", lambda program: program)
    monkeypatch.setattr(flush_probe.Probe, "ask", lambda probe, image, disk: durations(told))
    qemu_io = tmp_path / "qemu-io"
    qemu_io.write_text("#!/bin/sh\necho qemu-io version 10.0\necho and more\n")
    qemu_io.chmod(0o755)
    assert flush_probe.main([str(qemu_io), "--on", "file", "--repeat", "2"]) == status
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "qemu-io version 10.0; each 2 times; a flush takes 0.8 s"
    assert printed[1] == "cache=writethrough, aio=threads, file:" and len(printed) == 9
    assert sum("ACKNOWLEDGED BEFORE IT WAS FLUSHED (2 of 2; " in line for line in printed) == 4 * status


def test_lines_count_the_plays_that_were_early() -> None:
    assert list(lines(BARE, [(0.0, 0.8, 0.5), (0.01, 0.9, 1.3)])) == [
        "cache=writethrough, aio=threads, host_device:",
        "  the first write after opening: ACKNOWLEDGED BEFORE IT WAS FLUSHED (2 of 2; 0.00 to 0.01 s)",
        "  the next write, alone: flushed first (2 of 2; 0.80 to 0.90 s)",
        "  a write that came while another was being flushed: "
        "ACKNOWLEDGED BEFORE IT WAS FLUSHED (1 of 2; 0.50 to 1.30 s)",
    ]


def test_image_options_pin_the_aio_mode_below_each_layer() -> None:
    assert BARE.options(Path("/dev/loop1")) == "driver=host_device,filename=/dev/loop1,aio=threads"
    native = Image("directsync", "native", "host_device", True)
    assert native.options(Path("/d")) == (
        "driver=raw,file.driver=host_device,file.filename=/d,file.aio=native,file.cache.direct=on"
    )


@given(st.lists(st.floats(0, 10), max_size=5), st.floats(0.1, 5))
def test_unflushed_with_more_time_never_names_more(took: list[float], delay: float) -> None:
    longer = [seconds + 1 for seconds in took]
    assert set(unflushed(longer, delay)) <= set(unflushed(took, delay))


def test_probe_of_a_trace_with_another_way_of_flushing_cannot_tell() -> None:
    _, bare, raw, ring = (RECORDINGS / "7.2-delay-exit.txt").read_text().split("\n== ")
    assert flush_probe.other_way(bare) is None and flush_probe.other_way(raw) is None
    assert "another way than" in (flush_probe.other_way(ring) or "")
    assert "RWF_DSYNC" in (flush_probe.other_way("1 pwritev2(4, [{...}], 1, 0, RWF_DSYNC) = 4096") or "")
    assert unflushed(durations(bare), 0.4) == (0, 2) and unflushed(durations(raw), 0.4) == ()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere/qemu-io"], "there is no "),
        (["--repeat", "0"], "--repeat is 0; it is at least 1"),
        (["--root", "/nowhere", "--on", "file"], "--root "),
    ],
)
def test_main_bad_input_prints_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flush_probe.main(arguments) == 4
    printed = capsys.readouterr().err
    assert sentence in printed and len(printed.splitlines()) == 1


def test_root_of_a_tree_names_what_is_below_it(tmp_path: Path) -> None:
    for name in ("dev", "tmp", "usr"):
        (tmp_path / name).mkdir()
    root = root_of(tmp_path)
    with root.folder("probe-") as folder:
        assert folder.is_dir() and root.name(folder) == Path("/tmp", folder.name)
    assert root.argv == ("chroot", str(tmp_path)) and Root().argv == ()
    with pytest.raises(UsageError, match="no root of a system"):
        root_of(tmp_path / "tmp")


def test_probe_of_another_program_raises_its_last_line(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    fake = tmp_path / "qemu-io"
    fake.write_text("#!/bin/sh\necho it is not one >&2\nexit 3\n")
    fake.chmod(0o755)
    probe = flush_probe.Probe(str(fake), Root())
    with pytest.raises(flush_probe.HarnessError, match="ended with 3: it is not one"), probe.disk("file") as disk:
        probe.ask(IMAGES["file"][0], disk)


def test_probe_that_cannot_keep_what_was_printed_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    fake = tmp_path / "qemu-io"
    fake.write_text("#!/bin/sh\necho fine\n")
    fake.chmod(0o755)
    for record, why in (("/dev/full", "No space left on device"), ("/nowhere/x", "No such file or directory")):
        assert flush_probe.main([str(fake), "--on", "file", "--record", record]) == 2
        assert capsys.readouterr().err == f"ci/probe-flush: --record: {record} cannot be written: {why}\n"


def test_slow_disk_write_fast_flush_slow_and_nothing_left() -> None:
    """In a process of its own: it leaves the mount namespace of the others."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not Path("/dev/loop-control").exists():
        pytest.skip("needs root, FUSE and loop devices")
    script = """
import os, tempfile, time
from pathlib import Path
from harness.doctor.other_root import private_mounts
from harness.doctor.slow_flush import slow_disk
private_mounts()
with tempfile.TemporaryDirectory() as folder, slow_disk(Path(folder), 0.5) as disk:
    for flags in (0, os.O_DSYNC):
        opened = os.open(disk, os.O_RDWR | flags)
        began = time.monotonic()
        os.pwrite(opened, bytes([7]) * 4096, 8192)
        print(time.monotonic() - began >= 0.5, os.pread(opened, 1, 8192))
        os.close(opened)
    print(disk)
    print(folder)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    if "slow disk is none" not in done.stderr and ("fuse" in done.stderr or "losetup" in done.stderr):
        pytest.skip(f"no such disk can be made here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    fast, slow, disk, folder = done.stdout.splitlines()
    assert (fast, slow) == ("False b'\\x07'", "True b'\\x07'")
    assert folder not in Path("/proc/mounts").read_text()
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], capture_output=True, text=True, check=False
    )
    # The device may be another test's by now; the file that it was on has this name.
    assert not re.search(rf"^{disk} .*/disk$", listed.stdout, re.MULTILINE), listed.stdout


def test_three_writes_are_so_far_apart_that_the_third_comes_while_the_second_is_flushed() -> None:
    assert three_writes() == (
        "aio_write 64k 4k", "sleep 1000", "aio_write 0 4k", "sleep 300", "aio_write 4k 4k", "sleep 1500", "aio_flush"
    )  # fmt: skip
    assert [one for one in three_writes(0.4) if one.startswith("sleep")] == ["sleep 500", "sleep 150", "sleep 750"]
