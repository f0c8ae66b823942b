"""Tests pictures of other programs with their own texts: plain settings are read, the rest is named."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import OptionsError
from modules.generation.metadata.recall import Recalled, recall_picture, recall_texts
from modules.generation.options import HiresOptions, LoraChoice

Graph = dict[str, dict[str, Any]]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**changes: dict[str, Any]) -> Graph:
    sampling = {"seed": 5, "steps": 12, "cfg": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0}
    links = {"model": ["lora", 0], "positive": ["yes", 0], "negative": ["no", 0], "latent_image": ["empty", 0]}
    nodes = {
        "file": node("CheckpointLoaderSimple", ckpt_name="v1-5.safetensors"),
        "lora": node("LoraLoader", lora_name="ink", strength_model=0.8, strength_clip=0.5, model=["file", 0]),
        "empty": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "skip": node("CLIPSetLastLayer", stop_at_clip_layer=-2, clip=["lora", 1]),
        "yes": node("CLIPTextEncode", text="a cat", clip=["skip", 0]),
        "no": node("CLIPTextEncode", text="dog", clip=["skip", 0]),
        "sampler": node("KSampler", **sampling, **links),
        "vae": node("VAELoader", vae_name="mse.safetensors"),
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
    }
    return nodes | changes


def comfy(nodes: Graph) -> Recalled:
    return recall_texts({"prompt": json.dumps(nodes)})


class TestComfyUI:
    def test_the_links_of_a_plain_graph_are_followed(self) -> None:
        recalled = comfy(graph())
        options = recalled.options
        assert (options.prompt, options.negative_prompt, options.emphasis) == ("a cat", "dog", "comfy")
        assert (options.width, options.height, options.seed, options.steps, options.cfg) == (512, 768, 5, 12, 6.5)
        assert (options.sampler, options.scheduler, options.clip_skip) == ("dpmpp_2m", "karras", 2)
        assert (options.checkpoint, options.vae) == ("v1-5.safetensors", "mse.safetensors")
        assert options.loras == (LoraChoice(name="ink", strength=0.8, text_strength=0.5),)
        assert options.hires is None and options.init is None and recalled.left_out == ""

    def test_an_advanced_sampler_and_linked_values(self) -> None:
        sampler = graph()["sampler"]["inputs"] | {"noise_seed": ["number", 0], "start_at_step": 3, "end_at_step": 99}
        del sampler["seed"]
        nodes = graph(
            sampler=node("KSamplerAdvanced", **sampler),
            number=node("PrimitiveInt", value=77),
            yes=node("CLIPTextEncode", text=["words", 0], clip=["skip", 0]),
            words=node("Text Multiline", text="two\nlines"),
        )
        recalled = comfy(nodes)
        assert recalled.options.seed == 77 and recalled.options.prompt == "two\nlines"
        assert "start_at_step" in recalled.left_out

    def test_a_second_sampler_on_enlarged_latents_is_hires_fix(self) -> None:
        second = graph()["sampler"]["inputs"] | {"steps": 4, "denoise": 0.5, "sampler_name": "euler"}
        nodes = graph(
            larger=node("LatentUpscaleBy", upscale_method="nearest-exact", scale_by=1.5, samples=["sampler", 0]),
            second=node("KSampler", **second | {"latent_image": ["larger", 0], "scheduler": "simple"}),
            decode=node("VAEDecode", samples=["second", 0], vae=["vae", 0]),
        )
        recalled = comfy(nodes)
        assert recalled.left_out == "" and recalled.options.sampler == "dpmpp_2m"
        expected = {"steps": 4, "denoise": 0.5, "cfg": 6.5, "sampler": "euler", "scheduler": "simple"}
        assert recalled.options.hires == HiresOptions(scale=1.5, method="nearest-exact", **expected)

    def test_what_is_not_plain_is_named(self) -> None:
        control = node("ControlNetApplyAdvanced", positive=["yes", 0], negative=["no", 0])
        sampler = graph()["sampler"]["inputs"] | {"positive": ["net", 0], "model": ["free", 0]}
        nodes = graph(sampler=node("KSampler", **sampler), net=control, free=node("FreeU", model=["lora", 0]))
        recalled = comfy(nodes)
        assert recalled.options.prompt == "a cat" and recalled.options.checkpoint == "v1-5.safetensors"
        assert recalled.left_out == "FreeU, ControlNetApplyAdvanced"

    def test_image_to_image_asks_for_the_picture(self) -> None:
        nodes = graph(empty=node("VAEEncode", pixels=["photo", 0]), photo=node("LoadImage", image="photo.png"))
        nodes["sampler"]["inputs"]["denoise"] = 0.6
        recalled = comfy(nodes)
        assert "--img2img FILE" in recalled.lacks[0]
        assert recalled.options.init is not None and recalled.options.init.denoise == 0.6

    def test_the_workflow_of_the_page_alone(self) -> None:
        nodes = [
            {"id": 1, "type": "CheckpointLoaderSimple", "widgets_values": ["v1-5.safetensors"]},
            {"id": 2, "type": "CLIPTextEncode", "widgets_values": ["a cat"], "inputs": [{"name": "clip", "link": 1}]},
            {"id": 3, "type": "EmptyLatentImage", "widgets_values": [256, 320, 1]},
            {
                "id": 4,
                "type": "KSampler",
                "widgets_values": [9, "randomize", 7, 5.5, "euler", "normal", 1],
                "inputs": [
                    {"name": name, "link": link} for link, name in enumerate(("model", "positive", "latent_image"), 2)
                ],
            },
        ]
        links = [[1, 1, 1, 2, 0, "CLIP"], [2, 1, 0, 4, 0, "MODEL"], [3, 2, 0, 4, 1, "C"], [4, 3, 0, 4, 3, "LATENT"]]
        options = recall_texts({"workflow": json.dumps({"nodes": nodes, "links": links})}).options
        assert (options.prompt, options.seed, options.steps, options.cfg) == ("a cat", 9, 7, 5.5)
        assert (options.width, options.height, options.checkpoint) == (256, 320, "v1-5.safetensors")

    def test_a_graph_without_a_sampler_and_a_computed_prompt_are_sentences(self) -> None:
        with pytest.raises(OptionsError, match="ComfyUI .* no KSampler"):
            comfy({"1": node("SaveImage")})
        computed = graph(yes=node("CLIPTextEncode", text=["mixer", 0]), mixer=node("Mixer", a=1))
        with pytest.raises(OptionsError, match="computed the prompt"):
            comfy(computed)
        assert recall_texts({"prompt": json.dumps(computed)}, given={"prompt": "mine"}).options.prompt == "mine"

    def test_links_in_a_ring_end(self) -> None:
        ring = graph(lora=node("LoraLoader", lora_name="ink", strength_model=1.0, model=["lora", 0]))
        assert len(comfy(ring).options.loras) > 1

    def test_not_a_number_in_is_changed(self) -> None:
        text = json.dumps(graph()).replace('"class_type": "KSampler"', '"is_changed": [NaN], "class_type": "KSampler"')
        assert recall_texts({"prompt": text}).options.prompt == "a cat"


def test_fooocus() -> None:
    values = {
        "prompt": "a cat",
        "negative_prompt": "dog",
        "styles": "['Fooocus V2']",
        "steps": 30,
        "resolution": "(1152, 896)",
        "guidance_scale": 4.0,
        "base_model": "big.safetensors",
        "refiner_model": "None",
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "vae": "Default (model)",
        "seed": "123",
        "clip_skip": 2,
        "lora_combined_1": "offset.safetensors : 0.1",
    }
    recalled = recall_texts({"parameters": json.dumps(values), "fooocus_scheme": "fooocus"})
    options = recalled.options
    assert (options.width, options.height, options.seed, options.cfg) == (1152, 896, 123, 4.0)
    assert (options.sampler, options.scheduler, options.vae) == ("dpmpp_2m_sde", "karras", None)
    assert options.loras == (LoraChoice(name="offset.safetensors", strength=0.1),)
    assert recalled.left_out == "styles"


INVOKE = {
    "generation_mode": "txt2img",
    "positive_prompt": "landscape",
    "negative_prompt": "low quality",
    "width": 768,
    "height": 432,
    "seed": 356120443,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "steps": 50,
    "scheduler": "dpmpp_2m_sde_k",
    "clip_skip": 1,
    "model": {"model_name": "mix", "base_model": "sd-1"},
    "loras": [{"lora": {"model_name": "ink"}, "weight": 0.7}],
    "vae": {"model_name": "mse"},
    "controlnets": [{"x": 1}],
}


def test_invokeai() -> None:
    recalled = recall_texts({"invokeai_metadata": json.dumps(INVOKE)})
    options = recalled.options
    assert (options.prompt, options.width, options.steps, options.seed) == ("landscape", 768, 50, 356120443)
    assert (options.sampler, options.scheduler, options.clip_skip) == ("dpmpp_2m_sde", "karras", 2)
    assert (options.checkpoint, options.vae, recalled.left_out) == ("mix", "mse", "ControlNets")
    assert options.loras == (LoraChoice(name="ink", strength=0.7),)
    changed = {**INVOKE, "generation_mode": "sd-1_img2img", "strength": 0.4}
    assert recall_texts({"invokeai_metadata": json.dumps(changed)}).lacks


@pytest.mark.parametrize(
    "texts",
    [
        {"Dream": '"a cat [dog]" -s 30 -S 123 -W 512 -H 448 -C 7.5 -A k_euler_a'},
        {
            "sd-metadata": json.dumps(
                {
                    "image": {
                        "prompt": [{"prompt": "a cat [dog]", "weight": 1.0}],
                        **{"steps": 30, "seed": 123, "width": 512, "height": 448, "cfg_scale": 7.5},
                        "sampler": "k_euler_a",
                        "type": "txt2img",
                    }
                }
            )
        },
    ],
)
def test_older_invokeai(texts: dict[str, str]) -> None:
    options = recall_texts(texts).options
    assert (options.prompt, options.negative_prompt, options.sampler) == ("a cat", "dog", "euler_ancestral")
    assert (options.steps, options.seed, options.width, options.height, options.cfg) == (30, 123, 512, 448, 7.5)


def test_novelai() -> None:
    values = {"steps": 28, "sampler": "k_dpmpp_2m", "seed": 42, "scale": 11.0, "uc": "bad", "width": 512, "height": 768}
    texts = {"Software": "NovelAI", "Description": "{girl}, cat", "Source": "Stable Diffusion F1", "Title": "x"}
    recalled = recall_texts({**texts, "Comment": json.dumps(values | {"noise_schedule": "exponential"})})
    options = recalled.options
    assert (options.prompt, options.negative_prompt, options.seed, options.cfg) == ("{girl}, cat", "bad", 42, 11.0)
    assert (options.sampler, options.scheduler, options.width) == ("dpmpp_2m", "exponential", 512)
    assert "Stable Diffusion F1" in recalled.left_out and "braces" in recalled.left_out


def test_swarmui() -> None:
    values = {
        "prompt": "a cat",
        "negativeprompt": "dog",
        "model": "sd/v15",
        **{"seed": 5, "steps": 20, "cfgscale": 7.0, "width": 512, "height": 448},
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "loras": ["ink"],
        "loraweights": ["0.5"],
        "refinerupscale": 1.5,
        "refinercontrolpercentage": 0.3,
        "variationseed": 7,
    }
    recalled = recall_texts({"parameters": json.dumps({"sui_image_params": values})})
    options = recalled.options
    assert (options.prompt, options.checkpoint, options.height) == ("a cat", "sd/v15", 448)
    assert options.loras == (LoraChoice(name="ink", strength=0.5),)
    assert options.hires == HiresOptions(scale=1.5, denoise=0.3) and recalled.left_out == "variationseed"
    pixels = {**values, "refinerupscalemethod": "pixel-bicubic"}
    told = recall_texts({"parameters": json.dumps({"sui_image_params": pixels})})
    assert told.options.hires == HiresOptions(scale=1.5, denoise=0.3) and "pixel-bicubic" in told.left_out
    started = {**values, "refinerupscale": 1, "initimagecreativity": 0.4}
    assert recall_texts({"parameters": json.dumps({"sui_image_params": started})}).lacks


def jpeg(path: Path, comment: bytes) -> Path:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le"])
def test_civitais_jpegs(tmp_path: Path, encoding: str) -> None:
    settings = {"prompt": "ein Käfer, 日本", "negativePrompt": "dog", "cfgScale": 6, "sampler": "DPM++ 2M Karras"}
    settings |= {"steps": 25, "seed": 99, "width": 512, "height": 768, "clipSkip": 2, "resources": [{"id": 5}]}
    text = json.dumps(graph() | {"extraMetadata": json.dumps(settings, ensure_ascii=False)}, ensure_ascii=False)
    recalled = recall_picture(jpeg(tmp_path / "a.jpg", b"UNICODE\0" + text.encode(encoding)), tmp_path)
    options = recalled.options
    assert (options.prompt, options.seed, options.steps, options.clip_skip) == ("ein Käfer, 日本", 99, 25, 2)
    assert (options.sampler, options.scheduler) == ("dpmpp_2m", "karras") and "Civitai" in recalled.left_out


@pytest.mark.parametrize(
    ("texts", "whose"),
    [
        ({"XML:com.adobe.xmp": "<x:xmpmeta>Draw Things</x:xmpmeta>"}, "Draw Things"),
        ({"Software": "NovelAI", "Comment": "[1]"}, "NovelAI"),
        ({"invokeai_metadata": "{broken"}, "InvokeAI"),
        ({"workflow": "{}"}, "ComfyUI"),
        ({"use_stable_diffusion_model": "x"}, "Easy Diffusion"),
    ],
)
def test_unread_settings_name_their_program(texts: dict[str, str], whose: str) -> None:
    with pytest.raises(OptionsError, match=whose):
        recall_texts(texts)


@pytest.mark.parametrize(
    "text",
    [
        "Camera: EOS R5, Lens: 50mm, ISO: 100",
        "Model: EOS, Size: 4000x3000, Version: 1.0, Seed: none",
        "a recipe\nSteps: 3, Flour: 500 g, Oven: 200",
        '{"prompt": 5}',
        '{"a": {"class_type": []}}',
    ],
)
def test_other_texts_never_yield_a_request(tmp_path: Path, text: str) -> None:
    with pytest.raises(OptionsError, match="no generation text"):
        recall_picture(jpeg(tmp_path / "a.jpg", b"ASCII\0\0\0" + text.encode()), tmp_path)


def test_png_texts_behind_the_pixels_are_read(tmp_path: Path) -> None:
    info = PngInfo()
    info.add(b"tEXt", b"prompt\0" + json.dumps(graph()).encode(), after_idat=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    (tmp_path / "a.png").write_bytes(buffer.getvalue())
    assert recall_picture(tmp_path / "a.png", tmp_path).options.seed == 5
