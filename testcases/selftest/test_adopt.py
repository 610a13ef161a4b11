"""Taking over a resource that runs: what is read, what is left alone, and when it is refused.

``drbdsetup show`` was recorded of one node, with DRBD 8.4 and ``--show-defaults``.  The other node's is that with the
addresses swapped; that of DRBD 9 is written after the source of drbd-utils.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from recorded_nodes import ADDRESSES, SHOW_9, SHOW_84, Answers, RecordedRunner, mirrored, running

from harness.drbd import replication
from harness.drbd.resource import Resource
from harness.errors import DeadlineError, InfrastructureError, LostNodeError
from harness.model import Protocol, ReplicationProfile
from harness.remote.scripted import Answer
from harness.render.drbd_conf import SIGNATURE, ResourceNode, ResourceSpec

GENERATIONS = ["8.4", "9"]
Change = Callable[[str], str]
SHOW = {"8.4": SHOW_84, "9": SHOW_9}


def adopt(
    generation: str, on_a: Answers | None = None, on_b: Answers | None = None, spec: ResourceSpec | None = None
) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """Take over a resource of which one or both nodes answer otherwise."""
    (a, runner_a), (b, runner_b) = running("nodea", generation, on_a), running("nodeb", generation, on_b)
    return Resource.adopt(a, b, spec=spec), runner_a, runner_b


def shown(generation: str, change: Change, *, of_b: bool = False) -> dict[str, Answer | str]:
    """The answers of a node whose resource is configured otherwise; ``of_b``: of nodeb."""
    show = change(mirrored(SHOW[generation]) if of_b else SHOW[generation])
    return {
        "--show-defaults": f"{show}== parameter\nN\n== link\nscatter-gather: on\n",
        "drbdsetup show": f"{show}== file\n{SIGNATURE}\n",
    }


def everywhere(generation: str, change: Change) -> tuple[dict[str, Answer | str], dict[str, Answer | str]]:
    """The answers of both nodes of a resource that is configured otherwise on both."""
    return shown(generation, change), shown(generation, change, of_b=True)


def unsigned(show: dict[str, Answer | str]) -> dict[str, Answer | str]:
    """The same where the resource file is somebody else's."""
    return {piece: str(answer).replace(SIGNATURE, "resource r0 {") for piece, answer in show.items()}


def printed(name: str, generation: str, command: str) -> str:
    """What a node prints where nothing was changed."""
    return str(running(name, generation)[1].answers[command])


def same(text: str) -> str:
    """Nothing changed."""
    return text


# --------------------------------------------------------------------------- what is read and what is left alone


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_reads_the_resource_that_runs(generation: str) -> None:
    resource, _, _ = adopt(generation)
    assert resource.dialect.generation == generation
    assert (resource.spec.minor, resource.spec.port, resource.device) == (0, 7789, "/dev/drbd0")
    assert resource.spec.nodes == tuple(
        ResourceNode(name, address, "/dev/mapper/drbd-lower") for name, address in ADDRESSES.items()
    )
    assert (resource.replication, resource.owns_files) == (ReplicationProfile(), True)
    assert dict(resource.net) | {"max-buffers": "8192", "verify-alg": "crc32c"} == dict(resource.net)
    assert (
        not {"protocol", "data-integrity-alg", "allow-two-primaries", "ping-timeout", "_name"}
        & dict(resource.net).keys()
    )
    assert resource.blocks == 32758
    assert resource.status()[0].healthy and resource.events(resource.b).cursor() > 0


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_changes_nothing_on_the_nodes(generation: str) -> None:
    _, *runners = adopt(generation)
    for runner in runners:
        assert runner.drbd() == [] and runner.written == {} and runner.given == []
        changing = ("create-md", " down", " up", "dmsetup load", "dmsetup create", "modprobe", " > ", "tc qdisc")
        ran = [" ".join(argv).replace("2>/dev/null", "") for argv in runner.ran]
        assert not [line for line in ran for piece in changing if piece in line]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_reads_another_minor_port_and_profile(generation: str) -> None:
    def change(show: str) -> str:
        show = show.replace("minor 0", "minor 4").replace(":7789", ":7800")
        # 8.4 was recorded with its defaults, which an option of the same name takes the place of.
        options = 'protocol A; data-integrity-alg "crc32c"; ko-count 3; verify-alg      \t"crc32c"'
        for default in ("protocol        \tC;", 'data-integrity-alg\t"";', "ko-count        \t7;"):
            show = show.replace(default, "")
        return show.replace('verify-alg      \t"crc32c"', options)

    on_a, on_b = everywhere(generation, change)
    if generation == "8.4":
        for name, answers in (("nodea", on_a), ("nodeb", on_b)):
            answers["/proc/drbd"] = printed(name, "8.4", "/proc/drbd").replace(" 0: cs", " 4: cs")
    on_a["/sys/class/block/drbd4/size"] = "2048\n"
    resource, _, _ = adopt(generation, on_a, on_b)
    assert (resource.device, resource.spec.port, resource.blocks) == ("/dev/drbd4", 7800, 256)
    profile = ReplicationProfile(Protocol.A, "crc32c")
    assert resource.replication == profile
    assert dict(resource.net)["ko-count"] == "3"
    rendered = resource.dialect.resource_file(resource.spec)
    assert "protocol A;" in rendered and "data-integrity-alg crc32c;" in rendered and "ko-count 3;" in rendered, (
        "a node that boots gets the resource file of the profile in force"
    )


