"""Conditioning against transformers' encoder and the weighting formulas of ComfyUI and A1111, computed in float64."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import ModelFolders
from modules.models.configs import CLIP_L, OPENCLIP_H, TextConfig
from modules.text.embeddings import EmbeddingLibrary
from modules.text.encode import MOST_CHUNKS, EncodedText, encode_groups, encode_texts, layers_to_skip
from modules.text.tokenizer import BOS, EOS, Tokenizer
from tests import tiny

CONFIG = tiny.SD1_TEXT
TOKENIZER = Tokenizer()
MODEL = tiny.text_model(CONFIG)


class Encoded(NamedTuple):
    """A prompt and its negative, each [1, S, width]."""

    positive: Tensor
    negative: Tensor


def encode(positive: str, negative: str = "", *, emphasis: str = "comfy", **options: object) -> Encoded:
    found = contexts([positive, negative], emphasis=emphasis, **options)
    return Encoded(found[positive][None], found[negative][None])


def contexts(
    texts: Iterable[str], model: Any = MODEL, config: TextConfig = CONFIG, *, emphasis: str = "comfy", **options: Any
) -> dict[str, Tensor]:
    """Each text's context, by one encoder."""
    encoders = {config.name: model}
    found = encode_texts(encoders, [config], texts, emphasis=emphasis, tokenizer=TOKENIZER, **options)
    return {text: encoded.context for text, encoded in found.items()}


def row(ids: list[int], pad: int = EOS) -> list[int]:
    return ([BOS, *ids, EOS] + [pad] * 77)[:77]


def raw(*rows: list[int], skip: int = 0) -> Tensor:
    """Returns the model's own output for rows of 77 ids, in float64: [len(rows), 77, width]."""
    return MODEL(MODEL.embed_tokens(torch.tensor(rows)), skip=skip).double()


def words(text: str) -> list[int]:
    return TOKENIZER.encode(text)


def row_weights(pieces: list[tuple[str, float]]) -> Tensor:
    weights = [w for text, w in pieces for _ in words(text)]
    return torch.tensor([1.0, *weights, *[1.0] * (76 - len(weights))], dtype=torch.float64)[:, None]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


PIECES = [("a photo of a", 1.0), ("cat", 1.4), ("on a", 1.0), ("red sofa", 0.5)]
PROMPT = "a photo of a (cat:1.4) on a (red sofa:0.5)"
PLAIN = row(words("a photo of a cat on a red sofa"))


def test_plain_prompt_is_the_encoders_output() -> None:
    found = encode("a photo of a cat on a red sofa", "blurry")
    close(found.positive, raw(PLAIN))
    close(found.negative, raw(row(words("blurry"))))


def test_empty_prompts() -> None:
    found = encode("", " \n")
    close(found.positive, raw(row([])))
    assert torch.equal(found.positive, found.negative)


def test_comfy_moves_away_from_the_empty_prompt() -> None:
    z, empty = raw(PLAIN)[0], raw(row([]))[0]
    close(encode(PROMPT).positive[0], (z - empty) * row_weights(PIECES) + empty)


def test_a1111_multiplies_and_restores_the_mean() -> None:
    z = raw(PLAIN)[0]
    product = z * row_weights(PIECES)
    close(encode(PROMPT, emphasis="no_norm").positive[0], product)
    close(encode(PROMPT, emphasis="a1111").positive[0], product * (z.mean() / product.mean()))


def test_a1111_restores_each_chunk_by_itself() -> None:
    first, second = raw(row(words("cat")), row(words("dog")))
    weighted = first * row_weights([("cat", 1.5)])
    expected = torch.cat([weighted * (first.mean() / weighted.mean()), second])
    close(encode("(cat:1.5) BREAK dog", emphasis="a1111").positive[0], expected)


def test_off_reads_brackets_as_text() -> None:
    close(encode("(cat:1.5) BREAK", emphasis="off").positive, raw(row(words("(cat:1.5) BREAK"))))


