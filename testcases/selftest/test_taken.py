"""What names, minors and ports a machine uses already, and which of a lab's collide with them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import InfrastructureError, ProtectedError
from harness.lab.hardware import taken as module
from harness.lab.hardware.guard import Machine
from harness.lab.hardware.taken import collisions, free_minor, free_port, look, require_free
from harness.parse.taken import Taken, taken
from harness.remote.scripted import ScriptedRunner
from harness.render.drbd_conf import SIGNATURE, ResourceNode, ResourceSpec, resource_file

RECORDINGS = Path(__file__).parent / "recordings"
# As LINBIT's documentation has them, with what people write in many ways.
THEIRS = """\
# resource commented { on a { address 10.1.1.1:7000; } }
resource "data" {
  volume 0 { device minor 7; disk /dev/vg/data; meta-disk internal; }
  volume 1 { device /dev/drbd_more minor 8; disk /dev/vg/more; meta-disk internal; }
  on alpha { node-id 0; address 10.20.0.1:7801; }
  on beta { node-id 1; address ipv4 10.20.0.2:7801; }
}
resource old {
  device /dev/drbd9;
  on alpha { disk /dev/sdb; address ipv6 [fd00::1]:7802; meta-disk internal; }
}
"""
# A connection of ssh's to 10.0.2.15, and somebody who listens on 7900 (0x1EDC).
SOCKETS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1EDC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18331 1 0 100 0 0 10 0
   1: 0F02000A:0016 0202000A:D6F4 01 00000000:00000000 02:0009CF5D 00000000     0        0 19001 2 0 20 4 1 10 -1
"""


def answer(**changes: Any) -> str:
    nothing = {"status": None, "out": "", "err": "not installed"}
    found: dict[str, Any] = {
        "drbd": (RECORDINGS / "drbd-8.4.11-linux-6.12" / "show-defaults.txt").read_text(),
        "devices": ["drbd0", "drbd3"],
        "files": {"/etc/drbd.conf": 'include "drbd.d/*.res";\n', "/etc/drbd.d/data.res": THEIRS},
        "mappings": {"theirs": "LVM-1", "drbd-lower": ""},
        "sockets": SOCKETS,
        "domains": {"status": 0, "out": "web\n\n", "err": ""},
        "firewalld": nothing, "iptables": nothing, "nft": nothing,
    }  # fmt: skip
    return json.dumps(found | changes)


# As in an older example of LINBIT's, and in a cluster that fences.
COMMON = r"""
global { usage-count no; }
common {
  handlers {
    # pri-lost "reboot -f";
    pri-on-incon-degr "/usr/lib/drbd/notify.sh; echo b > /proc/sysrq-trigger ; reboot -f # now";
    fence-peer /usr/lib/drbd/stonith_admin-fence-peer.sh;  # of "}" no harm
    split-brain "a \"}\" of somebody";
  }
  startup { wfc-timeout 0; }
  net { fencing resource-and-stonith; }
}
resource theirs { handlers { out-of-sync "/bin/mail"; } }
"""


def own_file(name: str) -> str:
    nodes = (ResourceNode("alpha", "10.20.0.1", "/dev/x"), ResourceNode("beta", "10.20.0.2", "/dev/x"))
    return resource_file(ResourceSpec(name, 100, 7900, nodes), node_ids=False)


def test_taken_names_the_handlers_that_every_resource_would_have() -> None:
    seen = taken(answer(files={"/etc/drbd.conf": "common { handlers { before-resync-source /x; } }", "/b": COMMON}))
    assert seen.handlers == {"before-resync-source", "pri-on-incon-degr", "fence-peer", "split-brain"}
    assert taken(answer()).handlers == frozenset()


@given(st.text(alphabet='{};"#\\ \ncommonhandlers', max_size=60))
def test_taken_of_any_configuration_has_handlers_or_none(text: str) -> None:
    assert all(one.strip() for one in taken(answer(files={"/etc/drbd.conf": text})).handlers)


def test_taken_reads_resources_that_are_up_and_configured_in_all_their_ways() -> None:
    seen = taken(answer())
    assert [(one.name, sorted(one.minors), sorted(one.ports), one.file) for one in seen.resources] == [
        ("r0", [0], [7789], ""),
        ("data", [7, 8], [7801], "/etc/drbd.d/data.res"),
        ("old", [9], [7802], "/etc/drbd.d/data.res"),
    ]
    assert seen.minors == {0, 3, 7, 8, 9} and seen.ports == {7789, 7801, 7802, 7900}
    assert seen.domains == {"web"}


