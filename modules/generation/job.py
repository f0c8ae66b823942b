"""Gathers what a request needs before the first step: its models, LoRAs, encoded prompts and pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from modules.controlnet.apply import AppliedAdapter, AppliedControl, ControlStack
from modules.controlnet.names import CONTROL_KINDS
from modules.controlnet.preprocess import make_hint
from modules.core.errors import LightDiffusionError, OptionsError, quoted
from modules.core.sizes import read_crop, read_original_size
from modules.generation.checks.not_finite import NotFinite, cause
from modules.generation.checks.request import check_request
from modules.generation.image_to_image import OpenedInit, Start, fit, inpaint_channels, open_source
from modules.generation.latents import decode_latents, encode_pictures
from modules.generation.memory.encoders import encoders_at_work
from modules.generation.metadata.lasting_names import hashes_of, with_lasting_names
from modules.generation.metadata.write import Hashes
from modules.generation.networks import Networks
from modules.generation.options import ControlChoice, GenerationOptions, ResolvedOptions
from modules.generation.pass_settings import noise_of
from modules.generation.prompts import PassPrompts, read_schedules, take_loras_out, tell_other_tags, without_loras
from modules.generation.session import Session
from modules.images.methods import OWN_METHODS
from modules.images.modes import to_8_bit
from modules.images.open import open_image
from modules.images.upscale import Upscaler
from modules.loader.checkpoint import LoadedModel
from modules.loader.detection.model_spec import ModelSpec
from modules.loader.patcher import ModelPatcher
from modules.loader.visit import visiting
from modules.models.controlnet import ControlNet
from modules.models.t2i_adapter import T2IAdapter
from modules.models.union_controlnet import UnionControlNet
from modules.sampling.names import resolve_sampler, uses_unconditional
from modules.sampling.trained_noise import NoiseSchedule
from modules.stable_fast import level_in_force
from modules.text.encode import EncodedText, encode_texts
from modules.text.size_vector import PictureSizes, SizeFeatures, size_features

log = logging.getLogger(__name__)

HIGHEST_CFG_PP = 2.0


@dataclass(frozen=True, kw_only=True)
class LoadedControl:
    """A ControlNet or T2I-Adapter of the request with its opened picture."""

    choice: ControlChoice
    network: ControlNet | T2IAdapter
    image: Image.Image


@dataclass(frozen=True, kw_only=True)
class Job:
    """A resolved request with loaded models and merged LoRAs."""

    options: ResolvedOptions
    session: Session
    model: LoadedModel
    networks: Networks
    unet: ModelPatcher
    prompts: Mapping[str, PassPrompts]  # keyed by the phase of the pass
    source: OpenedInit | None
    upscaler: Upscaler | None  # only for HiresFix with a model file
    controls: tuple[LoadedControl, ...]
    hashes: Hashes  # of the files named in the picture's metadata

    @property
    def device(self) -> torch.device:
        return self.session.device

    @property
    def dtype(self) -> torch.dtype:
        return self.session.dtype

    @property
    def noise(self) -> NoiseSchedule:
        return noise_of(self.model.spec)

    def batches(self) -> list[range]:
        """Returns the picture numbers of each batch."""
        size = self.options.batch
        return [range(start, start + size) for start in range(0, self.options.images, size)]

    def seeds(self, indices: range) -> list[int]:
        """Returns the seeds of these pictures."""
        return [self.options.seed + index for index in indices]

    def decode(self, latents: Tensor) -> Tensor:
        """Converts scaled latents to pictures [N, 3, H, W] in -1..1, on the autoencoder's device."""
        try:
            with visiting(self.model.vae, self.device):
                return decode_latents(self.model.vae, latents, self.networks.decode)
        except NotFinite as error:
            raise self._cause() from error

    def encode(self, images: Tensor) -> Tensor:
        """Converts pictures [N, 3, H, W] in -1..1 to scaled latents on the CPU."""
        try:
            with visiting(self.model.vae, self.device):
                return encode_pictures(self.model.vae, images, self.networks.encode)
        except NotFinite as error:
            raise self._cause() from error

    def _cause(self) -> LightDiffusionError:
        controls = {control.choice.name: control.network for control in self.controls}
        return cause(self.model, self.options, self.dtype, controls)

    def with_room(self) -> Job | None:
        """After memory ran out: the same job with more room on the GPU. None if there is no more room to make."""
        if not self.session.make_room():
            return None
        networks = self.session.networks(self.model, self.options.stable_fast)
        return replace(self, networks=networks, unet=networks.unet(self.unet))

    def start_at(self, width: int, height: int) -> Start | None:
        """Returns the start picture fitted to this size; None for text to image."""
        return fit(self.source, self.encode, width, height) if self.source else None

    def concat_for(self, latent: Tensor, start: Start | None) -> Tensor | None:
        """Returns the extra input channels of inpainting checkpoints, [1, 5, h, w]; None for other checkpoints."""
        if not self.model.spec.inpaint:
            return None
        height, width = (side * self.model.spec.vae.downscale for side in latent.shape[-2:])
        return inpaint_channels(self.encode, start, width, height)

    def sizes_for(self, latent: Tensor) -> SizeFeatures | None:
        """Returns what SDXL is told about the sizes of this latent's picture; None for a UNet that reads none."""
        spec = self.model.spec
        if spec.unet.vector_dim is None:
            return None
        height, width = (side * spec.vae.downscale for side in latent.shape[-2:])
        sizes = PictureSizes(
            target=(width, height),
            original=read_original_size(self.options.original_size) or (width, height),
            crop=read_crop(self.options.crop) or (0, 0),
        )
        pooled = sum(text.projection or 0 for text in spec.texts)
        return size_features(sizes, spec.unet.vector_dim - pooled, refiner=len(spec.texts) == 1)

    def control_for(self, latent: Tensor, conditional: int) -> ControlStack | None:
        """Fits the ControlNets' pictures to this latent's size; the first `conditional` rows belong to the prompt."""
        if not self.controls:
            return None
        height, width = (side * self.model.spec.vae.downscale for side in latent.shape[-2:])
        applied = [applied_control(control, width, height, self) for control in self.controls]
        noise = self.noise
        times = (noise.sigma_to_t(noise.sigma_max), noise.sigma_to_t(noise.sigma_min))
        return ControlStack(applied, conditional, times)


