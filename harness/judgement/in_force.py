"""Whether what was asked was in force: the preconditions of a cell, and what was read back of its settings; pure."""

from __future__ import annotations

from harness.model import ClientKind, Evidence


def not_in_force(evidence: Evidence) -> str | None:
    """What was not in force as asked, or not read, or not as it must be before a cell; None where all of it was."""
    return _not_as_requested(evidence) or _precondition(evidence)


def _not_as_requested(evidence: Evidence) -> str | None:
    """What was in force is not what was requested, or could not be read back."""
    cell, seen = evidence.cell, evidence.observed
    if seen.replication is not None and seen.replication != cell.replication:
        return f"requested was {cell.replication}, but in force was {seen.replication}"
    delays = (cell.delays.link_delay_ms, cell.delays.disk_delay_ms)
    if (seen.link_delay_ms, seen.disk_delay_ms) != delays:
        in_force = f"{seen.link_delay_ms}/{seen.disk_delay_ms} ms"
        return f"the delays of link and disk were {in_force}, {delays[0]}/{delays[1]} ms were requested"
    if cell.client is ClientKind.HOST or cell.cache is None:
        return None
    wanted = {"direct": cell.cache.direct, "no-flush": cell.cache.no_flush}
    # What the guest is told is the opposite of write-through.
    wanted["writeback"] = cell.cache.guest_write_cache == "write back"
    facts: list[tuple[str, object, object]] = [
        ("O_DIRECT of QEMU's descriptor", seen.o_direct, cell.cache.direct),
        ("the guest's write_cache", seen.guest_write_cache, cell.cache.guest_write_cache),
        ("the aio mode", seen.qemu_aio, cell.aio.value),
    ]
    facts += [(f"QEMU's cache.{name}", (seen.qemu_cache or {}).get(name), value) for name, value in wanted.items()]
    for name, found, value in facts:
        if found is None:
            return f"{name} could not be read back"
        if found != value:
            return f"requested was cache={cell.cache}, aio={cell.aio}, but {name}: {found}, not {value}"
    return None


def _precondition(evidence: Evidence) -> str | None:
    before = evidence.before
    if before is None or not before.healthy:
        state = before or "its state was not read"
        return f"the resource was not Connected and UpToDate/UpToDate before the cell: {state}"
    if not evidence.equal_before:
        return "the replicas were not equal before the cell"
    return None
