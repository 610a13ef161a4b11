# shellcheck shell=bash
# The system's packages: what is missing, and installing it.  The first table is the doctor's own; ci/test adds what
# only the selftests use.

PACKAGE_TABLES=("$ROOT/harness/doctor/packages.txt")
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
    done < <(cat "${PACKAGE_TABLES[@]}")
    if ! python_to_build_with >/dev/null; then
        MISSING+=("python>=3.11 with venv and headers")
        for package in $(python_packages); do WANTED+=("$package"); done
    fi
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -n -- "$@"; fi
}

become_root() {
    ((EUID)) || return 0
    command -v sudo >/dev/null || die 2 "neither root nor sudo: install the packages above as root"
    # 'sudo -v' wants a password as soon as one of several rules does, also where the one that counts wants none.
    sudo -n true 2>/dev/null || sudo -v || die 2 "sudo was refused: install the packages above as root"
}

# None of these removes a package: apt is told so, dnf would need --allowerasing; zypper and pacman ask, and without
# anybody to answer they take that for a no.
install() { # packages...
    case $FAMILY in
        apt)
            as_root env DEBIAN_FRONTEND=noninteractive \
                apt-get -q install -y --no-remove --no-install-recommends "$@"
            ;;
        dnf) as_root dnf install -y "$@" ;;
        pacman) as_root pacman -S --needed --noconfirm "$@" ;;
        zypper) as_root zypper --non-interactive install "$@" ;;
    esac
}

how_nothing_is_removed() {
    case $FAMILY in
        apt) echo "apt-get --no-remove" ;;
        dnf) echo "dnf without --allowerasing" ;;
        pacman) echo "pacman --noconfirm, which refuses what conflicts" ;;
        zypper) echo "zypper --non-interactive, which refuses what conflicts" ;;
    esac
}

refresh_lists() {
    case $FAMILY in
        apt) as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update ;;
        dnf) as_root dnf makecache ;;
        # Fresh lists without a full upgrade leave an Arch half upgraded; that is for its owner to do.
        pacman) say "pacman's lists are not refreshed here: 'pacman -Syu' does it, with a full upgrade" ;;
        zypper) as_root zypper --non-interactive refresh ;;
    esac
}

# --------------------------------------------------------------------------- what would be done

# Not even apt's own caches are written.
ask_apt() { # simulate, or the like...
    LC_ALL=C "$1" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "${@:2}"
}

# Fills PLAN with what the package manager would do, one line each, or WHY_NOT with what it says against it (status 1).
# Ends everything where a package would have to go.
make_plan() { # packages...
    local status=0 said would_go
    PLAN=() WHY_NOT=""
    case $FAMILY in
        apt) said=$(ask_apt apt-get -s --no-remove install -y --no-install-recommends "$@" 2>&1) || status=$? ;;
        dnf) said=$(LC_ALL=C dnf -C --assumeno install "$@" 2>&1) || status=$? ;;
        pacman) said=$(LC_ALL=C pacman -S --needed --print --print-format 'new: %n %v (%s bytes)' "$@" 2>&1) || status=$? ;;
        zypper)
            said=$(LC_ALL=C zypper --non-interactive --no-refresh install --dry-run "$@" 2>&1) || status=$?
            ;;
    esac
    would_go=$(removals "$said" "$@") || true
    [[ -z $would_go ]] || die 2 "nothing was installed: $FAMILY would have to remove $would_go for it, and nothing is" \
        "removed here; use a spare machine, or decide yourself"
    # dnf says no to itself, as it was told.
    if ((status)) && ! [[ $FAMILY == dnf && $said == *"Operation aborted"* ]]; then
        WHY_NOT=$(grep -E '^ ?(E:|Error|error|Problem|[^ ]+ : (Depends|Conflicts|Breaks))' <<<"$said" | head -n 3 | paste -sd ' ') || true
        WHY_NOT=${WHY_NOT:-$(tail -n 1 <<<"$said")}
        return 1
    fi
    if [[ $FAMILY == apt ]]; then
        mapfile -t PLAN < <(plan_of_apt "$said")
    else
        mapfile -t PLAN < <(grep -v '^ *$' <<<"$said")
    fi
}

# The packages that would be removed, with commas; nothing where none would.
removals() { # what the package manager said, packages...
    local said=$1
    shift
    case $FAMILY in
        apt)
            [[ $said == *"remove is disabled"* ]] || return 0
            ask_apt apt-get -s install -y --no-install-recommends "$@" 2>&1 | sed -n 's/^Remv \([^ ]*\).*/\1/p'
            ;;
        dnf) sed -n -e '/^Removing/,/^$/{/^ /s/^ *\([^ ]*\).*/\1/p}' -e 's/^ *replacing *\([^ ]*\).*/\1/p' <<<"$said" ;;
        zypper) sed -n '/going to be REMOVED:/,/^$/{/^ /s/^ *//p}' <<<"$said" | tr ' ' '\n' ;;
        pacman) sed -n 's/.*are in conflict.*Remove \([^?]*\)?.*/\1/p' <<<"$said" ;;
    esac | grep . | paste -sd , | sed 's/,/, /g'
}

