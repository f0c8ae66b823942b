#!/usr/bin/env bash
# The whole test suite; sets up what the tests need on the first start: ./test.sh [pytest arguments]
set -euo pipefail
here="$(readlink -f -- "${BASH_SOURCE[0]}" 2>/dev/null || printf '%s\n' "${BASH_SOURCE[0]}")"
root="$(cd -- "$(dirname -- "$here")" >/dev/null && pwd)"
"$root/tools/setup.sh" requirements.txt requirements-dev.txt
cd -- "$root"
exec "$root/.venv/bin/python" -m pytest "$@"
