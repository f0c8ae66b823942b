"""Two thousand bodies that no client should send: each is answered in the dialect's form, and none breaks anything."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.asgi import Caller, desk_without_engine
from tests.tiny_project import project

BODIES = 2000
PICTURE_FIELDS = ("image", "mask", "init_images", "controlnet_input_images", "input_image", "data")
FIELDS: dict[str, tuple[str, ...]] = {
    "/sdapi/v1/txt2img": (
        "prompt", "negative_prompt", "styles", "seed", "subseed_strength", "sampler_name", "sampler_index",
        "scheduler", "batch_size", "n_iter", "steps", "cfg_scale", "width", "height", "enable_hr", "hr_scale",
        "hr_upscaler", "hr_resize_x", "hr_resize_y", "hr_second_pass_steps", "hr_prompt", "hr_sampler_name",
        "hr_cfg", "denoising_strength", "override_settings", "send_images", "save_images", "alwayson_scripts", "eta",
        "refiner_checkpoint", "refiner_switch_at",
    ),
    "/sdapi/v1/img2img": (
        "init_images", "mask", "mask_blur", "inpainting_fill", "inpaint_full_res", "inpaint_full_res_padding",
        "inpainting_mask_invert", "resize_mode", "denoising_strength", "prompt", "width", "height", "seed",
    ),
    "/sdapi/v1/options": ("sd_model_checkpoint", "sd_vae", "CLIP_stop_at_last_layers", "samples_format"),
    "/sdapi/v1/png-info": ("image",),
    "/sdapi/v1/extra-single-image": (
        "image", "resize_mode", "upscaling_resize", "upscaling_resize_w", "upscaling_resize_h", "upscaling_crop",
        "upscaler_1", "upscaler_2",
    ),
    "/sdapi/v1/extra-batch-images": ("imageList", "upscaling_resize"),
    "/controlnet/detect": ("controlnet_input_images", "controlnet_module", "controlnet_processor_res"),
    "/sdapi/v1/interrupt": ("x",),
}  # fmt: skip
UNITS = ("image", "model", "module", "weight", "guidance_start", "guidance_end", "control_mode", "resize_mode", "mask")


class Maker:
    """Makes values and bodies, the same ones for the same seed."""

    def __init__(self, seed: int, picture: str) -> None:
        self.dice = random.Random(seed)
        self.picture = picture

    def value(self, depth: int = 0) -> Any:
        kinds = [self.number, self.text, self.odd]
        if depth < 3:
            kinds += [self.items, self.an_object]
        return self.dice.choice(kinds)(depth)

    def number(self, depth: int) -> Any:
        return self.dice.choice([0, 1, -1, 8, 64, 1.5, 1e308, -1e-308, 2**31, 2**63, 2**70, 10**300, 512.0])

    def text(self, depth: int) -> str:
        texts = ["", "tiny", "Euler a", "/etc/passwd", "../../x", "\0", "\ud800", "x" * 5000, "((((", "<lora:ink:1>"]
        return self.dice.choice(
            [*texts, "<lora:ink:x>", self.picture, self.picture[:200], "data:,", "http://[", "🙂" * 9]
        )

    def odd(self, depth: int) -> Any:
        return self.dice.choice([None, True, False])

    def items(self, depth: int) -> list[Any]:
        return [self.value(depth + 1) for _ in range(self.dice.randrange(3))]

    def an_object(self, depth: int) -> dict[str, Any]:
        unit = {name: self.value(depth + 1) for name in self.dice.sample(UNITS, 3)}
        whole = {"controlnet": {"args": [{"model": "edges", "image": self.picture, **unit}]}}
        return self.dice.choice([whole, unit, {"args": self.value(depth + 1)}, {"data": self.value(depth + 1)}])

    def body(self, names: tuple[str, ...]) -> bytes:
        fields: dict[str, Any] = {name: self.picture for name in names if name in PICTURE_FIELDS}
        fields |= {name: [self.picture] for name in names if name in ("init_images", "controlnet_input_images")}
        fields |= {name: self.value() for name in self.dice.sample(names, self.dice.randint(1, min(4, len(names))))}
        written = json.dumps(fields).encode()
        if self.dice.random() < 0.1:
            cut = self.dice.randrange(len(written))
            written = written[:cut] + self.dice.choice([b"", b"\xff", b"NaN", b"[" * 5000]) + written[cut + 1 :]
        return written

    def calls(self) -> Iterator[tuple[str, str, bytes]]:
        while True:
            path = self.dice.choice(tuple(FIELDS))
            yield "POST", path, self.body(FIELDS[path])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("fuzz"))


def test_no_body_breaks_the_api(root: Path) -> None:
    picture = base64.b64encode((root / "photo.png").read_bytes()).decode()
    desk = desk_without_engine(root)
    desk.stop = lambda: None  # type: ignore[method-assign]  # there is no engine to stop
    made = Maker(1, picture).calls()
    calls = [next(made) for _ in range(BODIES)]
    answers = Caller(desk).call(calls)
    for (_, path, body), (status, told) in zip(calls, answers, strict=True):
        assert status in (200, 400), (path, body[:500], told)
        if status == 400:
            sentence = told["detail"]
            assert sentence.isprintable() and sentence[-1] in ".?!" and len(sentence) < 1000, sentence
            assert str(root) not in sentence
    statuses = [status for status, _ in answers]
    assert statuses.count(400) > BODIES / 4 and statuses.count(200) > BODIES / 20
