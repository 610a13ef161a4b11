"""What a harness left on this machine, found by label and by folder, never by memory."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import libvirt

from harness.errors import InfrastructureError, NothingRanError
from harness.lab.nested import record as records
from harness.lab.nested.lease import holder, lease
from harness.lab.nested.libvirt_daemon import connect, default_uri, ensure_libvirt
from harness.lab.nested.record import LabRecord
from harness.remote.libvirt_calls import Bounded, LibvirtConnection
from harness.render.domain import lab_of
from harness.util import logs
from harness.util.paths import state_dir


@dataclass(frozen=True)
class Leftover:
    """One lab that is there: with its domains, or only its folder.  ``kept``: 'lab up' left it."""

    lab: str
    directory: Path | None
    domains: tuple[str, ...]
    kept: bool
    sentence: str


def leftovers() -> list[Leftover]:
    """Every lab of this user: running, half up, or only a folder; libvirt is asked only where it answers already."""
    labelled: dict[str, list[str]] = {}
    with contextlib.suppress(InfrastructureError), contextlib.closing(connect(default_uri())) as connection:
        for domain, lab in _labelled(connection):
            labelled.setdefault(lab, []).append(domain.name())
    busy = holder()
    found = []
    for directory in records.directories():
        record = records.read(directory)
        domains = tuple(labelled.pop(directory.name, []))
        found.append(_leftover(directory.name, directory, domains, record, busy))
    found += [_leftover(lab, None, tuple(domains), None, busy) for lab, domains in labelled.items()]
    return found


def _leftover(
    lab: str, directory: Path | None, domains: tuple[str, ...], record: LabRecord | None, busy: str | None
) -> Leftover:
    kept = record is not None and record.keep
    if domains and kept:
        what = "is up ('drbd-harness lab down' takes it down)"
    elif busy:
        what = f"belongs to the harness process {busy}, which runs"
    else:
        what = "was left behind ('drbd-harness clean' removes it)"
    running = f" with {', '.join(domains)}" if domains else " without a running domain"
    return Leftover(lab, directory, domains, kept, f"lab {lab}{running} {what}")


def clean(*, only_kept: bool = False) -> list[str]:
    """End every labelled domain and remove every lab folder (or only what ``lab up`` left); returns what went.

    :class:`~harness.errors.InfrastructureError` while another process holds a lab.
    """
    found = [one for one in leftovers() if one.kept or not only_kept]
    if not found:
        return []
    removed = []
    with lease("the lab"):
        running = {name for one in found for name in one.domains}
        if running:
            with ensure_libvirt() as daemon, contextlib.closing(connect(daemon.uri)) as connection:
                for domain, lab in _labelled(connection):
                    if lab in {one.lab for one in found}:
                        removed.append(f"domain {domain.name()}")
                        with logs.timed("libvirt", logs.CONTROLLER, f"destroy {domain.name()}", lab):
                            domain.destroy()
        for one in found:
            if one.directory is not None:
                records.forget(one.directory)
                removed.append(f"lab {one.lab}")
    return removed


def the_lab() -> tuple[Path, LabRecord]:
    """Folder and record of the lab that ``lab up`` left; :class:`~harness.errors.NothingRanError` without one."""
    for one in leftovers():
        if one.kept and one.domains and one.directory is not None:
            record = records.read(one.directory)
            if record is not None:
                return one.directory, record
    raise NothingRanError("no lab is up; 'drbd-harness lab up' brings one up")


def _labelled(connection: LibvirtConnection) -> list[tuple[Bounded, str]]:
    found = []
    for domain in connection.listAllDomains():
        with contextlib.suppress(libvirt.libvirtError):
            lab = lab_of(domain.XMLDesc(0), str(state_dir()))
            if lab is not None:
                found.append((domain, lab))
    return found
