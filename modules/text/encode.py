"""Encodes prompts: chunks the tokens, adds textual inversions, runs the text encoder, and weights its output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, chain
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from modules.core.device import sent
from modules.core.errors import ModelFileError, OptionsError
from modules.models.configs import TextConfig
from modules.text.chunks import chunk_prompt
from modules.text.embeddings import EmbeddingLibrary
from modules.text.prompt import Mention, MentionFinder, check_emphasis
from modules.text.tokenizer import BOS, COMMA, EOS, Tokenizer

_ROWS_AT_ONCE = 16
MOST_CHUNKS = 256  # for all texts combined; takes about half a minute on two CPU cores


class TextEncoder(Protocol):
    """Interface of the text networks (ClipTextModel, OpenClipTextModel).

    An encoder with a pooled output takes `ends`, the positions of the end marks, and returns that output as well.
    """

    def embed_tokens(self, ids: Tensor) -> Tensor: ...

    def __call__(self, embeddings: Tensor, skip: int = 0, **ends: Tensor) -> Tensor | tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class EncodedText:
    """One text for the UNet: `context` [S, width], and the `pooled` output [P] of SDXL's CLIP-G.

    The width is that of all encoders together. The pooled output is that of the first chunk, without emphasis, as in
    ComfyUI and A1111.
    """

    context: Tensor
    pooled: Tensor | None = None


class Token(NamedTuple):
    """One position in a chunk: a vocabulary id or a vector from textual inversion."""

    id: int
    weight: float
    vector: Tensor | None = None


Chunk = list[Token]


def encode_texts(
    encoders: Mapping[str, TextEncoder],
    configs: Sequence[TextConfig],
    texts: Iterable[str],
    *,
    emphasis: str,
    clip_skip: int = 1,
    embeddings: EmbeddingLibrary | None = None,
    tokenizer: Tokenizer | None = None,
) -> dict[str, EncodedText]:
    """Encodes each text for the UNet (see `encode_groups`); the contexts of all texts have the same length."""
    (encoded,) = encode_groups(
        encoders,
        configs,
        [texts],
        emphasis=emphasis,
        clip_skip=clip_skip,
        embeddings=embeddings,
        tokenizer=tokenizer,
    )
    return encoded


def encode_groups(
    encoders: Mapping[str, TextEncoder],
    configs: Sequence[TextConfig],
    groups: Iterable[Iterable[str]],
    *,
    emphasis: str,
    clip_skip: int = 1,
    embeddings: EmbeddingLibrary | None = None,
    tokenizer: Tokenizer | None = None,
) -> list[dict[str, EncodedText]]:
    """Encodes the texts of several groups at once. The contexts of a group have the same length S, a multiple of 77.

    `encoders` holds the encoder of each config by name; their outputs are joined in the order of `configs`. The shorter
    texts of a group are padded with empty chunks. Building a tokenizer takes a moment, so callers can pass one for
    reuse. Raises OptionsError if encoding a group would take too long, ModelFileError for an encoder that lacks tokens.
    """
    for config in configs:
        check_vocabulary(config)
    tokenizer, names = tokenizer or Tokenizer(), [tuple(dict.fromkeys(texts)) for texts in groups]
    skips = [layers_to_skip(clip_skip, config) for config in configs]
    widths = [config.width for config in configs]
    chunkers = [PromptChunker(tokenizer, config, emphasis, embeddings, widths) for config in configs]
    chunks = {text: [chunker.chunks(text) for chunker in chunkers] for text in dict.fromkeys(chain(*names))}
    keys: list[dict[str, tuple[str, int]]] = []
    for group in names:
        length = max(len(each) for text in group for each in chunks[text])
        check_length(len(group), length, configs[0])
        keys.append({text: (text, length) for text in group})
    wanted = dict.fromkeys(key for group in keys for key in group.values())
    states: list[Tensor] = []
    pooled: Tensor | None = None
    for place, (config, skip) in enumerate(zip(configs, skips, strict=True)):
        rows = [chunk for text, length in wanted for chunk in _padded(chunks[text][place], length)]
        found, pools = _encode_chunks(encoders[config.name], config, rows, emphasis, skip)
        states.append(found)
        pooled = pooled if pools is None else pools
    texts = _split(torch.cat(states, dim=-1), pooled, [length for _, length in wanted])
    encoded = dict(zip(wanted, texts, strict=True))
    return [{text: encoded[key] for text, key in group.items()} for group in keys]


def _padded(chunks: Sequence[Chunk], length: int) -> list[Chunk]:
    """Adds empty chunks until there are `length`."""
    return [*chunks, *([[]] * (length - len(chunks)))]


def _split(states: Tensor, pooled: Tensor | None, lengths: Sequence[int]) -> Iterator[EncodedText]:
    """Divides the states [chunks, positions, width] into texts of these numbers of chunks."""
    for end, length in zip(accumulate(lengths), lengths, strict=True):
        first = end - length
        yield EncodedText(states[first:end].flatten(0, 1), None if pooled is None else pooled[first])


def check_vocabulary(config: TextConfig) -> None:
    """Raises ModelFileError if the encoder has no vector for some tokens; the last token is the end mark."""
    if config.vocab_size <= EOS:
        raise ModelFileError(
            f"The text encoder knows {config.vocab_size} tokens where CLIP has {EOS + 1}; "
            "use a complete checkpoint, or another encoder with --text-encoder."
        )


def check_length(texts: int, length: int, config: TextConfig) -> None:
    """Raises OptionsError if so many texts of `length` chunks each would take too long."""
    if length * texts > MOST_CHUNKS:
        raise OptionsError(
            f"The prompts make {texts} different texts, and the longest fills {length} chunks of "
            f"{config.positions - 2} tokens: {length * texts} chunks in total; the limit is {MOST_CHUNKS}. "
            "Shorten the prompt or the negative prompt."
        )


def layers_to_skip(clip_skip: int, config: TextConfig) -> int:
    """Returns how many final layers to skip; A1111 writes clip skip as 1, 2, ..., other programs as -1, -2, ...

    Clip skip 1 means the layer that the family uses. SDXL uses the one before the last, which its users call 2, so 1
    and 2 mean the same there. SD2's users count from the layer that SD2 uses.
    """
    counts_from_last = not config.final_norm
    most = config.layers if counts_from_last else config.layers - config.skip
    if not 1 <= abs(clip_skip) <= most:
        raise OptionsError(
            f"Clip skip {clip_skip} is not possible: this text encoder takes 1 (nothing skipped) to {most}."
        )
    asked = abs(clip_skip) - 1
    return max(asked, config.skip) if counts_from_last else asked + config.skip


class PromptChunker:
    """Turns prompts into chunks of tokens for one text encoder."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: TextConfig,
        emphasis: str,
        embeddings: EmbeddingLibrary | None,
        widths: Sequence[int] = (),
    ) -> None:
        """`widths`: the widths of all of the model's encoders, for which an embedding file must hold vectors."""
        check_emphasis(emphasis)
        self._tokenizer = tokenizer
        self._config = config
        self._emphasis = emphasis
        self._embeddings = embeddings
        self._widths = widths
        self._finder = MentionFinder(embeddings.aliases() if embeddings else {})
        self._size = config.positions - 2  # without begin and end marks
        self._vectors = cache(self._read_vectors)

    def chunks(self, text: str) -> list[Chunk]:
        """Returns at least one chunk, each of at most `positions - 2` tokens."""
        return chunk_prompt(
            text, self._emphasis, self._size, finder=self._finder, read=self._tokens, is_comma=_is_comma
        )

    def _tokens(self, piece: str | Mention, weight: float) -> list[Token]:
        if isinstance(piece, Mention):
            return [Token(EOS, weight, vector) for vector in self._vectors(piece.name)]
        return [Token(index, weight) for index in self._tokenizer.encode(piece)]

    def _read_vectors(self, name: str) -> Tensor:
        if self._embeddings is None:
            raise OptionsError(f'The prompt names the embedding "{name}", but there is no embeddings folder.')
        return self._embeddings.get(name, self._config.width, self._widths)


