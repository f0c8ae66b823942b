"""Checks a request before anything is loaded: names, model files, embeddings, pictures (no torch)."""

from __future__ import annotations

from modules.core.paths import ModelFolders
from modules.generation.checks.model_files import model_files
from modules.generation.options import GenerationOptions
from modules.images.open import check_header
from modules.sampling.names import sampler_and_scheduler
from modules.text.embedding_names import EmbeddingNames
from modules.text.prompt import extract_loras


def check_request(options: GenerationOptions, folders: ModelFolders) -> None:
    """Raises OptionsError for an invalid name or an unusable picture, ModelFileError for a missing model."""
    sampler, scheduler = sampler_and_scheduler(options.sampler, options.scheduler)
    if options.hires is not None:
        sampler_and_scheduler(options.hires.sampler or sampler, options.hires.scheduler or scheduler)
    for _ in model_files(options, folders):
        pass
    embeddings = EmbeddingNames(folders)
    for text in (options.prompt, options.negative_prompt):
        embeddings.check(extract_loras(text)[0], options.emphasis)
    for picture in options.pictures:
        check_header(picture)
