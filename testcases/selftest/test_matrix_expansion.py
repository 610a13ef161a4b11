"""Matrix files: the cells that they expand to, from lists and defaults."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_matrix import CELL, ids, toml, written

from harness.config.matrix import load
from harness.config.matrix_entry import INTEGRITY
from harness.model import (
    AioMode,
    CacheMode,
    Cell,
    Crash,
    DelayProfile,
    Expectation,
    Fault,
    FilesystemKind,
    Protocol,
    ReplicationProfile,
    VerdictKind,
    aliases,
)
from harness.workloads import WORKLOADS

__all__ = ["written"]


def test_expand_lists_first_key_varies_slowest(written: Any) -> None:
    cells = written(
        'schema = 1\n[[cells]]\nworkload = ["swap", "idle"]\ncache = ["unsafe", "none"]\n'
        "link_delay_ms = [5, 0]\ndisk_delay_ms = 3\n"
    )
    assert ids(cells)[:3] == [
        "unsafe-swap-pressure-link5ms-disk3ms",
        "unsafe-swap-pressure-disk3ms",
        "none-swap-pressure-link5ms-disk3ms",
    ]
    assert ids(cells)[4] == "unsafe-no-writes-link5ms-disk3ms"


def test_expand_every_key_reaches_the_cell(written: Any) -> None:
    (cell,) = written(
        'schema = 1\n[defaults]\nseconds = 7\ndeadline = 99\naio = "native"\n'
        '[[cells]]\ncache = "none"\nworkload = "swap"\nbus = "scsi"\nlink_delay_ms = 2\ndisk_delay_ms = 3\n'
        'seconds = 9\nverdicts = ["TRANSIENT"]\nreason = "why"\n'
    )
    assert cell == Cell(
        "pressure",
        filesystem=FilesystemKind.SWAP,
        cache=CacheMode.NONE,
        aio=AioMode.NATIVE,
        bus=cell.bus,
        delays=DelayProfile(2, 3),
        seconds=9,
        deadline=99,
        expected=Expectation((VerdictKind.TRANSIENT,), "why"),
    )
    assert cell.bus == "scsi"


def test_expand_replication_and_disturbance_keys_reach_the_cell(written: Any) -> None:
    (cell,) = written(
        'schema = 1\n[[cells]]\ncache = "none"\nworkload = "swap"\nprotocol = "A"\nintegrity = "sha1"\n'
        "disable_sendpage = true\nscatter_gather = false\nunsafe_migration = true\n"
        'migrations = 3\nmigration_deadline = 7\nfault = "stall"\n'
    )
    assert cell == Cell(
        "pressure",
        filesystem=FilesystemKind.SWAP,
        cache=CacheMode.NONE,
        replication=ReplicationProfile(Protocol.A, "sha1", disable_sendpage=True, scatter_gather=False),
        migrations=3,
        unsafe_migration=True,
        migration_deadline=7,
        fault=Fault.STALL,
    )
    (cell,) = written('schema = 1\n[[cells]]\ncache = "none"\nworkload = "swap"\ntwo_primaries = true\n')
    assert cell == Cell(
        "pressure",
        filesystem=FilesystemKind.SWAP,
        cache=CacheMode.NONE,
        replication=ReplicationProfile(two_primaries=True),
    )


def test_expand_host_cell_may_have_a_replication_profile(written: Any) -> None:
    (cell,) = written(
        'schema = 1\n[[cells]]\nclient = "host"\nworkload = "mutator"\nprotocol = "B"\nintegrity = "md5"\n'
        "disable_sendpage = true\n"
    )
    assert cell.id == "host-inflight-modify-protoB-digest.md5-nosendpage"


def test_expand_defaults_written_out_are_the_default_and_none_is_no_digest(written: Any) -> None:
    (cell,) = written(
        'schema = 1\n[[cells]]\ncache = "none"\nworkload = "swap"\nprotocol = "C"\nintegrity = "none"\n'
        "disable_sendpage = false\nscatter_gather = true\ntwo_primaries = false\nunsafe_migration = false\n"
        "migrations = 0\nmigration_deadline = 60\n"
    )
    assert cell == Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE) and cell.replication.plain


def test_expand_lists_of_replication_and_disturbances_are_multiplied_out(written: Any) -> None:
    arms = written(
        'schema = 1\n[[cells]]\ncache = "none"\nworkload = "mutator"\nintegrity = ["none", "crc32c"]\n'
        "two_primaries = [false, true]\n"
    )
    assert ids(arms) == [
        "none-inflight-modify",
        "none-inflight-modify-twoprimaries",
        "none-inflight-modify-digest.crc32c",
        "none-inflight-modify-digest.crc32c-twoprimaries",
    ]
    moved = written(
        'schema = 1\n[[cells]]\ncache = "none"\nworkload = "swap"\nlink_delay_ms = 20\nmigrations = [0, 2]\n'
        '[[cells]]\ncache = "none"\nworkload = "ext4-buffered"\ncrash = ["node", "qemu", "reset"]\n'
    )
    assert ids(moved) == [
        "none-swap-pressure-link20ms",
        "none-swap-pressure-link20ms-migrate2",
        "none-ext4-buffered-crash.node",
        "none-ext4-buffered-crash.qemu",
        "none-ext4-buffered-crash.reset",
    ]


@pytest.mark.parametrize("fault", Fault)
def test_expand_every_fault_can_be_asked(written: Any, fault: Fault) -> None:
    moved = "migrations = 1\n" if fault.needs_migration else ""
    (cell,) = written(f'schema = 1\n[[cells]]\ncache = "none"\nworkload = "idle"\nfault = "{fault}"\n{moved}')
    assert cell.fault is fault and cell.id.endswith(f"-fault.{fault}") and cell.has_canary


def test_defaults_of_a_guest_do_not_reach_a_host_cell(written: Any) -> None:
    cells = written("""
        schema = 1
        defaults = { cache = ["none", "writeback"], aio = "native", link_delay_ms = 20 }
        [[cells]]
        workload = "swap"
        [[cells]]
        client = "host"
        workload = "mutator"
        """)
    assert ids(cells) == [
        "none-swap-pressure-native-link20ms",
        "writeback-swap-pressure-native-link20ms",
        "host-inflight-modify-link20ms",
    ]


def test_defaults_of_disturbances_do_not_reach_a_host_cell_replication_does(written: Any) -> None:
    cells = written("""
        schema = 1
        defaults = { cache = "none", migrations = 2, unsafe_migration = true, migration_deadline = 9, protocol = "A" }
        [[cells]]
        workload = "swap"
        [[cells]]
        client = "host"
        workload = "mutator"
        """)
    assert ids(cells) == ["none-swap-pressure-protoA-migrate2-unsafemigration", "host-inflight-modify-protoA"]
    crashing = written("""
        schema = 1
        defaults = { cache = "none", crash = "qemu" }
        [[cells]]
        workload = "swap"
        [[cells]]
        client = "host"
        workload = "mutator"
        """)
    assert [cell.crash for cell in crashing] == [Crash.QEMU, None]
    faulty = written("""
        schema = 1
        defaults = { cache = "none", fault = "io-error" }
        [[cells]]
        workload = "swap"
        [[cells]]
        client = "host"
        workload = "mutator"
        """)
    assert [cell.fault for cell in faulty] == [Fault.IO_ERROR, None]


def test_migration_deadline_without_migration_is_not_compared(written: Any) -> None:
    (cell,) = written(f"schema = 1\n{CELL}deadline = 60\nmigration_deadline = 90\n")
    assert (cell.deadline, cell.migration_deadline) == (60, 90)
    (cell,) = written(f"schema = 1\n{CELL}migrations = 1\ndeadline = 91\nmigration_deadline = 90\n")
    assert (cell.deadline, cell.migration_deadline) == (91, 90)


def test_defaults_lists_vary_fastest(written: Any) -> None:
    cells = written("""
        schema = 1
        defaults = { link_delay_ms = [0, 5] }
        [[cells]]
        cache = ["none", "unsafe"]
        workload = "swap"
        """)
    assert ids(cells) == [
        "none-swap-pressure",
        "none-swap-pressure-link5ms",
        "unsafe-swap-pressure",
        "unsafe-swap-pressure-link5ms",
    ]


ALL: dict[str, list[Any]] = {
    "cache": [mode.value for mode in CacheMode],
    "workload": sorted(aliases.WORKLOADS),
    "aio": [mode.value for mode in AioMode],
    "link_delay_ms": [0, 5, 20],
    "protocol": [protocol.value for protocol in Protocol],
    "integrity": list(INTEGRITY),
    "disable_sendpage": [False, True],
    "scatter_gather": [False, True],
    "two_primaries": [False, True],
    "migrations": [0, 1, 2],
    "unsafe_migration": [False, True],
}
MOVING = {"migrations", "unsafe_migration"}


def values_of(key: str, keys: Collection[str]) -> list[Any]:
    """Those that go with each value of ``keys``."""
    return [1, 2] if key == "migrations" and "unsafe_migration" in keys else ALL[key]


@given(
    # Not all at once: a matrix of all their values has tens of thousands of cells.
    st.sets(st.sampled_from(sorted({*ALL} - {"cache", "workload"})), max_size=3)
    .map(lambda keys: keys | {"migrations"} if "unsafe_migration" in keys else keys)
    .map(lambda keys: keys - {"two_primaries"} if keys & MOVING else keys)
    .flatmap(lambda others: st.permutations(sorted({"cache", "workload", *others})))
    .flatmap(
        lambda keys: st.tuples(
            *(
                st.tuples(st.just(k), st.lists(st.sampled_from(values_of(k, keys)), min_size=1, unique=True))
                for k in keys
            )
        )
    )
)
def test_expand_any_axes_ids_are_unique_and_in_the_order_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, axes: tuple[tuple[str, list[Any]], ...]
) -> None:
    path = tmp_path_factory.getbasetemp() / "generated.toml"
    path.write_text(
        "schema = 1\n[[cells]]\n" + "".join(f"{key} = [{', '.join(map(toml, values))}]\n" for key, values in axes)
    )
    cells = load(str(path), WORKLOADS, path.parent).cells
    size = 1
    for _, values in axes:
        size *= len(values)
    assert len(set(ids(cells))) == len(cells) == size
    assert load(str(path), WORKLOADS, path.parent).cells == cells
    ranks = [[values.index(value_of(cell, key)) for key, values in axes] for cell in cells]
    assert ranks == sorted(ranks)


def value_of(cell: Cell, key: str) -> Any:
    if key == "integrity":
        return cell.replication.integrity or "none"
    if key == "workload":
        # What was written is its former name.
        return next(old for old, new in aliases.WORKLOADS.items() if new == (cell.filesystem, cell.workload))
    holder = next(each for each in (cell, cell.replication, cell.delays) if hasattr(each, key))
    return getattr(holder, key)


def test_load_other_bytes_other_digest(tmp_path: Path) -> None:
    digests = set()
    for comment in ("# a", "# b"):
        path = tmp_path / "m.toml"
        path.write_text(f'schema = 1 {comment}\n[[cells]]\ncache = "none"\nworkload = "swap"\n')
        digests.add(load(str(path), WORKLOADS, tmp_path).digest)
    assert len(digests) == 2
