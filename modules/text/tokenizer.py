"""Converts text to CLIP token ids identical to those of transformers' CLIPTokenizer."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as BackendTokenizer

BOS = 49406
EOS = 49407
COMMA = 267  # a comma by itself

_MERGES_FILE = Path(__file__).parent / "data" / "bpe_simple_vocab_16e6.txt.gz"
_SPECIAL = ("<|startoftext|>", "<|endoftext|>")
_WORD = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """CLIP's byte-pair encoder, built from the merges file in this folder."""

    def __init__(self) -> None:
        self._backend = _backend()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of the text, without begin and end marks."""
        # Text from a terminal with another encoding may contain lone surrogates, which UTF-8 cannot encode.
        printable = text.encode("utf-8", "replace").decode("utf-8")
        return self._backend.encode(printable, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of these ids in lower case, with a space after each word."""
        return self._backend.decode(list(ids), skip_special_tokens=False)


@cache
def _backend() -> BackendTokenizer:
    """Builds the encoder once in a process, because this takes a quarter of a second and nothing changes it."""
    merges = _read_merges()
    characters = _byte_characters()
    words = [*characters, *(c + "</w>" for c in characters), *("".join(merge) for merge in merges), *_SPECIAL]
    vocabulary = {word: index for index, word in enumerate(words)}
    bpe = models.BPE(vocabulary, merges, unk_token=_SPECIAL[1], end_of_word_suffix="</w>", continuing_subword_prefix="")
    backend = BackendTokenizer(bpe)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # In the byte-level alphabet, a space is the letter G with a dot.
    backend.decoder = decoders.Sequence([decoders.Replace("</w>", "\u0120"), decoders.ByteLevel()])
    backend.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in _SPECIAL])
    return backend


def _read_merges() -> list[tuple[str, str]]:
    with gzip.open(_MERGES_FILE, "rt", encoding="utf-8") as file:
        next(file)  # version line
        pairs = (line.split() for line in file)
        return [(left, right) for left, right in pairs]


def _byte_characters() -> list[str]:
    """Maps each byte to a printable character, in CLIP's order: printable bytes come first and stay unchanged."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = len(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(others)]
