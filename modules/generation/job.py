"""Gathers what a request needs before the first step: its models, LoRAs, encoded prompts and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from modules.controlnet.apply import AppliedAdapter, AppliedControl, ControlStack
from modules.controlnet.names import CONTROL_KINDS
from modules.controlnet.preprocess import make_hint
from modules.core.errors import LightDiffusionError, OptionsError, quoted
from modules.core.paths import each_folder_once
from modules.core.sizes import read_crop, read_original_size
from modules.generation.checks.not_finite import NotFinite, cause
from modules.generation.checks.request import check_prompts, check_spelled_out
from modules.generation.checks.told import tell_overdone, tell_refiner, tell_sizes, tell_skipping
from modules.generation.checks.too_large import check_fits_cpu
from modules.generation.encode_prompts import Schedules, encode_prompts
from modules.generation.image_to_image import (
    OpenedInit,
    Start,
    fit,
    inpaint_channels,
    open_source,
    with_extended_size,
)
from modules.generation.latents import decode_latents, decode_unchecked, encode_pictures
from modules.generation.metadata.lasting_names import hashes_of, with_lasting_names
from modules.generation.metadata.write import Hashes
from modules.generation.networks import Networks
from modules.generation.options import ControlChoice, GenerationOptions, ResolvedOptions
from modules.generation.pass_settings import noise_of
from modules.generation.prompts import PassPrompts, read_schedules, take_loras_out, tell_other_tags, without_loras
from modules.generation.session import Session, how_fast
from modules.images.in_flight import PixelsInFlight
from modules.images.methods import OWN_METHODS
from modules.images.modes import to_8_bit
from modules.images.open import open_image
from modules.images.upscale import Upscaler
from modules.loader.checkpoint import LoadedModel
from modules.loader.patcher import ModelPatcher
from modules.loader.visit import visiting
from modules.models.controlnet import ControlNet
from modules.models.t2i_adapter import T2IAdapter
from modules.models.union_controlnet import UnionControlNet
from modules.sampling.trained_noise import NoiseSchedule
from modules.stable_fast import level_in_force
from modules.text.size_vector import PictureSizes, SizeFeatures, size_features


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
    upscaler: Upscaler | None  # only for HiresFix and tiles with a model file
    controls: tuple[LoadedControl, ...]
    hashes: Hashes  # of the files named in the picture's metadata
    refiner: Job | None = None  # the same job on the refiner's networks, for the last steps

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
                pictures = decode_latents(self.model.vae, latents, self.networks.decode)
        except NotFinite as error:
            raise self._cause() from error
        self.networks.has_decoded = True
        return pictures

    def decode_soon(self, latent: Tensor) -> PixelsInFlight:
        """Decodes a scaled latent [1, C, h, w] without waiting for the GPU. Overflows are noticed, not repaired."""
        with visiting(self.model.vae, self.device):
            return PixelsInFlight(decode_unchecked(self.model.vae, latent, self.networks.decode))

    def encode(self, images: Tensor) -> Tensor:
        """Converts pictures [N, 3, H, W] in -1..1 to scaled latents on the CPU."""
        try:
            with visiting(self.model.vae, self.device):
                return encode_pictures(self.model.vae, images, self.networks.encode)
        except NotFinite as error:
            raise self._cause() from error

    def _cause(self) -> LightDiffusionError:
        controls = {control.choice.name: control.network for control in self.controls}
        refiner = self.refiner and self.refiner.model
        return cause(self.model, self.options, self.dtype, controls, refiner)

    def with_room(self) -> Job | None:
        """After memory ran out: the same job with more room on the GPU. None if there is no more room to make."""
        return self._renewed() if self.session.make_room() else None

    def _renewed(self) -> Job:
        networks = self.session.networks(self.model, *how_fast(self.options))
        refiner = self.refiner and self.refiner._renewed()
        return replace(self, networks=networks, unet=networks.unet(self.unet), refiner=refiner)

    def start_at(self, width: int, height: int) -> Start | None:
        """Returns the start picture fitted to this size; None for text to image."""
        return fit(self.source, self.encode, width, height) if self.source else None

    def masked_start_at(self, width: int, height: int) -> Start | None:
        """Works like `start_at` with a mask. Without one, only the first pass needs the picture: returns None."""
        return self.start_at(width, height) if self.source and self.source.mask else None

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


def prepare_job(options: GenerationOptions, session: Session) -> Job:
    """Loads everything for a request whose prompts are spelled out (see `prepare_jobs`)."""
    (job,) = prepare_jobs([options], session)
    return job


@torch.inference_mode()
@each_folder_once()
def prepare_jobs(requests: Sequence[GenerationOptions], session: Session) -> list[Job]:
    """Loads everything for requests that agree in all but prompts, seeds and number. Their prompts are spelled out.

    What they have in common is loaded once, and their prompts are encoded together. Raises a LightDiffusionError when
    something is missing or does not fit, also if it is in one of the prompts.
    """
    first = requests[0]
    check_spelled_out(first, session.folders)  # reports errors before minutes of loading
    check_prompts(requests, session.folders)
    tell_overdone(first)
    tell_skipping(first)
    level_in_force(first.stable_fast)  # also reports an invalid level in the environment
    source = open_source(first.init) if first.init else None
    control_images = [to_8_bit(open_image(choice.image)) for choice in first.controls]
    upscaler = load_upscaler(first, session)  # reports a bad file now, not after the first pass
    if source is not None and first.tiled is not None:
        source = source.enlarged(first.tiled, upscaler)
    model = session.model(first)
    tell_sizes(first, model.spec)
    networks = session.networks(model, *how_fast(first))
    common = replace(first, loras=first.loras + take_loras_out(first.prompt)[1])
    unet, text = session.patched(model, common.loras)
    resolved = [resolve(with_extended_size(options, source), model, session) for options in requests]
    check_fits_cpu(resolved[0], model.spec, session.device, session.dtype)
    schedules = [read_schedules(without_tags(options), noise_of(model.spec)) for options in requests]
    base = Job(
        options=resolved[0],
        session=session,
        model=model,
        networks=networks,
        unet=networks.unet(unet),
        prompts={},
        source=source and source.with_region(resolved[0].width, resolved[0].height),
        upscaler=upscaler,
        hashes={},
        controls=tuple(
            LoadedControl(choice=choice, network=loaded_network(choice, model, session), image=image)
            for choice, image in zip(first.controls, control_images, strict=True)
        ),
    )
    prompts = encode_prompts(schedules, common, networks, text, session)
    jobs = [
        replace(base, options=own, prompts=said, hashes=hashes_of(options, session.folders, session.fingerprints))
        for options, own, said in zip(requests, resolved, prompts, strict=True)
    ]
    return with_refiners(jobs, schedules, common)


def resolve(options: GenerationOptions, model: LoadedModel, session: Session) -> ResolvedOptions:
    """Decides what the request leaves open, and names its files so that they are found again."""
    named = with_lasting_names(options, session.folders)
    return replace(named, checkpoint=options.checkpoint or model.name).resolved(model.spec.native_size)


def without_tags(options: GenerationOptions) -> GenerationOptions:
    """Returns the request without tags in its prompts. Warns about those without effect."""
    tell_other_tags(options)
    prompt, _ = take_loras_out(options.prompt)
    return replace(options, prompt=prompt, negative_prompt=without_loras(options.negative_prompt))


def with_refiners(jobs: Sequence[Job], schedules: Sequence[Schedules], common: GenerationOptions) -> list[Job]:
    """Gives each job the same job on the refiner's networks, without LoRAs and ControlNets, if there is a refiner."""
    job, session = jobs[0], jobs[0].session
    model = session.refiner(common, job.model)
    if model is None:
        return list(jobs)
    tell_refiner(replace(job.options, loras=common.loras), steps=len(list(schedules[0].values())[-1].negative))
    networks = session.networks(model, *how_fast(common))
    unet = networks.unet(model.unet)
    prompts = encode_prompts(schedules, replace(common, loras=()), networks, model.text, session)
    return [
        replace(each, refiner=replace(each, model=model, networks=networks, unet=unet, prompts=said, controls=()))
        for each, said in zip(jobs, prompts, strict=True)
    ]


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
    images = job.source.parts_of(control.image, width, height) if job.source else [control.image]
    hints = [make_hint(image, width, height, choice.preprocessor) for image in images]
    hint = torch.cat(hints).to(job.device, job.dtype)
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
    enlarged = options.hires or options.tiled
    if enlarged is None or enlarged.method in OWN_METHODS:
        return None
    return session.upscaler(enlarged.method)
