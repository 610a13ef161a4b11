"""Whether what was asked was in force: the preconditions of a cell, and what was read back of its settings; pure."""

from __future__ import annotations

from collections.abc import Iterator

from harness.model import (
    DISK_UNDER_TEST,
    Cell,
    ClientKind,
    DelayProfile,
    DelayReading,
    DetectZeroes,
    Discard,
    Evidence,
    Layout,
    Observed,
    ReplicationProfile,
    SwapOn,
)


def not_in_force(evidence: Evidence) -> str | None:
    """What was not in force as asked, or not read, or not as it must be before a cell; None where all of it was."""
    return next(_not_as_requested(evidence), None) or _precondition(evidence)


def _not_as_requested(evidence: Evidence) -> Iterator[str]:
    """What was in force is not what was requested, or could not be read back."""
    cell, seen = evidence.cell, evidence.observed
    yield from _replication(cell, seen)
    yield from _delays(cell, seen)
    yield from _disk(cell, seen)
    yield from in_use_not_as_asked(evidence)
    for after in evidence.observed_after_moves:
        where = f"on {after.node}, after migration {after.migration}, "
        if after.observed is None:
            yield f"{where}what is in force of the disk could not be read back: {after.message}"
        else:
            yield from (f"{where}{difference}" for difference in _disk(cell, after.observed))


def _precondition(evidence: Evidence) -> str | None:
    before = evidence.before
    if before is None or not before.healthy:
        state = before or "its state was not read"
        return f"the resource was not Connected and UpToDate/UpToDate before the cell: {state}"
    if not evidence.equal_before:
        return "the replicas were not equal before the cell"
    return None


# --------------------------------------------------------------------------- how DRBD replicates


def _replication(cell: Cell, seen: Observed) -> Iterator[str]:
    if not seen.nodes and seen.replication is not None:
        yield from _profile(cell.replication, seen.replication, "", "")
    for name, node in seen.nodes.items():
        yield from _profile(cell.replication, node.replication, name, node.nic)


def _profile(asked: ReplicationProfile, found: ReplicationProfile, node: str, nic: str) -> Iterator[str]:
    """All that differs, in a user's terms."""
    nic = f"{node}'s replication NIC ({nic})" if node else "the replication NIC"
    drbd = f"DRBD on {node}" if node else "DRBD"
    if found.scatter_gather != asked.scatter_gather:
        yield (
            f"scatter-gather is {_on(found.scatter_gather)} on {nic}, although the cell asked for it "
            f"{_on(asked.scatter_gather)}"
        )
    if found.protocol != asked.protocol:
        yield f"{drbd} replicates with protocol {found.protocol}, although the cell asked for protocol {asked.protocol}"
    if found.integrity != asked.integrity:
        yield (
            f"{drbd} has {_digest(found.integrity)} (data-integrity-alg), although the cell asked for "
            f"{_digest(asked.integrity)}"
        )
    if found.disable_sendpage != asked.disable_sendpage:
        yield (
            f"disable_sendpage of {drbd} is {_on(found.disable_sendpage)}, although the cell asked for it "
            f"{_on(asked.disable_sendpage)}"
        )
    if found.two_primaries != asked.permits_two_primaries:
        does = "allows" if found.two_primaries else "does not allow"
        yield (
            f"{drbd} {does} two Primaries, although the cell asked for "
            f"{'two' if asked.permits_two_primaries else 'one'}"
        )
    for what, is_found, is_asked in _of_drbd_9(asked, found):
        if is_found != is_asked:
            yield f"{drbd} has {what} {is_found}, although the cell asked for {is_asked}"


def _of_drbd_9(asked: ReplicationProfile, found: ReplicationProfile) -> Iterator[tuple[str, str, str]]:
    yield "the transport", found.transport, asked.transport
    yield "TLS", _on(found.tls), _on(asked.tls)
    yield "the quorum", found.quorum, asked.quorum
    yield "auto-promote", _on(found.auto_promote), _on(asked.auto_promote)
    yield "a bitmap with blocks of", found.bitmap_block_size, asked.bitmap_block_size


def _on(value: bool) -> str:
    return "on" if value else "off"


def _digest(algorithm: str) -> str:
    return f"the digest {algorithm}" if algorithm else "no digest"


# --------------------------------------------------------------------------- delays


def _delays(cell: Cell, seen: Observed) -> Iterator[str]:
    asked = cell.delays
    readings = [one for one in seen.delays if not one.over]
    for reading in readings:
        yield from delays_not_as(asked, reading)
    in_force = (seen.link_delay_ms, seen.disk_delay_ms, seen.flush_delay_ms)
    if not readings and in_force != (asked.link_delay_ms, asked.disk_delay_ms, asked.flush_delay_ms):
        read, wanted = (f"{one.link_delay_ms}/{one.disk_delay_ms} ms" for one in (seen, asked))
        flush = f", of a flush {seen.flush_delay_ms} and {asked.flush_delay_ms} ms" if asked.flush_delay_ms else ""
        yield f"the delays of link and disk were {read}, {wanted} were requested{flush}"


