"""The real Resource over nodes that answer with what DRBD 8.4 and 9 printed: status, verify, repair, up and down."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from recorded_nodes import DRBD_9, DRBD_84, RecordedRunner, adopted, events_between, node, verified

from harness.drbd import verify as verify_module
from harness.drbd.dialect import Drbd9, Drbd84, dialect_of
from harness.drbd.resource import Resource, both
from harness.errors import CommandError, DeadlineError, InfrastructureError, LostNodeError
from harness.lab.node import Node
from harness.model import Counters, Extent, Protocol, ReplicationProfile, State
from harness.remote.local import LocalRunner
from harness.remote.ssh import SshRunner
from harness.render.drbd_conf import SIGNATURE, ResourceSpec
from harness.util.deadline import Deadline

GENERATIONS = ["8.4", "9"]
PLANTED = (Extent(0, 8), Extent(8000, 8), Extent(40024, 56), Extent(262056, 8))
#: An impatient resource: what does not come at once does not come.
SOON = ResourceSpec(connect_seconds=0.05, verify_seconds=0.05, resync_seconds=0.05)


def new(spec: ResourceSpec | None = None) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """A resource that nobody has created."""
    (a, on_a), (b, on_b) = node("nodea"), node("nodeb")
    return Resource.for_nodes(a, b, spec), on_a, on_b


# --------------------------------------------------------------------------- the dialect


@pytest.mark.parametrize(
    ("version", "dialect"), [("8.4.11", Drbd84), ("8.4.7", Drbd84), ("9.3.3", Drbd9), ("9.2.17", Drbd9)]
)
def test_dialect_of_known_version_is_its_generation(version: str, dialect: type[object]) -> None:
    assert type(dialect_of(version)) is dialect


@pytest.mark.parametrize("version", ["8.3.16", "10.0.0a4", "90.1", "8", ""])
def test_dialect_of_unknown_version_is_infrastructure_error(version: str) -> None:
    with pytest.raises(InfrastructureError, match=r"which the harness does not know: it needs 8\.4 or 9$"):
        dialect_of(version)


@pytest.mark.parametrize(
    ("dialect", "skip", "verify"),
    [
        (Drbd84(), "drbdadm -- --clear-bitmap new-current-uuid r7/0", "drbdadm -- --start=0 verify r7/0"),
        (Drbd9(), "drbdadm new-current-uuid --clear-bitmap r7/0", "drbdadm verify --start=0 r7/0"),
    ],
)
def test_dialect_commands_are_those_of_its_drbdadm(dialect: Drbd84 | Drbd9, skip: str, verify: str) -> None:
    spec = ResourceSpec("r7")
    assert " ".join(dialect.skip_initial_sync(spec)) == skip
    assert " ".join(dialect.start_verify(spec)) == verify, "without a start it would go on where one was aborted"


# --------------------------------------------------------------------------- status


def test_status_of_8_4_is_proc_drbd_of_the_asked_node() -> None:
    resource, on_a, on_b = adopted("8.4")
    healthy = State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "Established")
    assert resource.status() == (healthy, Counters(0, 0, 0, 131032, 40))
    assert resource.status(resource.b)[0] == replace(healthy, local_role="Secondary", peer_role="Primary")
    assert (on_a.ran, on_b.ran) == ([("cat", "/proc/drbd")], [("cat", "/proc/drbd")])


def test_status_of_9_is_its_json() -> None:
    resource, on_a, _ = adopted("9")
    state, counters = resource.status()
    assert state == State("Connected", "Primary", "Secondary", "UpToDate", "UpToDate", "Established")
    assert counters == Counters(138432, 0, 138432, 131032, 31680)
    assert on_a.ran == [("drbdsetup", "status", "--json", "--statistics", "r0")]


@pytest.mark.parametrize(
    ("generation", "command", "printed", "message"),
    [
        (
            "8.4",
            "/proc/drbd",
            "version: 8.4.11 (x)\n 0: cs:Unconfigured\n",
            "minor 0 of resource 'r0'",
        ),
        ("8.4", "/proc/drbd", "", "it has no version line"),
        ("9", "drbdsetup status", "[]", "knows no volume 0 of resource 'r0'"),
        ("9", "drbdsetup status", "r0 role:Primary", "Expecting value"),
    ],
)
def test_status_that_cannot_be_read_is_infrastructure_error(
    generation: str, command: str, printed: str, message: str
) -> None:
    resource, on_a, _ = adopted(generation)
    on_a.answers = {command: printed}
    with pytest.raises(InfrastructureError, match=f"the status of DRBD on nodea cannot be read: .*{message}"):
        resource.status()


def test_status_before_create_is_infrastructure_error() -> None:
    resource, on_a, _ = new()
    for early in (resource.status, resource.verify, lambda: resource.events(resource.b)):
        with pytest.raises(InfrastructureError, match="r0 was neither created nor taken over"):
            early()
    assert not [argv for argv in on_a.ran if argv[0].startswith("drbd")]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_raw_status_is_verbatim(generation: str) -> None:
    resource, on_a, _ = adopted(generation)
    status = on_a.answers["/proc/drbd" if generation == "8.4" else "drbdsetup status"]
    assert resource.raw_status(resource.a) == {"status": status, "events2": "\n".join(on_a.before) + "\n"}


# --------------------------------------------------------------------------- verify


def test_verify_of_8_4_finds_exactly_what_was_planted() -> None:
    resource, on_a, on_b = verified("8.4")
    verify, raw_a, raw_b = resource.verify()
    assert verify.complete and (verify.source.node, verify.target.node) == ("nodea", "nodeb")
    assert verify.source.extents == verify.target.extents == PLANTED
    assert (verify.source.found_blocks, verify.skipped_blocks) == (10, 0)
    assert on_a.drbd() == ["drbdadm -- --start=0 verify r0/0"] and on_b.drbd() == []
    assert "Starting Online Verify from sector 0" in raw_a and "Online Verify start sector: 0" in raw_b


def test_verify_of_9_finds_what_both_logs_have() -> None:
    resource, on_a, _ = verified("9")
    verify, raw_a, _ = resource.verify()
    assert verify.complete and verify.source.found_blocks == 7920
    assert verify.source.extents[:2] == verify.target.extents[:2] == (Extent(0, 16), Extent(24, 56))
    assert on_a.drbd() == ["drbdadm verify --start=0 r0/0"]
    assert "Online verify found 7920 4k blocks out of sync!" in raw_a


def test_verify_reads_only_the_log_behind_its_own_marker() -> None:
    resource, on_a, on_b = verified("8.4")
    earlier = "6,1,1,-;drbd r0/0 drbd0: Out of sync: start=4096, size=8 (sectors)\n"
    on_a.log(earlier)
    on_b.log(earlier)
    verify, raw_a, _ = resource.verify()
    assert verify.source.extents == PLANTED and "start=4096" not in raw_a


def test_verify_that_only_one_node_logged_is_not_borrowed_by_the_other() -> None:
    resource, _, on_b = verified("8.4")
    on_b.log = lambda text: None  # type: ignore[method-assign]
    verify, _, raw_b = resource.verify()
    assert verify.complete and not verify.target.started and verify.target.extents == ()
    assert "Online" not in raw_b


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_that_never_begins_is_deadline_error(generation: str) -> None:
    resource, on_a, _ = verified(generation, SOON)
    resource.blocks = 0  # a device gets time by its size
    on_a.happens = {}
    with pytest.raises(DeadlineError, match="the start of the verify did not happen within 0 s"):
        resource.verify()


def test_verify_that_does_nothing_is_not_waited_for_as_long_as_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "START_SECONDS", 0.05)
    resource, on_a, _ = verified("8.4")
    on_a.happens = {}
    began = time.monotonic()
    with pytest.raises(DeadlineError, match="the start of the verify did not happen within 0 s"):
        resource.verify()
    assert time.monotonic() - began < resource.spec.verify_seconds / 4


@pytest.mark.parametrize("generation", GENERATIONS)
def test_verify_that_never_ends_is_deadline_error(generation: str) -> None:
    resource, on_a, _ = verified(generation, SOON)
    resource.blocks = 0  # a device gets time by its size
    started = events_between("events2-planted-nodea.txt", "replication:VerifyS", "call helper")[:1]
    on_a.happens = {"--start=0": lambda: on_a.tell(*(line.replace("peer-node-id:0 conn-name:peer", PEER[generation])
                                                     for line in started))}  # fmt: skip
    with pytest.raises(DeadlineError, match="the end of the verify did not happen within 0 s"):
        resource.verify()


def test_verify_when_the_node_is_lost_is_lost_node_error() -> None:
    resource, on_a, _ = verified("8.4")
    on_a.happens = {"verify r0/0": lambda: on_a.events.end("no power")}
    with pytest.raises(LostNodeError, match="events2 ended while waiting for the start of the verify: no power"):
        resource.verify()


# --------------------------------------------------------------------------- repair

PEER = {"8.4": "peer-node-id:0 conn-name:peer", "9": "peer-node-id:1 conn-name:nodeb"}


def _resync(generation: str) -> list[str]:
    """A resync as events2 tells it, on the side of the source.

    Of invalidate-remote only kernel logs were recorded (repair-invalidate-remote-reset-bitmap-no.txt): these are its
    changes of pdsk and repl.
    """
    changes = [("WFBitMapS", "Consistent"), ("WFBitMapS", "Outdated"), ("SyncSource", "Inconsistent"),
               ("Established", "UpToDate")]  # fmt: skip
    return [
        f"change peer-device name:r0 {PEER[generation]} volume:0 replication:{replication} peer-disk:{disk}"
        for replication, disk in changes
    ]


def repairable(generation: str, spec: ResourceSpec | None = None) -> tuple[Resource, RecordedRunner]:
    """A resource on which each way of a resync works."""
    resource, on_a, _ = adopted(generation, spec)
    if generation == "8.4":
        apart = events_between("events2-planted-nodea.txt", "connection:Disconnecting", "destroy connection")
        again = events_between(
            "events2-planted-nodea.txt", "create connection", "sent:40 out-of-sync:0", behind=apart[-1]
        )
        on_a.happens |= {"drbdadm disconnect": lambda: on_a.tell(*apart), "drbdadm connect": lambda: on_a.tell(*again)}
    on_a.happens["drbdadm invalidate-remote"] = lambda: on_a.tell(*_resync(generation))
    return resource, on_a


@pytest.mark.parametrize(
    ("generation", "method", "commands"),
    [
        ("8.4", "disconnect + connect", ["drbdadm disconnect r0", "drbdadm connect r0"]),
        ("9", "invalidate-remote --reset-bitmap=no", ["drbdadm invalidate-remote --reset-bitmap=no r0"]),
    ],
)
def test_repair_resyncs_what_was_marked(generation: str, method: str, commands: list[str]) -> None:
    resource, on_a = repairable(generation)
    repair = resource.repair(lambda: 0)
    assert (repair.method, repair.differing_after) == (method, 0)
    assert on_a.drbd() == commands


@pytest.mark.parametrize("generation", GENERATIONS)
def test_repair_that_the_comparison_denies_resyncs_everything(generation: str) -> None:
    resource, on_a = repairable(generation)
    left = iter([7920, 3])
    repair = resource.repair(lambda: next(left))
    assert repair.method == f"{resource.dialect.resync_of_marked}, then invalidate-remote"
    assert repair.differing_after == 3, "the comparison has the last say"
    assert on_a.drbd()[-1] == "drbdadm invalidate-remote r0"


@pytest.mark.parametrize(
    ("generation", "silent", "what"),
    [
        ("8.4", "drbdadm disconnect", "StandAlone after disconnect"),
        ("8.4", "drbdadm connect", "UpToDate/UpToDate after a resync"),
        ("9", "drbdadm invalidate-remote", "the start of the resync"),
    ],
)
def test_repair_without_an_event_is_deadline_error(generation: str, silent: str, what: str) -> None:
    resource, on_a = repairable(generation, SOON)
    resource.blocks = 0  # a device gets time by its size
    del on_a.happens[silent]
    with pytest.raises(DeadlineError, match=f"{what} did not happen within 0 s"):
        resource.repair(lambda: pytest.fail("nothing was resynced that could be compared"))


def test_repair_of_9_does_not_take_the_state_before_for_the_end() -> None:
    resource, on_a = repairable("9", SOON)
    resource.blocks = 0  # a device gets time by its size
    counted = f"change peer-device name:r0 {PEER['9']} volume:0 sent:138440"  # nothing has begun yet
    on_a.happens["drbdadm invalidate-remote"] = lambda: on_a.tell(counted, *_resync("9")[:-1])
    with pytest.raises(DeadlineError, match="UpToDate/UpToDate after a resync"):
        resource.repair(lambda: 0)


# --------------------------------------------------------------------------- create, rejoin, down


def creatable(generation: str, spec: ResourceSpec | None = None) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """A resource whose nodes come up as recorded when they are told to."""
    resource, on_a, on_b = new(spec)
    rest: list[tuple[RecordedRunner, list[str]]] = []
    for runner in (on_a, on_b):
        name = f"events2-planted-{runner.host}.txt" if generation == "8.4" else "events2-first-sync-and-verify.txt"
        folder = DRBD_84 if generation == "8.4" else DRBD_9
        lines = (folder / name).read_text().splitlines()
        up = next(n for n, line in enumerate(lines) if "peer-disk:Inconsistent" in line) + 1
        equal = next(n for n, line in enumerate(lines) if "peer-disk:UpToDate" in line) + 1
        proc = "proc-drbd-planted-nodea.txt" if generation == "8.4" else "proc-drbd.txt"
        runner.answers = {"/proc/drbd": (folder / proc).read_text(), "/sys/class/block/drbd0/size": "262064\n"}
        runner.happens = {"drbdadm up": partial(runner.tell, *lines[:up])}

        rest.append((runner, lines[up:equal]))

    def become_equal() -> None:
        for runner, lines in rest:
            runner.tell(*lines)

    on_a.happens |= {"new-current-uuid": become_equal, "primary --force": become_equal}
    return resource, on_a, on_b


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


# --------------------------------------------------------------------------- events and both


def test_wait_without_a_cursor_takes_the_present_state_and_with_one_does_not() -> None:
    resource, _, _ = adopted("8.4")
    events = resource.events(resource.a)
    soon = Deadline.after(0.02, "it")
    assert events.wait(lambda state: state.healthy, "healthy", soon) == events.cursor()
    with pytest.raises(DeadlineError, match="healthy again did not happen"):
        events.wait(lambda state: state.healthy, "healthy again", soon, events.cursor())


def test_wait_folds_what_was_before_the_cursor_into_the_state() -> None:
    resource, on_a, _ = adopted("8.4")
    events = resource.events(resource.a)
    cursor = events.cursor()
    on_a.tell("change resource name:r0 role:Secondary")
    seen: list[State] = []
    events.wait(lambda state: bool(seen.append(state)) or True, "a change", Deadline.after(5, "it"), cursor)
    assert seen == [State("Connected", "Secondary", "Secondary", "UpToDate", "UpToDate")]


def test_both_returns_what_each_node_did_and_raises_the_first_error() -> None:
    (a, _), (b, _) = node("nodea"), node("nodeb")
    assert both(lambda one: one.name, a, b) == ("nodea", "nodeb")
    done: list[str] = []

    def step(one: Node) -> None:
        if one is a:
            raise CommandError(one.name, ["x"], 1, "", "no")
        done.append(one.name)

    with pytest.raises(CommandError, match="on nodea, 'x' ended with status 1: no"):
        both(step, a, b)
    assert done == ["nodeb"], "the other one is not left half way"


# --------------------------------------------------------------------------- the scripts, against tools that log


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every tool of a node logs how it was called; there was no resource and no mapping before."""
    (tmp_path / "bin").mkdir()
    for name, body in {"modprobe": "", "drbdsetup": "exit 10", "drbdadm": "", "blockdev": "echo 2048",
                       "udevadm": "", "dmsetup": '[ "$1" != remove ]'}.items():  # fmt: skip
        tool = tmp_path / "bin" / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body}\n')
        tool.chmod(0o755)
    (tmp_path / "vdb").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    return tmp_path


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
