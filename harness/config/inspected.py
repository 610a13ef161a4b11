"""Inventories as ``inspect`` reads them: the two machines of a cluster that is in use; nothing of them is written to.

The same files as everywhere (:mod:`harness.config.inventory`); all but the names of the two machines may be left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import model_validator

from harness.config.inventory import (
    LabFile,
    Nic,
    PowerEntry,
    ReachedEntry,
    ReplicationAddress,
    StorageEntry,
    key_of,
    require_two,
    table_of,
)
from harness.config.sentences import WrittenModel, validated


class InspectedEntry(ReachedEntry):
    """One of the two machines; what is not about reaching it is checked, and but for ``replication_nic`` not used."""

    replication_address: ReplicationAddress | None = None
    replication_nic: Nic | None = None
    storage: StorageEntry | None = None
    power: PowerEntry | None = None


class InspectedFile(LabFile):
    """An inventory as it is written."""

    hosts: dict[str, InspectedEntry]

    @model_validator(mode="after")
    def _two_machines(self) -> Self:
        require_two(self.hosts)
        return self


class InspectedHost(WrittenModel):
    """A machine as it is reached; ``nic`` is that of the replication, empty: the one with DRBD's address."""

    name: str
    address: str
    port: int
    user: str
    key: Path | None
    nic: str


class InspectedCluster(WrittenModel):
    """Two machines, in their order in the file ``path``."""

    path: Path
    hosts: tuple[InspectedHost, InspectedHost]

    @property
    def known_hosts(self) -> Path:
        """The file with the host keys that the user compared and pinned."""
        return self.path.with_name(f"{self.path.name}.known_hosts")


def load_cluster(path: Path, group: str | None = None) -> InspectedCluster:
    """The two machines in the inventory ``path``; whatever is wrong is a :class:`~harness.errors.UsageError`."""
    path = path.absolute()
    file = validated(InspectedFile, table_of(path, group, whole=False), source=str(path))
    one, other = (
        InspectedHost(
            name=name, address=entry.ansible_host or name, port=entry.ansible_port, user=entry.ansible_user,
            key=key_of(name, entry, path.parent), nic=entry.replication_nic or "",
        )
        for name, entry in file.hosts.items()
    )  # fmt: skip
    return InspectedCluster(path=path, hosts=(one, other))
