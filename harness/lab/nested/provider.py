"""The nested lab: two libvirt domains on this machine, loopback only.

:func:`nested_lab` is what everybody else uses: it finds a lab that is up, or makes one and takes it down again.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import libvirt

from harness.config.lab_spec import LabSpec, UserImageSpec
from harness.config.stack_spec import StackSpec
from harness.errors import InfrastructureError
from harness.images import Image, StackDigests, by_role, ensure_stack, stack_digests
from harness.images.held import lock_of
from harness.images.user_image import require_kept, uefi_firmware
from harness.lab.nested import boot
from harness.lab.nested import record as records
from harness.lab.nested.accel import probe
from harness.lab.nested.domains import SIDES, Parts, make_domains
from harness.lab.nested.lab import NestedLab, attach
from harness.lab.nested.lease import lease
from harness.lab.nested.libvirt_daemon import ensure_libvirt
from harness.lab.nested.power import Power, destroy
from harness.lab.nested.record import LabRecord, NodeRecord
from harness.model import LabProvenance
from harness.remote.libvirt_calls import LibvirtConnection
from harness.render.domain import NodeDomain, node_xml
from harness.util import logs
from harness.util.paths import cache_dir, make, state_dir

PORT_TRIES = 3
# What QEMU prints where it cannot have a port for ssh or for the link.
_PORT_TAKEN = re.compile(r"Could not set up host forwarding rule|Address already in use")
_LOG_BYTES = 1024 * 1024


class _PortTakenError(InfrastructureError):
    """Somebody else bound a port between its choice and QEMU's start."""


@contextlib.contextmanager
def nested_lab(
    spec: LabSpec, stack: StackSpec, evidence: Path | None = None, *, keep: bool = False
) -> Iterator[NestedLab]:
    """A lab that is up: the one ``lab up`` left, else a new one that ends with the context.

    While it is held no other process of this user can use or take down a lab.  ``evidence`` is where the consoles go
    when the lab ends, well or badly.  ``keep``: leave a new one up afterwards (``drbd-harness lab up``).  Bringing one
    up takes about a minute, and many where images have to be built.  :class:`~harness.errors.InfrastructureError` when
    the lab that is up is of another kind than asked for, or another process holds it;
    :class:`~harness.errors.LostNodeError` and :class:`~harness.errors.DeadlineError` when a node does not come up.
    """
    with contextlib.ExitStack() as undo:
        undo.enter_context(lease("a lab"))
        daemon = undo.enter_context(ensure_libvirt(keep=keep))
        undo.callback(daemon.close)
        record = find(daemon.connection(), spec, stack)
        fresh = record is None
        # Until somebody can use it a new lab is not kept either.
        with contextlib.ExitStack() as new_lab:
            if record is None:
                record = bring_up(daemon.uri, daemon.connection, spec, stack, new_lab, evidence, keep=keep)
            directory = records.labs_dir() / record.id
            power = Power(daemon.connection, directory, autodestroy=not record.keep, daemon=daemon)
            lab = attach(record, directory, power, fresh=fresh)
            made = new_lab.pop_all()
        if not keep:
            undo.push(made)
        yield undo.enter_context(contextlib.closing(lab))


def find(connection: LibvirtConnection, spec: LabSpec, stack: StackSpec) -> LabRecord | None:
    """The lab that is up already; :class:`~harness.errors.InfrastructureError` where it is not as ``spec`` and
    ``stack`` say, or libvirt does not answer.
    """
    try:
        active = {domain.name() for domain in connection.listAllDomains()}
    except libvirt.libvirtError as error:
        raise InfrastructureError(f"libvirt does not say which domains run: {_one_line(error)}") from None
    for directory in records.directories():
        record = records.read(directory)
        if record is None or not record.keep or not {node.domain for node in record.nodes} <= active:
            continue
        if different := record.differences(spec, stack):
            raise InfrastructureError(
                f"the lab that is up is not the one that was asked for: its {', its '.join(different)}; "
                "take it down with 'drbd-harness lab down', or ask for the same"
            )
        if stale := _stale(record, stack_digests(stack)):
            raise InfrastructureError(
                f"the lab that is up was made before the recipe of its {' and its '.join(stale)} image changed; "
                "take it down with 'drbd-harness lab down'"
            )
        logs.progress(f"lab {record.id} is up already")
        return record
    return None


def bring_up(
    uri: str,
    connection: Callable[[], LibvirtConnection],
    spec: LabSpec,
    stack: StackSpec,
    undo: contextlib.ExitStack,
    evidence: Path | None,
    *,
    keep: bool,
) -> LabRecord:
    """Make the two nodes, wait until both answer and record the lab.

    ``connection`` opens one to ``uri``, or has one; what is not to be kept ends with it.  ``undo`` gets whatever has to
    be taken back; what fails on the way takes itself back; where a port was taken by somebody else since it was chosen,
    it is tried again with others.  :class:`~harness.errors.InfrastructureError` also where there is no room for its
    files.
    """
    cache = cache_dir()
    images = ensure_stack(stack, cache)
    for image in (images.a, images.b, images.guest):
        # What cannot be read of them is said before anything boots.
        lock_of(image)
    lab_id = secrets.token_hex(3)
    user_image, firmware = _user_image(spec.guest.image, cache)
    parts = Parts(
        lab_id, records.labs_dir() / lab_id, spec, images.a, images.b, images.guest,
        _hardware(images.guest), user_image, firmware,
    )  # fmt: skip
    for _ in range(PORT_TRIES - 1):
        try:
            return _bring_up(parts, stack, uri, connection, undo, evidence, keep=keep)
        except _PortTakenError as taken:
            logs.progress(f"trying again with other ports: {taken}")
    return _bring_up(parts, stack, uri, connection, undo, evidence, keep=keep)


