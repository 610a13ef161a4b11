"""From facts to checks, each with the one command that remedies what failed; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from harness.doctor import cpu_weight
from harness.doctor.facts_model import Facts, Place
from harness.doctor.kvm_access import TRAP
from harness.doctor.packages import as_root, install_command
from harness.images import DEFAULT_SUITE
from harness.lab.nested.accel import OVERRIDE
from harness.util.paths import own_command

Status = Literal["ok", "warn", "fail"]

OLDEST_PYTHON = (3, 11)
MEMORY_GIB = 7.0
"""Two nodes of 2560 MiB with their QEMUs, and 1 GiB for everything else."""
LEAST_MEMORY_GIB = 5.5
STATE_GIB = 3.0
CACHE_GIB = 8.0
KEPT_CACHE_GIB = 1.0


@dataclass(frozen=True)
class Check:
    """One thing that was checked; ``remedy`` is a command, or None where no command helps."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def judge(facts: Facts) -> list[Check]:
    """Every check, in the order in which a person would want to remedy them."""
    return [
        _python(facts),
        _tools(facts),
        _qemu(facts),
        _kvm_device(facts),
        _libvirt(facts),
        _accelerator(facts),
        _nested(facts),
        _room("cache", facts.cache, CACHE_GIB if facts.must_build else KEPT_CACHE_GIB, facts),
        _room("state", facts.state, STATE_GIB, facts),
        _memory(facts),
        _cpus(facts),
        *_cpu_weight(facts),
        *_building(facts),
        _images(facts),
    ]


def _python(facts: Facts) -> Check:
    version = ".".join(map(str, facts.python))
    if facts.python < OLDEST_PYTHON:
        return Check("python", "fail", f"{version}, and 3.11 is the oldest that will do", "ci/quickstart")
    return Check("python", "ok", version)


def _tools(facts: Facts) -> Check:
    """What only building needs is a warning as long as there is nothing to build."""
    if not facts.missing:
        return Check("tools", "ok", "all there")
    needed = [need for need in facts.missing if need.wanted_for == "run" or facts.must_build]
    names = ", ".join(need.name for need in facts.missing)
    unknown = [need.name for need in facts.missing if facts.family not in need.packages]
    detail = f"missing: {names}"
    if unknown:
        detail += (
            f"; this distribution has no package that is known here for {', '.join(unknown)}: "
            "images can also be built on a Debian or Ubuntu machine and the cache directory copied from there"
        )
    remedy = install_command(facts.family, facts.missing, root=facts.root)
    return Check("tools", "fail" if needed else "warn", detail, remedy)


def _qemu(facts: Facts) -> Check:
    if facts.qemu.works:
        return Check("qemu", "ok", facts.qemu.message)
    remedy = install_command(facts.family, [n for n in facts.missing if n.name == "qemu"], root=facts.root)
    return Check("qemu", "fail", facts.qemu.message, remedy)


def _kvm_device(facts: Facts) -> Check:
    kvm = facts.kvm
    if not kvm.exists:
        return Check("kvm device", "ok", "there is none; emulation does its work")
    if kvm.trapped:
        detail = (
            f"root can open it and {kvm.account}, whom libvirt runs QEMU as, cannot: each start takes a minute more"
        )
        return Check("kvm device", "fail", detail, as_root(TRAP, root=facts.root))
    if not kvm.me:
        remedy = as_root(f"usermod -aG kvm {facts.user}", root=facts.root)
        return Check("kvm device", "warn", f"{facts.user} may not open it; log in again after the remedy", remedy)
    return Check("kvm device", "ok", f"open to {kvm.account or facts.user}")


def _libvirt(facts: Facts) -> Check:
    if facts.libvirt.works:
        return Check("libvirt", "ok", facts.libvirt.message)
    missing = [need for need in facts.missing if "libvirt" in need.name or need.name == "virtlogd"]
    remedy = install_command(facts.family, missing, root=facts.root) or facts.libvirt.remedy
    return Check("libvirt", "fail", facts.libvirt.message, remedy)


def _accelerator(facts: Facts) -> Check:
    found = facts.accelerator
    if found is None:
        return Check("accelerator", "fail", facts.accelerator_error)
    if found.kind == "kvm":
        return Check("accelerator", "ok", f"kvm: {found.why}")
    # A module that is built in, or KVM inside of a container, has no parameter that could be set here.
    remedy = _nesting(facts) if found.kvm_lacks_nesting and facts.kvm_vendor else None
    return Check("accelerator", "warn", f"tcg (emulation; it works, and is slower): {found.why}", remedy)


