"""What tc and dmsetup print of the delays that are on, and what is done on a node to put them on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drbd import delays, faults
from harness.errors import CommandError, InfrastructureError
from harness.lab.node import Node
from harness.model import DelayProfile
from harness.parse.delays import dm_delays_ms, dm_origin, netem_delay_ms
from harness.remote.local import LocalRunner
from harness.remote.scripted import Answer, ScriptedRunner
from harness.remote.ssh import SshRunner
from harness.render.drbd_conf import ResourceSpec

# Printed by iproute2 6.1.
NOQUEUE = '[{"kind":"noqueue","handle":"0:","root":true,"refcnt":2,"options":{}}]\n'
PRIO = {"kind": "prio", "handle": "1:", "root": True, "options": {"bands": 3, "priomap": [0] * 16, "multiqueue": False}}


def netem(delay: object) -> str:
    """As the source of iproute2 has it, seconds, below the queue of the harness; no lab's own output was recorded."""
    options = {"limit": 20000, "delay": {"delay": delay, "jitter": 0, "correlation": 0}, "ecn": False, "gap": 0}
    return json.dumps([PRIO, {"kind": "netem", "handle": "30:", "parent": "1:3", "options": options}])


@pytest.mark.parametrize(
    ("printed", "delay"),
    [
        (netem(0.02), 20),
        (netem(0.019999), 20),
        (netem(1), 1000),
        (netem(1.5), 1500),
        (netem(0.0014), 1),
        (netem(0.0000011), 1),
        (json.dumps([*json.loads(netem(0)), *json.loads(netem(0.02)), *json.loads(netem(0.001))]), 20),
        (json.dumps([{"kind": "netem", "handle": "1:", "options": {"limit": 1000, "loss-random": {"loss": 1}}}]), 0),
        (json.dumps([PRIO, {"kind": "fq_codel", "options": {"target": 4999, "delay": {"delay": 0.009}}}]), 0),
        (NOQUEUE, 0),
        ("[]", 0),
    ],
)
def test_netem_delay_ms_of_queues_is_the_delay(printed: str, delay: int) -> None:
    assert netem_delay_ms(printed) == delay


@pytest.mark.parametrize(
    "printed",
    [
        "", "qdisc netem 8001: root refcnt 2 limit 20000 delay 20ms", "{}", "7", netem("20ms"), netem(None), netem(-1),
        netem(float("nan")), netem([]), '[{"kind":"netem"}]', '[{"kind":"netem","options":{"delay":3}}]',
    ],
)  # fmt: skip
def test_netem_delay_ms_of_other_text_is_an_error(printed: str) -> None:
    with pytest.raises(ValueError, match="tc printed"):
        netem_delay_ms(printed)


@pytest.mark.parametrize(
    ("table", "delay"),
    [
        ("0 262144 linear 254:16 0", (0, 0)),
        ("0 262144 delay 254:16 0 0 254:16 0 20", (20, 0)),
        ("0 262144 delay 254:16 0 3 254:16 0 20 254:16 0 40\n", (20, 40)),
        ("0 262144 delay 254:16 0 0 254:16 0 0 254:16 0 8", (0, 8)),
        ("0 262144 delay 254:16 0 15", (15, 0)),
        ("0 262144 delay 254:16 0 15 254:16 0 0", (15, 0)),
        ("0 8 linear 254:16 0\n8 8 delay 254:16 8 0 254:16 8 7\n", (7, 0)),
        ("0 262144 error", (0, 0)),
        ("\n0 262144 linear 254:16 0\n", (0, 0)),
    ],
)
def test_dm_delays_ms_of_table_is_the_longest(table: str, delay: tuple[int, int]) -> None:
    assert dm_delays_ms(table) == delay


@pytest.mark.parametrize(
    "table", ["", "\n", "0 262144 delay", "0 262144 delay 254:16 0", "0 8 delay 8:0 0 x", "0 8 delay 8:0 0 0 8:0 0 -1"]
)
def test_dm_delays_ms_of_no_table_or_no_number_is_an_error(table: str) -> None:
    with pytest.raises(ValueError, match="dmsetup printed"):
        dm_delays_ms(table)


