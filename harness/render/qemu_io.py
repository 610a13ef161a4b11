"""How ``qemu-io`` is asked whether it acknowledges a write before it has flushed it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.model.acknowledgement import DELAY_SECONDS, OFFSETS


@dataclass(frozen=True)
class Image:
    """How ``qemu-io`` opens the disk.

    ``driver`` is ``file`` or ``host_device``; ``raw``: with a format layer above it, as libvirt gives each raw
    disk to a QEMU before 9.0.
    """

    cache: str
    aio: str
    driver: str
    raw: bool

    def options(self, disk: Path) -> str:
        """For ``--image-opts``."""
        protocol = {"driver": self.driver, "filename": str(disk), "aio": self.aio}
        # QEMU has aio=native with O_DIRECT only, and -t says that of the topmost layer alone.
        if self.cache in ("directsync", "none"):
            protocol["cache.direct"] = "on"
        if self.raw:
            return "driver=raw," + ",".join(f"file.{key}={value}" for key, value in protocol.items())
        return ",".join(f"{key}={value}" for key, value in protocol.items())

    def argv(self, qemu_io: str, disk: Path, commands: tuple[str, ...]) -> list[str]:
        """``qemu_io`` with ``commands``, one after the other."""
        asked = [word for command in commands for word in ("-c", command)]
        return [qemu_io, "-t", self.cache, "--image-opts", self.options(disk), *asked]

    def __str__(self) -> str:
        return f"cache={self.cache}, aio={self.aio}, {'raw above ' if self.raw else ''}{self.driver}"


def three_writes(delay: float = DELAY_SECONDS) -> tuple[str, ...]:
    """The commands for :data:`~harness.model.acknowledgement.WRITES` where a flush takes ``delay`` seconds.

    The third comes while that of the second is under way.
    """
    after_first, meanwhile, to_the_end = (round(delay * share * 1000) for share in (1.25, 0.375, 1.875))
    first, second, third = (f"aio_write {_size(offset)} 4k" for offset in OFFSETS)
    return (
        first, f"sleep {after_first}", second, f"sleep {meanwhile}", third, f"sleep {to_the_end}", "aio_flush",
    )  # fmt: skip


def _size(offset: int) -> str:
    return f"{offset // 1024}k" if offset else "0"
