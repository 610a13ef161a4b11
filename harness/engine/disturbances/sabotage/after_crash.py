"""A crash whose filesystem does not come back: what it left is damaged before anybody mounts it."""

from __future__ import annotations

from harness.engine.cell_steps import CellRun
from harness.engine.disturbances.crash import CrashDisturbance
from harness.model import Crash, Sabotage

# mount(8) finds no ext4 any more.
_SUPERBLOCK = """
dd if=/dev/zero of="$1" bs=1024 seek=1 count=1 conv=notrunc,fsync status=none
echo "the superblock"
"""
# Nobody wrote to it since it was made, so that no journal has it; mounting does not read it, and fsck does.
_DIRECTORY_BLOCK = """
block=$(debugfs -R 'blocks <11>' "$1" 2>/dev/null | tr ' ' '\\n' | grep -m 1 '^[1-9]')
dd if=/dev/zero of="$1" bs=4096 seek="$block" count=1 conv=notrunc,fsync status=none
echo "block $block, of the directory lost+found,"
"""


class DamagedAfterCrash(CrashDisturbance):
    """On the Primary, through DRBD, so that both replicas have it: a loss is no divergence."""

    def __init__(self, crash: Crash, sabotage: Sabotage) -> None:
        super().__init__(crash)
        self._script = _SUPERBLOCK if sabotage is Sabotage.DAMAGE_SUPERBLOCK else _DIRECTORY_BLOCK

    def before_recovery(self, run: CellRun) -> None:
        """The damage; nobody has the device open now."""
        resource = run.context.resource
        damaged = run.context.lab.a.runner.run(["sh", "-ec", self._script, "sh", resource.device]).stdout.strip()
        resource.sync()
        run.context.log_event(f"sabotage: {damaged} was overwritten with zeros before the filesystem was mounted")
