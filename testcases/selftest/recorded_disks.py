"""A guard of disks to whom a machine says what real ones said, and changes of it.  Nothing here is a test."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.config.inventory import StorageEntry
from harness.lab.hardware.guard import Guard, Machine, Step
from harness.remote.scripted import ScriptedRunner

FOREIGN = Path(__file__).parent / "recordings" / "foreign-trixie"
RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted(FOREIGN.glob("*.json"))}


class Heard(Guard):
    """A guard to whom the machine says what was recorded; of any other command it is told that it did not work."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        self.commands: list[tuple[str, ...]] = []
        self._said = json.dumps(recorded["look"])
        machine = Machine("foreign", ScriptedRunner(self._answer, host="foreign"))
        super().__init__(machine, StorageEntry(**recorded["storage"]), recorded["lab"], recorded["size"],
                         recorded.get("owner"))  # fmt: skip

    def _answer(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        self.commands.append(argv)
        is_look = argv[-1].startswith("{") and "act" not in json.loads(argv[-1])
        return (0, self._said, "") if is_look else (1, "", "the test lets nothing be written")

    def against(self, step: Step) -> tuple[str, ...]:
        return self.refusals(step, self.look())


def heard(name: str, change: Callable[[dict[str, Any]], object] | None = None) -> Heard:
    recorded = copy.deepcopy(RECORDED[name])
    if change is not None:
        change(recorded["look"])
    return Heard(recorded)


def of_a_disk(look: dict[str, Any]) -> dict[str, Any]:
    """What /sys says of the disk that was asked about."""
    found: dict[str, Any] = look["sysfs"][look["disks"][0]["number"]]
    return found


def disk(**facts: object) -> Callable[[dict[str, Any]], None]:
    """A change of what the machine says of the disk itself."""
    return lambda look: look["disks"][0].update(facts)


def sysfs(**facts: object) -> Callable[[dict[str, Any]], None]:
    """A change of what its /sys says of the disk."""
    return lambda look: of_a_disk(look).update(facts)
