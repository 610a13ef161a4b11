"""A resource in use on two machines that are somebody's, looked at over ssh alone: what ``inspect`` says of it is so.

``--drbd-foreign DIR`` with an image of ``ci/foreign-machine``; each test takes minutes.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import OWNERS_RESOURCE, Pair

# The owner's resource, mounted on alpha; without a verify-alg, as many have it.
_SET_UP = (
    r"""
lvcreate -q -y -n used -L 64m theirs > /dev/null
"""
    + OWNERS_RESOURCE
)
_MOUNT = r"""
drbdadm primary --force used
mkfs.ext4 -q -b 4096 -E nodiscard /dev/drbd100
mkdir -p /media/used
mount /dev/drbd100 /media/used
head -c 1M /dev/urandom > /media/used/ledger
sync
"""
# Also of what an earlier session that was killed left there.
_TAKE_DOWN = r"""
! mountpoint -q /media/used || umount /media/used
lvremove -q -f -y theirs/usedsnap > /dev/null 2>&1 || :
test ! -e /etc/drbd.d/used.res || drbdadm down used || :
rm -f /etc/drbd.d/used.res
lvremove -q -f -y theirs/used > /dev/null 2>&1 || :
"""
# One job writes from a buffer in memory, past the page cache, and another changes that buffer.
_WRITES = r"""
head -c 528384 /dev/zero > /dev/shm/buffer
cat > /root/writes.fio <<'END'
[global]
time_based=1
runtime=900
[writer]
filename=/media/used/written
size=16m
rw=randwrite
bs=64k
direct=1
ioengine=libaio
iodepth=8
norandommap=1
mem=mmapshared:/dev/shm/buffer
[scribbler]
filename=/dev/shm/buffer
size=512k
rw=randwrite
bs=4k
ioengine=mmap
norandommap=1
END
systemd-run -q --unit writes fio /root/writes.fio
until test -e /media/used/written; do sleep 1; done
"""


@pytest.fixture(scope="module")
def used(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both machines with the owner's resource, UpToDate on both, mounted on alpha."""
    directory = pytestconfig.getoption("--drbd-foreign", default=None)
    if directory is None:
        pytest.skip("needs --drbd-foreign DIR, a machine that ci/foreign-machine made")
    with contextlib.ExitStack() as undone:
        pair = Pair(directory, tmp_path_factory.mktemp("inspected"))
        undone.callback(pair.close)
        pair.start()
        for one in pair.both:
            undone.callback(one.sh, _TAKE_DOWN)
            one.sh(_TAKE_DOWN + _SET_UP)
        pair.alpha.sh(_MOUNT)
        pair.beta.sh("until drbdadm dstate used | grep -q UpToDate/UpToDate; do sleep 1; done", timeout=900)
        yield pair


def test_look_says_who_uses_it_and_changes_nothing(used: Pair) -> None:
    before = used.states()
    looked = used.harness("inspect", "--inventory", used.inventory("admin"), "--resource", "used")
    assert looked.returncode == 0, looked.stdout
    assert "/media/used" in looked.stdout and "UpToDate" in looked.stdout, looked.stdout
    assert used.states() == before


def test_verify_without_an_algorithm_says_what_to_write(used: Pair) -> None:
    refused = used.harness("inspect", "--inventory", used.inventory(), "--resource", "used", "--verify", "--yes")
    assert refused.returncode != 0 and "verify-alg" in refused.stdout and "Traceback" not in refused.stdout


def test_verify_names_files_by_a_snapshot_while_the_volume_is_in_use(used: Pair, tmp_path: Path) -> None:
    for one in used.both:
        one.sh("sed -i '1a net { verify-alg crc32c; }' /etc/drbd.d/used.res; drbdadm adjust used")
    block = int(used.alpha.sh("debugfs -R 'bmap /ledger 5' /dev/drbd100 2> /dev/null").split()[-1])
    # Below DRBD, where no write of the owner's goes.
    used.beta.sh(f"dd if=/dev/urandom of=/dev/theirs/used bs=4096 count=1 seek={block} oflag=direct status=none")
    used.alpha.sh(
        "fsfreeze -f /media/used; lvcreate -q -y -s -pr -L 16m -n usedsnap theirs/used > /dev/null; "
        "fsfreeze -u /media/used"
    )
    found = used.harness(
        "inspect", "--inventory", used.inventory(), "--resource", "used", "--verify", "--yes",
        "--snapshot", "alpha=/dev/theirs/usedsnap", "--json", tmp_path / "used.json",
    )  # fmt: skip
    assert found.returncode == 1, found.stdout
    assert "/ledger" in found.stdout and "20480" in found.stdout, found.stdout
    assert "ledger" not in (tmp_path / "used.json").read_text()
    counted = used.alpha.sh("sed -n 's/.* oos:\\([0-9]*\\).*/\\1/p' /proc/drbd").strip()
    assert counted == "4", "the planted block and no other is marked"
    # It is still the owner's, mounted and in use.
    used.alpha.sh("echo more >> /media/used/ledger; sync; mountpoint -q /media/used")


def test_watch_counts_the_writes_that_change_in_flight(used: Pair, tmp_path: Path) -> None:
    inspect = ("inspect", "--inventory", used.inventory(), "--resource", "used", "--watch", "15")
    idle = used.harness(*inspect, "--json", tmp_path / "idle.json")
    # Its exit code may be 1: what the test before planted is still marked.
    assert "of 0 writes 0 changed" in idle.stdout and "nothing was written" in idle.stdout, idle.stdout
    used.alpha.sh(_WRITES)
    try:
        watched = used.harness(*inspect, "--json", tmp_path / "used.json")
    finally:
        used.alpha.sh("systemctl stop writes; rm -f /dev/shm/buffer /root/writes.fio", ok=(0, 5))
    assert watched.returncode == 1, watched.stdout
    counted = re.search(r"of ([\d\s]+) writes? ([\d\s]+) changed", watched.stdout)
    assert counted is not None, watched.stdout
    writes, changed = (int("".join(number.split())) for number in counted.groups())
    assert 0 < changed <= writes and "exposed now" in watched.stdout, watched.stdout
    assert "alpha" in watched.stdout and "alpha" not in (tmp_path / "used.json").read_text()
    json.loads((tmp_path / "used.json").read_text())
    # Nothing of it is left in the kernel.
    assert used.alpha.sh("! lsmod | grep -i witness; ls /sys/fs/bpf | wc -l").strip() == "0"
