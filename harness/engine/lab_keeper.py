"""What cells stand on: the lab, the resource over its nodes, a warm guest; each made at its first use.

After a failure of the machinery the lab is rebuilt once; when it fails again before any cell got an answer, it is given
up with that reason.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from harness.drbd.replication import bitmap_for
from harness.drbd.resource import Resource, follow_again
from harness.drbd.size import resize, size_mib
from harness.engine.node_logs import libvirt_logs, require_shell
from harness.engine.run_record import RunRecord
from harness.errors import (
    DeadlineError,
    GuestImageError,
    HarnessError,
    InfrastructureError,
    LostGuestError,
    LostNodeError,
    StackError,
)
from harness.guest.domain import Guest, processor_of
from harness.guest.leftovers import leftovers
from harness.lab.base import FullLab
from harness.lab.node import Node
from harness.lab.stack import require_unchanged
from harness.model import DelayProfile, ReplicationProfile
from harness.parse.guest_console import error_lines
from harness.parse.software import agreed_protocol, protocols, refused_dialect
from harness.util.logs import progress

LabFactory = Callable[[], AbstractContextManager[FullLab]]

REBUILDS = 1
LIBVIRTD_SECONDS = 90.0


class LabKeeper:
    """Brings up what is asked for and takes it down again.  ``forget`` is called with each lab that goes.

    ``kept`` is the folder for what guest, libvirt and QEMU printed, in one of its own for each lab.
    """

    def __init__(self, make_lab: LabFactory, record: RunRecord, kept: Path, forget: Callable[[], None]) -> None:
        self._make_lab = make_lab
        self._record = record
        self._kept = kept
        self._forget = forget
        self._stack = contextlib.ExitStack()
        self._lab: FullLab | None = None
        self._resource: Resource | None = None
        self._guest: Guest | None = None
        # Whether a guest came up by a user's image: then a later one that does not is a lost guest like any other.
        self._image_booted = False
        #: Whether the harness's own guest is wanted although a user brought an image: the controls are its own.
        self.harness_own = False
        self._rebuilds = 0
        #: The labs that were taken down since a cell had its answer.
        self._failed_labs: list[str] = []
        #: Why there will be no lab any more, as a sentence; None while there may be one.
        self.gave_up: str | None = None

    # ------------------------------------------------------------------------------------------ what there is

    @property
    def lab(self) -> FullLab:
        """The lab, brought up at the first use; :class:`InfrastructureError` when it was given up."""
        self.must_not_have_given_up()
        if self._lab is None:
            began = time.monotonic()
            try:
                self._lab = self._stack.enter_context(self._make_lab())
                self._record.plays_on(self._lab.stack, self._lab.lock, self._lab.provenance())
            except (LostNodeError, DeadlineError) as error:
                self.rebuild(str(error))
                if self.gave_up is not None:
                    raise
                return self.lab
            except HarnessError as error:
                # What is missing on the controller will be missing again.
                self._give_up(str(error))
                raise
            self._record.took("lab", began)
        return self._lab

    @property
    def resource(self) -> Resource:
        """The resource over the lab's nodes, up and healthy."""
        if self._resource is None:
            lab, began = self.lab, time.monotonic()
            try:
                self._resource = self._adopted(lab) or _created(lab)
                self._record.drbd_protocol(_protocol(lab))
            except HarnessError as error:
                # Two nodes that cannot speak to each other cannot on another lab either.
                (self.stop if isinstance(error, StackError) else self.rebuild)(str(error))
                raise
            self._record.took("resource", began)
        return self._resource

    def resource_of(self, mebibytes: int, replication: ReplicationProfile) -> Resource:
        """The resource with a device of that size and the bitmap for ``replication``, made anew where it has others; no
        guest may have it open.

        Blocks for some seconds where the size changes, and longer where the replicas are not alike then.
        """
        resource = self.resource
        bits = bitmap_for(resource, replication)
        if ((now := size_mib(resource)), resource.spec.bitmap_block_size) != (mebibytes, bits):
            began, lab = time.monotonic(), self.lab
            progress(f"the device of {now} MiB is made anew with {mebibytes} MiB")
            try:
                # What was left on in it may hold the device.
                self._drop_unclean_guest()
                alike = resize(resource, mebibytes, lambda blocks: lab.compare(blocks).differing_blocks == 0, bits)
            except HarnessError as error:
                self.rebuild(str(error))
                raise
            if not alike:
                progress("the two lower devices were not alike: all of the first was copied")
            self._record.took("resize", began)
        return resource

    @property
    def up(self) -> bool:
        """Whether there is a lab now."""
        return self._lab is not None

    def must_not_have_given_up(self) -> None:
        """:class:`InfrastructureError` with the reason where there will be no lab any more."""
        if self.gave_up is not None:
            raise InfrastructureError(self.gave_up)

    def _adopted(self, lab: FullLab) -> Resource | None:
        """The resource that an earlier run left on a lab that stays up, if it is ours and healthy."""
        if lab.fresh or self._rebuilds:
            return None
        try:
            resource = Resource.adopt(lab.a, lab.b, lab.resource_spec.name, spec=lab.resource_spec)
            if not (resource.owns_files and resource.status()[0].healthy):
                return None
            for node in (lab.a, lab.b):
                # What a run that was killed may have left on.
                resource.apply_delays(DelayProfile(), node)
        except HarnessError as error:
            progress(f"the resource is set up anew: {error}")
            return None
        progress("the resource of an earlier run is healthy and is used again")
        return resource

    @property
    def guest(self) -> Guest:
        """A guest that answers: the warm one, or a new one when it does not."""
        self._drop_dead_guest()
        self._drop_other_guest()
        if self._guest is None:
            began = time.monotonic()
            progress("starting the guest")
            try:
                self._guest = Guest.start(self.lab, self.lab.a, harness_own=self.harness_own)
            except GuestImageError as error:
                if self._image_booted:
                    raise LostGuestError(str(error)) from error
                # What cells are left would wait as long for the same.
                self.stop(str(error))
                raise
            self._image_booted |= self._guest.image is not None
            _record_guest(self._record, self.lab, self._guest)
            self._record.took("guest", began)
        return self._guest

    def _drop_other_guest(self) -> None:
        """Of the harness's own guest and a user's one runs at a time: a node has the memory for one."""
        if self._guest is not None and _other(self._guest, self.lab, self.harness_own):
            self._drop_guest()

    @property
    def clean_guest(self) -> Guest:
        """The same before it gets a disk: one in which an earlier cell or test left something on is replaced."""
        self._drop_unclean_guest()
        return self.guest

    def _drop_dead_guest(self) -> None:
        if self._guest is not None and not self._guest.alive():
            if not self._guest.ended:
                progress("the guest does not answer any more; starting another")
                self._guest.destroy()
            self._guest = None

    def _drop_unclean_guest(self) -> None:
        self._drop_dead_guest()
        self._drop_other_guest()
        if self._guest is None:
            return
        if (left := leftovers(self._guest.agent, own=self._guest.ready.own)) is not None:
            progress(f"the guest is replaced: {left}")
            self._record.note(f"the guest was replaced: {left}")
            self._guest.destroy()

    def keep_guest(self, guest: Guest) -> None:
        """The warm guest is ``guest`` now: after a crash it is another one than the cell began with."""
        self._guest = guest

    # ------------------------------------------------------------------------------------------ after a failure

    def answered(self) -> None:
        """A cell got its answer: two losses in an hour are not a lab that never works, so it may be rebuilt again."""
        self._rebuilds = 0
        self._failed_labs = []

    def recover(self) -> None:
        """Bring the lab back to where a cell can begin, or give it up."""
        try:
            _require_nodes(self.lab)
            _listen_again(self.lab, self.resource)
            state, counters = self.resource.status()
            if not state.healthy or counters.out_of_sync_kib:
                progress("the resource is not healthy; setting it up again")
                self._drop_guest()
                self.resource.create(skip_initial_sync=False)
        except StackError as error:
            self.stop(str(error))
        except HarnessError as error:
            self.rebuild(str(error))

    def rebuild(self, why: str, given_up: str = "") -> None:
        """Take the lab down, so that its next use makes another; beyond ``REBUILDS`` it is given up.

        ``given_up`` is what the cells that are left are told then.
        """
        if self._lab is not None:
            self._failed_labs.append(self._lab.id)
        if self._rebuilds >= REBUILDS:
            self._give_up(why, given_up)
            return
        self._rebuilds += 1
        progress(f"rebuilding the lab: {why}")
        self._record.note(f"the lab was rebuilt: {why}")
        self.take_down()

    def stop(self, why: str) -> None:
        """No lab any more, for another would be no better; the cells that are left are told why they are not played."""
        self._give_up(why, f"not played: {why}")

    def _give_up(self, why: str, sentence: str = "") -> None:
        self.take_down()
        self.gave_up = sentence or f"the run gave up on its lab: {why}"
        progress(f"giving the lab up: {why}")
        self._record.gave_up(self._failed_labs, why)

    def take_down(self) -> None:
        """End the guest and the lab, whatever state they are in.

        The resource goes with its lab; a lab that stays up keeps it for the next run.
        """
        if self._lab is not None:
            progress("taking down what was brought up")
        self._keep_logs()
        with contextlib.suppress(HarnessError):
            self._drop_guest()
        self._resource = None
        self._lab = None
        self._forget()
        self._stack.close()

    def _drop_guest(self) -> None:
        if self._guest is not None:
            self._guest.destroy()
            self._guest = None

    def _keep_logs(self) -> None:
        """Keep what the guest printed on its console, and libvirt and QEMU on the nodes, in a folder of the lab's."""
        if self._lab is None or not self._lab.carries_guests:
            return
        lab, guest = self._lab, self._guest
        name = lab.guest_spec.name
        found: dict[str, Callable[[], str]] = {
            f"libvirt-{node.name}.log": functools.partial(libvirt_logs, node, name) for node in (lab.a, lab.b)
        }
        if guest is not None:
            found["console-guest.log"] = guest.console
        for name, read in found.items():
            # A node that does not answer has none to give.
            with contextlib.suppress(HarnessError, OSError):
                if text := read():
                    (self._kept / lab.id).mkdir(parents=True, exist_ok=True)
                    (self._kept / lab.id / name).write_text(text)


