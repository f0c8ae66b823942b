"""Collects the style sheets and scripts of this folder for the page's head."""

from __future__ import annotations

from pathlib import Path

from modules.core.sizes import MAX_SIZE
from modules.images.open import MOST_PIXELS

UPLOAD_MEGABYTES = 64
FOLDER = Path(__file__).parent
# What the scripts know of the server; longer names first, because each is replaced as text.
FACTS = {
    "MOST_PIXELS": MOST_PIXELS,
    "MEGAPIXELS": MOST_PIXELS // 10**6,
    "MEGABYTES": UPLOAD_MEGABYTES,
    "LONGEST": MAX_SIZE,
}


def css() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.css")))


def head() -> str:
    """Returns the scripts for the page's <head>."""
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.js")))
    for name, value in FACTS.items():
        scripts = scripts.replace(name, str(value))
    return f"<script>{scripts}</script>"
