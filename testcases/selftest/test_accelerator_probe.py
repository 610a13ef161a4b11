"""The accelerator's probe with a made-up QEMU: KVM where it boots a kernel and nests, emulation where it does not."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from good_machine import GOOD, only

from harness.errors import InfrastructureError, UsageError
from harness.lab.nested import accel, boot_probe_images
from harness.util.deadline import Deadline, poll

FAKE_QEMU = """#!/bin/sh
[ "$1" = --version ] && echo "QEMU emulator version 9.9.9" && exit
echo $$ >>"$0.pids"
echo "$*" >>"$0.calls"
case "$*" in
    *"-accel kvm"*-kernel*) mode=$KVM_KERNEL ;;
    *"-accel kvm"*) mode=$KVM_SECTOR ;;
    *svm=on*) mode=$TCG_SVM ;;
    *) mode=$TCG ;;
esac
case $mode in
    boots) case "$*" in *-kernel*) echo "[    1.0] Run /init as init process" ;; *) echo "@SENTINEL@" ;; esac ;;
    slowly) for line in 1 2 3 4 5 6 7 8; do echo $line && sleep 0.5; done; echo "[    1.0] Run /init as init process" ;;
    endlessly) while sleep 0.1; do echo more; done ;;
    refuses) echo "qemu: no such thing" && exit 1 ;;
esac
exec sleep 600
"""

Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes a machine whose QEMU boots, refuses or hangs as told."""

    def make(
        kvm_sector: str = "boots", kvm_kernel: str = "boots", tcg_svm: str = "boots", tcg: str = "boots",
        *, nested: bool = True,
    ) -> Path:  # fmt: skip
        qemu = tmp_path / "qemu-system-x86_64"
        qemu.write_text(FAKE_QEMU.replace("@SENTINEL@", boot_probe_images.SECTOR_SENTINEL.decode()))
        qemu.chmod(0o755)
        device = tmp_path / "kvm"
        device.touch()
        (tmp_path / "vmlinuz").touch()
        monkeypatch.setattr(accel, "DEV_KVM", device)
        monkeypatch.setattr(accel, "SECTOR_SECONDS", 240.0)
        monkeypatch.setattr(accel, "kvm_is_nested", lambda: nested)
        monkeypatch.delenv(accel.OVERRIDE, raising=False)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        for name, mode in {"KVM_SECTOR": kvm_sector, "KVM_KERNEL": kvm_kernel, "TCG_SVM": tcg_svm, "TCG": tcg}.items():
            monkeypatch.setenv(name, mode)
        return tmp_path

    return make


def calls(place: Path) -> int:
    log = place / "qemu-system-x86_64.calls"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_probe_of_kvm_that_boots_uses_it(machine: Machine) -> None:
    place = machine()
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested, calls(place)) == ("kvm", True, 2)


def test_probe_logs_each_qemu_that_it_starts(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "harness.command")
    place = machine(kvm_sector="refuses")
    accel.probe(place / "vmlinuz", None, place)
    ran = [message.split("\t")[4] for message in caplog.messages]
    assert len([command for command in ran if command.startswith("timeout --signal=KILL")]) == calls(place)
    assert f"{place}/qemu-system-x86_64 --version" in ran


def test_probe_of_kvm_that_refuses_uses_emulation(machine: Machine) -> None:
    place = machine(kvm_sector="refuses")
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested) == ("tcg", True)
    assert "no such thing" in found.why


