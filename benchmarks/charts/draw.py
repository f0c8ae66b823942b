"""Writes the numbers of README.md and docs/ from benchmarks/results/, so that no number is typed by hand.

python -m benchmarks.charts.draw            # docs/performance.md, its plot, and the marked places of the other pages
python -m benchmarks.charts.draw --check    # writes nothing, and fails if a page differs
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.charts.marked_places import filled
from benchmarks.charts.numbers import WRITERS
from benchmarks.charts.performance_page import FLOORS_MS, PLOT, WANTED, performance_page
from benchmarks.charts.results import on_gpu, read_results
from benchmarks.common import ROOT

DOCS = ROOT / "docs"
PERFORMANCE = DOCS / "performance.md"


def changed_pages() -> dict[Path, str]:
    """Returns the pages that differ from the results, with their correct text."""
    pages = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    wanted = {page: filled(text, WRITERS) for page, text in texts.items()}
    wanted[PERFORMANCE] = performance_page(read_results())
    return {page: text for page, text in wanted.items() if text != texts[page]}


def draw_plot() -> None:
    from benchmarks.charts.plot import plot  # matplotlib takes seconds to import and is not needed for a check

    plot([result for result in read_results() if on_gpu(result)], WANTED, FLOORS_MS, DOCS / PLOT)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a page differs")
    checking: bool = parser.parse_args(arguments).check
    changed = changed_pages()
    for page, text in changed.items():
        print(f"{'differs' if checking else 'written'}: {page.relative_to(ROOT)}")
        if not checking:
            page.write_text(text, encoding="utf-8")
    if checking:
        return 1 if changed else 0
    draw_plot()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
