#!/usr/bin/env bash
# Makes .venv hold what the given requirements files name; does nothing, at once, when it already does.
# Called by pipeline.sh, run.sh and test.sh:   tools/setup.sh requirements.txt [requirements-dev.txt]
# Environment: PYTHON names the Python to build .venv with; TORCH_INDEX_URL another place to take torch from.
set -euo pipefail
root="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)"

up_to_date() {
    [ -x "$root/.venv/bin/python" ] || return 1
    local name
    for name in "$@"; do
        # The stamp is a copy of the requirements file, written only after pip has finished.
        cmp -s "$root/$name" "$root/.venv/.installed/$name" || return 1
    done
}

supported() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 </dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.12 python3.11 python3.13 python3.10 python; do
        if supported "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    echo "Python 3.10, 3.11, 3.12 or 3.13 was not found; install one of them (with its venv module)," \
        "or name it: PYTHON=/path/to/python3" >&2
    return 1
}

if ! up_to_date "$@"; then
    python="$(find_python)"
    # Everything said goes to stderr: stdout belongs to the program that starts next.
    "$python" "$root/tools/setup_env.py" "$@" >&2 </dev/null
fi
