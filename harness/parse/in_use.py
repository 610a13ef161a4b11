"""What the program ``resource`` printed of a machine and of a resource in use there, as facts.

The source of the format: ``harness/lab/hardware/programs/resource.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.model import BLOCK_BYTES, SECTOR_BYTES
from harness.model.inspection import GuestDisk, InspectedMachine, ReplicationSeen, VolumeSide
from harness.parse.drbd_show import net_options, options_in, shown_resource
from harness.parse.drbd_status import parse_version
from harness.parse.drbd_volumes import VolumeStatus, volumes
from harness.parse.machine import MachineFacts
from harness.parse.qemu_disk import DiskTold, cache_mode, disks_of_libvirt, disks_of_options, domain_name
from harness.parse.system import o_direct, offloads, open_flags

Answer = Mapping[str, Any]
_QEMU_VERSION = "QEMU emulator version "


def generation(answer: Answer) -> str:
    """The generation of the DRBD that is loaded, ``8.4`` or ``9``; :class:`ValueError` where none is that is known."""
    if not str(answer["proc_drbd"]).strip():
        raise ValueError("DRBD is not loaded")
    version = parse_version(str(answer["proc_drbd"]))
    if version.startswith("8.4."):
        return "8.4"
    if version.startswith("9."):
        return "9"
    raise ValueError(f"it runs DRBD {version}, and the harness knows 8.4 and 9")


def machine(name: str, facts: MachineFacts) -> InspectedMachine:
    """The versions of a machine."""
    return InspectedMachine(
        name=name, distribution=facts["distribution"], kernel=facts["kernel"], processor=facts["processor"],
        drbd=facts["drbd_loaded"] or facts["drbd"], drbd_utils=facts["drbd_utils"], qemu=facts["qemu"],
        libvirt=facts["libvirt"], missing=facts.missing,
    )  # fmt: skip


def replication(name: str, answer: Answer, resource: str) -> ReplicationSeen:
    """How a machine replicates the resource; :class:`ValueError` where DRBD does not show it."""
    show = str(answer["show"]["out"])
    (connection,) = shown_resource(show, resource).connections
    nic = _nic(answer, connection.local.host)
    parameter = str(answer["disable_sendpage"]).strip()
    return ReplicationSeen(
        machine=name,
        options={**options_in(show, "disk"), **net_options(show)},
        disable_sendpage={"Y": True, "1": True, "N": False, "0": False}.get(parameter),
        nic=nic,
        scatter_gather=offloads(str(answer["offloads"].get(nic, ""))).get("scatter-gather"),
    )


def link(answer: Answer, resource: str) -> tuple[str, str]:
    """The machine's own address and its peer's, each with the port; :class:`ValueError` where DRBD does not show it."""
    found = shown_resource(str(answer["show"]["out"]), resource).connections
    if len(found) != 1:
        raise ValueError(f"the resource '{resource}' has {len(found)} peers, and an inspection is of two machines")
    here, there = found[0].local, found[0].remote
    return f"{here.host}:{here.port}", f"{there.host}:{there.port}"


def sides(name: str, answer: Answer, resource: str) -> Mapping[int, VolumeSide]:
    """The volumes of the resource on a machine by their numbers; :class:`ValueError` where they cannot be read."""
    status = str(answer["status"]["out"])
    found = volumes(str(answer["show"]["out"]), str(answer["proc_drbd"]), status, resource)
    return {one.number: _side(name, answer, one) for one in found}


def _nic(answer: Answer, address: str) -> str:
    """The interface that has ``address``, else the only one that was looked at."""
    for line in str(answer["addresses"]).splitlines():
        words = line.split()
        if len(words) > 3 and words[3].partition("/")[0] == address:
            return words[1]
    return next(iter(answer["offloads"])) if len(answer["offloads"]) == 1 else ""


def _side(name: str, answer: Answer, status: VolumeStatus) -> VolumeSide:
    volume = answer["volumes"].get(str(status.minor), {})
    sectors = str(volume.get("sectors", "")).strip()
    stable = str(volume.get("stable_writes", "")).strip()
    return VolumeSide(
        machine=name,
        minor=status.minor,
        device=f"/dev/drbd{status.minor}",
        lower=status.lower,
        blocks=int(sectors) * SECTOR_BYTES // BLOCK_BYTES if sectors.isdigit() else 0,
        lower_bytes=answer["lower"].get(status.lower, {}).get("bytes"),
        state=status.state,
        out_of_sync_kib=status.counters.out_of_sync_kib,
        written_kib=status.counters.disk_write_kib,
        progress=status.progress,
        stable_writes=stable == "1" if stable else None,
        disks=tuple(_disks(name, answer, volume)),
        uses=tuple(_uses(answer, volume)),
        epochs=status.epochs,
    )


# --------------------------------------------------------------------------- who uses it


def _opened(volume: Answer) -> Mapping[tuple[int, str], list[Answer]]:
    """The descriptors, by process and by what they lead to."""
    found: dict[tuple[int, str], list[Answer]] = {}
    for one in volume.get("opened", ()):
        found.setdefault((int(one["pid"]), str(one["path"])), []).append(one)
    return found


def _disks(name: str, answer: Answer, volume: Answer) -> Iterator[GuestDisk]:
    for (pid, path), descriptors in _opened(volume).items():
        process = answer["processes"].get(str(pid), {})
        if not process.get("qemu"):
            continue
        domain = next((one for one in answer["domains"] if one["pid"] == pid), None)
        told, told_by = _told(answer, process, domain, path)
        flags = [open_flags(str(one["flags"])) for one in descriptors if one["flags"]]
        direct = all(o_direct(flag) for flag in flags) if flags else None
        contradiction = ""
        if told is not None and direct is not None and told.direct is not None and told.direct is not direct:
            asked = cache_mode(told.direct, told.writeback, told.no_flush)
            opened = "with O_DIRECT" if direct else "without O_DIRECT"
            contradiction = f"{told_by} says cache={asked}, and the QEMU that runs has it open {opened}"
        known = told or DiskTold()
        yield GuestDisk(
            machine=name,
            domain=str(domain["name"]) if domain else domain_name(process["options"]) or f"process {pid}",
            pid=pid,
            path=path,
            image_file=any(one.get("file") for one in descriptors),
            libvirt=domain is not None,
            version=_version(str(process.get("version", ""))),
            program_replaced=str(process.get("program", "")).endswith(" (deleted)"),
            # What is open counts more than what was asked for.
            cache=cache_mode(known.direct if direct is None else direct, known.writeback, known.no_flush),
            direct=direct,
            aio=known.aio, bus=known.bus, discard=known.discard, detect_zeroes=known.detect_zeroes,
            format=known.format, told_by=told_by, contradiction=contradiction,
        )  # fmt: skip


def _told(answer: Answer, process: Answer, domain: Answer | None, path: str) -> tuple[DiskTold | None, str]:
    """What somebody says of the disk on ``path``, and who does."""
    real: Mapping[str, str] = answer["real"]
    sources = [] if domain is None else [(disks_of_libvirt(domain["disks"]), "libvirt's live definition")]
    sources.append((disks_of_options(process["options"]), "the command line of the QEMU"))
    for disks, told_by in sources:
        for asked, told in disks.items():
            if path in (asked, real.get(asked)):
                return told, told_by
    return None, "the open flags alone"


def _version(printed: str) -> str:
    return printed.removeprefix(_QEMU_VERSION).split(" ")[0] if printed.startswith(_QEMU_VERSION) else ""


def _uses(answer: Answer, volume: Answer) -> Iterator[str]:
    """Who uses the volume beside guests, in words."""
    above = volume.get("above", {})
    mounts = volume.get("mounts", ())
    for one in mounts:
        yield f"{one['kind']} mounted at {one['where']}"
    yield from (f"swap on {path}" for path in volume.get("swaps", ()))
    for name, one in above.items():
        if name != f"drbd{volume.get('minor')}":
            yield f"{one['dm_name'] or name} on it"
    seen = set()
    for (pid, path), descriptors in _opened(volume).items():
        process = answer["processes"].get(str(pid), {})
        of_mount = any(one.get("file") for one in descriptors)
        if not process.get("qemu") and not of_mount and pid not in seen:
            seen.add(pid)
            yield f"{process.get('comm') or 'a process'} ({pid}) has {path} open"
