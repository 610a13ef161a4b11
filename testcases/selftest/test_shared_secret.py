"""DRBD's shared secret: who makes it, where it goes, and that it is never kept or shown."""

from __future__ import annotations

import json
import logging
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded_nodes import SHOW_9, SHOW_84, Answers, RecordedRunner, adopted, mirrored, node, running

from harness.drbd import replication
from harness.drbd.resource import Resource
from harness.errors import CommandError, RefusedError
from harness.lab.node import Node
from harness.model import Cell, Protocol, ReplicationProfile
from harness.parse.drbd_show import profile_of
from harness.remote.local import LocalRunner
from harness.remote.ssh import SshRunner
from harness.render.drbd_conf import SIGNATURE, ResourceNode, ResourceSpec, resource_file
from harness.store.run_store import Attempt
from harness.util import logs
from harness.util.redact import HIDDEN, redacted

GENERATIONS = ["8.4", "9"]
SECRET = "c0ffee" * 8
NODES = (ResourceNode("nodea", "10.0.0.1", "/dev/x"), ResourceNode("nodeb", "10.0.0.2", "/dev/y"))
AUTHENTICATED = f'cram-hmac-alg   \t"sha256";\n        shared-secret   \t"{SECRET}";'


# --------------------------------------------------------------------------- made, rendered, written


def test_for_nodes_makes_a_secret_of_its_own_for_each_resource() -> None:
    (a, _), (b, _) = node("nodea"), node("nodeb")
    made = [Resource.for_nodes(a, b).spec.secret for _ in range(3)]
    assert len(set(made)) == 3 and all(re.fullmatch("[0-9a-f]{62}", secret) for secret in made)
    assert Resource.for_nodes(a, b, ResourceSpec(secret=SECRET)).spec.secret == SECRET


@pytest.mark.parametrize("node_ids", [False, True])
def test_resource_file_with_a_secret_authenticates(node_ids: bool) -> None:
    text = resource_file(ResourceSpec(nodes=NODES, secret=SECRET), node_ids=node_ids)
    net = text[text.index("net {") : text.index("}")]
    assert f'    cram-hmac-alg sha256;\n    shared-secret "{SECRET}";\n' in net
    other = ResourceSpec(nodes=NODES, secret=SECRET, net=(("cram-hmac-alg", "sha1"),))
    assert re.findall("cram-hmac-alg.*", resource_file(other, node_ids=node_ids)) == ["cram-hmac-alg sha1;"]


def test_resource_file_without_a_secret_names_no_algorithm() -> None:
    text = resource_file(ResourceSpec(nodes=NODES), node_ids=False)
    assert "cram-hmac-alg" not in text and "shared-secret" not in text


@pytest.mark.parametrize("secret", ["x" * 64, 'a"b', "a\\b", "a b", "a\nb", "ä"])
def test_resource_file_with_a_secret_that_drbd_does_not_take_is_refused_without_it(secret: str) -> None:
    with pytest.raises(ValueError, match="has a shared secret of other characters, or more, than DRBD takes") as caught:
        resource_file(ResourceSpec(nodes=NODES, secret=secret), node_ids=False)
    assert secret not in str(caught.value)


def test_resource_spec_repr_has_no_secret() -> None:
    assert SECRET not in repr(ResourceSpec(nodes=NODES, secret=SECRET))


