"""Names of earlier versions mean those of today wherever they are written, and are told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from written_matrix import HOST, written

from harness.config.matrix import cells_from, load
from harness.errors import UsageError
from harness.model import CacheMode, Control, FilesystemKind, aliases
from harness.workloads import WORKLOADS

__all__ = ["written"]


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
