# shellcheck shell=bash
# The system's packages: what is missing, and installing it.  The table is the doctor's own.

SEARCHED="$PATH:/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec"

family_of_this_system() {
    local names name
    # shellcheck disable=SC1091
    names=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID:-}" "${ID_LIKE:-}") || names=""
    for name in $names; do
        case $name in
            debian | ubuntu) echo apt && return ;;
            fedora | rhel | centos) echo dnf && return ;;
            arch | archlinux) echo pacman && return ;;
            suse | opensuse* | sles) echo zypper && return ;;
        esac
    done
    for name in apt-get dnf pacman zypper; do
        if command -v "$name" >/dev/null; then echo "${name%-get}" && return; fi
    done
    echo unknown
}

is_there() { # check, as in the table
    local what one
    IFS=, read -r -a what <<<"${1#*:}"
    for one in "${what[@]}"; do
        case $1 in
            command:*) PATH=$SEARCHED command -v "$one" >/dev/null && return 0 ;;
            file:*) compgen -G "$one" >/dev/null && return 0 ;;
            pkgconfig:*) PATH=$SEARCHED pkg-config --exists "$one" 2>/dev/null && return 0 ;;
        esac
    done
    return 1
}

# Fills MISSING (what a user knows it as) and WANTED (packages, "-" where none is known).
look_for_missing() {
    local need check apt dnf pacman zypper package
    MISSING=()
    WANTED=()
    while read -r need _ check apt dnf pacman zypper; do
        [[ -n $need && $need != \#* ]] || continue
        is_there "$check" && continue
        case $FAMILY in
            apt) package=$apt ;;
            dnf) package=$dnf ;;
            pacman) package=$pacman ;;
            zypper) package=$zypper ;;
            *) package=- ;;
        esac
        MISSING+=("$need")
        WANTED+=("$package")
    done <"$ROOT/harness/doctor/packages.txt"
    if ! python_to_build_with >/dev/null; then
        MISSING+=("python>=3.11 with venv and headers")
        for package in $(python_packages); do WANTED+=("$package"); done
    fi
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -n -- "$@"; fi
}

install() { # packages...
    case $FAMILY in
        apt) as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@" ;;
        dnf) as_root dnf install -y "$@" ;;
        pacman) as_root pacman -S --needed --noconfirm "$@" ;;
        zypper) as_root zypper --non-interactive install "$@" ;;
    esac
}

refresh_lists() {
    case $FAMILY in
        apt) as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update ;;
        dnf) as_root dnf makecache ;;
        pacman) as_root pacman -Sy ;;
        zypper) as_root zypper --non-interactive refresh ;;
    esac
}

# All in one go; where that fails, with fresh lists; where that fails, one by one, so that one unknown name stops nothing.
install_somehow() { # packages...
    install "$@" && return 0
    refresh_lists && install "$@" && return 0
    local package
    for package in "$@"; do install "$package" || true; done
}

unique() { printf '%s\n' "$@" | grep -vx -e - | sort -u; }

system_packages() { # yes|no: may install
    local packages _
    FAMILY=$(family_of_this_system)
    look_for_missing
    # Twice, because the distribution's own Python may turn out to be too old once it is there.
    for _ in first second; do
        ((${#MISSING[@]})) || return 0
        mapfile -t packages < <(unique "${WANTED[@]}")
        say "missing on this machine: $(IFS=, && echo "${MISSING[*]}")"
        say "packages ($FAMILY): ${packages[*]:-none known}"
        [[ $1 != no ]] || die 2 "nothing was installed, as asked; install these and start again"
        [[ $FAMILY != unknown ]] || die 2 "this distribution's package manager is not known here; install these by hand"
        ((${#packages[@]})) || break
        install_packages "${packages[@]}"
        look_for_missing
    done
    ((${#MISSING[@]} == 0)) || die 2 "still missing: $(IFS=, && echo "${MISSING[*]}"); the log: $LOG"
}

install_packages() { # packages...
    if ((EUID)); then
        command -v sudo >/dev/null || die 2 "neither root nor sudo: install the packages above as root"
        sudo -v || die 2 "sudo was refused: install the packages above as root"
    fi
    export -f install refresh_lists install_somehow as_root
    export FAMILY
    quietly "installing $# packages" bash -c 'install_somehow "$@"' - "$@" ||
        say "not everything could be installed; the log: $LOG"
}
