# shellcheck shell=bash
# Everything up to a working "drbd-harness": packages of the system, the virtual environment, access to /dev/kvm.
# To be sourced with ROOT set to the checkout.

: "${ROOT:?}"
# shellcheck source=ci/lib/console.sh
. "$ROOT/ci/lib/console.sh"
# shellcheck source=ci/lib/python.sh
. "$ROOT/ci/lib/python.sh"
# shellcheck source=ci/lib/packages.sh
. "$ROOT/ci/lib/packages.sh"
# shellcheck source=ci/lib/changes.sh
. "$ROOT/ci/lib/changes.sh"

# Says everything that would be changed, and changes nothing, not even what Python compiles.
dry_run() {
    LOG=/dev/null
    export PYTHONDONTWRITEBYTECODE=1
    announce dry
    system_packages dry
    say "nothing was changed"
}

setup() { # yes|no: may install packages of the system
    local place
    for place in "$ROOT" "$ROOT/build" "$ROOT/.venv"; do
        [[ ! -e $place || -w $place ]] ||
            die 2 "$(id -un) may not write in $place: clone the project into a folder of your own"
    done
    mkdir -p "$ROOT/build"
    exec 9>"$ROOT/build/setup.lock"
    if command -v flock >/dev/null; then flock 9; fi
    system_packages "$1"
    python_environment
    [[ $1 == no ]] || mend_kvm_device
    exec 9>&-
}

# Without udev nobody gives /dev/kvm to its group, and libvirt then takes a minute for each domain.  Only root, and only
# where no udev would do it, and only after announce has said so; see the doctor for the whole story.
mend_kvm_device() {
    local command group mode
    ((EUID == 0)) && [[ ! -e $UDEV_CONTROL ]] || return 0
    command=$("$VENV/bin/python" -c '
from harness.doctor import kvm_access as kvm
print(kvm.TRAP if kvm.look(kvm.qemu_account()).trapped else "")') || return 0
    [[ -n $command ]] || return 0
    read -r group mode < <(stat -c '%G %a' "$KVM_DEVICE")
    open_record
    record kvm "$group" "$mode" -
    say "/dev/kvm (group $group, mode $mode) is closed to libvirt's QEMU, and no udev is here to open it; now: $command"
    say "  to undo it: $(undo_kvm_device "$group" "$mode")"
    bash -c "$command" || say "that did not work; the doctor will say more"
}
