"""Renders the lines about a prompt: its length, its mistakes, and the wildcards it can use."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ui.panels.page_words import in_page_words
from ui.panels.render import status_line

if TYPE_CHECKING:
    from modules.generation.wording.prompt_length import (
        PromptLength,  # needs the tokenizer, which is not loaded at the start
    )


UNCOUNTED = status_line("0 / 75 tokens")  # of a new page


def length_line(length: PromptLength) -> str:
    """Renders a prompt's tokens, and the words at which its further chunks start."""
    chunks = length.chunks
    words = f"{length.tokens} / {length.room} tokens" + (", for one choice" if length.one_of_several else "")
    if len(chunks) > 1:
        starts = ", ".join(f"“{chunk.first_words}…”" for chunk in chunks[1:4]) + (", …" if len(chunks) > 4 else "")
        words += f" in {len(chunks)} chunks; the next start at {starts}"
    each = " + ".join(str(chunk.tokens) for chunk in chunks)
    title = f"{each}. The text encoder reads each chunk by itself; both encoders of SDXL count alike."
    return f'<p class="ld-status" title="{escape(title)}">{escape(words)}</p>'


def mistake_line(text: str) -> str:
    """Renders a mistake found while typing, which is not announced as an alarm."""
    return f'<div class="ld-message ld-error" role="status">{escape(in_page_words(text))}</div>'


def wildcard_list(names: Sequence[str], folder: Path) -> str:
    """Renders how to write choices, and a button for each wildcard, which inserts it."""
    help_line = "Choices: {red|blue}, or __name__ for a line of a file. The seed chooses."
    found = " ".join(f'<button type="button" class="ld-insert">__{escape(name)}__</button>' for name in names)
    none = f"No wildcard yet: put name.txt with a choice on each line into {folder}."
    return status_line(help_line) + (f'<p class="ld-words">{found}</p>' if names else status_line(none))
