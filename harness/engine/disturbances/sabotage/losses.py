"""What goes away in the middle of the work without a word: machines, daemons, and what the harness listens to."""

from __future__ import annotations

from harness.engine.cell_steps import CellRun
from harness.guest.ending import PID_FILE
from harness.model import Sabotage

# Libvirt listens by sockets of systemd's, which would start it again.
_STOP_LIBVIRTD = """
units=$(systemctl list-units --plain --no-legend --all 'libvirtd*.socket' | awk '{ print $1 }')
systemctl stop $units libvirtd.service
"""
_STOP_GUEST = f'pid=$(cat "{PID_FILE}") && kill -STOP "$pid"'
# Who runs $1, by the beginning of what it was started with.
_PROCESSES = """
found=
for process in /proc/[0-9]*; do
    case $(tr '\\0' ' ' < "$process/cmdline" 2>/dev/null) in "$1"*) found="$found ${process#/proc/}" ;; esac
done
[ -n "$found" ] || { echo "nobody runs $1" >&2; exit 1; }
"""
_KILL = f"{_PROCESSES}\nkill -9 $found"
# More than a kernel keeps, a message with each write, while its reader does not read.  Otherwise it takes ten messages
# of a program's in five seconds.
_FLOOD = f"""{_PROCESSES}
limit=/proc/sys/kernel/printk_devkmsg
before=$(cat "$limit")
echo on > "$limit"
kill -STOP $found
head -c "$2" /dev/zero | tr '\\0' x | dd of=/dev/kmsg bs=900 iflag=fullblock conv=notrunc status=none
kill -CONT $found
echo "$before" > "$limit"
"""
# The nodes are made with a log of 16 MiB.
FLOOD_BYTES = 20 * 1024 * 1024


def lose(run: CellRun, sabotage: Sabotage) -> None:
    """What ``sabotage`` takes away; nothing of it is undone but by whoever looks after the lab."""
    lab = run.context.lab
    a = lab.a.runner
    match sabotage:
        case Sabotage.STOPPED_NODE:
            # It goes on with the end of the lab: the cell has to do without it.
            lab.stop(lab.b)
            done = f"the machine of {lab.b.name} was stopped"
        case Sabotage.STOPPED_GUEST:
            a.run(["sh", "-ec", _STOP_GUEST, "sh", run.guest_disk.present_guest.spec.name])
            done = f"the guest's QEMU on {lab.a.name} was stopped"
        case Sabotage.STOPPED_LIBVIRTD:
            a.run(["sh", "-ec", _STOP_LIBVIRTD], timeout=90)
            done = f"libvirtd on {lab.a.name} was stopped"
        case Sabotage.KILLED_LIBVIRTD:
            mine = lab.kill_libvirt()
            done = f"the controller's libvirt {'was killed' if mine else 'is not ours alone, and was left as it is'}"
        case Sabotage.LOST_EVENTS:
            a.run(["sh", "-ec", _KILL, "sh", "drbdsetup events2"])
            done = f"whoever reads DRBD's events on {lab.a.name} was killed"
        case _:
            a.run(["sh", "-ec", _FLOOD, "sh", "cat /dev/kmsg", str(FLOOD_BYTES)], timeout=120)
            done = f"the kernel of {lab.a.name} printed more than it keeps, while nobody read it"
    run.context.log_event(f"sabotage: {done}")
