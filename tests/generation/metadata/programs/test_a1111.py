"""Tests texts of A1111 and its relatives: HiresFix, image to image, old names, extra lines, and omissions."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.core.errors import ModelFileError, OptionsError
from modules.core.paths import ModelFolders
from modules.generation.metadata.recall import recall_texts
from modules.generation.metadata.write import from_parameters, from_picture
from modules.generation.options import GenerationOptions, HiresOptions, InitImage, TiledOptions

BASE = "Steps: 4, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 128x192"


def read(more: str = "", **given: object) -> GenerationOptions:
    return from_parameters(f"a cat\n{BASE}{more}", given)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Hires resize: 256x192, Hires steps: 2", HiresOptions(width=256, height=192, steps=2, denoise=0.5)),
        ("Hires resize: 256x0, Hires steps: 2", HiresOptions(width=256, height=384, steps=2, denoise=0.5)),
        ("Hires resize: 0x300", HiresOptions(width=200, height=304, denoise=0.5)),
        ("Hires upscale: 1.5, Hires upscaler: Latent", HiresOptions(scale=1.5, method="bilinear", denoise=0.5)),
        ("Hires upscale: 2, Hires upscaler: None", HiresOptions(denoise=0.5)),
        (
            "Hires upscale: 2, Hires upscaler: Latent (bicubic antialiased)",
            HiresOptions(method="bicubic-antialiased", denoise=0.5),
        ),
        (
            "Hires upscale: 2, Hires CFG Scale: 3, Hires sampler: Heun, Hires schedule type: Beta",
            HiresOptions(denoise=0.5, cfg=3.0, sampler="heun", scheduler="beta"),
        ),
        (
            "Hires upscale: 2, Hires sampler: DPM++ 2M Karras, Hires schedule type: Use same scheduler",
            HiresOptions(denoise=0.5, sampler="dpmpp_2m", scheduler="karras"),
        ),
        ("Hires upscale: 2, Hires sampler: Use same sampler", HiresOptions(denoise=0.5)),
    ],
)
def test_the_second_pass(fields: str, expected: HiresOptions) -> None:
    assert read(f", Denoising strength: 0.5, {fields}").hires == expected


def test_an_upscaler_is_found_by_a1111s_name_or_told(model_root: Path) -> None:
    (model_root / "models" / "upscalers" / "RealESRGAN_x4plus.pth").touch()
    folders = ModelFolders(model_root)
    text = f"a cat\n{BASE}, Hires upscale: 2, Hires upscaler: "
    found = recall_texts({"parameters": text + "R-ESRGAN 4x+"}, folders=folders)
    assert found.options.hires is not None and found.options.hires.method == "RealESRGAN_x4plus"
    assert found.left_out == ""
    other = recall_texts({"parameters": text + "4x-UltraSharp"}, folders=folders)
    assert other.options.hires is not None and "4x-UltraSharp" in other.left_out and "--hires-method" in other.left_out
    given = recall_texts({"parameters": text + "4x-UltraSharp"}, folders=folders, given={"hires_method": "lanczos"})
    assert given.left_out == ""


@pytest.mark.parametrize(
    "fields", ["Denoising strength: 0.5", "Mask blur: 4", "Inpaint area: Only masked", "Init image hash: abc"]
)
def test_image_to_image_asks_for_the_picture_and_keeps_the_rest(fields: str) -> None:
    with pytest.raises(OptionsError, match="--img2img FILE"):
        read(f", {fields}")
    init = read(f", {fields}, Denoising strength: 0.3, Mask blur: 6", img2img=Path("x.png")).init
    assert init is not None and init.image == Path("x.png") and (init.mask_blur, init.denoise) == (6, 0.3)


MASKED = ", Mask mode: Inpaint not masked, Masked content: latent nothing, Inpaint area: Only masked"


def test_a_mask_is_used_as_a1111_names_it() -> None:
    picture, mask = Path("x.png"), Path("m.png")
    init = read(f"{MASKED}, Masked area padding: 48, Mask blur: 6", img2img=picture, mask=mask).init
    assert init == InitImage(
        image=picture, mask_blur=6, mask_content="empty", mask_invert=True, only_masked=True, mask_padding=48
    )
    given = {"mask_content": "noise", "mask_padding": 8}
    init = read(f"{MASKED}, Masked area padding: 48", img2img=picture, mask=mask, **given).init
    assert init is not None and (init.mask_content, init.mask_padding) == ("original", 32)
    without = read(MASKED, img2img=picture).init
    assert without == InitImage(image=picture, mask_content="empty")
    with pytest.raises(OptionsError, match="--mask-content"):
        read(", Masked content: soup", img2img=picture)


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("Steps: 4, Sampler: Restart, Seed: 5, Size: 64x64", "sampler"),
        ("Steps: 4, Sampler: Euler, Schedule type: Turbo Colossus, Seed: 5", "scheduler"),
        ("Steps: 4, Sampler: Euler, Seed: 5, Emphasis: Ignore", "emphasis"),
        ("Steps: many, Sampler: Euler, Seed: 5", "steps"),
        (f"Steps: {'9' * 400}, Sampler: Euler, Seed: 5", "steps"),
        ("Steps: 4, Sampler: Euler, Seed: 5, Size: 128.5x128", "width"),
        ("Steps: 4, Sampler: Euler, Seed: 5, CFG scale: nan", "cfg"),
        ("Steps: 4, Sampler: Euler, Seed: 5, CFG scale: 1000", "cfg"),
        ("Steps: 4, Sampler: Euler, Seed: 5, Hires upscale: 2, Hires sampler: Restart", "hires_sampler"),
    ],
)
def test_what_cannot_be_used_names_the_option_that_replaces_it(line: str, option: str) -> None:
    flag = f"--{option.replace('_', '-')}"
    with pytest.raises(OptionsError, match=flag) as caught:
        from_parameters(f"a cat\n{line}")
    assert len(str(caught.value)) < 500
    values = {"sampler": "euler", "scheduler": "karras", "emphasis": "off", "cfg": 2.0, "hires_sampler": "euler"}
    given = {option: values.get(option, 64)} | ({"height": 64} if option == "width" else {})
    assert from_parameters(f"a cat\n{line}", given).prompt == "a cat"


@pytest.mark.parametrize(
    ("name", "sampler", "scheduler"),
    [
        ("DPM++ 2M Karras", "dpmpp_2m", "karras"),
        ("euler_simple", "euler", "simple"),
        ("dpmpp_2m_sde_gpu_exponential", "dpmpp_2m_sde", "exponential"),
        ("Euler a SGM Uniform", "euler_ancestral", "sgm_uniform"),
    ],
)
def test_old_joined_names(name: str, sampler: str, scheduler: str) -> None:
    options = from_parameters(f"x\nSteps: 2, Sampler: {name}, Seed: 1, Size: 64x64")
    assert (options.sampler, options.scheduler) == (sampler, scheduler)


@pytest.mark.parametrize(("name", "mode"), [("None", "off"), ("Original", "a1111"), ("No norm", "no_norm")])
def test_emphasis(name: str, mode: str) -> None:
    assert read(f", Emphasis: {name}").emphasis == mode


@pytest.mark.parametrize(
    ("fields", "refiner"),
    [
        ("Refiner: sd_xl_refiner_1.0 [7440042bbd], Refiner switch at: 0.7", ("sd_xl_refiner_1.0", 0.7)),
        ("Refiner: mine, Refiner switch at: 0.7, Refiner switch by sampling steps: True", ("mine", 0.7)),
        ("Refiner: None, Refiner switch at: 0.8", (None, None)),
    ],
)
def test_the_refiner(fields: str, refiner: tuple[str | None, float | None], caplog: pytest.LogCaptureFixture) -> None:
    """A1111 counts timesteps unless the picture says otherwise; the share is kept, and a line says so."""
    options = read(f", {fields}")
    assert (options.refiner, options.refiner_start) == refiner
    assert ("by timesteps" in caplog.text) == ("[7440042bbd]" in fields)


def test_lines_around_the_settings_do_not_matter() -> None:
    lines = ["a cat", "Negative prompt: dog", "Used embeddings: bad [1a2b]", "", BASE, "Template: a {cat|dog}", "text"]
    for end in ("\n", "\r\n"):
        options = from_parameters(end.join(lines))
        assert (options.prompt, options.negative_prompt, options.steps) == ("a cat", "dog", 4)


def test_brackets_of_json_hold_no_fields() -> None:
    options = read(', Civitai resources: [{"name":"x, Seed: 8","w":1}, {"Seed": 9}], Clip skip: 2')
    assert (options.seed, options.clip_skip) == (5, 2)


def test_what_changes_the_picture_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    more = ", Variation seed: 3, Variation seed strength: 0.2, ADetailer model: x.pt, ADetailer confidence: 0.3, "
    more += "ADetailer dilate: 4, ENSD: 31337, Eta: 0.7, RNG: NV, Tiling: True, Refiner: x, Refiner switch at: 0.8, "
    more += 'Skip Early CFG: 0.2, Token merging ratio: 0.5, ControlNet 0: "Module: canny, Model: x", Version: v1.9'
    read(more + ', TI hashes: "a: 1", Lora hashes: "b: 2", Face restoration: None, Tiling: False')
    (record,) = caplog.records
    told = record.getMessage()
    for name in (
        "Variation seed",
        "ADetailer (3 settings)",
        "ENSD",
        "Eta",
        "RNG",
        "Refiner switch by timesteps",
        "ControlNet 0",
    ):
        assert name in told
    assert "hashes" not in told and "Face" not in told and "Version" not in told


def test_our_own_pictures_leave_nothing_out(caplog: pytest.LogCaptureFixture) -> None:
    read(", Model hash: 0123456789, Model: tiny, RNG: CPU, Precision: float32, Torch: 2.13, Version: LightDiffusion")
    assert not caplog.records


def test_a_batch_that_is_given_replaces_the_pictures_own() -> None:
    member = ", Batch size: 4, Batch pos: 2"
    assert (read(member).seed, read(member).batch, read(member).only) == (3, 4, 2)
    options = read(member, batch=1)
    assert (options.batch, options.only) == (1, None)


def test_everything_that_cannot_be_used_is_named_at_once(model_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.core.paths.PROJECT_ROOT", model_root)
    line = "Steps: many, Sampler: Restart, Schedule type: Turbo Colossus, Seed: 5, Size: 64x64, Model: gone"
    picture = model_root / "foreign.png"
    text = PngInfo()
    text.add_text("parameters", f"a cat <lora:nope:1>\n{line}, Hires upscale: 2, Hires sampler: Foo, VAE: lost")
    Image.new("RGB", (8, 8)).save(picture, pnginfo=text)
    with pytest.raises(OptionsError) as caught:
        from_picture(picture)
    said = str(caught.value)
    assert all(f'"{name}"' in said for name in ("many", "Restart", "Turbo Colossus", "Foo", "gone", "lost", "nope"))
    flags = said.split("Give others with ")[1]
    assert flags == "--steps, --sampler, --scheduler, --hires-sampler, --checkpoint, --vae, --prompt."
    given = {"steps": 2, "sampler": "euler", "scheduler": "beta", "hires_sampler": "lms", "vae": "x", "prompt": ""}
    with pytest.raises(ModelFileError, match='"gone".* Give another with --checkpoint.$'):
        from_picture(picture, given)


JOINED = "a cat, (big: 1.2) {neg}Steps: 4, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 128x192"


@pytest.mark.parametrize("end", ["", "\n", "\nTemplate: a {cat|dog}"])
def test_a_text_that_was_joined_into_one_line(end: str) -> None:
    options = from_parameters(JOINED.format(neg="Negative prompt: dog, Steps: no ") + end)
    assert (options.prompt, options.negative_prompt) == ("a cat, (big: 1.2)", "dog, Steps: no")
    assert (options.steps, options.sampler, options.seed, options.height) == (4, "euler_ancestral", 5, 192)
    options = from_parameters(JOINED.format(neg="") + end)
    assert (options.prompt, options.negative_prompt, options.seed) == ("a cat, (big: 1.2)", "", 5)
    options = from_parameters("a cat\nand more\nNegative prompt: dog " + BASE + end)
    assert (options.prompt, options.negative_prompt, options.seed) == ("a cat\nand more", "dog", 5)


@pytest.mark.parametrize(
    "text",
    [
        JOINED.format(neg="Negative prompt: dog Negative prompt: bird "),  # ambiguous: two candidates
        JOINED.format(neg="Steps: 4, Sampler: Heun "),
        "a cat Negative prompt: dog",
        "a cat Steps: 4, Sampler: Euler",
        "Steps: walk, Sampler: a cat, Seed: a plant",
    ],
)
def test_what_could_be_meant_in_two_ways_is_not_guessed(text: str) -> None:
    with pytest.raises(OptionsError):
        from_parameters(text)


def test_the_script_sd_upscale_becomes_a_tiled_upscale() -> None:
    text = f"a cat\n{BASE}, Denoising strength: 0.3, SD upscale overlap: 16, SD upscale upscaler: "
    found = recall_texts({"parameters": text + "Lanczos"})
    assert found.options.tiled == TiledOptions(overlap=16) and found.options.init is not None
    assert "the scale of SD upscale" in found.left_out
    other = recall_texts({"parameters": text + "4x-UltraSharp"}, given={"tiled_upscale": 3.0})
    assert "4x-UltraSharp" in other.left_out and "--upscaler" in other.left_out
    assert "the scale" not in other.left_out
