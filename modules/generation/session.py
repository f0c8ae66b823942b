"""The session: keeps the loaded checkpoint, its LoRAs and the compiled networks between requests."""

from __future__ import annotations

import gc
import logging
from collections.abc import Hashable, Sequence
from itertools import pairwise
from pathlib import Path

import torch

from modules.controlnet.load import load_controlnet
from modules.core.device import choose_device, choose_dtype, release_memory
from modules.core.errors import ModelFileError, quoted
from modules.core.paths import ModelFolders
from modules.generation.checks.model_files import checkpoint_path, text_encoder_paths
from modules.generation.checks.refiner import require_same_latents, require_sdxl
from modules.generation.memory.latest import Latest
from modules.generation.metadata.named_files import Fingerprints
from modules.generation.networks import Networks, unet_at_home
from modules.generation.options import GenerationOptions, LoraChoice
from modules.images.upscale import Upscaler, load_with_spandrel, upscaler_of
from modules.loader.checkpoint import LoadedModel, load_checkpoint
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.patcher import ModelPatcher
from modules.loader.upscaler import load_rrdbnet
from modules.lora.apply import LoraPatches, add_lora, lora_patches
from modules.models.controlnet import ControlNet
from modules.models.t2i_adapter import T2IAdapter
from modules.stable_fast import Report, Table, check_card, level_in_force
from modules.text.embeddings import EmbeddingLibrary
from modules.text.encode import EncodedText
from modules.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)

MOST_LORAS = 8  # kept in memory, each with its matrices
MOST_PROMPTS = 32  # requests whose encoded prompts are kept