@pytest.mark.parametrize(
    ("table", "origin"),
    [
        ("0 262144 linear 254:16 0\n", "254:16"),
        ("0 262144 delay 254:16 0 0 254:16 0 20", "254:16"),
        ("0 262144 linear 254:16 2048", None),
        ("8 262144 linear 254:16 0", None),
        ("0 8 linear 254:16 0\n8 8 linear 254:32 0\n", None),
        ("0 262144 error", None),
        ("0 262144 crypt aes-xts-plain64 :64:logon:x 0 254:16 4096", None),
        ("", None),
    ],
)
def test_dm_origin_of_table_is_the_device_only_where_blocks_stay(table: str, origin: str | None) -> None:
    assert dm_origin(table) == origin


@given(st.integers(0, 10**6))
def test_netem_and_dm_delay_of_any_milliseconds_round_trip(delay: int) -> None:
    assert netem_delay_ms(netem(delay / 1000)) == delay
    assert dm_delays_ms(f"0 8 delay 8:0 0 0 8:0 0 {delay}") == (delay, 0)
    assert dm_delays_ms(f"0 8 delay 8:0 0 0 8:0 0 3 8:0 0 {delay}") == (3, delay)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["kind", "options", "delay", "x"]), inner),
)


@given(JSON | st.just("netem"), JSON)
def test_netem_delay_ms_of_any_json_raises_only_value_error(kind: object, options: object) -> None:
    for found in (options, [{"kind": kind, "options": options}], [{"kind": "netem", "options": {"delay": options}}]):
        try:
            assert netem_delay_ms(json.dumps(found)) >= 0
        except ValueError as error:
            assert "tc printed" in str(error)


@given(st.text(max_size=80))
def test_dm_tables_of_any_text_are_no_delay_and_no_error(text: str) -> None:
    if text.strip():
        assert dm_delays_ms(text) == (0, 0)
    assert dm_origin(text) is None or text.split()[2] in ("linear", "delay")


# --------------------------------------------------------------------------- on a node


def node(answer: Answer = (0, "", "")) -> tuple[Node, ScriptedRunner]:
    runner = ScriptedRunner(lambda argv: answer, "nodea")
    return Node("nodea", cast(SshRunner, runner), "repl0", "192.0.2.1", "/dev/vdb", "test:///default"), runner


def test_apply_hands_the_node_all_that_the_spec_says() -> None:
    one, runner = node()
    delays.apply(one, ResourceSpec(port=7800, mapping="slow"), DelayProfile(20, 5))
    (argv,) = runner.ran
    assert argv[:2] == ("sh", "-c") and argv[4:] == ("repl0", "20", "5", "0", "/dev/vdb", "7800", "slow")


def test_observed_reads_both_delays_in_one_round_trip() -> None:
    one, runner = node((0, f"{netem(0.02)}\n==\n0 262144 delay 254:16 0 0 254:16 0 5\n", ""))
    assert delays.observed(one, ResourceSpec(mapping="slow")) == DelayProfile(20, 5)
    assert [argv[4:] for argv in runner.ran] == [("repl0", "slow")]


def test_observed_without_an_answer_of_tc_is_infrastructure_error() -> None:
    one, _ = node((0, "==\n0 262144 linear 254:16 0\n", 'Cannot find device "repl0"\n'))
    with pytest.raises(InfrastructureError, match="the delays on nodea cannot be read back: tc printed no JSON"):
        delays.observed(one, ResourceSpec())


@pytest.mark.parametrize("answer", ["[]\n==\n", "[]\n", "[]\n==\n0 8 delay 8:0 0\n"])
def test_observed_without_a_table_of_the_mapping_is_infrastructure_error(answer: str) -> None:
    one, _ = node((0, answer, ""))
    with pytest.raises(InfrastructureError, match="the delays on nodea cannot be read back: dmsetup printed"):
        delays.observed(one, ResourceSpec(mapping="slow"))


def test_observed_without_a_mapping_asks_for_the_link_alone() -> None:
    one, _ = node((0, f"{netem(0.02)}\n==\n", ""))
    assert delays.observed(one, ResourceSpec(mapping="")) == DelayProfile(20, 0)


def test_delaying_or_breaking_a_disk_without_mapping_is_infrastructure_error() -> None:
    one, runner = node()
    spec = ResourceSpec(mapping="")
    for step in (lambda: delays.apply(one, spec, DelayProfile(0, 5)), lambda: delays.break_disk(one, spec)):
        with pytest.raises(InfrastructureError, match="lower device of r0 on nodea is no device-mapper table"):
            step()
    assert runner.ran == []
    delays.apply(one, spec, DelayProfile(20, 0))
    assert runner.ran[0][-1] == "", "the link alone can be delayed"


