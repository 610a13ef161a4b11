"""The two machines of an inventory as a lab, for as long as a run lasts; everything on them is as it was after it.

Whatever is changed is noted on the machine first (:mod:`harness.lab.hardware.journal`), and put back from there at the
end, well or badly; a process that is killed leaves it to ``drbd-harness clean --inventory``.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from harness.config.inventory import DISK, LOOP, VOLUME_GROUP, ZFS, Inventory
from harness.config.lab_spec import GuestSpec, LabSpec
from harness.config.machine_tools import family, packages
from harness.errors import HarnessError, InfrastructureError, ProtectedError, RefusedError, UsageError
from harness.images import DEFAULT_SUITE, Image, ensure
from harness.lab.hardware import storage
from harness.lab.hardware.compare import DigestComparison, program
from harness.lab.hardware.guard import DrbdAbove, Guard
from harness.lab.hardware.guests import TOOLS, GuestParts, guest_parts, make_ready, require_tools
from harness.lab.hardware.journal import Journal
from harness.lab.hardware.lab import HardwareLab, LeasedGuard
from harness.lab.hardware.lab_power import LabPower
from harness.lab.hardware.lease import FOLDER, Holder, Lease, kept
from harness.lab.hardware.libvirt_ssh import write_libvirt_access
from harness.lab.hardware.machines import CONNECT_SECONDS, FoundMachine, connected, facts_now
from harness.lab.hardware.own import UUID
from harness.lab.hardware.power import MachinePower
from harness.lab.hardware.taken import free_minor, free_port, require_free
from harness.lab.hardware.taken import look as look_what_is_taken
from harness.lab.machine import guest_machine
from harness.lab.node import Node
from harness.lab.stack import read_software, require_as_locked, stack_of
from harness.model import LabProvenance, MachineModel, NodeLock, Stack, StackLock
from harness.model.changes import ASKED_FOR, ChangeKind
from harness.parse.machine import MachineFacts
from harness.remote.ssh import SshRunner
from harness.render.drbd_conf import SIGNATURE, ResourceNode, ResourceSpec
from harness.util.logs import progress
from harness.util.paths import cache_dir, own_command

#: What a run on such machines says of how its nodes are made.
HARDWARE = "hardware"
_MODULES = ("drbd", "dm_delay")
# What DRBD's device and what lies below it hold is a test's: no volume group, array or filesystem in there is taken
# into use by the machine, and it gets no names by what is in it.
_RULES_FOLDER = "/run/udev/rules.d"
_RULES = """\
# Written by drbd-harness; gone with the run, or with a boot.
{matches}
GOTO="drbd_harness_end"
LABEL="drbd_harness"
ENV{{DM_NOSCAN}}="1"
ENV{{DM_UDEV_DISABLE_OTHER_RULES_FLAG}}="1"
ENV{{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}}="1"
ENV{{SYSTEMD_READY}}="0"
LABEL="drbd_harness_end"
"""
_WRITE_RULES = 'mkdir -p "${1%/*}" && cat > "$1" && udevadm control --reload'
_MOUNT_POINT = "/mnt/drbd-harness"
_LAST_KNOWN = "/var/lib/drbd"


@contextlib.contextmanager
def hardware_lab(
    inventory: Inventory, spec: LabSpec, *, guests: bool = False, cuts: bool = False, gathers: bool = False
) -> Iterator[HardwareLab]:
    """A lab over the machines of ``inventory``: DRBD's lower devices made, the place for its resource found; with
    ``guests`` what those are made of is on both, with ``cuts`` nobody else's resource or guest loses its power, with
    ``gathers`` their NICs have scatter-gather or may get it.

    Blocks for some minutes at its beginning and its end.  :class:`~harness.errors.UsageError` where a machine lacks
    something, :class:`~harness.errors.ProtectedError` where something on it may be somebody's, in both cases with
    nothing written; :class:`~harness.errors.HostKeyError`, :class:`~harness.errors.LostNodeError`.
    """
    group = f" --group {spec.inventory_group}" if spec.inventory_group else ""
    clean = f"{own_command()} clean --inventory {inventory.path}{group}"
    pin = f"{own_command()} inventory {inventory.path}{group} --pin"
    with contextlib.ExitStack() as undo:
        # What is made here, and may be impossible or take minutes, before the machines are asked.
        program()
        image = ensure("guest", DEFAULT_SUITE, cache_dir()) if guests else None
        machines = undo.enter_context(connected(inventory, pin, TOOLS if guests else ()))
        for machine in machines:
            _require(machine)
            if gathers:
                _require_gather(machine, inventory.may_change)
        parts = _guest_parts(inventory, spec, machines, image, undo) if image is not None else None
        domain = parts.spec.name if parts is not None else ""
        resource = _resource(inventory, spec, machines)
        holder = Holder.of_this_process(f"a run on {inventory.name}")
        lease = undo.enter_context(kept([(one.facts["boot"], one.guard.machine) for one in machines], holder))
        journals = [Journal(one.guard.machine, inventory.name, holder, inventory.may_change) for one in machines]
        for journal in journals:
            _require_put_back(journal, clean)
        # A guest and a resource that a run of this lab left are put back by now.
        for machine in machines if cuts else ():
            _require_alone(machine, resource.name)
        # Looked at again, now that no other harness can take what is free.
        looks = [(one.guard.machine, look_what_is_taken(one.guard.machine, domains=guests)) for one in machines]
        require_free(looks, resource, domain)
        for machine, journal in zip(machines, journals, strict=True):
            undo.callback(_put_back, machine, journal, lease, clean)
        fresh = _make_storage(machines, journals)
        for machine, journal in zip(machines, journals, strict=True):
            machine.guard.above = DrbdAbove(resource.name, resource.mapping, resource.device.rpartition("/")[2])
            _note(journal, resource)
            _hide_content(machine, journal, resource)
        uris = parts.uris if parts is not None else ("", "")
        if parts is not None:
            for machine, journal, lacking in zip(machines, journals, parts.lacking, strict=True):
                make_ready(parts, machine, lacking, journal, inventory.name)
        a, b = (_node(one, lease, journal, uri) for one, journal, uri in zip(machines, journals, uris, strict=True))
        for node in (a, b):
            undo.callback(node.close_libvirt)
        restored = {one.host.name: (one, journal) for one, journal in zip(machines, journals, strict=True)}
        power = LabPower(
            MachinePower(inventory.hosts, inventory.name), lease,
            lambda node: _restore(*restored[node.name], resource, node),
            lambda node: _require_still_alone(node, resource.name, domain),
        )  # fmt: skip
        undo.callback(power.give_back, (a, b))
        yield _lab(inventory, parts or spec.guest, resource, machines, (a, b), power, fresh=fresh)


# --------------------------------------------------------------------------- before anything is written


def _require(machine: FoundMachine) -> None:
    """:class:`~harness.errors.UsageError` where the machine lacks a program, DRBD, or the address it is to use."""
    host, facts = machine.host, machine.facts
    missing = [*facts.missing, *([] if facts["python"] else ["python3"])]
    known = packages(family(facts["family"]), missing)
    if missing:
        named = ", ".join(f"{tool} (package {known[tool]})" if tool in known else tool for tool in missing)
        raise UsageError(f"{host.name} lacks {named}; nothing is installed by the harness")
    if not facts["drbd"] and not facts["drbd_loaded"]:
        raise UsageError(f"the kernel {facts['kernel']} of {host.name} has no module drbd")
    if host.replication_address not in facts.addresses:
        raise UsageError(f"{host.replication_address} is not on {host.replication_nic} of {host.name}")


def _require_gather(machine: FoundMachine, may_change: Collection[str]) -> None:
    """:class:`~harness.errors.UsageError` where the replication NIC has no scatter-gather, and none may be given to it:
    no cell that asks for it would have an answer.
    """
    name, nic, state = machine.host.name, machine.host.replication_nic, machine.facts["sg"]
    asked_for = ASKED_FOR[ChangeKind.NIC_FEATURE]
    fixed = "[fixed]" in state
    if not state.startswith("off") or (asked_for in may_change and not fixed):
        return
    off = f'scatter_gather = false in the cells, and may_change = ["{asked_for}"] in the inventory, plays them without'
    on = f"'ethtool -K {nic} sg on' there switches it on; " if not fixed else "it cannot be switched on; "
    raise UsageError(f"scatter-gather is off on {nic} of {name}, and cells of the run ask for it: {on}{off}")


def _require_alone(machine: FoundMachine, resource: str) -> None:
    """:class:`~harness.errors.UsageError` where the power of the machine is somebody else's too."""
    if up := _beside(machine.facts, resource):
        raise UsageError(f"the run cuts the power of {machine.host.name}, and {up} up there; nothing was changed")


