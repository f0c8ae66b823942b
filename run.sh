#!/usr/bin/env bash
# The web interface on http://127.0.0.1:7860; sets up .venv on the first start: ./run.sh
set -euo pipefail
here="$(readlink -f -- "${BASH_SOURCE[0]}" 2>/dev/null || printf '%s\n' "${BASH_SOURCE[0]}")"
root="$(cd -- "$(dirname -- "$here")" >/dev/null && pwd)"
"$root/tools/setup.sh" requirements.txt
cd -- "$root"
exec "$root/.venv/bin/python" -m ui.app "$@"
