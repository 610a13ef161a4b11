"""What qemu-io reports of its writes, recorded from QEMU 7.2.22 and 10.0.13, and what follows from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.doctor import flush_probe
from harness.doctor.flush_probe import durations, unflushed

RECORDINGS = Path(__file__).parent / "recordings" / "qemu-io"
FLUSHED = (RECORDINGS / "7.2-raw-layer.txt").read_text()
EARLY = (RECORDINGS / "10.0-raw-layer.txt").read_text()


def test_durations_of_a_recording_are_in_order() -> None:
    assert durations(FLUSHED) == (0.40, 0.40, 0.70)
    assert durations(EARLY) == (0.00, 0.40, 0.30)
    wrote = "wrote 4096/4096 bytes at offset 0\n4 KiB, 1 ops; "
    assert durations(f"{wrote}0:00:01.50 (2.66 KiB/sec and 0.67 ops/sec)\n") == (1.5,), "so it tells from 1 s on"
    assert durations(f"{wrote}1:01:02.50 (1 KiB/sec and 1 ops/sec)\n") == (3662.5,)
    assert durations("read 4096/4096 bytes at offset 0\n4 KiB, 1 ops; 00.40 sec (1 KiB/sec and 1 ops/sec)\n") == ()


def test_durations_of_writes_that_ended_out_of_order_are_the_same() -> None:
    lines = EARLY.splitlines(keepends=True)
    assert durations("".join(lines[2:4] + lines[4:6] + lines[0:2])) == durations(EARLY)


@pytest.mark.parametrize(("told", "status"), [(FLUSHED, 0), (EARLY, 1)])
def test_main_status_is_one_where_a_write_did_not_wait(
    told: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(flush_probe.shutil, "which", lambda program: program)
    monkeypatch.setattr(flush_probe, "probe", lambda program, *, raw: durations(told))
    qemu_io = tmp_path / "qemu-io"
    qemu_io.write_text("#!/bin/sh\necho qemu-io version 10.0\necho and more\n")
    qemu_io.chmod(0o755)
    assert flush_probe.main([str(qemu_io)]) == status
    printed = capsys.readouterr().out
    assert printed.startswith(
        "qemu-io version 10.0, aio=threads\non the file itself:\n  the first write after opening: "
    )
    assert printed.count("ACKNOWLEDGED BEFORE IT WAS FLUSHED") == 4 * status and len(printed.splitlines()) == 9


def test_unflushed_names_writes_faster_than_the_delay() -> None:
    assert unflushed(durations(FLUSHED)) == ()
    assert unflushed(durations(EARLY)) == (0, 2)


@given(st.lists(st.floats(0, 10), max_size=5), st.floats(0.1, 5))
def test_unflushed_with_more_time_never_names_more(took: list[float], delay: float) -> None:
    longer = [seconds + 1 for seconds in took]
    assert set(unflushed(longer, delay)) <= set(unflushed(took, delay))


def test_probe_of_a_trace_with_another_way_of_flushing_cannot_tell() -> None:
    _, bare, raw, ring = (RECORDINGS / "7.2-delay-exit.txt").read_text().split("\n== ")
    assert flush_probe.other_way(bare) is None and flush_probe.other_way(raw) is None
    assert "another way than" in (flush_probe.other_way(ring) or "")
    assert "RWF_DSYNC" in (flush_probe.other_way("1 pwritev2(4, [{...}], 1, 0, RWF_DSYNC) = 4096") or "")
    assert unflushed(durations(bare)) == (0, 2) and unflushed(durations(raw)) == ()


def test_main_without_the_program_prints_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert flush_probe.main(["/nowhere/qemu-io"]) == 4
    printed = capsys.readouterr().err
    assert printed.startswith("ci/probe-flush: there is no ") and len(printed.splitlines()) == 1


def test_probe_of_another_program_raises_its_last_line(tmp_path: Path) -> None:
    if flush_probe.shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    fake = tmp_path / "qemu-io"
    fake.write_text("#!/bin/sh\necho it is not one >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(flush_probe.HarnessError, match="ended with 3: it is not one"):
        flush_probe.probe(str(fake), raw=False)
