#!/usr/bin/env bash
# Measures on NVIDIA GPUs, most wanted first; what time does not suffice for is left out. On two GPUs, each with half of
# the cores, torch.compile's max-autotune, which takes a quarter of an hour, has the first for itself; each subject is
# always compared with others on one GPU in one process. Wheels in .whl/ (diffusers, importlib_metadata,
# nvidia-cudnn-frontend) are installed if they are there. Results go to benchmarks/results/ and, packed and with logs, to
# $OUT. Where a machine allows only short commands, start this with setsid and LIMIT for the whole.
# Usage: LIMIT=1100 OUT=/tmp/out bash benchmarks/run_all_gpu.sh
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-/tmp/gpu-results}
DEADLINE=$((SECONDS + ${LIMIT:-1100}))
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 LIGHTDIFFUSION_CACHE=${LIGHTDIFFUSION_CACHE:-/tmp/lightdiffusion-cache}
# Where site-packages cannot be written to, Python would compile its sources at every start.
export PYTHONPYCACHEPREFIX=${PYTHONPYCACHEPREFIX:-/tmp/pycache}
unset PYTHONDONTWRITEBYTECODE
if ls .whl/*.whl >/dev/null 2>&1; then
  python3 -m pip install --quiet --no-deps --no-index --target /tmp/wheels .whl/*.whl
  export PYTHONPATH=/tmp/wheels
fi

# step NAME SECONDS COMMAND...: runs the command unless less than 15 seconds are left; never past the deadline.
step() {
  local name=$1 limit=$2 left=$((DEADLINE - SECONDS)) began=$SECONDS
  shift 2
  if [ "$left" -lt 15 ]; then echo "== $name: left out, no time"; return; fi
  [ "$limit" -gt "$left" ] && limit=$left
  TORCHINDUCTOR_CACHE_DIR=/tmp/inductor-$LANE timeout --foreground --signal=INT --kill-after=30 "$limit" taskset -c "$CORES" "$@" \
    >"/tmp/$name.log" 2>&1
  echo "== $name: status $?, $((SECONDS - began)) s of $limit, at $SECONDS"
  grep -aE "^[a-z-]+ +[0-9.]+ ms|first|passed|failed|^FAILED|^E  |rror:|MiB| s$" "/tmp/$name.log" | grep -av "^{" | cut -c1-200 | tail -16
  tar czf "$OUT/$LANE.tar.gz" benchmarks/results/*nvidia*.json -C /tmp "$name.log" 2>/dev/null
}

unet() { # unet NAME SECONDS SUBJECTS ARGUMENTS...
  local name=$1 limit=$2 subjects=$3
  shift 3
  step "$name" "$limit" python3 -m benchmarks.bench_unet --rounds 10 --steps 5 --subjects "$subjects" "$@"
}

BASELINES=diffusers,diffusers-channels-last,diffusers-regional

slow() { # what torch.compile's longest search needs, with time left to measure if it has to be interrupted
  unet unet-512 $((DEADLINE - SECONDS - 40)) \
    full,graph,fused,eager,$BASELINES,diffusers-reduce-overhead,diffusers-max-autotune
}

quick() { # everything else
  step compile-ours 130 python3 -m benchmarks.bench_compile --subjects full --limit 60
  step controlnet 90 python3 -m benchmarks.bench_networks controlnet --batch 2 --rounds 10 \
    --subjects eager,full,diffusers,diffusers-channels-last
  step picture 120 python3 -m benchmarks.bench_generate --rounds 8 --subjects full,off,diffusers,diffusers-regional
  unet sd21-768 90 full,$BASELINES --model sd21 --size 768
  unet unet-1024 90 full,$BASELINES --size 1024
  unet unet-b8 90 full,$BASELINES --batch 8
  step memory 60 python3 -m benchmarks.bench_memory --subjects eager,fused,full,diffusers
  step lora-switch 60 python3 -m benchmarks.bench_lora_switch
  step gpu-tests 200 python3 -m pytest -m gpu -q -n 3 -p no:cacheprovider --timeout 100 --tb=line -rf \
    --show-capture=no tests/stable_fast tests/generation tests/lora tests/loader tests/core tests/sampling/test_samplers.py
  step profile 30 python3 -m benchmarks.profile_unet --level full
  step vae $((DEADLINE - SECONDS - 30)) python3 -m benchmarks.bench_networks vae --rounds 10 \
    --subjects full,eager,diffusers,diffusers-channels-last,diffusers-max-autotune
}

GPUS=$(nvidia-smi -L | wc -l)
HALF=$(($(nproc) / 2))
lane() { # lane NAME GPU CORES
  export LANE=$1 CUDA_VISIBLE_DEVICES=$2 CORES=$3
  "$1"
}
if [ "$GPUS" -gt 1 ]; then
  (lane slow 0 "0-$((HALF - 1))") &
  (lane quick 1 "$HALF-$((2 * HALF - 1))") &
  wait
else
  (lane quick 0 "0-$(($(nproc) - 1))")
  (lane slow 0 "0-$(($(nproc) - 1))")
fi
echo "== done after $SECONDS s"
