"""What ci/quickstart changes, says before and lets undo: its shell, with the real apt, on a made-up Debian."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from made_up_debian import APT, Machine, available, installed, machine

from harness.util import paths

needs_apt = pytest.mark.skipif(APT is None or shutil.which("dpkg-query") is None, reason="there is no apt here")

__all__ = ["machine"]


# --------------------------------------------------------------------------- --dry-run


@needs_apt
def test_dry_run_says_packages_versions_sizes_folders_and_changes_not_a_byte(machine: Machine) -> None:
    before = machine.content()
    done = machine.run(str(machine.checkout / "ci" / "quickstart"), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    for said in (
        "new: wanted 2.0 (1.0 MiB)",
        "upgrade: library 1.0 -> 1.5 (1.0 MiB)",
        "1 new, 1 upgraded, 0 removed; 2.0 MiB to download, 4.0 MiB installed",
        "by apt-get --no-remove, so that nothing is removed",
        f"folder {machine.root}/state/drbd-harness",
        f"folder {machine.root}/cache/drbd-harness",
        "/dev/kvm: ",
        "--undo",
        "nothing was changed",
    ):
        assert said in done.stdout
    assert machine.content() == before


@needs_apt
def test_dry_run_of_a_package_that_no_list_knows_says_so_and_changes_nothing(machine: Machine) -> None:
    machine.offer(available("other", "1"))
    before = machine.content()
    done = machine.run(str(machine.checkout / "ci" / "test"), "--dry-run")
    assert done.returncode == 0
    assert "apt cannot say what it would do: E: Unable to locate package wanted" in done.stdout
    assert machine.content() == before


@needs_apt
def test_what_only_the_selftests_use_is_for_ci_test_alone(machine: Machine) -> None:
    machine.for_tests.write_text("more test command:no-such-tool more - - -\n")
    machine.offer(available("wanted", "2.0"), available("more", "3.0"))
    said = [machine.run(str(machine.checkout / "ci" / name), "--dry-run").stdout for name in ("quickstart", "test")]
    assert ["new: more 3.0" in each for each in said] == [False, True]


# --------------------------------------------------------------------------- nothing is removed


@needs_apt
def test_setup_where_a_package_would_have_to_go_installs_nothing_and_names_it(machine: Machine) -> None:
    machine.status.write_text(installed("fence", "1") + installed("garden", "1", "Depends: fence"))
    machine.offer(available("wanted", "2.0", "Conflicts: fence"))
    machine.pretend_to_install()
    done = machine.shell("system_packages yes")
    assert done.returncode == 2
    assert done.stderr.startswith("bash: nothing was installed: apt would have to remove garden, fence for it")
    assert done.stderr.count("\n") == 1
    assert not machine.apt_log.exists()


@needs_apt
def test_setup_where_a_package_is_held_back_says_what_apt_says_against_it(machine: Machine) -> None:
    machine.status.write_text(installed("library", "1.0").replace("install ok", "hold ok"))
    machine.pretend_to_install()
    done = machine.shell("system_packages yes")
    assert done.returncode == 2
    assert "wanted : Depends: library (>= 1.5)" in done.stdout
    assert "held broken packages" in done.stdout
    assert "nothing was installed: apt can install none of wanted" in done.stderr


@pytest.mark.parametrize(
    ("family", "said", "would_go"),
    [
        (
            "dnf",
            "Installing:\n wanted x86_64 2-1 repo 1 k\n     replacing  fence.x86_64 1-1\n\nTransaction Summary",
            "fence.x86_64",
        ),
        (
            "dnf",
            "Removing:\n fence x86_64 1-1 @repo 1 k\n garden x86_64 1-1 @repo 1 k\n\nOperation aborted.",
            "fence, garden",
        ),
        ("dnf", "Installing:\n wanted x86_64 2-1 repo 1 k\n\nTransaction Summary\nOperation aborted.", ""),
        (
            "zypper",
            "The following 2 packages are going to be REMOVED:\n  fence garden\n\n1 new, 2 to remove.",
            "fence, garden",
        ),
        ("pacman", ":: wanted-2-1 and fence-1-1 are in conflict. Remove fence? [y/N]", "fence"),
    ],
)
def test_removals_of_what_other_package_managers_say(machine: Machine, family: str, said: str, would_go: str) -> None:
    done = machine.shell(f"FAMILY={family}\nremovals $'{said.encode('unicode_escape').decode()}' wanted || true")
    assert done.stdout.strip() == would_go


def test_plan_of_dnf_is_its_own_answer_and_its_no_is_no_failure(machine: Machine) -> None:
    machine.program(
        "dnf", "#!/bin/sh\nprintf 'Installing:\\n wanted x86_64 2-1 repo 1 k\\n'; echo 'Operation aborted.'; exit 1\n"
    )
    done = machine.shell("FAMILY=dnf\nmake_plan wanted && say_plan")
    assert done.returncode == 0
    assert "dnf without --allowerasing" in done.stdout
    assert "     wanted x86_64 2-1 repo 1 k" in done.stdout


# --------------------------------------------------------------------------- Proxmox VE


@needs_apt
@pytest.mark.parametrize("option", ["--dry-run", "--suite=trixie"])
@pytest.mark.parametrize("package", ["proxmox-ve", "pve-manager"])
def test_quickstart_on_a_proxmox_ve_node_refuses_in_a_sentence(machine: Machine, package: str, option: str) -> None:
    machine.status.write_text(installed(package, "8.2"))
    before = machine.content()
    done = machine.run(str(machine.checkout / "ci" / "quickstart"), option)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"quickstart: this is a Proxmox VE node (package {package}) and nothing was changed")
    assert "use a spare machine" in done.stderr
    assert done.stderr.count("\n") == 1
    assert machine.content() == before


def test_refusal_on_proxmox_ve_goes_by_its_files_too_and_not_where_nothing_is_installed(machine: Machine) -> None:
    mark = machine.root / "pveversion"
    mark.touch()
    done = machine.shell(f"PROXMOX_VE_FILES=({mark})\nrefuse_on_proxmox_ve yes")
    assert done.returncode == 2
    assert f"Proxmox VE node ({mark})" in done.stderr
    assert machine.shell(f"PROXMOX_VE_FILES=({mark})\nrefuse_on_proxmox_ve no").returncode == 0
    assert machine.shell("refuse_on_proxmox_ve yes").returncode == 0


# --------------------------------------------------------------------------- on record, and undone


@needs_apt
def test_setup_installs_without_removing_and_undo_names_what_came(machine: Machine) -> None:
    machine.pretend_to_install()
    done = machine.shell("system_packages yes")
    assert "still missing: made-up" in done.stderr  # it was installed in name only
    (request, *_) = machine.apt_log.read_text().splitlines()
    assert request == "-q install -y --no-remove --no-install-recommends wanted"
    lines = [line.split("\t")[1:] for line in machine.record.read_text().splitlines()]
    assert ["installed", "wanted", "-", "2.0"] in lines
    assert ["upgraded", "library", "1.0", "1.5"] in lines

    before = machine.content()
    undo = machine.run(str(machine.checkout / "ci" / "quickstart"), "--undo")
    assert (undo.returncode, undo.stderr) == (0, "")
    assert "apt-get remove --no-auto-remove wanted\n" in undo.stdout
    assert "# was upgraded, and stays so: library 1.0 -> 1.5" in undo.stdout
    assert f"rm -r {machine.root}/state/drbd-harness\n" in undo.stdout
    assert machine.content() == before


@needs_apt
def test_setup_says_what_it_will_change_before_it_does(machine: Machine) -> None:
    machine.pretend_to_install(then=f"cp {machine.root}/said {machine.root}/said-before")
    machine.shell(f"{{ announce yes; system_packages yes; }} >{machine.root}/said")
    said = (machine.root / "said-before").read_text()
    assert "new: wanted 2.0" in said
    assert "upgrade: library 1.0 -> 1.5" in said
    assert f"folder {machine.root}/state/drbd-harness" in said
    assert "/dev/kvm: " in said


@needs_apt
def test_setup_ended_in_mid_installation_records_what_came(machine: Machine) -> None:
    # As Ctrl-C at the terminal: it reaches the package manager, and who started it.
    machine.pretend_to_install(then="kill -TERM $(cat $TMPDIR/pid); kill -INT $PPID; kill -INT $$")
    done = machine.shell("catch_signals; echo $$ >$TMPDIR/pid; system_packages yes")
    assert done.returncode == 143
    assert "installed\twanted\t-\t2.0\n" in machine.record.read_text()


def test_setup_of_the_kvm_device_says_and_records_how_it_was_before(machine: Machine) -> None:
    device = machine.root / "kvm"
    device.touch()
    device.chmod(0o600)
    venv = machine.root / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text(f"#!/bin/sh\necho chmod 0660 {device}\n")
    (venv / "python").chmod(0o755)
    done = machine.shell(
        f"VENV={venv.parent} KVM_DEVICE={device} UDEV_CONTROL=/nowhere\n((EUID == 0)) || exit 77\nmend_kvm_device"
    )
    if done.returncode == 77:
        pytest.skip("only root changes /dev/kvm")
    assert device.stat().st_mode & 0o777 == 0o660
    group = device.group()
    assert f"(group {group}, mode 600) is closed to libvirt's QEMU" in done.stdout
    assert f"chgrp {group} {device} && chmod 600 {device}" in done.stdout
    assert machine.record.read_text().split("\t")[1:] == ["kvm", group, "600", "-\n"]


@needs_apt
def test_undo_leaves_out_what_is_gone_already(machine: Machine) -> None:
    machine.shell("open_record\nrecord installed wanted - 2.0\nrecord installed library - 1.0")
    undo = machine.shell("print_undo")
    assert "remove --no-auto-remove library\n" in undo.stdout


def test_undo_gives_no_command_for_a_folder_that_the_user_named(machine: Machine) -> None:
    folder = machine.root / "my things"
    folder.mkdir()
    done = machine.shell(f"removal_of_folder {str(folder)!r}")
    assert done.stdout == f"# look into it yourself: {folder}\n"


@pytest.mark.parametrize(("labs", "made"), [([], False), (["1a2b3c"], False), (["1a2b3c"], True)])
def test_undo_says_that_labs_go_first(machine: Machine, labs: list[str], made: bool) -> None:
    for lab in labs:
        (machine.record.parent / "labs" / lab).mkdir(parents=True)
    program = machine.checkout / ".venv" / "bin" / "drbd-harness"
    if made:
        program.parent.mkdir(parents=True)
        program.touch(0o755)
    said = machine.shell("print_undo").stdout
    assert (f"{program} clean\n" in said) is made
    # Another checkout's: without its folder nobody could find them any more.
    assert ("# labs may be up, and this checkout has no .venv" in said) is (bool(labs) and not made)
    before = said.index("labs may be up" if labs and not made else "# folders")
    assert before <= said.index("# folders")


@needs_apt
def test_undo_of_the_kvm_device_goes_back_to_the_first_group_and_mode(machine: Machine) -> None:
    machine.shell("open_record\nrecord kvm root 600 -\nrecord kvm kvm 660 -")
    assert "chgrp root /dev/kvm && chmod 600 /dev/kvm\n" in machine.shell("print_undo").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes /dev/kvm")
@pytest.mark.parametrize(
    ("mode", "may_install", "said"),
    [
        (0o600, "yes", "mode 600, and becomes group kvm, mode 660, if libvirt's QEMU cannot open it"),
        (0o600, "no", "stays as it is (root:root, mode 600)"),
        (0o666, "yes", "stays as it is (root:root, mode 666)"),
    ],
)
def test_change_of_kvm_device_is_said_with_group_and_mode(
    machine: Machine, mode: int, may_install: str, said: str
) -> None:
    device = machine.root / "kvm"
    device.touch()
    device.chmod(mode)
    done = machine.shell(f"KVM_DEVICE={device} UDEV_CONTROL=/nowhere\nchange_of_kvm_device {may_install}")
    assert said in done.stdout


def test_places_of_the_shell_are_those_of_the_harness(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "STATE"):
        for variables in ({}, {f"DRBD_HARNESS_{name}": "~/a/../b c"}, {f"XDG_{name}_HOME": "/elsewhere"}):
            for known in (f"DRBD_HARNESS_{name}", f"XDG_{name}_HOME"):
                monkeypatch.delenv(known, raising=False)
            for key, value in variables.items():
                monkeypatch.setenv(key, value)
            monkeypatch.setenv("HOME", str(machine.root / "home"))
            exports = " ".join(f"{key}={value!r}" for key, value in variables.items())
            done = machine.shell(f"unset DRBD_HARNESS_{name}; {exports}\nplace_of {name}")
            place = paths.cache_dir() if name == "CACHE" else paths.state_dir()
            assert Path(done.stdout.strip()) == Path(os.path.normpath(place))
