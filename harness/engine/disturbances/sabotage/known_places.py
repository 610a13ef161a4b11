"""Where a block of each class lies in a copy of a replica, by what was laid out to be found there.

Nothing here asks what the owners of blocks are found by, but for what is encrypted: that is searched as the layer shows
it.  The journal's place is read from the superblock (:mod:`.journal_region`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.engine.disturbances.sabotage.journal_region import HAVE_JOURNAL, journal_blocks
from harness.errors import InfrastructureError
from harness.filesystems.base import Offers
from harness.filesystems.layers import Inner, Layer
from harness.filesystems.view import ReplicaView
from harness.model import BLOCK_BYTES, BlockOwner, FilesystemKind, Layout
from harness.parse.marks import Mark, MarkedAs, block_of_each, marks, pattern, places

SEARCH_SECONDS = 240.0
# Not with -z, which would pass over holes: where it does, the bytes that it names are wrong (grep 3.8).
_SEARCH = 'LC_ALL=C grep -abo "$2" -e "$3" "$1" || [ $? = 1 ]'
_ENCRYPTED = (Layout.CRYPT, Layout.CRYPT_NODE)
#: Old copies of a directory lie in free space too, and cannot be told from it by what they hold.
_COPY_ON_WRITE = ("btrfs", "f2fs")
#: Which keep names in UTF-16.
_WIDE_NAMES = ("ntfs", "exfat")
#: Which tell of no file: allocated or free is enough of them.
_NO_FILES = ("f2fs",)
# 64 KiB from the beginning; what is before that is nobody's.
_BTRFS_SUPERBLOCK = 16
_LOG_PAGES = (b"RCRD", b"RSTR")
# A removed file may have lost some of its blocks to others already.
_LEAST = 8
_SWAP_MAGIC, _SWAP_MAGIC_AT = "SWAPSPACE2", BLOCK_BYTES - 10


@dataclass(frozen=True)
class Laid:
    """What was laid out: the ``token`` of all marks, the ``letters`` that names in a directory begin with.

    ``known`` and ``freed`` are the files, in the root of the filesystem; their names are ones that each filesystem
    keeps as they are.  ``not_found``: what there was no block of, though there might have been.
    """

    token: str
    letters: str
    offers: Offers
    known: str = "/KNOWN.BIN"
    freed: str = "/FREED.BIN"
    not_found: list[str] = field(default_factory=list)


@dataclass(frozen=True, order=True)
class Place:
    """A block of the device whose owner is known, with the file and the byte of it that the block begins with."""

    block: int
    owner: BlockOwner
    detail: str = ""
    offset: int | None = None


@dataclass(frozen=True)
class _Sight:
    """Something that is looked at: ``outside`` maps its blocks to those of the device, None where they are the same."""

    view: ReplicaView
    outside: Mapping[int, int] | None = None

    @classmethod
    def of(cls, inner: Inner, view: ReplicaView) -> _Sight:
        """What a layer shows of ``view``."""
        places = inner.places(range(view.blocks))
        return cls(inner.view, {place: block for block, place in places.items() if isinstance(place, int)})

    def device(self, block: int) -> int | None:
        """The block of the device; None where it is nowhere there."""
        return block if self.outside is None else self.outside.get(block)


def known_places(
    view: ReplicaView, layer: Layer, filesystem: FilesystemKind, laid: Laid, chance: random.Random
) -> list[Place]:
    """A block of each class; what has to be there and is not found is an :class:`InfrastructureError`.

    ``view`` is of the whole device; blocks for ``SEARCH_SECONDS`` a few times at the most.
    """
    beginning = _beginning(layer.layout, filesystem)
    found = [] if beginning is None else [beginning]
    device = _Sight(view)
    if layer.layout is Layout.RAW:
        return [*found, *_Search(device, device, filesystem, laid, chance).places()]
    with layer.inner(view) as inner:
        inside = _Sight.of(inner, view)
        searched = inside if layer.layout in _ENCRYPTED else device
        return [*found, *_Search(searched, inside, filesystem, laid, chance).places()]


def _beginning(layout: Layout, filesystem: FilesystemKind) -> Place | None:
    """The block at a fixed place that the device begins with; None where it is written once more later."""
    if layout is not Layout.RAW:
        # What a filesystem on the node has there is written when that is unmounted.
        return None if layout.on_node and layout not in _ENCRYPTED else Place(0, BlockOwner.METADATA)
    if filesystem is FilesystemKind.RAW:
        return Place(0, BlockOwner.ALLOCATED)
    return Place(_BTRFS_SUPERBLOCK if filesystem.startswith("btrfs") else 0, BlockOwner.METADATA)


class _Search:
    """The search in ``searched`` for what was laid out; ``inside`` is what the filesystem sees."""

    def __init__(
        self, searched: _Sight, inside: _Sight, filesystem: FilesystemKind, laid: Laid, chance: random.Random
    ) -> None:
        self._searched = searched
        self._filesystem = filesystem
        self._laid = laid
        self._chance = chance
        found = [inside.device(block) for block in journal_blocks(inside.view, filesystem)]
        self._journal = [block for block in found if block is not None]

    def places(self) -> Iterator[Place]:
        """One block of each class, two of the known file."""
        printed = self._grep("-E", pattern(self._laid.token))
        journal = {*self._journal}
        found = [mark for mark in marks(printed) if self._device(mark.block) not in journal]
        match self._laid.offers:
            case Offers.SWAP:
                yield from self._of_swap(found)
            case Offers.DEVICE:
                yield self._of_raw(found)
            case Offers.FILES:
                yield from self._of_files(found)
                yield from self._of_directory()
        if self._journal:
            # Not its first block, which is its superblock and may be told from the rest.
            yield Place(self._chance.choice(self._journal[1:]), BlockOwner.JOURNAL)
        elif self._filesystem in HAVE_JOURNAL:
            raise InfrastructureError(f"the owner control found no journal of {self._filesystem}")

    def _of_raw(self, found: Sequence[Mark]) -> Place:
        blocks = self._each(found, MarkedAs.FILE, "what was written to the device")
        return Place(self._chance.choice([*blocks.values()]), BlockOwner.ALLOCATED)

    def _of_files(self, found: Sequence[Mark]) -> Iterator[Place]:
        known = self._each(found, MarkedAs.FILE, f"the file {self._laid.known}")
        numbers = sorted(known)
        # In both halves of the file, apart from each other: DRBD 8.4 does not print each extent of a few in a row.
        third, exact = len(numbers) // 3, not self._filesystem.startswith(_NO_FILES)
        for number in (self._chance.choice(numbers[:third]), self._chance.choice(numbers[-third:])):
            detail, offset = (self._laid.known, number * BLOCK_BYTES) if exact else ("", None)
            yield Place(known[number], BlockOwner.ALLOCATED, detail, offset)
        freed = self._each(found, MarkedAs.FREED, f"the removed file {self._laid.freed}")
        yield Place(self._chance.choice([*freed.values()]), BlockOwner.FREE)

    def _of_swap(self, found: Sequence[Mark]) -> Iterator[Place]:
        slots = {self._device(mark.block) for mark in found if mark.kind is MarkedAs.MEMORY} - {None}
        if not slots:
            raise InfrastructureError("the owner control found no swap slot with what a process held in memory")
        yield Place(self._chance.choice(sorted(slot for slot in slots if slot is not None)), BlockOwner.FREE)
        if self._filesystem is FilesystemKind.SWAP:
            # Its header is where the device begins.
            return
        at = [at for at in places(self._grep("-F", _SWAP_MAGIC)) if at % BLOCK_BYTES == _SWAP_MAGIC_AT]
        headers = {self._device(one // BLOCK_BYTES) for one in at if one >= BLOCK_BYTES} - {None}
        if len(headers) == 1:
            yield Place(headers.pop() or 0, BlockOwner.METADATA)
        else:
            self._laid.not_found.append(f"{len(headers)} blocks look like the swap file's header")

    def _of_directory(self) -> Iterator[Place]:
        if self._filesystem.startswith(_COPY_ON_WRITE):
            return
        letters = self._laid.letters
        wide = self._filesystem.startswith(_WIDE_NAMES)
        mode, asked = ("-P", "".join(f"{letter}\\x00" for letter in letters)) if wide else ("-F", letters)
        blocks = sorted({at // BLOCK_BYTES for at in places(self._grep(mode, asked))})
        self._chance.shuffle(blocks)
        for block in blocks:
            device, beginning = self._device(block), self._searched.view.read(block * BLOCK_BYTES, 4)
            if device is not None and device not in self._journal and beginning not in _LOG_PAGES:
                yield Place(device, BlockOwner.METADATA)
                return
        self._laid.not_found.append("no block holds names of the directory")

    def _each(self, found: Sequence[Mark], kind: MarkedAs, what: str) -> Mapping[int, int]:
        """Number of each mark of that kind to the block of the device that begins with it."""
        blocks = block_of_each(mark for mark in found if mark.kind is kind)
        known = {number: self._device(block) for number, block in blocks.items()}
        there = {number: block for number, block in known.items() if block is not None}
        if len(there) < _LEAST:
            raise InfrastructureError(f"the owner control found {len(there)} blocks of {what}")
        return there

    def _device(self, block: int) -> int | None:
        return self._searched.device(block)

    def _grep(self, mode: str, asked: str) -> str:
        view = self._searched.view
        return view.runner.run(["sh", "-c", _SEARCH, "sh", view.path, mode, asked], timeout=SEARCH_SECONDS).stdout
