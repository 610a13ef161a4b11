"""Mitigations and presets in a matrix: what they set, what wins, and what contradicts them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.config.matrix import expand, load
from harness.config.repetitions import repeated
from harness.config.shards import Shard
from harness.errors import UsageError
from harness.model import SETTINGS, AioMode, CacheMode, Cell, DiskBus, Layout, Mitigation, Preset, Protocol
from harness.util import resources
from harness.workloads import WORKLOADS


def cells(entry: dict[str, Any], **defaults: Any) -> tuple[Cell, ...]:
    """The cells of one entry over ``defaults``."""
    table = {"schema": 1, "defaults": {"workload": "fio-direct", "cache": "none", **defaults}, "cells": [entry]}
    return expand(table, WORKLOADS, "mine.toml").cells


def test_mitigation_goes_before_the_defaults() -> None:
    found = cells({"mitigation": ["none", "writeback", "protocol-a", "crypt-guest", "bus-scsi"]}, protocol="C")
    assert [one.id for one in found] == [
        "none-fio-direct",
        "writeback-fio-direct-writeback",
        "none-fio-direct-protocol-a",
        "none-fio-direct-crypt-guest",
        "none-fio-direct-bus-scsi",
    ]
    plain, writeback, protocol, crypt, scsi = found
    assert plain.mitigation is None and writeback.cache is CacheMode.WRITEBACK
    assert protocol.replication.protocol is Protocol.A and protocol.mitigation is Mitigation.PROTOCOL_A
    assert crypt.layout is Layout.CRYPT and scsi.bus is DiskBus.SCSI


def test_mitigation_against_the_entrys_own_key_is_one_sentence() -> None:
    with pytest.raises(UsageError) as caught:
        cells({"mitigation": "protocol-a", "protocol": "B"})
    assert str(caught.value) == "mine.toml, [[cells]] number 1: 'protocol' is 'B', and 'protocol-a' makes it 'A'"
    assert cells({"mitigation": "protocol-a", "protocol": "A"})[0].id == "none-fio-direct-protocol-a"


def test_mitigation_unknown_is_one_sentence_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="'protocol-b' is no value of 'mitigation'; did you mean 'protocol-a'"):
        cells({"mitigation": "protocol-b"})


def test_mitigation_of_the_node_itself_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="'mitigation' is given with client = \"host\""):
        expand(
            {"schema": 1, "cells": [{"workload": "steady", "client": "host", "mitigation": "protocol-a"}]},
            WORKLOADS,
            "mine.toml",
        )


def test_mitigation_as_a_pattern_matches_its_cells() -> None:
    table = {
        "schema": 1,
        "defaults": {"workload": "fio-direct", "cache": "none"},
        "cells": [{"mitigation": ["none", "protocol-a"]}],
        "expect": [
            {"mitigation": "none", "verdicts": ["DIVERGED"], "reason": "why"},
            {"mitigation": "protocol-a", "verdicts": ["CLEAN"], "reason": "why"},
        ],
    }
    found = expand(table, WORKLOADS, "mine.toml").cells
    assert [one.expected.verdicts[0] for one in found if one.expected] == ["DIVERGED", "CLEAN"]


@pytest.mark.parametrize("one", SETTINGS, ids=str)
def test_settings_are_keys_of_a_cell_with_other_values_than_its_defaults(one: Mitigation | Preset) -> None:
    plain = Cell("fio-direct", cache=CacheMode.NONE)
    made = plain.with_values(SETTINGS[one])
    assert all(made.value(key) == value for key, value in SETTINGS[one].items())
    assert made != plain and set(SETTINGS) == {*Mitigation, *Preset}


# --------------------------------------------------------------------------- the matrices


@pytest.fixture(scope="module")
def mitigations() -> tuple[Cell, ...]:
    """The cells of the matrix, every repetition of them."""
    found = load("mitigations", WORKLOADS, resources.matrices()).cells
    return repeated(found, None, 7)


def test_mitigations_each_is_asked_whether_it_cures_and_each_that_costs_has_its_baseline(
    mitigations: tuple[Cell, ...],
) -> None:
    ids = {one.id for one in mitigations}
    asked = {one.mitigation for one in mitigations if one.workload == "reclaim"}
    assert asked == {None, *Mitigation}
    # These two are no setting of the disk under test, and of the third no libvirt of the lab knows the bus.
    without_costs = {Mitigation.SWAP_OFF_DRBD, Mitigation.ZRAM, Mitigation.BUS_NVME}
    assert {one.mitigation for one in mitigations if one.workload == "fio-cost"} == {None, *Mitigation} - without_costs
    for one in mitigations:
        assert one.without_presets().id in ids, f"{one.id} has nothing to be compared with"


def test_mitigations_costs_are_measured_with_nothing_slowed_down_but_flushes(mitigations: tuple[Cell, ...]) -> None:
    for one in mitigations:
        slowed = replace(one.delays, flush_delay_ms=0)
        assert slowed.undelayed == (one.workload == "fio-cost"), one.id


def test_mitigations_of_five_shards_each_pairs_every_cell_with_its_baseline(mitigations: tuple[Cell, ...]) -> None:
    for number in range(1, 6):
        mine = Shard(number, 5).of_cells(mitigations)
        plays = {one.play for one in mine}
        assert all((one.without_presets().id, one.repetition) in plays for one in mine if one.repetition > 1)


def test_proxmox_ve_is_as_it_comes_but_for_the_remedies() -> None:
    found = load("proxmox-ve", WORKLOADS, resources.matrices()).cells
    ours = [one for one in found if one.preset is Preset.PROXMOX_VE and one.mitigation is None]
    assert {one.workload for one in ours} > {"reclaim", "truncate", "fio-cost"} and any(one.migrations for one in ours)
    for one in ours:
        assert (one.cache, one.aio, one.bus) == (CacheMode.NONE, AioMode.IO_URING, DiskBus.SCSI)
        assert one.disk_options.iothread and one.replication.allow_two_primaries