class Session:
    """Models on one device. Loading is lazy, and models that are already loaded cost nothing."""

    def __init__(
        self,
        folders: ModelFolders | None = None,
        *,
        device: str | None = None,
        dtype: str | None = None,
        tuning_seconds: float = 0.0,
        table: Table | None = None,
        memory: str | None = None,
        emulated: bool = False,
    ) -> None:
        """`tuning_seconds` limits how long Stable-Fast times its kernels for each network and new size. `table` has the
        fastest ones, measured elsewhere; raises OptionsError if that was on another card.

        `memory` ("auto", the default, "high" or "low") decides whether text encoder and VAE leave an NVIDIA GPU after
        their work (see modules/loader/placement.py). With `emulated`, products in eight bits are computed by plain
        PyTorch where the card has none, to compare pictures.
        """
        self.folders = folders or ModelFolders()
        self.device = choose_device(device)
        self.dtype = choose_dtype(self.device, dtype)
        if tuning_seconds and self.device.type != "cuda":
            log.warning("--stable-fast-tune has no effect on %s: it times the kernels of an NVIDIA GPU.", self.device)
        if memory in ("high", "low") and self.device.type != "cuda":
            log.warning("--memory has no effect on %s: it is about the memory of an NVIDIA GPU.", self.device)
        if table is not None:
            check_card(table, self.device)
        self._tuning_seconds, self._table, self.emulated = tuning_seconds, table, emulated
        self._memory = memory or "auto" if self.device.type == "cuda" else "high"
        self.embeddings = EmbeddingLibrary(self.folders)
        self.tokenizer = Tokenizer()
        self.fingerprints = Fingerprints()
        self._model: LoadedModel | None = None
        self._loras: Latest[LoraPatches] = Latest(MOST_LORAS)
        self.prompts: Latest[dict[str, EncodedText]] = Latest(MOST_PROMPTS)  # encoded
        self._vae_dtypes: dict[Hashable, torch.dtype] = {}  # of VAEs that have overflowed
        self._refiner: LoadedModel | None = None
        self.refines = False  # whether the latest request names a refiner
        self._fast: list[Networks] = []  # with Stable-Fast on: the checkpoint's, then the refiner's
        self._controlnets: dict[tuple[Path, int], ControlNet | T2IAdapter] = {}
        self._key: tuple[object, ...] | None = None
        self._vae_key: Hashable = None
        self._refiner_key: Hashable = None

    def model(self, options: GenerationOptions) -> LoadedModel:
        """Loads the request's checkpoint, or the default one; its weights are unmodified."""
        path = checkpoint_path(self.folders, options.checkpoint)
        vae = self.folders.find("vae", options.vae) if options.vae else None
        texts = text_encoder_paths(self.folders, options)
        at_home = unet_at_home(*how_fast(options), self.device)
        key = (*stamp(path), *(stamp(vae) if vae else ()), "text", *map(stamp, texts), options.prediction, at_home)
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
                vae_dtype=self._vae_dtypes.get(stamp(vae or path)),
                memory=self._memory,
                unet_at_home=at_home,
            )
            self._key, self._vae_key = key, stamp(vae or path)
            if self._memory == "auto" and self._model.away:
                log.warning("%s", away_line(self._model.away))
            tell_rescale(options, self._model.spec)
        return self._model

    def refiner(self, options: GenerationOptions, base: LoadedModel) -> LoadedModel | None:
        """Loads the request's refiner, if it has one. It is kept as long as the checkpoint, or until another is named.

        Its text encoder always leaves an NVIDIA GPU after its work, and its VAE never comes there.
        """
        self.refines = options.refiner is not None
        if options.refiner is None:
            return None
        require_sdxl(base.spec)
        path = self.folders.find("checkpoints", options.refiner)
        if self._refiner is None or self._refiner_key != stamp(path):
            self._free_refiner()
            log.info("Loading %s", path.name)
            memory = "low" if self.device.type == "cuda" else "high"
            home = unet_at_home(*how_fast(options), self.device)  # as the checkpoint's
            refiner = load_checkpoint(
                path, device=self.device, dtype=self.dtype, memory=memory, refiner=True, unet_at_home=home
            )
            self._refiner, self._refiner_key = refiner, stamp(path)
        require_same_latents(base.spec, self._refiner.spec)
        return self._refiner

    def _free_refiner(self) -> None:
        if self._refiner is not None:
            self._release_fast(of=self._refiner)
            self.prompts.clear()
            self._refiner = None
            gc.collect()
            release_memory(self.device)

    def patched(self, model: LoadedModel, loras: Sequence[LoraChoice]) -> tuple[ModelPatcher, ModelPatcher]:
        """Returns UNet and text encoder with exactly these LoRAs; earlier LoRAs are removed bit for bit.

        The text encoder takes them when it is next at work (`apply`), since the prompts may be known already.
        """
        unet, text = model.unet.clone(), model.text.clone()
        for choice in loras:
            patches = self._lora(model, choice.name)
            add_lora(patches, unet, text, strength=choice.strength, text_strength=choice.clip_strength)
        unet.apply()
        return unet, text

    def text_changes(self, loras: Sequence[LoraChoice]) -> Hashable:
        """Identifies how these LoRAs change the text encoder of the loaded checkpoint."""
        return tuple((stamp(self.folders.find("loras", lora.name)), lora.clip_strength) for lora in loras)

    def _lora(self, model: LoadedModel, name: str) -> LoraPatches:
        """Returns a LoRA's patches, cached if recently used: the same patch objects need not be merged again."""
        path = self.folders.find("loras", name)
        return self._loras.get(stamp(path), lambda: lora_patches(path, model.unet, model.text, model.spec))

    def networks(self, model: LoadedModel, level: str, precision: str = "off") -> Networks:
        """Returns the networks of the checkpoint, or of its refiner, for this Stable-Fast level and precision.

        Compiled networks are kept until one of these or the checkpoint changes. Requests without Stable-Fast do
        not affect them.
        """
        if level == "off":
            if precision != "off":
                log.warning("--stable-fast-precision has no effect without Stable-Fast: give --stable-fast too.")
            return Networks(model, level)
        if any((kept.level, kept.precision, kept.emulated) != (level, precision, self.emulated) for kept in self._fast):
            self._release_fast()
        fast = next((kept for kept in self._fast if kept.model is model), None)
        if fast is None:
            if self.device.type == "cuda" and level_in_force(level)[0] == "graph":
                self._tell_unfused()
            fast = Networks(model, level, self._tuning_seconds, self._table, precision, emulated=self.emulated)
            self._fast.append(fast)
        return fast

    def _tell_unfused(self) -> None:
        for option, given in (("tune", self._tuning_seconds), ("table", self._table)):
            if given:
                log.warning(
                    "--stable-fast-%s has no effect at level graph: there are no fused operations to time.", option
                )

    @property
    def stable_fast_report(self) -> Report | None:
        """Reports what Stable-Fast has done so far, with the refiner as a part; None while it is off."""
        reports = [report for kept in self._fast if (report := kept.report) is not None]
        for report, refiner in pairwise(reports):
            report.parts = {**report.parts, "refiner": refiner}
        return reports[0] if reports else None

    def _release_fast(self, of: LoadedModel | None = None) -> None:
        """Frees what was compiled, of this checkpoint or of all."""
        released = [kept for kept in self._fast if of is None or kept.model is of]
        self._fast = [kept for kept in self._fast if kept not in released]
        for networks in released:
            networks.release()

    def controlnet(self, model: LoadedModel, name: str) -> ControlNet | T2IAdapter:
        """Returns this ControlNet or T2I-Adapter. It is loaded once, and kept as long as the checkpoint."""
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

    @torch.inference_mode()  # as the weights were loaded
    def make_room(self) -> bool:
        """After memory ran out on the GPU: text encoder and VAE leave it, if they may; what was compiled is freed.

        A refiner that the latest request does not name is freed before that. Ask for the `networks` again afterwards.
        Returns False if there is no more room to make.
        """
        if self._refiner is not None and not self.refines:
            self._free_refiner()
            return True
        if self._memory == "high" or self._model is None:
            return False
        leaves, compiled = self._model.make_room(), bool(self._fast)
        self._release_fast()
        release_memory(self.device)
        if leaves:
            self._loras.clear()  # their matrices are on the GPU
            log.warning("%s", away_line(self._model.away))
        elif compiled:
            log.warning("GPU memory ran out, so what Stable-Fast compiled is freed and compiled again.")
        return leaves or compiled

    def free(self) -> None:
        """Releases the loaded models and their memory."""
        self._release_fast()
        if self._model is not None:
            self._vae_dtypes[self._vae_key] = next(self._model.vae.parameters()).dtype
        self._model = self._refiner = None
        self._key = None
        self._loras.clear()
        self.prompts.clear()
        self._controlnets.clear()
        gc.collect()
        release_memory(self.device)


