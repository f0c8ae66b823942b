r"""Shows where the GPU idles while many clients share batches: kernels by phase, gaps between them, CPU time by thread.

    python -m benchmarks.serving.profile_server                              # 20 steps with guidance, then 4 without
    python -m benchmarks.serving.profile_server --loads 4:1 --clients 16
    python -m benchmarks.serving.profile_server --device cpu --tiny --size 256 --loads 2:1 --clients 4   # to try it

The load is that of `bench_server`. Each load runs warm and unprofiled, shared and one by one, for pictures per second.
Then it runs shared under the profiler. A phase is a function of ours (timeline.py). A kernel belongs to the phase
that launched it. For each longer gap the phases and Python lines of the generation thread are told. At last, what each
place that waits for the GPU is. With $OUT set, all figures go there as JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench_generate import project
from benchmarks.serving.bench_server import Load, Serve, our_queue
from benchmarks.serving.timeline import Lines, cpu_by_thread, phases, spans, timeline, waits, watch_phases
from modules.generation.options import GenerationOptions
from modules.generation.session import Session


def studied(session: Session, root: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs one load in all ways."""
    clients, pictures = arguments.clients, arguments.pictures * (1 if arguments.steps > 8 else 2)
    found: dict[str, Any] = {"steps": arguments.steps, "cfg": arguments.cfg}
    print(f"== {arguments.steps} steps, cfg {arguments.cfg}, {clients} clients", flush=True)
    for label, most in (("one-by-one", 1), ("together", arguments.most_together)):
        with our_queue(session, root / label, arguments, most) as serve:
            for _ in range(1 if most == 1 else 2):
                Load(serve, clients, 2 * clients if most > 1 else clients).run()  # compiles and captures
            found[label] = plain_run(label, serve, clients, pictures)
            if most > 1 and torch.cuda.is_available():
                found |= profiled_run(serve, clients)
    ratio = found["together"]["row"]["pictures_per_second"] / found["one-by-one"]["row"]["pictures_per_second"]
    print(f" together, {ratio:.2f} times the pictures of one by one", flush=True)
    return found


def plain_run(label: str, serve: Serve, clients: int, pictures: int) -> dict[str, Any]:
    spans.clear()
    before = cpu_by_thread()
    row = Load(serve, clients, pictures).run().row()
    cpu = {kind: round((s - before[kind]) * 1000 / pictures, 2) for kind, s in cpu_by_thread().items()}
    print(f"{label}: {row['pictures_per_second']:.2f} pictures/s, p50 {row['p50_seconds']:.3f} s")
    print(f" CPU ms a picture by thread: {cpu}")
    return {"row": row, "cpu_ms": cpu, "phases": phases(pictures)}


def profiled_run(serve: Serve, clients: int) -> dict[str, Any]:
    spans.clear()
    lines = Lines()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        lines.start()
        Load(serve, clients, 3 * clients).run()
        lines.over.set()
        lines.join()
        torch.cuda.synchronize()
    late = sorted(lines.late_ms)
    median, most = late[len(late) // 2], late[int(0.95 * len(late))]
    print(f" profiled, {3 * clients} pictures; a thread got the GIL {median:.2f} ms late (median), {most:.2f} (95 %)")
    found = timeline(recorded, lines)
    with waits() as places:
        Load(serve, clients, clients).run()
    for place, count in places.most_common(20):
        print(f"   waits {count:4} x {place}")
    return {"timeline": found, "waits": places}


@torch.inference_mode()
def vae_alone(session: Session, arguments: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Times the VAE at 1 to 8 pictures, on the GPU and on the host."""
    found: dict[str, tuple[float, float]] = {}
    model = session.model(GenerationOptions(prompt=""))
    decode = session.networks(model, arguments.stable_fast).decode
    for rows in (1, 2, 4, 8):
        latent = torch.randn(rows, 4, arguments.size // 8, arguments.size // 8, device=session.device).to(session.dtype)
        for _ in range(3):
            decode(latent)
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(10):
            decode(latent)
        host = (time.perf_counter() - began) * 100
        torch.cuda.synchronize()
        found[f"{rows}: ms, host ms"] = ((time.perf_counter() - began) * 100, host)
    return found


def png_alone(size: int) -> dict[str, tuple[float, float]]:
    """Times a PNG of noise, as random weights make it, by level of compression: ms and KiB."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))
    found: dict[str, tuple[float, float]] = {}
    for level in (1, 2, 4, 6):
        buffer = io.BytesIO()
        began = time.perf_counter()
        image.save(buffer, "PNG", compress_level=level)
        found[f"level {level}"] = ((time.perf_counter() - began) * 1000, len(buffer.getvalue()) / 1024)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small random networks, to try the script")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--loads", default="20:7,4:1", help="steps:cfg, comma-separated")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=48, help="of each load; twice as many with up to 8 steps")
    parser.add_argument("--stable-fast", default="full")
    parser.add_argument("--most-together", type=int, default=8)
    arguments = parser.parse_args()
    arguments.checkpoint, arguments.gather_ms = None, 0.0
    watch_phases()
    with tempfile.TemporaryDirectory() as folder:
        session = Session(project(Path(folder), tiny=arguments.tiny), device=arguments.device)
        found: list[dict[str, Any]] = []
        for load in arguments.loads.split(","):
            steps, cfg = load.split(":")
            arguments.steps, arguments.cfg = int(steps), float(cfg)
            found.append(studied(session, Path(folder) / load.replace(":", "-"), arguments))
        alone: dict[str, Any] = {"png": png_alone(arguments.size)}
        if torch.cuda.is_available():
            alone["vae"] = vae_alone(session, arguments)
        print("alone:", json.dumps(alone))
    if os.environ.get("OUT"):
        Path(os.environ["OUT"], "profile-server.json").write_text(
            json.dumps({"loads": found, "alone": alone}, indent=1)
        )


if __name__ == "__main__":
    main()
