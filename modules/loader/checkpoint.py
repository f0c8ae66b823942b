"""Builds the UNet, text encoder and VAE of one checkpoint file or diffusers folder."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from modules.core.errors import ModelFileError, OptionsError
from modules.loader.detection.facts import header_facts
from modules.loader.detection.foreign import foreign_kind
from modules.loader.detection.model_spec import ModelSpec, describe_parts, refuse_foreign, refuse_refiner
from modules.loader.detection.vae_config import vae_config
from modules.loader.files.open_file import Weights, naming
from modules.loader.files.state_dict import open_weights
from modules.loader.layouts.diffusers import open_folder, vae_metadata, weight_files
from modules.loader.layouts.key_maps import VAE_PREFIX
from modules.loader.layouts.parts import split_parts, strip_prefix, vae_part
from modules.loader.load_weights import empty_weights, fill_network
from modules.loader.patcher import ModelPatcher
from modules.loader.text_encoder import open_text_encoder, with_text_encoder
from modules.models.clip import TextEncoders
from modules.models.configs import VAEConfig
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL


@dataclass
class LoadedModel:
    """The networks of one checkpoint, loaded onto their device."""

    spec: ModelSpec
    unet: ModelPatcher
    text: ModelPatcher
    vae: AutoencoderKL
    name: str
    path: Path

    @cached_property
    def sha256(self) -> str:
        """The first ten digits of the file's SHA-256, for picture metadata; computed on first use."""
        file = weight_files(self.path / "unet")[0] if self.path.is_dir() else self.path
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
        return digest.hexdigest()[:10]


def load_checkpoint(
    path: Path | str,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    vae_path: Path | str | None = None,
    text_path: Path | str | None = None,
    vae_dtype: torch.dtype | None = None,
    prediction: str | None = None,
    refiner: bool = False,
) -> LoadedModel:
    """Loads a checkpoint.

    `vae_path` and `text_path` replace or add the autoencoder and text encoder; `prediction` ("epsilon", "v" or
    "edm") overrides the detected one. `refiner` permits the SDXL refiner, which is refused otherwise.
    """
    path, device = Path(path), torch.device(device)
    if prediction not in (None, "epsilon", "v", "edm"):
        raise OptionsError(f'Unknown prediction "{prediction}"; use epsilon, v or edm.')
    weights = open_folder(path) if path.is_dir() else open_weights(path)
    other_text = open_text_encoder(Path(text_path)) if text_path is not None else None
    other_vae = open_vae(Path(vae_path)) if vae_path is not None else None
    with naming(path):
        refuse_foreign(weights.tensors)
        parts = split_parts(with_text_encoder(weights.tensors, other_text.tensors if other_text else {}))
        if other_vae is not None:
            parts = dataclasses.replace(parts, vae=other_vae.tensors)
        spec = describe_parts(
            parts,
            weights.tensors,
            weights.metadata,
            vae_metadata=other_vae.metadata if other_vae else None,
            text_metadata=other_text.metadata if other_text else None,
        )
        if not refiner:
            refuse_refiner(spec)
        if prediction is not None:
            spec = dataclasses.replace(spec, prediction=prediction)
        with empty_weights():
            unet, text, vae = UNet(spec.unet), TextEncoders(spec.texts), AutoencoderKL(spec.vae)
        fill_network(unet, parts.unet, device, dtype, weights.drop_pages, "UNet")
    with naming(Path(text_path or path)):
        for name, encoder in text.items():
            drop_pages = (other_text or weights).drop_pages
            fill_network(encoder, parts.texts[name], device, dtype, drop_pages, "text encoder")
    with naming(Path(vae_path or path)):
        fill_network(vae, parts.vae, device, vae_dtype or dtype, (other_vae or weights).drop_pages, "VAE")
    return LoadedModel(spec, ModelPatcher(unet, device), ModelPatcher(text, device), vae, _model_name(path), path)


def _model_name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem  # ".5" in a folder called "v1.5" is not a suffix


def open_vae(path: Path) -> Weights:
    """Opens the VAE of a VAE file (in either layout), a checkpoint or a diffusers folder, with LDM names.

    Raises ModelFileError.
    """
    metadata: dict[str, str] | None = None
    if path.is_dir():
        folder = path / "vae" if (path / "vae").is_dir() else path
        path, metadata = weight_files(folder)[0], vae_metadata(folder)
    weights = open_weights(path)
    tensors = weights.tensors
    state = vae_part(strip_prefix(tensors, VAE_PREFIX) or strip_prefix(tensors, "vae.") or tensors)
    with naming(path):
        kind = foreign_kind(tensors)
        if "post_quant_conv.weight" not in state:
            raise ModelFileError(
                f"This file is {kind or 'not a known VAE'} and cannot be used as VAE of SD1, SD2 or SDXL."
            )
        config = vae_config(state, header_facts(weights.metadata))
        if config.latent_channels != VAEConfig().latent_channels:
            raise ModelFileError(
                f"This VAE has {config.latent_channels} latent channels (as SD3 or Flux); SD1, SD2 and SDXL need 4."
            )
    return dataclasses.replace(weights, tensors=state, metadata=metadata or weights.metadata)
