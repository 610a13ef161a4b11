"""Whether QEMU acknowledges a write of a write-through disk before it has flushed it: what is asked, and counted."""

from __future__ import annotations

#: The workloads that ask the node's QEMU, and have a cache mode and an aio mode although the node is the client.
QEMU_PROBES = ("flush-probe", "flush-probe-raw-layer")
#: How long each flush takes where nobody says otherwise, in seconds.
DELAY_SECONDS = 0.8
WRITES = ("the first write after opening", "the next write, alone", "a write that came while another was being flushed")
#: Where in the disk each of :data:`WRITES` goes, in bytes.
OFFSETS = (65536, 0, 4096)
#: Figures of :attr:`~harness.model.Work.facts`: how many writes were acknowledged, and how many of them too early; the
#: latter also of each of :data:`WRITES`.
ACKNOWLEDGED = "acknowledged_writes"
EARLY = "acknowledged_early"
EARLY_OF_EACH = ("early_first", "early_alone", "early_meanwhile")
