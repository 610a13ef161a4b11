"""Two machines of an inventory that keep in which order they were asked for what.  Nothing here is a test."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_inventory_command import FACTS, OneMachine, Two, volume_group, write_inventory
from test_taken import answer

from harness.config import inventory
from harness.config.lab_spec import LabSpec
from harness.lab.hardware import provider
from harness.lab.hardware.lab import HardwareLab
from harness.lab.hardware.provider import hardware_lab
from harness.lab.nested.keys import new_key_pair, write_private

_JOURNAL = ("note", "list", "put-back", "drop", "end-commands")


class Played(OneMachine):
    """A machine that keeps in which order it was asked for what, and the rules that udev was given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.story: list[str] = []
        self.entries: list[dict[str, Any]] = []
        self.taken = answer()

    def _answer(self, argv: tuple[str, ...]) -> tuple[int, str, str]:
        asked = json.loads(argv[-1]) if argv[0] == "python3" else {}
        if asked.get("act") in _JOURNAL:
            return 0, json.dumps(self._journal(asked)), ""
        if argv[0] == "python3" and asked in ({}, {"domains": True}):
            self.story.append("libvirt is asked" if asked else "what is taken is asked")
            return 0, self.taken, ""
        if argv[0] == "sh" and "udevadm control" in argv[2]:
            self.story.append(f"write {argv[4]}")
        if argv[0] in ("lvcreate", "lvremove"):
            self.story.append(argv[0])
        if asked.get("act") in ("take", "give"):
            self.story.append(f"{asked['act']} the lease")
        return super()._answer(argv)

    def _journal(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.story += [f"note {one['kind']} {one['what']}" for one in asked.get("items", ())]
        if asked["act"] == "list":
            return {"entries": self.entries}
        if asked["act"] == "put-back":
            self.story.append("put back")
            is_last = bool(asked["skip"])
            storage = None if is_last else {"number": 1, "what": "the volume theirs/drbd-harness-test"}
            return {"done": [], "left": [], "failed": [], "tried": [], "storage": storage}
        return {"failed": [], "noted": [True]}


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Two]:
    monkeypatch.setenv("DRBD_HARNESS_STATE", str(tmp_path / "state"))
    # Nothing of it is brought to machines that are played.
    monkeypatch.setattr(provider, "program", lambda: ("", b""))
    user = new_key_pair("user")
    write_private(tmp_path / "key", user.private)
    found = []
    for number, boot in ((1, "one"), (2, "two")):
        look, made = json.dumps(volume_group()), json.dumps(volume_group(made=True))
        if number == 2:
            # Another group of the same name.
            look, made = (text.replace('\\"vg_uuid\\": \\"', '\\"vg_uuid\\": \\"other') for text in (look, made))
            made = made.replace("LVM-", "LVM-other")
        facts = FACTS.replace("missing=tc\n", "").replace("10.20.0.1", f"10.20.0.{number}") + f"host=m{number}\n"
        facts += "processor=A Processor\n"
        found.append(Played(new_key_pair(boot), user.public, look=look, made=made, boot=boot, facts=facts))
    path = tmp_path / "machines.toml"
    write_inventory(path, found)
    two = Two((found[0], found[1]), path)
    two.pin()
    yield two
    for machine in found:
        machine.close()


@contextlib.contextmanager
def lab(machines: Two) -> Iterator[HardwareLab]:
    with hardware_lab(inventory.load(machines.path), LabSpec(device_mib=32)) as made:
        yield made


def stories(machines: Two) -> list[list[str]]:
    return [machine.story for machine in machines.machines if isinstance(machine, Played)]


def nothing_written(machines: Two) -> bool:
    return not any(re.match("note|lv|write|put", one) for story in stories(machines) for one in story)
