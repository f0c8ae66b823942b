"""Runs the doctor: `python -m modules.stable_fast.doctor`."""

from __future__ import annotations

import sys

from modules.stable_fast.doctor.diagnose import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