def _require_still_alone(node: Node, resource: str, domain: str) -> None:
    """:class:`~harness.errors.RefusedError` where by now the power of the machine is somebody else's too."""
    if up := _beside(facts_now(node.runner), resource, domain):
        raise RefusedError(f"the power of {node.name}", f"{up} up there, and would lose it too; nothing was cut")


def _beside(facts: MachineFacts, resource: str, domain: str = "") -> str:
    """What is up on a machine beside ``resource`` and the guest ``domain``, as the middle of a sentence; empty for
    nothing.
    """
    up = [f"the resource {one}" for one in facts["drbd_resources"].split() if one != resource]
    up += [f"the guest {one}" for one in facts["domains"].split() if one != domain]
    if len(up) > 1:
        return f"{up[0]} and {len(up) - 1} more are"
    return f"{up[0]} is" if up else ""


def _guest_parts(
    inventory: Inventory, spec: LabSpec, machines: Sequence[FoundMachine], image: Image, undo: contextlib.ExitStack
) -> GuestParts:
    for machine in machines:
        require_tools(machine)
    folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="drbd-harness-"))
    uris = write_libvirt_access(inventory, Path(folder))
    return guest_parts(inventory, spec.guest, machines, image, uris)


def _resource(inventory: Inventory, spec: LabSpec, machines: Sequence[FoundMachine]) -> ResourceSpec:
    """The lab's resource: names of its own, a minor and a port that nobody has on either machine.

    The identity of its mapping is of this run alone.
    """
    names = [one.facts["host"] for one in machines]
    if names[0] == names[1]:
        raise UsageError(f"both machines call themselves {names[0]} (uname -n), by which DRBD tells its nodes apart")
    looks = [look_what_is_taken(one.guard.machine) for one in machines]
    name = f"drbd-harness-{inventory.name}"
    resource = ResourceSpec(
        name=name, minor=free_minor(looks), port=free_port(looks), mapping=f"{name}-lower",
        mapping_uuid=f"{UUID}LOWER-{secrets.token_hex(8)}", size_mib=spec.device_mib,
        silenced=tuple(sorted({one for look in looks for one in look.handlers})),
    )  # fmt: skip
    addresses = [one.host.replication_address for one in machines]
    nodes = tuple(ResourceNode(*one, resource.mapped) for one in zip(names, addresses, strict=True))
    return replace(resource, nodes=nodes)