def _is_comma(token: Token) -> bool:
    return token.id == COMMA


@torch.no_grad()
def _encode_chunks(
    model: TextEncoder, config: TextConfig, chunks: list[Chunk], emphasis: str, skip: int
) -> tuple[Tensor, Tensor | None]:
    """Returns the encoder's states [len(chunks), positions, width] with token weights applied, and its pooled output.

    The pooled output [len(chunks), projection] has no token weights; it is None for an encoder without a projection.
    """
    weights = torch.tensor([_row_weights(chunk, config) for chunk in chunks])
    weighted = bool((weights != 1).any())
    rows = [*chunks, []] if weighted and emphasis == "comfy" else chunks
    encoded, pooled = _run_in_batches(model, config, rows, skip)
    if not weighted:
        return encoded, pooled
    exact, weights = encoded.float(), sent(weights, encoded.device)
    if emphasis == "comfy":
        result = weigh_from_empty(exact[:-1], exact[-1], weights)
    else:
        result = weigh_by_product(exact, weights, keep_mean=emphasis == "a1111")
    return result.to(encoded.dtype), pooled


def _run_in_batches(
    model: TextEncoder, config: TextConfig, rows: list[Chunk], skip: int
) -> tuple[Tensor, Tensor | None]:
    """Returns the encoder's states and pooled output for any number of chunks."""
    states: list[Tensor] = []
    pooled: list[Tensor] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        batch = rows[start : start + _ROWS_AT_ONCE]
        embedded = _embed(model, config, batch)
        ends = sent(torch.tensor([len(chunk) + 1 for chunk in batch]), embedded.device)
        output = model(embedded, skip=skip, **({"ends": ends} if config.projection else {}))
        found, *pools = output if isinstance(output, tuple) else (output,)
        states.append(found)
        pooled += pools
    return torch.cat(states), torch.cat(pooled) if pooled else None


def _embed(model: TextEncoder, config: TextConfig, chunks: list[Chunk]) -> Tensor:
    """Embeds the tokens as [B, positions, width]: begin mark, tokens, end mark, padding."""
    ids = [[BOS, *(token.id for token in chunk), EOS] for chunk in chunks]
    padded = [row + [config.pad_token] * (config.positions - len(row)) for row in ids]
    embedded = model.embed_tokens(torch.tensor(padded))
    for row, chunk in enumerate(chunks):
        for column, token in enumerate(chunk, start=1):
            if token.vector is not None:
                embedded[row, column] = token.vector.to(embedded)
    return embedded


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
