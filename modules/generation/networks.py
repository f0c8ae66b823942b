"""Runs a checkpoint's networks at one Stable-Fast level: UNet, text encoder, VAE, ControlNets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modules.core.device import release_memory
from modules.loader.checkpoint import LoadedModel
from modules.loader.patcher import ModelPatcher
from modules.loader.placement import TEXT, VAE
from modules.models.controlnet import ControlNet
from modules.models.vae import AutoencoderKL
from modules.stable_fast import (
    CompiledModule,
    Report,
    SharedCapture,
    StableFastConfig,
    StableFastPatcher,
    Table,
    adjoin_projections,
    level_in_force,
    stores_weights,
)

# On a CPU, only networks that run for long are worth tracing: text and VAE encoders finish sooner than compilation.
WORTH_IT_ON_CPU = ("VAE decoder", "ControlNet")
CONTROL_BINDINGS = {"hint": "prompt", "timesteps": "time", "context": "prompt", "vector": "prompt"}
CONTROL_DIMS = {
    "x": ("batch", None, "8*height", "8*width"),
    "hint": ("batch", None, "64*height", "64*width"),
    "timesteps": ("batch",),
    "context": ("batch", "tokens", None),
}
VECTOR_DIMS = {"vector": ("batch", None)}


def unet_at_home(level: str, precision: str, device: torch.device) -> bool:
    """Whether the UNet stays in the computer's memory, and only its weights in eight bits come to the GPU."""
    return device.type == "cuda" and stores_weights(precision) and level_in_force(level)[0].fused


class Networks:
    """The networks of one loaded checkpoint at one level. Each is compiled on first use, if it lives on the device.

    A network that comes to the device only to work runs eagerly: what was compiled would be lost each time it leaves.
    """

    def __init__(
        self,
        model: LoadedModel,
        level: str,
        tuning_seconds: float = 0.0,
        table: Table | None = None,
        precision: str = "off",
        *,
        emulated: bool = False,
    ) -> None:
        """`precision` holds for the networks that run in each step: UNet and ControlNets; `emulated`, for the UNet.

        A precision that is about stored weights holds for the UNet, which then lives elsewhere (`unet_at_home`).
        """
        self.model = model
        self.level, self.precision, self.emulated = level, precision, emulated
        self._capture_on = SharedCapture()
        self._choosing: dict[str, Any] = {"tuning_seconds": tuning_seconds, "table": table}
        self._patcher = StableFastPatcher(
            StableFastConfig(
                level=level,
                precision=precision,
                emulated=emulated,
                timed_against_eager=not stores_weights(precision),
                **self._choosing,
            ),
            self._capture_on,
        )
        self._parts: dict[str, CompiledModule] = {}
        self._controls: dict[ControlNet, Callable[..., tuple[Tensor, ...]]] = {}
        self._on_cpu = model.unet.load_device.type == "cpu"
        self._adjoin(model.unet.module)
        self.has_decoded = False  # once a picture was finite, the next ones need not be waited for
        self.decode: Callable[[Tensor], Tensor] = model.vae.decode
        self.encode: Callable[[Tensor], Tensor] = model.vae.encode
        if self._compiles("VAE decoder") and VAE not in model.away:
            dims = {"latent": ("batch", None, "height", "width")}
            self.decode = self._compiled("VAE decoder", VaeDecode(model.vae).eval(), dims=dims)
        if self._compiles("VAE encoder") and VAE not in model.away:
            dims = {"image": ("batch", None, "8*height", "8*width")}
            self.encode = self._compiled("VAE encoder", VaeEncode(model.vae).eval(), dims=dims)
        self.texts: dict[str, Any] = dict(model.text.module.named_children())
        if self._compiles("text encoder") and TEXT not in model.away:
            self.texts = {name: self._fast_text(name, encoder) for name, encoder in self.texts.items()}
            model.text.on_weights_changed.append(self._refresh_texts)

    def _fast_text(self, name: str, encoder: Any) -> FastTextEncoder:
        dims = {"embeddings": ("batch", None, None)} | ({"ends": ("batch",)} if encoder.config.projection else {})
        return FastTextEncoder(encoder, self._compiled(f"text encoder {name}", encoder, dims=dims))

    def _refresh_texts(self, changed: set[str] | None) -> None:
        """Passes changed weights on to the encoder that they belong to."""
        for name in self.texts:
            prefix = f"{name}."
            own = changed and {weight.removeprefix(prefix) for weight in changed if weight.startswith(prefix)}
            if changed is None or own:
                self._parts[f"text encoder {name}"].refresh_weights(own)

    def _compiles(self, kind: str) -> bool:
        return self.level != "off" and (not self._on_cpu or kind in WORTH_IT_ON_CPU)

    def _adjoin(self, network: nn.Module) -> None:
        """On a GPU, lets compiled programs stack weights without copying them."""
        if level_in_force(self.level)[0].fused and next(network.parameters()).is_cuda:
            adjoin_projections(network)
            release_memory(next(network.parameters()).device)

    def _compiled(self, name: str, module: nn.Module, **how: Any) -> CompiledModule:
        how |= {"capture_on": self._capture_on, **self._choosing}
        self._parts[name] = CompiledModule(module, level=self.level, **how)
        return self._parts[name]

    def unet(self, unet: ModelPatcher) -> ModelPatcher:
        """Returns the UNet with its LoRAs, accelerated unless Stable-Fast is off."""
        return self._patcher.apply(unet)

    def controlnet(self, network: ControlNet) -> Callable[..., tuple[Tensor, ...]]:
        """Returns the network for AppliedControl to call. It is compiled once, however often it is applied."""
        if not self._compiles("ControlNet"):
            return network
        if network not in self._controls:
            name = f"ControlNet {len(self._controls) + 1}"
            self._adjoin(network)
            dims = CONTROL_DIMS | (VECTOR_DIMS if network.config.vector_dim else {})
            precision = "off" if stores_weights(self.precision) else self.precision
            compiled = self._compiled(name, network, bindings=CONTROL_BINDINGS, dims=dims, precision=precision)
            self._controls[network] = FastControlNet(compiled)
        return self._controls[network]

    @property
    def report(self) -> Report | None:
        """Reports what Stable-Fast has done so far; None while it is off."""
        report = self._patcher.runner.report if self._patcher.runner else None
        if report is not None:
            report.parts = {name: part.report for name, part in self._parts.items()}
        return report

    def release(self) -> None:
        """Frees everything that was compiled and stops listening for weight changes."""
        self._patcher.release()
        if self._refresh_texts in self.model.text.on_weights_changed:
            self.model.text.on_weights_changed.remove(self._refresh_texts)
        for part in self._parts.values():
            part.release()
        self._parts.clear()
        self._controls.clear()


