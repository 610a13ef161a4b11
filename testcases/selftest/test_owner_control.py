"""The owner control: what was laid out is found in a copy by its marks alone, and given to whom it belongs."""

from __future__ import annotations

import lzma
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from fake_stage import Stage
from fake_story import in_order
from test_ext_owners import MIB, Local, mounted, tool

from harness.engine import cell_steps
from harness.engine.disturbances.sabotage import owner_control
from harness.engine.disturbances.sabotage.journal_region import journal_blocks
from harness.engine.disturbances.sabotage.known_places import Laid, Place, known_places
from harness.engine.disturbances.sabotage.owner_control import OwnerControl
from harness.errors import InfrastructureError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import Offers, ReplicaView, WorkloadTarget
from harness.filesystems.layers import LAYERS
from harness.judgement.judge import judge
from harness.judgement.planted_owner import misattributed
from harness.model import (
    BLOCK_BYTES,
    BlockOwner,
    CacheMode,
    Cell,
    Evidence,
    FilesystemKind,
    Layout,
    Observed,
    Sabotage,
    VerdictKind,
)
from harness.parse.marks import Mark, MarkedAs, block_of_each, marks, pattern, places

RECORDINGS = Path(__file__).parent / "recordings"
TOKEN, LETTERS = "0123456789ab", "QXZK"
RAW = LAYERS[Layout.RAW]()


