"""The permission trap of ``/dev/kvm``.

libvirt, as root, sees that it can open the device, and starts QEMU as a user who cannot.  What it learned of QEMU is
then never valid for long, and it asks QEMU again and again: a minute and more for each domain instead of half a second.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.lab.nested.accel import DEV_KVM
from harness.util import logs

QEMU_CONF = Path("/etc/libvirt/qemu.conf")
USUAL_ACCOUNTS = ("libvirt-qemu", "qemu")
TRAP = f"chgrp kvm {DEV_KVM} && chmod 0660 {DEV_KVM}"
"""What udev's rule would have done."""


@dataclass(frozen=True)
class KvmAccess:
    """Who can open ``/dev/kvm``.  ``account`` is whom libvirt runs QEMU as, None where that is the user himself."""

    exists: bool
    me: bool = False
    account: str | None = None
    theirs: bool | None = None

    @property
    def trapped(self) -> bool:
        """libvirt can open the device and its QEMU cannot."""
        return self.exists and self.me and self.theirs is False


def look(account: str | None) -> KvmAccess:
    """Try it: as this user, and as the ``account`` that libvirt runs QEMU as, where there is one."""
    if not DEV_KVM.exists():
        return KvmAccess(False)
    me = os.access(DEV_KVM, os.R_OK | os.W_OK)
    if account is None:
        return KvmAccess(True, me)
    return KvmAccess(True, me, account, run_as(account, ["test", "-r", str(DEV_KVM), "-a", "-w", str(DEV_KVM)]))


def qemu_account() -> str | None:
    """The account that root's libvirt runs QEMU as."""
    text = QEMU_CONF.read_text() if os.access(QEMU_CONF, os.R_OK) else ""
    return account_from(text, _is_account)


def account_from(conf: str, exists: Callable[[str], bool]) -> str | None:
    """``user`` of ``qemu.conf`` (a name, a number, or ``+`` and a number), else the account distributions make."""
    if found := re.search(r'^\s*user\s*=\s*"?\+?([\w.-]+)"?', conf, re.MULTILINE):
        return found.group(1)
    return next((name for name in USUAL_ACCOUNTS if exists(name)), None)


def run_as(account: str, argv: list[str]) -> bool:
    """Whether ``argv`` succeeds as ``account`` with all its groups; only root can ask."""
    try:
        entry = pwd.getpwuid(int(account)) if account.isdigit() else pwd.getpwnam(account)
    except KeyError:
        return False
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    with logs.command(logs.CONTROLLER, argv) as logged:
        done = subprocess.run(argv, user=entry.pw_uid, group=entry.pw_gid, extra_groups=groups, check=False, cwd="/")
        logged.status = done.returncode
    return done.returncode == 0


def first_closed(directory: Path, can_enter: Callable[[Path], bool]) -> Path | None:
    """The topmost directory on the way to ``directory``, as far as it exists, that cannot be entered."""
    existing = [path for path in (*reversed(directory.parents), directory) if path.is_dir()]
    return next((path for path in existing if not can_enter(path)), None)


def _is_account(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
