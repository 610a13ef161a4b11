"""A verify that somebody asked for, on two machines that answer with what DRBD printed; disks are files here."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from in_use import O_DIRECT, answered
from recorded_nodes import START_VERIFY, RecordedRunner, recorded_verify, running

from harness.config.inspected import InspectedHost
from harness.errors import InfrastructureError, LostNodeError
from harness.inspection.look import Looked, look
from harness.inspection.machine import InspectedNode
from harness.inspection.verify import Snapshot, verified
from harness.judgement.inspected import FOUND, answer, exit_code
from harness.model import BLOCK_BYTES, blocks_of
from harness.model.inspection import InspectedVolume, VolumeVerify
from harness.parse.machine import MachineFacts
from harness.remote.local import LocalRunner
from harness.report.inspection import inspection_text

BLOCKS = 32758
VERSIONS = {"8.4": "8.4.11", "9": "9.3.3"}


@dataclass(frozen=True)
class RecordedMachine(InspectedNode):
    """A machine whose programs answer what was recorded, and whose lower device is the file ``disk``."""

    disk: str = ""
    tells: dict[str, Any] = field(default_factory=dict)

    def ask(
        self, program: str, asked: Mapping[str, Any], seconds: float = 60.0, before: str = ""
    ) -> dict[str, Any]:  # fmt: skip
        if program == "resource":
            return self.tells
        assert asked["path"] == "/dev/mapper/drbd-lower"
        here = InspectedNode(self.host, cast(Any, LocalRunner()), self.facts)
        return here.ask(program, {**asked, "path": self.disk, "pause": 0.05}, seconds, before)


@pytest.fixture
def disks() -> Iterator[tuple[Path, Path]]:
    """On a disk: what is in memory cannot be read past the page cache."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        one, other = Path(folder, "a"), Path(folder, "b")
        for path in (one, other):
            with path.open("wb") as file:
                file.truncate(BLOCKS * BLOCK_BYTES)
        yield one, other


def two(
    generation: str, disks: tuple[Path, Path], flags: str | None = None, cut: bool = False, left_out: str = ""
) -> tuple[Looked, RecordedRunner]:  # fmt: skip
    """Both machines looked at; the next verify goes as the recorded one did, but for lines with ``left_out``."""
    recorded = recorded_verify(generation)
    if left_out:
        for log in (recorded.source, recorded.target):
            log[:] = [line for line in log if left_out not in line]
    if cut:
        recorded.source[:] = [
            line for line in recorded.source if "verify done" not in line and "verify  done" not in line
        ]
    machines, runners = [], []
    for number, (name, disk) in enumerate(zip(("nodea", "nodeb"), disks, strict=True), 1):
        _, runner = running(name, generation)
        runners.append(runner)
        host = InspectedHost(name=name, address=name, port=22, user="root", key=None, nic="")
        facts = MachineFacts({"python": sys.executable, "drbd_loaded": VERSIONS[generation]}, (), ())
        tells = answered(generation, number, flags if number == 1 else None)
        machines.append(RecordedMachine(host, cast(Any, runner), facts, str(disk), tells))

    def begin() -> None:
        runners[0].log("\n".join(recorded.source))
        runners[1].log("\n".join(recorded.target))
        runners[0].tell(*recorded.events)

    runners[0].happens[START_VERIFY[generation]] = begin
    return look((machines[0], machines[1]), "r0"), runners[0]


def differ(disk: Path, blocks: set[int]) -> None:
    with disk.open("r+b") as file:
        for block in blocks:
            file.seek(block * BLOCK_BYTES + 7)
            file.write(b"x")


@pytest.mark.parametrize("generation", ["8.4", "9"])
def test_verified_marks_what_both_logs_say_and_reads_it_again(generation: str, disks: tuple[Path, Path]) -> None:
    looked, runner = two(generation, disks)
    logged = recorded_verify(generation)
    assert logged.source and logged.target
    first = verified(looked, looked.seen.volumes[0], None)
    assert first.verify is not None and first.verify.complete
    marked = blocks_of(first.verify.marked)
    assert marked and first.verify.readings is not None
    assert blocks_of(first.verify.readings.equal) == marked, "the disks are equal"
    some = set(sorted(marked)[::2])
    differ(disks[1], some)
    looked, runner = two(generation, disks)
    (volume,) = looked.seen.volumes
    again = verified(looked, volume, None)
    assert again.verify is not None and again.verify.readings is not None
    assert blocks_of(again.verify.readings.lasting) == some
    assert again.verify.readings.written_kib == (0, 0)
    assert again.verify.before_kib == volume.out_of_sync_kib
    (started,) = runner.drbd()
    assert started.startswith("drbdadm ") and started.endswith(START_VERIFY[generation]), "nothing else is done to DRBD"


