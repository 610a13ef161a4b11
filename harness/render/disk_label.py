"""The label that the harness writes on a raw disk: the disk's first MiB, behind which DRBD's lower device begins.

The first 4 KiB hold a line that a person can read and one line of JSON; the rest is zeros.  The same fields give the
same bytes, so a label is whole where the MiB's digest is that of what its own fields render to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from harness.model.disks import MIB

LABEL_BYTES = MIB
#: As the program on the machine looks for it (``harness/lab/hardware/programs``).
MAGIC = "DRBD-HARNESS-DISK"
_FIRST = f"{MAGIC} 1: this disk belongs to the DRBD divergence harness; what is behind the first MiB is a test's"
_HEADER_BYTES = 4096


@dataclass(frozen=True)
class DiskLabel:
    """Whose disk it is: the lab's name and its owner ("" where that is not known), and the disk as the inventory named
    it; ``id`` is of this label alone (hex).
    """

    lab: str
    id: str
    size: int
    serial: str = ""
    wwn: str = ""
    owner: str = ""


def disk_label(label: DiskLabel) -> bytes:
    """The MiB; :class:`ValueError` where the fields have no room in it."""
    fields = {name: value for name, value in asdict(label).items() if name != "owner" or value}
    text = f"{_FIRST}\n{json.dumps(fields, sort_keys=True)}\n".encode()
    if len(text) > _HEADER_BYTES:
        raise ValueError("the label has no room for such long names")
    return text.ljust(LABEL_BYTES, b"\0")


def read_label(header: str, sha256: str) -> DiskLabel:
    """The label that begins with ``header``, in a MiB whose digest is ``sha256`` (hex); :class:`ValueError` where it is
    not whole.
    """
    first, _, rest = header.partition("\n")
    if first != _FIRST:
        raise ValueError("it is of another version of the harness")
    try:
        fields = json.loads(rest)
        label = DiskLabel(**fields)
        whole = hashlib.sha256(disk_label(label)).hexdigest() == sha256
    except (ValueError, TypeError):
        raise ValueError("it cannot be read") from None
    if not whole:
        raise ValueError("the first MiB holds something else beside it")
    return label