def how_fast(options: GenerationOptions) -> tuple[str, str]:
    """The Stable-Fast level and precision of a request, for `Session.networks`."""
    return options.stable_fast, options.stable_fast_precision


def away_line(names: Sequence[str]) -> str:
    """Tells which networks are not kept on the GPU."""
    return (
        f"GPU memory is short, so the {' and the '.join(names)} {'is' if len(names) == 1 else 'are'} there only while "
        "at work; --memory high keeps everything there."
    )


def tell_rescale(options: GenerationOptions, spec: ModelSpec) -> None:
    """Offers rescaled guidance for a checkpoint that guidance makes glaring (Lin et al. 2023, section 3.4)."""
    if spec.prediction == "v" and spec.zero_terminal_snr and options.cfg > 1 and not options.rescale_cfg:
        log.warning(
            "This checkpoint predicts velocity from pure noise on, and --cfg %g can make its pictures glaring. "
            "Give --rescale-cfg 0.7 to take that back.",
            options.cfg,
        )


def stamp(path: Path) -> tuple[Path, int]:
    """Distinguishes a file from a later one at the same path. Raises ModelFileError for a broken link."""
    try:
        return path, path.stat().st_mtime_ns
    except OSError as error:
        raise ModelFileError(f"{quoted(path)} cannot be read ({error.strerror}); check where the file is.") from error
