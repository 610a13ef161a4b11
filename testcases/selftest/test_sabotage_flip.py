"""Sabotages of the instrument: one byte is changed below DRBD, and the right owner is demanded for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_drbd import BLOCKS
from fake_stage import Stage
from fake_story import in_order
from judged_evidence import HELD, evidence, oracles
from sabotaged_stage import CELL, EXTENTS, RECORDED, SWAPPED, B, cell, ran, staged

from harness.judgement.judge import judge
from harness.judgement.planted_owner import misattributed
from harness.model import BlockOwner, Evidence, Extent, PlantedChange, PlantedKind, Sabotage, Sample, VerdictKind
from harness.parse.filefrag import FileExtent, file_extents
from harness.parse.pagemap import swap_slots

__all__ = ["staged"]


# --------------------------------------------------------------------------- one byte


@pytest.mark.parametrize(
    ("sabotage", "owner", "detail"),
    [(Sabotage.FLIP_FILE, BlockOwner.ALLOCATED, "/modified"), (Sabotage.FLIP_FREE, BlockOwner.FREE, "")],
)
def test_flip_is_a_written_block_that_the_kernel_named_and_after_everything_was_written(
    staged: Callable[[Sabotage], Stage], sabotage: Sabotage, owner: BlockOwner, detail: str
) -> None:
    stage = staged(sabotage)
    found = stage.play()
    (change,) = found.planted
    (block,) = change.blocks()
    assert block in {*range(2193, 2257), *range(2545, 2609)}, "not one that is only preallocated"
    assert (change.owner, change.owner_detail, change.node, change.kind) == (owner, detail, B, PlantedKind.BYTE)
    assert in_order(stage.steps, "quiesce", "sync", f"plant_below on {B}", "detach", "verify", "compare")


def test_flip_swap_slot_is_one_in_use_and_before_swapoff(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.FLIP_SWAP_SLOT)
    found = stage.play()
    (change,) = found.planted
    assert [*change.blocks()] == [24] and change.owner is BlockOwner.FREE, "swapoff frees it before anybody looks"
    assert in_order(stage.steps, "work 1", "sync", f"plant_below on {B}", "quiesce")
    (swapped_out,), (let_go,) = ran(stage, "memory.reclaim", "guest"), ran(stage, "umount -l", "guest")
    assert ran(stage, "setsid", "guest")[0] < swapped_out < ran(stage, "pagemap", "guest")[0] < let_go
    assert "kill -9" in stage.guest.agent.ran[let_go][2], "the process that held the memory is ended"


def test_flip_swap_slot_without_a_page_in_swap_is_a_failure(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.FLIP_SWAP_SLOT)
    stage.guest.agent.answers["pagemap"] = f" {1 << 63 | 99:016x}\n"
    found = stage.play()
    assert found.failure and "no page of the process" in found.failure.message and found.planted == ()


def test_flip_of_another_seed_is_another_byte(staged: Callable[[Sabotage], Stage], tmp_path: Path) -> None:
    places = set()
    for seed in range(4):
        stage = Stage.of(tmp_path / str(seed), replace(cell(Sabotage.SILENT_VERIFY), seed=seed))
        (change,) = stage.play().planted
        places.add((change.start, change.byte))
    assert len(places) == 4


def test_file_extents_preallocated_ones_are_told_apart() -> None:
    assert file_extents(EXTENTS) == (
        FileExtent(range(2065, 2193), True),
        FileExtent(range(2193, 2257), False),
        FileExtent(range(2257, 2545), True),
        FileExtent(range(2545, 2609), False),
        FileExtent(range(2609, 2833), True),
    )


def test_file_extents_without_a_place_is_value_error() -> None:
    with pytest.raises(ValueError, match="no extent with a place"):
        file_extents((RECORDED / "filefrag-delayed.txt").read_text())


def test_swap_slots_only_of_pages_that_are_swapped_out() -> None:
    assert swap_slots(SWAPPED) == (7, 24, 25)
    assert swap_slots("") == ()
    with pytest.raises(ValueError, match="invalid literal"):
        swap_slots("od: no such file")


# --------------------------------------------------------------------------- the right owner


def planted(owner: BlockOwner = BlockOwner.ALLOCATED, detail: str = "/modified", block: int = 30) -> PlantedChange:
    return PlantedChange(block * 8 + 3, 1, B, PlantedKind.BYTE, 17, owner, detail)


def diverged(sample: Sample | None, compared: set[int], **changed: Any) -> Evidence:
    facts: dict[str, Any] = {**oracles(compared, compared), "planted": (planted(),), **changed}
    return evidence(CELL, samples=() if sample is None else (sample,), **facts)


RIGHT = Sample(30, 17, 1, "00", "ff", BlockOwner.ALLOCATED, "/modified")


def test_planted_owner_that_was_found_is_diverged() -> None:
    found = diverged(RIGHT, {30})
    assert misattributed(found) is None and judge(found, HELD).kind is VerdictKind.DIVERGED


@pytest.mark.parametrize("owner", [one for one in BlockOwner if one is not BlockOwner.ALLOCATED])
def test_planted_owner_any_other_is_inconclusive_with_what_was_found_beside_it(owner: BlockOwner) -> None:
    verdict = judge(diverged(replace(RIGHT, owner=owner, detail="elsewhere"), {30}), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and f"was taken for {owner} (elsewhere)" in verdict.sentence
    assert verdict.reasons[0].startswith("diverged: 1 blocks differ")


@pytest.mark.parametrize(
    ("sample", "compared", "says"),
    [
        (replace(RIGHT, detail="/other"), {30}, "is of /modified and was taken for /other"),
        (None, {30}, "nobody looked for the owner of block 30"),
        (None, set(), "block 30, which was changed on nodeb below DRBD, was not found"),
        (replace(RIGHT, block=31), {31}, "block 30, which was changed on nodeb below DRBD, was not found"),
    ],
)
def test_planted_owner_missed_is_inconclusive(sample: Sample | None, compared: set[int], says: str) -> None:
    verdict = judge(diverged(sample, compared), HELD)
    assert verdict.kind is VerdictKind.INCONCLUSIVE and says in verdict.sentence


def test_planted_owner_unknown_beforehand_is_not_judged() -> None:
    change = replace(planted(), owner=None, owner_detail="")
    assert misattributed(diverged(None, set(), planted=(change,))) is None


def test_samples_of_planted_blocks_come_before_the_limit(staged: Callable[[Sabotage], Stage]) -> None:
    stage = staged(Sabotage.SILENT_VERIFY)
    stage.workload.leaves = {*range(100, 140), BLOCKS // 4}
    found = stage.play()
    blocks = [one.block for one in found.samples]
    assert BLOCKS // 4 in blocks and blocks == sorted(blocks) and len(blocks) == 16
    assert Extent(BLOCKS // 4 * 8, 8) in found.comparison.differing if found.comparison else False
