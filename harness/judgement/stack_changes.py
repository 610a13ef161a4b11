"""What is another in the components of two runs: the versions under test, the harness, the packages; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.model import Run, Stack, StackLock

#: By role (node, guest): package to version.
Packages = Mapping[str, Mapping[str, str]]

_COMPONENTS = {
    "suite": "distribution",
    "kernel": "kernel",
    "kernel_build": "kernel build",
    "drbd": "DRBD",
    "drbd_srcversion": "DRBD source version",
    "drbd_git_hash": "DRBD git hash",
    "drbd_utils": "drbd-utils",
    "qemu": "QEMU",
    "libvirt": "libvirt",
    "guest_kernel": "guest kernel",
    "machine": "guest's machine type",
    "drbd_protocol": "DRBD protocol version",
}
_MACHINE = {"accelerator": "accelerator", "cpu": "processor", "controller": "controller's kernel"}
# A build of one's own may have the version of another: by what names it, its files tell them apart.
_FILES = {"kernel's file": ("kernel", "kernel build"), "DRBD module's file": ("DRBD", "DRBD source version"),
          "QEMU program's file": ("QEMU",), "guest kernel's file": ("guest kernel",)}  # fmt: skip
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class ComponentChange:
    """One component that is another, or that one of the runs did not record: its name, before and after."""

    name: str
    old: str
    new: str

    @property
    def under_test(self) -> bool:
        """Whether it is one of the versions that a stack is made of, and not the machine or the harness."""
        return self.name in (*_COMPONENTS.values(), *_FILES)

    @property
    def known(self) -> bool:
        """Whether both runs recorded it."""
        return UNKNOWN not in (self.old, self.new)


@dataclass(frozen=True)
class PackageChange:
    """One package of an image that is another; None where it is not there."""

    role: str
    name: str
    old: str | None
    new: str | None


def component_changes(
    old: Run, new: Run, old_lock: StackLock | None = None, new_lock: StackLock | None = None
) -> tuple[ComponentChange, ...]:
    """The components that are not the same, those under test first; what only one run recorded comes last.

    With the locks of both also files that are not the same although what they say of themselves is.
    """
    before, after = ({**_components(one.stack), **_made(one)} for one in (old, new))
    files = [_files(lock) for lock in (old_lock, new_lock)]
    for name, versions in _FILES.items():
        alike = all(before.get(one, "") == after.get(one, "") for one in versions)
        if alike and all(one.get(name) for one in files):
            before[name], after[name] = (one[name] for one in files)
    changed = [
        ComponentChange(name, before.get(name) or UNKNOWN, after.get(name) or UNKNOWN)
        for name in dict.fromkeys((*before, *after))
        if before.get(name, "") != after.get(name, "")
    ]
    return tuple(sorted(changed, key=lambda one: not one.known))


def package_changes(old: Packages, new: Packages) -> tuple[PackageChange, ...]:
    """The packages that are not the same, by role and name; none where one of the runs did not keep them."""
    return tuple(
        PackageChange(role, name, before.get(name), after.get(name))
        for role in sorted({*old} & {*new})
        for before, after in [(old[role], new[role])]
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _components(stack: Stack) -> dict[str, str]:
    return {words: getattr(stack, name) for name, words in {**_COMPONENTS, **_MACHINE}.items()}


def _files(lock: StackLock | None) -> dict[str, str]:
    if lock is None:
        return {}
    nodes = [(node, node.runs, node.image.holds) for node in lock.nodes]
    found = {
        "kernel's file": [node.image.kernel_sha256 for node, _, _ in nodes],
        "DRBD module's file": [runs.drbd_sha256 or holds.drbd_sha256 for _, runs, holds in nodes],
        "QEMU program's file": [runs.qemu_sha256 or holds.qemu_sha256 for _, runs, holds in nodes],
        "guest kernel's file": [lock.guest.kernel_sha256],
    }
    return {
        name: " / ".join(dict.fromkeys(f"sha256 {digest[:12]}" for digest in digests))
        for name, digests in found.items()
        if all(digests)
    }


def _made(run: Run) -> dict[str, str]:
    made = run.provenance
    harness = f"{made.harness_version} ({made.harness_commit[:12]})" if made.harness_commit else made.harness_version
    images = {f"recipe of the {role}'s image": digest[:12] for role, digest in made.images.items()}
    stack = str(run.stack_spec.get("name", ""))
    return {"stack": stack, "harness": harness, **images, "matrix": run.matrix, "matrix file": run.matrix_digest[:12]}