@pytest.mark.parametrize("emphasis", ["comfy", "a1111", "no_norm"])
def test_weight_one_changes_nothing(emphasis: str) -> None:
    assert torch.equal(encode("a (cat:1.0)", emphasis=emphasis).positive, encode("a cat", emphasis=emphasis).positive)


@pytest.mark.parametrize("emphasis", ["comfy", "a1111", "no_norm"])
def test_absurd_weights_stay_finite_in_half_precision(emphasis: str) -> None:
    model = tiny.text_model(CONFIG).half()
    prompt = "(" * 10_000 + "cat" + ")" * 10_000
    found = contexts([prompt], model, emphasis=emphasis)[prompt]
    assert found.dtype == torch.float16
    assert found.isfinite().all()


def test_long_prompts_fill_chunks_of_75() -> None:
    text = " ".join(f"word{n}" for n in range(60))
    ids = words(text)
    assert 75 < len(ids) <= 225
    rows = [row(ids[start : start + 75]) for start in range(0, len(ids), 75)]
    for emphasis in ("comfy", "a1111", "off"):
        close(encode(text, emphasis=emphasis).positive[0], raw(*rows).flatten(0, 1))


def test_all_texts_have_the_length_of_the_longest() -> None:
    long = "cat " * 100
    found = contexts(["cat", long, "dog", "cat"])
    assert list(found) == ["cat", long, "dog"]
    assert all(text.shape == (154, CONFIG.width) for text in found.values())
    close(found["cat"], raw(row(words("cat")), row([])).flatten(0, 1))
    close(found["dog"], raw(row(words("dog")), row([])).flatten(0, 1))
    close(encode("cat", long).positive[0], found["cat"].double())


def test_more_chunks_than_can_be_encoded_soon_are_refused() -> None:
    most = MOST_CHUNKS // 2
    assert encode("BREAK " * most, "").positive.shape[1] == 77 * most
    with pytest.raises(OptionsError, match=r"2 different texts.*129 chunks of 75 tokens.*limit is 256"):
        encode("BREAK " * most + "cat", "")
    with pytest.raises(OptionsError, match=f"{MOST_CHUNKS + 1} different texts"):
        contexts(map(str, range(MOST_CHUNKS + 1)))


@pytest.mark.parametrize("emphasis", ["comfy", "a1111", "no_norm"])
def test_break_fills_the_chunk(emphasis: str) -> None:
    rows = [row(words("cat")), row([]), row(words("dog"))]
    close(encode("cat BREAK BREAK dog BREAK", emphasis=emphasis).positive[0], raw(*rows).flatten(0, 1))


def test_comfy_keeps_a_short_phrase_together_and_a1111_cuts_it() -> None:
    start, phrase = "cat " * 73, "(red hair ribbon:1.0)"
    ids = words("red hair ribbon")
    kept = raw(row(words("cat " * 73)), row(ids)).flatten(0, 1)
    cut = raw(row(words("cat " * 73) + ids[:2]), row(ids[2:])).flatten(0, 1)
    close(encode(start + phrase, emphasis="comfy").positive[0], kept)
    close(encode(start + phrase, emphasis="a1111").positive[0], cut)


def test_many_prompts_equal_single_ones() -> None:
    prompts = [f"(cat:{1 + n / 10}) number {n}" for n in range(20)]
    together = contexts(prompts)
    for prompt in (prompts[0], prompts[7], prompts[19]):
        close(together[prompt], encode(prompt).positive[0].double())


def test_a_prompt_met_again_is_encoded_once() -> None:
    rows: list[int] = []

    class Counting(torch.nn.Module):
        def embed_tokens(self, ids: Tensor) -> Tensor:
            return MODEL.embed_tokens(ids)

        def forward(self, embeddings: Tensor, skip: int = 0) -> Tensor:
            rows.append(len(embeddings))
            return MODEL(embeddings, skip=skip)

    model = Counting()
    model.register_parameter("p", torch.nn.Parameter(torch.zeros(1)))
    contexts(["cat", "bad"] * 8, model)
    assert rows == [2]


