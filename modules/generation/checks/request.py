"""Checks a request before anything is loaded: names, model files, embeddings, pictures (no torch)."""

from __future__ import annotations

from collections.abc import Sequence

from modules.core.errors import OptionsError
from modules.core.paths import ModelFolders
from modules.generation.checks.model_files import model_files
from modules.generation.checks.skipping import check_skipping
from modules.generation.options import GenerationOptions
from modules.generation.wording.spelled_out import first_picture, wildcard_files, with_styles
from modules.images.open import check_header
from modules.sampling.names import sampler_and_scheduler
from modules.text.embedding_names import EmbeddingNames
from modules.text.prompt import extract_loras


def check_request(options: GenerationOptions, folders: ModelFolders) -> None:
    """Raises OptionsError for an invalid name or an unusable picture, ModelFileError for a missing model.

    Of prompts with variants, it checks all wildcards and the first picture.
    """
    wildcard_files(with_styles(options, folders), folders)
    check_spelled_out(first_picture(options, folders), folders)


def check_spelled_out(options: GenerationOptions, folders: ModelFolders) -> None:
    """Works like `check_request` for a request without styles, whose prompts are final."""
    sampler, scheduler = sampler_and_scheduler(options.sampler, options.scheduler)
    if options.hires is not None:
        sampler_and_scheduler(options.hires.sampler or sampler, options.hires.scheduler or scheduler)
    if options.refiner_start is not None and options.refiner is None:
        raise OptionsError("--refiner-start needs a refiner: give it with --refiner NAME, or leave out the start.")
    for _ in model_files(options, folders):
        pass
    check_prompts([options], folders)
    check_mask(options)
    check_tiled(options)
    check_skipping(options)
    for picture in options.pictures:
        check_header(picture)


def check_prompts(requests: Sequence[GenerationOptions], folders: ModelFolders) -> None:
    """Raises ModelFileError if the final prompts of requests with one emphasis name an embedding that is missing."""
    texts = [text for options in requests for text in (options.prompt, options.negative_prompt)]
    EmbeddingNames(folders).check((extract_loras(text)[0] for text in texts), requests[0].emphasis)


def check_mask(options: GenerationOptions) -> None:
    """Raises OptionsError for settings of a mask without a mask, and for settings that exclude each other."""
    init = options.init
    if init is None:
        return
    if init.outpaint and init.is_masked:
        raise OptionsError("Outpainting makes a mask of its own: repaint a part of the picture before or after it.")
    if init.each_part and options.hires is not None and options.hires.keep_first_pass:
        raise OptionsError("Part by part there is no picture of the first pass to keep: leave out --keep-first-pass.")
    drawn = init.is_masked
    for used, what, masked in (
        (init.only_masked, "Repainting only the masked part", drawn or init.outpaint),
        (init.mask_soft, "A soft mask", drawn or init.outpaint),
        (init.each_part, "Repainting part by part", drawn),
        (init.mask_invert, "Inverting the mask", drawn),
    ):
        if used and not masked:
            raise OptionsError(f"{what} needs a mask: give one with --mask FILE, or leave this out.")


def check_tiled(options: GenerationOptions) -> None:
    """Raises OptionsError for a tiled upscale of no picture, and for what does not go together with one."""
    if options.tiled is None:
        return
    if options.init is None:
        raise OptionsError("The tiled upscale enlarges a picture: give one with --img2img FILE.")
    if options.init.is_masked or options.init.outpaint:
        raise OptionsError(
            "The tiled upscale repaints the whole picture: leave out the mask and outpainting, or the tiled upscale."
        )
    if options.hires is not None:
        raise OptionsError("HiresFix and the tiled upscale both enlarge the picture: leave out one of them.")