@pytest.mark.parametrize(
    ("change", "firewall"),
    [
        ({}, ""),
        ({"firewalld": {"status": 0, "out": "running\n", "err": ""}}, "firewalld"),
        ({"iptables": {"status": 0, "out": "-P INPUT ACCEPT\n", "err": ""}}, ""),
        ({"iptables": {"status": 0, "out": "-P INPUT DROP\n", "err": ""}}, "iptables"),
        ({"nft": {"status": 0, "out": "chain i { type filter hook input; policy drop; }", "err": ""}}, "nft"),
        ({"nft": {"status": 0, "out": "chain p { type nat hook prerouting priority 0; }", "err": ""}}, ""),
    ],
)  # fmt: skip
def test_taken_knows_who_keeps_connections_out(change: dict[str, Any], firewall: str) -> None:
    assert taken(answer(**change)).firewall == firewall


def test_collisions_names_each_that_is_somebody_elses_and_nothing_of_the_labs_own() -> None:
    seen = taken(answer())
    free = ResourceSpec("drbd-harness-lab", 100, 7901, mapping="drbd-harness-lab-lower")
    assert collisions(seen, free, "drbd-harness-lab") == ()
    found = {
        replace(free, name="data"): "there is a resource data already, in /etc/drbd.d/data.res",
        replace(free, name="r0"): "there is a resource r0 already, which is up",
        replace(free, minor=8): "the minor 8 belongs to the resource data, in /etc/drbd.d/data.res",
        replace(free, minor=3): "there is a device drbd3 already",
        replace(free, port=7802): "the port 7802 belongs to the resource old, in /etc/drbd.d/data.res",
        replace(free, port=7900): "somebody listens on the port 7900",
        replace(free, mapping="theirs"): "there is a mapping theirs already",
    }
    for spec, sentence in found.items():
        assert collisions(seen, spec)[0] == sentence
    assert collisions(seen, free, "web") == ("there is a domain web already",)
    with pytest.raises(ProtectedError, match="on alpha, somebody listens on the port 7900; nothing was changed"):
        require_free([(Machine("alpha", ScriptedRunner(lambda argv: (0, "", ""))), seen)], replace(free, port=7900))


@pytest.mark.parametrize("signed", [True, False])
def test_collisions_takes_a_resource_for_its_own_only_with_the_signature(signed: bool) -> None:
    name, text = "drbd-harness-lab", own_file("drbd-harness-lab")
    files = {f"/etc/drbd.d/{name}.res": text if signed else text.replace(SIGNATURE, "# Written by root")}
    seen = taken(answer(files=files, mappings={"ours": "DRBD-HARNESS-lower-x"}, sockets="", devices=["drbd100"]))
    found = collisions(seen, ResourceSpec(name, 100, 7900, mapping="ours"), "")
    assert (found == ()) == signed
    other = taken(answer(files={"/etc/drbd.d/else.res": text}, sockets="", devices=[]))
    assert (
        collisions(other, ResourceSpec(name, 100, 7900))[0]
        == f"there is a resource {name} already, in /etc/drbd.d/else.res"
    )


@given(st.sets(st.integers(100, 120)), st.sets(st.integers(100, 120)))
def test_free_number_is_the_first_that_neither_machine_uses(one: set[int], other: set[int]) -> None:
    def seen(used: set[int]) -> Taken:
        return replace(taken(answer()), minors=frozenset(used), ports=frozenset(number + 7800 for number in used))

    looks = (seen(one), seen(other))
    minor = free_minor(looks)
    assert minor not in one | other and set(range(100, minor)) <= one | other
    assert free_port(looks) == minor + 7800


def test_free_number_that_is_none_is_a_sentence() -> None:
    seen = replace(taken(answer()), ports=frozenset(range(65530, 65536)))
    with pytest.raises(ProtectedError, match="there is no port from 65530 on that neither machine uses"):
        free_port([seen], 65530)


def test_look_runs_here_and_hands_out_no_secret(tmp_path: Path) -> None:
    program = (Path(module.__file__).parent / "programs" / "taken.py").read_text()
    conf = tmp_path / "drbd.conf"
    conf.write_text('resource x { net { shared-secret "hush"; } }\ninclude "more/*.res";\n')
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "y.res").write_text("resource y { net { shared-secret hush; } }")
    program = program.replace("/etc/drbd.conf", str(conf)).replace("/etc/drbd.d", str(tmp_path / "none"))
    done = subprocess.run([sys.executable, "-I", "-", "{}"], input=program, capture_output=True, text=True)
    assert done.returncode == 0 and "hush" not in done.stdout, done.stderr
    seen = taken(done.stdout)
    assert [one.name for one in seen.resources if one.file] == ["x", "y"]


def test_look_that_cannot_be_read_is_an_error() -> None:
    for printed in ((1, "", "Permission denied"), (0, "what?", ""), (0, "{}", "")):
        runner = ScriptedRunner(lambda argv, printed=printed: printed)  # type: ignore[misc]
        with pytest.raises(InfrastructureError, match="what names and ports are taken on alpha cannot be read"):
            look(Machine("alpha", runner))
