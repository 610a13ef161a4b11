"""An image's parts: the order of its modules, its overlay, its initrd, its filesystem."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from image_recipes import build_step

from harness.config import recipe
from harness.images import ImageError, archive, builder
from harness.util import paths


class TestArchive:
    DEP = textwrap.dedent(
        """\
        kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2/jbd2.ko.xz kernel/fs/mbcache.ko.xz
        kernel/fs/jbd2/jbd2.ko.xz:
        kernel/fs/mbcache.ko.xz:
        kernel/lib/crc16.ko.xz:
        kernel/drivers/net/e1000.ko.xz:
        """
    )

    def test_loading_order_has_dependencies_first(self) -> None:
        order = archive.loading_order(
            self.DEP, "kernel/drivers/virtio/virtio-pci.ko\n", ["virtio_pci", "ext4", "e1000"]
        )
        assert order == [
            "kernel/fs/mbcache.ko.xz",
            "kernel/fs/jbd2/jbd2.ko.xz",
            "kernel/lib/crc16.ko.xz",
            "kernel/fs/ext4/ext4.ko.xz",
            "kernel/drivers/net/e1000.ko.xz",
        ]

    def test_loading_order_of_an_unknown_module_names_it(self) -> None:
        with pytest.raises(ImageError, match="no module 'zfs'"):
            archive.loading_order(self.DEP, "", ["ext4", "zfs"])

    def test_parse_status_has_installed_packages_only(self) -> None:
        text = textwrap.dedent(
            """\
            Package: zlib1g
            Status: install ok installed
            Version: 1:1.3
            Description: a library
             Package: not this one

            Package: gone
            Status: deinstall ok config-files
            Version: 1

            Package: fio
            Status: install ok installed
            Version: 3.39-1
            """
        )
        assert archive.parse_status(text) == {"fio": "3.39-1", "zlib1g": "1:1.3"}

    def test_pack_overlay_is_owned_by_root_with_modes_and_parents(self, tmp_path: Path) -> None:
        (tmp_path / "binary").write_bytes(b"\x7fELF")
        (tmp_path / "script").write_text("#!/bin/sh\n")
        entries = [
            recipe.Entry(PurePosixPath("/etc"), 0o755),
            recipe.Entry(PurePosixPath("/etc/script"), 0o755, source=tmp_path / "script"),
            recipe.Entry(PurePosixPath("/etc/link"), 0o777, target="/dev/null"),
        ]
        archive.pack(tmp_path / "overlay.tar", entries, {"/usr/lib/own/program": tmp_path / "binary"})
        with tarfile.open(tmp_path / "overlay.tar") as tar:
            members = {member.name: member for member in tar}
        assert list(members) == [
            "etc", "etc/script", "etc/link", "usr", "usr/lib", "usr/lib/own", "usr/lib/own/program",
        ]  # fmt: skip
        assert {member.uid for member in members.values()} == {0}
        assert members["etc/script"].mode == 0o755
        assert members["etc/link"].linkname == "/dev/null"
        assert members["usr/lib/own/program"].size == 4

    def test_initrd_is_a_newc_archive(self) -> None:
        data = archive.initrd(b"program", {"a.ko": b"AAAAA", "b.ko": b"B"})
        found = dict(self.read_newc(data))
        assert list(found) == ["dev", "dev/console", "init", "modules.list", "a.ko", "b.ko", "TRAILER!!!"]
        assert found["init"] == (0o100755, b"program")
        assert found["modules.list"] == (0o100644, b"/a.ko\n/b.ko\n")
        assert found["a.ko"] == (0o100644, b"AAAAA")
        assert found["dev/console"][0] == 0o020600

    @staticmethod
    def read_newc(data: bytes) -> Iterator[tuple[str, tuple[int, bytes]]]:
        """Name, mode and content of each member, read by the format's own description (cpio(5), "newc")."""
        at = 0
        while at < len(data):
            assert data[at : at + 6] == b"070701"
            fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
            mode, size, name_size = fields[1], fields[6], fields[11]
            name = data[at + 110 : at + 110 + name_size]
            assert name.endswith(b"\0")
            start = -(-(at + 110 + name_size) // 4) * 4
            yield name[:-1].decode(), (mode, data[start : start + size])
            at = -(-(start + size) // 4) * 4

    def test_find_kernel_prefers_the_unpacked_one(self, tmp_path: Path) -> None:
        (tmp_path / "vmlinuz-6.1").touch()
        assert archive.find_kernel(tmp_path) == ("6.1", tmp_path / "vmlinuz-6.1")
        (tmp_path / "vmlinux-6.1").touch()
        assert archive.find_kernel(tmp_path) == ("6.1", tmp_path / "vmlinux-6.1")
        (tmp_path / "vmlinuz-6.2").touch()
        with pytest.raises(ImageError, match=r"2 kernels instead of one: vmlinuz-6\.1, vmlinuz-6\.2"):
            archive.find_kernel(tmp_path)

    @pytest.mark.parametrize("journal_mib", [0, 16])
    def test_make_filesystem_of_a_tar_passes_fsck(self, tmp_path: Path, journal_mib: int) -> None:
        """A small system through the whole chain: tar, contents, filesystem, and the checker's opinion of it."""
        tools = {tool: shutil.which(tool, path=paths.programs()) for tool in ("genext2fs", "e2fsck", "dumpe2fs")}
        if not all(tools.values()):
            pytest.skip("needs genext2fs and e2fsprogs")
        tar_path = tmp_path / "root.tar"
        big = os.urandom(3 << 20)
        files = {
            "./usr/lib/modules/6.1/modules.dep": self.DEP.replace(".xz", "").encode(),
            "./usr/lib/modules/6.1/modules.builtin": b"",
            "./usr/lib/modules/6.1/kernel/drivers/net/e1000.ko": b"module",
            "./var/lib/dpkg/status": b"Package: fio\nStatus: install ok installed\nVersion: 3\n",
            "./usr/bin/big": big,
        }
        with tarfile.open(tar_path, "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
        contents = archive.read(tar_path, "6.1", ["e1000"])
        assert contents.modules == {"e1000.ko": b"module"}
        assert contents.packages == {"fio": "3"}
        image = tmp_path / "root.img"
        wanted = replace(recipe.load("guest", "trixie"), free_mib=2048, journal_mib=journal_mib)
        builder.make_filesystem(image, tar_path, contents, wanted, tmp_path / "log", build_step())
        checked = subprocess.run([str(tools["e2fsck"]), "-fn", image], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout
        shown = subprocess.run([str(tools["dumpe2fs"]), "-h", image], capture_output=True, text=True, check=True).stdout
        assert ("has_journal" in shown) == (journal_mib > 0)
        status = image.stat()
        assert status.st_size >= 2048 << 20
        assert status.st_blocks * 512 < 64 << 20, "the filesystem must be sparse"
