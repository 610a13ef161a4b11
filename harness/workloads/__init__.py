"""Workloads, by the names that a matrix gives them, and the filesystems that each can use."""

from collections.abc import Mapping

from harness.errors import InfrastructureError
from harness.filesystems import FILESYSTEMS, filesystem_of
from harness.model import Cell, FilesystemKind
from harness.workloads.base import Workload
from harness.workloads.controls import InflightModify, NoWrites, Planted, Steady
from harness.workloads.database import SqliteJournal, SqliteWal
from harness.workloads.files import AppendDelete, SmallFiles
from harness.workloads.fio import Buffered, FioVerify
from harness.workloads.fio_cost import FioCost
from harness.workloads.flush_probe import FlushProbe, FlushProbeRawLayer
from harness.workloads.job_files import FioBuffered, FioDirect, FioMmap
from harness.workloads.mapped import Mmap, Truncate
from harness.workloads.swap import Pressure, Reclaim
from harness.workloads.user_work import FioJob, GuestScript

_ALL: tuple[type[Workload], ...] = (
    NoWrites, Planted, Steady, InflightModify, FioVerify, Pressure, Reclaim, Buffered, Mmap, Truncate,
    FioBuffered, FioMmap, FioDirect, FioCost, AppendDelete, SmallFiles, SqliteWal, SqliteJournal,
    FioJob, GuestScript, FlushProbe, FlushProbeRawLayer,
)  # fmt: skip
_BY_NAME: Mapping[str, type[Workload]] = {one.name: one for one in _ALL}
#: Each workload's name and the filesystems it can use.
WORKLOADS: Mapping[str, tuple[FilesystemKind, ...]] = {
    one.name: tuple(kind for kind, filesystem in FILESYSTEMS.items() if filesystem.offers in one.needs) for one in _ALL
}


def workload_of(cell: Cell) -> Workload:
    """The workload of ``cell`` over its filesystem; a matrix has checked both before."""
    if cell.workload not in _BY_NAME:
        raise InfrastructureError(f"there is no workload '{cell.workload}'")
    return _BY_NAME[cell.workload].of(filesystem_of(cell), cell)


__all__ = ["WORKLOADS", "Workload", "workload_of"]