def test_adopt_takes_name_mapping_paths_and_times_as_it_is_told() -> None:
    spec = ResourceSpec(minor=9, port=1, mapping="slow", directory="/etc/drbd", verify_seconds=7)
    on_a, on_b = everywhere(
        "8.4", lambda show: show.replace("resource r0", "resource other").replace("drbd-lower", "slow")
    )
    (a, runner_a), (b, runner_b) = running("nodea", "8.4", on_a), running("nodeb", "8.4", on_b)
    for runner in (runner_a, runner_b):
        runner.before = [line.replace("name:r0", "name:other") for line in runner.before]
    with pytest.raises(InfrastructureError, match="there is no r0 to take over on nodea"):
        Resource.adopt(a, b, spec=spec)
    adopted = Resource.adopt(a, b, "other", spec=spec).spec
    assert (adopted.name, adopted.mapping, adopted.path, adopted.verify_seconds) == (
        "other", "slow", "/etc/drbd/other.res", 7
    )  # fmt: skip
    assert (adopted.minor, adopted.port) == (0, 7789), "these are read"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_of_a_file_without_signature_never_writes_it(generation: str) -> None:
    on_a, on_b = (unsigned(show) for show in everywhere(generation, same))
    for first, second in ((on_a, on_b), (None, on_b), (on_a, None)):
        resource, runner_a, runner_b = adopt(generation, first, second)
        runner_b.ran.clear()
        for write in (
            lambda resource=resource: resource.write_configuration(resource.a),
            lambda resource=resource: resource.create(skip_initial_sync=False),
            lambda resource=resource: replication.apply(resource, ReplicationProfile(protocol=Protocol.A)),
        ):
            with pytest.raises(InfrastructureError, match=r"/etc/drbd\.d/r0\.res was not written by the harness"):
                write()
        assert resource.replication == ReplicationProfile()
        resource.rejoin(resource.b)
        assert runner_b.ran[0][-2] == "" and runner_b.given == [], "it comes up with the file that is there"
        assert runner_b.drbd() == ["drbdadm up r0"]
        assert runner_a.written == runner_b.written == {} and runner_a.drbd() == []


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_of_another_lower_device_has_no_mapping(generation: str) -> None:
    on_a, on_b = everywhere(generation, lambda show: show.replace("/dev/mapper/drbd-lower", "/dev/vdb"))
    here: dict[str, Answer | str] = {"readlink": "254:16\nsame\n"}
    resource, runner_a, _ = adopt(generation, on_a | here, on_b | here)
    assert resource.spec.mapping == "" and resource.spec.nodes[0].disk == "/dev/vdb"
    with pytest.raises(InfrastructureError, match="can be neither delayed nor broken"):
        resource.break_disk(resource.a)
    assert not [argv for argv in runner_a.ran if "dmsetup load" in " ".join(argv)]


