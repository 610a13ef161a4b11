"""Each kind of change that is in a kernel, as the programs of a machine tell it: what is ours goes, the rest stays."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journal_machine import ProgramRunner, journal

from harness.errors import ProtectedError, RefusedError
from harness.lab.hardware.journal import Journal
from harness.model.changes import ASKED_FOR, ChangeKind

K = ChangeKind
RECORDED = Path(__file__).parent / "recordings" / "foreign-trixie" / "changes.txt"
SECTIONS = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", RECORDED.read_text(), re.MULTILINE | re.DOTALL))
DELAYED = ("prio 1:", "prio 1: + netem 30:")
UUID = "DRBD-HARNESS-lower-x"


class Programs:
    """Programs of a machine in the place of this one's; ``now`` is what they print, ``ran`` what changed something."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def are(self, **scripts: str) -> None:
        for name, script in scripts.items():
            path = self.folder / name
            path.write_text(f'#!/bin/sh\ncd "{self.folder}"\necho "{name} $*" >> ran\n{script}\n')
            path.chmod(0o755)

    def say(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def ran(self, word: str) -> list[str]:
        return [line for line in (self.folder / "ran").read_text().splitlines() if word in line]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    return Programs(tmp_path / "bin", monkeypatch)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Journal, ProgramRunner]:
    return journal(tmp_path / "lib", may_change=tuple(ASKED_FOR.values()))


Kept = tuple[Journal, ProgramRunner]


# --------------------------------------------------------------------------- the link


@pytest.mark.parametrize("made", ["tc half", "tc delayed", "tc cut"])
def test_qdisc_of_ours_goes_whole_and_in_part(programs: Programs, kept: Kept, made: str) -> None:
    programs.are(tc='[ "$2" = del ] && cp default now; cat now')
    for name in ("default", "now"):
        programs.say(name, SECTIONS["tc link"])
    kept[0].note(K.QDISC, "lo", "netem loss", *DELAYED)
    programs.say("now", SECTIONS[made])
    assert kept[0].put_back().done == ("qdisc lo: put back",)
    assert programs.ran("del") == ["tc qdisc del dev lo root"]


def test_qdisc_of_somebodys_is_not_noted_and_not_taken_away(programs: Programs, kept: Kept) -> None:
    programs.are(tc="cat now")
    programs.say("now", SECTIONS["tc of somebody"])
    with pytest.raises(RefusedError, match="lo has a qdisc of somebody's already"):
        kept[0].note(K.QDISC, "lo", *DELAYED)
    programs.say("now", SECTIONS["tc none"])
    kept[0].note(K.QDISC, "lo", *DELAYED)
    # The cut was not to be made, and neither was this delay.
    for made in ("tc cut", "tc of somebody"):
        programs.say("now", SECTIONS[made])
        assert kept[0].put_back().left == ("qdisc lo stays: somebody else has changed it since",)
        programs.say("now", SECTIONS["tc none"])
        kept[0].note(K.QDISC, "lo", *DELAYED)
    assert programs.ran(" del ") == []


