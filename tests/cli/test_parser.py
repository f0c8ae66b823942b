"""--help: the parser's options, shown without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_help_is_quick_because_it_imports_no_torch(project_root: Path) -> None:
    code = "import sys, pipeline\ntry: pipeline.main(['--help'])\nexcept SystemExit: sys.exit('torch' in sys.modules)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=project_root, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--stable-fast" in done.stdout
