"""The session: keeps the loaded checkpoint, its LoRAs and the compiled networks between requests."""

from __future__ import annotations

import gc
import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch

from modules.controlnet.load import load_controlnet
from modules.core.device import choose_device, choose_dtype
from modules.core.errors import ModelFileError, quoted
from modules.core.paths import ModelFolders
from modules.generation.checks.model_files import checkpoint_path, text_encoder_paths
from modules.generation.metadata.named_files import Fingerprints
from modules.generation.networks import Networks
from modules.generation.options import GenerationOptions, LoraChoice
from modules.images.upscale import Upscaler, load_with_spandrel, upscaler_of
from modules.loader.checkpoint import LoadedModel, load_checkpoint
from modules.loader.patcher import ModelPatcher
from modules.loader.upscaler import load_rrdbnet
from modules.lora.apply import LoraPatches, add_lora, lora_patches
from modules.models.controlnet import ControlNet
from modules.stable_fast import Report, level_in_force
from modules.text.embeddings import EmbeddingLibrary
from modules.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MOST_LORAS = 8  # kept in memory, each with its matrices on the device


class Session:
    """Models on one device. Loading is lazy, and models that are already loaded cost nothing."""

    def __init__(
        self,
        folders: ModelFolders | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        tuning_seconds: float = 0.0,
    ) -> None:
        """`tuning_seconds` limits how long Stable-Fast times its kernels for each network and new size."""
        self.folders = folders or ModelFolders()
        self.device = choose_device(device)
        self.dtype = choose_dtype(self.device, dtype)
        if tuning_seconds and self.device.type != "cuda":
            log.warning("--stable-fast-tune has no effect on %s: it times the kernels of an NVIDIA GPU.", self.device)
        self._tuning_seconds = tuning_seconds
        self.embeddings = EmbeddingLibrary(self.folders)
        self.tokenizer = Tokenizer()
        self.fingerprints = Fingerprints()
        self._model: LoadedModel | None = None
        self._loras: OrderedDict[tuple[Path, int], LoraPatches] = OrderedDict()
        self._fast: Networks | None = None  # the latest networks with Stable-Fast on
        self._controlnets: dict[tuple[Path, int], ControlNet] = {}
        self._key: tuple[object, ...] | None = None

    def model(self, options: GenerationOptions) -> LoadedModel:
        """Loads the request's checkpoint, or the default one; its weights are unmodified."""
        path = checkpoint_path(self.folders, options.checkpoint)
        vae = self.folders.find("vae", options.vae) if options.vae else None
        texts = text_encoder_paths(self.folders, options)
        key = (*stamp(path), *(stamp(vae) if vae else ()), "text", *map(stamp, texts), options.prediction)
        if self._model is None or key != self._key:
            self.free()
            log.info("Loading %s", path.name)
            self._model = load_checkpoint(
                path,
                device=self.device,
                dtype=self.dtype,
                vae_path=vae,
                text_paths=texts,
                prediction=options.prediction,
            )
            self._key = key
        return self._model

    def patched(self, model: LoadedModel, loras: Sequence[LoraChoice]) -> tuple[ModelPatcher, ModelPatcher]:
        """Returns UNet and text encoder with exactly these LoRAs; earlier LoRAs are removed bit for bit."""
        unet, text = model.unet.clone(), model.text.clone()
        for choice in loras:
            patches = self._lora(model, choice.name)
            add_lora(patches, unet, text, strength=choice.strength, text_strength=choice.clip_strength)
        unet.apply()
        text.apply()
        return unet, text

    def _lora(self, model: LoadedModel, name: str) -> LoraPatches:
        """Returns a LoRA's patches, cached if recently used: the same patch objects need not be merged again."""
        path = self.folders.find("loras", name)
        key = stamp(path)
        if key not in self._loras:
            self._loras[key] = lora_patches(path, model.unet, model.text, model.spec)
        self._loras.move_to_end(key)
        while len(self._loras) > MOST_LORAS:
            self._loras.popitem(last=False)
        return self._loras[key]

    def networks(self, model: LoadedModel, level: str) -> Networks:
        """Returns the checkpoint's networks for this Stable-Fast level.

        Compiled networks are kept until the level or the checkpoint changes. Requests without Stable-Fast do
        not affect them.
        """
        if level == "off":
            return Networks(model, level)
        if self._fast is None or self._fast.level != level or self._fast.model is not model:
            self._release_fast()
            if self._tuning_seconds and self.device.type == "cuda" and level_in_force(level)[0] == "graph":
                log.warning("--stable-fast-tune has no effect at level graph: there are no fused operations to time.")
            self._fast = Networks(model, level, self._tuning_seconds)
        return self._fast

    @property
    def stable_fast_report(self) -> Report | None:
        """Reports what Stable-Fast has done so far; None while it is off."""
        return self._fast.report if self._fast else None

    def _release_fast(self) -> None:
        if self._fast is not None:
            self._fast.release()
            self._fast = None

    def controlnet(self, model: LoadedModel, name: str) -> ControlNet:
        """Returns the ControlNet with this name. It is loaded once, and kept as long as the checkpoint."""
        path = self.folders.find("controlnet", name)
        key = stamp(path)
        if key not in self._controlnets:
            self._controlnets[key] = load_controlnet(
                path, model.spec, self.device, self.dtype, base=model.unet.pristine()
            )
        return self._controlnets[key]

    def upscaler(self, name: str) -> Upscaler:
        """Loads a pixel upscaler (such as ESRGAN) by file name or path."""
        path = self.folders.find("upscalers", name)
        network = load_rrdbnet(path, self.device) or load_with_spandrel(path, self.device)
        return upscaler_of(network, self.device, path.name)

    def free(self) -> None:
        """Releases the loaded models and their memory."""
        self._release_fast()
        self._model = None
        self._key = None
        self._loras.clear()
        self._controlnets.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def stamp(path: Path) -> tuple[Path, int]:
    """Distinguishes a file from a later one at the same path. Raises ModelFileError for a broken link."""
    try:
        return path, path.stat().st_mtime_ns
    except OSError as error:
        raise ModelFileError(f"{quoted(path)} cannot be read ({error.strerror}); check where the file is.") from error
