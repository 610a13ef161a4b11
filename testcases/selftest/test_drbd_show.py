"""What ``drbdsetup show`` prints: the net options, and the replication they make."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.model import Protocol, ReplicationProfile
from harness.parse.drbd_show import net_options, profile_of

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

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
