"""Builds the UNet, text encoder and VAE of one checkpoint file or diffusers folder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from modules.core.device import free_memory, release_memory
from modules.core.errors import ModelFileError, OptionsError
from modules.loader.detection.facts import header_facts
from modules.loader.detection.foreign import foreign_kind
from modules.loader.detection.model_spec import (
    ModelSpec,
    describe_parts,
    refuse_foreign,
    refuse_refiner,
    require_refiner,
)
from modules.loader.detection.vae_config import vae_config
from modules.loader.files.open_file import Weights, naming
from modules.loader.files.state_dict import open_weights
from modules.loader.layouts.diffusers import open_folder, vae_metadata, weight_files
from modules.loader.layouts.key_maps import VAE_PREFIX
from modules.loader.layouts.parts import Parts, split_parts, strip_prefix, vae_part
from modules.loader.load_weights import empty_weights, fill_network
from modules.loader.patcher import ModelPatcher
from modules.loader.placement import LEAVING, TEXT, UNET, VAE, Needs, leaving
from modules.loader.text_encoder import (
    TextFile,
    choose_encoders,
    open_text_encoders,
    text_metadata,
    with_text_encoders,
)
from modules.loader.visit import is_away
from modules.models.clip import TextEncoders
from modules.models.configs import VAEConfig
from modules.models.unet import UNet
from modules.models.vae import AutoencoderKL, working_bytes


@dataclass
class LoadedModel:
    """The networks of one checkpoint. The UNet is on its device; the others may live in the computer's memory.

    So may the UNet, if whatever runs it brings its weights to the device in a smaller form.
    """

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

    @property
    def away(self) -> tuple[str, ...]:
        """The networks that come to the device only to work."""
        networks = {TEXT: self.text.module, VAE: self.vae}
        return tuple(name for name, network in networks.items() if is_away(network, self.unet.load_device))

    def make_room(self) -> bool:
        """Lets all networks but the UNet leave the device, for good. Returns False if they have left before."""
        if self.away == LEAVING:
            return False
        self.text.leave()
        self.vae.to("cpu")
        self.unet.spare_memory()
        self.text.spare_memory()
        release_memory(self.unet.load_device)
        return True


def load_checkpoint(
    path: Path | str,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    vae_path: Path | str | None = None,
    text_paths: Sequence[Path | str] = (),
    vae_dtype: torch.dtype | None = None,
    prediction: str | None = None,
    memory: str = "high",
    refiner: bool = False,
    unet_at_home: bool = False,
) -> LoadedModel:
    """Loads a checkpoint.

    `vae_path` and `text_paths` replace or add the autoencoder and text encoders (SDXL has two, which may come in two
    files); `prediction` ("epsilon", "v" or "edm") overrides the detected one. `memory` decides which networks live on
    the device (see placement.py). `refiner` asks for the SDXL refiner, which is refused otherwise. With `unet_at_home`
    the UNet lives in the computer's memory, and takes half of its size on the device later.
    """
    path, device = Path(path), torch.device(device)
    if prediction not in (None, "epsilon", "v", "edm"):
        raise OptionsError(f'Unknown prediction "{prediction}"; use epsilon, v or edm.')
    weights = open_folder(path) if path.is_dir() else open_weights(path)
    text_files = open_text_encoders(map(Path, text_paths))
    other_vae = open_vae(Path(vae_path)) if vae_path is not None else None
    with naming(path):
        refuse_foreign(weights.tensors)
    others = choose_encoders(text_files, weights.tensors)
    with naming(path):
        parts = split_parts(with_text_encoders(weights.tensors, others))
        if other_vae is not None:
            parts = dataclasses.replace(parts, vae=other_vae.tensors)
        spec = describe_parts(
            parts,
            weights.tensors,
            weights.metadata,
            vae_metadata=other_vae.metadata if other_vae else None,
            text_metadata=text_metadata(others),
        )
        (require_refiner if refiner else refuse_refiner)(spec)
        if prediction is not None:
            spec = dataclasses.replace(spec, prediction=prediction)
        with empty_weights():
            unet, text, vae = UNet(spec.unet), TextEncoders(spec.texts), AutoencoderKL(spec.vae)
        gone = leaving(memory, _needs(parts, spec, dtype, halves_unet=unet_at_home), free_memory(device))
        gone = (*gone, UNET) if unet_at_home else gone
        homes = {name: torch.device("cpu") if name in gone else device for name in (UNET, *LEAVING)}
        fill_network(unet, parts.unet, homes[UNET], dtype, weights.drop_pages, UNET)
    for name, encoder in text.items():
        source = others.get(name) or TextFile(path, weights)
        with naming(source.path):
            fill_network(encoder, parts.texts[name], homes[TEXT], dtype, source.weights.drop_pages, "text encoder")
    with naming(Path(vae_path or path)):
        fill_network(vae, parts.vae, homes[VAE], vae_dtype or dtype, (other_vae or weights).drop_pages, "VAE")
    model = LoadedModel(spec, ModelPatcher(unet, device), ModelPatcher(text, device), vae, _model_name(path), path)
    if gone:
        model.unet.spare_memory()
        model.text.spare_memory()
    return model


def checkpoint_needs(path: Path, dtype: torch.dtype) -> Needs:
    """Reads from a checkpoint's header how much memory it needs. Raises ModelFileError."""
    weights = open_folder(path) if path.is_dir() else open_weights(path)
    with naming(path):
        refuse_foreign(weights.tensors)
        parts = split_parts(weights.tensors)
        return _needs(parts, describe_parts(parts, weights.tensors, weights.metadata), dtype)


def _needs(parts: Parts, spec: ModelSpec, dtype: torch.dtype, *, halves_unet: bool = False) -> Needs:
    texts = [weight for encoder in parts.texts.values() for weight in encoder.values()]
    networks = {UNET: parts.unet.values(), TEXT: texts, VAE: parts.vae.values()}
    sizes = {name: sum(weight.numel() for weight in weights) for name, weights in networks.items()}
    if halves_unet:
        sizes[UNET] //= 2
    cells = (spec.native_size // spec.vae.downscale) ** 2
    return Needs(
        networks={name: size * dtype.itemsize for name, size in sizes.items()},
        work=round(working_bytes(spec.vae, cells, dtype)),
    )


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