def test_sd2_pads_with_zero_and_skips_a_layer() -> None:
    model, config = tiny.text_model(tiny.SD2_TEXT), tiny.SD2_TEXT
    found = contexts(["cat"], model, config)["cat"][None]
    ids = torch.tensor([row(words("cat"), pad=0)])
    assert ids[0, -1] == 0
    close(found, model(model.embed_tokens(ids), skip=1).double())


XL = tiny.SDXL_TEXTS
XL_MODELS = {config.name: tiny.text_model(config, seed) for seed, config in enumerate(XL)}


def encode_xl(texts: Iterable[str], **options: Any) -> dict[str, EncodedText]:
    return encode_texts(XL_MODELS, XL, texts, **{"emphasis": "comfy", "tokenizer": TOKENIZER} | options)


def xl_states(*rows: list[int], skip: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Each encoder's own states in float64, and CLIP-G's pooled output, for chunks of word ids."""
    left = torch.tensor([row(ids) for ids in rows])
    right = torch.tensor([row(ids, pad=0) for ids in rows])
    model_l, model_g = XL_MODELS.values()
    ends = torch.tensor([len(ids) + 1 for ids in rows])
    states, pooled = model_g(model_g.embed_tokens(right), skip, ends)
    return model_l(model_l.embed_tokens(left), skip).double(), states.double(), pooled.double()


def joined(left: Tensor, right: Tensor) -> Tensor:
    return torch.cat([left, right], dim=-1).flatten(0, 1)


def test_sdxl_joins_both_encoders_each_with_its_own_padding() -> None:
    left, right, pooled = xl_states(words("a cat"))
    found = encode_xl(["a cat"])["a cat"]
    assert found.context.shape == (77, 32 + 64) and found.pooled is not None
    close(found.context, joined(left, right))
    close(found.pooled, pooled[0])


@pytest.mark.parametrize("emphasis", ["comfy", "a1111", "no_norm"])
def test_sdxl_weighs_each_encoder_by_itself_and_pools_the_first_chunk_without_weights(emphasis: str) -> None:
    left, right, pooled = xl_states(words("cat"), words("dog"), [])
    weights = row_weights([("cat", 1.5)])

    def weigh(states: Tensor) -> Tensor:
        first, empty = states[0], states[2]
        moved = (first - empty) * weights + empty if emphasis == "comfy" else first * weights
        scale = first.mean() / moved.mean() if emphasis == "a1111" else 1.0
        return torch.stack([moved * scale, states[1]])

    found = encode_xl(["(cat:1.5) BREAK dog"], emphasis=emphasis)["(cat:1.5) BREAK dog"]
    assert found.pooled is not None
    close(found.context, joined(weigh(left), weigh(right)))
    close(found.pooled, pooled[0])


def test_sdxl_gives_all_texts_the_same_chunks() -> None:
    found = encode_xl(["cat", "dog BREAK bird"])
    left, right, pooled = xl_states(words("cat"), [])
    close(found["cat"].context, joined(left, right))
    _, _, pooled_2 = xl_states(words("dog"))
    for text, expected in (("cat", pooled[0]), ("dog BREAK bird", pooled_2[0])):
        actual = found[text].pooled
        assert actual is not None
        close(actual, expected)


@pytest.mark.parametrize(("clip_skip", "skip"), [(1, 1), (2, 1), (-1, 1), (-2, 1), (3, 2), (-3, 2)])
def test_sdxls_clip_skip_counts_from_the_last_layer_and_never_moves_the_pooled_output(
    clip_skip: int, skip: int
) -> None:
    left, right, pooled = xl_states(words("cat"), skip=skip)
    found = encode_xl(["cat"], clip_skip=clip_skip)["cat"]
    assert found.pooled is not None
    close(found.context, joined(left, right))
    close(found.pooled, pooled[0])
    with pytest.raises(OptionsError, match=r"Clip skip 4 .* to 3\."):
        encode_xl(["cat"], clip_skip=4)


def test_an_embedding_of_sdxl_reaches_both_encoders(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "embeddings"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    tables = {"clip_l": torch.randn(2, 32, generator=generator), "clip_g": torch.randn(2, 64, generator=generator)}
    save_file(tables, folder / "style.safetensors")
    found = encode_xl(["a style"], embeddings=EmbeddingLibrary(ModelFolders(tmp_path)))["a style"]
    states: list[Tensor] = []
    for config, table in zip(XL, tables.values(), strict=True):
        model = XL_MODELS[config.name]
        embedded = model.embed_tokens(torch.tensor([row([*words("a"), 0, 0], pad=config.pad_token)]))
        embedded[0, 2:4] = table
        states.append(model(embedded, 1).double())
    close(found.context, joined(*states))


@pytest.mark.parametrize(("clip_skip", "skip"), [(1, 0), (2, 1), (3, 2), (-1, 0), (-2, 1)])
def test_clip_skip(clip_skip: int, skip: int) -> None:
    close(encode("cat", clip_skip=clip_skip).positive, raw(row(words("cat")), skip=skip))
    assert layers_to_skip(clip_skip, OPENCLIP_H) == skip + 1


@pytest.mark.parametrize(("clip_skip", "config"), [(0, CLIP_L), (13, CLIP_L), (-13, CLIP_L), (24, OPENCLIP_H)])
def test_impossible_clip_skip(clip_skip: int, config: TextConfig) -> None:
    most = config.layers - config.skip
    assert layers_to_skip(most, config) == config.layers - 1
    with pytest.raises(OptionsError, match=rf"Clip skip {clip_skip} .* to {most}\."):
        layers_to_skip(clip_skip, config)


def test_transformers_agrees() -> None:
    """Also checks ids, padding and omitted layers against Hugging Face's CLIPTextModel with the same weights."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=CONFIG.width,
            intermediate_size=CONFIG.mlp_width,
            num_hidden_layers=CONFIG.layers,
            num_attention_heads=CONFIG.heads,
            bos_token_id=BOS,
            eos_token_id=EOS,
        )
    ).eval()
    names = theirs.state_dict()
    ours = {k if k in names else k.removeprefix("text_model."): v for k, v in MODEL.state_dict().items()}
    assert not theirs.load_state_dict(ours, strict=False).missing_keys
    with torch.no_grad():
        hidden = theirs(torch.tensor([PLAIN]), output_hidden_states=True).hidden_states[-2]
    norm = MODEL.text_model.final_layer_norm
    close(encode("a photo of a cat on a red sofa", clip_skip=2).positive, norm(hidden).double())


