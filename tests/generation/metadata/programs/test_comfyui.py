"""ComfyUI: the links of a graph are followed, and unsupported nodes are reported."""

from __future__ import annotations

import json

import pytest

from modules.core.errors import OptionsError
from modules.generation.metadata.recall import Recalled, recall_texts
from modules.generation.options import HiresOptions, LoraChoice
from tests.generation.metadata.programs.comfyui_graphs import Graph, graph, node


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
