"""A resource in use: what the program on the machines printed, as facts, in words and for a program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from in_use import BUFFERED, O_DIRECT, answered
from recorded_nodes import DRBD_84

from harness.errors import ProtectedError, UsageError
from harness.inspection.verify import require_verifiable, used_by
from harness.judgement.inspected import FOUND, NOTHING, UNTOLD, Kept, answer, claims_for, exit_code, kept_counts
from harness.judgement.stacks import PlayedRun
from harness.model import CacheMode, Extent, Ownership
from harness.model.inspection import BlockReadings, InspectedMachine, InspectedVolume, Inspection, VolumeVerify
from harness.parse.in_use import generation, link, replication, sides
from harness.report.inspection import before_verify, inspection_json, inspection_text
from harness.store import Store, judged_results
from harness.util import resources


def inspected(which: str = "8.4", *, idle: bool = False) -> Inspection:
    """A resource as both machines were made to tell."""
    both = [answered(which, 1, None if idle else O_DIRECT), answered(which, 2, None)]
    one, other = (sides(name, found, "r0") for name, found in zip(("stor17", "stor18"), both, strict=True))
    volumes = tuple(InspectedVolume(number, (one[number], other[number])) for number in one)
    a, b = (replication(name, found, "r0") for name, found in zip(("stor17", "stor18"), both, strict=True))
    return Inspection(
        "r0", generation(both[0]), (InspectedMachine("stor17"), InspectedMachine("stor18")), (a, b), volumes
    )


def text_of(seen: Inspection, kept: dict[CacheMode, Kept] | None = None) -> str:
    return "\n".join(inspection_text(seen, kept))


# --------------------------------------------------------------------------- what was seen


def test_sides_of_8_4_have_state_counter_and_lower_device() -> None:
    side = sides("stor17", answered(), "r0")[0]
    assert str(side.state) == "Connected, Primary/Secondary, UpToDate/UpToDate, Established"
    assert (side.out_of_sync_kib, side.lower, side.blocks) == (19000, "/dev/mapper/drbd-lower", 32758)
    assert side.stable_writes is True


def test_epochs_that_stay_open_are_told_with_where_to_read_of_it() -> None:
    stuck = answered()
    stuck["proc_drbd"] = stuck["proc_drbd"].replace("ep:1", "ep:3")
    seen = inspected()
    volume = seen.volumes[0]
    sides_seen = (sides("stor17", stuck, "r0")[0], volume.sides[1])
    told = text_of(replace(seen, volumes=(replace(volume, sides=sides_seen),)))
    assert "ep:3, and 1 where nothing is in flight; if it stays: docs/drbd-write-conflict.md" in told
    assert "ep:" not in text_of(seen) and "ep:" not in text_of(inspected("9"))


def test_sides_of_9_have_state_and_counter() -> None:
    side = sides("stor17", answered("9"), "r0")[0]
    assert str(side.state) == "Connected, Primary/Secondary, UpToDate/UpToDate, Established"
    assert (side.out_of_sync_kib, side.written_kib) == (31680, 138432)


def test_replication_has_the_options_in_force_and_the_link_by_its_address() -> None:
    found = replication("stor17", answered(), "r0")
    assert (found.option("protocol"), found.option("verify-alg")) == ("C", "crc32c")
    assert (found.option("c-max-rate"), found.option("c-plan-ahead")) == ("716800k", "0")
    assert (found.nic, found.scatter_gather, found.disable_sendpage, found.two_primaries) == (
        "enp1s0",
        True,
        False,
        False,
    )


def test_link_of_two_machines_is_the_other_way_round() -> None:
    assert link(answered(), "r0") == link(answered(number=2), "r0")[::-1]


def test_disk_of_a_qemu_without_libvirt_is_named_by_its_command_line_and_open_flags() -> None:
    (disk,) = sides("stor17", answered(), "r0")[0].disks
    assert (disk.domain, disk.cache, disk.direct, disk.aio, disk.bus) == (
        "payroll-vm",
        "none",
        True,
        "io_uring",
        "scsi",
    )
    assert (disk.libvirt, disk.version, disk.detect_zeroes) == (False, "10.0.13", "on")
    assert not disk.contradiction


def test_disk_that_is_open_otherwise_than_asked_for_is_as_it_is_open() -> None:
    (disk,) = sides("stor17", answered(flags=BUFFERED), "r0")[0].disks
    assert disk.cache == "writeback"
    assert "says cache=none, and the QEMU that runs has it open without O_DIRECT" in disk.contradiction


def test_disk_that_no_command_line_names_is_told_as_far_as_the_flags_tell() -> None:
    found = answered()
    found["processes"]["77"]["options"] = [["-name", "payroll-vm"]]
    (disk,) = sides("stor17", found, "r0")[0].disks
    assert (disk.cache, disk.told_by) == ("none or directsync", "the open flags alone")


def test_uses_are_mounts_swap_mappings_and_processes_but_no_guests() -> None:
    found = answered()
    volume = found["volumes"]["0"]
    volume["mounts"] = [{"number": "253:7", "where": "/srv", "options": "rw", "kind": "ext4"}]
    volume["swaps"] = ["/dev/drbd0"]
    volume["above"]["dm-7"] = {"number": "253:7", "dm_name": "crypt", "dm_uuid": "CRYPT-"}
    volume["opened"].append({"pid": 5, "device": "147:0", "path": "/dev/drbd0", "flags": BUFFERED})
    found["processes"]["5"] = {"comm": "dd", "options": [], "program": "/usr/bin/dd", "version": ""}
    side = sides("stor17", found, "r0")[0]
    assert side.uses == ("ext4 mounted at /srv", "swap on /dev/drbd0", "crypt on it", "dd (5) has /dev/drbd0 open")
    assert len(side.disks) == 1 and side.in_use


@pytest.mark.parametrize("proc, why", [("", "not loaded"), ("version: 8.3.13 (api:88)\n", "DRBD 8.3.13")])
def test_generation_of_what_the_harness_does_not_know_is_refused(proc: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        generation(answered(proc_drbd=proc))


# --------------------------------------------------------------------------- what follows


def test_claims_are_those_of_the_cache_mode_and_the_digest() -> None:
    seen = inspected(idle=True)
    assert claims_for(seen) == ("C11", "C14")
    assert claims_for(inspected()) == ("C1", "C7", "C11", "C14")
    digest = {"data-integrity-alg": "crc32c", "allow-two-primaries": "yes"}
    sides_of = tuple(replace(one, options=digest) for one in seen.replication)
    assert claims_for(replace(seen, replication=(sides_of[0], sides_of[1]))) == ("C8", "C9", "C14")


def with_verify(verify: VolumeVerify | None, seen: Inspection, counter: int = 0) -> Inspection:
    (volume,) = seen.volumes
    a, b = (replace(side, out_of_sync_kib=counter) for side in volume.sides)
    return replace(seen, volumes=(replace(volume, sides=(a, b), verify=verify),))


@pytest.mark.parametrize(
    "verify, counter, code",
    [
        (None, 0, NOTHING),
        (None, 4, FOUND),
        (VolumeVerify(True, 1.0), 0, NOTHING),
        (VolumeVerify(True, 1.0, (Extent(0, 8),)), 0, FOUND),
        (VolumeVerify(False, 1.0), 0, UNTOLD),
        (VolumeVerify(True, 1.0, skipped_blocks=1), 0, UNTOLD),
    ],
)
def test_exit_code_says_what_was_found(verify: VolumeVerify | None, counter: int, code: int) -> None:
    assert exit_code(with_verify(verify, inspected(), counter)) == code


MARKED = (Extent(80, 24),)


@pytest.mark.parametrize(
    "readings, ownership, words",
    [
        (BlockReadings(3, 1.0, equal=MARKED), None, "by now all of them are equal"),
        (BlockReadings(3, 1.0, changing=MARKED), None, "not told: the blocks are being written"),
        (BlockReadings(3, 1.0, lasting=MARKED), None, "real: blocks differ, and whose they are is not known"),
        (BlockReadings(3, 1.0, lasting=MARKED), Ownership(free=3), "real: blocks differ that nobody reads"),
        (BlockReadings(3, 1.0, lasting=MARKED), Ownership(allocated=1, free=2), "real: blocks differ that are data"),
        (None, None, "could not be read: it broke"),
    ],
)
def test_answer_says_false_alarm_or_real(
    readings: BlockReadings | None, ownership: Ownership | None, words: str
) -> None:
    found = VolumeVerify(True, 1.0, MARKED, readings=readings, unread="it broke", ownership=ownership)
    assert words in answer(found)


def test_verify_without_an_algorithm_is_refused_with_how_to_set_one() -> None:
    seen = inspected()
    for sides_of in (seen.replication, (seen.replication[0], replace(seen.replication[1], options={}))):
        without = replace(seen, replication=(replace(sides_of[0], options={}), sides_of[1]))
        with pytest.raises(ProtectedError, match=r"verify-alg crc32c;.*drbdadm adjust r0"):
            require_verifiable(without, seen.volumes[0])


def test_verify_of_what_is_not_up_to_date_on_both_is_refused() -> None:
    seen = inspected()
    (volume,) = seen.volumes
    side = replace(volume.sides[0], state=replace(volume.sides[0].state, peer_disk="Inconsistent"))
    with pytest.raises(ProtectedError, match=r"not to be verified now: .*Inconsistent"):
        require_verifiable(seen, replace(volume, sides=(side, volume.sides[1])))


def test_used_by_names_who_and_what_to_do() -> None:
    assert used_by(inspected(idle=True).volumes[0].sides) == ""
    why = used_by(inspected().volumes[0].sides)
    assert "the guest payroll-vm on stor17" in why and "--snapshot" in why


@pytest.mark.parametrize("which", ["8.4", "9"])
def test_before_verify_says_which_side_a_resync_overwrites(which: str) -> None:
    seen = inspected(which)
    told = " ".join(before_verify(seen, seen.volumes[0]))
    assert "DRBD keeps the marks" in told and "128 MiB" in told
    if which == "8.4":
        assert "what stor18 has in these blocks is replaced by what stor17 has" in told
    else:
        assert "invalidate-remote --reset-bitmap=no r0" in told and "the machine where it is run wins" in told
        assert "with no I/O in between made 9.3.3 forget the marks" in told
        assert "where the Primary had I/O meanwhile, it copies them from the Primary" in told


# --------------------------------------------------------------------------- words, and for a program


def test_text_names_the_guest_its_cache_mode_and_what_kept_runs_say() -> None:
    told = text_of(inspected(), {CacheMode.NONE: Kept(3, 4, 1, ("DRBD 8.4.11 with QEMU 10.0.13",))})
    assert "guest payroll-vm (without libvirt, process 77, QEMU 10.0.13)" in told
    assert "cache=none, aio io_uring, bus scsi" in told
    assert "replicas differed in 3 of 4 kept plays, 1 of them without delays" in told
    assert "out of sync by DRBD's counter: 19000 KiB" in told


def test_text_of_a_verify_names_blocks_and_files() -> None:
    readings = BlockReadings(3, 4.0, equal=(Extent(8, 8),), lasting=(Extent(80, 24),), written_kib=(0, 0))
    verify = VolumeVerify(True, 12.0, (Extent(8, 8), Extent(80, 24)), readings=readings, no_owners="it is in use")
    told = text_of(with_verify(verify, inspected(), 16))
    assert "it marked 4 blocks of 4 KiB: 1, 10-12" in told
    assert "3 blocks different, either side the same in each reading: 10-12" in told
    assert "1 block equal by now: 1\n" in told and "DRBD wrote nothing meanwhile" in told


def walked(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (key, *walked(item))
    elif isinstance(value, list):
        for item in value:
            yield from walked(item)
    else:
        yield str(value)


def test_json_has_no_names_unless_with_data() -> None:
    owned = Ownership(allocated=1, names=("/srv/payroll.db",), method="by debugfs")
    verify = VolumeVerify(True, 1.0, MARKED, ownership=owned, owners_of="the disk of stor17", unread="stor18 broke")
    seen = replace(with_verify(verify, inspected(), 12), unknown=("stor17 has no ethtool",))
    (volume,) = seen.volumes
    used = replace(
        volume.sides[1], device="/dev/drbd_payroll", uses=("ext4 mounted at /srv/payroll", "payroll-crypt on it")
    )
    one, other = seen.replication
    seen = replace(
        seen, volumes=(replace(volume, sides=(volume.sides[0], used)),),
        replication=(replace(one, nic="payroll-bond0"), other),
    )  # fmt: skip
    without, full = (inspection_json(seen, with_data=one) for one in (False, True))
    for word in ("stor17", "stor18", "payroll", "/dev/mapper", "192.168", "/srv", '"r0"'):
        assert not [one for one in walked(json.loads(without)) if word.strip('"') == one or word in one], word
    for word in ("stor17", "payroll-vm", "/dev/mapper/drbd-lower", "/srv/payroll.db"):
        assert word in full
    assert json.loads(without)["inspection"]["volumes"][0]["verify"]["ownership"]["allocated"] == 1
    assert json.loads(without)["exit_code"] == FOUND


def test_kept_counts_are_of_the_generation_and_the_cache_mode() -> None:
    store = Store(next(one for one in resources.kept_runs() if one.name == "quick-drbd-8.4"))
    runs = [PlayedRun("quick", store.run().stack, tuple(judged_results(store)))]
    found = kept_counts(runs, "8.4")
    assert found[CacheMode.NONE].harmed == found[CacheMode.NONE].plays > 0
    assert found[CacheMode.WRITEBACK].harmed == 0 < found[CacheMode.WRITEBACK].plays
    assert kept_counts(runs, "9") == {}


def test_options_that_belong_to_others_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from harness.cli.main import app

    for option, needs in (("--yes", "--verify"), ("--with-data", "--json")):
        done = CliRunner().invoke(app, ["inspect", "--inventory", "x", "--resource", "r0", option])
        assert isinstance(done.exception, UsageError) and needs in str(done.exception)


# --------------------------------------------------------------------------- recorded on a machine of somebody's


def test_machine_that_lost_its_peer_is_told_as_it_is_and_not_as_in_sync() -> None:
    told = json.loads((DRBD_84 / "resource-in-use-link-cut.json").read_text())
    side = sides("alpha", told, "r0")[0]
    assert str(side.state) == "NetworkFailure, Primary/Unknown, UpToDate/Inconsistent, Off"
    assert (side.device, side.lower, side.out_of_sync_kib) == ("/dev/drbd30", "/dev/vginsp/r0", 0)
    assert (side.blocks, side.lower_bytes, side.stable_writes) == (24566, 100663296, True)
    assert not side.in_use
    found = replication("alpha", told, "r0")
    assert (found.nic, found.scatter_gather, found.option("resync-rate")) == ("enp0s3", False, "40960k")
    assert link(told, "r0") == ("10.15.0.1:7830", "10.15.0.2:7830")
    seen = inspected()
    alone = replace(seen, volumes=(InspectedVolume(0, (side, replace(side, machine="beta"))),))
    assert exit_code(alone) == UNTOLD
    assert "not told: the two are not connected" in text_of(alone)
    with pytest.raises(ProtectedError, match="not to be verified now"):
        require_verifiable(seen, alone.volumes[0])
