"""Encodes prompts: chunks the tokens, adds textual inversions, runs the text encoder, and weights its output."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from modules.core.errors import OptionsError
from modules.models.configs import TextConfig
from modules.text.chunks import Unit, pack_chunks
from modules.text.embeddings import EmbeddingLibrary
from modules.text.prompt import A1111_MODES, Mention, MentionFinder, check_emphasis, parse_prompt
from modules.text.tokenizer import BOS, COMMA, EOS, Tokenizer

# ComfyUI moves a short phrase to the next chunk instead of splitting it; A1111 does this for embeddings and at commas.
_COMFY_LONGEST_PHRASE = 7
_ROWS_AT_ONCE = 16
MOST_CHUNKS = 256  # for all texts combined; takes about half a minute on two CPU cores


class TextEncoder(Protocol):
    """Interface of the text networks (ClipTextModel, OpenClipTextModel)."""

    def embed_tokens(self, ids: Tensor) -> Tensor: ...

    def __call__(self, embeddings: Tensor, skip: int = 0) -> Tensor: ...


class Token(NamedTuple):
    """One position in a chunk: a vocabulary id or a vector from textual inversion."""

    id: int
    weight: float
    vector: Tensor | None = None


Chunk = list[Token]


def encode_texts(
    text_model: TextEncoder,
    config: TextConfig,
    texts: Iterable[str],
    *,
    emphasis: str,
    clip_skip: int = 1,
    embeddings: EmbeddingLibrary | None = None,
    tokenizer: Tokenizer | None = None,
) -> dict[str, Tensor]:
    """Encodes each text for the UNet's cross-attention as [S, width]; S is the same multiple of 77 for all texts.

    Shorter texts are padded with empty chunks. Building a tokenizer takes a moment, so callers can pass one for reuse.
    Raises OptionsError if encoding the texts would take too long.
    """
    skip = layers_to_skip(clip_skip, config)
    chunker = PromptChunker(tokenizer or Tokenizer(), config, emphasis, embeddings)
    chunks = {text: chunker.chunks(text) for text in dict.fromkeys(texts)}
    length = max(map(len, chunks.values()))
    if length * len(chunks) > MOST_CHUNKS:
        raise OptionsError(
            f"The prompts make {len(chunks)} different texts, and the longest fills {length} chunks of "
            f"{config.positions - 2} tokens: {length * len(chunks)} chunks in total; the limit is {MOST_CHUNKS}. "
            "Shorten the prompt or the negative prompt."
        )
    padded = [[*rows, *([[]] * (length - len(rows)))] for rows in chunks.values()]
    encoded = _encode_chunks(text_model, config, [row for rows in padded for row in rows], emphasis, skip)
    return dict(zip(chunks, encoded.unflatten(0, (len(padded), length)).flatten(1, 2), strict=True))


def layers_to_skip(clip_skip: int, config: TextConfig) -> int:
    """Returns how many final layers to skip; A1111 writes clip skip as 1, 2, ..., other programs as -1, -2, ..."""
    most = config.layers - config.skip
    if not 1 <= abs(clip_skip) <= most:
        raise OptionsError(
            f"Clip skip {clip_skip} is not possible: this text encoder takes 1 (nothing skipped) to {most}."
        )
    return abs(clip_skip) - 1 + config.skip


class PromptChunker:
    """Turns prompts into chunks of tokens for one text encoder."""

    def __init__(
        self, tokenizer: Tokenizer, config: TextConfig, emphasis: str, embeddings: EmbeddingLibrary | None
    ) -> None:
        check_emphasis(emphasis)
        self._tokenizer = tokenizer
        self._config = config
        self._emphasis = emphasis
        self._embeddings = embeddings
        self._finder = MentionFinder(embeddings.aliases() if embeddings else {})
        self._size = config.positions - 2  # without begin and end marks
        self._vectors = cache(self._read_vectors)

    def chunks(self, text: str) -> list[Chunk]:
        """Returns at least one chunk, each of at most `positions - 2` tokens."""
        sections = [
            [unit for segment in section for unit in self._units(segment.text, segment.weight)]
            for section in parse_prompt(text, self._emphasis)
        ]
        return pack_chunks(sections, self._size, _is_comma if self._emphasis in A1111_MODES else None)

    def _units(self, text: str, weight: float) -> list[Unit[Token]]:
        return [self._unit(piece, weight) for piece in self._finder.split(text)]

    def _unit(self, piece: str | Mention, weight: float) -> Unit[Token]:
        if isinstance(piece, Mention):
            tokens = [Token(EOS, weight, vector) for vector in self._vectors(piece.name)]
        else:
            tokens = [Token(index, weight) for index in self._tokenizer.encode(piece)]
        if self._emphasis == "comfy":
            return Unit(tokens, together=len(tokens) <= _COMFY_LONGEST_PHRASE)
        return Unit(tokens, together=isinstance(piece, Mention))

    def _read_vectors(self, name: str) -> Tensor:
        if self._embeddings is None:
            raise OptionsError(f'The prompt names the embedding "{name}", but there is no embeddings folder.')
        return self._embeddings.get(name, self._config.width)


def _is_comma(token: Token) -> bool:
    return token.id == COMMA


@torch.no_grad()
def _encode_chunks(model: TextEncoder, config: TextConfig, chunks: list[Chunk], emphasis: str, skip: int) -> Tensor:
    """Returns the encoder's output [len(chunks), positions, width] with token weights applied."""
    weights = torch.tensor([_row_weights(chunk, config) for chunk in chunks])
    weighted = bool((weights != 1).any())
    rows = [*chunks, []] if weighted and emphasis == "comfy" else chunks
    batches = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    encoded = torch.cat([model(_embed(model, config, batch), skip=skip) for batch in batches])
    if not weighted:
        return encoded
    exact, weights = encoded.float(), weights.to(encoded.device)
    if emphasis == "comfy":
        result = weigh_from_empty(exact[:-1], exact[-1], weights)
    else:
        result = weigh_by_product(exact, weights, keep_mean=emphasis == "a1111")
    return result.to(encoded.dtype)