def test_unknown_emphasis() -> None:
    with pytest.raises(OptionsError, match="Unknown emphasis"):
        encode("cat", emphasis="forge")


@pytest.fixture
def library(tmp_path: Path) -> EmbeddingLibrary:
    folder = tmp_path / "models" / "embeddings"
    folder.mkdir(parents=True)
    for name, count in (("neg", 3), ("neg-long", 8), ("huge", 100)):
        save_file({"emb_params": vectors(name, count)}, folder / f"{name}.safetensors")
    save_file({"emb_params": torch.zeros(2, 768)}, folder / "sd1.safetensors")
    return EmbeddingLibrary(ModelFolders(tmp_path))


def vectors(name: str, count: int) -> Tensor:
    return torch.randn(count, CONFIG.width, generator=torch.Generator().manual_seed(len(name)))


def with_vectors(before: str, inserted: Tensor, after: str) -> Tensor:
    """Returns the encoder's output for words, then vectors, then words, in one chunk."""
    left, right = words(before), words(after)
    embedded = MODEL.embed_tokens(torch.tensor([row(left + [0] * len(inserted) + right)]))
    embedded[0, 1 + len(left) : 1 + len(left) + len(inserted)] = inserted
    return MODEL(embedded).double()


@pytest.mark.parametrize("emphasis", ["comfy", "a1111", "off"])
@pytest.mark.parametrize("mention", ["neg", "NEG", "embedding:neg", "embedding:neg.safetensors"])
def test_textual_inversion(library: EmbeddingLibrary, emphasis: str, mention: str) -> None:
    found = encode(f"a {mention}, cat", emphasis=emphasis, embeddings=library)
    close(found.positive, with_vectors("a", vectors("neg", 3), ", cat"))


