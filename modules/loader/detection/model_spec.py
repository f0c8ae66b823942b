"""Derives every network's configuration from key names and shapes, or raises an error that says what the file is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from modules.core.errors import ModelFileError, quoted
from modules.loader.detection.facts import TEXT_FACTS, header_facts, number_of
from modules.loader.detection.foreign import KIND_FOLDERS, LONE_UNET, SUPPORTED, embedding_by_shape, foreign_kind
from modules.loader.detection.prediction import Prediction, detect_training
from modules.loader.detection.shapes import shapes_of
from modules.loader.detection.text_config import text_configs
from modules.loader.detection.unet_config import unet_config
from modules.loader.detection.vae_config import vae_config, with_latent_statistics
from modules.loader.layouts.parts import VECTOR_MARK, Parts, is_refiner, lacks_vector
from modules.models.configs import SD_VAE, SDXL_VAE, TextConfig, UNetConfig, VAEConfig

_NATIVE_SIZES = {"SD1.x": 512, "SD2.x": 512, "SDXL": 1024, "the SDXL refiner": 1024}
TEXT_TITLES = {"clip_l": "CLIP-L", "clip_h": "OpenCLIP-H", "clip_g": "CLIP-G"}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything about a checkpoint except its weights.

    `native_size` is the training resolution (side in pixels). `sigma_range` is the range of noise levels of the two EDM
    kinds of prediction ("edm": Playground 2.5, "edm_v": CosXL).
    """

    unet: UNetConfig
    vae: VAEConfig
    texts: tuple[TextConfig, ...]  # in the order in which their outputs are joined
    family: str  # "SD1.x", "SD2.x", "SDXL" or "the SDXL refiner"
    prediction: Prediction
    zero_terminal_snr: bool
    sigma_range: tuple[float, float] | None = None
    native_size: int
    inpaint: bool


def describe_parts(
    parts: Parts,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    *,
    vae_metadata: Mapping[str, str] | None = None,
    text_metadata: Mapping[str, str] | None = None,
) -> ModelSpec:
    """Derives a checkpoint's configuration from its parts; `state` is the whole file, with its markers.

    `vae_metadata` and `text_metadata` are the headers of the autoencoder's and the text encoder's files, if they have
    separate files.
    """
    _require_parts(parts, state)
    facts = header_facts(metadata)
    text_facts = facts | {name: fact for name, fact in header_facts(text_metadata or {}).items() if name in TEXT_FACTS}
    vae_facts = facts if vae_metadata is None else header_facts(vae_metadata)
    unet = unet_config(parts.unet, facts, linear=parts.linear_projection)
    family = _family(parts, unet)
    texts = text_configs(parts.texts, text_facts, is_sdxl=unet.vector_dim is not None)
    _check_context(texts, unet)
    training = detect_training(parts.unet, state, metadata, facts, is_sd2=family == "SD2.x")
    size = 768 if family == "SD2.x" and training.prediction == "v" else _NATIVE_SIZES[family]
    vae = vae_config(parts.vae, vae_facts, scale_factor_of(family))
    return ModelSpec(
        unet=unet,
        vae=with_latent_statistics(vae, state, facts),
        texts=texts,
        family=family,
        prediction=training.prediction,
        zero_terminal_snr=training.zero_terminal_snr,
        sigma_range=training.sigma_range,
        native_size=number_of(facts, "native_size", number_of(facts, "image_size", size)),
        inpaint=unet.in_channels == 9,
    )


def _family(parts: Parts, unet: UNetConfig) -> str:
    if unet.vector_dim is not None:
        return "the SDXL refiner" if is_refiner(parts.unet) else "SDXL"
    return "SD2.x" if unet.linear_projection else "SD1.x"


def scale_factor_of(family: str) -> float:
    """Returns the factor between the autoencoder's latents and those that the family's UNet reads."""
    return (SDXL_VAE if "SDXL" in family else SD_VAE).scale_factor


def _check_context(texts: tuple[TextConfig, ...], unet: UNetConfig) -> None:
    width = sum(text.width for text in texts)
    if width != unet.context_dim:
        encoders = "text encoder gives" if len(texts) == 1 else "text encoders give"
        raise ModelFileError(
            f"The {encoders} vectors of width {width}, but this UNet reads {unet.context_dim}; "
            "choose a matching one with --text-encoder."
        )


def refuse_foreign(state: Mapping[str, Tensor]) -> None:
    """Raises an error that identifies a file of another kind, instead of an error about a missing key."""
    kind = foreign_kind(state)
    if kind == LONE_UNET:  # valid with parts from other files; a missing part is reported later
        return
    if kind is None and embedding_by_shape(shapes_of(state)):
        kind = "a textual inversion embedding"
    if kind is not None:
        place = f"; it belongs in {KIND_FOLDERS[kind]}" if kind in KIND_FOLDERS else ""
        raise ModelFileError(f"This file is {kind}, not a checkpoint we can run{place}. {SUPPORTED}.")


def refuse_refiner(spec: ModelSpec) -> None:
    """Raises an error that says what the SDXL refiner is for, if the checkpoint is one."""
    if spec.family == "the SDXL refiner":
        raise ModelFileError(
            "This file is the SDXL refiner, which cannot start a picture; choose an SDXL checkpoint, and give this "
            "file with --refiner."
        )


def require_refiner(spec: ModelSpec) -> None:
    """Raises an error for a checkpoint given as the SDXL refiner that is something else."""
    if spec.family != "the SDXL refiner":
        raise ModelFileError(
            f"This file is a checkpoint of {spec.family}, not the SDXL refiner: give it with --checkpoint, "
            "and with --refiner a file such as sd_xl_refiner_1.0."
        )


def _require_parts(parts: Parts, state: Mapping[str, Tensor]) -> None:
    if not parts.unet:
        first = next(iter(sorted(state)), None)
        begins = f"it begins with {quoted(first)}" if first is not None else "it holds no weights at all"
        raise ModelFileError(f"This file is not a Stable Diffusion checkpoint: {begins}. {SUPPORTED}.")
    if lacks_vector(parts.unet, state):
        raise ModelFileError(
            f"This file is an SDXL checkpoint whose UNet lacks {VECTOR_MARK}, which reads the picture's size; the file "
            "is incomplete: download it again."
        )
    lacking = _lacking_texts(parts) | ({} if parts.vae else {"VAE": "--vae NAME (files in models/vae)"})
    if not lacking:
        return
    if is_refiner(parts.unet):
        raise ModelFileError(
            f"This file is the SDXL refiner, but it has no {' and no '.join(lacking)}: choose a file that holds all of "
            "it, such as sd_xl_refiner_1.0."
        )
    lone = "" if any(parts.texts.values()) or parts.vae else "is a UNet alone: it "
    raise ModelFileError(
        f"This file {lone}has no {' and no '.join(lacking)}. "
        f'Add the missing parts with {" and ".join(reversed(lacking.values()))}; on the page under "LoRA and VAE".'
    )


def _lacking_texts(parts: Parts) -> dict[str, str]:
    """Returns what the file lacks in text encoders, and the option that adds it."""
    if parts.has_texts:
        return {}
    missing = [TEXT_TITLES[name] for name, weights in parts.texts.items() if not weights]
    encoder = f"{' or '.join(missing)} (SDXL needs two text encoders)" if len(parts.texts) > 1 else "text encoder"
    options = " ".join(["--text-encoder NAME"] * len(missing))
    return {encoder: f"{options} (files in models/text_encoders, or another checkpoint)"}