def _nested(facts: Facts) -> Check:
    found = facts.accelerator
    if found is None:
        return Check("nested", "fail", "unknown while there is no accelerator")
    if found.nested:
        how = "emulated SVM" if found.kind == "tcg" else "this machine's KVM module allows it"
        return Check("nested", "ok", how)
    if found.kind == "kvm" and facts.kvm_vendor:
        return Check(
            "nested", "fail", f"kvm_{facts.kvm_vendor} does not let guests have KVM of their own", _nesting(facts)
        )
    if found.kind == "kvm":
        return Check("nested", "fail", f"KVM, which {OVERRIDE} asks for, does not nest", f"unset {OVERRIDE}")
    return Check("nested", "fail", "this QEMU does not emulate SVM")


def _nesting(facts: Facts) -> str:
    module = f"kvm_{facts.kvm_vendor}"
    return as_root(f"modprobe -r {module} && modprobe {module} nested=1", root=facts.root)


def _room(name: str, place: Place, needed: float, facts: Facts) -> Check:
    detail = f"{place.free_gib:.0f} GiB free in {place.path}"
    if place.closed_at:
        error = f"{facts.kvm.account or 'QEMU'}, whom libvirt runs QEMU as, may not enter {place.closed_at}"
        return Check(name, "fail", error, as_root(f"chmod o+x {place.closed_at}", root=facts.root))
    if place.free_gib < needed:
        remedy = f"export DRBD_HARNESS_{name.upper()}=/a/directory/with/room"
        return Check(name, "fail", f"{detail}, and {needed:.0f} are needed", remedy)
    return Check(name, "ok", detail)


def _memory(facts: Facts) -> Check:
    detail = f"{facts.memory_gib:.1f} GiB available"
    if facts.memory_gib >= MEMORY_GIB:
        return Check("memory", "ok", detail)
    status: Status = "warn" if facts.memory_gib >= LEAST_MEMORY_GIB else "fail"
    return Check("memory", status, f"{detail}; two nodes want {MEMORY_GIB:.0f}")


def _cpus(facts: Facts) -> Check:
    if facts.cpus >= 2:
        return Check("cpus", "ok", str(facts.cpus))
    return Check("cpus", "warn", "one for two nodes: everything takes twice as long")


def _cpu_weight(facts: Facts) -> Iterator[Check]:
    """Said only where it is so; it does no harm on a machine that does nothing else."""
    if facts.sessions_weigh_as_much:
        detail = (
            "beside other jobs the lab is many times slower: with the kernel's autogroup each session weighs as "
            "much as both nodes together, even if it is nice"
        )
        yield Check("cpu weight", "warn", detail, as_root(cpu_weight.REMEDY, root=facts.root))


def _building(facts: Facts) -> Iterator[Check]:
    """What building images needs; only a warning where they have been built already."""
    bad: Status = "fail" if facts.must_build else "warn"
    if not facts.root:
        if facts.namespaces.works:
            yield Check("user namespaces", "ok", facts.namespaces.message)
        else:
            yield Check("user namespaces", bad, facts.namespaces.message, _remedy_for_namespaces(facts))
    if facts.suite in facts.keys:
        yield Check("debian keys", "ok", ", ".join(sorted(facts.keys)))
    else:
        keyring = [need for need in facts.missing if need.name == "debian-keyring"]
        remedy = install_command(facts.family, keyring, root=facts.root)
        has = ", ".join(sorted(facts.keys)) or "none"
        yield Check("debian keys", bad, f"no key of {facts.suite} (there: {has})", remedy)


def _remedy_for_namespaces(facts: Facts) -> str | None:
    command = facts.namespaces.remedy
    return as_root(command, root=False) if command else None


def _images(facts: Facts) -> Check:
    if facts.must_build:
        lacking = ", ".join(sorted(facts.images_wanted - facts.images))
        suite = "" if facts.suite == DEFAULT_SUITE else f" --suite {facts.suite}"
        return Check(
            "images", "warn", f"not built yet for {facts.suite}: {lacking}", f"{own_command()} images build{suite}"
        )
    return Check("images", "ok", f"{', '.join(sorted(facts.images))} for {facts.suite}")
