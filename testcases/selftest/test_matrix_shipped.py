"""The matrices that are shipped: what each is made of and expects."""

from __future__ import annotations

from collections import Counter

from written_matrix import SHIPPED, ids

from harness.config.matrix import load, names
from harness.config.repetitions import repeated
from harness.config.shards import Shard
from harness.model import CacheMode, Cell, ClientKind, Control, Crash, Fault, Protocol, ReplicationProfile, VerdictKind
from harness.workloads import WORKLOADS


def test_load_shipped_matrices_have_cells_and_a_description() -> None:
    disturbed = ["alarms", "cuts", "database", "drbd-9", "failover", "faults", "figures", "flush"]
    others = ["full", "meta", "migration", "mitigations", "natural", "owners", "proxmox-ve", "quick", "smoke"]
    assert list(names(SHIPPED)) == [*disturbed, *others]
    for name in names(SHIPPED):
        matrix = load(name, WORKLOADS, SHIPPED)
        assert (matrix.name, len(matrix.digest)) == (name, 64)
        assert matrix.description


def test_smoke_cells_and_expectations_as_designed() -> None:
    cells = load("smoke", WORKLOADS, SHIPPED).cells
    assert ids(cells) == [
        "host-inflight-modify",
        "none-swap-reclaim-link20ms",
        "writeback-swap-reclaim-link20ms",
        "none-ext4-buffered-migrate2",
    ]
    assert cells[0].control is Control.IN_FLIGHT
    assert [cell.expected.verdicts for cell in cells[1:] if cell.expected] == [
        (VerdictKind.DIVERGED,),
        (VerdictKind.CLEAN,),
        (VerdictKind.CLEAN, VerdictKind.TRANSIENT),
    ]
    assert [cell.has_canary for cell in cells] == [False, False, False, True]


def guests_of(name: str) -> list[Cell]:
    """The cells of a shipped matrix but for its control, each of which has an expectation."""
    control, *guests = load(name, WORKLOADS, SHIPPED).cells
    assert control.id == "host-inflight-modify" and control.control is Control.IN_FLIGHT and not control.has_canary
    assert [cell.id for cell in guests if cell.expected is None] == []
    assert all(cell.client is ClientKind.GUEST for cell in guests)
    return guests


def test_migration_matrix_every_cache_mode_moves_there_and_back() -> None:
    cells = guests_of("migration")
    assert all(cell.migrations == 2 and not cell.unsafe_migration and cell.fault is None for cell in cells)
    for workload in ("no-writes", "inflight-modify", "reclaim", "buffered"):
        assert {cell.cache for cell in cells if cell.workload == workload} == set(CacheMode)
    read_back = {cell.cache: cell.expected for cell in cells if cell.workload == "fio-verify"}
    assert {cache for cache, wanted in read_back.items() if wanted and VerdictKind.CORRUPT in wanted.verdicts} == {
        CacheMode.UNSAFE
    }
    assert CacheMode.NONE in read_back and CacheMode.WRITEBACK in read_back, "or nobody knows that it is the cache mode"
    weak = [cell for cell in cells if cell.replication.protocol is not Protocol.C]
    assert {cell.replication.protocol for cell in weak} == {Protocol.A, Protocol.B}
    assert all(cell.expected and cell.expected.verdicts == (VerdictKind.REFUSED,) for cell in weak)


def test_database_matrix_loss_is_a_finding_but_where_flushes_are_ignored() -> None:
    cells = [cell for cell in load("database", WORKLOADS, SHIPPED).cells if cell.control is None]
    assert {cell.workload for cell in cells} == {"sqlite-wal", "sqlite-journal"} and len(cells) == 16
    assert {cell.crash for cell in cells} == {None, Crash.QEMU, Crash.NODE} and any(cell.migrations for cell in cells)
    allowed = {cell.cache for cell in cells if cell.expected and VerdictKind.CORRUPT in cell.expected.verdicts}
    assert allowed == {CacheMode.UNSAFE, CacheMode.WRITETHROUGH}


def test_failover_matrix_has_every_crash_and_the_node_dies_in_every_cache_mode() -> None:
    cells = guests_of("failover")
    assert {cell.crash for cell in cells} == set(Crash)
    dying = [cell for cell in cells if cell.crash is Crash.NODE]
    assert {cell.cache for cell in dying if cell.replication.plain} == set(CacheMode)
    assert {cell.replication.protocol for cell in dying} == set(Protocol)
    assert all(cell.expected and VerdictKind.DIVERGED not in cell.expected.verdicts for cell in dying)
    unsafe = [cell.expected.verdicts for cell in cells if cell.expected and cell.cache is CacheMode.UNSAFE]
    assert unsafe == [(VerdictKind.CORRUPT,)]