# --------------------------------------------------------------------------- when it is refused


def refused(generation: str, message: str, on_a: Answers | None = None, on_b: Answers | None = None) -> None:
    with pytest.raises(InfrastructureError, match=message):
        adopt(generation, on_a, on_b)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_where_drbd_is_not_loaded_is_refused(generation: str) -> None:
    answer: Answers = {"/proc/drbd": (1, "", "cat: /proc/drbd: No such file or directory")}
    refused(generation, "DRBD is not loaded on nodeb: there is no r0 to take over", None, answer)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("show", ["", "# No currently configured DRBD found.\n", 'resource "other" {\n}\n'])
def test_adopt_of_a_resource_that_is_not_there_is_refused(generation: str, show: str) -> None:
    answer: Answers = {"drbdsetup show": f"{show}== file\n"}
    refused(generation, "there is no r0 to take over on nodea: drbdsetup shows no resource 'r0'", answer)


@pytest.mark.parametrize(
    ("generation", "command", "old", "new"),
    [
        ("8.4", "/proc/drbd", "cs:Connected ro:Primary/Secondary", "cs:StandAlone ro:Primary/Unknown"),
        ("8.4", "/proc/drbd", "cs:Connected ro:Primary/Secondary", "cs:WFConnection ro:Primary/Unknown"),
        ("9", "drbdsetup status", '"connection-state": "Connected"', '"connection-state": "StandAlone"'),
        ("9", "drbdsetup status", '"connection-state": "Connected"', '"connection-state": "Connecting"'),
    ],
)
def test_adopt_of_a_resource_that_is_not_connected_is_refused(
    generation: str, command: str, old: str, new: str
) -> None:
    text = printed("nodea", generation, command)
    assert old in text
    message = "r0 on nodea is (StandAlone|Connecting): connect its two nodes first"
    refused(generation, message, {command: text.replace(old, new)})


def test_adopt_of_8_4_that_has_forgotten_its_connection_says_that_it_is_standalone() -> None:
    # 8.4 forgets the whole connection when it disconnects.
    text = printed("nodea", "8.4", "/proc/drbd").replace("cs:Connected", "cs:StandAlone")
    answers = shown("8.4", lambda show: show[: show.index("    _remote_host")] + show[show.index("    _this_host") :])
    refused("8.4", "r0 on nodea is StandAlone", answers | {"/proc/drbd": text})


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_of_two_volumes_is_refused(generation: str) -> None:
    answers = shown(
        generation, lambda show: show.replace("volume 0 {\n", "volume 1 { device minor 1; }\nvolume 0 {\n", 1)
    )
    refused(generation, "r0 on nodea has 2 volumes; the harness works with volume 0 and no other", answers)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_of_another_volume_is_refused(generation: str) -> None:
    answers = shown(generation, lambda show: show.replace("volume 0 {", "volume 1 {"))
    refused(generation, "works with volume 0 and no other", answers)