def test_probe_of_kvm_that_hangs_uses_emulation_and_leaves_no_process(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(kvm_kernel="hangs")
    read = accel._read_until
    booted: list[str] = []

    def read_from_one_that_runs(
        process: subprocess.Popen[bytes], sentinel: bytes, quiet: float, at: float
    ) -> tuple[bytes, bool]:
        # On a busy machine it may take seconds until QEMU begins: only one that runs can hang, and only that one may
        # be short of time.
        poll(lambda: calls(place) > len(booted) or None, Deadline.after(240, "the start of QEMU"), every=0.01)
        booted.append((place / "qemu-system-x86_64.calls").read_text().splitlines()[-1])
        hangs = "-accel kvm" in booted[-1] and "-kernel" in booted[-1]
        return read(process, sentinel, 0.2 if hangs else quiet, at)

    monkeypatch.setattr(accel, "_read_until", read_from_one_that_runs)
    found = accel.probe(place / "vmlinuz", None, place, deadline_seconds=240)
    assert (found.kind, found.kvm_lacks_nesting, len(booted)) == ("tcg", False, 4)
    # The last line of stdout of something that hangs without a word.
    assert found.why.startswith("KVM does not boot: nothing more within 240 s, last output: none at all")
    pids = (place / "qemu-system-x86_64.pids").read_text().split()
    assert len(pids) == 4
    # Killed is not yet gone: a process needs a processor to end, too.  One that was forgotten would sleep 600 s.
    poll(lambda: not any(map(is_running, pids)) or None, Deadline.after(240, "the end of each QEMU"), every=0.01)


def is_running(pid: str) -> bool:
    try:
        return not is_zombie(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_probe_of_kvm_that_is_slow_waits_while_its_kernel_prints(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(kvm_kernel="slowly")
    monkeypatch.setattr(accel, "SLOW_SECONDS", 120.0)
    assert accel.probe(place / "vmlinuz", None, place, deadline_seconds=3).kind == "kvm"


def test_probe_of_kvm_that_prints_for_ever_uses_emulation(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine(kvm_kernel="endlessly")
    monkeypatch.setattr(accel, "SLOW_SECONDS", 5.0)
    found = accel.probe(place / "vmlinuz", None, place, deadline_seconds=5)
    assert found.kind == "tcg"
    assert "KVM does not boot: not done in 5 s, last output: 'more'" in found.why


def is_zombie(pid: str) -> bool:
    return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("kernel", [True, False])
def test_probe_of_kvm_that_does_not_nest_uses_emulation(
    kernel: bool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(nested=False)
    monkeypatch.setattr(accel, "host_kernel", lambda: None)
    found = accel.probe(place / "vmlinuz" if kernel else None, None, place)
    assert (found.kind, found.nested, found.kvm_lacks_nesting) == ("tcg", True, True)
    assert f"KVM boots {'the kernel' if kernel else 'a boot sector'}" in found.why
    assert accel.probe(place / "vmlinuz" if kernel else None, None, place) == found, "also from the cache"
    check = only(replace(GOOD, accelerator=found, root=False), "accelerator")
    assert (check.status, check.remedy) == ("warn", "sudo sh -c 'modprobe -r kvm_intel && modprobe kvm_intel nested=1'")
    assert only(replace(GOOD, accelerator=found, kvm_vendor=""), "accelerator").remedy is None
    monkeypatch.setattr(accel, "kvm_is_nested", lambda: True)
    now = accel.probe(place / "vmlinuz" if kernel else None, None, place)
    assert (now.kind, now.nested) == ("kvm", True), "it is looked at again once it nests"


def test_probe_of_kvm_that_does_not_nest_and_is_forced_is_kvm(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(nested=False)
    monkeypatch.setenv(accel.OVERRIDE, "kvm")
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested, found.kvm_lacks_nesting) == ("kvm", False, False)
    check = only(replace(GOOD, accelerator=found, kvm_vendor=""), "nested")
    assert (check.status, check.remedy) == ("fail", f"unset {accel.OVERRIDE}")


def test_probe_without_a_kernel_announces_the_full_probe(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine()
    monkeypatch.setattr(accel, "host_kernel", lambda: None)
    found = accel.probe(None, None, place)
    assert (found.kind, calls(place)) == ("kvm", 1)
    assert "the full probe follows when images exist" in found.why


def test_probe_without_a_device_does_not_try_kvm(machine: Machine) -> None:
    place = machine(kvm_sector="hangs")
    (place / "kvm").unlink()
    assert accel.probe(place / "vmlinuz", None, place).kind == "tcg"


def test_probe_of_emulation_without_svm_is_not_nested(machine: Machine) -> None:
    place = machine(kvm_sector="refuses", tcg_svm="refuses")
    found = accel.probe(place / "vmlinuz", None, place)
    assert (found.kind, found.nested) == ("tcg", False)


def test_probe_of_a_qemu_that_boots_nothing_is_an_error(machine: Machine) -> None:
    place = machine("refuses", "refuses", "refuses", "refuses")
    with pytest.raises(InfrastructureError, match=r"boots nothing here.*no such thing"):
        accel.probe(place / "vmlinuz", None, place)


def test_probe_again_uses_the_cache_until_an_input_changes(machine: Machine) -> None:
    place = machine()
    kernel = place / "vmlinuz"
    first = accel.probe(kernel, None, place / "cache")
    assert accel.probe(kernel, None, place / "cache") == first
    assert calls(place) == 2
    accel.probe(kernel, None, place / "cache", fresh=True)
    assert calls(place) == 4
    kernel.write_text("another kernel")
    accel.probe(kernel, None, place / "cache")
    assert calls(place) == 6
    (place / "cache" / "probe.json").write_text("{ not json")
    accel.probe(kernel, None, place / "cache")
    assert calls(place) == 8


def test_cache_key_covers_device_kernel_and_choice(machine: Machine) -> None:
    place = machine()
    qemu, subject = place / "qemu-system-x86_64", accel.Subject(place / "vmlinuz")
    keys = {accel.cache_key(qemu, None, subject), accel.cache_key(qemu, "tcg", subject)}
    keys.add(accel.cache_key(qemu, None, None))
    (place / "kvm").chmod(0o640)
    keys.add(accel.cache_key(qemu, None, subject))
    (place / "kvm").unlink()
    keys.add(accel.cache_key(qemu, None, subject))
    assert len(keys) == 5


@pytest.mark.parametrize(("forced", "kvm"), [("kvm", "refuses"), ("tcg", "boots")])
def test_probe_with_a_forced_kind_uses_it(
    forced: str, kvm: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = machine(kvm_sector=kvm)
    monkeypatch.setenv(accel.OVERRIDE, forced)
    found = accel.probe(place / "vmlinuz", None, place)
    assert found.kind == forced
    assert "forced by" in found.why


def test_probe_with_an_unknown_forced_kind_is_a_usage_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    place = machine()
    monkeypatch.setenv(accel.OVERRIDE, "xen")
    with pytest.raises(UsageError, match="'kvm' or 'tcg', not 'xen'"):
        accel.probe(None, None, place)


@pytest.mark.parametrize(("text", "nested"), [("Y\n", True), ("1\n", True), ("N\n", False), ("0\n", False)])
def test_kvm_is_nested_reads_the_modules_parameter(tmp_path: Path, text: str, nested: bool) -> None:
    (tmp_path / "nested").write_text(text)
    assert accel.kvm_is_nested([tmp_path / "missing", tmp_path / "nested"]) is nested


def test_last_message_drops_control_sequences() -> None:
    assert accel.last_message(b"\x1bc\x1b[?7l\x1b[2JSeaBIOS (1.16)\r\n\r\n") == "'SeaBIOS (1.16)'"
    assert accel.last_message(b"\x1bc\x1b[?7l\r\n") == "none at all"


def test_boot_sector_has_signature_and_sentinel() -> None:
    sector = boot_probe_images.boot_sector()
    assert (len(sector), sector[-2:]) == (512, b"\x55\xaa")
    where = int.from_bytes(sector[6:8], "little") - 0x7C00
    assert sector[where:].startswith(boot_probe_images.SECTOR_SENTINEL + b"\r\n\0")


def test_tiny_initramfs_has_an_executable_init() -> None:
    archive = boot_probe_images.tiny_initramfs()
    assert len(archive) % 512 == 0
    members = {}
    at = 0
    while archive[at : at + 6] == b"070701":
        numbers = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        data = at + 110 + name_size + -(110 + name_size) % 4
        members[name] = (mode, archive[data : data + size])
        at = data + size + -size % 4
    assert members == {"init": (0o100755, b"#!/nowhere\n"), "TRAILER!!!": (0, b"")}
