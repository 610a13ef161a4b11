# shellcheck shell=bash
# Talking to whoever started this: messages, progress, the log, the time each stage took, and signals.

# What programs print is read here, and printed in English sentences, whatever language the user speaks.
export LC_ALL=C.UTF-8 LANGUAGE=

CHILD=""       # what runs at the moment, and gets the signals
INTERRUPTED="" # the signal that ended it, if one did
STAGES=()      # "seconds name" of what is done

say() { printf '%s\n' "$*"; }

die() { # status sentence...
    local status=$1
    shift
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit "$status"
}

open_log() { # name
    local directory="$ROOT/build/ci"
    # A build folder of somebody else's is there, and not for this user.
    { mkdir -p "$directory" && [[ -w $directory ]]; } 2>/dev/null || directory=$(mktemp -d "${TMPDIR:-/tmp}/drbd-harness-ci.XXXXXX")
    LOG="$directory/$1-$(date -u +%Y%m%dT%H%M%SZ)-$$.log"
    : >"$LOG"
}

# A command that may take a while and is of no interest unless it fails: its output goes to the log.
quietly() { # what it does, command...
    local text=$1 started=$SECONDS spoken=$SECONDS status=0
    shift
    printf '\n== %s: %s\n' "$text" "$*" >>"$LOG"
    with_usual_signals "$@" >>"$LOG" 2>&1 </dev/null 9>&- &
    CHILD=$!
    while kill -0 "$CHILD" 2>/dev/null; do
        if [[ -t 1 ]] && ((SECONDS - started > 1)); then
            printf '\r  %s ... %d s\033[K' "$text" $((SECONDS - started))
        elif [[ ! -t 1 ]] && ((SECONDS - spoken >= 10)); then
            spoken=$SECONDS
            printf '  %s ... %d s\n' "$text" $((SECONDS - started))
        fi
        # Beside something long on a slow machine each look costs it a hundredth of its processor.
        if ((SECONDS - started > 2)); then sleep 1; else sleep 0.1; fi
    done
    wait "$CHILD" || status=$?
    CHILD=""
    [[ ! -t 1 ]] || printf '\r\033[K'
    if ((status == 0 && SECONDS - started > 1)); then
        printf '  %s: done in %d s\n' "$text" $((SECONDS - started))
    elif ((status != 0)); then
        printf '  %s: failed with status %d\n' "$text" "$status"
    fi
    stop_if_interrupted
    return "$status"
}

# A command that talks to the user itself.  Runs beside this shell, so that a signal for us reaches it at once.
attended() { # command...
    with_usual_signals "$@" &
    CHILD=$!
    attend
}

# What was started beside this shell as CHILD, to its end.
attend() {
    local status=0
    wait "$CHILD" || status=$?
    while kill -0 "$CHILD" 2>/dev/null; do # a signal ended the wait, not the child
        status=0
        wait "$CHILD" || status=$?
    done
    CHILD=""
    return "$status"
}

# Without job control a shell starts what runs beside it deaf to Ctrl-C.
with_usual_signals() {
    if env --default-signal=INT true 2>/dev/null; then
        exec env --default-signal=INT,QUIT "$@"
    elif [[ -x ${VENV:-}/bin/python ]]; then
        exec "$VENV/bin/python" -c '
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])' "$@"
    fi
    exec "$@"
}

catch_signals() {
    trap 'pass_on INT' INT
    trap 'pass_on TERM' TERM
    trap 'pass_on HUP' HUP
}

# Whatever we are told to end with, the child hears it as Ctrl-C: that is what everything cleans up after.  A Ctrl-C at
# the terminal reaches it without us, and a second one would disturb the cleaning up.
pass_on() { # signal
    INTERRUPTED=$1
    [[ -n $CHILD ]] || stop_if_interrupted
    if [[ $1 != INT ]] || ! at_the_terminal; then
        kill -s INT "$CHILD" 2>/dev/null || true
    fi
}

at_the_terminal() {
    local fields
    read -r -a fields 2>/dev/null <"/proc/$$/stat" || return 1
    [[ ${fields[4]} == "${fields[7]}" ]] # our process group is the one in the foreground
}

stop_if_interrupted() {
    case $INTERRUPTED in
        INT) exit 130 ;;
        TERM) exit 143 ;;
        HUP) exit 129 ;;
    esac
}

stage() { # name, command...: runs it and notes how long it took
    local name=$1 started=$SECONDS status=0
    shift
    printf '\n--- %s\n' "$name"
    "$@" || status=$?
    STAGES+=("$((SECONDS - started)) $name")
    return "$status"
}

show_stages() {
    local entry
    ((${#STAGES[@]})) || return 0
    printf '\n'
    for entry in "${STAGES[@]}"; do
        printf '%6d s  %s\n' "${entry%% *}" "${entry#* }"
    done
    printf '%6d s  in all\n' "$SECONDS"
}
