"""A resource in use as it was inspected, in words and for a program; with names, or without."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from harness.judgement.claims import Assessment
from harness.judgement.inspected import Kept, answer, claims_for, exit_code, sides_that_win
from harness.model import CacheMode, Extent, blocks_of
from harness.model.inspection import (
    BlockReadings,
    GuestDisk,
    InspectedVolume,
    Inspection,
    ReplicationSeen,
    VolumeSide,
    VolumeVerify,
    Watch,
)
from harness.report.witness import reasons_not_watched
from harness.util.wording import count, joined, part_of, plural

JSON_SCHEMA = 1
_RATES = ("c-plan-ahead", "c-max-rate", "c-min-rate", "resync-rate", "csums-alg")
_MOST_EXTENTS, _MOST_FILES = 12, 20
_BLOCKS_OF_MIB = 256
_LEFT_OUT = "(left out)"


def inspection_text(
    seen: Inspection, kept: Mapping[CacheMode, Kept] | None = None, assessed: Sequence[Assessment] = ()
) -> Iterator[str]:
    """Line by line.  ``kept``: None where the kept runs are not there; ``assessed`` are the claims by these runs."""
    yield f"{seen.resource}, DRBD {seen.generation}"
    for machine in seen.machines:
        software = [
            f"{what} {version or 'not there'}"
            for what, version in (
                ("kernel", machine.kernel), ("DRBD", machine.drbd), ("drbd-utils", machine.drbd_utils),
                ("QEMU", machine.qemu), ("libvirt", machine.libvirt),
            )
        ]  # fmt: skip
        yield f"  {machine.name}: {machine.distribution or 'an unknown distribution'}, {', '.join(software)}"
    yield from (f"  {line}" for line in _replication(seen.replication))
    yield from (f"  not told: {one}" for one in seen.unknown)
    for volume in seen.volumes:
        yield ""
        yield from _volume(seen, volume)
    yield ""
    yield from _known(seen, kept, assessed)


def before_verify(seen: Inspection, volume: InspectedVolume) -> Iterator[str]:
    """What a verify of ``volume`` does and leaves, before anybody agrees to it."""
    side = volume.sides[0]
    mebibytes = -(-side.blocks // _BLOCKS_OF_MIB)
    yield (
        f"A verify reads all {count(mebibytes)} MiB of volume {volume.number} of {seen.resource} on both machines, at"
        f" the pace that DRBD's resync settings allow ({_rates(seen.replication[0]) or 'its defaults'})."
    )
    yield (
        "Blocks that differ are marked out of sync, and DRBD keeps the marks, also where a later write makes them"
        " equal. It changes no data. A line goes into both kernel logs before and after it; where something differs"
        " DRBD runs your out-of-sync handler, if you have one."
    )
    primaries = [one.machine for one in volume.sides if one.state.local_role == "Primary"]
    yield from (f"{line[0].upper()}{line[1:]}." for line in sides_that_win(seen, primaries))
    yield "If this command is interrupted the verify goes on; a disconnect ends it."


# --------------------------------------------------------------------------- what was seen


def _replication(seen: Sequence[ReplicationSeen]) -> Iterator[str]:
    one, other = (_options(side) for side in seen)
    if one == other:
        yield f"replication: {one}"
    else:
        yield from (f"replication as {side.machine} has it: {_options(side)}" for side in seen)
    for side in seen:
        gather = {True: "on", False: "off", None: "not told"}[side.scatter_gather]
        copies = {True: "on", False: "off", None: "not there"}[side.disable_sendpage]
        rates = _rates(side)
        yield (
            f"{side.machine}: {side.nic or 'an unknown interface'} with scatter-gather {gather}, disable_sendpage"
            f" {copies}; resync: {rates or 'not told'}"
        )


def _options(side: ReplicationSeen) -> str:
    return ", ".join((
        f"protocol {side.option('protocol') or '?'}",
        f"data-integrity-alg {side.option('data-integrity-alg') or 'none'}",
        f"verify-alg {side.option('verify-alg') or 'none'}",
        "two Primaries allowed" if side.two_primaries else "one Primary",
    ))  # fmt: skip


def _rates(side: ReplicationSeen) -> str:
    return ", ".join(f"{name} {side.option(name)}" for name in _RATES if side.option(name))


def _volume(seen: Inspection, volume: InspectedVolume) -> Iterator[str]:
    mebibytes = -(-max(side.blocks for side in volume.sides) // _BLOCKS_OF_MIB)
    yield f"volume {volume.number}, {count(mebibytes)} MiB, out of sync by DRBD's counter: {volume.out_of_sync_kib} KiB"
    for side in volume.sides:
        yield f"  {_side(side)}"
        for disk in side.disks:
            yield from (f"    {line}" for line in _disk(disk))
        yield from (f"    {use}" for use in side.uses)
        if side.epochs > 1:
            yield f"    ep:{side.epochs}, and 1 where nothing is in flight; if it stays: docs/drbd-write-conflict.md"
        if not side.in_use:
            yield "    nobody uses it"
    yield from (f"  {line}" for watch in volume.watches for line in _watch(volume, watch))
    yield from (f"  not watched: {why}" for why in volume.unwatched)
    if volume.verify is not None:
        yield from (f"  {line}" for line in _verify(volume.verify))
    if volume.out_of_sync_kib or (volume.verify and volume.verify.marked):
        primaries = [side.machine for side in volume.sides if side.state.local_role == "Primary"]
        yield "  before anything is resynced, read docs/oos-found.md:"
        yield from (f"    {line}" for line in sides_that_win(seen, primaries))
    elif any(side.state.connection != "Connected" for side in volume.sides):
        yield "  not told: the two are not connected, and what is out of sync is counted when they are again"
    elif volume.verify is None:
        yield "  the counter knows what a verify or a lost connection marked, and nothing else: --verify compares"


def _side(side: VolumeSide) -> str:
    stable = {True: "on", False: "off", None: "not told by this kernel"}[side.stable_writes]
    progress = f", {side.progress:.0f} % done" if side.progress is not None else ""
    return (
        f"{side.machine}: {side.state.local_role}, {side.state.local_disk}, {side.state.connection},"
        f" {side.state.replication}{progress}; {side.device} on {side.lower or 'no disk'}; stable_writes {stable}"
    )


def _disk(disk: GuestDisk) -> Iterator[str]:
    whose = "libvirt" if disk.libvirt else "without libvirt"
    version = f", QEMU {disk.version}" if disk.version else ""
    what = "the file" if disk.image_file else "the device"
    opened = {True: "with O_DIRECT", False: "without O_DIRECT", None: "with flags that nobody told"}[disk.direct]
    yield f"guest {disk.domain} ({whose}, process {disk.pid}{version}) has {what} {disk.path} open {opened}"
    settings = [
        f"{name} {value}"
        for name, value in (
            ("aio", disk.aio), ("bus", disk.bus), ("format", disk.format), ("discard", disk.discard),
            ("detect-zeroes", disk.detect_zeroes),
        )
        if value
    ]  # fmt: skip
    yield f"  cache={disk.cache or 'not told'}{''.join(f', {one}' for one in settings)}; by {disk.told_by}"
    if disk.contradiction:
        yield f"  the two disagree: {disk.contradiction}"
    if disk.program_replaced:
        yield "  its program was replaced on the disk since it began: it is not the QEMU that is installed"


def _watch(volume: InspectedVolume, watch: Watch) -> Iterator[str]:
    """What changed in flight, by whose disk it is."""
    found = watch.witness
    side = next(one for one in volume.sides if one.machine == watch.machine)
    guests = joined(dict.fromkeys(disk.domain for disk in side.disks))
    whose = [*([f"the guest{'s' if len(side.disks) > 1 else ''} {guests}"] if guests else []), *side.uses]
    yield (
        f"watched on {watch.machine} for {watch.seconds} s: of {plural(found.writes, 'write')}"
        f" {count(found.changed_writes)} changed between DRBD's taking and completing them,"
        f" in {plural(found.changed_blocks, 'block')}{_at(found.changed)}"
    )
    yield f"  they are from {joined(whose) or 'nobody who was seen'}; where it began and ended: {joined(found.hooks)}"
    if reasons := reasons_not_watched(found):
        yield f"  {plural(found.total_not_watched, 'write')} not watched: {reasons}"
    if found.changed_writes:
        yield "  exposed now: each of them may have left two contents, until the block is written again"
    elif found.writes:
        yield "  nothing changed in flight in this time, which says nothing of another"
    else:
        yield "  nothing was written in this time"


# --------------------------------------------------------------------------- a verify


def _verify(verify: VolumeVerify) -> Iterator[str]:
    ended = f"ended after {verify.seconds:.0f} s" if verify.complete else "did not run from its start to its end"
    placed, unnamed = len(blocks_of(verify.marked)), verify.unnamed_blocks
    yield f"verify: {ended}; it marked {plural(placed + unnamed, 'block')} of 4 KiB{_at(verify.marked)}"
    if unnamed:
        yield f"  DRBD's log names {count(placed)} of them, and leaves {count(unnamed)} out: docs/drbd-verify-log.md"
    if verify.skipped_blocks:
        yield f"  {plural(verify.skipped_blocks, 'block')} were too busy to be compared, and were not"
    if verify.before_kib:
        yield f"  {verify.before_kib} KiB were marked before it"
    if verify.readings is not None:
        yield from (f"  {line}" for line in _readings(verify.readings))
    if verify.ownership is not None:
        owners = verify.ownership
        counts = [
            f"{plural(number, 'block')} {name}"
            for name, number in (
                ("of data", owners.allocated), ("free", owners.free), ("of metadata", owners.metadata),
                ("of the journal", owners.journal), ("of an unknown owner", owners.unknown),
            )
            if number
        ]  # fmt: skip
        how = f", by {owners.method}" if owners.method else ""
        yield f"  whose they are, by {verify.owners_of}{how}: {joined(counts)}"
        for file in owners.files[:_MOST_FILES]:
            at = f" at byte {joined(map(str, file.offsets[:4]))}" if file.offsets else ""
            yield f"    {file.path}: {plural(file.blocks, 'block')}{at} ({file.owner})"
        named = [name for name in owners.names if name not in {file.path for file in owners.files}]
        yield from (f"    {name}" for name in named[:_MOST_FILES])
    elif verify.no_owners:
        yield f"  whose they are was not asked: {verify.no_owners}"
    yield f"  answer: {answer(verify)}"


def _readings(readings: BlockReadings) -> Iterator[str]:
    wrote = ""
    if readings.written_kib is not None:
        most = max(readings.written_kib)
        wrote = f"; DRBD wrote {count(most)} KiB to the volume meanwhile" if most else "; DRBD wrote nothing meanwhile"
    yield f"read again on both disks {plural(readings.readings, 'time')} within {readings.seconds:.0f} s{wrote}:"
    classes = (
        (readings.lasting, "different, either side the same in each reading"),
        (readings.equal, "equal by now"),
        (readings.changing, f"being written ({len(blocks_of(readings.changing_equal))} of them equal at last)"),
        (readings.not_read, "not read again, for there are too many"),
    )
    for extents, words in classes:
        if extents:
            yield f"  {plural(len(blocks_of(extents)), 'block')} {words}{_at(extents)}"


def _at(extents: Sequence[Extent]) -> str:
    """Where, as numbers of blocks, as far as a line holds."""
    if not extents:
        return ""
    runs = [one.blocks() for one in sorted(extents)]
    shown = [str(run.start) if len(run) == 1 else f"{run.start}-{run.stop - 1}" for run in runs[:_MOST_EXTENTS]]
    more = f" and {count(len(runs) - _MOST_EXTENTS)} runs more" if len(runs) > _MOST_EXTENTS else ""
    return f": {', '.join(shown)}{more}"


# --------------------------------------------------------------------------- what is known of it


def _known(
    seen: Inspection, kept: Mapping[CacheMode, Kept] | None, assessed: Sequence[Assessment]
) -> Iterator[str]:  # fmt: skip
    disks = [disk for volume in seen.volumes for disk in volume.disks]
    modes = {disk.cache: [one.domain for one in disks if one.cache == disk.cache] for disk in disks}
    for mode, domains in modes.items():
        names = joined(dict.fromkeys(domains))
        yield f"cache={mode or 'not told'} ({names}): {_of_mode(mode, kept)}"
    for side in (one for volume in seen.volumes for one in volume.sides):
        if any(" mounted at " in use for use in side.uses) and side.stable_writes is False:
            yield f"{side.machine}: a filesystem is mounted on it without stable pages: it has the guests' problem"
    asked = claims_for(seen)
    by_id = {one.claim: one for one in assessed}
    if asked:
        yield "claims that are about this configuration (docs/claims.md):"
    for claim in asked:
        found = by_id.get(claim)
        yield f"  {claim}  {found.sentence}: {found.answer.value} by the kept runs" if found else f"  {claim}"


def _of_mode(mode: str, kept: Mapping[CacheMode, Kept] | None) -> str:
    direct = any(one in ("none", "directsync") for one in mode.split(" or "))
    reads = "DRBD reads the guest's own memory twice" if direct else "QEMU copies the data first"
    if kept is None:
        return f"{reads}; the kept runs are not in this installation"
    try:
        found = kept.get(CacheMode(mode))
    except ValueError:
        found = None
    if found is None:
        return f"{reads}; no kept run has this mode with this generation of DRBD"
    delayed = f", {found.undelayed} of them without delays" if found.harmed else ""
    return (
        f"{reads}; replicas differed in {part_of(found.harmed, found.plays)} kept plays{delayed}"
        f" ({joined(found.versions)}; emulated nodes)"
    )


# --------------------------------------------------------------------------- for a program


def inspection_json(seen: Inspection, *, with_data: bool) -> str:
    """All of it; without names of machines, guests, files, paths and the resource's unless ``with_data``.

    Content of blocks is in neither.
    """
    shown = seen if with_data else without_names(seen)
    return json.dumps(
        {"schema": JSON_SCHEMA, "with_data": with_data, "exit_code": exit_code(seen), "inspection": _plain(shown)},
        indent=1,
    )


def _plain(seen: Inspection) -> Any:
    made = asdict(seen)
    for volume, found in zip(made["volumes"], seen.volumes, strict=True):
        if found.verify is not None:
            volume["verify"]["answer"] = answer(found.verify)
    return made


def without_names(seen: Inspection) -> Inspection:
    """The same without names of machines, guests, files and devices, and without texts in which there may be any."""
    names = {machine.name: f"machine {number}" for number, machine in enumerate(seen.machines, 1)}
    guests: dict[str, str] = {}
    for volume in seen.volumes:
        for disk in volume.disks:
            guests.setdefault(disk.domain, f"guest {len(guests) + 1}")

    def side(one: VolumeSide) -> VolumeSide:
        disks = tuple(
            replace(
                disk, machine=names[disk.machine], domain=guests[disk.domain], path="", pid=0,
                contradiction="yes" if disk.contradiction else "",
            )
            for disk in one.disks
        )  # fmt: skip
        uses = tuple(use.partition(" ")[0] if " mounted at " in use else "another use" for use in one.uses)
        device = f"minor {one.minor}"
        return replace(one, machine=names[one.machine], device=device, lower="", disks=disks, uses=uses)

    def verify(one: VolumeVerify | None) -> VolumeVerify | None:
        if one is None:
            return None
        owned = replace(one.ownership, names=(), files=()) if one.ownership is not None else None
        unread, why, where = (text and _LEFT_OUT for text in (one.unread, one.no_owners, one.owners_of))
        return replace(one, ownership=owned, unread=unread, no_owners=why, owners_of=where)

    (a, b), (of_a, of_b) = seen.machines, seen.replication
    volumes = (
        replace(
            one,
            sides=(side(one.sides[0]), side(one.sides[1])),
            verify=verify(one.verify),
            watches=tuple(
                replace(
                    watch, machine=names[watch.machine], witness=replace(watch.witness, nodes=(names[watch.machine],))
                )
                for watch in one.watches
            ),
            unwatched=tuple(_LEFT_OUT for _ in one.unwatched),
        )
        for one in seen.volumes
    )
    return replace(
        seen,
        resource="(the resource)",
        machines=(replace(a, name=names[a.name]), replace(b, name=names[b.name])),
        replication=(_without_peer(of_a, names), _without_peer(of_b, names)),
        volumes=tuple(volumes),
        unknown=tuple("a program is missing" for _ in seen.unknown),
    )


def _without_peer(side: ReplicationSeen, names: Mapping[str, str]) -> ReplicationSeen:
    """DRBD's own notes (``_name``) name the peer."""
    options = {name: value for name, value in side.options.items() if not name.startswith("_")}
    return replace(side, machine=names[side.machine], options=options, nic="")
