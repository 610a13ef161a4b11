"""Many cells in one environment, and the versions under test in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from harness.model.cell import Cell
from harness.model.evidence import SCHEMA_VERSION


@dataclass(frozen=True)
class Stack:
    """The versions under test, as the nodes and the controller report them.

    ``controller`` and ``cpu`` are the kernel and the processor of the controller.  ``kernel_build`` is ``uname -v``,
    ``drbd_srcversion`` what the loaded module calls the digest of its sources, and ``drbd_git_hash`` what /proc/drbd
    names as its origin, where it does.  ``machine`` is the guest's machine type, ``drbd_protocol`` the version of its
    network protocol that the DRBDs of the two nodes agreed upon.  Where the nodes differ, a value is ``x / y``.
    """

    suite: str = ""
    kernel: str = ""
    drbd: str = ""
    drbd_utils: str = ""
    qemu: str = ""
    libvirt: str = ""
    guest_kernel: str = ""
    accelerator: str = ""
    controller: str = ""
    kernel_build: str = ""
    drbd_srcversion: str = ""
    drbd_git_hash: str = ""
    cpu: str = ""
    machine: str = ""
    drbd_protocol: str = ""


@dataclass(frozen=True)
class MachineModel:
    """A real machine that was a node: what it is, without a name or an address of it.

    ``nic`` is the replication NIC's driver, and its model where udev knows it; ``disks`` are the models of those below
    the replica, ``storage`` is the kind of an inventory.
    """

    system: str = ""
    processor: str = ""
    memory_mib: int = 0
    nic: str = ""
    storage: str = ""
    disks: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabProvenance:
    """What a lab was made of, beside the versions that run in it (:class:`Stack`).

    By role (``node``, ``guest``): ``images`` are the digests of the recipes, ``packages`` map package to version.
    ``node_vcpus`` is how many each node got, 0 where that is unknown.  ``machines`` are the two that a lab on real
    hardware has, and empty for one of virtual nodes.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    node_vcpus: int = 0
    machines: tuple[MachineModel, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """What a run was made with: its newest lab, and the harness itself.

    ``images``, ``node_vcpus`` and ``machines`` are those of :class:`LabProvenance`; its packages are in
    ``packages.json`` beside the run, whose sha256 (hex) is ``packages_digest``. ``harness_commit`` is the commit of
    the checkout, with ``+modified`` where its files differ from that, and empty outside of a checkout.
    """

    images: Mapping[str, str] = field(default_factory=dict)
    packages_digest: str = ""
    node_vcpus: int = 0
    machines: tuple[MachineModel, ...] = ()
    harness_version: str = ""
    harness_commit: str = ""


@dataclass(frozen=True)
class MergedRun:
    """One of the runs that a run was merged from; fields as in :class:`Run`."""

    id: str
    started_at: str
    finished_at: str = ""
    shard: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """Many cells in one environment.

    ``lab_spec`` and ``stack_spec`` are the fields of :class:`~harness.config.lab_spec.LabSpec` and
    :class:`~harness.config.stack_spec.StackSpec`, so that a resumed run goes on with the same kind of lab.
    ``seed`` is what the seeds of its cells were made from, 0 where they have none.  ``given_up``: by id, the labs that
    failed without an answer in between until the run gave up on its lab, and why.
    ``matrix_digest``: the SHA-256 of the matrix file, empty where that is not known.  ``shard``: which part of the
    matrix' plays it was asked for, as ``2/3``; empty for all of them.  ``plan``: the ids of all cells of the matrix in
    their order, also of those that are in other parts; empty where the run is no part.  ``chosen``: the options that
    decided which plays of the matrix are in it (``-k``, ``--repeat``), with their values; None where that is not known.
    ``merged``: the runs that it was made of, oldest first.
    """

    id: str
    matrix: str
    started_at: str
    cells: tuple[Cell, ...]
    stack: Stack = Stack()
    finished_at: str = ""
    lab_seconds: Mapping[str, float] = field(default_factory=dict)
    lab_spec: Mapping[str, Any] = field(default_factory=dict)
    stack_spec: Mapping[str, Any] = field(default_factory=dict)
    provenance: Provenance = Provenance()
    notes: tuple[str, ...] = ()
    seed: int = 0
    given_up: Mapping[str, str] = field(default_factory=dict)
    matrix_digest: str = ""
    shard: str = ""
    plan: tuple[str, ...] = ()
    chosen: Mapping[str, str] | None = None
    merged: tuple[MergedRun, ...] = ()
    schema: int = SCHEMA_VERSION

    @property
    def stack_name(self) -> str:
        """What its stack is called: one that comes along, a file without its folder and ending, or just the suite."""
        return PurePath(str(self.stack_spec.get("name") or self.stack.suite)).stem