def _other(guest: Guest, lab: FullLab, harness_own: bool) -> bool:
    """Whether ``guest`` is by a user's image where the harness's own is wanted, or the other way round."""
    return lab.guest_spec.image.there and (guest.image is None) != harness_own


def _kernel_of(guest: Guest) -> str | None:
    """What cells' guest runs; None of the one for the controls where a user brought an image for the cells."""
    if guest.image is not None:
        return f"{guest.ready.facts}, from {guest.image.name}, SHA-256 {guest.image.digest[:12]}"
    return None if guest.spec.image.there else guest.agent.run(["uname", "-r"]).stdout.strip()


def _record_guest(record: RunRecord, lab: FullLab, guest: Guest) -> None:
    """Keep what the guest runs, and what processor it has where that is not the node's own."""
    if (kernel := _kernel_of(guest)) is not None:
        record.guest_kernel(kernel)
    if (given := _processor_of(lab, guest)) is not None:
        record.note(given)
    if (said := _said_while_booting(guest)) is not None:
        progress(said)
        record.note(said, once=True)


def _said_while_booting(guest: Guest) -> str | None:
    """The errors that its kernel reported before any cell: what such a guest finds is doubtful; None without any."""
    with contextlib.suppress(HarnessError):
        errors = error_lines(guest.console())
        if errors:
            more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
            return f"the guest's kernel reported an error while it booted: {errors[0]}{more}"
    return None