def _require_put_back(journal: Journal, clean: str) -> None:
    if entries := journal.entries():
        raise ProtectedError(
            f"a run that was killed left {len(entries)} changes on {journal.machine.name}, the last of them "
            f"{entries[-1].kind} {entries[-1].what}; '{clean}' puts them back"
        )


# --------------------------------------------------------------------------- made, and put back


def _make_storage(machines: Sequence[FoundMachine], journals: Sequence[Journal]) -> bool:
    """Make the lower devices; whether nothing has written to them yet, so that they are equal.

    One that was there before is used, and stays.
    """
    kept_by = {machine.guard: journal for machine, journal in zip(machines, journals, strict=True)}
    storage.make([*kept_by], lambda guard: kept_by[guard].note(ChangeKind.STORAGE, guard.subject))
    return all(machine.guard.storage.kind in (VOLUME_GROUP, DISK) for machine in machines)


def _note(journal: Journal, resource: ResourceSpec) -> None:
    """What DRBD's resource and the cells on it will change on a machine; the last noted is the first put back."""
    for module in _MODULES:
        journal.note(ChangeKind.MODULE, module)
    for folder in (f"{FOLDER}/programs", f"{FOLDER}-replica"):
        journal.note(ChangeKind.PROGRAMS, folder)
    signed = f"begins {SIGNATURE}"
    journal.note(ChangeKind.FILE, resource.path, signed)
    journal.note(ChangeKind.MAPPING, resource.mapping, resource.mapping_uuid)
    journal.note(ChangeKind.RESOURCE, resource.name, signed, file=resource.path)
    # Where drbdmeta writes down what it last found on the minor's lower device.
    journal.note(ChangeKind.FILE, f"{_LAST_KNOWN}/drbd-minor-{resource.minor}.lkbd", f"holds {resource.mapped}")
    journal.note(ChangeKind.DIRECTORY, _MOUNT_POINT)
    journal.note(ChangeKind.MOUNT, _MOUNT_POINT, resource.device)


def rules_of(guard: Guard, resource: ResourceSpec) -> str:
    """udev's rules that hide what DRBD's device, its mapping and the lower device below that hold.

    The same is on all three, at the same place: btrfs would take one of them for another.
    """
    kernel = resource.device.rpartition("/")[2]
    lower = {
        DISK: f'ATTR{{dm/name}}=="{guard.name}"', LOOP: f'ATTR{{loop/backing_file}}=="{guard.subject}"',
        ZFS: f'KERNEL=="zd*", PROGRAM=="zvol_id $devnode", RESULT=="{guard.volume}"',
    }.get(guard.storage.kind, f'ATTR{{dm/name}}=="{guard.volume.replace("-", "--").replace("/", "-")}"')  # fmt: skip
    # Not the names that udev's own rules find: on Debian they come behind this file.
    matches = (f'KERNEL=="{kernel}"', f'ATTR{{dm/name}}=="{resource.mapping}"', lower)
    return _RULES.format(matches="\n".join(f'{one}, GOTO="drbd_harness"' for one in matches))


