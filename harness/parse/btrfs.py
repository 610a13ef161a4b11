"""What ``btrfs inspect-internal`` prints of a filesystem: its superblock and its trees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ROOT_TREE, FS_TREE = 1, 5
_TREES = {"ROOT_TREE": ROOT_TREE, "EXTENT_TREE": 2, "CHUNK_TREE": 3, "DEV_TREE": 4, "FS_TREE": FS_TREE, "CSUM_TREE": 7}
_HEADER = re.compile(r"[a-z].* tree key \((\S+) ROOT_ITEM \d+\)\s*")
_UNKEYED = {"root tree": ROOT_TREE, "chunk tree": 3}
_ITEM = re.compile(r"\titem \d+ key \((\S+) (\S+) (\S+)\) itemoff \d+ itemsize \d+")
_CHUNK = re.compile(r"\t\tlength (\d+) owner \d+ stripe_len \d+ type (\S+)")
_STRIPE = re.compile(r"\t\t\tstripe \d+ devid (\d+) offset (\d+)")
_TREE_BLOCK = re.compile(r"^(?:leaf|node) (\d+) (?:items|level) ", re.MULTILINE)
_OWNER = re.compile(r"\t\t(?:\(\S+ \S+\) )?tree block backref root (\S+)")
_FLAGS = re.compile(r"\t\trefs \d+ gen \d+ flags (\S+)")
_INODE = re.compile(r"\t\tgeneration \d+ transid \d+ size (\d+) nbytes \d+")
_MODE = re.compile(r"\t\tblock group \d+ mode (\d+) links (\d+) ")
_TYPE = re.compile(r"\t\tgeneration \d+ type (\d+) ")
_DISK = re.compile(r"\t\t(?:extent|prealloc) data disk byte (\d+) nr (\d+)")
_PART = re.compile(r"\t\t(?:extent|prealloc) data offset (\d+) nr (\d+)")
_COMPRESSION = re.compile(r"\t\textent compression (\d+) ")
_NAME = re.compile(r"\t\tindex \d+ (?:parent (\d+) )?namelen (\d+) name: (.*)")
_ROOT_NAME = re.compile(r"\t\troot backref key dirid (\d+) sequence \d+ name (.*)")
_REGULAR, _PREALLOCATED = 1, 2


@dataclass(frozen=True)
class BtrfsSuper:
    """The superblock: sizes in bytes; ``log_root``: whether there is a log tree, which was not replayed then."""

    total_bytes: int
    bytes_used: int
    node_bytes: int
    sector_bytes: int
    devices: int
    log_root: bool


def super_block(text: str) -> BtrfsSuper:
    """The superblock in the output of ``dump-super``; :class:`ValueError` where it is not all there."""
    found = dict(re.findall(r"^(\w+)\t+(\S+)", text, re.MULTILINE))
    if "_BHRfS_M [match]" not in text or "[match]" not in text.partition("\ncsum\t")[2].partition("\n")[0]:
        raise ValueError("there is no Btrfs superblock that its checksum confirms")
    names = ("total_bytes", "bytes_used", "nodesize", "sectorsize", "num_devices", "log_root")
    try:
        total, used, node, sector, devices, log = (int(found[name]) for name in names)
    except KeyError as missing:
        raise ValueError(f"btrfs printed no {missing.args[0]} of the superblock") from None
    return BtrfsSuper(total, used, node, sector, devices, log != 0)


@dataclass(frozen=True)
class Chunk:
    """``length`` bytes from the logical address ``start`` on; each of ``copies`` is (device, offset there)."""

    start: int
    length: int
    type: str
    copies: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class FilePart:
    """``length`` bytes of a file from byte ``offset`` on.

    They are found from byte ``skip`` on in the extent at the logical address ``disk``, of ``disk_bytes``;
    where it is ``compressed``, after all of it was expanded.  ``written`` False: they read as zeros.
    """

    tree: int
    inode: int
    offset: int
    length: int
    disk: int
    disk_bytes: int
    skip: int
    compressed: bool
    written: bool


@dataclass
class BtrfsTrees:
    """What the trees tell.  Inodes are known by (tree, number).

    ``tree_blocks``: the logical address of each and the name of its tree; ``data``: that of each data extent and its
    length; ``names``: (number of the directory, name) of each name of an inode; ``roots``: (tree, number of the
    directory, name) by which a subvolume is found.
    """

    chunks: list[Chunk] = field(default_factory=list)
    tree_blocks: dict[int, str] = field(default_factory=dict)
    data: dict[int, int] = field(default_factory=dict)
    parts: list[FilePart] = field(default_factory=list)
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    links: dict[tuple[int, int], int] = field(default_factory=dict)
    names: dict[tuple[int, int], list[tuple[int, str]]] = field(default_factory=dict)
    roots: dict[int, tuple[int, int, str]] = field(default_factory=dict)


def trees(text: str) -> BtrfsTrees:
    """What the output of ``dump-tree`` tells.

    :class:`ValueError` where an item is not as it is known, and where a tree block is missing: one that cannot be read
    is left out without an error.
    """
    found = BtrfsTrees()
    tree = 0
    for head, lines in _items(text):
        if isinstance(head, str):
            tree = _UNKEYED.get(head) or _tree(head)
            continue
        first, kind, last = head
        match kind:
            case "CHUNK_ITEM":
                found.chunks.append(_chunk(int(last), lines))
            case "EXTENT_ITEM" | "METADATA_ITEM":
                _extent(found, int(first), 0 if kind == "METADATA_ITEM" else int(last), lines)
            case "EXTENT_DATA":
                found.parts += _parts(tree, _number(first), int(last), lines)
            case "INODE_ITEM":
                inode = (tree, _number(first))
                found.sizes[inode] = int(_first(_INODE, lines)[1])
                found.links[inode] = int(_first(_MODE, lines)[2])
            case "INODE_REF" | "INODE_EXTREF":
                found.names.setdefault((tree, _number(first)), []).extend(_names(int(_number(last)), kind, lines))
            case "ROOT_BACKREF":
                match = _first(_ROOT_NAME, lines)
                found.roots[_tree(first)] = (_tree(last), int(match[1]), match[2])
    if missing := found.tree_blocks.keys() - {int(number) for number in _TREE_BLOCK.findall(text)}:
        raise ValueError(f"{len(missing)} of its {len(found.tree_blocks)} tree blocks could not be read")
    return found


_Head = str | tuple[str, str, str]


def _items(text: str) -> Iterator[tuple[_Head, list[str]]]:
    """Each item's key and the lines below it; and the name or key of each tree where it begins, without lines."""
    key: tuple[str, str, str] | None = None
    lines: list[str] = []
    # Not by splitlines(), which takes characters for the end of a line that names may have.
    for line in text.split("\n"):
        item = _ITEM.match(line)
        header = None if item else _HEADER.fullmatch(line)
        begins = header[1] if header else line if line in _UNKEYED else ""
        if item or begins or line.startswith(("leaf ", "node ", "total bytes ")):
            if key is not None:
                yield key, lines
            key, lines = (item[1], item[2], item[3]) if item else None, []
            if begins:
                yield begins, []
        elif key is not None:
            lines.append(line)
    if key is not None:
        yield key, lines


