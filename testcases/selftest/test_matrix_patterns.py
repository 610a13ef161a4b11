"""Matrix files: the cells that [[exclude]] and [[expect]] match."""

from __future__ import annotations

from typing import Any

import pytest
from written_matrix import TWO_OF, ids, toml, written

from harness.errors import UsageError

__all__ = ["written"]

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