@torch.inference_mode()
def prepare_job(options: GenerationOptions, session: Session) -> Job:
    """Loads everything for the request; raises a LightDiffusionError when something is missing or does not fit."""
    check_request(options, session.folders)  # reports errors before minutes of loading
    tell_overdone(options)
    level_in_force(options.stable_fast)  # also reports an invalid level in the environment
    source = open_source(options.init) if options.init else None
    control_images = [to_8_bit(open_image(choice.image)) for choice in options.controls]
    upscaler = load_upscaler(options, session)  # reports a bad file now, not after the first pass
    model = session.model(options)
    tell_other_tags(options)
    tell_sizes(options, model.spec)
    prompt, choices = take_loras_out(options.prompt)
    texts = replace(options, prompt=prompt, negative_prompt=without_loras(options.negative_prompt))
    networks = session.networks(model, options.stable_fast)
    loras = options.loras + choices
    unet, text = session.patched(model, loras)
    named = with_lasting_names(options, session.folders)
    return Job(
        options=replace(named, checkpoint=options.checkpoint or model.name).resolved(model.spec.native_size),
        session=session,
        model=model,
        networks=networks,
        unet=networks.unet(unet),
        prompts=encoded_prompts(replace(texts, loras=loras), networks, text, session),
        source=source,
        upscaler=upscaler,
        hashes=hashes_of(options, session.folders, session.fingerprints),
        controls=tuple(
            LoadedControl(choice=choice, network=loaded_network(choice, model, session), image=image)
            for choice, image in zip(options.controls, control_images, strict=True)
        ),
    )


