"""What ``drbdsetup show`` prints: the resource, its net options, and the replication they make.

Recorded is only that of DRBD 8.4, with ``--show-defaults``; what stands here for 9 is written after the source of
drbd-utils.  That any other text is a ValueError or nothing at all is left to Hypothesis.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.model import Protocol, ReplicationProfile
from harness.parse.drbd_show import (
    Address,
    ShownConnection,
    ShownResource,
    ShownVolume,
    lasting_net,
    net_options,
    profile_of,
    shown_resource,
)

RECORDED = (Path(__file__).parent / "recordings" / "drbd-8.4.11-linux-6.12" / "show-defaults.txt").read_text()

# Written after the source of drbd-utils (show_scmd and print_options), not recorded.
V84 = """\
resource r0 {
    options {
    }
    net {
        protocol        \tA;
        max-buffers     \t8192;
        data-integrity-alg\t"crc32c";
        verify-alg      \t"crc32c";
    }
    _remote_host {
        address\t\t\tipv4 192.168.77.2:7789;
    }
    _this_host {
        address\t\t\tipv4 192.168.77.1:7789;
        volume 0 {
            device\t\t\tminor 0;
            disk\t\t\t"/dev/mapper/drbd-lower";
            meta-disk\t\t\tinternal;
            disk {
                resync-rate     \t716800k; # bytes/second
                c-plan-ahead    \t0s; # 1/10 seconds
            }
        }
    }
}
"""
V9 = """\
resource "r0" {
    _this_host {
        node-id\t\t\t0;
        volume 0 {
            device\t\t\tminor 0;
            disk\t\t\t"/dev/mapper/drbd-lower";
            meta-disk\t\t\tinternal;
            disk {
                disk-flushes    \tno;
            }
        }
    }
    connection {
        _peer_node_id 1;
        path {
            _this_host ipv4 192.168.77.1:7789;
            _remote_host ipv4 192.168.77.2:7789;
        }
        net {
            max-buffers     \t8192;
            allow-two-primaries\tyes;
            data-integrity-alg\t"sha256";
            verify-alg      \t"crc32c";
            _name           \t"nodeb";
        }
        volume 0 {
            disk {
                resync-rate     \t716800k; # bytes/second
            }
        }
    }
}
"""
DEFAULTS = """\
resource "r0" {
    options {
        on-no-data-accessible\tio-error; # default
    }
    connection {
        _peer_node_id 1;
        net {
            transport       \t""; # default
            protocol        \tC; # default
            timeout         \t60; # 1/10 seconds, default
            sndbuf-size     \t0; # bytes, default
            allow-two-primaries\tno; # default
            shared-secret   \t"} net { protocol A; # \\"x\\\\";
            data-integrity-alg\t""; # default
        }
    }
}
"""


def test_net_options_of_8_4_stand_in_the_resource() -> None:
    assert net_options(V84) == {
        "protocol": "A", "max-buffers": "8192", "data-integrity-alg": "crc32c", "verify-alg": "crc32c",
    }  # fmt: skip


def test_net_options_of_9_stand_in_the_connection() -> None:
    assert net_options(V9) == {
        "max-buffers": "8192", "allow-two-primaries": "yes", "data-integrity-alg": "sha256",
        "verify-alg": "crc32c", "_name": "nodeb",
    }  # fmt: skip


def test_net_options_with_defaults_comments_and_quotes_are_plain_values() -> None:
    options = net_options(DEFAULTS)
    assert options["shared-secret"] == '} net { protocol A; # "x\\'
    assert (options["protocol"], options["data-integrity-alg"], options["timeout"]) == ("C", "", "60")
    assert "on-no-data-accessible" not in options


def test_net_options_of_other_sections_are_left_out_and_the_last_counts() -> None:
    text = "resource r0 { protocol B; net { protocol A; } disk { protocol B; } connection { net { protocol C; } } }"
    assert net_options(text) == {"protocol": "C"}
    assert net_options("resource r0 { net { ping-int 3; inner { protocol A; } } protocol B; }") == {"ping-int": "3"}
    assert net_options("resource r0 { net { allow-two-primaries; } }") == {"allow-two-primaries": "yes"}


@pytest.mark.parametrize("sendpage", ["Y", "Y\n", "1"])
def test_profile_of_shown_options_is_that_profile(sendpage: str) -> None:
    assert profile_of(V84, sendpage, False) == ReplicationProfile(Protocol.A, "crc32c", True, False, False)
    assert profile_of(V9, "N\n", True) == ReplicationProfile(Protocol.C, "sha256", False, True, True)


@pytest.mark.parametrize("sendpage", ["N\n", "0", ""])
@pytest.mark.parametrize("show", [DEFAULTS, 'resource "r0" {\n}\n', "# a comment\nresource r0 {\n net {\n }\n}\n"])
def test_profile_of_defaults_is_plain(show: str, sendpage: str) -> None:
    assert profile_of(show, sendpage, None).plain


@pytest.mark.parametrize("value", ["yes", "no", ""])
def test_profile_of_two_primaries_reads_each_spelling(value: str) -> None:
    show = f"resource r0 {{ net {{ allow-two-primaries {value}; }} }}"
    assert profile_of(show, "", None).two_primaries is (value != "no")


@pytest.mark.parametrize("show", ["", "\n", "# No currently configured DRBD found.\n", "r0: no such resource\n"])
def test_profile_of_no_resource_is_an_error(show: str) -> None:
    with pytest.raises(ValueError, match="no resource"):
        profile_of(show, "N", None)


@pytest.mark.parametrize(("option", "sendpage"), [("protocol D", "N"), ("allow-two-primaries 7", "N"), ("x 1", "?")])
def test_profile_of_unknown_value_is_an_error(option: str, sendpage: str) -> None:
    with pytest.raises(ValueError, match=r"'D'|'allow-two-primaries'|'disable_sendpage'"):
        profile_of(f"resource r0 {{ net {{ {option}; }} }}", sendpage, None)


@given(
    st.sampled_from(Protocol),
    st.sampled_from(["", "crc32c", "md5", "sha1", "sha256"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_profile_of_each_profile_round_trips(
    protocol: Protocol, integrity: str, sendpage: bool, sg: bool, two: bool
) -> None:
    net = [f"protocol \t{protocol};"] if protocol is not Protocol.C else []
    net += [f'data-integrity-alg\t"{integrity}";'] if integrity else []
    net += ["allow-two-primaries\tyes;"] if two else []
    for nested in ("net {{ {} }}", "connection {{ _peer_node_id 1; net {{ {} }} }}"):
        show = "resource r0 {\n" + nested.format("\n".join(net)) + "\n}\n"
        assert profile_of(show, "Y" if sendpage else "N", sg) == ReplicationProfile(
            protocol, integrity, sendpage, sg, two
        )


NAME = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz-_"), min_size=1)


@given(st.dictionaries(NAME, st.text()))
def test_net_options_of_quoted_values_round_trip(options: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    body = "\n".join(f"{name}\t{quoted(value)}; # default" for name, value in options.items())
    assert net_options(f"resource r0 {{\n net {{\n{body}\n}}\n}}\n") == options


@given(st.text() | st.lists(st.sampled_from(["net {", "}", ";", '"', "#", "\\", "protocol A", "\n"])).map(" ".join))
def test_net_options_of_any_text_raise_nothing(text: str) -> None:
    net_options(text)


# --------------------------------------------------------------------------- the whole resource

HERE, THERE = Address("192.168.77.1", 7789), Address("192.168.77.2", 7789)


def test_shown_resource_of_recorded_8_4_has_its_one_peer_and_volume() -> None:
    found = shown_resource(RECORDED, "r0")
    assert (found.name, found.volumes) == ("r0", (ShownVolume(0, 0, "/dev/mapper/drbd-lower"),))
    (connection,) = found.connections
    assert (connection.local, connection.remote) == (HERE, THERE)
    assert dict(connection.net) == net_options(RECORDED)
    assert dict(connection.net)["max-buffers"] == "8192" and dict(connection.net)["shared-secret"] == ""
    assert "resync-rate" not in dict(connection.net), "an option of the disk"


@pytest.mark.parametrize("text", [V84, V9], ids=["8.4", "9"])
def test_shown_resource_of_each_generation_is_the_same(text: str) -> None:
    net = tuple(net_options(text).items())
    assert shown_resource(text, "r0") == ShownResource(
        "r0", (ShownVolume(0, 0, "/dev/mapper/drbd-lower"),), (ShownConnection(HERE, THERE, net),)
    )


def test_shown_resource_of_several_is_the_one_that_is_asked_for() -> None:
    other = V9.replace('"r0"', '"r1"').replace("minor 0", "minor 1")
    assert shown_resource(V9 + other, "r1").volumes == (ShownVolume(0, 1, "/dev/mapper/drbd-lower"),)
    assert shown_resource(other + V84, "r0").volumes[0].minor == 0


def test_shown_resource_of_8_4_without_connection_has_none() -> None:
    # 8.4 forgets its connection when it disconnects.
    start = V84.index("    _remote_host")
    assert shown_resource(V84[:start] + V84[V84.index("    _this_host") :], "r0").connections == ()


def test_shown_resource_of_more_volumes_and_connections_has_all() -> None:
    again = V9[V9.index("    connection {") : V9.rindex("}")].replace("192.168.77.2", "192.168.77.3")
    text = V9[: V9.rindex("}")] + again + "}\n"
    text = text.replace("volume 0 {", "volume 7 { device minor 9; disk none; } volume 0 {", 1)
    found = shown_resource(text, "r0")
    assert [(volume.number, volume.minor, volume.disk) for volume in found.volumes] == [
        (7, 9, None), (0, 0, "/dev/mapper/drbd-lower")
    ]  # fmt: skip
    assert [connection.remote.host for connection in found.connections] == ["192.168.77.2", "192.168.77.3"]


def test_shown_resource_over_ipv6_has_the_address_without_brackets() -> None:
    text = V9.replace("ipv4 192.168.77.1:7789", "ipv6 [fd00::1]:7789")
    assert shown_resource(text, "r0").connections[0].local == Address("fd00::1", 7789)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "drbdsetup shows no resource 'r0'"),
        ("# No currently configured DRBD found.\n", "no resource 'r0'"),
        ('resource "r1" {\n}\n', "no resource 'r0'"),
        ("resource {\n}\n", "no resource 'r0'"),
        (V9.replace("minor 0", "0"), "a volume without a number or a minor"),
        (V9.replace("volume 0 {\n            device", "volume {\n            device"), "without a number or a minor"),
        (V9.replace("minor 0", "minor zero"), "'zero' where a number belongs"),
        (V9.replace(".1:7789", ".1:"), "'' where a number belongs"),
        (V9.replace("_remote_host ipv4 192.168.77.2:7789;", ""), "a connection without an address and a port"),
        (V84.replace("ipv4 192.168.77.2:7789", "ipv4"), "a connection without an address and a port"),
    ],
)
def test_shown_resource_of_what_drbd_does_not_print_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shown_resource(text, "r0")


def test_lasting_net_leaves_out_profile_and_notes() -> None:
    options = shown_resource(V9, "r0").connections[0].net
    assert lasting_net((*options, ("protocol", "A"), ("ping-timeout", "50"))) == (
        ("max-buffers", "8192"), ("verify-alg", "crc32c")
    )  # fmt: skip


@example(0, 1, "none")
@given(st.integers(0, 255), st.integers(1, 65535), st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_shown_resource_round_trips(minor: int, port: int, disk: str) -> None:
    quoted = disk.replace("\\", "\\\\").replace('"', '\\"')
    text = (
        V9.replace("minor 0", f"minor {minor}").replace(":7789", f":{port}").replace("/dev/mapper/drbd-lower", quoted)
    )
    found = shown_resource(text, "r0")
    # drbdsetup writes 'none' where the disk was let go of.
    assert found.volumes == (ShownVolume(0, minor, None if disk == "none" else disk),)
    assert (found.connections[0].local.port, found.connections[0].remote.port) == (port, port)


PIECES = [
    "resource",
    "r0",
    "{",
    "}",
    ";",
    "_this_host",
    "_remote_host",
    "volume 0",
    "device minor 0",
    "connection",
    "path",
    "disk none",
    '"',
    "#",
    "\n",
    "address ipv4 1.2.3.4:5",
]


@given(st.text() | st.lists(st.sampled_from(PIECES)).map(" ".join).map("resource r0 {{ {}".format))
def test_shown_resource_of_any_text_raises_only_value_error(text: str) -> None:
    try:
        found = shown_resource(text, "r0")
    except ValueError as error:
        assert "drbdsetup shows" in str(error)
    else:
        assert found.name == "r0"
