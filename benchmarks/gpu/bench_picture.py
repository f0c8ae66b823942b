"""Times the steps of a picture and its VAE decoding, without text encoders and files: ours and diffusers'.

    python -m benchmarks.gpu.bench_picture --model sdxl --size 1024   # 30 steps Euler, guidance, every subject
    python -m benchmarks.gpu.bench_picture --device cpu --model sdxl --tiny --size 64 --picture-steps 2 --rounds 1

Weights are random. Each picture is prepared anew, as for a new prompt. diffusers' network runs at one timestep, which
costs the same. Subjects are timed in turn, as in bench_unet.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.bench_networks import VAEBench
from benchmarks.bench_unet import MODELS, Bench
from benchmarks.common import write_result
from benchmarks.side_by_side import Step, Subject, measure_all
from modules.core.runner import Conditioning
from modules.generation.eager_runner import EagerRunner
from modules.sampling.schedules import NoiseSchedule, make_sigmas
from modules.stable_fast import StableFastConfig, StableFastRunner

GUIDANCE = 7.0
MODES = {"diffusers": None, "diffusers-reduce-overhead": "reduce-overhead", "diffusers-max-autotune": "max-autotune"}
SUBJECTS = ("off", "full", *MODES)
Predict = Callable[[Tensor, float], Tensor]


class PictureBench:
    """Holds the networks and the schedule of all subjects."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.unet = Bench(arguments)
        pictures = argparse.Namespace(batch=len(self.unet.x), size=arguments.size)
        self.vae = VAEBench(pictures, self.unet.device, self.unet.dtype)
        schedule = NoiseSchedule()
        self.sigmas = make_sigmas(schedule, "normal", arguments.picture_steps, sampler="euler")
        self.timesteps = [schedule.sigma_to_t(sigma) for sigma in self.sigmas[:-1]]

    def subjects(self) -> dict[str, Callable[[], Step]]:
        levels = {level: lambda level=level: self.ours(level) for level in ("off", "full")}
        return levels | {name: lambda mode=mode: self.diffusers(mode) for name, mode in MODES.items()}

    def ours(self, level: str) -> Step:
        network, config = self.unet.unet, StableFastConfig(level=level, timed_against_eager=False)
        runner = EagerRunner(network) if level == "off" else StableFastRunner(network, config)
        decode = self.vae.subjects()["eager" if level == "off" else level]()

        def picture(noise: Tensor) -> Tensor:
            runner.prepare(Conditioning(texts=(self.unet.text,)), self.timesteps)
            return decode(self.sample(noise, runner.step))

        return picture

    def diffusers(self, mode: str | None) -> Step:
        layout = torch.channels_last if mode else torch.contiguous_format
        step = self.unet.diffusers(channels_last=bool(mode), mode=mode)()
        decode = self.vae.diffusers(layout, mode)
        return lambda noise: decode(self.sample(noise, lambda x, _: step(x)))

    def sample(self, noise: Tensor, predict: Predict) -> Tensor:
        """Euler's method with guidance. Returns the latent in the VAE's dtype."""
        x = noise * self.sigmas[0]
        for sigma, following, timestep in zip(self.sigmas, self.sigmas[1:], self.timesteps, strict=False):
            with_prompt, without = predict(x / (sigma**2 + 1) ** 0.5, timestep).float().chunk(2)
            x = x + (following - sigma) * torch.lerp(without, with_prompt, GUIDANCE)
        return x.to(self.unet.dtype)


@torch.inference_mode()
def run(arguments: argparse.Namespace) -> None:
    bench = PictureBench(arguments)
    makers = bench.subjects()
    subjects = [Subject(name, makers[name]) for name in arguments.subjects.split(",")]
    rows = measure_all(subjects, bench.unet.x, None, rounds=arguments.rounds, steps=1, budget=arguments.budget)
    model = f"{arguments.model}-tiny" if arguments.tiny else arguments.model
    write_result(f"picture-{model}-{arguments.size}", rows, arguments=vars(arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), help="default: float16 on a GPU")
    parser.add_argument("--model", choices=tuple(MODELS), default="sdxl")
    parser.add_argument("--tiny", action="store_true", help="a small UNet of the model's form, to try the script")
    parser.add_argument("--size", type=int, default=1024, help="pixels along one side")
    parser.add_argument("--picture-steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help="comma-separated")
    parser.add_argument("--budget", type=float, default=3600.0, help="seconds after which no subject is prepared")
    parser.set_defaults(batch=2, tuning_seconds=0.0)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