class VaeDecode(nn.Module):
    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        return self.vae.decode(latent)


class VaeEncode(nn.Module):
    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor) -> Tensor:
        return self.vae.encode(image)


class FastTextEncoder:
    """A compiled text encoder with the methods needed for encoding. The token lookup is not compiled."""

    def __init__(self, module: nn.Module, compiled: CompiledModule) -> None:
        self._module: Any = module
        self._compiled = compiled

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self._module.embed_tokens(ids)

    def __call__(self, embeddings: Tensor, skip: int = 0, **ends: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Encodes 1, 2, 4, 8, ... rows, since a graph is captured for each number: the last row is repeated."""
        rows = embeddings.shape[0]
        places = torch.arange(1 << (rows - 1).bit_length(), device=embeddings.device).clamp(max=rows - 1)
        output = self._compiled(embeddings[places], skip=skip, **{name: end[places] for name, end in ends.items()})
        return (output[0][:rows], output[1][:rows]) if isinstance(output, tuple) else output[:rows]


class FastControlNet:
    """A compiled ControlNet. It prepares each hint once per text."""

    def __init__(self, compiled: CompiledModule) -> None:
        self._compiled = compiled
        # References to the tensors are kept, so that their memory is not reused in the meantime.
        self._hint: Tensor | None = None
        self._layout = torch.empty(0)  # the hint in the memory layout of the compiled program
        self._texts: list[dict[str, Tensor]] = []

    def __call__(
        self, x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, vector: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        text = {"context": context} if vector is None else {"context": context, "vector": vector}
        dense = {name: tensor.contiguous() for name, tensor in text.items()}
        if self._hint is None or _place(hint) != _place(self._hint):
            self._hint, self._texts = hint, [text]
            self._layout = hint.contiguous(memory_format=torch.channels_last)
            self._compiled.prepare(hint=self._layout, **dense)
        else:
            self._compiled.switch(self._number(text), hint=self._layout, **dense)
        return self._compiled(x, timesteps=timesteps)

    def _number(self, text: dict[str, Tensor]) -> int:
        """Returns this text's number among those seen so far; adds a new one."""
        places = [_places(known) for known in self._texts]
        if _places(text) not in places:
            self._texts.append(text)
            places.append(_places(text))
        return places.index(_places(text))


def _places(text: dict[str, Tensor]) -> list[tuple[Any, ...]]:
    return [_place(tensor) for tensor in text.values()]


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
