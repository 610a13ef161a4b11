"""Runs of somebody's: what they say is refused in one sentence, whatever it would have cost to believe it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_command import run_here

from harness.config.user_work import read_user_file
from harness.errors import UsageError
from harness.images.user_image import look_at
from harness.model import Extent
from harness.store import Store, dumped, judged_run, keep_small
from harness.store.plausible import MOST_BLOCKS, MOST_OF_A_DEVICE, ImplausibleError, plausible

QUICK = Path(__file__).parent / "golden" / "quick-drbd-8.4"
CELL = "none-swap-reclaim-link20ms"
# Enough for every command on a run of some cells, and far less than what it was asked to count.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
sys.argv[:] = ["drbd-harness", *sys.argv[1:]]
from harness.cli.main import main
main()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(QUICK, tmp_path / "runs" / "run1")


def evidence_of(run: Path) -> Path:
    return run / "cells" / CELL / "1" / "evidence.json"


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """What somebody else wrote into a file of a run."""
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def command(run: Path, *arguments: str, seconds: float = 60) -> tuple[int, str]:
    """The exit code and the standard error of ``drbd-harness``, which gets 2 GiB."""
    argv = [sys.executable, "-c", LIMITED, *arguments]
    # Each further thread of NumPy's and SciPy's takes 80 MiB of addresses, and there is one for each processor.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        argv, cwd=run.parent.parent, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    return done.returncode, done.stderr


# --------------------------------------------------------------------------- sizes that cannot be


@pytest.mark.parametrize(
    ("arguments", "code", "packed"),
    [(["judge", "run1"], 2, False), (["report", "run1"], 0, True), (["merge", "run1", "run2"], 0, False)],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_extent_of_absurd_size_is_damage_and_takes_no_memory(
    run: Path, arguments: list[str], code: int, packed: bool
) -> None:
    path = evidence_of(run)
    edit(path, lambda found: found["comparison"]["differing"].append({"start": 16, "size": 2**63}))
    if packed:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    other = shutil.copytree(QUICK, run.with_name("run2"))
    edit(other / "run.json", lambda found: found.update(id="run2"))
    for one in other.glob("cells/*/*/evidence.json"):
        edit(one, lambda found: found.update(lab="another"))
    ended, err = command(run, *arguments)
    assert (ended, err.count("\n")) == (code, 1)
    # The page says where in the run it is.
    words = f"{2**63} sectors from sector 16 on are not on a device of 32758 blocks"
    assert f"cells/{CELL}/1/{path.name} is damaged: comparison.differing: {words}\n" in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device_blocks": -1}, "device_blocks: -1 is no count"),
        ({"exposed_blocks": -1}, "exposed_blocks: -1 is no count"),
        ({"counter_kib": -(2**63)}, "counter_kib: -9223372036854775808 is no count"),
        ({"witness": {"watched": True, "changed_block_writes": -7}}, "changed_block_writes: -7 is no count"),
        ({"planted": [{"start": -8, "size": 8}]}, "planted: 8 sectors from sector -8 on"),
        ({"planted": [{"start": 8, "size": -8}]}, "planted: -8 sectors from sector 8 on"),
        ({"ownership": {"extents": {"free": [{"start": 2**62, "size": 8}]}}}, "ownership.extents.free: 8 sectors"),
        ({"alarms": {"failures": [{"start": 0, "size": 2**40}]}}, "alarms.failures: "),
        ({"witness": {"watched": True, "changed": [{"start": 0, "size": 2**40}]}}, "witness.changed: "),
        ({"device_blocks": 2**38 + 1}, "device_blocks: 274877906945 blocks are more than a device of DRBD has"),
        ({"device_blocks": 0, "planted": [{"start": 0, "size": 2**40}]}, "planted: with these, all extents have more"),
        ({"cell": {"replication": {"bitmap_block_size": "99999999999M"}}}, "DRBD has no bits of its bitmap for '9999"),
    ],
)
def test_evidence_that_no_device_can_have_is_damage(run: Path, change: dict[str, Any], words: str) -> None:
    def changed(found: dict[str, Any]) -> None:
        for name, value in change.items():
            found[name] = {**found.get(name, {}), **value} if name == "cell" else value

    path = evidence_of(run)
    path.write_bytes(dumped(Store(run).evidence(CELL)))
    edit(path, changed)
    (told,) = Store(run).damaged()
    assert told.startswith(f"{path} is damaged: ") and words in told


def test_plausible_extents_up_to_the_last_block_and_the_most_of_them() -> None:
    evidence = next(one for one in Store(QUICK).every_attempt() if one.comparison)
    sectors = evidence.device_blocks * 8
    assert evidence.comparison
    for extent, good in ((Extent(sectors - 8, 8), True), (Extent(sectors - 8, 9), False), (Extent(sectors, 0), True)):
        one = replace(evidence, comparison=replace(evidence.comparison, differing=(extent,)))
        if good:
            assert plausible(one) is one
        else:
            with pytest.raises(ImplausibleError):
                plausible(one)
    large = replace(evidence, device_blocks=MOST_BLOCKS, verify=None, comparison=None, planted=(), alarms=None)
    most = replace(evidence.comparison, differing=(Extent(0, MOST_BLOCKS * 8),))
    assert plausible(replace(large, comparison=most))
    with pytest.raises(ImplausibleError, match=r"comparison\.differing: with these, all extents have more"):
        plausible(replace(large, comparison=replace(most, differing=(*most.differing, Extent(0, 1)))))


def test_disk_that_is_written_and_differs_everywhere_is_believed_and_read_in_little_memory(run: Path) -> None:
    device = MOST_OF_A_DEVICE
    every = [{"start": 0, "size": device * 8}]

    def changed(found: dict[str, Any]) -> None:
        found["device_blocks"] = found["comparison"]["blocks"] = device
        found["comparison"]["differing"] = every
        found["witness"] = {"watched": True, "changed": every, "changed_blocks": device}
        found["verify"]["source"]["extents"] = found["verify"]["target"]["extents"] = every
        found["counter_kib"] = device * 4
        found["written"] = {"node": "a", "blocks": device, "changed": every, "unequal_before": every}
        found["ownership"]["extents"] = {"allocated": every}
        found["planted"] = [{**one, "node": "a"} for one in every]
        found["readback"] = None

    path = evidence_of(run)
    path.write_bytes(dumped(Store(run).evidence(CELL)))
    edit(path, changed)
    assert Store(run).damaged() == ()
    for arguments in (["judge", "run1"], ["report", "run1"], ["claims", "run1"]):
        ended, err = command(run, *arguments)
        assert ended in (0, 1) and "damaged" not in err and "fault" not in err, (arguments, ended, err)


# --------------------------------------------------------------------------- what is no file


@pytest.fixture
def never_waits() -> Iterator[None]:
    """What waits for somebody who never comes is ended, and the test fails."""

    def ended(*_: object) -> None:
        raise TimeoutError("it waited")

    before = signal.signal(signal.SIGALRM, ended)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return "it is a pipe, not a file"


def a_device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "it is a device, not a file"


def a_folder(path: Path) -> str:
    path.mkdir()
    return "Is a directory"


def a_file_without_end(path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(2**40)
    return f"it has more than {256 if path.name in ('run.json', 'evidence.json') else 16} MiB in it"


NO_FILES = [a_pipe, a_device, a_folder, a_file_without_end]


@pytest.mark.usefixtures("never_waits")
@pytest.mark.parametrize("make", NO_FILES)
@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("run.json", ["judge", "run1"], 4),
        ("run.json", ["list"], 3),
        ("evidence.json", ["judge", "run1"], 2),
        ("stack.lock.json", ["history", CELL], 4),
        ("claims.toml", ["claims", "run1", "--claims", "claims.toml"], 4),
        ("known.toml", ["judge", "run1", "--baseline", "known.toml"], 4),
        ("two.toml", ["inventory", "two.toml"], 4),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_what_is_no_file_is_one_sentence_and_not_waited_for(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    make: Callable[[Path], str], name: str, arguments: list[str], code: int,
) -> None:  # fmt: skip
    monkeypatch.chdir(run.parent.parent)
    path = {".toml": Path(name), ".json": run / name}[Path(name).suffix]
    path = evidence_of(run) if name == "evidence.json" else path
    path.unlink(missing_ok=True)
    why = make(path)
    ended, _, err = run_here(monkeypatch, capfd, *arguments)
    assert ended == code
    assert any(line.endswith(f"{path.name} cannot be read: {why}") for line in err.splitlines()), err
    assert "Traceback" not in err


@pytest.mark.usefixtures("never_waits")
@pytest.mark.parametrize("make", [a_pipe, a_device])
def test_what_is_no_file_of_a_users_own_work_one_sentence(tmp_path: Path, make: Callable[[Path], str]) -> None:
    why = make(tmp_path / "job.fio")
    with pytest.raises(UsageError, match=rf"^--fio-job: .*/job\.fio cannot be read: {why}$"):
        read_user_file(tmp_path / "job.fio", "--fio-job")
    with pytest.raises(UsageError, match=rf"^--guest-image: .*/job\.fio cannot be read: {why}$"):
        look_at(tmp_path / "job.fio", "--guest-image")


def test_packed_evidence_of_which_there_is_no_end_is_damage(run: Path) -> None:
    path = evidence_of(run)
    path.unlink()
    packer = zlib.compressobj(wbits=31)
    with Path(f"{path}.gz").open("wb") as file:
        file.writelines(packer.compress(bytes(2**20)) for _ in range(257))
        file.write(packer.flush())
    assert Path(f"{path}.gz").stat().st_size < 2**21
    (told,) = Store(run).damaged()
    assert told == f"{path} cannot be read: it has more than 256 MiB in it"


# --------------------------------------------------------------------------- what else may be there


def nested(levels: int) -> Any:
    found: Any = 1
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"exposed_blocks": 10**400}, "exposed_blocks"),
        ({"counter_kib": 2**53}, "counter_kib"),
        ({"readback": {"blocks": 10**400, "before": "a", "after": "b"}}, "blocks"),
        ({"witness": {"watched": True, "not_watched": {"flush": 10**400}}}, "flush"),
        ({"alarms": {"drops": 10**400}}, "drops"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_number_that_nothing_can_be_reckoned_with_is_damage(run: Path, change: dict[str, Any], name: str) -> None:
    edit(evidence_of(run), lambda found: found.update(change))
    (told,) = Store(run).damaged()
    digits = 16 if name == "counter_kib" else 401
    assert told == f"{evidence_of(run)} is damaged: {name}: a number of {digits} digits is no count"


def test_largest_number_that_is_believed_is_reckoned_with(run: Path) -> None:
    edit(evidence_of(run), lambda found: found.update(exposed_blocks=2**53 - 1, counter_kib=2**53 - 1))
    assert command(run, "report", "run1") == (0, "")


@pytest.mark.parametrize("levels", [100, 600, 900])
def test_values_nested_deeply_are_damage_or_nothing_to_anybody(run: Path, levels: int) -> None:
    edit(evidence_of(run), lambda found: found.update(unknown=nested(levels)))
    told = Store(run).damaged()
    # How deep is too deep depends on the version of Python.
    assert len(told) <= (levels > 100) and all(one.startswith(f"{evidence_of(run)} is damaged: ") for one in told)
    (run / "run.json").write_bytes(dumped(Store(run).run()))
    edit(run / "run.json", lambda found: found.update(lab_spec={"name": nested(levels)}))
    with pytest.raises(UsageError, match=r"run\.json is damaged: (its values are nested|it is not whole JSON)"):
        Store(run).run()


@pytest.mark.parametrize("name", ["a copy", ".hidden", "a\nb", "[bold]", "ü"])
def test_folder_among_the_cells_that_is_no_cells_is_told_and_hides_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    whole = judged_run(Store(run)).results
    shutil.copytree(run / "cells" / CELL, run / "cells" / name)
    found = judged_run(Store(run))
    assert found.results == whole and found.damaged == (f"{run / 'cells' / name} is not read: no cell is called so",)
    assert name not in {cell_id for cell_id, _ in Store(run).attempt_folders()}
    monkeypatch.chdir(run.parent.parent)
    code, out, err = run_here(monkeypatch, capfd, "list")
    assert (code, err) == (0, "") and "run1" in out
    code, _, err = run_here(monkeypatch, capfd, "judge", "run1")
    assert err.count("\n") == 1 and err.endswith(" is not read: no cell is called so\n")


@pytest.mark.parametrize("form", ["--json", "--zip", "--with-data"])
def test_report_into_a_link_that_leads_to_itself_one_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.chdir(run.parent.parent)
    Path("round").symlink_to("round")
    for where in ("round", "round/report"):
        code, _, err = run_here(monkeypatch, capfd, "report", "run1", form, "-o", where)
        assert (code, err) == (4, f"drbd-harness: {where} leads to itself by a link; name another file\n")
    (run / "report.html").unlink(missing_ok=True)
    (run / "report.html").symlink_to("report.html")
    code, _, err = run_here(monkeypatch, capfd, "report", "run1")
    assert code == 4 and err.endswith("report.html leads to itself by a link; name another file\n")


def test_open_name_that_no_file_system_takes_is_no_run(run: Path) -> None:
    with pytest.raises(UsageError, match=r"^the run 'xxx+' cannot be read: File name too long$"):
        Store.open(run.parent, "x" * 5000)


def test_keep_small_that_is_interrupted_leaves_the_name_free(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep_small(Store(run), tmp_path / "kept", "small")
    monkeypatch.undo()
    assert judged_run(keep_small(Store(run), tmp_path / "kept", "small")).results == judged_run(Store(run)).results