# The scripts themselves, against tools that write down how they were called.

TABLES = {
    "plain": "0 2048 linear 8:16 0",
    "delayed": "0 2048 delay 8:16 0 0 8:16 0 5",
    "broken": "0 2048 error",
}


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tc, dmsetup and blockdev that log their arguments; ``table`` is what dmsetup prints."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, body in {
        "tc": f'[ "$2" = show ] && cat {tmp_path}/qdisc',
        "dmsetup": f'[ "$1" = table ] && cat {tmp_path}/table',
        "blockdev": "echo 2048",
    }.items():
        tool = bin_ / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n{body or ":"}\ntrue\n')
        tool.chmod(0o755)
    (tmp_path / "table").write_text(TABLES["plain"])
    (tmp_path / "qdisc").write_text("qdisc noqueue 0: root refcnt 2 \n")
    (tmp_path / "vdb").touch()
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    return tmp_path


def calls(tools: Path) -> list[str]:
    only_read = ("blockdev", "dmsetup ta", "tc qdisc show")
    return [line for line in (tools / "calls").read_text().splitlines() if not line.startswith(only_read)]


def here(tools: Path) -> Node:
    return Node("nodea", cast(SshRunner, LocalRunner()), "repl0", "192.0.2.1", str(tools / "vdb"), "test:///default")


def test_apply_script_delays_only_the_resources_port(tools: Path) -> None:
    delays.apply(here(tools), ResourceSpec(port=7800), DelayProfile(20, 0))
    assert calls(tools) == [
        "tc qdisc del dev repl0 root",
        "tc qdisc add dev repl0 root handle 1: prio bands 3 priomap 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
        "tc qdisc add dev repl0 parent 1:3 handle 30: netem delay 20ms limit 20000",
        "tc filter add dev repl0 parent 1: protocol ip u32 match ip sport 7800 0xffff flowid 1:3",
        "tc filter add dev repl0 parent 1: protocol ip u32 match ip dport 7800 0xffff flowid 1:3",
    ], "a linear table that is right already is not suspended"


@pytest.mark.parametrize(
    ("before", "disk_ms", "flush_ms", "table"),
    [
        ("plain", 0, 9, "0 2048 delay {0} 0 0 {0} 0 0 {0} 0 9"),
        ("delayed", 7, 9, "0 2048 delay {0} 0 0 {0} 0 7 {0} 0 9"),
        ("plain", 7, 0, "0 2048 delay {0} 0 0 {0} 0 7"),
        ("delayed", 7, 0, "0 2048 delay {0} 0 0 {0} 0 7"),
        ("delayed", 0, 0, "0 2048 linear {0} 0"),
        ("broken", 0, 0, "0 2048 linear {0} 0"),
        ("plain", 0, 0, None),
    ],
)
def test_apply_script_replaces_the_table_where_it_differs(
    tools: Path, before: str, disk_ms: int, flush_ms: int, table: str | None
) -> None:
    (tools / "table").write_text(TABLES[before])
    delays.apply(here(tools), ResourceSpec(mapping="slow"), DelayProfile(0, disk_ms, flush_ms))
    replaced = [
        f"dmsetup load slow --table {table.format(tools / 'vdb')}", "dmsetup suspend slow", "dmsetup resume slow"
    ] if table else []  # fmt: skip
    assert calls(tools) == ["tc qdisc del dev repl0 root", *replaced]