def _processor_of(lab: FullLab, guest: Guest) -> str | None:
    """What processor the guest really got where it is not the node's own, and by what it runs; None where it is."""
    if guest.image is not None or not lab.a.somebodys or not lab.guest_image.cpu:
        return None
    by = "KVM" if lab.guest_image.kvm else "emulation"
    return f"the guest, by {by}, has the processor {processor_of(guest)}"


def _require_nodes(lab: FullLab) -> None:
    """Both nodes answer, libvirt too where there are guests, and run what they ran; :class:`HarnessError` otherwise."""
    for node in (lab.a, lab.b):
        require_shell(node)
        if lab.carries_guests:
            _require_libvirt(node)
    # Whatever went wrong, a node may have booted.
    require_unchanged(lab.lock, lab.a, lab.b)


def _require_libvirt(node: Node) -> None:
    """Libvirt on ``node`` answers, if need be after a new start; :class:`HarnessError` where that is no help."""
    try:
        node.require_libvirt()
    except LostNodeError as error:
        if node.somebodys:
            # Guests of theirs may be on it.
            raise
        progress(f"libvirtd on {node.name} is started anew: {error}")
        node.runner.run(["systemctl", "restart", "libvirtd"], timeout=LIBVIRTD_SECONDS)
        node.require_libvirt()


def _listen_again(lab: FullLab, resource: Resource) -> None:
    """Begin anew with what told of the lab and has ended: each later cell would wait for it in vain."""
    for node in (lab.a, lab.b):
        if node.listen_again():
            progress(f"the kernel log of {node.name} had ended, and is read anew")
    for name in follow_again(resource):
        progress(f"the events of {name} had ended, and are followed anew")


def _protocol(lab: FullLab) -> str:
    """The version of DRBD's network protocol between the two nodes: what they logged, else what they must choose.

    DRBD takes the newest that both have; a lab that is up for long may have logged it too long ago.
    """
    one, other = (protocols(locked.runs.drbd_protocols) for locked in lab.lock.nodes)
    return agreed_protocol(lab.a.log.lines(0)) or str(max(one & other, default=""))


def _created(lab: FullLab) -> Resource:
    resource = Resource.for_nodes(lab.a, lab.b, lab.resource_spec)
    try:
        resource.create(skip_initial_sync=lab.fresh)
    except DeadlineError:
        for node in (lab.a, lab.b):
            if said := refused_dialect(node.log.lines(0)):
                raise StackError(
                    f"the two nodes cannot speak to each other: the kernel of {node.name}: {said}"
                ) from None
        raise
    return resource
