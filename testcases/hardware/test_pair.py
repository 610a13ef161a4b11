"""Cells on two machines that are somebody's, reached over ssh alone: they are played, and nothing of theirs is changed.

``--drbd-foreign DIR`` with an image of ``ci/foreign-machine``; each test plays for minutes.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from pair import OWNERS_RESOURCE, Pair, differences

MATRIX = Path(__file__).with_name("node_cells.toml")
# Of a user's resource on both machines, in use on alpha; with what he wants done when a verify finds something.
_THEIRS = (
    r"""
cp -a /etc/drbd.d/global_common.conf /root/global_common.kept
sed -i 's|^[[:space:]]*handlers {|& out-of-sync "/usr/bin/touch /root/called";|' /etc/drbd.d/global_common.conf
grep -q called /etc/drbd.d/global_common.conf
lvs theirs/used > /dev/null 2>&1 || lvcreate -q -y -n used -L 48m theirs > /dev/null
"""
    + OWNERS_RESOURCE
)


def test_look_at_both_changes_nothing(pair: Pair) -> None:
    looked = pair.harness("inventory", pair.inventory())
    assert looked.returncode == 0, looked.stdout
    power = pair.harness("inventory", pair.inventory(), "--power-status")
    assert power.returncode == 0 and power.stdout.count(" on") == 2, power.stdout


@pytest.mark.parametrize("user", ["root", "admin"])
def test_cells_of_the_node_are_played_and_all_is_put_back(pair: Pair, user: str) -> None:
    printed = pair.played(pair.inventory(user), MATRIX)
    assert "host-planted" in printed and "host-ext4-buffered-disk5ms" in printed


def test_resource_of_the_user_s_stays_in_use(machines: Pair) -> None:
    for one in machines.both:
        one.sh(_THEIRS)
    try:
        alpha = machines.alpha
        alpha.sh(
            "drbdadm primary --force used; mkfs.ext4 -q /dev/drbd100; mkdir -p /media/used; "
            "mount /dev/drbd100 /media/used; head -c 8M /dev/urandom > /media/used/data; sync"
        )
        machines.beta.sh("until drbdadm dstate used | grep -q UpToDate/UpToDate; do sleep 1; done")
        data = alpha.sh("sha256sum /media/used/data")
        before = machines.states()
        machines.played(machines.inventory(), MATRIX, "-k", "ext4")
        for was, now in zip(before, machines.states(), strict=True):
            assert differences(was, now) == {}
        alpha.sh("echo 3 > /proc/sys/vm/drop_caches")
        assert alpha.sh("sha256sum /media/used/data") == data
        # The control that plants differences has one verify find them.
        for one in machines.both:
            one.sh("test ! -e /root/called")
    finally:
        for one in machines.both:
            one.sh(
                "! mountpoint -q /media/used || umount /media/used; drbdadm down used; rm /etc/drbd.d/used.res; "
                "mv /root/global_common.kept /etc/drbd.d/global_common.conf; "
                "lvremove -q -f -y theirs/used > /dev/null; rmmod drbd"
            )


# How long it has been under way, in seconds after the first change.
@pytest.mark.parametrize("after", [0, 5, 15, 30, 45, 60, 80, 100, 130, 160])
def test_run_that_was_killed_is_put_back_by_clean(pair: Pair, after: float) -> None:
    inventory = pair.inventory()
    with pair.started("run", "--inventory", inventory, "--matrix", MATRIX) as process:
        _wait_for_the_first_change(pair)
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)
    again = pair.harness("run", "--inventory", inventory, "--matrix", MATRIX)
    # Its leases are taken over, since this machine knows that it has ended; what it changed is for clean.
    assert again.returncode == 2 and "clean --inventory" in again.stdout, again.stdout
    for one in pair.both:
        assert f"the lease of {one.name} is taken over: process {process.pid} here" in again.stdout, again.stdout
    cleaned = pair.harness("clean", "--inventory", inventory)
    assert cleaned.returncode == 0, cleaned.stdout


@pytest.mark.parametrize("after", [5, 60])
def test_machine_that_loses_its_power_in_a_run_is_put_back_after_its_boot(pair: Pair, after: float) -> None:
    inventory = pair.inventory()
    with pair.started("run", "--inventory", inventory, "--matrix", MATRIX) as process:
        _wait_for_the_first_change(pair)
        time.sleep(after)
        pair.beta.cut()
        printed, _ = process.communicate(timeout=1800)
        assert process.returncode == 2 and "Traceback" not in printed, printed[-4000:]
    pair.beta.boot()
    pair.beta.wait()
    pair.beta.settle()
    cleaned = pair.harness("clean", "--inventory", inventory)
    assert cleaned.returncode == 0, cleaned.stdout


def test_second_harness_is_told_who_has_the_machines(pair: Pair) -> None:
    inventory = pair.inventory()
    with pair.started("run", "--inventory", inventory, "--matrix", MATRIX, "-k", "disk5ms") as process:
        _wait_for_the_first_change(pair)
        second = pair.harness("run", "--inventory", inventory, "--matrix", MATRIX)
        assert second.returncode == 2 and "a run on tried" in second.stdout, second.stdout
        printed, _ = process.communicate(timeout=1800)
        assert process.returncode == 0, printed[-4000:]


def _wait_for_the_first_change(pair: Pair) -> None:
    """Until something is noted on the machine that is changed last; what is kept of images is another lab's there."""
    pair.beta.sh(
        'n=0; until grep -qs \'"lab": "tried"\' /var/lib/drbd-harness/journal/*.json; do '
        "n=$((n + 1)); test $n -lt 600; sleep 1; done",
        timeout=900,
    )