def encoded_prompts(
    options: GenerationOptions, networks: Networks, text: ModelPatcher, session: Session
) -> dict[str, PassPrompts]:
    """Encodes the prompts of each pass. All texts of a request are encoded together, so they have the same length.

    What was encoded lately is not encoded again. `options.loras` are those that `text` requests.
    """
    spec = networks.model.spec
    schedules = read_schedules(options, noise_of(spec))
    texts = tuple(dict.fromkeys(said for schedule in schedules.values() for said in schedule.texts))
    emphasis, skip = options.emphasis, options.clip_skip
    files = (session.text_changes(options.loras), session.embeddings.stamps(texts))

    def encode() -> dict[str, EncodedText]:
        with encoders_at_work(networks, text) as encoders:
            return encode_texts(
                encoders,
                spec.texts,
                texts,
                emphasis=emphasis,
                clip_skip=skip,
                embeddings=session.embeddings,
                tokenizer=session.tokenizer,
            )

    encoded = session.prompts.get((networks.level, texts, emphasis, skip, *files), encode)
    return {phase: PassPrompts(schedule=schedule, encoded=encoded) for phase, schedule in schedules.items()}


def loaded_network(choice: ControlChoice, model: LoadedModel, session: Session) -> ControlNet | T2IAdapter:
    """Returns the choice's network. Raises OptionsError if it has no such mode or kind."""
    network, name = session.controlnet(model, choice.name), quoted(choice.name)
    if isinstance(network, T2IAdapter) and choice.mode != "balanced":
        raise OptionsError(f"{name} is a T2I-Adapter, which only works in the ControlNet mode balanced.")
    if isinstance(network, UnionControlNet):
        known = [kind for kind, number in CONTROL_KINDS.items() if number < network.union.kinds]
        if choice.kind not in known:
            raise OptionsError(f"{name} is a union ControlNet: choose its control kind from {', '.join(known)}.")
        return network.of_kind(CONTROL_KINDS[choice.kind])
    if choice.kind is not None:
        raise OptionsError(f"{name} is not a union ControlNet: leave out its control kind {choice.kind}.")
    return network


def applied_control(control: LoadedControl, width: int, height: int, job: Job) -> AppliedControl | AppliedAdapter:
    choice, network = control.choice, control.network
    hint = make_hint(control.image, width, height, choice.preprocessor).to(job.device, job.dtype)
    if isinstance(network, T2IAdapter):
        return AppliedAdapter(features=network(hint), strength=choice.strength, start=choice.start, end=choice.end)
    return AppliedControl(
        network=job.networks.controlnet(network),
        hint=hint,
        strength=choice.strength,
        start=choice.start,
        end=choice.end,
        mode=choice.mode,
        in_channels=network.config.in_channels,
    )


def load_upscaler(options: GenerationOptions, session: Session) -> Upscaler | None:
    hires = options.hires
    if hires is None or hires.method in OWN_METHODS:
        return None
    return session.upscaler(hires.method)


def tell_overdone(options: GenerationOptions) -> None:
    """Warns about a guidance scale that is almost certainly a mistake."""
    if uses_unconditional(resolve_sampler(options.sampler).sampler) and options.cfg > HIGHEST_CFG_PP:
        log.warning("CFG++ samplers need a cfg from 0 to about 1; %g is too much.", options.cfg)


def tell_sizes(options: GenerationOptions, spec: ModelSpec) -> None:
    """Warns about sizes given to a checkpoint that does not read them."""
    given = [name for name, value in (("original size", options.original_size), ("crop", options.crop)) if value]
    if given and spec.unet.vector_dim is None:
        names = " and ".join(given).capitalize()
        log.warning("%s: no effect with a checkpoint of %s; only SDXL is told of sizes.", names, spec.family)
