"""Nothing but the guard and its programs names a block device, or a program that writes to one."""

from __future__ import annotations

import ast
from pathlib import Path

from harness.lab import hardware

PACKAGE = Path(hardware.__file__).parent

WRITERS = (
    "dd", "lvcreate", "lvremove", "lvresize", "lvconvert", "vgcreate", "vgremove", "pvcreate", "pvremove", "wipefs",
    "mkswap", "mkfs", "blkdiscard", "dmsetup", "losetup", "mdadm", "cryptsetup", "sfdisk", "parted", "sgdisk", "shred",
    "zfs", "zpool", "drbdadm", "drbdsetup", "drbdmeta", "tee", "cp", "truncate", "fallocate", "hdparm", "nvme",
)  # fmt: skip


def test_only_the_guard_and_its_programs_name_a_block_device_or_a_program_that_writes_to_one() -> None:
    seen = {}
    for path in PACKAGE.rglob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        documentation = _docstrings(path)
        seen[path.relative_to(PACKAGE).as_posix()] = [
            text
            for text in texts
            if isinstance(text, str) and text not in documentation and (text.startswith("/dev/") or text in WRITERS)
        ]
    assert seen["guard.py"] and seen["programs/act.py"]
    assert {name for name, found in seen.items() if found} == {
        "guard.py", "own.py", "programs/act.py", "programs/look.py", "programs/look_zfs.py", "programs/journal_made.py",
        "programs/resource.py", "programs/taken.py",
    }  # fmt: skip
    # What LVM calls a device is cut down to its name.
    assert seen["own.py"] == ["/dev/"]
    # ZFS is asked for what there is, and its device is opened to be read.
    assert set(seen["programs/look_zfs.py"]) == {"/dev/zvol/", "zfs", "zpool"}
    of_zfs = (PACKAGE / "programs" / "look_zfs.py").read_text()
    assert all(f'run(["{words}' in of_zfs for words in ('zfs", "list", ', 'zfs", "get", ', 'zpool", "list", '))
    assert of_zfs.count("os.open(path, os.O_RDONLY | ") == of_zfs.count("open(") == 1
    # Of a resource in use it is said how it is set up and used.
    assert [text for text in seen["programs/resource.py"] if not text.startswith("/dev/")] == ["drbdsetup"] * 2
    own = (PACKAGE / "programs" / "resource.py").read_text()
    assert '["drbdsetup", "show", ' in own and '["drbdsetup", "status", ' in own and '"wb' not in own
    assert seen["programs/taken.py"] == ["drbdsetup"]
    assert '["drbdsetup", "show"]' in (PACKAGE / "programs" / "taken.py").read_text()
    # What is put back is taken down by its own name or UUID, and no loop device is let go of but that of our own file.
    assert set(seen["programs/journal_made.py"]) == {"drbdsetup", "dmsetup", "losetup", "/dev/"}
    made = ast.parse((PACKAGE / "programs" / "journal_made.py").read_text())
    commands = [ast.unparse(one.elts[1]) for one in ast.walk(made) if isinstance(one, ast.List) and len(one.elts) > 1]
    assert {one for one in commands if one.startswith("'")} == {
        "'show'", "'down'", "'info'", "'resume'", "'remove'", "'--detach'", "'-a'", "'delete'", "'-q'", "'-w'",
        "'--zone=' + first",
    }  # fmt: skip
    # What looks names programs that can write too, none of them with what makes them write.
    assert set(seen["programs/look.py"]) <= {"/dev/disk/by-id/*", "/dev/", "wipefs", "zpool"}
    look = (PACKAGE / "programs" / "look.py").read_text()
    assert '["wipefs", "--no-act", "-J", path]' in look and '["zpool", "status", "-L", "-P"]' in look
    assert not {"O_RDWR", "O_WRONLY", "O_CREAT", '"w"', '"wb"'} & set(look.replace("|", " ").replace("(", " ").split())


def _docstrings(path: Path) -> set[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = (
        ast.get_docstring(node, clean=False)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, kinds)
    )
    return {text for text in found if text}


def test_only_the_guard_starts_the_program_that_writes_to_disks() -> None:
    texts = {path.name: path.read_text() for path in PACKAGE.glob("*.py")}
    # The script of machines.py only looks; lease.py starts its own program; that of compare.py opens what it reads
    # with O_RDONLY (test_digest_comparison.py); lab_power.py asks for the boot and waits for its services; that of
    # guest_image.py writes below the harness's own folder, as guests.py does.
    assert {name for name, text in texts.items() if ".run" in text} == {
        "compare.py", "guard.py", "guest_image.py", "guests.py", "journal.py", "lab_power.py", "lease.py",
        "machines.py", "provider.py", "taken.py",
    }  # fmt: skip
    assert {name for name, text in texts.items() if '"programs"' in text} == {
        "guard.py", "guest_image.py", "journal.py", "lease.py", "taken.py"
    }  # fmt: skip
    assert '/ "programs" / "images.py"' in texts["guest_image.py"] and "{name}.py" not in texts["guest_image.py"]
    assert '/ "programs" / "lease.py"' in texts["lease.py"] and "{name}.py" not in texts["lease.py"]