def _bring_up(
    parts: Parts,
    stack: StackSpec,
    uri: str,
    connection: Callable[[], LibvirtConnection],
    undo: contextlib.ExitStack,
    evidence: Path | None,
    *,
    keep: bool,
) -> LabRecord:
    """One try at :func:`bring_up`, with ports of its own."""
    # Two labs of one run must not overwrite each other's.
    kept = evidence / parts.lab_id if evidence is not None else state_dir() / "last-failure"
    with contextlib.ExitStack() as made:
        made.callback(records.forget, parts.directory)
        made.callback(collect_logs, parts.directory, parts.domain_names, kept)
        try:
            make(parts.directory)
            domains = make_domains(parts)
            for domain in domains:
                # With AUTODESTROY libvirt ends the domain when our connection ends, even after a kill -9.
                flags = 0 if keep else libvirt.VIR_DOMAIN_START_AUTODESTROY
                # A start that got no answer may have begun.
                made.callback(destroy, connection, domain.name, parts.lab_id)
                _create(connection(), domain, flags)
            boot.wait(connection(), {domain.name: domain.console for domain in domains})
            record = _record(parts, stack, domains, uri, keep=keep)
            records.write(record)
        except OSError as error:
            raise InfrastructureError(
                f"a lab could not be made in {parts.directory}: {error.strerror or error}"
            ) from error
        undo.push(made.pop_all())
    return record


def collect_logs(directory: Path, domains: Iterable[str], into: Path) -> None:
    """Copy the serial consoles of the lab in ``directory``, what QEMU printed for each of its ``domains``, and the end
    of what daemons of libvirt printed that were started here.
    """
    found = {console.name: console for console in directory.glob("console-*.log")}
    found |= {f"qemu-{name}.log": folder / f"{name}.log" for name in domains for folder in qemu_log_folders()}
    found |= {f"{name}.log": state_dir() / f"{name}.log" for name in ("libvirtd", "virtqemud", "virtlogd")}
    for name, log in found.items():
        # Where they cannot be kept the rest is taken back all the same.
        with contextlib.suppress(OSError), log.open("rb") as source:
            into.mkdir(parents=True, exist_ok=True)
            if not name.startswith("console-"):
                source.seek(max(0, log.stat().st_size - _LOG_BYTES))
            with (into / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def qemu_log_folders() -> tuple[Path, ...]:
    """Where libvirt keeps what its QEMUs print: the system's for root, else the user's own."""
    if os.geteuid() == 0:
        return (Path("/var/log/libvirt/qemu"),)
    return (Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libvirt/qemu/log",)


def _user_image(wanted: UserImageSpec, cache: Path) -> tuple[Path | None, tuple[Path, Path] | None]:
    """A user's guest image and the firmware that it needs, on this machine; None for what there is not."""
    if not wanted.there:
        return None, None
    return require_kept(wanted.digest, cache), uefi_firmware() if wanted.firmware == "uefi" else None


def _hardware(guest: Image) -> bool:
    """Whether the nodes get hardware KVM: only where their guests can then have KVM too."""
    accelerator = probe(guest.kernel, guest.initrd, cache_dir())
    logs.progress(f"accelerator: {accelerator.kind} ({accelerator.why})")
    if accelerator.kind == "kvm" and not accelerator.nested:
        logs.progress("KVM works here without nesting; the nodes are emulated, so that their guests can have KVM")
    return accelerator.kind == "kvm" and accelerator.nested


def _create(connection: LibvirtConnection, domain: NodeDomain, flags: int) -> None:
    try:
        with logs.timed("libvirt", logs.CONTROLLER, f"createXML {domain.name}", domain.lab):
            connection.createXML(node_xml(domain), flags)
    except libvirt.libvirtError as error:
        why = _one_line(error)
        kind = _PortTakenError if _PORT_TAKEN.search(why) else InfrastructureError
        raise kind(f"libvirt did not start {domain.name}: {why}") from None


def _one_line(error: libvirt.libvirtError) -> str:
    """libvirt adds what QEMU printed, line after line."""
    return " ".join(str(error).split())


def _record(parts: Parts, stack: StackSpec, domains: list[NodeDomain], uri: str, *, keep: bool) -> LabRecord:
    spec = parts.spec
    a, b = (
        NodeRecord(side, name, domain.name, domain.ssh_port, address)
        for side, name, domain, address in zip(SIDES, spec.node_names, domains, spec.link.addresses, strict=True)
    )
    images = by_role(parts.a, parts.b, parts.guest)
    return LabRecord(
        id=parts.lab_id,
        uri=uri,
        spec=spec,
        stack=stack,
        provenance=LabProvenance(
            images={role: image.digest for role, image in images.items()} | _user_digest(spec.guest.image),
            packages={role: image.packages for role, image in images.items()},
            node_vcpus=parts.vcpus,
        ),
        accelerator="kvm" if parts.hardware else "tcg",
        guest_kernel_args=parts.guest.command_line,
        keep=keep,
        pid=os.getpid(),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        nodes=(a, b),
        images={
            side: lock_of(image) for side, image in zip((*SIDES, "guest"), (*parts.images, parts.guest), strict=True)
        },
    )


def _stale(record: LabRecord, today: StackDigests) -> list[str]:
    """The roles of which the lab in ``record`` has another image than it would get today."""
    asked = by_role(today.a, today.b, today.guest)
    return [role for role, digest in asked.items() if record.provenance.images.get(role) != digest]


def _user_digest(image: UserImageSpec) -> dict[str, str]:
    return {"user-guest": image.digest} if image.there else {}