def test_adopt_of_two_peers_is_refused() -> None:
    def change(show: str) -> str:
        connection = show[show.index("    connection {") : show.rindex("}")]
        return show.replace(connection, connection + connection)

    refused("9", "r0 on nodea has 2 peers; the harness needs one", shown("9", change))


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_over_another_link_is_refused(generation: str) -> None:
    answers = shown(generation, lambda show: show.replace("192.168.77.1", "10.0.0.1"))
    refused(generation, r"replicates from 10\.0\.0\.1, and not from 192\.168\.77\.1, the address on repl0", answers)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_without_a_lower_device_is_refused(generation: str) -> None:
    answers = shown(generation, lambda show: show.replace('disk\t\t\t"/dev/mapper/drbd-lower"', "disk\t\t\tnone"))
    refused(generation, "r0 on nodea has no lower device: attach it first", answers)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(
    "below",
    [
        "254:16\n0 262144 linear 254:32 0\n", "254:16\n0 262144 linear 254:16 2048\n", "254:16\n0 262144 error\n",
        "254:16\n", "",
    ],
)  # fmt: skip
def test_adopt_of_data_kept_elsewhere_is_refused(generation: str, below: str) -> None:
    # Else a control would overwrite, and the comparison read, a disk that is none of the resource's.
    message = (
        r"r0 on nodea keeps its data on /dev/mapper/drbd-lower, which is not /dev/vdb, the device that is compared"
    )
    refused(generation, message, {"readlink": below})


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":7789", ":7800", r"the port \(7789 and 7800\)"),
        (
            "192.168.77.1:",
            "192.168.77.9:",
            r"address of nodea \(192\.168\.77\.1 port 7789 and 192\.168\.77\.9 port",
        ),
        ("max-buffers     \t8192", "max-buffers\t4096", "the net option max-buffers$"),
        ("max-buffers ", "load-balance-paths yes;\nmax-buffers ", "the net option load-balance-paths$"),
        ("verify-alg ", "protocol A;\nverify-alg ", r"how it replicates \(plain and protoA\)"),
    ],
)
def test_adopt_of_two_that_are_configured_differently_is_refused(
    generation: str, old: str, new: str, message: str
) -> None:
    def change(show: str) -> str:
        # 8.4 was recorded with its defaults.
        return show.replace("protocol        \tC;", "").replace(old, new)

    answers = shown(generation, change, of_b=True)
    refused(generation, f"r0 cannot be taken over: nodea and nodeb disagree about .*{message}", None, answers)


def test_adopt_does_not_print_a_secret() -> None:
    answers = shown("9", lambda show: show.replace("max-buffers ", 'shared-secret "hidden";\nmax-buffers '), of_b=True)
    with pytest.raises(InfrastructureError) as caught:
        adopt("9", None, answers)
    assert "shared-secret" in str(caught.value) and "hidden" not in str(caught.value)


def test_adopt_of_two_minors_is_refused() -> None:
    text = printed("nodeb", "8.4", "/proc/drbd").replace(" 0: cs", " 3: cs")
    answers = shown("8.4", lambda show: show.replace("minor 0", "minor 3"), of_b=True) | {"/proc/drbd": text}
    refused("8.4", r"disagree about the minor \(0 and 3\)$", None, answers)


def test_adopt_of_two_generations_is_refused() -> None:
    (a, _), (b, _) = running("nodea", "8.4"), running("nodeb", "9")
    with pytest.raises(InfrastructureError, match=r"disagree about the generation of DRBD \(8\.4 and 9\)"):
        Resource.adopt(a, b)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_of_roles_that_contradict_each_other_is_refused(generation: str) -> None:
    command = "/proc/drbd" if generation == "8.4" else "drbdsetup status"
    text = printed("nodea", generation, command)
    message = r"the role of nodea \(Primary and Secondary\), the role of nodeb \(Secondary and Primary\)$"
    refused(generation, message, None, {command: text})


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_of_an_unreadable_status_is_refused(generation: str) -> None:
    command = "/proc/drbd" if generation == "8.4" else "drbdsetup status"
    text = "version: 8.4.11 (x)\n" if generation == "8.4" else "[]"
    refused(generation, "the status of r0 on nodea cannot be read", {command: text})


def test_adopt_of_an_unknown_generation_is_refused() -> None:
    refused(
        "9", r"the nodes run DRBD 10\.0\.0a4, which the harness does not know", {"/proc/drbd": "version: 10.0.0a4\n"}
    )


def test_adopt_without_events_is_deadline_error() -> None:
    (a, on_a), (b, _) = running("nodea", "9"), running("nodeb", "9")
    on_a.before = []
    with pytest.raises(DeadlineError, match="Connected on nodea did not happen within 0 s"):
        Resource.adopt(a, b, spec=replace(ResourceSpec(), connect_seconds=0.05))


def test_adopt_with_a_lost_node_is_lost_node_error() -> None:
    (a, _), (b, on_b) = running("nodea", "8.4"), running("nodeb", "8.4")

    def gone() -> None:
        raise LostNodeError("nodeb does not answer")

    on_b.happens = {"drbdsetup show": gone}
    with pytest.raises(LostNodeError, match="nodeb does not answer"):
        Resource.adopt(a, b)
