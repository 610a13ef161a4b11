"""Cells in a guest on two machines that are somebody's: the matrix ``quick``, a migration and a power cut.

``--drbd-foreign DIR`` with an image of ``ci/foreign-machine --guests``; the guests have KVM where the machines' QEMU
emulates an SVM.  Half an hour under emulation.
"""

from __future__ import annotations

from pair import Pair

#: A delayed link, which a resource of the owner's would feel.
MAY_CHANGE = '["qdisc"]'


def test_machines_can_have_guests(pair: Pair) -> None:
    for one in pair.both:
        one.sh("test -c /dev/kvm; virsh -q list --all")


def test_matrix_quick_is_played_and_all_is_put_back(pair: Pair) -> None:
    printed = pair.played(pair.inventory(may_change=MAY_CHANGE), "quick")
    assert "none-inflight-modify" in printed and "writeback-swap-reclaim-link20ms" in printed


def test_guest_moves_there_and_back_while_it_works(pair: Pair) -> None:
    pair.played(pair.inventory(may_change=MAY_CHANGE), "migration", "-k", "none-ext4-buffered-link20ms-migrate2")


def test_power_of_the_guest_s_machine_is_cut(pair: Pair) -> None:
    try:
        pair.played(pair.inventory(may_change=MAY_CHANGE), "failover", "-k", "none-ext4-buffered-link20ms-crash.node")
    finally:
        # It has booted in the middle of the run.
        pair.alpha.wait()
        pair.alpha.settle()
