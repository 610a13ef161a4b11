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

setup() { # yes|no: may install packages of the system
    mkdir -p "$ROOT/build"
    exec 9>"$ROOT/build/setup.lock"
    if command -v flock >/dev/null; then flock 9; fi
    system_packages "$1"
    python_environment
    [[ $1 == no ]] || mend_kvm_device
    exec 9>&-
}

# Without udev nobody gives /dev/kvm to its group, and libvirt then takes a minute for each domain.  Only root, and only
# where no udev would do it; see the doctor for the whole story.
mend_kvm_device() {
    local command
    ((EUID == 0)) && [[ ! -e /run/udev/control ]] || return 0
    command=$("$VENV/bin/python" -c '
from harness.doctor import kvm_access as kvm
print(kvm.TRAP if kvm.look(kvm.qemu_account()).trapped else "")') || return 0
    [[ -n $command ]] || return 0
    say "/dev/kvm was closed to libvirt's QEMU, and no udev is here to open it; did: $command"
    bash -c "$command" || say "that did not work; the doctor will say more"
}
