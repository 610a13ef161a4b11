# shellcheck shell=bash
# What setting up changes on this machine: said before it is done, written down when it is, and how to undo it.

KVM_DEVICE=/dev/kvm
UDEV_CONTROL=/run/udev/control
PROXMOX_VE_FILES=(/etc/pve /usr/bin/pveversion)

# A Proxmox VE node has QEMU of its own, with which Debian's conflicts: apt would remove proxmox-ve to install it.
refuse_on_proxmox_ve() { # yes|no|dry: may install
    local mark
    [[ $1 != no ]] || return 0
    mark=$(mark_of_proxmox_ve) || return 0
    die 2 "this is a Proxmox VE node ($mark) and nothing was changed: use a spare machine, since Debian's QEMU and PVE's" \
        "own exclude each other, or install what is missing from PVE's own packages and start again with --no-install"
}

mark_of_proxmox_ve() {
    local one
    for one in proxmox-ve pve-manager; do
        if [[ $(dpkg-query -W -f='${db:Status-Status}' "$one" 2>/dev/null) == installed ]]; then
            echo "package $one" && return 0
        fi
    done
    for one in "${PROXMOX_VE_FILES[@]}"; do
        if [[ -e $one ]]; then echo "$one" && return 0; fi
    done
    return 1
}

