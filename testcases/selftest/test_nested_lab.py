"""How a nested lab comes up, what is undone where it does not, and what is kept of it; without a boot."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest
from nested_parts import SPEC, STACK, TODAY, Controller, bring_up, controller, fake_domains, find, image, state

from harness.errors import InfrastructureError, LostNodeError
from harness.images import StackImages
from harness.lab.nested import provider
from harness.lab.nested import record as records
from harness.render.domain import NodeDomain
from harness.util import paths

__all__ = ["controller", "state"]


def test_bring_up_records_what_the_lab_was_made_of(controller: Controller, tmp_path: Path) -> None:
    with contextlib.ExitStack() as undo:
        record = bring_up(controller, undo, tmp_path / "consoles")
        assert records.read(records.labs_dir() / record.id) == record
        assert (record.spec, record.stack, record.accelerator) == (SPEC, STACK, "tcg")
        assert record.provenance.images == {"node": "node-digest", "guest": "guest-digest"}
        assert {side: (one.role, one.digest) for side, one in record.images.items()} == {
            "a": ("node", "node-digest"), "b": ("node", "node-digest"), "guest": ("guest", "guest-digest"),
        }  # fmt: skip
        assert record.provenance.packages == {"node": {"node-package": "1.0"}, "guest": {"guest-package": "1.0"}}
        assert [(node.side, node.name, node.address) for node in record.nodes] == [
            ("a", "left", "10.9.8.1"), ("b", "right", "10.9.8.2"),
        ]  # fmt: skip
        assert controller.images == [("node", "bookworm"), ("guest", "trixie")]
        assert controller.connection.flags == [libvirt.VIR_DOMAIN_START_AUTODESTROY] * 2
        assert len(controller.connection.running) == 2
    assert controller.connection.running == [] and records.directories() == []
    assert {path.name for path in (tmp_path / "consoles" / record.id).iterdir()} == {"console-a.log", "console-b.log"}


def test_bring_up_of_a_lab_to_keep_does_not_tie_it_to_the_connection(controller: Controller, tmp_path: Path) -> None:
    with contextlib.ExitStack() as undo:
        bring_up(controller, undo, tmp_path / "consoles", keep=True)
        assert len(controller.connection.running) == 2 and controller.connection.flags == [0, 0]
    assert controller.connection.running == [], "the caller keeps it, once somebody can use it"


@pytest.mark.parametrize("keep", [False, True])
def test_bring_up_of_a_node_that_fails_to_boot_undoes_itself(
    controller: Controller, tmp_path: Path, keep: bool
) -> None:
    controller.boots = False
    with contextlib.ExitStack() as undo:
        with pytest.raises(LostNodeError, match="a node failed to boot"):
            bring_up(controller, undo, tmp_path / "consoles", keep=keep)
        assert controller.connection.running == [] and records.directories() == []
        (console,) = (tmp_path / "consoles").glob("*/console-a.log")
        assert console.read_text().endswith("boots\n"), "why is kept"


def test_bring_up_where_libvirt_refuses_the_second_node_ends_the_first(controller: Controller, tmp_path: Path) -> None:
    controller.connection.refuses = "-b"
    with contextlib.ExitStack() as undo, pytest.raises(InfrastructureError, match=r"did not start .*-b: .*no memory"):
        bring_up(controller, undo, tmp_path / "consoles")
    assert len(controller.connection.flags) == 1 and controller.connection.running == []
    assert records.directories() == []


def test_bring_up_twice_in_one_run_keeps_the_consoles_of_both(controller: Controller, tmp_path: Path) -> None:
    ids = []
    for _ in range(2):
        with contextlib.ExitStack() as undo:
            ids.append(bring_up(controller, undo, tmp_path / "consoles").id)
    assert sorted(path.name for path in (tmp_path / "consoles").iterdir()) == sorted(ids)


def test_collect_logs_keeps_what_qemu_and_the_daemons_printed(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "qemu_log_folders", lambda: (tmp_path / "none", tmp_path))
    monkeypatch.setattr(provider, "_LOG_BYTES", 8)
    paths.make(state)
    (tmp_path / "lab-a.log").write_text("char device redirected")
    (state / "libvirtd.log").write_text("long before; error")
    (tmp_path / "console-a.log").write_text("all that it printed")
    provider.collect_logs(tmp_path, ("lab-a", "lab-b"), tmp_path / "kept")
    assert {path.name: path.read_text() for path in (tmp_path / "kept").iterdir()} == {
        "console-a.log": "all that it printed", "qemu-lab-a.log": "directed", "libvirtd.log": "e; error",
    }  # fmt: skip


def two_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack gives the second node another image."""
    a, b, guest = (image(tmp_path, role) for role in ("node", "newer", "guest"))
    monkeypatch.setattr(provider, "ensure_stack", lambda stack, cache: StackImages(a, replace(b, role="node"), guest))
    monkeypatch.setattr(provider, "stack_digests", lambda stack: replace(TODAY, b="newer-digest"))


def test_bring_up_of_two_nodes_that_differ_boots_each_from_its_own_image(
    controller: Controller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_images(tmp_path, monkeypatch)
    made: list[NodeDomain] = []
    monkeypatch.setattr(provider, "make_domains", lambda of: made.extend(fake_domains(of)) or made)
    with contextlib.ExitStack() as undo:
        record = bring_up(controller, undo, tmp_path / "consoles", keep=True)
        assert [domain.kernel.read_text() for domain in made] == ["node vmlinuz", "newer vmlinuz"]
        assert [domain.initrd.parent.name for domain in made] == ["node-image", "newer-image"]
        assert [domain.kernel_args for domain in made] == [f"root=/dev/vda {one}-argument" for one in ("node", "newer")]
        images = {"node": "node-digest", "node-b": "newer-digest", "guest": "guest-digest"}
        assert record.provenance.images == images and record.provenance.packages["node-b"] == {"newer-package": "1.0"}
        assert [record.images[side].digest for side in ("a", "b", "guest")] == list(images.values())
        assert find(controller) == record
        monkeypatch.setattr(provider, "stack_digests", lambda stack: replace(TODAY, b="of today"))
        with pytest.raises(InfrastructureError, match="before the recipe of its node-b image changed"):
            find(controller)
