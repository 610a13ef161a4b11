"""A kernel's package in the chroot of a stack's image: its hooks make no initrd there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.images import chroot_script


def test_install_makes_no_initrd_where_the_package_asks_for_one_itself(tmp_path: Path) -> None:
    """As the postinst of ``make bindeb-pkg`` does, which sets INITRD=Yes and runs the hooks."""
    hooks, stage, programs = tmp_path / "postinst.d", tmp_path / "stage", tmp_path / "bin"
    for folder in (hooks, stage / "debs", programs):
        folder.mkdir(parents=True)
    (stage / "debs" / "linux-image-6.12.117-mine_1_amd64.deb").touch()
    hook, apt = hooks / "initramfs-tools", programs / "apt-get"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/initrd\n")
    apt.write_text(f'#!/bin/sh\nfor one in {hooks}/*; do [ ! -x "$one" ] || INITRD=Yes "$one"; done\n')
    for program in (hook, apt):
        program.chmod(0o755)
    script = chroot_script.INSTALL.replace(chroot_script.STAGE, str(stage)).replace(
        "/etc/kernel/postinst.d", str(hooks)
    )
    subprocess.run(["sh", "-ec", script], env={"PATH": f"{programs}:/usr/bin:/bin"}, check=True)
    assert not (tmp_path / "initrd").exists()