# The same places as harness/util/paths.py.
place_of() { # CACHE|STATE
    local named="DRBD_HARNESS_$1" base="XDG_$1_HOME" own=.cache roots=/var/cache
    [[ $1 == CACHE ]] || own=.local/state roots=/var/lib
    if [[ -n ${!named:-} ]]; then
        realpath -sm -- "${!named/#\~\//$HOME/}"
    elif ((EUID == 0)); then
        echo "$roots/drbd-harness"
    elif [[ ${!base:-} == /* ]]; then
        echo "${!base}/drbd-harness"
    else
        echo "$HOME/$own/drbd-harness"
    fi
}

# Everything but the packages, which system_packages says when it knows them.
announce() { # yes|no|dry: may install
    refuse_on_proxmox_ve "$1"
    say "what this changes on this machine (--dry-run only says it; ci/quickstart --undo prints how to undo it):"
    say "  folders in this checkout, $ROOT: .venv, build (logs), runs (results)"
    say "  folder $(place_of CACHE): images of nodes and guests, some GiB$(if_there "$(place_of CACHE)")"
    say "  folder $(place_of STATE): labs, logs, the list of what was installed$(if_there "$(place_of STATE)")"
    say "  folder ${XDG_CACHE_HOME:-$HOME/.cache}/pip: pip keeps there what it downloads"
    say "  $KVM_DEVICE: $(change_of_kvm_device "$1")"
}

if_there() { [[ ! -e $1 ]] || echo " (is there already)"; }

change_of_kvm_device() { # yes|no|dry
    local owner group mode
    if [[ ! -e $KVM_DEVICE ]]; then
        echo "is not there" && return 0
    fi
    read -r owner group mode < <(stat -c '%U %G %a' "$KVM_DEVICE")
    if [[ $1 == no ]] || ((EUID)) || [[ -e $UDEV_CONTROL || "$group $mode" == "kvm 660" || $mode == *[67] ]]; then
        echo "stays as it is ($owner:$group, mode $mode)"
    else
        echo "is $owner:$group, mode $mode, and becomes group kvm, mode 660, if libvirt's QEMU cannot open it;" \
            "a restart undoes it, or: $(undo_kvm_device "$group" "$mode")"
    fi
}

undo_kvm_device() { # group mode
    printf 'chgrp %s %s && chmod %s %s\n' "$1" "$KVM_DEVICE" "$2" "$KVM_DEVICE"
}

# --------------------------------------------------------------------------- what was done

# Lines of time (UTC), what, and what it was before, with a tab between them.
open_record() {
    local state
    state=$(place_of STATE)
    # As harness/util/paths.py makes it: libvirt runs root's QEMU as another user, who has to get in.
    if ((EUID == 0)); then (umask 022 && mkdir -p "$state"); else (umask 077 && mkdir -p "$state"); fi
    RECORD="$state/setup-changes.tsv"
    : >>"$RECORD"
}

record() { # field...
    (IFS=$'\t' && printf '%s\t%s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*" >>"$RECORD")
}

installed_now() { # name, version
    case $FAMILY in
        apt) dpkg-query -W -f='${db:Status-Status}\t${binary:Package}\t${Version}\n' | sed -n 's/^installed\t//p' ;;
        dnf | zypper) rpm -qa --qf '%{NAME}\t%{VERSION}-%{RELEASE}\n' ;;
        pacman) pacman -Q | tr ' ' '\t' ;;
    esac
}

# What is installed now and was not, or not in this version, in the list that installed_now printed before.
record_packages() { # file
    local kind name old new
    while IFS='|' read -r kind name old new; do
        record "$kind" "$name" "$old" "$new"
    done < <(installed_now | awk -F'\t' '
        NR == FNR { before[$1] = $2; next }
        !($1 in before) { print "installed|" $1 "|-|" $2; next }
        before[$1] != $2 { print "upgraded|" $1 "|" before[$1] "|" $2 }' "$1" -)
}

# --------------------------------------------------------------------------- undoing it

# Prints the commands and does nothing: whether somebody needs a package by now is not known here.
print_undo() {
    local state cache kind name old new installed=() upgraded=() kvm=() as=""
    state=$(place_of STATE)
    cache=$(place_of CACHE)
    FAMILY=$(family_of_this_system)
    ((EUID == 0)) || as="sudo "
    if [[ -f $state/setup-changes.tsv ]]; then
        while IFS=$'\t' read -r _ kind name old new; do
            case $kind in
                installed) installed+=("$name") ;;
                upgraded) upgraded+=("$name $old -> $new") ;;
                kvm) ((${#kvm[@]})) || kvm=("$name" "$old") ;; # the first one knows how it was before
            esac
        done <"$state/setup-changes.tsv"
    fi
    if ((${#installed[@]})); then
        mapfile -t installed < <(comm -12 <(printf '%s\n' "${installed[@]}" | sort -u) <(installed_now | cut -f1 | sort -u))
    fi

    say "# Nothing is done here. These commands undo what ci/quickstart and ci/test did; read them, then run them."
    if [[ -x $ROOT/.venv/bin/drbd-harness ]]; then
        say "$(printf '%q' "$ROOT/.venv/bin/drbd-harness") clean"
    elif compgen -G "$state/labs/*" >/dev/null; then
        say "# labs may be up, and this checkout has no .venv: first run 'drbd-harness clean' in the one that made them"
    fi
    if ((${#installed[@]})); then
        say "# packages that were installed here; it lists what else would go with them, and asks:"
        say "$as$(removal_command) ${installed[*]}"
    else
        say "# packages: none that is on record was installed here"
    fi
    for name in "${upgraded[@]}"; do say "# was upgraded, and stays so: $name"; done
    if ((${#kvm[@]})); then undo_kvm_device "${kvm[@]}"; fi
    say "# folders; runs/ has your results:"
    for name in .venv build runs; do
        [[ ! -e $ROOT/$name ]] || say "rm -r $(printf '%q' "$ROOT/$name")"
    done
    for name in "$cache" "$state"; do removal_of_folder "$name"; done
    say "# not touched: ${XDG_CACHE_HOME:-$HOME/.cache}/pip, and accounts that packages made (libvirt-qemu, say)"
}

removal_of_folder() { # path
    [[ -e $1 ]] || return 0
    # A folder that the user named may hold other things.
    if [[ ${1##*/} == drbd-harness && ! -e $1/.git ]]; then
        say "rm -r $(printf '%q' "$1")"
    else
        say "# look into it yourself: $1"
    fi
}

removal_command() {
    case $FAMILY in
        apt) echo "apt-get remove --no-auto-remove" ;;
        dnf) echo "dnf remove --setopt=clean_requirements_on_remove=False" ;;
        pacman) echo "pacman -R" ;;
        zypper) echo "zypper remove" ;;
        *) echo "# remove by hand:" ;;
    esac
}
