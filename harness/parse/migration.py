"""libvirt's statistics of a live migration: its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# VIR_DOMAIN_JOB_COMPLETED
_COMPLETED = 3


@dataclass(frozen=True)
class Figures:
    """QEMU's figures of one migration as libvirt hands them on; None where it has none.

    ``iterations`` is how often QEMU went over the guest's memory, ``transferred_bytes`` what it sent in all of them,
    ``memory_bytes`` how much memory the guest has.  ``throttle_percent`` is how far auto-converge slowed it down at
    most; libvirt leaves it out while it is 0.
    """

    downtime_ms: float | None = None
    iterations: int | None = None
    transferred_bytes: int | None = None
    memory_bytes: int | None = None
    throttle_percent: int | None = None


def figures(completed: Mapping[str, object], seen: Sequence[Mapping[str, object]] = ()) -> Figures:
    """The figures of one migration; what has no number is passed over.

    ``completed`` is libvirt's statistics of the completed job, ``seen`` are samples of them from under way.  What
    ``completed`` has wins, except for the throttle: QEMU takes it off at the end, so its highest value counts.
    The downtime comes from a job that completed only: before, libvirt has QEMU's ``expected-downtime`` there
    (qemuMonitorJSONGetMigrationStatsReply in libvirt's src/qemu/qemu_monitor_json.c).
    """
    done = completed.get("type", _COMPLETED) == _COMPLETED
    return Figures(
        downtime_ms=_number(completed.get("downtime")) if done else None,
        iterations=_whole("memory_iteration", completed, seen),
        transferred_bytes=_whole("data_processed", completed, seen),
        memory_bytes=_whole("memory_total", completed, seen),
        throttle_percent=_most("auto_converge_throttle", (completed, *seen)),
    )


def _whole(key: str, completed: Mapping[str, object], seen: Iterable[Mapping[str, object]]) -> int | None:
    value = _most(key, (completed,))
    return _most(key, seen) if value is None else value


def _most(key: str, samples: Iterable[Mapping[str, object]]) -> int | None:
    values = [value for sample in samples if (value := _number(sample.get(key))) is not None]
    return int(max(values)) if values else None


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