def _first(pattern: re.Pattern[str], lines: list[str]) -> re.Match[str]:
    for line in lines:
        if match := pattern.match(line):
            return match
    raise ValueError(f"an item of a Btrfs tree is not as it is known: {' '.join(' '.join(lines).split())[:120]}")


def _tree(name: str) -> int:
    """The number of a tree; 0 for one that holds no files."""
    return int(name) if name.isdigit() else _TREES.get(name, 0)


def _number(name: str) -> int:
    """The number of an inode; negative for the few that have a name of their own, which are no files."""
    return int(name) if name.isdigit() else -1 - sum(name.encode())


def _chunk(start: int, lines: list[str]) -> Chunk:
    match = _first(_CHUNK, lines)
    copies = tuple((int(found[1]), int(found[2])) for line in lines if (found := _STRIPE.match(line)))
    return Chunk(start, int(match[1]), match[2], copies)


def _extent(found: BtrfsTrees, start: int, length: int, lines: list[str]) -> None:
    flags = _first(_FLAGS, lines)[1].split("|")
    if "DATA" in flags:
        found.data[start] = length
    else:
        owners = [match[1] for line in lines if (match := _OWNER.match(line))]
        found.tree_blocks[start] = owners[0] if owners else ""


def _parts(tree: int, inode: int, offset: int, lines: list[str]) -> Iterator[FilePart]:
    kind = int(_first(_TYPE, lines)[1])
    if kind not in (_REGULAR, _PREALLOCATED):
        # Inline: it is in the tree itself.
        return
    disk, part = _first(_DISK, lines), _first(_PART, lines)
    if int(disk[1]) == 0:
        # A hole.
        return
    compressed = kind == _REGULAR and _first(_COMPRESSION, lines)[1] != "0"
    yield FilePart(
        tree, inode, offset, int(part[2]), int(disk[1]), int(disk[2]), int(part[1]), compressed, kind == _REGULAR
    )


def _names(parent: int, kind: str, lines: list[str]) -> Iterator[tuple[int, str]]:
    """The names of an inode.  One that has the end of a line in it goes on in the next one; its length tells."""
    at = 0
    while at < len(lines):
        if match := _NAME.match(lines[at]):
            name = match[3]
            while len(name.encode(errors="surrogateescape")) < int(match[2]) and at + 1 < len(lines):
                at += 1
                name += f"\n{lines[at]}"
            yield int(match[1]) if kind == "INODE_EXTREF" and match[1] else parent, name
        at += 1