@pytest.mark.parametrize("way", ["create or rejoin", "another profile"])
def test_resource_file_on_a_node_is_for_root_alone(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("modprobe", "drbdsetup", "drbdadm"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    written = tmp_path / "r0.res"
    # One of an earlier version, and what a write that was cut off left.
    for earlier in (written, tmp_path / "r0.res.new"):
        earlier.write_text("earlier")
        earlier.chmod(0o644)
    resource, _, _ = adopted("8.4")
    resource.spec = replace(resource.spec, mapping="", directory=str(tmp_path), secret=SECRET)
    resource._follow = lambda node: None  # type: ignore[method-assign]
    here = Node("nodeb", cast(SshRunner, LocalRunner()), "repl0", "192.168.77.2", str(tmp_path), "test:///default")
    if way == "another profile":
        resource.write_configuration(here)
    else:
        resource.rejoin(here)
    assert written.read_text() == resource.dialect.resource_file(resource.spec) and SECRET in written.read_text()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "r0.res"], "DRBD would read no half file"


# --------------------------------------------------------------------------- taken over


def authenticated(name: str, generation: str) -> Answers:
    """The answers of a node whose resource authenticates its peer."""
    show = SHOW_84 if generation == "8.4" else SHOW_9
    show = re.sub(r'cram-hmac-alg +\t"";.*\n +shared-secret +\t"";.*\n', "", show)
    show = show.replace("max-buffers ", f"{AUTHENTICATED}\n        max-buffers ")
    show = mirrored(show) if name == "nodeb" else show
    return {
        "--show-defaults": f"{show}== parameter\nN\n== link\nscatter-gather: on\n",
        "drbdsetup show": f"{show}== file\n{SIGNATURE}\n",
    }


def taken_over(generation: str) -> tuple[Resource, RecordedRunner, RecordedRunner]:
    """A resource with a secret that was adopted."""
    (a, on_a), (b, on_b) = (running(name, generation, authenticated(name, generation)) for name in ("nodea", "nodeb"))
    return Resource.adopt(a, b), on_a, on_b


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_keeps_the_secret_apart_and_writes_it_again(generation: str) -> None:
    resource, on_a, on_b = taken_over(generation)
    assert resource.spec.secret == SECRET and SECRET not in repr((resource.spec, resource.net))
    replication.apply(resource, ReplicationProfile(protocol=Protocol.A))
    for runner in (on_a, on_b):
        (text,) = runner.given
        assert f'shared-secret "{SECRET}";' in text and "cram-hmac-alg sha256;" in text and "protocol A;" in text
    on_a.given.clear()
    replication.apply(resource, ReplicationProfile())
    assert f'shared-secret "{SECRET}";' in on_a.given[0], "also back from a profile to the lasting options"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_adopt_of_a_resource_without_a_secret_gives_it_none(generation: str) -> None:
    resource, on_a, _ = adopted(generation)
    resource.write_configuration(resource.a)
    assert resource.spec.secret == "" and not re.search("shared-secret|cram-hmac-alg", on_a.given[0])


def test_profile_of_an_unreadable_show_does_not_print_the_secret() -> None:
    with pytest.raises(ValueError, match="drbdsetup shows no resource") as caught:
        profile_of(f"torn\n{AUTHENTICATED}\n", "N", True)
    assert SECRET not in str(caught.value)


# --------------------------------------------------------------------------- never kept, never shown

PRINTED = {
    "drbdsetup show": f'        shared-secret   \t"{SECRET}";',
    "drbdsetup show --json": f'"shared-secret": "{SECRET}",',
    "resource file": f"net {{\n  shared-secret {SECRET};\n}}",
    "resource file, quoted": f'net {{ cram-hmac-alg sha256; shared-secret "{SECRET}"; }}',
    "resource file, single quotes": f"shared-secret '{SECRET}';",
    "drbdadm": f"Command 'drbdsetup new-peer r0 1 --cram-hmac-alg=sha256 --shared-secret={SECRET} --protocol=C' failed",
    "drbdadm, quoted": f'drbdsetup net-options r0 1 --shared-secret="{SECRET}"',
    "a list of words": f"['drbdsetup', 'new-peer', '--shared-secret={SECRET}', '--protocol=C']",
}


@pytest.mark.parametrize("printed", PRINTED.values(), ids=PRINTED)
def test_redacted_hides_the_secret_and_nothing_else(printed: str) -> None:
    assert redacted(printed) == printed.replace(SECRET, HIDDEN)
    assert redacted(redacted(printed)) == redacted(printed)


@pytest.mark.parametrize("printed", PRINTED.values(), ids=PRINTED)
def test_redacted_hides_the_secret_inside_of_json_too(printed: str) -> None:
    text = redacted(json.dumps({"message": printed}))
    assert json.loads(text) == {"message": printed.replace(SECRET, HIDDEN)}


@pytest.mark.parametrize(
    "text",
    [
        "", "r0 cannot be taken over: nodea and nodeb disagree about the net option shared-secret, the port (1 and 2)",
        'shared-secret   \t""; # default\n data-integrity-alg\t"crc32c";', "no shared-secret at all",
        "block drbd0: Peer authenticated using 32 bytes HMAC",
    ],
)  # fmt: skip
def test_redacted_leaves_what_has_no_secret(text: str) -> None:
    assert redacted(text) == text


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'), min_size=1, max_size=63))
def test_redacted_hides_every_secret_that_a_resource_file_can_have(secret: str) -> None:
    text = resource_file(ResourceSpec(nodes=NODES, secret=secret), node_ids=True)
    assert redacted(text) == text.replace(f'"{secret}"', f'"{HIDDEN}"')


def test_command_that_prints_the_secret_and_fails_does_not_tell_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logs.ROOT)
    script = f"echo 'drbdsetup connect --shared-secret={SECRET}' | tee /dev/stderr; exit 5"
    with pytest.raises(CommandError) as caught:
        LocalRunner().run(["sh", "-c", script])
    told = f"drbdsetup connect --shared-secret={HIDDEN}"
    assert (caught.value.stdout, caught.value.stderr) == (f"{told}\n", f"{told}\n")
    assert str(caught.value).endswith(told)
    assert SECRET not in caplog.text and told in caplog.text


def test_refusal_of_drbd_does_not_tell_the_secret() -> None:
    resource, on_a, _ = taken_over("8.4")
    on_a.answers = {"drbdadm adjust": (10, "", f"Command 'drbdsetup connect --shared-secret={SECRET}' terminated\n")}
    with pytest.raises(RefusedError) as caught:
        resource.drbdadm(resource.a, "adjust")
    assert caught.value.message.endswith(f"--shared-secret={HIDDEN}' terminated")


def test_attempt_write_raw_keeps_no_secret(tmp_path: Path) -> None:
    path = Attempt(Cell("no-writes"), 1, tmp_path).write_raw("show.txt", SHOW_9 + AUTHENTICATED)
    assert path.read_text() == (SHOW_9 + AUTHENTICATED).replace(SECRET, HIDDEN)
