"""What the rooms above the lab change on a machine that is somebody's is noted before it is changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from fake_lab import FakeNode
from fake_story import Story

from harness.drbd import changes, delays, faults, replication
from harness.errors import RefusedError
from harness.filesystems import FILESYSTEMS
from harness.filesystems.base import WorkloadTarget
from harness.filesystems.mounted import MOUNT_POINT
from harness.lab.node import Node
from harness.model import DelayProfile, FilesystemKind, ReplicationProfile
from harness.model.changes import Change, ChangeKind
from harness.render.drbd_conf import SIGNATURE, ResourceSpec

K = ChangeKind
SPEC = ResourceSpec("drbd-harness-lab", 100, 7900, mapping="lower", mapping_uuid="DRBD-HARNESS-lower-x")


class Order:
    """A journal that keeps what was noted and, in the same list, what was run."""

    def __init__(self, refused: str = "") -> None:
        self.seen: list[Any] = []
        self.refused = refused

    def note_all(self, *noted: Change) -> None:
        for one in noted:
            if one.what == self.refused:
                raise RefusedError("the journal", "no")
            self.seen.append(one)

    def has_noted(self, kind: ChangeKind, what: str) -> bool:
        return any((one.kind, one.what) == (kind, what) for one in self.seen if isinstance(one, Change))

    def forget(self) -> None:
        raise AssertionError("nobody booted")

    @property
    def noted(self) -> list[tuple[str, str]]:
        return [(one.kind, one.what) for one in self.seen if isinstance(one, Change)]

    @property
    def ran(self) -> list[str]:
        return [one for one in self.seen if isinstance(one, str)]


def somebodys(story: Story, name: str = "nodea", refused: str = "") -> tuple[Node, Order]:
    node, order = FakeNode(story, name), Order(refused)
    node.journal = cast(Any, order)
    node.own_link = False
    node.note = order.note_all  # type: ignore[method-assign]
    run = node.runner.run

    def kept(argv: Any, **options: Any) -> Any:
        order.seen.append(" ".join(argv))
        return run(argv, **options)

    node.runner.run = kept  # type: ignore[method-assign]
    return cast(Node, node), order


def test_delay_of_somebodys_link_is_noted_first_and_its_qdisc_is_not_touched_before() -> None:
    node, order = somebodys(Story())
    delays.apply(node, SPEC, DelayProfile())
    assert order.noted == [] and "eno" not in order.ran[-1]
    # The link is the script's first argument: empty where it is not to be touched.
    assert order.ran[-1].split(" sh ")[-1].startswith(" 0 0 0 /dev/vdb")
    delays.apply(node, SPEC, DelayProfile(link_delay_ms=20))
    assert order.seen[-2] == Change(K.QDISC, "repl0", ("prio 1:", "prio 1: + netem 30:"))
    assert order.ran[-1].split(" sh ")[-1].startswith("repl0 20 0 0")
    delays.apply(node, SPEC, DelayProfile())
    assert order.ran[-1].split(" sh ")[-1].startswith("repl0 0 0 0"), "what was noted is taken off again"


def test_delay_that_may_not_be_noted_is_not_made() -> None:
    node, order = somebodys(Story(), refused="repl0")
    with pytest.raises(RefusedError):
        delays.apply(node, SPEC, DelayProfile(link_delay_ms=20))
    assert order.ran == []


def test_cut_link_is_noted_on_both_and_joined_only_where_it_was() -> None:
    story = Story()
    (a, on_a), (b, on_b) = somebodys(story), somebodys(story, "nodeb")
    resource = cast(Any, type("Two", (), {"a": a, "b": b}))
    faults.join_link(resource)
    assert on_a.seen == on_b.seen == []
    faults.cut_link(resource)
    faults.join_link(resource)
    for order in (on_a, on_b):
        assert order.noted == [(K.MODULE, "sch_netem"), (K.QDISC, "repl0")]
        assert [("del dev" in one, "netem loss 100%" in one) for one in order.ran] == [(False, True), (True, False)]


@pytest.mark.parametrize(
    ("parameter", "gather", "wanted", "noted"),
    [
        ("N", "on", ReplicationProfile(), []),
        ("Y", "on", ReplicationProfile(), [Change(K.MODULE_PARAMETER, changes.SENDPAGE_PARAMETER, ("N",))]),
        ("N", "off", ReplicationProfile(), [Change(K.NIC_FEATURE, "repl0 sg", ("on",))]),
        ("N", "on", ReplicationProfile(scatter_gather=False), [Change(K.NIC_FEATURE, "repl0 sg", ("off",))]),
        ("", "on", ReplicationProfile(), []),
    ],
)
def test_kernel_settings_are_noted_where_they_differ_and_only_there(
    parameter: str, gather: str, wanted: ReplicationProfile, noted: list[Change]
) -> None:
    node, order = somebodys(Story())
    cast(Any, node).answers[changes.SENDPAGE_PARAMETER] = (0, f"{parameter}\nscatter-gather: {gather}\n", "")
    replication._apply_kernel_settings(node, wanted)
    assert [one for one in order.seen if isinstance(one, Change)] == noted
    assert "ethtool -K" in order.ran[-1] and "ethtool -K" not in order.ran[0]


def test_kernel_settings_that_may_not_be_changed_are_not() -> None:
    node, order = somebodys(Story(), refused="repl0 sg")
    cast(Any, node).answers[changes.SENDPAGE_PARAMETER] = (0, "N\nscatter-gather: off\n", "")
    with pytest.raises(RefusedError):
        replication._apply_kernel_settings(node, ReplicationProfile())
    assert not any("ethtool -K" in one for one in order.ran)


def test_resource_is_noted_from_its_modules_to_its_coming_up_so_that_it_goes_in_the_reverse_order() -> None:
    node, order = somebodys(Story())
    changes.note_resource(node, SPEC)
    path = "/etc/drbd.d/drbd-harness-lab.res"
    assert order.noted == [
        (K.MODULE, "drbd"), (K.MODULE, "dm-delay"), (K.MAPPING, "lower"), (K.FILE, path),
        (K.FILE, f"{path}.new"), (K.RESOURCE, "drbd-harness-lab"),
    ]  # fmt: skip
    assert order.seen[-1] == Change(K.RESOURCE, "drbd-harness-lab", (f"begins {SIGNATURE}",), path)
    assert order.seen[2].ours == ("DRBD-HARNESS-lower-x",)


def test_mount_on_somebodys_machine_is_noted_and_swap_there_refused() -> None:
    node, order = somebodys(Story())
    target = WorkloadTarget(node.runner, "/dev/drbd100", cast(Any, None), 1, node)
    FILESYSTEMS[FilesystemKind.EXT4].mount(target)
    assert order.seen[:2] == [Change(K.DIRECTORY, MOUNT_POINT), Change(K.MOUNT, MOUNT_POINT, ("/dev/drbd100",))]
    assert "mount -t ext4" in order.ran[-1]
    before = len(order.ran)
    for kind in (FilesystemKind.SWAP, FilesystemKind.SWAPFILE):
        with pytest.raises(RefusedError, match="swap there would be that of all the machine's programs"):
            FILESYSTEMS[kind].mount(target)
    assert len(order.ran) == before
    FILESYSTEMS[FilesystemKind.EXT4].mount(replace(target, node=None))
    assert len(order.noted) == 2
