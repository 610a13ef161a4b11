"""Flips of a comparison played again on both stacks: one run of this program after the other, in blocks."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cli.bisect_plays import own_process, require_no_lab
from harness.errors import HarnessError, UsageError
from harness.judgement.rerun_plan import Block, blocks, worth_playing
from harness.judgement.standing import level_of
from harness.model import Run
from harness.report.compare import ComparedRun, Comparison, other_stack, with_rerun
from harness.report.formatting import plural
from harness.store import Store, run_ids

# What ``run`` ends with where its cells were played, whatever came of them.
_PLAYED = (0, 1, 2)


@dataclass(frozen=True)
class Rerun:
    """What is to be played: ``cells`` of both runs of ``first``, in ``blocks``, kept below ``folder``."""

    first: Comparison
    cells: tuple[str, ...]
    blocks: tuple[Block, ...]
    folder: Path

    @classmethod
    def of(cls, first: Comparison, plays: int, runs: Path) -> Rerun | None:
        """The flips of a comparison, each ``plays`` times on each stack; None where nothing flipped.

        The same flips and as many plays have the same folder, so that a rerun that was interrupted goes on.
        :class:`~harness.errors.UsageError` where a run does not know enough of itself to be played again.
        """
        cells = tuple(cell.cell_id for cell in worth_playing(first.cells))
        if not cells:
            return None
        for side in (first.old, first.new):
            if not side.run.stack_spec:
                raise UsageError(f"the run '{side.name}' does not say which stack it was played with: it is too old")
        said = "\n".join((*_named(first.old.run), *_named(first.new.run), str(plays), *cells))
        folder = runs / f"rerun-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
        return cls(first, cells, blocks(plays), folder)

    def side(self, block: Block) -> ComparedRun:
        """The run whose stack a block is played on."""
        return self.first.new if block.new else self.first.old

    def estimate_line(self, runs: Path) -> str:
        """How long it will take, before it begins; blocks that were played are in it too."""
        from harness.report.estimate import about

        seconds = sum(_seconds(self.side(block).run, self.cells, block.plays, runs) for block in self.blocks)
        often = sum(block.plays for block in self.blocks if block.new)
        order = ", ".join(block.stack for block in self.blocks)
        return (
            f"{plural(len(self.cells), 'cell')} again, {plural(often, 'time')} on each stack, in"
            f" {len(self.blocks)} labs ({order}): about {about(seconds)}; kept in {self.folder}"
        )

    def play(self) -> Comparison:
        """Play what is missing, and compare again with it; blocks until the last lab is down.

        :class:`~harness.errors.HarnessError` where a block could not be played; the same command goes on there.
        """
        require_no_lab()
        played: dict[bool, list[ComparedRun]] = {False: [], True: []}
        for block in self.blocks:
            played[block.new].append(ComparedRun.of(self._played(block)))
        for sentence in other_stack(self.first, played[False], played[True]):
            print(f"drbd-harness: {sentence}; not counted together with the first run", file=sys.stderr)
        return with_rerun(self.first, played[False], played[True])

    def _played(self, block: Block) -> Store:
        folder, side = self.folder / block.name, self.side(block)
        assert side.directory is not None
        known = run_ids(folder)
        if known and _answered(Store.open(folder, known[-1])) == (True, True):
            return Store.open(folder, known[-1])
        cells = [f"--cell={one}" for one in self.cells]
        begin = ["--like", str(side.directory.resolve()), *cells, "--repeat", str(block.plays)]
        how = ["--resume", known[-1]] if known else begin
        print(f"block {block.number} of {len(self.blocks)}: the {block.stack} stack", file=sys.stderr, flush=True)
        code = own_process(["run", *how, "--runs", str(folder)])
        if code not in _PLAYED or not run_ids(folder):
            raise HarnessError(f"block {block.number} ({block.stack} stack) could not be played; it says why above")
        store = Store.open(folder, run_ids(folder)[-1])
        if not _answered(store)[0]:
            raise HarnessError(
                f"no play of block {block.number} ({block.stack} stack) has an answer: look at {store.directory};"
                " the same command goes on from there"
            )
        return store


def _named(run: Run) -> tuple[str, ...]:
    """Its id; of a merged run, which may be called as that of another night, also those of its parts."""
    return run.id, *(part.id for part in run.merged)


def _answered(store: Store) -> tuple[bool, bool]:
    """Whether any play of the run has an answer, and whether all have."""
    from harness.store import judged_results

    there = [level_of(result) is not None for result in judged_results(store) if result.cell.control is None]
    return any(there), all(there)


def _seconds(run: Run, cells: Sequence[str], plays: int, runs: Path) -> float:
    from harness.cli.estimates import estimated
    from harness.config.controls import with_controls
    from harness.config.repetitions import repeated
    from harness.config.run_specs import specs_of

    lab, _ = specs_of(run)
    chosen = with_controls(repeated([cell for cell in run.cells if cell.id in cells], plays, 1))
    made = estimated(chosen, lab, runs)
    return made.total if made else 0.0
