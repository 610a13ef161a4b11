"""What a sabotage takes back, and programs that are covered by others until then."""

from __future__ import annotations

import secrets

from harness.engine.cell_steps import CellRun
from harness.remote.base import Runner

#: A folder on whatever machine is sabotaged, for this process alone.
DIRECTORY = f"/tmp/drbd-harness-sabotage-{secrets.token_hex(8)}"

# A program is covered by a script that runs the program itself from another place.
_COVER = """
path=$(readlink -f "$(command -v "$1")")
mkdir -p "$2"
cp "$path" "$2/${path##*/}"
cat > "$2/script"
chmod 755 "$2/script" "$2/${path##*/}"
mount --bind "$2/script" "$path"
"""
_UNCOVER = """
path=$(readlink -f "$(command -v "$1")")
if mountpoint -q "$path"; then umount -l "$path"; fi
rm -rf "$2"
"""


def cover(runner: Runner, program: str, script: str, **values: int | str) -> None:
    """Let ``script`` run in the place of ``program``; it finds the program itself in ``{directory}``."""
    text = script.format(directory=DIRECTORY, **values)
    runner.run(["sh", "-ec", _COVER, "sh", program, DIRECTORY], stdin=text)


def cover_for_the_cell(run: CellRun, runner: Runner, program: str, script: str, **values: int | str) -> None:
    """The same until the cell is over."""
    undo(run, runner, ["sh", "-ec", _UNCOVER, "sh", program, DIRECTORY])
    cover(runner, program, script, **values)


def undo(run: CellRun, runner: Runner, argv: list[str]) -> None:
    """Run ``argv`` when the cell is over, at the latest; asked for before anything is done that it has to undo.

    A guest that was lost took with it what was done to it.
    """

    def undone() -> None:
        guest = run.guest_disk.guest
        if guest is not None and runner is guest.agent and not guest.alive():
            return
        runner.run(argv)

    run.register_fault_cleanup(undone)
