"""What the doctor finds on a machine that lacks nothing.  Nothing here is a test."""

from __future__ import annotations

from pathlib import Path

from harness.doctor import packages
from harness.doctor.facts_model import Answer, Facts, Place
from harness.doctor.kvm_access import KvmAccess
from harness.doctor.packages import Family
from harness.doctor.rules import Check, judge
from harness.lab.nested.accel import Accelerator

GOOD = Facts(
    python=(3, 12, 1),
    machine="x86_64",
    root=True,
    user="root",
    family=Family.APT,
    missing=(),
    qemu=Answer("9.2.0", True),
    libvirt=Answer("11.3.0 at qemu:///system", True),
    accelerator=Accelerator("kvm", True, "KVM booted a kernel", 2.0),
    accelerator_error="",
    kvm=KvmAccess(True, True, "libvirt-qemu", True),
    kvm_vendor="intel",
    cache=Place(Path("/var/cache/drbd-harness"), 40.0),
    state=Place(Path("/var/lib/drbd-harness"), 40.0),
    memory_gib=16.0,
    cpus=4,
    namespaces=Answer("root needs none", True),
    keys=frozenset({"bookworm", "trixie"}),
    suite="trixie",
    images=frozenset({"guest", "node"}),
    images_wanted=frozenset({"guest", "node"}),
)
NEEDS = {need.name: need for need in packages.needs()}


def only(facts: Facts, name: str) -> Check:
    return next(check for check in judge(facts) if check.name == name)
