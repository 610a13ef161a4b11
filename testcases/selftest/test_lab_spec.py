"""What may be asked of a lab and of the software in it, and what of it a run keeps."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.lab_spec import GuestSpec, LabSpec
from harness.config.recipe import suites
from harness.config.run_specs import specs_from_options, specs_of
from harness.config.spec import Spec, differences
from harness.config.stack_spec import StackSpec
from harness.errors import UsageError
from harness.model import Run
from harness.store import Store

GOLDEN = Path(__file__).parent / "golden"
RUN = Run("20261124T000000Z-aaaa", "quick", "2026-11-24T00:00:00+00:00", ())


def refusal(model: type[Spec], table: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        model.from_table(table)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --------------------------------------------------------------------------- the lab


def test_lab_spec_without_a_choice_is_the_lab_of_today() -> None:
    spec = LabSpec()
    assert (spec.memory_mib, spec.vcpus, spec.device_mib, spec.node_names) == (2560, 0, 128, ("nodea", "nodeb"))
    assert spec.link.addresses == ("192.168.77.1", "192.168.77.2") and spec.link.nic == "repl0"
    assert spec.lower_device == "/dev/disk/by-id/virtio-backing"
    resource = spec.resource
    assert (resource.name, resource.minor, resource.port, resource.device) == ("r0", 0, 7789, "/dev/drbd0")
    assert [(node.name, node.address, node.disk) for node in resource.nodes] == [
        ("nodea", "192.168.77.1", "/dev/mapper/drbd-lower"), ("nodeb", "192.168.77.2", "/dev/mapper/drbd-lower"),
    ]  # fmt: skip
    guest = spec.guest
    assert (guest.name, guest.memory_mib, guest.vcpus) == ("drbd-harness-guest", 256, 1)
    assert guest.console == "/var/log/drbd-harness-guest.log"
    assert guest.root_device == "/dev/disk/by-id/virtio-guestroot"


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"device_mib": 1}, "device_mib is 1; the least is 16"),
        ({"device_mib": 2**30 + 1}, "'device_mib' is 1073741825; the most it may be is 1073741824"),
        ({"memory_mib": 63}, "memory_mib is 63; the least is 64"),
        ({"guest": {"memory_mib": 1}}, "[guest]: memory_mib is 1; the least is 64"),
        ({"memory_mib": True}, "'memory_mib' is True, not a whole number"),
        ({"memory_mib": "900"}, "'memory_mib' is '900', not a whole number"),
        ({"device_mb": 64}, "'device_mb' is no key; did you mean 'device_mib'? allowed: name, inventory"),
        ({"guest": {"memory": 64}}, "[guest]: 'memory' is no key; did you mean 'memory_mib'?"),
        ({"guest": 3}, "[guest]: it is not a table"),
        ({"drbd": {"port": 65536}}, "[drbd]: 'port' is 65536; the most it may be is 65535"),
        ({"drbd": {"minor": -1}}, "[drbd]: minor is -1; the least is 0"),
        ({"drbd": {"name": "r0; rm -rf /"}}, "[drbd]: name is 'r0; rm -rf /'; it has to be letters, digits"),
        ({"node_names": ["nodea"]}, "node_names is ['nodea']; it has to be a list of two"),
        ({"node_names": ["nodea", "nodea"]}, "both nodes are called 'nodea'"),
        ({"node_names": ["nodea", "Node B"]}, "it has to be a host name"),
        ({"link": {"network": "10.0.0.0/31"}}, "the smallest with room for two nodes is a /30"),
        ({"link": {"network": "10.0.0.1/24"}}, "'network' is '10.0.0.1/24'"),
        ({"link": {"network": "10.0.2.0/28"}}, "the networks of link and management overlap"),
        ({"link": {"nic": "eth0"}}, "'eth0' is no value of 'nic'; allowed: repl0"),
        ({"backing_serial": "guestroot"}, "two disks of a node have the same serial number"),
        ({"backing_serial": "seed"}, "two disks of a node have the same serial number"),
        ({"guest": {"log_directory": "../etc"}}, "log_directory is '../etc'; it has to be an absolute path"),
    ],
)
def test_lab_spec_with_a_mistake_is_refused_in_one_sentence(table: dict[str, Any], sentence: str) -> None:
    message = refusal(LabSpec, table)
    assert message.startswith("the lab spec") and sentence in message


def test_lab_spec_of_another_guest_and_resource_shares_no_name_or_path() -> None:
    one = LabSpec()
    other = LabSpec.from_table({
        "name": "second", "backing_serial": "backing2", "link": {"network": "192.168.78.0/24"},
        "drbd": {"name": "r1", "minor": 1, "port": 7790, "mapping": "drbd-lower1"},
        "guest": {"name": "second-guest"},
    })  # fmt: skip

    def taken(spec: LabSpec) -> set[object]:
        nodes = spec.resource.nodes
        return {
            spec.name, spec.guest.name, spec.guest.console, spec.guest.canary_log, spec.lower_device,
            spec.resource.name, spec.resource.device, *(node.disk for node in nodes),
            *(f"{node.address}:{spec.resource.port}" for node in nodes),
        }  # fmt: skip

    assert not taken(one) & taken(other)


TABLES = st.fixed_dictionaries({}, optional={
    "memory_mib": st.integers(64, 1 << 20), "device_mib": st.integers(16, 1 << 20), "vcpus": st.integers(0, 64),
    "node_names": st.lists(st.from_regex(r"[a-z0-9]{1,10}", fullmatch=True), min_size=2, max_size=2, unique=True),
    "drbd": st.fixed_dictionaries({}, optional={"minor": st.integers(0, 1048575), "port": st.integers(1, 65535)}),
    "link": st.fixed_dictionaries({}, optional={"network": st.sampled_from(["10.1.0.0/16", "192.168.1.4/30"])}),
    "guest": st.fixed_dictionaries({}, optional={"name": st.from_regex(r"[A-Za-z][a-z0-9.-]{0,9}", fullmatch=True)}),
})  # fmt: skip


@given(TABLES)
def test_lab_spec_as_a_table_comes_back_equal(table: dict[str, Any]) -> None:
    spec = LabSpec.from_table(table)
    again = LabSpec.from_table(json.loads(json.dumps(spec.as_table())))
    assert again == spec and differences(again, spec) == []


@given(TABLES, TABLES)
def test_differences_of_two_specs_are_named_unless_they_are_equal(one: dict[str, Any], two: dict[str, Any]) -> None:
    left, right = LabSpec.from_table(one), LabSpec.from_table(two)
    assert (differences(left, right) == []) == (left == right)


def test_differences_of_nested_fields_have_dotted_names() -> None:
    other = LabSpec(device_mib=64, node_names=("left", "right"), guest=GuestSpec(memory_mib=512))
    assert differences(other, LabSpec()) == [
        "node_names is left and right instead of nodea and nodeb",
        "device_mib is 64 instead of 128",
        "guest.memory_mib is 512 instead of 256",
    ]
    assert differences(StackSpec(), StackSpec(guest_suite="bookworm")) == ["guest_suite is empty instead of bookworm"]


# --------------------------------------------------------------------------- the software


def test_stack_spec_guest_without_a_suite_of_its_own_has_the_nodes() -> None:
    assert (StackSpec().suite, StackSpec().guest_base) == ("trixie", "trixie")
    assert StackSpec(suite="bookworm").guest_base == "bookworm"
    assert StackSpec(suite="bookworm", guest_suite="trixie").guest_base == "trixie"


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"suite": "warty"}, f"there is no node image of 'warty'; there is one of {', '.join(suites('node'))}"),
        ({"guest_suite": "warty"}, f"there is no guest image of 'warty'; there is one of {', '.join(suites('guest'))}"),
        ({"suite": "trixi"}, "there is no node image of 'trixi'; .*; did you mean 'trixie'?"),
        ({"suite": 13}, "'suite' is 13, not text"),
        ({"kernle": "6.12"}, "'kernle' is no key; allowed: suite, guest_suite"),
    ],
)
def test_stack_spec_with_a_mistake_is_refused_in_one_sentence(table: dict[str, Any], sentence: str) -> None:
    message = refusal(StackSpec, table)
    assert message.startswith("the stack spec: ")
    assert sentence in message or re.search(sentence, message)


# --------------------------------------------------------------------------- of a run


def test_specs_from_options_go_to_the_spec_that_has_the_field() -> None:
    lab, stack = specs_from_options({"suite": "bookworm", "device_mib": 64})
    assert (lab, stack) == (LabSpec(device_mib=64), StackSpec(suite="bookworm"))
    with pytest.raises(UsageError, match="'devise_mib' is no key; did you mean 'device_mib'"):
        specs_from_options({"devise_mib": 64})


def test_specs_of_a_run_are_those_it_was_started_with(tmp_path: Path) -> None:
    lab, stack = LabSpec(device_mib=64, guest=GuestSpec(memory_mib=512)), StackSpec(suite="bookworm")
    store = Store.create(tmp_path, replace(RUN, lab_spec=lab.as_table(), stack_spec=stack.as_table()))
    assert specs_of(store.run()) == (lab, stack)


def test_specs_of_a_run_that_kept_none_are_the_defaults() -> None:
    assert specs_of(RUN) == (LabSpec(), StackSpec())


def test_specs_of_a_run_of_another_version_are_refused_with_its_name() -> None:
    with pytest.raises(UsageError, match=f"^the run '{RUN.id}' cannot go on: the lab spec: 'flux' is no key"):
        specs_of(replace(RUN, lab_spec={"flux": 1}))


@pytest.mark.parametrize("run", sorted(GOLDEN.glob("*/run.json")), ids=lambda path: path.parent.name)
def test_specs_of_a_run_of_schema_1_come_from_its_options(run: Path) -> None:
    options = json.loads(run.read_text())["lab_options"]
    assert specs_of(Store(run.parent).run()) == (LabSpec(), StackSpec.from_table(options))


def test_upgrade_of_a_schema_1_runs_options_makes_two_specs(tmp_path: Path) -> None:
    store = Store.create(tmp_path, RUN)
    stored = json.loads((store.directory / "run.json").read_text())
    for name in ("lab_spec", "stack_spec", "provenance"):
        del stored[name]
    options = {"suite": "bookworm", "guest_suite": "trixie", "device_mib": 64, "memory_mib": 900, "keep": False}
    (store.directory / "run.json").write_text(json.dumps({**stored, "schema": 1, "lab_options": options}))
    lab, stack = specs_of(store.run())
    assert lab == LabSpec(device_mib=64, memory_mib=900)
    assert stack == StackSpec(suite="bookworm", guest_suite="trixie")