def test_the_longest_name_wins(library: EmbeddingLibrary) -> None:
    close(encode("neg-long", embeddings=library).positive, with_vectors("", vectors("neg-long", 8), ""))


def test_a_name_inside_a_word_is_text(library: EmbeddingLibrary) -> None:
    close(encode("negative", embeddings=library).positive, raw(row(words("negative"))))


def test_weighted_embedding(library: EmbeddingLibrary) -> None:
    z, empty = with_vectors("a", vectors("neg", 3), "cat")[0], raw(row([]))[0]
    weights = torch.ones(77, 1, dtype=torch.float64)
    weights[2:5] = 1.2
    close(encode("a (embedding:neg:1.2) cat", embeddings=library).positive[0], (z - empty) * weights + empty)
    close(encode("a (neg:1.2) cat", emphasis="no_norm", embeddings=library).positive[0], z * weights)


def test_embedding_moves_to_the_next_chunk_or_is_cut_if_too_long(library: EmbeddingLibrary) -> None:
    found = encode("cat " * 74 + "neg", emphasis="a1111", embeddings=library).positive[0]
    close(found[77:], with_vectors("", vectors("neg", 3), "")[0])
    huge = encode("cat huge", emphasis="a1111", embeddings=library).positive[0]
    assert len(huge) == 154
    close(huge[:77], with_vectors("cat", vectors("huge", 100)[:74], "")[0])
    close(huge[77:], with_vectors("", vectors("huge", 100)[74:], "")[0])


def test_missing_and_misfit_embeddings(library: EmbeddingLibrary) -> None:
    with pytest.raises(ModelFileError, match=r'"negg".*nearest: neg\.safetensors'):
        encode("embedding:negg", embeddings=library)
    with pytest.raises(ModelFileError, match=r"SD1\.x; this checkpoint needs width 64"):
        encode("sd1", embeddings=library)
    with pytest.raises(OptionsError, match="no embeddings folder"):
        encode("embedding:neg")


def test_an_encoder_that_lacks_tokens_is_refused() -> None:
    config = TextConfig(vocab_size=EOS)  # one too few: the end mark is missing
    with pytest.raises(ModelFileError, match=f"knows {EOS} tokens where CLIP has {EOS + 1}"):
        encode_texts({}, [config], ["a cat"], emphasis="comfy", tokenizer=TOKENIZER)


def test_groups_encoded_at_once_are_as_alone() -> None:
    """A group keeps its own length; a text in two groups of one length is encoded once."""
    groups = [["a cat", ""], ["dogs " * 90, "", "a (red:1.3) boat"], ["a bird", ""]]
    calls: list[int] = []

    def counted(module: Any, inputs: tuple[Tensor, ...]) -> None:
        calls.append(len(inputs[0]))

    hooks = [model.register_forward_pre_hook(counted) for model in XL_MODELS.values()]
    together = encode_groups(XL_MODELS, XL, groups, emphasis="a1111", tokenizer=TOKENIZER)
    assert calls == [9, 9]  # 3 texts of one chunk, 3 of two
    for hook in hooks:
        hook.remove()
    for group, encoded in zip(groups, together, strict=True):
        alone = encode_xl(group, emphasis="a1111")
        assert encoded.keys() == alone.keys()
        for text in group:
            assert encoded[text].context.shape == alone[text].context.shape
            close(encoded[text].context, alone[text].context.double())
            torch.testing.assert_close(encoded[text].pooled, alone[text].pooled, rtol=1e-5, atol=1e-5)
