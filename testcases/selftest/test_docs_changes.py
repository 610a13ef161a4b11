"""The table of what is changed on a machine (docs/two-machines.md): the code that changes it, the journal's kinds."""

from __future__ import annotations

import re
from pathlib import Path

import harness
from harness.model.changes import ChangeKind

PACKAGE = Path(harness.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "two-machines.md"
# Rooms whose code reaches a node; what is for real machines alone is held by test_disk_writers.py.
ROOMS = ("drbd", "engine", "lab", "guest", "filesystems", "workloads")
# What changes a machine beyond a file that a program of its own prints to.
CHANGES = re.compile(
    r'tc qdisc (add|del|replace)|"tc", "qdisc"|ethtool -K|"ethtool", "-K"|dmsetup (create|load|remove|suspend)'
    r'|\bmodprobe\b|"--console-level"|/proc/sys/|/sys/module/|/sys/block/[^ ]+/(reset|disksize)|"drbdadm"'
    r'|drbdsetup down|losetup|cryptsetup|lvcreate|vgchange|mkdir|mktemp|\bmount -|swapon |"systemctl"'
    r'|systemctl (stop|start|restart)|createXML|secretDefineXML|/dev/kmsg|partx|"truncate"|/tmp/|\bof="\$(lower|1)"'
)
_CODE = re.compile(r"`([^`]+)`")


def rows() -> list[tuple[str, list[str], list[str]]]:
    """What, the files or folders, and the kinds of each row of the table."""
    text = PAGE.read_text()
    table = text[text.index("| what | where in `harness/` |") :].split("\n\n", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return [(what, _CODE.findall(where), _CODE.findall(kind)) for what, where, kind, _ in cells]


def test_table_names_every_kind_of_the_journal_and_no_other() -> None:
    assert {kind for _, _, kinds in rows() for kind in kinds} == set(ChangeKind)


def test_table_names_every_file_that_changes_a_node_and_each_of_them_does() -> None:
    named = {one for _, where, _ in rows() for one in where}
    folders = tuple(one for one in named if one.endswith("/"))
    assert all((PACKAGE / one).exists() for one in named)
    found = {
        path.relative_to(PACKAGE).as_posix()
        for room in ROOMS
        for path in (PACKAGE / room).rglob("*.py")
        if CHANGES.search(path.read_text())
    }
    found = {one for one in found if not one.startswith(("lab/hardware/", *folders))}
    assert found == {one for one in named if not one.startswith(folders)}


# Kinds that no code of these rooms notes: what the guard makes, what only a virtual node gets, what nothing makes yet.
NOT_NOTED = {"storage", "sysctl", "firewall"}


def test_table_says_of_each_kind_where_it_is_noted_before_it_is_changed() -> None:
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    # The changes of harness/drbd have one place, which its other files call.
    noted = texts["drbd/changes.py"]
    for what, where, kinds in rows():
        code = noted + "".join(texts.get(one, "") for one in where)
        for kind in kinds:
            assert (f"ChangeKind.{kind.replace('-', '_').upper()}" in code) != (kind in NOT_NOTED), what
