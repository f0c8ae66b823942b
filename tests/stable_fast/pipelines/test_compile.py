"""`compile_pipeline` on tiny pipelines of diffusers: the same pictures as without it, whatever changes in between."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from modules.core.paths import PROJECT_ROOT
from modules.stable_fast import compile_pipeline
from modules.stable_fast.report import Report
from tests.docs.fences import read_fences
from tests.stable_fast.pipelines.tiny_latest import LATEST
from tests.stable_fast.pipelines.tiny_pipelines import FAMILIES, SLOW, Family, one_level, stable_diffusion, unet
from tests.stable_fast.pipelines.tiny_tail import LATER

TOLERANCE = 1e-4
DOCS = PROJECT_ROOT / "docs" / "diffusers.md"
PLAIN = FAMILIES["Stable Diffusion"]


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).abs().max())


def traces(report: Report) -> dict[str, int]:
    return {name: part.counters.traces for name, part in report.parts.items()}


def row_of(name: str, report: Report, *, is_traced_anew: bool) -> str:
    """A family's row in docs/diffusers.md."""
    called = {part: found for part, found in report.parts.items() if found.reason != "not called yet"}
    fast = [f"`{part}`" for part, found in called.items() if found.level != "off"]
    eager = [f"`{part}`: {found.reason}" for part, found in called.items() if found.level == "off"]
    return f"| {name} | {', '.join(fast)} | {'; '.join(eager)} | {'yes' if is_traced_anew else 'no'} |"


def check_family(name: str, family: Family) -> None:
    plain = family.make()
    pipe = copy.deepcopy(plain)
    fast = compile_pipeline(pipe)
    for _ in range(2):  # encoders of transformers set themselves up in the first picture
        assert difference(family.run(pipe), family.run(plain)) < TOLERANCE
    before = traces(fast.report)
    for call in family.alike:
        assert difference(family.run(pipe, **call), family.run(plain, **call)) < TOLERANCE
    assert traces(fast.report) == before
    assert difference(family.run(pipe, **family.resized), family.run(plain, **family.resized)) < TOLERANCE
    row = row_of(name, fast.report, is_traced_anew=traces(fast.report) != before)
    assert row in DOCS.read_text(encoding="utf-8").splitlines(), f"docs/diffusers.md needs this row:\n{row}"


@pytest.mark.parametrize(("name", "family"), FAMILIES.items(), ids=FAMILIES)
def test_pictures_are_eagers_at_other_sizes_and_batches_and_the_docs_say_so(name: str, family: Family) -> None:
    check_family(name, family)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "family"), (SLOW | LATER | LATEST).items(), ids=SLOW | LATER | LATEST)
def test_so_are_those_of_the_long_tail(name: str, family: Family) -> None:
    check_family(name, family)