def test_alarms_matrix_changes_one_key_of_the_replication_at_a_time() -> None:
    cells = guests_of("alarms")
    assert not any(cell.has_canary for cell in cells)
    delayed = [cell.replication for cell in cells if cell.workload == "inflight-modify" and not cell.delays.undelayed]
    assert delayed == [
        ReplicationProfile(),
        ReplicationProfile(Protocol.B),
        ReplicationProfile(Protocol.A),
        ReplicationProfile(integrity="crc32c"),
        ReplicationProfile(disable_sendpage=True),
        ReplicationProfile(scatter_gather=False),
    ]
    assert [cell.id for cell in cells if cell.replication.two_primaries] == [
        "none-inflight-modify-digest.crc32c-twoprimaries"
    ]


def test_faults_matrix_has_every_fault_once_and_expects_an_answer_of_each() -> None:
    cells = guests_of("faults")
    assert sorted(cell.fault for cell in cells if cell.fault) == sorted(Fault) and len(cells) == len(Fault)
    assert all(bool(cell.migrations) is bool(cell.fault and cell.fault.needs_migration) for cell in cells)
    hopeless = {VerdictKind.INCONCLUSIVE, VerdictKind.CORRUPT, VerdictKind.REFUSED}
    assert not any(hopeless & set(cell.expected.verdicts) for cell in cells if cell.expected)


def test_cuts_matrix_sixty_power_cuts_interleaved_and_dealt_out() -> None:
    cells = [cell for cell in repeated(load("cuts", WORKLOADS, SHIPPED).cells, None, 1) if cell.control is None]
    assert all(cell.crash is Crash.NODE and cell.replication.protocol is Protocol.C for cell in cells)
    assert Counter((str(cell.cache), str(cell.aio)) for cell in cells) == {
        ("writethrough", "threads"): 20,
        ("writethrough", "io_uring"): 20,
        ("none", "threads"): 10,
        ("writeback", "threads"): 10,
    }
    assert [cell.id for cell in cells[:4]] == list(dict.fromkeys(cell.id for cell in cells)), "interleaved"
    parts = [Counter(cell.id for cell in Shard(number, 4).of_cells(cells)) for number in range(1, 5)]
    assert all(part.total() == 15 for part in parts)
    # Only with threads may it lose something.
    lossy = {cell.id for cell in cells if cell.expected and VerdictKind.CORRUPT in cell.expected.verdicts}
    assert lossy == {"writethrough-ext4-buffered-link20ms-crash.node"}


def test_figures_matrix_each_cell_five_times_and_expected() -> None:
    cells = [cell for cell in load("figures", WORKLOADS, SHIPPED).cells if cell.control is None]
    assert set(Counter(cell.id for cell in cells).values()) == {5} and all(cell.expected for cell in cells)
    cut = {str(cell.replication.protocol): cell for cell in cells if cell.crash}
    assert set(cut) == {"A", "C"} and {cell.delays.link_delay_ms for cell in cut.values()} == {200}


def test_quick_cells_and_expectations_as_designed() -> None:
    cells = load("quick", WORKLOADS, SHIPPED).cells
    assert ids(cells) == [
        "host-inflight-modify",
        "none-swap-reclaim-link20ms",
        "directsync-swap-reclaim-link20ms",
        "writethrough-swap-reclaim-link20ms",
        "writeback-swap-reclaim-link20ms",
        "none-ext4-truncate-link20ms",
        "writeback-ext4-truncate-link20ms",
        "none-inflight-modify",
        "writeback-inflight-modify",
    ]
    assert {cell.seconds for cell in cells} == {8}
    expected = {cell.id: cell.expected.verdicts for cell in cells if cell.expected}
    assert expected["directsync-swap-reclaim-link20ms"] == (VerdictKind.DIVERGED,)
    assert expected["none-ext4-truncate-link20ms"] == (VerdictKind.DIVERGED,)
    assert expected["writeback-ext4-truncate-link20ms"] == (VerdictKind.CLEAN,)
    assert expected["none-inflight-modify"] == (VerdictKind.DIVERGED,)
    assert expected["writeback-inflight-modify"] == (VerdictKind.CLEAN,)


def test_natural_matrix_delays_and_expects_nothing() -> None:
    cells = load("natural", WORKLOADS, SHIPPED).cells
    assert len(cells) == 12
    assert all(cell.delays.undelayed and cell.expected is None and cell.seconds == 60 for cell in cells)