# As iproute2 6.15 prints them.
@pytest.mark.parametrize(
    ("qdisc", "is_ours"),
    [
        ("qdisc mq 0: root \nqdisc fq_codel 0: parent :1 limit 10240p flows 1024\n", True),
        (
            "qdisc prio 1: root refcnt 2 bands 3 priomap 0 0 0 0\nqdisc netem 30: parent 1:3 limit 20000 delay 20ms\n",
            True,
        ),
        ("qdisc netem 8001: root refcnt 2 limit 1000 loss 100% seed 1\n", True),
        ("", True),
        ("qdisc tbf 8002: root refcnt 2 rate 1Gbit burst 1250b lat 50ms\n", False),
        ("qdisc netem 8001: root refcnt 2 limit 1000 delay 10ms\n", False),
        ("qdisc htb 1: root refcnt 2 r2q 10 default 0x30\nqdisc fq 0: parent 1:3\n", False),
    ],
)
def test_qdisc_that_somebody_put_there_since_is_neither_replaced_nor_taken_away(
    tools: Path, qdisc: str, is_ours: bool
) -> None:
    (tools / "qdisc").write_text(qdisc)
    node = here(tools)
    both = cast(Any, type("Two", (), {"a": node, "b": node}))
    for change in (
        lambda: delays.apply(node, ResourceSpec(mapping=""), DelayProfile(20, 0)),
        lambda: faults.cut_link(both),
        lambda: faults.join_link(both),
    ):
        if is_ours:
            change()
            continue
        with pytest.raises(CommandError, match="repl0 has a qdisc of somebody else's by now"):
            change()
    assert bool(calls(tools)) == is_ours


def test_apply_script_without_mapping_leaves_device_mapper_alone(tools: Path) -> None:
    (tools / "table").write_text(TABLES["delayed"])
    delays.apply(here(tools), ResourceSpec(mapping=""), DelayProfile(0, 0))
    assert calls(tools) == ["tc qdisc del dev repl0 root"]


def test_apply_script_that_fails_is_command_error(tools: Path) -> None:
    (tools / "bin" / "tc").write_text("#!/bin/sh\n[ \"$2\" = del ] || { echo 'Unknown qdisc' >&2; exit 2; }\n")
    with pytest.raises(CommandError, match="status 2: Unknown qdisc"):
        delays.apply(here(tools), ResourceSpec(), DelayProfile(20, 0))


# A node on which nobody may take a delay off: what tc and dmsetup say there is the kernel's "Operation not permitted",
# as both print it.
REFUSING = {
    "tc": f"""case "$*" in
    *"qdisc show"*) echo '{netem(0.02)}';;
    *"qdisc del"*) echo 'RTNETLINK answers: Operation not permitted' >&2; exit 2;;
esac""",
    "dmsetup": """case "$1" in
    table) echo '0 2048 delay 8:16 0 0 8:16 0 5';;
    *) echo 'device-mapper: reload ioctl on slow failed: Operation not permitted' >&2; exit 1;;
esac""",
}


def refusing(tools: Path, *names: str) -> Path:
    for name in names:
        (tools / "bin" / name).write_text(f"#!/bin/sh\n{REFUSING[name]}\n")
    return tools


def test_delay_of_the_link_that_stays_on_is_reported(tools: Path) -> None:
    one, spec = here(refusing(tools, "tc")), ResourceSpec(mapping="slow")
    delays.apply(one, spec, DelayProfile(0, 0))
    assert delays.observed(one, spec) == DelayProfile(20, 0), "tc refused to take it off, and nothing said so"


def test_delay_of_the_disk_that_stays_on_is_an_error_and_reported(tools: Path) -> None:
    one, spec = here(refusing(tools, "dmsetup", "tc")), ResourceSpec(mapping="slow")
    with pytest.raises(CommandError, match=r"reload ioctl on slow failed: Operation not permitted$"):
        delays.apply(one, spec, DelayProfile(0, 0))
    assert delays.observed(one, spec) == DelayProfile(20, 5)


def test_delays_that_cannot_be_read_are_an_error(tools: Path) -> None:
    one, spec = here(tools), ResourceSpec(mapping="slow")
    (tools / "bin" / "tc").write_text("#!/bin/sh\necho 'Cannot find device \"repl0\"' >&2\nexit 1\n")
    with pytest.raises(InfrastructureError, match="the delays on nodea cannot be read back: tc printed no JSON"):
        delays.observed(one, spec)
    (tools / "bin" / "tc").write_text("#!/bin/sh\necho '[]'\n")
    (tools / "bin" / "dmsetup").write_text("#!/bin/sh\necho 'Device slow not found' >&2\nexit 1\n")
    with pytest.raises(CommandError, match="status 1: Device slow not found"):
        delays.observed(one, spec)


def test_break_disk_script_loads_an_error_table_without_flushing(tools: Path) -> None:
    delays.break_disk(here(tools), ResourceSpec(mapping="slow"))
    assert calls(tools) == [
        "dmsetup load slow --table 0 2048 error", "dmsetup suspend --noflush --nolockfs slow", "dmsetup resume slow"
    ]  # fmt: skip
