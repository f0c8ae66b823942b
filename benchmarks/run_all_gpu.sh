#!/usr/bin/env bash
# Measures on NVIDIA GPUs, in one call of at most ten minutes, most wanted first; what time does not suffice for is left out.
# On two GPUs torch.compile's max-autotune, which takes minutes, has the first for itself; each subject is always compared
# with others on one GPU in one process. Wheels in .whl/ (diffusers, importlib_metadata, nvidia-cudnn-frontend) are
# installed if they are there. Results go to benchmarks/results/ and, packed and with logs, to $OUT.
# Usage: LIMIT=580 OUT=/tmp/out bash benchmarks/run_all_gpu.sh
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-/tmp/gpu-results}
DEADLINE=$((SECONDS + ${LIMIT:-580}))
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
  timeout --signal=INT --kill-after=5 "$limit" "$@" >"/tmp/$name.log" 2>&1
  echo "== $name: status $?, $((SECONDS - began)) s of $limit, at $SECONDS"
  grep -aE "^[a-z-]+ +[0-9.]+ ms|first|passed|failed|^FAILED|^E  |rror:|MiB| s$" "/tmp/$name.log" | grep -av "^{" | cut -c1-200 | tail -16
  tar czf "$OUT/$LANE.tar.gz" benchmarks/results/*nvidia*.json -C /tmp "$name.log" 2>/dev/null
}

unet() { # unet NAME SECONDS BUDGET SUBJECTS ARGUMENTS...
  local name=$1 limit=$2 budget=$3 subjects=$4
  shift 4
  step "$name" "$limit" python3 -m benchmarks.bench_unet --rounds 10 --steps 5 --budget "$budget" --subjects "$subjects" "$@"
}

BASELINES=diffusers,diffusers-channels-last,diffusers-regional

slow() { # what torch.compile's longest search needs
  LANE=slow
  step memory 45 python3 -m benchmarks.bench_memory --subjects eager,fused,full,diffusers
  step vae 150 python3 -m benchmarks.bench_networks vae --rounds 10 \
    --subjects full,eager,diffusers,diffusers-channels-last,diffusers-max-autotune
  unet unet-autotune 580 500 full,diffusers-max-autotune --suffix max-autotune
}

quick() { # everything else
  LANE=quick
  [ "$GPUS" -gt 1 ] && step gpu-tests 110 python3 -m pytest -m gpu -q -n 5 -p no:cacheprovider --timeout 100 --tb=line \
    --show-capture=no tests/stable_fast tests/generation tests/lora tests/loader tests/core tests/sampling/test_samplers.py
  unet unet-512 130 60 full,fused,graph,eager,$BASELINES,diffusers-reduce-overhead
  step compile-ours 60 python3 -m benchmarks.bench_compile --subjects full --limit 45
  step picture 70 python3 -m benchmarks.bench_generate --rounds 8 --budget 40 --subjects full,diffusers,off
  unet unet-1024 60 40 full,$BASELINES --size 1024
  unet unet-b8 60 40 full,$BASELINES --batch 8
  unet sd21-768 60 40 full,$BASELINES --model sd21 --size 768
  step controlnet 45 python3 -m benchmarks.bench_networks controlnet --batch 2 --rounds 10
  step lora-switch 45 python3 -m benchmarks.bench_lora_switch
  step profile 25 python3 -m benchmarks.profile_unet --level full
}

GPUS=$(nvidia-smi -L | wc -l)
if [ "$GPUS" -gt 1 ]; then
  CUDA_VISIBLE_DEVICES=0 slow &
  CUDA_VISIBLE_DEVICES=1 quick &
  wait
else
  quick
  slow
fi
echo "== done after $SECONDS s"
