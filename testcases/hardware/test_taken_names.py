"""A resource of the user's with the name, minor and port that a lab would take: it is seen, and others are taken."""

from __future__ import annotations

from foreign import Foreign

from harness.lab.hardware.taken import FIRST_MINOR, FIRST_PORT, collisions, free_minor, free_port, look
from harness.render.drbd_conf import ResourceSpec

NAME = "drbd-harness-test"


def test_resource_of_the_user_s_keeps_its_name_minor_and_port(foreign: Foreign, disk: str) -> None:
    file = f"/etc/drbd.d/{NAME}.res"
    foreign.sh(
        f"modprobe drbd; printf 'resource {NAME} {{ device minor {FIRST_MINOR}; disk %s; meta-disk internal; "
        f"on %s {{ address 127.0.0.1:{FIRST_PORT}; }} on other {{ address 127.0.0.2:{FIRST_PORT}; }} }}' /dev/{disk} "
        f"$(uname -n) > {file}; drbdadm create-md --force {NAME} > /dev/null 2>&1; drbdadm up {NAME}"
    )
    digest = f"cat {file}; drbdsetup show {NAME}; cat /proc/drbd"
    before = foreign.sh(digest)
    try:
        seen = look(foreign.machine)
        spec = ResourceSpec(NAME, FIRST_MINOR, FIRST_PORT, mapping="ours")
        found = collisions(seen, spec)
        assert f"there is a resource {NAME} already, in {file}" in found
        assert f"the minor {FIRST_MINOR} belongs to the resource {NAME}, in {file}" in found
        assert f"the port {FIRST_PORT} belongs to the resource {NAME}, in {file}" in found
        assert free_minor([seen]) == FIRST_MINOR + 1 and free_port([seen]) == FIRST_PORT + 1
        assert foreign.sh(digest) == before
    finally:
        foreign.sh(f"drbdadm down {NAME}; rm {file}")