def seen(image: Path) -> ReplicaView:
    return ReplicaView(Local(), str(image), image.stat().st_size // BLOCK_BYTES)


def laid_on(image: Path, kind: FilesystemKind, monkeypatch: pytest.MonkeyPatch, *options: str) -> Laid:
    """What the control lays out, on an image that this machine mounts."""
    control = OwnerControl()
    with mounted(image, *options) as point:
        monkeypatch.setattr(owner_control, "MOUNT_POINT", str(point))
        return control._lay(WorkloadTarget(Local(), str(image), cast(Any, None), 1), FILESYSTEMS[kind].offers)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FilesystemKind.EXT4, ()), (FilesystemKind.EXT4_NOBARRIER, ("nobarrier",)),
        (FilesystemKind.EXT4_JOURNAL, ("data=journal",)), (FilesystemKind.EXT3, ()),
    ],
)  # fmt: skip
def test_known_places_of_ext_are_each_of_their_class(
    kind: FilesystemKind, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-t", kind.partition("-")[0], "-b", "4096", str(image))
    laid = laid_on(image, kind, monkeypatch, *options)
    found = known_places(seen(image), RAW, kind, laid, random.Random(7))
    assert [place.owner.value for place in found] == [
        "metadata", "allocated", "allocated", "free", "metadata", "journal",
    ]  # fmt: skip
    assert laid.not_found == [] and len({place.block for place in found}) == 6
    told = FILESYSTEMS[kind].owners(seen(image), [place.block for place in found])
    for place in found:
        one = told[place.block]
        assert (one.owner, one.offset) == (place.owner, place.offset) and place.detail in ("", one.path), one
    assert "directory /NAMES" in told[found[4].block].detail
    assert found[1].detail == "/KNOWN.BIN" and found[1].offset != found[2].offset


def test_known_places_of_a_swap_file_are_a_slot_its_header_and_the_journal(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", str(image))
    laid = Laid(TOKEN, LETTERS, Offers.SWAP)
    with mounted(image) as point:
        tool("fallocate", "-l", "8M", str(point / "swapfile"))
        tool("mkswap", str(point / "swapfile"))
    slots = FILESYSTEMS[FilesystemKind.SWAPFILE].owners(seen(image), range(16384))
    slot = next(block for block, one in slots.items() if one.offset == 40 * BLOCK_BYTES)
    held = subprocess.run(
        ["sh", "-c", owner_control._HELD, "sh", TOKEN], capture_output=True, check=True
    ).stdout  # fmt: skip
    with image.open("r+b") as file:
        file.seek(slot * BLOCK_BYTES + 100)
        file.write(held[:3900])
    found = known_places(seen(image), RAW, FilesystemKind.SWAPFILE, laid, random.Random(7))
    assert [(place.owner, slots[place.block].owner) for place in found] == [(one, one) for one in (
        BlockOwner.METADATA, BlockOwner.FREE, BlockOwner.METADATA, BlockOwner.JOURNAL)]  # fmt: skip
    assert found[1].block == slot and slots[found[2].block].detail == "swap header of /swapfile"


def test_known_places_on_the_raw_device_are_the_applications(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(4 * MIB))
    tool("mkfs.ext4", "-q", "-F", "-b", "4096", str(image))  # what another filesystem left is none of its own
    laid = OwnerControl()._lay(WorkloadTarget(Local(), str(image), cast(Any, None), 1024), Offers.DEVICE)
    found = known_places(seen(image), RAW, FilesystemKind.RAW, laid, random.Random(7))
    assert [place.owner for place in found] == [BlockOwner.ALLOCATED] * 2 and found[0].block == 0
    assert 512 <= found[1].block < 512 + owner_control.RAW_BLOCKS


def test_known_places_nothing_laid_out_is_an_error_that_says_what_is_missing(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(4 * MIB))
    for kind, offers, what in (
        (FilesystemKind.EXT4, Offers.FILES, "found 0 blocks of the file /KNOWN.BIN"),
        (FilesystemKind.SWAP, Offers.SWAP, "found no swap slot"),
        (FilesystemKind.RAW, Offers.DEVICE, "found 0 blocks of what was written to the device"),
    ):
        with pytest.raises(InfrastructureError, match=what):
            known_places(seen(image), RAW, kind, Laid(TOKEN, LETTERS, offers), random.Random(7))


def test_known_places_names_in_utf_16_are_found(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB))
    blocks = b"".join(f"K{TOKEN}{number:08}".encode().ljust(BLOCK_BYTES) for number in range(16))
    freed = blocks.replace(b"K0", b"F0")
    names = f"{LETTERS}0001.TXT".encode("utf-16-le")
    with image.open("r+b") as file:
        file.seek(8 * BLOCK_BYTES)
        file.write(blocks + freed + b"RCRD".ljust(1000, b"\0") + names.ljust(BLOCK_BYTES - 1000) + b"INDX" + names)
    laid = Laid(TOKEN, LETTERS, Offers.FILES)
    with pytest.raises(InfrastructureError, match="found no journal of ntfs3"):
        known_places(seen(image), RAW, FilesystemKind.NTFS3, laid, random.Random(7))
    found = known_places(seen(image), RAW, FilesystemKind.EXFAT, laid, random.Random(7))
    assert found[-1] == Place(41, BlockOwner.METADATA), "not what stands in the log"


# --------------------------------------------------------------------------- a whole cell


SLOTS = f"{24 * BLOCK_BYTES + 17}:S{TOKEN}00000003\n{24 * BLOCK_BYTES + 1017}:S{TOKEN}00000004\n"
SWAPPING = Cell(
    "pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE, seconds=1, sabotage=Sabotage.FLIP_OWNERS
)


def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str) -> tuple[Stage, Evidence]:
    """A cell over a lab that only remembers; ``printed`` is what is found in the copy."""
    monkeypatch.setattr(owner_control.secrets, "token_hex", lambda _: TOKEN)
    monkeypatch.setattr(cell_steps, "observe_node", lambda node, device: Observed(scatter_gather=True))
    stage = Stage.of(tmp_path, SWAPPING)
    stage.guest.agent.answers = {"setsid": "4711\n"}
    stage.lab.a.answers = {"grep -abo": (0, printed, ""), "base64": (0, "AAAA" * (2**18 // 3 + 1), "")}
    stage.lab.story.when["plant_below on nodeb"] = lambda: differ(stage)
    return stage, stage.play()


def differ(stage: Stage) -> None:
    stage.lab.differing |= {0, 24}
    stage.resource.verified |= {0, 24}


def test_play_each_class_is_planted_after_quiesce_and_given_to_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, found = played(tmp_path, monkeypatch, SLOTS)
    assert [(*change.blocks(), change.owner) for change in found.planted] == [
        (0, BlockOwner.METADATA), (24, BlockOwner.FREE),
    ]  # fmt: skip
    assert {change.node for change in found.planted} == {"nodeb"} and found.failure is None
    assert in_order(stage.steps, "quiesce", "sync", "plant_below on nodeb", "detach", "verify", "compare", "owners")
    held = next(argv for argv in stage.guest.agent.ran if "setsid" in " ".join(argv))
    assert TOKEN in held and "marked S" in held[-2], "what the process holds is marked"
    assert any("memory.reclaim" in " ".join(argv) for argv in stage.guest.agent.ran)
    # The workload of this lab takes all blocks for free swap slots, the header too.
    assert "block 0, which was changed on nodeb below DRBD, is metadata" in (misattributed(found) or "")
    assert judge(found).kind is VerdictKind.INCONCLUSIVE


def test_play_nothing_found_is_a_failure_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, found = played(tmp_path, monkeypatch, "")
    assert found.failure and "the owner control found no swap slot" in found.failure.message
    assert found.failure.phase == "plant" and found.planted == ()


# --------------------------------------------------------------------------- the journal's place


@pytest.mark.parametrize("size", [64, 600])
@pytest.mark.parametrize("kind", [FilesystemKind.EXT3, FilesystemKind.EXT4])
def test_journal_blocks_are_those_that_debugfs_tells(kind: FilesystemKind, size: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size * MIB)
    tool("mkfs.ext4", "-q", "-F", "-t", kind, "-b", "4096", str(image))
    printed = tool("debugfs", "-R", "blocks <8>", str(image))
    indirect = {int(block) for block in printed.split()} - {*journal_blocks(seen(image), kind)}
    assert {*journal_blocks(seen(image), kind)} <= {int(block) for block in printed.split()}
    assert len(journal_blocks(seen(image), kind)) in (1024, 4096, 8192) and len(indirect) <= 12


@pytest.mark.parametrize("kind", ["ntfs3", "ntfs-3g"])
def test_journal_blocks_of_ntfs_are_those_of_its_log_file(kind: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(lzma.decompress((RECORDINGS / "dos" / f"{kind}.img.xz").read_bytes()))
    owned = FILESYSTEMS[FilesystemKind(kind)].owners(seen(image), range(1024))
    found = journal_blocks(seen(image), FilesystemKind.NTFS3)
    assert len(found) == 256 and {*found} == {at for at, one in owned.items() if one.owner is BlockOwner.JOURNAL}


def test_journal_blocks_of_xfs_are_those_of_its_superblock(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(300 * MIB)
    tool("mkfs.xfs", "-q", "-f", str(image))
    found = journal_blocks(seen(image), FilesystemKind.XFS)
    printed = tool("xfs_db", "-r", "-c", "sb 0", "-c", "print logstart logblocks", "-c", "fsblock 0", str(image))
    numbers = {name: int(value) for name, value in (line.split(" = ") for line in printed.splitlines() if "=" in line)}
    daddr = tool("xfs_db", "-r", "-c", f"convert fsblock {numbers['logstart']} daddr", str(image))
    first = int(daddr.split("(")[1].split(")")[0]) * 512 // BLOCK_BYTES
    assert found == tuple(range(first, first + numbers["logblocks"]))


@pytest.mark.parametrize("content", [b"", bytes(4096), b"XFSB" + bytes(8192), bytes(1080) + b"\x53\xef" + bytes(8192)])
def test_journal_blocks_of_no_filesystem_none(content: bytes, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(content.ljust(-(-len(content) // BLOCK_BYTES) * BLOCK_BYTES, b"\0"))
    assert {journal_blocks(seen(image), kind) for kind in FilesystemKind} == {()}


# --------------------------------------------------------------------------- what grep printed


def test_marks_are_read_and_other_lines_left_out() -> None:
    printed = f"0:K{TOKEN}00000007\n8200:F{TOKEN}00000001\nBinary file matches\n12:K{TOKEN}7\n4096:S{TOKEN}00000000\n"
    assert [*marks(printed)] == [
        Mark(0, MarkedAs.FILE, 7), Mark(8200, MarkedAs.FREED, 1), Mark(4096, MarkedAs.MEMORY, 0),
    ]  # fmt: skip
    assert places("4086:SWAPSPACE2\n8182:SWAPSPACE2\n") == (4086, 8182)
    assert pattern(TOKEN) == f"[KFS]{TOKEN}[0-9]{{8}}"


def test_block_of_each_only_what_is_found_once_and_where_a_block_begins() -> None:
    found = [Mark(at, MarkedAs.FILE, number) for at, number in ((0, 1), (8192, 2), (40960, 2), (12289, 3), (16384, 4))]
    assert block_of_each(found) == {1: 0, 4: 4}


def test_lay_names_are_the_same_to_each_awk(tmp_path: Path) -> None:
    for program in ("mawk", "gawk", "busybox"):
        if shutil.which(program) is None:
            continue
        (tmp_path / program).mkdir()
        (tmp_path / program / "awk").symlink_to(shutil.which(program) or "")
        script = f"{owner_control._MARKED} marked K {TOKEN} 3 4096"
        printed = subprocess.run(
            ["env", f"PATH={tmp_path / program}:/usr/bin:/bin", "sh", "-c", script], capture_output=True, check=True
        ).stdout
        assert len(printed) == 3 * BLOCK_BYTES and printed[4096:].startswith(f"K{TOKEN}00000001 ".encode())