def _embed(model: TextEncoder, config: TextConfig, chunks: list[Chunk]) -> Tensor:
    """Embeds the tokens as [B, positions, width]: begin mark, tokens, end mark, padding."""
    ids = [[BOS, *(token.id for token in chunk), EOS] for chunk in chunks]
    padded = [row + [config.pad_token] * (config.positions - len(row)) for row in ids]
    embedded = model.embed_tokens(torch.tensor(padded, device=_device_of(model)))
    for row, chunk in enumerate(chunks):
        for column, token in enumerate(chunk, start=1):
            if token.vector is not None:
                embedded[row, column] = token.vector.to(embedded)
    return embedded


def _device_of(model: TextEncoder) -> torch.device | None:
    return next(model.parameters()).device if isinstance(model, torch.nn.Module) else None


def _row_weights(chunk: Chunk, config: TextConfig) -> list[float]:
    """Returns the weights of a chunk's positions; begin mark, end mark and padding have weight 1."""
    inner = [token.weight for token in chunk]
    return [1.0, *inner, *([1.0] * (config.positions - 1 - len(inner)))]


def weigh_from_empty(encoded: Tensor, empty: Tensor, weights: Tensor) -> Tensor:
    """Applies weights like ComfyUI: scales each position's distance to the empty prompt. [B, L, W], [L, W], [B, L]."""
    moved = torch.lerp(empty.expand_as(encoded), encoded, weights.unsqueeze(-1))
    return torch.where(weights.unsqueeze(-1) == 1, encoded, moved)


def weigh_by_product(encoded: Tensor, weights: Tensor, *, keep_mean: bool) -> Tensor:
    """Applies weights like A1111: multiplies each position; `keep_mean` restores the chunk mean. [B, L, W], [B, L]."""
    product = encoded * weights.unsqueeze(-1)
    if not keep_mean:
        return product
    scale = encoded.mean(dim=(1, 2), keepdim=True) / product.mean(dim=(1, 2), keepdim=True)
    unweighted = (weights == 1).all(dim=1)[:, None, None]
    return torch.where(unweighted | ~scale.isfinite(), product, product * scale)