plan_of_apt() { # what apt-get -s said
    local changes
    changes=$(awk '$1 == "Inst" {
        old = "-"; new = $3
        if ($3 ~ /^\[/) { old = substr($3, 2, length($3) - 2); new = $4 }
        print $2 "\t" old "\t" substr(new, 2) }' <<<"$1")
    [[ -n $changes ]] || return 0
    # apt-cache shows Installed-Size in KiB and Size in bytes.
    awk -F'\t' '
        NR == FNR {
            if (split($0, field, ": ") == 2) value[field[1]] = field[2]
            if ($0 == "") {
                size[value["Package"] "=" value["Version"]] = value["Size"]
                disk[value["Package"] "=" value["Version"]] = value["Installed-Size"]
            }
            next
        }
        {
            name = $1; sub(/:.*/, "", name); key = name "=" $3
            if ($2 == "-") { new++; what = "new: " $1 " " $3 } else { upgrades++; what = "upgrade: " $1 " " $2 " -> " $3 }
            printf "%s (%.1f MiB)\n", what, size[key] / 1048576
            load += size[key]; room += disk[key]
        }
        END {
            printf "%d new, %d upgraded, 0 removed; %.1f MiB to download, %.1f MiB installed\n",
                new, upgrades, load / 1048576, room / 1024
        }' <(cut -f1,3 <<<"$changes" | tr '\t' '=' | xargs -r env LC_ALL=C apt-cache \
            -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= show 2>/dev/null && echo) - <<<"$changes"
}

say_plan() {
    say "  packages, by $(how_nothing_is_removed), so that nothing is removed:"
    if ((${#PLAN[@]})); then say "$(printf '    %s\n' "${PLAN[@]}")"; else say "    none"; fi
    [[ $FAMILY != apt ]] || say "    what a package brings comes with it: accounts, groups, and services, which are started"
}

# With fresh lists where the old ones do not do, and without names that nobody knows, so that one of them stops nothing.
plan_packages() { # yes|dry, packages...
    local known=() package mode=$1
    shift
    make_plan "$@" && return 0
    if [[ $mode == dry ]]; then
        say "  packages: $FAMILY cannot say what it would do: $WHY_NOT"
        say "    without --dry-run its lists are fetched anew first, and this is said again before anything is installed"
        return 1
    fi
    say "  $FAMILY cannot install that as it is ($WHY_NOT); fetching its lists anew"
    in_bash "fetching $FAMILY's lists" refresh_lists || true
    make_plan "$@" && WANTED=("$@") && return 0
    for package in "$@"; do
        if make_plan "$package"; then known+=("$package"); else say "  left out: $package ($WHY_NOT)"; fi
    done
    ((${#known[@]})) || die 2 "nothing was installed: $FAMILY can install none of $*"
    make_plan "${known[@]}" || die 2 "nothing was installed: $FAMILY cannot install these together: $WHY_NOT"
    WANTED=("${known[@]}")
}

# --------------------------------------------------------------------------- doing it

unique() { printf '%s\n' "$@" | grep -vx -e - | sort -u; }

system_packages() { # yes|no|dry: may install
    local packages _
    FAMILY=$(family_of_this_system)
    look_for_missing
    # Twice, because the distribution's own Python may turn out to be too old once it is there.
    for _ in first second; do
        if ((${#MISSING[@]} == 0)); then
            say "  packages: all there"
            return 0
        fi
        mapfile -t packages < <(unique "${WANTED[@]}")
        say "missing on this machine: $(IFS=, && echo "${MISSING[*]}")"
        say "packages ($FAMILY): ${packages[*]:-none known}"
        [[ $1 != no ]] || die 2 "nothing was installed, as asked; install these and start again"
        [[ $FAMILY != unknown ]] || die 2 "this distribution's package manager is not known here; install these by hand"
        ((${#packages[@]})) || break
        WANTED=("${packages[@]}")
        if [[ $1 == dry ]]; then
            if plan_packages dry "${WANTED[@]}"; then say_plan; fi
            return 0
        fi
        become_root
        plan_packages yes "${WANTED[@]}"
        say_plan
        install_packages "${WANTED[@]}"
        look_for_missing
    done
    [[ $1 == dry ]] || ((${#MISSING[@]} == 0)) || die 2 "still missing: $(IFS=, && echo "${MISSING[*]}"); the log: $LOG"
}

# Lists may name what the archive has no longer: once more with fresh ones, and with what they say.
install_packages() { # packages...
    open_record
    in_bash "installing $# packages" install_and_record "$@" && return 0
    in_bash "fetching $FAMILY's lists" refresh_lists || true
    make_plan "$@" || die 2 "not everything could be installed: $WHY_NOT; the log: $LOG"
    say_plan
    in_bash "installing $# packages" install_and_record "$@" ||
        say "not everything could be installed; the log: $LOG"
}

# A function of these, in a process of its own, which can be sent signals.
in_bash() { # what it does, function, arguments...
    export -f install refresh_lists install_and_record as_root say record record_packages installed_now
    export FAMILY RECORD
    quietly "$1" bash -c '"$@"' - "${@:2}"
}

# Also what an interrupted installation left is on record.
install_and_record() { # packages...
    BEFORE=$(mktemp "${TMPDIR:-/tmp}/drbd-harness-packages.XXXXXX")
    installed_now >"$BEFORE"
    trap 'record_packages "$BEFORE"; rm -f "$BEFORE"' EXIT
    install "$@"
}