def test_the_snippet_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PLAIN.make().save_pretrained(tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    (fence,) = read_fences(DOCS)
    names: dict[str, Any] = {}
    exec(fence.text.replace(', torch_dtype=torch.float16).to("cuda")', ")"), names)
    assert (tmp_path / "fox.png").stat().st_size > 0 and "unet" in names["fast"].report.parts


def lora_state(network: Any, seed: int = 5) -> dict[str, Tensor]:
    """A LoRA of rank 2 for all attention layers, in diffusers' own names."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, layer in network.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            state[f"unet.{name}.lora_A.weight"] = torch.randn(2, layer.in_features, generator=generator) * 0.3
            state[f"unet.{name}.lora_B.weight"] = torch.randn(layer.out_features, 2, generator=generator) * 0.3
    return state


def past_the_version(pipe: Any) -> None:
    pipe.unet.conv_in.weight.data.mul_(1.5)


def in_place(pipe: Any) -> None:
    with torch.no_grad():
        pipe.unet.conv_out.weight.mul_(1.5)


def by_state_dict(pipe: Any) -> None:
    pipe.unet.load_state_dict({name: 0.9 * tensor for name, tensor in pipe.unet.state_dict().items()})


def of_the_text_encoder(pipe: Any) -> None:
    pipe.text_encoder.get_input_embeddings().weight.data.add_(0.1)


def of_the_vae(pipe: Any) -> None:
    pipe.vae.decoder.conv_out.bias.data.add_(0.1)


def of_the_whole_network(pipe: Any) -> None:
    pipe.unet = unet(mid_block_type=None)


# Each of them changes the picture, by diffusers' own calls or by hand. They follow one another.
CHANGES: dict[str, Callable[[Any], object]] = {
    "a LoRA": lambda pipe: pipe.load_lora_weights(lora_state(pipe.unet), adapter_name="one"),
    "its strength": lambda pipe: pipe.set_adapters(["one"], [0.3]),
    "a second LoRA": lambda pipe: pipe.load_lora_weights(lora_state(pipe.unet, 6), adapter_name="two"),
    "two strengths": lambda pipe: pipe.set_adapters(["one", "two"], [0.2, 0.8]),
    "no LoRA for now": lambda pipe: pipe.disable_lora(),
    "LoRAs again": lambda pipe: pipe.enable_lora(),
    "merged LoRAs": lambda pipe: pipe.fuse_lora(lora_scale=0.5),
    "off while they are merged": lambda pipe: pipe.disable_lora(),
    "on again": lambda pipe: pipe.enable_lora(),
    "one LoRA fewer": lambda pipe: pipe.delete_adapters("two"),
    "no LoRAs": lambda pipe: pipe.unload_lora_weights(),
    "past the version": past_the_version,
    "in place": in_place,
    "of the text encoder": of_the_text_encoder,
    "of the VAE": of_the_vae,
    "FreeU": lambda pipe: pipe.enable_freeu(s1=0.2, s2=0.4, b1=1.5, b2=1.9),
    "no FreeU": lambda pipe: pipe.disable_freeu(),
    "processors": lambda pipe: pipe.unet.set_attn_processor(AttnProcessor()),
    "packed projections": lambda pipe: pipe.fuse_qkv_projections(),
    "a state dict": by_state_dict,
    "another network": of_the_whole_network,
    "another dtype": lambda pipe: pipe.to(torch.float64),
}


QUICK = ("a LoRA", "its strength", "merged LoRAs", "no LoRAs", "past the version", "of the text encoder", "processors")


@pytest.mark.parametrize("names", [QUICK, pytest.param(tuple(CHANGES), marks=pytest.mark.slow)], ids=["quick", "all"])
def test_no_change_is_missed(names: tuple[str, ...]) -> None:
    plain = stable_diffusion(network=one_level())
    pipe = copy.deepcopy(plain)
    fast = compile_pipeline(pipe)
    pictures = [PLAIN.run(pipe)]
    for name in names:
        CHANGES[name](plain)
        CHANGES[name](pipe)
        pictures.append(PLAIN.run(pipe))
        assert difference(pictures[-1], PLAIN.run(plain)) < TOLERANCE, name
    changed = [not torch.equal(one, other) for one, other in itertools.pairwise(pictures)]
    assert sum(changed) > len(names) / 2  # another processor, for example, draws the same picture
    assert all(part.level == "fused" for name, part in fast.report.parts.items() if name != "vae.encoder")


def test_another_strength_needs_no_trace() -> None:
    pipe = stable_diffusion(network=one_level())
    pipe.load_lora_weights(lora_state(pipe.unet), adapter_name="one")
    plain = copy.deepcopy(pipe)
    fast = compile_pipeline(pipe)
    for strength in (1.0, 0.4):
        for each in (pipe, plain):
            each.set_adapters(["one"], [strength])
        assert difference(PLAIN.run(pipe), PLAIN.run(plain)) < TOLERANCE
    pipe.disable_lora()
    plain.disable_lora()
    assert difference(PLAIN.run(pipe), PLAIN.run(plain)) < TOLERANCE
    assert fast.report.parts["unet"].counters.traces == 1


def test_the_strength_of_one_call_counts_for_that_call() -> None:
    plain = stable_diffusion(network=one_level())
    plain.load_lora_weights(lora_state(plain.unet))
    pipe = copy.deepcopy(plain)
    compile_pipeline(pipe)
    for scale in (1.0, 0.5):
        call = {"cross_attention_kwargs": {"scale": scale}}
        assert difference(PLAIN.run(pipe, **call), PLAIN.run(plain, **call)) < TOLERANCE


def test_the_pipeline_is_what_it_was(tmp_path: Path) -> None:
    pipe = PLAIN.make()
    expected, steps = PLAIN.run(pipe), []
    fast = compile_pipeline(pipe)
    found = PLAIN.run(pipe, callback_on_step_end=lambda pipe, step, *_: steps.append(step) or {})
    assert difference(found, expected) < TOLERANCE and steps == [0, 1]
    assert type(pipe).__name__ == "StableDiffusionPipeline" and isinstance(pipe, diffusers.StableDiffusionPipeline)
    assert pipe.device == torch.device("cpu") and pipe.dtype == torch.float32 and pipe.unet.config.in_channels == 4

    pipe.save_pretrained(tmp_path)
    read = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None, local_files_only=True)
    read.set_progress_bar_config(disable=True)
    assert difference(PLAIN.run(read), expected) < TOLERANCE

    twin = copy.deepcopy(pipe)
    with torch.no_grad():
        twin.unet.conv_in.weight.mul_(2)
    assert type(twin) is diffusers.StableDiffusionPipeline and "forward" not in vars(twin.unet)["_modules"]
    assert difference(PLAIN.run(twin), expected) > TOLERANCE
    assert difference(PLAIN.run(pipe), expected) < TOLERANCE

    fast.remove()
    assert type(pipe) is diffusers.StableDiffusionPipeline
    assert not any("forward" in vars(part) for part in (pipe.unet, pipe.text_encoder, pipe.vae.decoder))
    assert torch.equal(PLAIN.run(pipe), expected)


def test_a_network_that_cannot_be_compiled_runs_eagerly_and_says_why() -> None:
    pipe = PLAIN.make()
    expected = PLAIN.run(pipe)
    own = pipe.vae.decoder.forward
    pipe.vae.decoder.forward = lambda *args: own(*args)
    pipe.unet.register_forward_hook(lambda *_: None)
    fast = compile_pipeline(pipe)
    pipe.text_encoder.train()
    assert torch.equal(PLAIN.run(pipe), expected)
    reasons = {name: part.reason for name, part in fast.report.parts.items()}
    assert "replaced its forward" in reasons["vae.decoder"] and "hooks" in reasons["unet"]
    assert "training" in reasons["text_encoder"]


def test_a_call_that_eager_refuses_is_refused_alike() -> None:
    pipe = PLAIN.make()
    expected = PLAIN.run(pipe)
    fast = compile_pipeline(pipe)
    PLAIN.run(pipe)
    with torch.no_grad(), pytest.raises(RuntimeError):
        pipe.unet(torch.zeros(1, 5, 16, 16), torch.tensor(1), torch.zeros(1, 77, 32))
    assert difference(PLAIN.run(pipe), expected) < TOLERANCE
    assert fast.report.parts["unet"].level == "fused"


def test_gradients_are_eagers() -> None:
    pipe = PLAIN.make()
    fast = compile_pipeline(pipe)
    x = torch.randn(1, 4, 16, 16, requires_grad=True)
    pipe.unet(x, torch.tensor(1), torch.zeros(1, 77, 32)).sample.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert fast.report.parts["unet"].reason == "gradients are on"


def test_threads_share_the_networks() -> None:
    pipe = PLAIN.make()
    expected = PLAIN.run(pipe)
    compile_pipeline(pipe)
    own = {name: copy.deepcopy(getattr(pipe, name)) for name in ("scheduler", "tokenizer")}  # not for two threads
    pipes = [pipe, diffusers.StableDiffusionPipeline.from_pipe(pipe, **own)]
    with ThreadPoolExecutor(2) as threads:
        for found in threads.map(PLAIN.run, pipes):
            assert difference(found, expected) < TOLERANCE


def test_what_is_no_pipeline_is_refused() -> None:
    with pytest.raises(ValueError, match="is no pipeline"):
        compile_pipeline(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="level 'most'"):
        compile_pipeline(stable_diffusion(), level="most")
