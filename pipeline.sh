#!/usr/bin/env bash
# Text to image on the command line; sets up .venv on the first start: ./pipeline.sh "a prompt" 512 512 1 1
set -euo pipefail
here="$(readlink -f -- "${BASH_SOURCE[0]}" 2>/dev/null || printf '%s\n' "${BASH_SOURCE[0]}")"
root="$(cd -- "$(dirname -- "$here")" >/dev/null && pwd)"
"$root/tools/setup.sh" requirements.txt
exec "$root/.venv/bin/python" "$root/pipeline.py" "$@"