def _hide_content(machine: FoundMachine, journal: Journal, resource: ResourceSpec) -> None:
    """Let udev, LVM and systemd take nothing into use that a test has on the devices."""
    text = rules_of(machine.guard, resource)
    path = f"{_RULES_FOLDER}/12-{resource.name}.rules"
    journal.note(ChangeKind.DIRECTORY, _RULES_FOLDER)
    journal.note(ChangeKind.FILE, path, f"sha256 {hashlib.sha256(text.encode()).hexdigest()}")
    machine.guard.machine.runner.run(["sh", "-c", _WRITE_RULES, "sh", path], stdin=text)


def _restore(machine: FoundMachine, journal: Journal, resource: ResourceSpec, node: Node) -> None:
    """After a boot of the machine: what it has undone is noted anew, and what a run needs is there again."""
    _note(journal, resource)
    _hide_content(machine, journal, resource)
    node.lower = storage.open_again(machine.guard)


def _put_back(machine: FoundMachine, journal: Journal, lease: Lease, clean: str) -> None:
    """Put back all that was noted; what cannot be stays noted there, and is said.

    Not where somebody else has the machine by now: what a run of his has noted would go too.
    """
    name, runner = machine.host.name, _ssh(machine)
    progress(f"{name}: what was changed is put back")
    try:
        if not runner.connected:
            runner.connect(CONNECT_SECONDS)
        lease.ensure(name)
        left = [*journal.end_commands()]
        became = journal.put_back(machine.guard)
        left += [*became.failed, *became.left]
    except HarnessError as error:
        left = [str(error)]
    for sentence in left:
        progress(f"{name}: {sentence}")
    if left:
        progress(f"{name}: '{clean}' tries again what was not put back")


# --------------------------------------------------------------------------- the lab


def _ssh(machine: FoundMachine) -> SshRunner:
    runner = machine.guard.machine.runner
    assert isinstance(runner, SshRunner)
    return runner


def _node(machine: FoundMachine, lease: Lease, journal: Journal, libvirt_uri: str) -> Node:
    host, guard = machine.host, machine.guard
    lower = guard.lower(guard.look())
    if lower is None:
        raise InfrastructureError(f"on {host.name}, {guard.subject} is not there any more")
    return Node(
        name=host.name, runner=_ssh(machine), link=host.replication_nic, address=host.replication_address, lower=lower,
        libvirt_uri=libvirt_uri, host_name=machine.facts["host"], guard=LeasedGuard(guard, lease), own_link=False,
        journal=journal,
    )  # fmt: skip


def _lab(
    inventory: Inventory, guests: GuestParts | GuestSpec, resource: ResourceSpec, machines: Sequence[FoundMachine],
    nodes: tuple[Node, Node], power: LabPower, *, fresh: bool,
) -> HardwareLab:  # fmt: skip
    on = read_software(*nodes)
    one, other = (NodeLock(node.name, runs=runs) for node, runs in zip(nodes, on, strict=True))
    lock = StackLock("", one, other)
    made_of = LabProvenance(machines=tuple(map(_model, machines)))
    if isinstance(guests, GuestParts):
        lock = replace(lock, guest=guests.lock, machine=guest_machine([*zip(nodes, on, strict=True)], "", cache_dir()))
        made_of = replace(made_of, images={"guest": guests.lock.digest}, packages={"guest": guests.packages})
    require_as_locked(lock, *nodes)
    return HardwareLab(
        inventory.name, nodes, resource, guests, _stack(machines, stack_of(*on, "", HARDWARE, lock.machine)), lock,
        made_of, DigestComparison(*nodes, nodes[0].lower, nodes[1].lower), power, fresh=fresh,
    )  # fmt: skip


def _model(machine: FoundMachine) -> MachineModel:
    facts, guard = machine.facts, machine.guard
    driver = facts["nic"].partition(" ")[0]
    return MachineModel(
        system=f"{facts['distribution']}, {facts['machine']}".strip(", "), processor=facts["processor"],
        memory_mib=int(facts["memory_kib"] or 0) // 1024,
        nic=f"{facts['nic_model']} ({driver})" if facts["nic_model"] else driver, storage=guard.storage.kind,
        disks=guard.models(guard.look()),
    )  # fmt: skip


def _stack(machines: Sequence[FoundMachine], stack: Stack) -> Stack:
    """With the machines' processors in the place of the controller's."""
    return replace(stack, cpu=" / ".join(dict.fromkeys(one.facts["processor"] for one in machines)))