def test_verified_of_a_volume_in_use_says_why_nobody_was_asked_whose_blocks_are(disks: tuple[Path, Path]) -> None:
    looked, runner = two("8.4", disks, O_DIRECT)
    found = verified(looked, looked.seen.volumes[0], None)
    assert found.verify is not None and found.verify.ownership is None
    assert "the guest payroll-vm on nodea" in found.verify.no_owners
    assert not [argv for argv in runner.ran if argv[0] in ("dumpe2fs", "blockdev")]
    told = "\n".join(inspection_text(replace(looked.seen, volumes=(found,))))
    assert "whose they are was not asked: it is in use" in told


def test_verified_with_a_snapshot_asks_there_though_the_volume_is_in_use(disks: tuple[Path, Path]) -> None:
    looked, runner = two("8.4", disks, O_DIRECT)
    found = verified(looked, looked.seen.volumes[0], Snapshot("nodea", "/dev/vg0/snap"))
    assert found.verify is not None and found.verify.ownership is not None
    assert found.verify.owners_of == "the snapshot on nodea"
    # No disk answers there: all of it is unknown, and nothing is made up.
    assert found.verify.ownership.unknown == len(blocks_of(found.verify.marked))
    assert ("blockdev", "--flushbufs", "/dev/vg0/snap") in runner.ran


def test_verify_whose_end_is_in_no_log_is_not_complete_though_it_marked(disks: tuple[Path, Path]) -> None:
    looked, _ = two("8.4", disks, cut=True)
    found = verified(looked, looked.seen.volumes[0], None)
    assert found.verify is not None and not found.verify.complete
    assert exit_code(replace(looked.seen, volumes=(found,))) == FOUND
    assert "did not run to its end" in answer(found.verify)


def test_verify_whose_log_names_fewer_blocks_than_it_counts_is_no_whole_answer(disks: tuple[Path, Path]) -> None:
    def with_log_without(left_out: str) -> InspectedVolume:
        looked, _ = two("8.4", disks, left_out=left_out)
        (volume,) = looked.seen.volumes
        unmarked = replace(volume, sides=cast(Any, tuple(replace(side, out_of_sync_kib=0) for side in volume.sides)))
        return verified(looked, unmarked, None)

    whole, short = with_log_without("nothing").verify, with_log_without("Out of sync: start=40024,").verify
    assert whole is not None and whole.unnamed_blocks == 0 and whole.found_blocks == len(blocks_of(whole.marked)) == 10
    assert short is not None and short.unnamed_blocks == 7 and len(blocks_of(short.marked)) == 3
    assert "but 7 more blocks differed, and DRBD's log does not say where" in answer(short)
    looked, _ = two("8.4", disks)
    told = "\n".join(inspection_text(replace(looked.seen, volumes=(replace(looked.seen.volumes[0], verify=short),))))
    assert "it marked 10 blocks" in told and "names 3 of them, and leaves 7 out: docs/drbd-verify-log.md" in told


def test_verify_that_names_nothing_of_what_it_counts_found_something_all_the_same() -> None:
    silent = VolumeVerify(True, 3.0, (), 8, 12)
    assert silent.unnamed_blocks == 10, "two were marked before it"
    assert answer(silent).startswith("something differed; but 10 more blocks differed")
    assert answer(replace(silent, found_blocks=2)) == "nothing differed"


def test_verified_keeps_what_it_marked_where_a_machine_is_lost_after_it(
    disks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(looked: Looked) -> None:
        raise LostNodeError("nodeb has answered nothing for 30 s")

    looked, _ = two("8.4", disks)
    monkeypatch.setattr("harness.inspection.verify.look_again", lost)
    found = verified(looked, looked.seen.volumes[0], None)
    assert found.verify is not None and found.verify.complete and found.verify.marked
    told = "\n".join(inspection_text(replace(looked.seen, volumes=(found,))))
    assert "whether they still differ could not be read: the machines could not be looked at after it: nodeb" in told


def test_missing_programs_are_named_with_the_package_of_the_machine_s_distribution(disks: tuple[Path, Path]) -> None:
    looked, _ = two("8.4", disks)
    one, other = looked.nodes
    suse = MachineFacts({**one.facts.facts, "family": "opensuse-leap suse opensuse"}, ("ethtool",), ())
    rocky = MachineFacts({**one.facts.facts, "family": "rocky rhel centos fedora"}, ("drbdsetup", "other"), ())
    nodes = cast(Any, (replace(one, facts=suse), replace(other, facts=rocky)))
    assert look(nodes, "r0").seen.unknown == (
        "nodea has no ethtool (package ethtool)", "nodeb has no drbdsetup (package drbd-utils)", "nodeb has no other"
    )  # fmt: skip
    without = replace(nodes[1], tells={**nodes[1].tells, "show": {"status": None, "out": "", "err": "not installed"}})
    with pytest.raises(InfrastructureError, match=r"drbdsetup \(package drbd-utils\) on nodeb cannot be asked"):
        look((nodes[0], without), "r0")
