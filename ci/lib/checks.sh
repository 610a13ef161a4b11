# shellcheck shell=bash
# What is checked, one after another, and what of it failed.  Needs console.sh, ROOT, VENV and LOG.

FAILED=() # "name (why)" of each check that did not pass

check() { # name, command...
    local status=0 run=attended
    [[ $(type -t "$2") != function ]] || run=""
    stage "$1" ${run:+"$run"} "${@:2}" || status=$?
    stop_if_interrupted
    ((status == 0)) || FAILED+=("$1 (status $status)")
}

# pytest, and the proof that it ran something: a run in which everything was skipped is green and worth nothing.
check_tests() { # name, arguments of pytest...
    local results="${LOG%.log}-$1.xml"
    check "$1" "$VENV/bin/pytest" --junitxml "$results" "${@:2}"
    "$VENV/bin/python" "$ROOT/ci/lib/ran.py" "$results" || FAILED+=("$1 (nothing ran)")
}

# The same for tests that need no lab, on all processors.  A file stays with one worker: what its tests share is made
# once for each worker that has one of them.  A worker that dies ends the run: the test that it died of would be the
# first that the next one is given.
check_tests_side_by_side() { # name, arguments of pytest...
    local processors
    processors=$(nproc) || processors=1
    ((processors == 1)) || set -- "$@" -n "$processors" --dist loadfile --max-worker-restart 0
    check_tests "$@"
}
