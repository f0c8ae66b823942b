#!/usr/bin/env bash
# What every change must pass besides the tests. `make check` and .ci/run both run this; the first needs tools/setup.sh.
# A failure does not stop it, so that one run tells everything.
set -uo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1

failed=()
run() {
    echo "== $*"
    .venv/bin/python -m "$@" || failed+=("$1${2:+ $2}")
}

types="$(mktemp)"
trap 'rm -f "$types"' EXIT
.venv/bin/python -m pyright >"$types" 2>&1 & # it takes half of the time, and one core
pyright=$!
run ruff check .
run ruff format --check .
run pytest -q --noconftest tests/house
NO_MKDOCS_2_WARNING=1 run mkdocs build --strict --quiet
echo "== pyright"
wait "$pyright" || failed+=("pyright")
cat "$types"

[ ${#failed[@]} -eq 0 ] && exit
printf 'Failed: %s\n' "${failed[@]}"
exit 1
