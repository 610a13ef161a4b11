"""What a run leaves behind comes back as it was: the run, its evidence, its attempts; and runs are found."""

from __future__ import annotations

import json
import math
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_evidence import BARE, FULL, IDLE, RUN, SWAP, store

from harness.errors import UsageError
from harness.model import BlockOwner, CacheMode, Cell, Evidence, Observed, Run, Sample, Verdict, VerdictKind, Work
from harness.store import Store, new_run_id, run_ids

__all__ = ["store"]


# --------------------------------------------------------------------------- round trips


def test_store_run_and_evidence_round_trip(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(FULL)
    attempt.save_verdict(Verdict(VerdictKind.DIVERGED, "4 blocks differ", ("a", "b"), 4, 93210, 1e-4))
    again = Store.open(store.directory.parent, "latest")
    assert again.run() == RUN
    assert again.evidence(SWAP.id) == FULL
    assert again.verdict(SWAP.id) == Verdict(VerdictKind.DIVERGED, "4 blocks differ", ("a", "b"), 4, 93210, 1e-4)
    assert again.newest(SWAP.id) == (FULL, store.directory / "cells" / "none-swap-pressure-link20ms" / "1")
    assert again.verdict(IDLE.id) is again.newest(IDLE.id) is None


TEXT = st.text()
FLOAT = st.floats(allow_nan=False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    st.builds(Work, FLOAT, st.dictionaries(TEXT, FLOAT), st.integers(), st.lists(TEXT).map(tuple)),
    st.builds(
        Observed, qemu_cache=st.none() | st.dictionaries(TEXT, st.booleans()), o_direct=st.none() | st.booleans()
    ),
    st.lists(st.builds(Sample, *[st.integers(0)] * 3, TEXT, TEXT, st.sampled_from(BlockOwner), TEXT)).map(tuple),
)
def test_store_any_evidence_round_trip(
    store: Store, work: Work, observed: Observed, samples: tuple[Sample, ...]
) -> None:
    attempt = store.begin(SWAP)
    evidence = Evidence(SWAP, attempt.number, "now", work=work, observed=observed, samples=samples)
    attempt.save(evidence)
    assert store.evidence(SWAP.id) == evidence


def test_store_values_beyond_json_evidence_kept(store: Store) -> None:
    attempt = store.begin(SWAP)
    attempt.save(Evidence(SWAP, 1, "now", work=Work(1.0, {"a": math.nan, "b": math.inf}, notes=("torn \udcff",))))
    found = store.evidence(SWAP.id)
    assert found and found.work
    assert math.isnan(found.work.facts["a"]) and found.work.facts["b"] == math.inf
    assert found.work.notes == ("torn \\udcff",)
    json.loads((attempt.directory / "evidence.json").read_text(), parse_constant=pytest.fail)


def test_attempt_write_raw_content_unchanged(store: Store) -> None:
    attempt = store.begin(SWAP)
    assert attempt.write_raw("kmsg-nodea.txt", "torn \udcff\n").read_bytes() == b"torn \\udcff\n"
    assert attempt.write_raw("disk.bin", b"\x00\xff").read_bytes() == b"\x00\xff"
    assert store.evidence(SWAP.id) is None, "raw files alone are no evidence"
    for name in ("../x", "a/b", ".hidden", "", "a\x00b"):
        with pytest.raises(UsageError, match="name of a file"):
            attempt.write_raw(name, "x")


# --------------------------------------------------------------------------- attempts


def test_store_several_attempts_newest_complete_counts(store: Store) -> None:
    first, second, third = (store.begin(SWAP) for _ in range(3))
    assert [attempt.number for attempt in (first, second, third)] == [1, 2, 3]
    first.save(BARE)
    second.save(BARE)
    assert store.evidence(SWAP.id) == Evidence(SWAP, 2, BARE.started_at), (
        "the store numbers attempts; the third broke off"
    )


def test_attempt_save_other_cell_value_error(store: Store) -> None:
    with pytest.raises(ValueError, match="'none-swap-pressure-link20ms' in an attempt at 'writeback-no-writes'"):
        store.begin(IDLE).save(BARE)


def test_store_begin_unsafe_id_usage_error(store: Store) -> None:
    with pytest.raises(UsageError, match="name of a file"):
        store.begin(Cell("../../x", cache=CacheMode.NONE))


def test_results_cell_not_planned_reported(store: Store) -> None:
    store.begin(SWAP).save(BARE)
    store.save_run(Run(RUN.id, RUN.matrix, RUN.started_at, (IDLE,)))
    assert [evidence.cell for evidence in store.every_attempt()] == [SWAP]


# --------------------------------------------------------------------------- finding runs


def test_new_run_id_sorts_by_time() -> None:
    moment = datetime(2026, 11, 23, 1, 50, 3, tzinfo=UTC)
    assert re.fullmatch(r"20261123T015003Z-[0-9a-f]{4}", new_run_id(moment))
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", new_run_id())


def test_store_open_id_path_latest(tmp_path: Path) -> None:
    old = Store.create(tmp_path, RUN)
    new = Store.create(tmp_path, Run("20261124T000000Z-0000", "quick", "now", ()))
    assert run_ids(tmp_path) == (RUN.id, "20261124T000000Z-0000")
    assert Store.open(tmp_path, "latest").directory == new.directory
    assert Store.open(tmp_path, RUN.id).directory == old.directory
    assert Store.open(tmp_path / "elsewhere", str(old.directory)).run() == RUN
    assert Store.open(tmp_path / "elsewhere", str(tmp_path)).directory == new.directory, "the newest of a folder"


def test_store_latest_by_when_it_was_played_and_not_by_its_name(tmp_path: Path) -> None:
    # As merge --into all, or whoever gave a run a name, leaves them.
    parts = [f"20261124T0{hour}0000Z-0000" for hour in (1, 2)]
    for name, began, ended in (
        ("all", "2026-11-24T01:00:00Z", "2026-11-24T03:00:00+00:00"),
        ("quick-old", "2026-11-22T01:00:00Z", ""),
        *((part, "now", "") for part in parts),
    ):
        Store.create(tmp_path, Run(name, "quick", began, (), finished_at=ended))
    assert run_ids(tmp_path) == ("quick-old", *parts, "all")
    Store.create(tmp_path, Run("20261125T010000Z-0000", "quick", "now", ()))
    assert Store.open(tmp_path, "latest").directory.name == "20261125T010000Z-0000"
    (tmp_path / "all" / "run.json").write_text('{"started_at": 7}')
    assert run_ids(tmp_path)[-1] == "all", "what nobody can read is not passed over in silence"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_run_ids_moment_that_is_in_no_year_is_not_known(tmp_path: Path, moment: str) -> None:
    for name, ended in (("odd", moment), ("other", "2026-11-24T03:00:00Z")):
        Store.create(tmp_path, Run(name, "quick", "2026-11-24T01:00:00Z", (), finished_at=ended))
    assert run_ids(tmp_path) == ("other", "odd")


def test_run_ids_where_nobody_may_look_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^the runs in x+ cannot be read: File name too long$"):
        run_ids(Path("x" * 300))
    (tmp_path / "closed").mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match=r"^the runs in .*/closed/runs cannot be read: Permission denied$"):
            run_ids(tmp_path / "closed" / "runs")
    finally:
        os.seteuid(user)


def test_store_open_or_create_impossible_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run in"):
        Store.open(tmp_path, "latest")
    Store.create(tmp_path, RUN)
    with pytest.raises(UsageError, match=f"no run '20261123T015003Z-4f2b' in .*; did you mean '{RUN.id}'"):
        Store.open(tmp_path, "20261123T015003Z-4f2b")
    with pytest.raises(UsageError, match="already in"):
        Store.create(tmp_path, RUN)
    with pytest.raises(UsageError, match="name of a file"):
        Store.create(tmp_path, Run("../x", "quick", "now", ()))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be kept"):
        Store.create(tmp_path / "file", RUN)
