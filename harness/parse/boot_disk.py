"""What a disk image that a user brings says of itself: qemu-img's facts of the file, and its first sectors."""

from __future__ import annotations

import json
import struct
import uuid
from dataclasses import dataclass

#: How many bytes from its beginning :func:`boot_facts` wants: the MBR, the GPT's header and its 128 entries.
BEGINNING_BYTES = 34 * 512

_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
_EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_MICROSOFT_RESERVED = uuid.UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae")
_GPT, _EFI_IN_MBR, _NTFS_IN_MBR = 0xEE, 0xEF, 0x07
_ACTIVE = 0x80


@dataclass(frozen=True)
class ImageFile:
    """What qemu-img tells of an image: the sizes in bytes of its disk and on this machine's, and what it lies on.

    ``backing`` and ``data_file`` are names of other files, empty where it needs none.
    """

    virtual_bytes: int
    actual_bytes: int
    backing: str
    data_file: str
    encrypted: bool


@dataclass(frozen=True)
class BootFacts:
    """How an image seems to be made to boot: by UEFI or by a BIOS, and whether Windows made its partitions."""

    uefi: bool
    windows: bool


def image_file(info_json: str) -> ImageFile:
    """By ``qemu-img info --output=json``; :class:`ValueError` for other text."""
    try:
        told = json.loads(info_json)
        specific = told.get("format-specific", {}).get("data", {})
        return ImageFile(
            int(told["virtual-size"]),
            int(told.get("actual-size", 0)),
            str(told.get("backing-filename", "")),
            str(specific.get("data-file", "")),
            bool(told.get("encrypted", False)),
        )
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"this is not what qemu-img tells of an image: {error}") from None


def boot_facts(beginning: bytes) -> BootFacts:
    """By the partition table in the first :data:`BEGINNING_BYTES` of a disk.

    A GPT with a place for a BIOS's boot loader is for both, and counts as a BIOS's; so does whatever is not told to be
    for UEFI.  :class:`ValueError` where there is no partition table: nothing would boot from it.
    """
    if len(beginning) < BEGINNING_BYTES or beginning[510:512] != b"\x55\xaa":
        raise ValueError("it has no partition table")
    entries = [beginning[at : at + 16] for at in range(446, 510, 16)]
    kinds = [entry[4] for entry in entries if entry[4]]
    if not kinds:
        raise ValueError("its partition table is empty")
    if _GPT not in kinds:
        active = any(entry[0] == _ACTIVE for entry in entries)
        return BootFacts(_EFI_IN_MBR in kinds and not active, _NTFS_IN_MBR in kinds)
    types = _gpt_types(beginning)
    return BootFacts(_EFI_SYSTEM in types and _BIOS_BOOT not in types, _MICROSOFT_RESERVED in types)


def _gpt_types(beginning: bytes) -> frozenset[uuid.UUID]:
    header = beginning[512:1024]
    if header[:8] != b"EFI PART":
        raise ValueError("its partition table says that there is a GPT, and there is none")
    first, count, size = struct.unpack_from("<QII", header, 72)
    found = set()
    for number in range(min(count, 128)):
        at = first * 512 + number * size
        entry = beginning[at : at + 16]
        if len(entry) == 16 and any(entry):
            found.add(uuid.UUID(bytes_le=entry))
    return frozenset(found)
