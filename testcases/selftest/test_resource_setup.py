"""The real Resource is created, set up again after a boot and taken down; its scripts run against tools that log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from recorded_nodes import adopted
from recorded_resource import GENERATIONS, SOON, creatable, tools

from harness.errors import CommandError, DeadlineError, InfrastructureError
from harness.lab.node import Node
from harness.model import Protocol, ReplicationProfile
from harness.remote.local import LocalRunner
from harness.remote.ssh import SshRunner
from harness.render.drbd_conf import SIGNATURE, ResourceSpec

__all__ = ["tools"]


# --------------------------------------------------------------------------- create, rejoin, down


@pytest.mark.parametrize(
    ("generation", "skip"),
    [
        ("8.4", "drbdadm -- --clear-bitmap new-current-uuid r0/0"),
        ("9", "drbdadm new-current-uuid --clear-bitmap r0/0"),
    ],
)
def test_create_of_equal_disks_skips_the_initial_sync(generation: str, skip: str) -> None:
    resource, on_a, on_b = creatable(generation)
    resource.replication = ReplicationProfile(protocol=Protocol.A)
    resource.create(skip_initial_sync=True)
    assert on_a.drbd() == ["drbdadm create-md --force r0", "drbdadm up r0", skip, "drbdadm primary r0"]
    assert on_b.drbd() == ["drbdadm create-md --force r0", "drbdadm up r0"]
    assert (resource.blocks, resource.replication) == (32758, ReplicationProfile())
    assert resource.dialect.generation == generation


@pytest.mark.parametrize("generation", GENERATIONS)
def test_create_of_unknown_disks_copies_a_to_b(generation: str) -> None:
    resource, on_a, _ = creatable(generation)
    resource.create(skip_initial_sync=False)
    assert on_a.drbd()[-1] == "drbdadm primary --force r0"
    assert resource.replication is None, "what is in force outside of the resource file is not known"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_create_prepares_both_nodes_with_the_spec(generation: str) -> None:
    resource, on_a, on_b = creatable(generation, ResourceSpec(port=7800, mapping="slow", directory="/etc/drbd"))
    resource.create(skip_initial_sync=True)
    given = [*on_a.given, *on_b.given]
    (prepared,) = [argv for argv in on_a.ran if "dmsetup create" in " ".join(argv)]
    assert prepared[4:] == ("r0", "/dev/vdb", "slow", "/etc/drbd/r0.res", "0")
    assert len(given) == 2 and given[0] == given[1] and given[0].startswith(SIGNATURE)
    assert "address 192.168.77.1:7800;" in given[0] and "disk /dev/mapper/slow;" in given[0]
    assert ("node-id 0;" in given[0]) is (generation == "9")


def test_create_with_an_unknown_drbd_stops_before_anything_is_changed() -> None:
    resource, on_a, on_b = creatable("9")
    on_a.answers["/proc/drbd"] = "version: 10.0.0a4 (api:2/proto:118-124)\n"
    with pytest.raises(InfrastructureError, match=r"the nodes run DRBD 10\.0\.0a4"):
        resource.create(skip_initial_sync=True)
    assert len(on_a.ran) == 1 and on_b.ran == []


def test_create_without_a_version_is_infrastructure_error() -> None:
    resource, on_a, _ = creatable("8.4")
    on_a.answers["/proc/drbd"] = "\n"
    with pytest.raises(InfrastructureError, match="the version of DRBD on nodea cannot be read"):
        resource.create(skip_initial_sync=True)


def test_create_whose_nodes_do_not_connect_is_deadline_error() -> None:
    resource, on_a, _ = creatable("8.4", SOON)
    on_a.happens = {}
    with pytest.raises(DeadlineError, match="Connected and Inconsistent on nodea did not happen within 0 s"):
        resource.create(skip_initial_sync=True)


def test_create_after_another_profile_goes_back_to_the_lasting_options() -> None:
    resource, _, _ = creatable("8.4", ResourceSpec(net=(("max-buffers", "4k"),)))
    resource.spec = replace(resource.spec, net=(*resource.net, ("protocol", "A")))
    resource.create(skip_initial_sync=True)
    assert resource.spec.net == resource.net == (("max-buffers", "4k"),)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_rejoin_sets_up_what_a_boot_took_away(generation: str) -> None:
    resource, on_a, on_b = adopted(generation)
    resource.rejoin(resource.b)
    assert on_b.ran[0][4:] == ("r0", "/dev/vdb", "drbd-lower", "/etc/drbd.d/r0.res", "128")
    assert on_b.drbd() == ["drbdadm up r0"] and on_a.ran == []
    assert on_b.followed == 2, "the events of before the boot have ended"


def test_down_takes_both_down_and_minds_no_refusal() -> None:
    resource, on_a, on_b = adopted("8.4")
    on_a.answers = {"drbdadm down": (11, "", "r0: State change failed: (-12) Device is held open by someone")}
    resource.down()
    assert on_a.drbd() == on_b.drbd() == ["drbdadm down r0"]


def test_write_configuration_is_what_the_dialect_renders() -> None:
    for generation in GENERATIONS:
        resource, on_a, _ = adopted(generation)
        resource.write_configuration(resource.a)
        (text,) = on_a.given
        assert on_a.ran[-1][-1] == "/etc/drbd.d/r0.res"
        assert text == resource.dialect.resource_file(resource.spec) and text.startswith(SIGNATURE)
        assert ("node-id" in text) is (generation == "9")


# --------------------------------------------------------------------------- the scripts, against tools that log


def prepared(tools: Path, spec: ResourceSpec, *, owns_files: bool = True) -> list[str]:
    """What a rejoin calls on a node whose commands really run, without what only reads."""
    resource, _, _ = adopted("8.4")
    resource.spec = replace(resource.spec, mapping=spec.mapping, directory=spec.directory, size_mib=spec.size_mib)
    resource.owns_files = owns_files
    runner = LocalRunner()
    b = Node("nodeb", cast(SshRunner, runner), "repl0", "192.168.77.2", str(tools / "vdb"), "test:///default")
    resource._follow = lambda node: None  # type: ignore[method-assign]
    resource.rejoin(b)
    return [line for line in (tools / "calls").read_text().splitlines() if not line.startswith("blockdev")]


def test_prepare_script_makes_the_mapping_and_the_file(tools: Path) -> None:
    calls = prepared(tools, ResourceSpec(mapping="slow", directory=str(tools)))
    assert calls == [
        "modprobe drbd", "modprobe dm-delay", "drbdsetup down r0", "dmsetup remove --retry slow",
        f"dmsetup create slow --table 0 2048 linear {tools / 'vdb'} 0", "udevadm settle", "drbdadm up r0",
    ]  # fmt: skip
    assert (tools / "r0.res").read_text().startswith(SIGNATURE)


def test_prepare_script_shows_no_more_of_the_lower_device_than_the_spec_says(tools: Path) -> None:
    (tools / "bin" / "blockdev").write_text("#!/bin/sh\necho 10240\n")
    spec = ResourceSpec(mapping="slow", directory=str(tools), size_mib=2)
    assert f"dmsetup create slow --table 0 4096 linear {tools / 'vdb'} 0" in prepared(tools, spec)


def test_prepare_script_of_more_than_the_lower_device_has_is_command_error(tools: Path) -> None:
    with pytest.raises(CommandError, match="vdb has 1 MiB, fewer than the 2 MiB that are asked of it"):
        prepared(tools, ResourceSpec(directory=str(tools), size_mib=2))
    assert "dmsetup create" not in (tools / "calls").read_text()


def test_prepare_script_leaves_a_foreign_file_and_an_unmapped_disk(tools: Path) -> None:
    (tools / "r0.res").write_text("resource r0 { }\n")
    calls = prepared(tools, ResourceSpec(mapping="", directory=str(tools)), owns_files=False)
    assert calls == ["modprobe drbd", "modprobe dm-delay", "drbdsetup down r0", "drbdadm up r0"]
    assert (tools / "r0.res").read_text() == "resource r0 { }\n"


def test_prepare_script_whose_mapping_cannot_be_made_is_command_error(tools: Path) -> None:
    (tools / "bin" / "dmsetup").write_text("#!/bin/sh\necho 'Device or resource busy' >&2\nexit 1\n")
    with pytest.raises(CommandError, match="status 1: Device or resource busy"):
        prepared(tools, ResourceSpec(directory=str(tools)))
    assert not (tools / "r0.res").exists()
