"""What a test has on the lower device and on the mapping below DRBD gets no names from the machine's udev."""

from __future__ import annotations

import uuid

from foreign import MIB, Foreign

from harness.config.inventory import StorageEntry
from harness.lab.hardware.guard import Guard, Step
from harness.lab.hardware.provider import rules_of
from harness.render.drbd_conf import ResourceSpec

_RULES = "/run/udev/rules.d/12-drbd-harness-hidden.rules"


def test_filesystem_on_the_harnesss_devices_is_not_named_by_what_is_in_it(
    foreign: Foreign, group: StorageEntry
) -> None:
    guard = Guard(foreign.machine, group, "hidden", 32 * MIB)
    resource = ResourceSpec("drbd-harness-hidden", minor=110, mapping="drbd-harness-hidden-lower")
    guard.do(Step.MAKE_VOLUME)
    lower = guard.lower(guard.look())
    try:
        foreign.sh(f'dmsetup create {resource.mapping} --table "0 $(blockdev --getsz {lower}) linear {lower} 0"')
        assert _name_is_given(foreign, str(lower), resource.mapping), "without the rule it gets one"
        foreign.sh("mkdir -p /run/udev/rules.d")
        foreign.runner.write(_RULES, rules_of(guard, resource))
        foreign.sh("udevadm control --reload")
        assert not _name_is_given(foreign, str(lower), resource.mapping)
    finally:
        foreign.sh(f"rm -f {_RULES}; udevadm control --reload; dmsetup remove --retry {resource.mapping}")
        guard.do(Step.REMOVE_VOLUME)


def _name_is_given(foreign: Foreign, lower: str, mapping: str) -> bool:
    """Whether a new filesystem on the mapping, and so on what is below it, can be found by its UUID."""
    new = str(uuid.uuid4())
    foreign.sh(
        f"mkfs.ext4 -q -F -U {new} /dev/mapper/{mapping}; for one in {lower} /dev/mapper/{mapping}; do "
        "udevadm trigger --action=change /sys/class/block/$(basename $(readlink -f $one)); done; udevadm settle"
    )
    return new in foreign.sh("ls /dev/disk/by-uuid")
