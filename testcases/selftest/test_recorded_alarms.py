"""DRBD's alarms, its options and a migration's figures, as a real lab printed them (DRBD 8.4.11, Linux 6.12)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.model import Extent, ReplicationProfile
from harness.parse.alarms import alarms_of, first_digest_to_split_brain
from harness.parse.drbd_show import net_options, profile_of
from harness.parse.kernel_log import KernelLine, parse_kmsg, resyncs_kib
from harness.parse.migration import figures

RECORDINGS = Path(__file__).parent / "recordings"
DRBD = RECORDINGS / "drbd-8.4.11-linux-6.12"


def _log(name: str) -> tuple[KernelLine, ...]:
    return parse_kmsg((DRBD / name).read_text())


def test_alarms_of_single_primary_with_digest_count_each_loss() -> None:
    a, b = _log("kmsg-digest-nodea.txt"), _log("kmsg-digest-nodeb.txt")
    found = alarms_of(a, b, [], resource="r0", minor=0, algorithm="crc32c", events_from=0, watched_seconds=53.0)
    assert (len(found.mismatches), len(found.failures), found.detections) == (14, 5, 14)
    assert found.mismatches[0] == found.failures[0] == Extent(92544, 128)
    assert set(found.failures) <= set(found.mismatches), "what the receiver refuses the sender saw too"
    assert found.resynced_kib == sum(resyncs_kib(a)) == 99584
    assert first_digest_to_split_brain(a) is first_digest_to_split_brain(b) is None


@pytest.mark.parametrize("node", ["nodea", "nodeb"])
def test_first_digest_to_split_brain_of_two_primaries_is_about_a_second(node: str) -> None:
    took = first_digest_to_split_brain(_log(f"kmsg-digest-two-primaries-{node}.txt"))
    assert took is not None and 0.5 < took < 2.0


def test_profile_of_recorded_defaults_is_plain() -> None:
    text = (DRBD / "show-defaults.txt").read_text()
    assert profile_of(text, "N\n", True) == ReplicationProfile()
    options = net_options(text)
    assert (options["verify-alg"], options["protocol"], options["allow-two-primaries"]) == ("crc32c", "C", "no")


def test_figures_of_recorded_job_stats_are_read() -> None:
    stats = json.loads((RECORDINGS / "libvirt-11.3" / "job-stats-completed-qemu-10.0.json").read_text())
    found = figures(stats)
    assert (found.downtime_ms, found.iterations) == (557, 4)
    assert (found.transferred_bytes, found.memory_bytes) == (66871599, 268967936)
