"""Matrix files: what they expand to, and how each mistake is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.controls import CONTROL_CELLS, with_controls
from harness.config.matrix import cells_from, expand, load, names
from harness.config.matrix_entry import INTEGRITY, Axes
from harness.config.repetitions import cell_seed, new_seed, repeated
from harness.config.shards import Shard
from harness.errors import UsageError
from harness.model import (
    AioMode,
    CacheMode,
    Cell,
    ClientKind,
    Control,
    Crash,
    DelayProfile,
    DiskOptions,
    Expectation,
    Fault,
    FilesystemKind,
    GuestOptions,
    Protocol,
    ReplicationProfile,
    VerdictKind,
    aliases,
)
from harness.workloads import WORKLOADS

SHIPPED = Path(__file__).parents[1] / "matrices"


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """Loads a text as a matrix file."""

    def loaded(text: str) -> tuple[Cell, ...]:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return load(str(path), WORKLOADS, tmp_path).cells

    return loaded


def ids(cells: tuple[Cell, ...]) -> list[str]:
    return [cell.id for cell in cells]


# --------------------------------------------------------------------------- what is shipped


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


# --------------------------------------------------------------------------- expansion


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


# Each is one of two values of a key that is given in both cells.
TWO_OF = {
    "protocol": ("A", "C"),
    "integrity": ("crc32c", "none"),
    "disable_sendpage": (True, False),
    "scatter_gather": (False, True),
    "two_primaries": (True, False),
    "unsafe_migration": (True, False),
    "migrations": (2, 1),
    "migration_deadline": (7, 60),
    "crash": ("node", "reset"),
    "fault": ("io-error", "standalone"),
}


# What a key cannot do without.
WITH = {"unsafe_migration": "migrations = 1\n"}


@pytest.mark.parametrize("key", TWO_OF)
def test_patterns_every_key_matches_its_own_value_only(written: Any, key: str) -> None:
    this, other = (toml(value) for value in TWO_OF[key])
    # Two workloads, for not every key is a part of the id.
    text = (
        f'schema = 1\n[[cells]]\ncache = "none"\nworkload = "swap"\n{key} = {this}\n{WITH.get(key, "")}'
        f'[[cells]]\ncache = "none"\nworkload = "idle"\n{key} = {other}\n{WITH.get(key, "")}'
    )
    (left,) = written(f"{text}[[exclude]]\n{key} = {this}\n")
    assert left.workload == "no-writes"
    assert len(written(f"{text}[[exclude]]\n{key} = {this}\nworkload = 'idle'\n")) == 2
    with pytest.raises(UsageError, match="empty"):
        written(f"{text}[[exclude]]\n{key} = [{this}, {other}]\n")
    cells = written(f"{text}[[expect]]\n{key} = {this}\nverdicts = ['CLEAN']\nreason = 'x'\n")
    assert [cell.expected is not None for cell in cells] == [True, False]


def test_patterns_key_not_given_in_the_cell_matches_its_default(written: Any) -> None:
    text = 'schema = 1\n[[cells]]\ncache = "none"\nworkload = "swap"\nmigrations = [0, 1]\n[[exclude]]\n'
    for default in ('protocol = "C"', 'integrity = "none"', "scatter_gather = true", "two_primaries = false"):
        with pytest.raises(UsageError, match="empty"):
            written(f"{text}{default}\n")
    assert ids(written(f"{text}migrations = 0\n")) == ["none-swap-pressure-migrate1"]
    assert len(written(f'{text}crash = ["node", "qemu", "reset"]\n')) == 2


def test_expect_first_match_wins_unless_the_cell_has_its_own(written: Any) -> None:
    cells = written("""
        schema = 1
        [[cells]]
        cache = ["none", "writeback"]
        workload = ["swap", "idle"]
        [[cells]]
        cache = "unsafe"
        workload = "swap"
        verdicts = ["REFUSED"]
        reason = "own"
        [[expect]]
        cache = "none"
        workload = "swap"
        verdicts = ["DIVERGED"]
        reason = "first"
        [[expect]]
        workload = "swap"
        verdicts = ["CLEAN"]
        reason = "second"
        """)
    assert [cell.expected.reason if cell.expected else None for cell in cells] == [
        "first",
        None,
        "second",
        None,
        "own",
    ]


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


def toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


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


# --------------------------------------------------------------------------- controls


CONTROLS = ["host-planted", "host-steady", "host-no-writes", "host-inflight-modify", "directsync-inflight-modify"]
IN_GUEST = Cell("pressure", filesystem=FilesystemKind.SWAP, cache=CacheMode.NONE)


def test_with_controls_shipped_matrices_begin_with_their_controls() -> None:
    for name in names(SHIPPED):
        cells = load(name, WORKLOADS, SHIPPED).cells
        ready = with_controls(cells)
        guests = any(cell.client is ClientKind.GUEST for cell in cells)
        controls = CONTROLS if guests else CONTROLS[:-1]
        first, rest = ready[: len(controls)], ready[len(controls) :]
        assert ids(first) == controls
        assert [cell.control for cell in first] == [cell.control for cell in CONTROL_CELLS[: len(controls)]]
        assert all(cell.expected and cell.expected.reason for cell in first)
        assert list(rest) == [cell for cell in cells if cell.id not in CONTROLS]
        assert len({cell.play for cell in ready}) == len(ready)
        assert with_controls(ready) == ready


def test_with_controls_only_host_cells_start_no_guest() -> None:
    host = Cell("fio-verify", client=ClientKind.HOST)
    assert ids(with_controls((host,))) == [*CONTROLS[:4], host.id]
    assert ids(with_controls((host, IN_GUEST)))[:5] == CONTROLS


def test_with_controls_cell_that_plays_a_control_stays_as_it_is() -> None:
    own = Cell(
        "inflight-modify",
        client=ClientKind.HOST,
        seconds=33,
        control=Control.IN_FLIGHT,
        expected=Expectation((VerdictKind.CLEAN,), "x"),
    )
    ready = with_controls((IN_GUEST, own))
    assert ids(ready) == [*CONTROLS, IN_GUEST.id] and ready[3] == own


def test_with_controls_in_flight_of_a_guest_is_the_control_through_a_guest() -> None:
    own = Cell("inflight-modify", cache=CacheMode.NONE, control=Control.IN_FLIGHT, seconds=7)
    ready = with_controls((IN_GUEST, own))
    assert ids(ready) == [*CONTROLS[:4], own.id, IN_GUEST.id]
    assert [(cell.control, cell.seconds) for cell in ready[3:5]] == [
        (Control.IN_FLIGHT, 5), (Control.IN_FLIGHT_GUEST, 7)
    ]  # fmt: skip


def test_with_controls_cell_of_cache_none_stays_a_cell() -> None:
    own = Cell("inflight-modify", cache=CacheMode.NONE, seconds=7)
    assert ids(with_controls((own,))) == [*CONTROLS, own.id] and with_controls((own,))[-1] is own


@pytest.mark.parametrize("place", range(5))
def test_with_controls_cell_that_asks_the_same_becomes_the_control(place: int) -> None:
    control = CONTROL_CELLS[place]
    ready = with_controls((IN_GUEST, replace(control, control=None, expected=None, seconds=33)))
    assert ids(ready) == [*CONTROLS, IN_GUEST.id]
    assert ready[place] == replace(control, seconds=33)


# --------------------------------------------------------------------------- repetitions


def test_repeat_matrix_and_defaults_say_how_often(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'schema = 1\n[defaults]\nrepeat = 2\n[[cells]]\ncache = ["none", "writeback"]\nfilesystem = "swap"\n'
        'workload = "pressure"\n[[cells]]\ncache = "none"\nfilesystem = "ext4"\nworkload = "mmap"\nrepeat = 3\n'
        '[[cells]]\nclient = "host"\nworkload = "planted"\ncontrol = "planted"\n'
    )
    cells = load(str(file), WORKLOADS, SHIPPED).cells
    played = [cell.play for cell in with_controls(repeated(cells, None, 7))][5:]
    first, second = ["none-swap-pressure", "writeback-swap-pressure", "none-ext4-mmap"], "none-ext4-mmap"
    assert played == [*((one, 1) for one in first), *((one, 2) for one in first), (second, 3)]
    assert [cell.repetition for cell in repeated(cells, 1, 7)] == [1] * 4, "what is asked for now counts"
    assert [cell.play for cell in repeated(cells, 2, 7) if cell.control] == [("host-planted", 1)]


@pytest.mark.parametrize("entry", ["repeat = 0", "repeat = [1, 2]", 'repeat = "often"', "repeat = 10001"])
def test_repeat_wrong_is_one_sentence(tmp_path: Path, entry: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f'schema = 1\n[[cells]]\ncache = "none"\nfilesystem = "swap"\nworkload = "pressure"\n{entry}\n')
    with pytest.raises(UsageError, match="'repeat'"):
        load(str(file), WORKLOADS, SHIPPED)


@pytest.mark.parametrize("table", ["exclude", "expect"])
def test_repeat_is_no_pattern(tmp_path: Path, table: str) -> None:
    file = tmp_path / "own.toml"
    expected = 'verdicts = ["CLEAN"]\nreason = "x"\n' if table == "expect" else ""
    file.write_text(f"schema = 1\n{CELL}[[{table}]]\nrepeat = 2\n{expected}")
    with pytest.raises(UsageError, match="'repeat'"):
        load(str(file), WORKLOADS, SHIPPED)


@given(st.integers(1, 2**63 - 1), st.integers(1, 50))
def test_cell_seed_is_the_same_for_the_same_and_fits_everywhere(run_seed: int, repetition: int) -> None:
    seed = cell_seed(run_seed, "none-swap", repetition)
    assert 1 <= seed < 2**31 and seed == cell_seed(run_seed, "none-swap", repetition)
    others = {cell_seed(run_seed, cell, number) for cell in ("none-swap", "none-mmap") for number in range(1, 51)}
    assert len(others) > 98, "each cell and each repetition has its own"


def test_repeated_seeds_differ_and_a_run_seed_brings_them_back() -> None:
    seeds = [cell.seed for cell in repeated((IN_GUEST,), 5, 7)]
    assert len(set(seeds)) == 5 and seeds == [cell.seed for cell in repeated((IN_GUEST,), 5, 7)]
    assert seeds != [cell.seed for cell in repeated((IN_GUEST,), 5, 8)] and new_seed() != new_seed()


def test_deciding_cells_that_match_are_repeated_by_the_first_entry(written: Any) -> None:
    cells = written(
        """
        schema = 1
        [defaults]
        repeat = 2
        [[cells]]
        cache = ["none", "directsync", "writeback"]
        filesystem = "swap"
        workload = "reclaim"
        [[cells]]
        cache = "none"
        filesystem = "swap"
        workload = "pressure"
        repeat = 1
        [[deciding]]
        cache = "none"
        repeat = 5
        reason = "it diverges there or nowhere"
        [[deciding]]
        workload = "reclaim"
        cache = ["none", "directsync"]
        repeat = 3
        reason = "the other mode that opens with O_DIRECT"
        """
    )
    assert Counter(ids(cells)) == {
        "none-swap-reclaim": 5, "directsync-swap-reclaim": 3, "writeback-swap-reclaim": 2, "none-swap-pressure": 1,
    }  # fmt: skip
    assert [cell.repetition for cell in cells][:5] == [1, 2, 3, 4, 5]


# --------------------------------------------------------------------------- mistakes

CELL = '[[cells]]\ncache = "none"\nfilesystem = "swap"\nworkload = "pressure"\n'
HOST = '[[cells]]\nclient = "host"\nworkload = "inflight-modify"\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("schema = 2\n" + CELL, ["'schema' is 2", "schema = 1"]),
        (CELL, ["'schema' is missing"]),
        ("schema = 1\n", ["empty"]),
        ("schema = 1\n" + CELL + '[[exclude]]\ncache = "none"\n', ["empty"]),
        ("schema = 1\ncell = 1\n" + CELL, ["the top level", "'cell'", "did you mean 'cells'?", "exclude"]),
        ("schema = 1\ndescription = 3\n" + CELL, ["'description' is 3"]),
        ("schema = 1\n" + CELL + "second = 3\n", ["[[cells]] number 1", "'second'", "did you mean 'seconds'?"]),
        ("schema = 1\n[defaults]\ncach = 1\n" + CELL, ["[defaults]", "'cach'", "did you mean 'cache'?"]),
        ("schema = 1\n" + CELL + "[[exclude]]\nreason = 'x'\n", ["[[exclude]] number 1", "'reason' is no key"]),
        ("schema = 1\ncells = 3\n", ["'cells'", "[[cells]]"]),
        ("schema = 1\n" + CELL.replace("none", "nonne"), ["'nonne'", "'cache'", "did you mean 'none'?", "unsafe"]),
        ("schema = 1\n" + CELL.replace("pressure", "presure"), ["'presure'", "did you mean 'pressure'?", "buffered"]),
        ("schema = 1\n" + CELL.replace('"pressure"', "{a = 1}"), ["workload"]),
        ("schema = 1\n" + CELL + 'client = "gest"\n', ["'gest'", "did you mean 'guest'?"]),
        ("schema = 1\n" + CELL + 'aio = "thread"\n', ["'thread'", "did you mean 'threads'?"]),
        ("schema = 1\n" + CELL + 'bus = "ide"\n', ["'ide'", "virtio, scsi"]),
        ("schema = 1\n" + CELL + 'control = "corrupt_below"\n', ["'corrupt_below'", "planted"]),
        ("schema = 1\n" + CELL + 'seconds = "8"\n', ["'seconds' is '8'", "whole number"]),
        ("schema = 1\n" + CELL + "seconds = 1.5\n", ["'seconds' is 1.5", "whole number"]),
        ("schema = 1\n" + CELL + "seconds = true\n", ["'seconds' is True", "whole number"]),
        ("schema = 1\n" + CELL + "seconds = 0\n", ["'seconds' is 0", "least it may be is 1"]),
        ("schema = 1\n" + CELL + "link_delay_ms = -1\n", ["'link_delay_ms' is -1", "least it may be is 0"]),
        ("schema = 1\n" + CELL + "seconds = 10\ndeadline = 10\n", ["'deadline' is 10"]),
        ("schema = 1\n" + CELL + "link_delay_ms = []\n", ["'link_delay_ms' is an empty list"]),
        ("schema = 1\n" + CELL + CELL, ["[[cells]] number 2", "'none-swap-pressure'", "[[cells]] number 1"]),
        ("schema = 1\n" + CELL + 'client = "host"\n', ["'cache' is given", "host"]),
        ("schema = 1\n" + CELL + 'client = ["guest", "host"]\n', ["'cache' is given", "host"]),
        ('schema = 1\n[[cells]]\nworkload = "swap"\n', ["'cache' is missing", "writethrough"]),
        ('schema = 1\n[[cells]]\ncache = "none"\n', ["'workload' is missing", "pressure"]),
        ("schema = 1\n" + CELL + 'verdicts = ["CLEEN"]\nreason = "x"\n', ["'CLEEN'", "did you mean 'CLEAN'?"]),
        ("schema = 1\n" + CELL + 'verdicts = "CLEAN"\nreason = "x"\n', ["'verdicts' is 'CLEAN'", "list"]),
        ("schema = 1\n" + CELL + 'verdicts = ["CLEAN"]\n', ["'reason' is missing"]),
        ("schema = 1\n" + CELL + '[[expect]]\ncache = "none"\n', ["[[expect]] number 1", "'verdicts' is missing"]),
        (
            "schema = 1\n" + CELL + '[[deciding]]\ncache = "none"\nrepeat = 3\n',
            ["[[deciding]] number 1", "'reason' is missing"],
        ),
        ("schema = 1\n" + CELL + '[[deciding]]\nreason = "x"\nrepeat = 1\n', ["'repeat' is 1", "least it may be is 2"]),
        (
            "schema = 1\n" + CELL + '[[deciding]]\ncache = "unsafe"\nrepeat = 3\nreason = "x"\n',
            ["[[deciding]] number 1", "no cell of the matrix matches it"],
        ),
        ("schema = 1\nx = [\n", ["not valid TOML"]),
        ("schema = 1\n" + CELL + 'protocol = "c"\n', ["'c'", "'protocol'", "allowed: A, B, C"]),
        ("schema = 1\n" + CELL + 'integrity = "crc32"\n', ["'crc32'", "'integrity'", "did you mean 'crc32c'?", "none"]),
        ("schema = 1\n" + CELL + "integrity = false\n", ["False", "'integrity'", "none, crc32c, md5, sha1, sha256"]),
        ("schema = 1\n" + CELL + 'integrity = ""\n', ["''", "'integrity'", "none"]),
        ("schema = 1\n" + CELL + 'crash = "nod"\n', ["'nod'", "'crash'", "did you mean 'node'?", "reset"]),
        ("schema = 1\n" + CELL + 'fault = "linkcut"\n', ["'linkcut'", "did you mean 'link-cut'?", "standalone"]),
        ("schema = 1\n" + CELL + 'disable_sendpage = "Y"\n', ["'disable_sendpage' is 'Y'", "not true or false"]),
        ("schema = 1\n" + CELL + "scatter_gather = 1\n", ["'scatter_gather' is 1", "not true or false"]),
        ("schema = 1\n" + CELL + "two_primaries = 0\n", ["'two_primaries' is 0", "not true or false"]),
        ("schema = 1\n" + CELL + 'unsafe_migration = "yes"\n', ["'unsafe_migration' is 'yes'", "not true or false"]),
        ("schema = 1\n" + CELL + "migrations = -1\n", ["'migrations' is -1", "least it may be is 0"]),
        ("schema = 1\n" + CELL + "migrations = true\n", ["'migrations' is True", "whole number"]),
        ("schema = 1\n" + CELL + "migration_deadline = 4\n", ["'migration_deadline' is 4", "least it may be is 5"]),
        ("schema = 1\n" + CELL + "migration = 2\n", ["'migration' is no key", "did you mean 'migrations'?"]),
        (
            "schema = 1\n" + CELL + 'crash = "node"\nmigrations = 1\n',
            ["'crash'", "'migrations'", "one thing at a time"],
        ),
        ("schema = 1\n" + CELL + 'crash = "node"\nfault = "io-error"\n', ["'crash'", "'fault'", "one thing"]),
        *(
            (
                'schema = 1\n[[cells]]\ncache = "none"\nworkload = "truncate"\ncrash = "reset"\n'
                f'filesystem = "{filesystem}"\n',
                [f"'crash' does not go with filesystem = \"{filesystem}\"", "may break on any disk"],
            )
            for filesystem in ("ntfs3", "ntfs-3g", "vfat", "exfat")
        ),
        *(
            ("schema = 1\n" + CELL + f'fault = "{fault}"\n', [f"'fault' is '{fault}'", "give 'migrations' too"])
            for fault in ("link-cut", "target-kill", "libvirtd-restart", "stall")
        ),
        *(
            ("schema = 1\n" + HOST + f"{key}\n", [f"'{key.partition(' ')[0]}' is", "host"])
            for key in (
                "migrations = 1",
                "unsafe_migration = true",
                "migration_deadline = 9",
                "crash = 'qemu'",
                "fault = 'io-error'",
            )
        ),
        ("schema = 1\n" + CELL + "unsafe_migration = true\n", ["'unsafe_migration' is given without 'migrations'"]),
        *(
            (
                "schema = 1\n" + CELL + f"migrations = 1\nmigration_deadline = {least}\ndeadline = 90\n",
                ["'deadline' is 90", f"'migration_deadline', {least}"],
            )
            for least in (90, 91)
        ),
        *(
            ("schema = 1\n" + CELL + f"two_primaries = true\n{happening}\n", ["'two_primaries' goes with none of"])
            for happening in ("migrations = 1", "crash = 'qemu'", "fault = 'standalone'")
        ),
        ("schema = 1\n" + HOST + 'layout = "crypt-node"\n', ["'layout' is 'crypt-node'", 'write layout = "crypt"']),
        ("schema = 1\n" + HOST + 'layout = "raw-on-ext4"\n', ["a file that QEMU opens", "there is no QEMU"]),
        *(
            ("schema = 1\n" + CELL + f"layout = '{layout}'\n{happening}\n", [f"'layout' is '{layout}'", why])
            for layout, why in (("partitioned", "is a partition already"),)
            for happening in ("migrations = 1", "crash = 'node'", "crash = 'reset'", "fault = 'io-error'")
        ),
        *(
            ("schema = 1\n" + CELL + f"layout = '{layout}'\n{happening}\n", [f"'layout' is '{layout}'", why])
            for layout in ("crypt-node", "qcow2-on-xfs")
            for happening, why in (
                ("migrations = 1", "only one node may have in use; it does not go with 'migrations'"),
                ("crash = 'node'", "which went with its node"),
                ("fault = 'io-error'", "'fault' is \"standalone\" only"),
            )
        ),
        (
            "schema = 1\n" + CELL + "layout = 'crypt-node'\ntwo_primaries = true\n",
            ["it does not go with 'two_primaries'"],
        ),
        (
            "schema = 1\n" + CELL + "layout = 'lvm'\nsabotage = 'swap-left-on'\n",
            ["'sabotage' is 'swap-left-on', which goes with layout = \"raw\" only, and 'layout' is 'lvm'"],
        ),
    ],
)
def test_load_mistake_one_sentence_with_file_place_and_what_is_allowed(
    written: Any, text: str, parts: list[str]
) -> None:
    with pytest.raises(UsageError) as told:
        written(text)
    sentence = str(told.value)
    assert "mine.toml" in sentence and "\n" not in sentence
    assert [part for part in parts if part not in sentence] == [], sentence


@pytest.mark.parametrize(
    "entry",
    [
        *(HOST + f"layout = '{layout}'\n" for layout in ("partitioned", "lvm", "crypt")),
        *(CELL + f"layout = '{layout}'\nmigrations = 1\n" for layout in ("lvm", "crypt")),
        CELL + "layout = 'crypt'\ncrash = 'node'\n",
        CELL + "layout = 'crypt-node'\n",
        *(CELL + f"layout = 'raw-on-ext4'\ncrash = '{crash}'\n" for crash in ("qemu", "reset")),
        CELL + "layout = 'raw-on-ext4'\nfault = 'standalone'\n",
    ],
)
def test_load_layout_goes_with_what_it_works_with(written: Any, entry: str) -> None:
    assert written("schema = 1\n" + entry)


def test_load_missing_matrix_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no matrix 'quik' in .*did you mean 'quick'\? allowed: alarms, .*, quick"):
        load("quik", WORKLOADS, SHIPPED)
    with pytest.raises(UsageError, match=r"no matrix file .*gone\.toml"):
        load(str(tmp_path / "gone.toml"), WORKLOADS, SHIPPED)


def test_load_file_that_is_not_text_is_not_valid_toml(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        load("m", WORKLOADS, tmp_path)


@given(st.recursive(st.booleans() | st.integers() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)))
def test_expand_any_value_of_any_key_cells_or_usage_error(value: object) -> None:
    for key in ("schema", "description", "defaults", "cells", "exclude", "expect", "deciding"):
        table: dict[str, Any] = {
            "schema": 1,
            "cells": [{"cache": "none", "filesystem": "swap", "workload": "pressure"}],
            key: value,
        }
        inner = {
            "schema": 1,
            "cells": [
                {"cache": "none", "filesystem": "swap", "workload": "pressure", "seconds": value, "client": value}
            ],
        }
        new = [
            {"schema": 1, "cells": [{"cache": "none", "filesystem": "swap", "workload": "pressure", name: value}]}
            for name in TWO_OF
        ]
        for tried in (table, inner, *new):
            try:
                expand(tried, WORKLOADS, "m.toml")
            except UsageError:
                continue


def test_load_wrong_default_is_told_of_the_defaults(written: Any) -> None:
    with pytest.raises(UsageError, match=r"mine\.toml, \[defaults\]: 'seconds' is 0; the least it may be is 1$"):
        written(f"schema = 1\ndefaults = {{ seconds = 0 }}\n{CELL}")


@pytest.mark.parametrize(
    ("number", "what"),
    [
        ("1000000001", r"'seconds' is 1000000001; the most it may be is 1000000000$"),
        ("0x1" + 6000 * "0", r"'seconds' is a very large number; the most it may be is 1000000000$"),
        (6000 * "9", r"is not valid TOML: "),
    ],
)
def test_load_number_that_is_too_large_is_one_sentence(written: Any, number: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        written(f"schema = 1\n{CELL}seconds = {number}\n")


def test_load_other_schema_is_told_before_keys_that_only_it_has(written: Any) -> None:
    with pytest.raises(UsageError, match=r"the top level: 'schema' is 2; this program reads schema = 1$"):
        written(f"schema = 2\nnew = 1\n{CELL}")


@pytest.mark.parametrize("wrong", [True, 1.0, "1", [1], {"a": 1}, None])
def test_expand_schema_that_is_like_1_is_not_1(wrong: object) -> None:
    with pytest.raises(UsageError, match="'schema'"):
        expand({"schema": wrong, "cells": [{"cache": "none", "workload": "no-writes"}]}, WORKLOADS, "mine.toml")


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("migrations", True, "'migrations' is True, not a whole number"),
        ("seconds", "7", "'seconds' is '7', not a whole number"),
        ("seconds", 7.0, "'seconds' is 7.0, not a whole number"),
        ("seconds", None, "'seconds' is None, not a whole number"),
        ("two_primaries", 1, "'two_primaries' is 1, not true or false"),
        ("cache", {"none"}, "a value of the type set is no value of 'cache'; allowed: none, "),
        ("cache", None, "None is no value of 'cache'; allowed: none, "),
        ("cache", [["none"]], "['none'] is no value of 'cache'; allowed: none, "),
        ("workload", {}, "a table is no value of 'workload'; allowed: append-delete, "),
        ("control", [[]], "[] is no value of 'control'; allowed: planted, "),
        ("integrity", b"md5", "a value of the type bytes is no value of 'integrity'; allowed: none, "),
        ("verdicts", {"CLEAN"}, "'verdicts' is a value of the type set, not a list; allowed: CLEAN, "),
        ("reason", 3, "'reason' is 3, not text"),
        ("secunds", 7, "'secunds' is no key; did you mean 'seconds'? allowed: workload, "),
    ],
)
def test_cells_from_value_that_is_like_the_right_one_is_refused(key: str, value: object, what: str) -> None:
    entry = {"cache": "none", "workload": "no-writes", key: value}
    with pytest.raises(UsageError) as raised:
        cells_from(entry, WORKLOADS, "the cell marker of test_x")
    assert str(raised.value).startswith(f"the cell marker of test_x, its keys: {what}")


def test_cells_from_members_of_an_enumeration_are_their_values() -> None:
    (cell,) = cells_from({"cache": CacheMode.NONE, "workload": "no-writes", "seconds": 3}, WORKLOADS, "x").cells
    assert cell == Cell("no-writes", cache=CacheMode.NONE, seconds=3)


def test_matrix_entry_has_a_key_for_each_field_of_a_cell() -> None:
    parts = {
        "delays": DelayProfile,
        "replication": ReplicationProfile,
        "disk_options": DiskOptions,
        "guest_options": GuestOptions,
    }
    # Which play of the cell it is comes from the run, and a file of the user's from an option, not from a matrix.
    wanted = {each.name for each in fields(Cell)} - {"expected", "repetition", "seed", "user_file", *parts}
    assert set(Axes.model_fields) == wanted | {each.name for part in parts.values() for each in fields(part)}


# --------------------------------------------------------------------------- names of earlier versions


@pytest.mark.parametrize("old", aliases.WORKLOADS)
def test_old_workload_anywhere_means_the_new_one_and_is_told_once(tmp_path: Path, old: str) -> None:
    kind, now = aliases.WORKLOADS[old]
    path = tmp_path / "mine.toml"
    path.write_text(
        f'''
        schema = 1
        defaults = {{ cache = "none", workload = "{old}" }}
        [[cells]]
        [[cells]]
        cache = "writeback"
        [[cells]]
        cache = ["unsafe", "directsync"]
        workload = "{old}"
        [[cells]]
        filesystem = "ext4"
        cache = "directsync"
        workload = "fio-verify"
        [[exclude]]
        workload = ["{old}", "no-writes"]
        cache = "unsafe"
        [[expect]]
        workload = "{old}"
        verdicts = ["CLEAN"]
        reason = "x"
        '''
    )
    matrix = load(str(path), WORKLOADS, tmp_path)
    assert [(cell.cache, cell.filesystem, cell.workload, bool(cell.expected)) for cell in matrix.cells] == [
        (CacheMode.NONE, kind, now, True),
        (CacheMode.WRITEBACK, kind, now, True),
        (CacheMode.DIRECTSYNC, kind, now, True),
        (CacheMode.DIRECTSYNC, FilesystemKind.EXT4, "fio-verify", False),
    ]
    advice = f'workload = "{old}" is an old name; write filesystem = "{kind}", workload = "{now}"'
    assert matrix.deprecated == tuple(
        f"{path}, {place}: {advice}"
        for place in ("[defaults]", "[[cells]] number 3", "[[exclude]] number 1", "[[expect]] number 1")
    )


def test_old_control_anywhere_means_the_new_one_and_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        f'schema = 1\n{HOST}control = ["mutator"]\n[[exclude]]\nclient = "guest"\ncontrol = "mutator"\n'
        '[[expect]]\ncontrol = "mutator"\nverdicts = ["DIVERGED"]\nreason = "x"\n'
    )
    matrix = load(str(path), WORKLOADS, tmp_path)
    assert [(cell.control, bool(cell.expected)) for cell in matrix.cells] == [(Control.IN_FLIGHT, True)]
    assert matrix.deprecated == tuple(
        f'{path}, {place}: control = "mutator" is an old name; write "in-flight"'
        for place in ("[[cells]] number 1", "[[exclude]] number 1", "[[expect]] number 1")
    )


def test_old_workload_over_another_filesystem_is_refused(written: Any) -> None:
    with pytest.raises(UsageError, match=r'number 1: workload = "idle" is an old name and means filesystem = "raw"$'):
        written('schema = 1\n[[cells]]\ncache = "none"\nfilesystem = "ext4"\nworkload = "idle"\n')


def test_cells_from_old_names_are_told() -> None:
    entry = {"cache": "none", "workload": ["ext4-cut", "mmap"], "filesystem": "ext4", "control": "mutator"}
    found = cells_from(entry, WORKLOADS, "the cell marker of test_x")
    assert [(cell.id, cell.control) for cell in found.cells] == [
        ("none-ext4-truncate", Control.IN_FLIGHT),
        ("none-ext4-mmap", Control.IN_FLIGHT),
    ]
    assert found.deprecated == (
        'the cell marker of test_x: workload = "ext4-cut" is an old name; '
        'write filesystem = "ext4", workload = "truncate"',
        'the cell marker of test_x: control = "mutator" is an old name; write "in-flight"',
    )
    assert cells_from({"cache": "none", "workload": "no-writes"}, WORKLOADS, "x").deprecated == ()
