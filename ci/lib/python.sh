# shellcheck shell=bash
# The virtual environment: made once, filled from the lock, left alone while lock and project are what they were.

# The first Python that is new enough, can make virtual environments and can compile extensions.
python_to_build_with() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c '
import os, sys, sysconfig
import ensurepip, venv
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not (sys.version_info >= (3, 11) and os.path.exists(headers)))' 2>/dev/null; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

# Packages that make python_to_build_with succeed: what the Python there lacks, a newer one beside one that is too old,
# or the distribution's own where there is none.
python_packages() {
    local name version=none
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        version=$("$name" -c 'import sys
print("%d.%d" % sys.version_info[:2] if sys.version_info >= (3, 11) else "old")' 2>/dev/null) || version=none
        [[ $version != 3.* ]] || break
    done
    if [[ $version != 3.* ]] && python3 -c '' 2>/dev/null; then version=old; fi
    case $FAMILY-$version in
        apt-none) echo python3 python3-venv python3-dev ;;
        apt-old) echo python3.11 python3.11-venv python3.11-dev ;;
        apt-*) echo "python$version" "python$version-venv" "python$version-dev" ;;
        dnf-old) echo python3.12 python3.12-devel ;;
        dnf-*) echo python3 python3-devel ;;
        pacman-*) echo python ;;
        zypper-none) echo python3 python3-devel ;;
        zypper-old) echo python311 python311-devel ;;
        zypper-*) echo "python${version/./}" "python${version/./}-devel" ;;
        *) echo - ;;
    esac
}

python_environment() {
    local python stamp wanted
    VENV="$ROOT/.venv"
    stamp="$VENV/.ci-stamp"
    wanted=$(stamp_of "$ROOT")
    if [[ -x $VENV/bin/drbd-harness && -f $stamp && $(<"$stamp") == "$wanted" ]] && "$VENV/bin/python" -c '' 2>/dev/null; then
        return 0
    fi
    if ! "$VENV/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(python_to_build_with) || die 2 "there is no Python 3.11 or later with venv and headers"
        quietly "making a virtual environment with $("$python" --version)" "$python" -m venv --clear "$VENV" ||
            die 2 "no virtual environment; the log: $LOG"
    fi
    rm -f "$stamp"
    fill_environment || die 2 "the Python packages could not be installed; the log: $LOG"
    printf '%s' "$wanted" >"$stamp"
}

# The harness, and libvirt's bindings, are built here rather than in pip's isolation, which would fetch whatever
# setuptools is the newest.  Nothing is installed whose digest is not in the lock.
fill_environment() {
    local pip=("$VENV/bin/python" -m pip --disable-pip-version-check --no-input install)
    local lock="$ROOT/ci/requirements.lock" setuptools="$VENV/setuptools.lock"
    sed -n '/^setuptools==/,/[^\\]$/p' "$lock" >"$setuptools"
    quietly "installing setuptools" "${pip[@]}" --require-hashes --no-deps -r "$setuptools" &&
        quietly "installing the Python packages" \
            "${pip[@]}" --require-hashes --no-deps --no-build-isolation -r "$lock" &&
        quietly "installing the harness" "${pip[@]}" --no-deps --no-build-isolation -e "$ROOT" &&
        quietly "checking the Python packages" "$VENV/bin/python" -m pip check
}

stamp_of() { # checkout
    (cd "$1" && sha256sum ci/requirements.lock pyproject.toml setup.py && echo "$1") | sha256sum | cut -d' ' -f1
}
