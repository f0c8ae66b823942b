#!/usr/bin/env bash
# Measures on one NVIDIA GPU, in one call of at most ten minutes, most wanted first; what time does not suffice for is left out.
# Wheels in .whl/ (diffusers, importlib_metadata, nvidia-cudnn-frontend) are installed if they are there. Results go to
# benchmarks/results/ and, with logs, to $OUT. Usage: OUT=/tmp/out bash benchmarks/run_all_gpu.sh
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-/tmp/gpu-results}
DEADLINE=$((SECONDS + ${LIMIT:-580}))
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 LIGHTDIFFUSION_CACHE=${LIGHTDIFFUSION_CACHE:-/tmp/lightdiffusion-cache}
ls .whl/*.whl >/dev/null 2>&1 && python3 -m pip install --quiet --no-deps --no-index .whl/*.whl

# step NAME SECONDS COMMAND...: runs the command unless less than 15 seconds are left; never past the deadline.
step() {
  local name=$1 limit=$2 left=$((DEADLINE - SECONDS))
  shift 2
  if [ "$left" -lt 15 ]; then echo "== $name: left out, no time"; return; fi
  [ "$limit" -gt "$left" ] && limit=$left
  echo "== $name (at most $limit s, $left left)"
  timeout "$limit" "$@" >"$OUT/$name.log" 2>&1 || echo "   ended with $?"
  grep -v '^{' "$OUT/$name.log" | tail -16
}

unet() { # unet NAME SECONDS BUDGET SUBJECTS ARGUMENTS...
  local name=$1 limit=$2 budget=$3 subjects=$4
  shift 4
  step "$name" "$limit" python3 -m benchmarks.bench_unet --rounds 10 --steps 5 --tuning-seconds 20 --budget "$budget" \
    --subjects "$subjects" "$@"
}

OURS=diffusers-channels-last,full,full-tuned
step gpu-tests 60 python3 -m pytest -m gpu -q -p no:cacheprovider tests/generation/test_networks.py
step picture 110 python3 -m benchmarks.bench_generate --rounds 5 --budget 70 --subjects full,diffusers,off,graph,diffusers-compile
step lora-switch 45 python3 -m benchmarks.bench_lora_switch
step compile-ours 60 python3 -m benchmarks.bench_compile --subjects full --limit 40
unet sd15-1024-b2 70 50 $OURS --size 1024
unet sd15-512-b8 70 50 $OURS --batch 8
unet sd21-768-b2 70 50 $OURS --model sd21 --size 768
step profile 30 python3 -m benchmarks.profile_unet --level full
# torch.compile's slow modes last: max-autotune alone may take longer than all the rest.
step compile-torch 400 python3 -m benchmarks.bench_compile --subjects diffusers-reduce-overhead,diffusers-max-autotune --limit 300
cp benchmarks/results/*nvidia*.json "$OUT"/
echo "== done after $SECONDS s"
