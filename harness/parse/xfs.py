"""What xfs_db and xfs_logprint print of an XFS filesystem: its sizes, what each block is, which file has it where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_SB_LINE = re.compile(r"(\w+) = (\S+)")
_BLOCK_LINE = re.compile(r"block (\d+) \((\d+)/(\d+)\) type (\S+)(?: inode (\d+)(?: (.+))?)?", re.DOTALL)
_INODE_LINE = re.compile(r"# inode (\d+)")
_EXTENT_LINE = re.compile(r"data offset (\d+) startblock \d+ \((\d+)/(\d+)\) count (\d+) flag (\d+)")
_CORE_LINE = re.compile(r"core\.(size|mode|nlinkv2|format) = (\d+)")
_LOG_STATE = re.compile(r"state: <(\w+)>")
_NAMED_LINE = re.compile(r"\s*(\d+) (.+)")


@dataclass(frozen=True)
class XfsSizes:
    """The superblock's sizes, in blocks of ``block_bytes`` but for ``group_bits``.

    ``group_blocks`` are those of an allocation group, of which a block's number inside of the filesystem leaves room
    for two to the power of ``group_bits``.  ``log`` is where the internal log lies, as such a number; None without one.
    """

    block_bytes: int
    blocks: int
    group_blocks: int
    group_bits: int
    root_inode: int
    log: int | None
    log_blocks: int

    def device_block(self, group: int, block: int) -> int:
        """The number on the device of ``block`` of allocation group number ``group``."""
        return group * self.group_blocks + block

    def place(self, device_block: int) -> tuple[int, int]:
        """The allocation group of a block of the device, and its number there."""
        return divmod(device_block, self.group_blocks)

    def number(self, device_block: int) -> int:
        """The number inside of the filesystem of a block of the device."""
        group, block = self.place(device_block)
        return group << self.group_bits | block

    @property
    def log_run(self) -> range:
        """The blocks of the device that are the log."""
        if self.log is None:
            return range(0)
        first = self.device_block(self.log >> self.group_bits, self.log & (1 << self.group_bits) - 1)
        return range(first, first + self.log_blocks)


def sizes(text: str) -> XfsSizes:
    """The sizes in the output of ``sb 0`` and ``print``; :class:`ValueError` where it is not the whole superblock."""
    found = dict(_SB_LINE.findall(text))
    try:
        if found["magicnum"] != "0x58465342":
            raise ValueError("there is no XFS superblock")
        log = int(found["logstart"])
        return XfsSizes(
            int(found["blocksize"]), int(found["dblocks"]), int(found["agblocks"]), int(found["agblklog"]),
            int(found["rootino"]), log or None, int(found["logblocks"]),
        )  # fmt: skip
    except KeyError as missing:
        raise ValueError(f"xfs_db printed no {missing.args[0]} of the superblock") from None


def log_is_clean(text: str) -> bool:
    """Whether nothing is left to be replayed, by the output of ``xfs_logprint -t``.

    :class:`ValueError` where it does not say.
    """
    state = _LOG_STATE.search(text)
    if state is None or state[1] not in ("CLEAN", "DIRTY"):
        raise ValueError("xfs_logprint does not say whether the log was replayed")
    return state[1] == "CLEAN"


@dataclass(frozen=True)
class XfsBlock:
    """What a block is to ``blockuse``: its type, the inode that has it and a path of that, where there are any."""

    type: str
    inode: int | None
    name: str


def block_uses(text: str, layout: XfsSizes) -> Mapping[int, XfsBlock]:
    """What ``blockuse -n`` printed, by the number of the block on the device.

    :class:`ValueError` where ``blockget``, which comes before it, complains of the filesystem: then no map of it can be
    relied on.  That the superblock's counters are off is no such complaint.
    """
    found: dict[int, XfsBlock] = {}
    for line in _records(text, "block "):
        match = _BLOCK_LINE.fullmatch(line)
        if match is None:
            if line.startswith("sb_") or not line.strip():
                continue
            raise ValueError(f"xfs_db complains of the filesystem: {line.strip().splitlines()[0][:120]}")
        _, group, block, kind, inode, name = match.groups()
        at = layout.device_block(int(group), int(block))
        found[at] = XfsBlock(kind, int(inode) if inode else None, name or "")
    return found


@dataclass
class XfsInode:
    """An inode: its ``size`` in bytes, ``mode``, number of names, and its extents in the order of the file.

    An extent is its first block in the file, its blocks on the device, and whether it was ever written.
    """

    number: int
    size: int = 0
    mode: int = 0
    links: int = 0
    data: list[tuple[int, range, bool]] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """``file``, ``directory``, ``link`` or ``other``."""
        return {0o100000: "file", 0o040000: "directory", 0o120000: "link"}.get(self.mode & 0o170000, "other")


def inodes(text: str, layout: XfsSizes) -> Mapping[int, XfsInode]:
    """The inodes in what ``echo # inode N``, ``print`` and ``bmap`` printed of each, one behind the other."""
    found: dict[int, XfsInode] = {}
    now: XfsInode | None = None
    for line in text.splitlines():
        if match := _INODE_LINE.fullmatch(line.strip()):
            now = found.setdefault(int(match[1]), XfsInode(int(match[1])))
        elif now is not None and (match := _CORE_LINE.match(line)):
            name, value = match.groups()
            if name == "size":
                now.size = int(value)
            elif name == "mode":
                now.mode = int(value, 8)
            elif name == "nlinkv2":
                now.links = int(value)
        elif now is not None and (match := _EXTENT_LINE.match(line)):
            offset, group, block, count, flag = map(int, match.groups())
            first = layout.device_block(group, block)
            now.data.append((offset, range(first, first + count), flag == 0))
    return found


def names(text: str) -> Mapping[int, str]:
    """A path of each inode that has one, by the output of ``ncheck``: from the root on, without the first slash."""
    found: dict[int, str] = {}
    for line in text.splitlines():
        if match := _NAMED_LINE.fullmatch(line):
            found.setdefault(int(match[1]), match[2].removesuffix("/."))
    return found


def _records(text: str, begin: str) -> Iterator[str]:
    """The lines of ``text``; one that does not begin with ``begin`` and follows one with a name is part of the name."""
    waiting = ""
    for line in text.splitlines():
        if waiting and not line.startswith((begin, "sb_")):
            waiting += f"\n{line}"
            continue
        if waiting:
            yield waiting
            waiting = ""
        if line.startswith(begin) and " inode " in line:
            waiting = line
        else:
            yield line
    if waiting:
        yield waiting