def test_link_that_the_harness_came_by_is_not_cut(
    programs: Programs, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.are(tc="cat now")
    programs.say("now", SECTIONS["tc none"])
    kept[0].note(K.QDISC, "lo", *DELAYED)
    kept[1].change = lambda names: names.update(own_address=lambda: "127.0.0.1")
    with pytest.raises(RefusedError, match="the harness's own connection is over lo: cut, it could not be put back"):
        kept[0].note(K.QDISC, "lo", "netem loss")
    kept[1].change = lambda names: names.update(own_address=lambda: "192.0.2.7")
    kept[0].note(K.QDISC, "lo", "netem loss")


def test_nic_feature_is_put_back_unless_it_is_so_already(programs: Programs, kept: Kept) -> None:
    programs.are(ethtool='[ "$1" = -k ] && cat now; [ "$1 $4" = "-K on" ] && cp on now; true')
    for name in ("on", "now"):
        programs.say(name, SECTIONS["ethtool on"])
    with pytest.raises(RefusedError, match="'lo carrier' is nothing that the journal keeps"):
        kept[0].note(K.NIC_FEATURE, "lo carrier", "off")
    kept[0].note(K.NIC_FEATURE, "lo sg", "off")
    programs.say("now", SECTIONS["ethtool off"])
    assert kept[0].put_back().done == ("nic-feature lo sg: put back",)
    kept[0].note(K.NIC_FEATURE, "lo sg", "off")
    assert kept[0].put_back().done == ("nic-feature lo sg: it is as it was",)
    assert programs.ran("-K") == ["ethtool -K lo sg on"]


# --------------------------------------------------------------------------- values


def sysctl(kept: Kept, value: str) -> None:
    kept[0].note(K.SYSCTL, "/proc/sys/kernel/hostname", value)


def as_of_another_boot(names: dict[str, Any]) -> None:
    read = names["read"]
    names["read"] = lambda path: "another" if path.endswith("boot_id") else read(path)


def test_value_that_a_boot_took_back_is_known_by_the_boot_and_noted_anew(kept: Kept) -> None:
    sysctl(kept, "ours")
    kept[1].change = as_of_another_boot
    assert len(kept[0].entries()) == 1
    again = Journal(kept[0].machine, "test", kept[0].holder, kept[0].may_change, folder=kept[0].folder)
    again.note(K.SYSCTL, "/proc/sys/kernel/hostname", "ours")
    assert [one.boot == "another" for one in again.entries()] == [False, True]
    assert again.put_back().done == (
        "sysctl /proc/sys/kernel/hostname: it is as it was", "sysctl /proc/sys/kernel/hostname: a boot has undone it",
    )  # fmt: skip


def test_value_that_is_neither_ours_nor_the_old_one_stays(kept: Kept) -> None:
    written: dict[str, Any] = {}

    def host_is(name: str) -> Callable[[dict[str, Any]], None]:
        def change(names: dict[str, Any]) -> None:
            read = names["read"]
            names["read"] = lambda path: written.get("name", name) if path.endswith("hostname") else read(path)

        return change

    kept[1].change = host_is("before")
    sysctl(kept, "ours")
    kept[1].change = host_is("somebody else's")
    assert kept[0].put_back().left == (
        "sysctl /proc/sys/kernel/hostname stays: somebody else has changed it since",
    )  # fmt: skip
    for path in ("/etc/passwd", "/proc/sys/../self/mem", "/sys/block/sda/size"):
        with pytest.raises(RefusedError, match="is nothing that the journal keeps"):
            kept[0].note(K.MODULE_PARAMETER, path, "1")


def test_module_that_was_there_is_not_noted_and_one_that_is_used_stays(kept: Kept, programs: Programs) -> None:
    programs.are(modprobe="cat now", rmmod="")
    programs.say("now", "insmod /lib/modules/6/lru_cache.ko\ninsmod /lib/modules/6/drbd-x.ko.xz x=1\n")
    loaded = {"there"}

    def modules(names: dict[str, Any]) -> None:
        read = names["read"]
        uses = {"/sys/module/drbd_x/refcnt": used, "/sys/module/lru_cache/refcnt": "0"}
        names.update(is_loaded=loaded.__contains__, read=lambda path: uses.get(path) or read(path))

    kept[1].change, used = modules, "1"
    kept[0].note(K.MODULE, "there")
    assert kept[0].entries() == ()
    kept[0].note(K.MODULE, "drbd-x")
    loaded.update(("drbd_x", "lru_cache"))
    assert kept[0].put_back().left == ("the module drbd_x stays loaded: it is in use",)
    assert programs.ran("rmmod") == []
    loaded.clear()
    kept[0].note(K.MODULE, "drbd-x")
    loaded.update(("drbd_x", "lru_cache"))
    used = "0"
    # It is unloaded in name only here.
    assert kept[0].put_back().failed == ("module drbd-x cannot be put back: it is not as it was",)
    assert programs.ran("rmmod") == ["rmmod drbd_x", "rmmod lru_cache"]


# --------------------------------------------------------------------------- what was made


def test_mapping_goes_by_our_uuid_and_one_of_somebodys_stays(kept: Kept, programs: Programs) -> None:
    programs.are(
        dmsetup='[ "$1" = remove ] && rm now; [ "$1" = info ] || exit 0; cat now 2> /dev/null || '
        "{ echo Device does not exist. >&2; exit 1; }"
    )
    kept[0].note(K.MAPPING, "lower", UUID)
    programs.say("now", f"{UUID}\n")
    assert kept[0].put_back().done == ("mapping lower: put back",)
    assert programs.ran("resume") + programs.ran("remove") == [
        f"dmsetup resume --uuid {UUID}", f"dmsetup remove --retry --uuid {UUID}",
    ]  # fmt: skip
    kept[0].note(K.MAPPING, "lower", UUID)
    for theirs in ("\n", "LVM-theirs\n", "DRBD-HARNESS-lower-y\n"):
        programs.say("now", theirs)
        back = kept[0].put_back()
        assert (back.done, len(back.left)) == ((), 1)
        (programs.folder / "now").unlink()
        kept[0].forget()
        kept[0].note(K.MAPPING, "lower", UUID)
    programs.say("now", "LVM-theirs\n")
    with pytest.raises(ProtectedError, match="there is a mapping other already, of somebody's; nothing was changed"):
        kept[0].note(K.MAPPING, "other", UUID)
    with pytest.raises(ProtectedError, match="'LVM-1' is nothing that the journal keeps"):
        kept[0].note(K.MAPPING, "third", "LVM-1")


def test_program_that_does_not_say_what_there_is_closes_no_entry(
    kept: Kept, programs: Programs, tmp_path: Path
) -> None:
    programs.are(dmsetup="cat hidden >&2; exit 1", drbdsetup="[ ! -e hidden ] || { cat hidden >&2; exit 20; }")
    kept[1].change = there_is("/proc/drbd")
    programs.say("hidden", "Device lower not found\n")
    kept[0].note(K.MAPPING, "lower", UUID)
    (programs.folder / "hidden").unlink()
    kept[0].note(K.RESOURCE, "jour", "begins # ours", file=str(tmp_path / "jour.res"))
    programs.say("hidden", "versions do not fit\n")
    assert kept[0].put_back().failed[0] == "resource jour cannot be put back: drbdsetup: versions do not fit"
    (programs.folder / "hidden").unlink()
    failed = kept[0].put_back()
    assert failed.done == ("resource jour: it is as it was",)
    assert "dmsetup does not say whether there is a mapping lower" in failed.failed[0]
    programs.say("hidden", "Device does not exist.\n")
    assert kept[0].put_back().done == ("mapping lower: it is as it was",)


def there_is(path: str) -> Callable[[dict[str, Any]], None]:
    """To the program, ``path`` is there."""

    def change(names: dict[str, Any]) -> None:
        names["os"] = Patched(os, path=Patched(os.path, exists=lambda one: one == path or Path(one).exists()))

    return change


class Patched:
    """A module with other names in it."""

    def __init__(self, module: Any, **names: Any) -> None:
        self._module = module
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.mark.parametrize("name", [b"/media/Gesch\xe4ft", "/media/Geschäft\u00a0x\u2028".encode()])
def test_mount_with_a_name_in_any_encoding_stops_nothing(kept: Kept, tmp_path: Path, name: bytes) -> None:
    table = tmp_path / "mountinfo"
    line = b"36 35 98:0 / %s rw,noatime master:1 - ext4 /dev/sdb1 rw\n"
    table.write_bytes(line % name)
    read_it = {"/proc/self/mountinfo": table}
    opened = lambda path, *how: Path(read_it.get(path, path)).open(*how)  # noqa: E731, SIM115
    kept[1].change = lambda names: names.update(open=opened)
    kept[0].note(K.MOUNT, "/mnt/ours", "/dev/sdb1")
    table.write_bytes(line % name + line % b"/mnt/ours")
    assert kept[0].put_back().failed[0].startswith("mount /mnt/ours cannot be put back: umount: ")
    table.write_bytes(line % name)
    assert kept[0].put_back().done == ("mount /mnt/ours: it is as it was",)


def test_domain_goes_by_its_uuid_and_a_libvirt_that_does_not_answer_is_no_answer(
    kept: Kept, programs: Programs
) -> None:
    programs.are(
        virsh='shift 3; [ "$1" = destroy ] && rm now; [ "$1" = domuuid ] || exit 1; '
        "[ -e lost ] && { cat lost >&2; exit 1; }; "
        """cat now 2> /dev/null || { echo "error: failed to get domain '$2'" >&2; exit 1; }"""
    )
    kept[0].note(K.DOMAIN, "guest", "uuid-1")
    programs.say("now", "uuid-1\n")
    programs.say("lost", "error: failed to connect to the hypervisor\n")
    assert kept[0].put_back().failed == (
        "domain guest cannot be put back: libvirt does not say whether there is a domain guest: "
        "error: failed to connect to the hypervisor",
    )  # fmt: skip
    (programs.folder / "lost").unlink()
    assert kept[0].put_back().done == ("domain guest: put back",)
    assert programs.ran("destroy") == ["virsh -q -c qemu:///system destroy uuid-1"]
    kept[0].note(K.DOMAIN, "guest", "uuid-1")
    programs.say("now", "uuid-2\n")
    assert kept[0].put_back().left == ("domain guest stays: somebody else has changed it since",)


def test_resource_goes_only_with_the_harnesss_signature_in_its_file(
    kept: Kept, programs: Programs, tmp_path: Path
) -> None:
    programs.are(drbdsetup="rm -f up")
    path, up = tmp_path / "jour.res", programs.folder / "up"
    kept[1].change = lambda names: names.update(resources=lambda: ["theirs", *(["jour"] if up.exists() else [])])
    kept[0].note(K.RESOURCE, "jour", "begins # ours", file=str(path))
    up.touch()
    path.write_text("# theirs\n")
    assert kept[0].put_back().left == ("resource jour stays: somebody else has changed it since",)
    up.unlink()
    kept[0].note(K.RESOURCE, "jour", "begins # ours", file=str(path))
    path.write_text("# ours\n")
    up.touch()
    assert kept[0].put_back().done == ("resource jour: put back",)
    assert programs.ran("drbdsetup") == ["drbdsetup down jour"]
    with pytest.raises(ProtectedError, match="there is a resource theirs already"):
        kept[0].note(K.RESOURCE, "theirs", "begins # ours", file=str(path))


def test_rule_of_a_firewall_goes_by_its_comment_alone(kept: Kept, programs: Programs) -> None:
    programs.are(nft='[ "$1" = delete ] && sed -i "/handle $7$/d" now; [ "$1" = delete ] || cat now')
    text = SECTIONS["nft"]
    (without, ours, behind) = re.split(r'(?m)^(.*comment "drbd-harness-jour".*\n)', text)
    programs.say("now", without + behind)
    kept[0].note(K.FIREWALL, "nft inet jour input drbd-harness-jour")
    programs.say("now", text)
    assert kept[0].put_back().done == ("firewall nft inet jour input drbd-harness-jour: put back",)
    assert programs.ran("delete") == ["nft delete rule inet jour input handle 2"]
    assert (programs.folder / "now").read_text() == without + behind and "handle 2" in ours


# --------------------------------------------------------------------------- folders of the harness's own


def test_folder_of_what_a_guest_prints_may_lie_beside_libvirts_logs_and_nowhere_else(kept: Kept) -> None:
    noted, _ = kept
    noted.note(K.PROGRAMS, "/var/log/libvirt/drbd-harness-selftest")
    assert [one.what for one in noted.entries()] == ["/var/log/libvirt/drbd-harness-selftest"]
    for path in ("/var/log/libvirt/qemu", "/var/log/libvirt/drbd-harness-x/../qemu", "/var/log/drbd-harness-x"):
        with pytest.raises(ProtectedError):
            noted.note(K.PROGRAMS, path)
    assert noted.put_back().done == ("programs /var/log/libvirt/drbd-harness-selftest: it is as it was",)