def delays_not_as(asked: DelayProfile, reading: DelayReading) -> Iterator[str]:
    """What of ``reading`` is not ``asked`` on the node that was to be delayed, and not nothing on the other."""
    for name, found in reading.nodes.items():
        if found is None:
            yield f"the delays of {name} could not be read back {reading.when}"
            continue
        wanted = asked if name == reading.delayed else DelayProfile()
        kinds = (
            ("link", wanted.link_delay_ms, found.link_delay_ms),
            ("disk", wanted.disk_delay_ms, found.disk_delay_ms),
            ("flush", wanted.flush_delay_ms, found.flush_delay_ms),
        )
        for what, right, on in kinds:
            if on != right and not right:
                yield f"a delay of {on} ms was left on {name}'s {what} (read {reading.when})"
            elif on != right:
                yield f"the delay of {name}'s {what} was {on} ms, {right} ms were requested (read {reading.when})"


# --------------------------------------------------------------------------- the guest's disk


def _disk(cell: Cell, seen: Observed) -> Iterator[str]:
    """Of the disk in the guest; nothing where the node itself is the client."""
    if cell.client is ClientKind.HOST or cell.cache is None:
        return
    wanted = {"direct": cell.cache.direct, "no-flush": cell.cache.no_flush}
    # What the guest is told is the opposite of write-through.
    wanted["writeback"] = cell.cache.guest_write_cache == "write back"
    facts: list[tuple[str, bool | str | None, bool | str]] = [
        ("O_DIRECT of QEMU's descriptor", seen.o_direct, cell.cache.direct),
        ("the guest's write_cache", seen.guest_write_cache, cell.cache.guest_write_cache),
        ("the aio mode", seen.qemu_aio, cell.aio.value),
    ]
    facts += [(f"QEMU's cache.{name}", (seen.qemu_cache or {}).get(name), value) for name, value in wanted.items()]
    for name, found, value in facts:
        if found is None:
            yield f"{name} could not be read back"
        elif found != value:
            yield (
                f"{name} is {_text(found)}, although the cell asked for cache={cell.cache}, aio={cell.aio}, "
                f"which makes it {_text(value)}"
            )

    yield from _options(cell, seen)


def _options(cell: Cell, seen: Observed) -> Iterator[str]:
    """What the evidence of an earlier version was not read for is doubted only where it was asked for."""
    disk, guest, plain = cell.disk_options, cell.guest_options, Cell(cell.workload)
    encrypted = None if seen.qemu_format is None else seen.qemu_format == "luks"
    facts: list[tuple[str, bool | str | None, bool | str, bool | str]] = [
        ("the disk's bus", seen.qemu_bus, cell.bus.value, plain.bus.value),
        ("the disk's iothread", seen.qemu_iothread, disk.iothread, False),
        ("QEMU's detect-zeroes", seen.qemu_detect_zeroes, disk.detect_zeroes.value, DetectZeroes.OFF.value),
        ("QEMU's discard", seen.qemu_discard, disk.discard.value, Discard.IGNORE.value),
        ("QEMU's LUKS layer", encrypted, cell.layout is Layout.CRYPT_QEMU, False),
    ]
    if guest.guest_stable_writes:
        for when, flag in (("before its use", seen.guest_stable_writes), ("in use", seen.stable_writes_in_use)):
            facts.append((f"the guest's stable_writes ({when})", flag, True, False))
    for name, found, asked, default in facts:
        if found is None and asked != default:
            yield f"{name} could not be read back"
        elif found is not None and found != asked:
            yield f"{name} is {_text(found)}, although the cell asked for {_text(asked)}"


def in_use_not_as_asked(evidence: Evidence) -> Iterator[str]:
    """What the guest has in use that was not asked; nothing where it never got that far."""
    cell, seen = evidence.cell, evidence.observed
    options = cell.guest_options
    if options.swap_on is not SwapOn.DRBD:
        if seen.guest_swaps is None:
            yield "what the guest swaps to could not be read back"
        elif (
            len(seen.guest_swaps) != 1
            or seen.guest_swaps[0] == DISK_UNDER_TEST
            or ("zram" in seen.guest_swaps[0]) != (options.swap_on is SwapOn.ZRAM)
        ):
            swaps = ", ".join(seen.guest_swaps) or "nothing"
            yield f"the guest swaps to {swaps}, although the cell asked for {options.swap_on}"
    if options.online_discard and cell.filesystem.mounted:
        if not seen.guest_mount_options:
            yield "the options that the guest mounted with could not be read back"
        elif "discard" not in seen.guest_mount_options:
            found = ",".join(seen.guest_mount_options)
            yield f"the guest mounted with {found}, although the cell asked for discard"


def _text(value: bool | str) -> str:
    return value if isinstance(value, str) else _on(value)
