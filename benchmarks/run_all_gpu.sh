#!/usr/bin/env bash
# Measures on NVIDIA GPUs, most wanted first; what time does not suffice for is left out, and a comparison of steps that is
# cut short is written without the subject that took too long. On two GPUs two lanes run side by side, each with a GPU and half
# of the cores; each subject is always compared with others on one GPU in one process. torch.compile's max-autotune takes
# many minutes for each shape of UNet: what an earlier run found, under SEED (cache/HASH and the *.best_config files of its
# TORCHINDUCTOR_CACHE_DIR, in their folders), saves the search. ONLY names the steps to run, TESTS the files of the step
# gpu-tests. Wheels in .whl/ (diffusers, importlib_metadata, nvidia-cudnn-frontend) are installed if they are there. Results
# go to benchmarks/results/ and, packed and with logs, to $OUT. Where a machine allows only short commands, start this with
# setsid and with LIMIT for the whole.
# Usage: LIMIT=1650 OUT=/tmp/out SEED=/tmp/seed ONLY="unet-b8 vae" bash benchmarks/run_all_gpu.sh
cd "$(dirname "$0")/.." || exit 1
OUT=${OUT:-/tmp/gpu-results}
DEADLINE=$((SECONDS + ${LIMIT:-1650}))
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 LIGHTDIFFUSION_CACHE=${LIGHTDIFFUSION_CACHE:-/tmp/lightdiffusion-cache}
# Where site-packages cannot be written to, Python would compile its sources at every start.
export PYTHONPYCACHEPREFIX=${PYTHONPYCACHEPREFIX:-/tmp/pycache}
unset PYTHONDONTWRITEBYTECODE
if ls .whl/*.whl >/dev/null 2>&1; then
  python3 -m pip install --quiet --no-deps --no-index --target /tmp/wheels .whl/*.whl
  export PYTHONPATH=/tmp/wheels
fi

# step NAME SECONDS COMMAND...: runs the command unless less than a minute is left; never past the deadline.
step() {
  local name=$1 limit=$2 left=$((DEADLINE - SECONDS)) began=$SECONDS
  shift 2
  [[ -z $ONLY || " $ONLY " == *" $name "* ]] || return
  if [ "$left" -lt 90 ]; then echo "== $name: left out, no time"; return; fi
  [ "$limit" -gt $((left - 60)) ] && limit=$((left - 60)) # an interrupted comparison still measures what it has
  timeout --foreground --signal=INT --kill-after=90 "$limit" taskset -c "$CORES" "$@" >"/tmp/$name.log" 2>&1
  echo "== $name: status $?, $((SECONDS - began)) s of $limit, at $SECONDS"
  grep -aE "^[a-z-]+ +[0-9.]+ ms|first|passed|failed|^FAILED|^E  |rror:|MiB| s$" "/tmp/$name.log" | grep -av "^{" | cut -c1-200 | tail -16
  tar czf "$OUT/$LANE.tar.gz" benchmarks/results/nvidia* -C /tmp "$name.log" 2>/dev/null
}

unet() { # unet NAME SECONDS SUBJECTS ARGUMENTS...
  local name=$1 limit=$2 subjects=$3
  shift 3
  step "$name" "$limit" python3 -m benchmarks.bench_unet --rounds 10 --steps 5 --subjects "$subjects" "$@"
}

BASELINES=diffusers,diffusers-channels-last,diffusers-regional
SEARCHED=$BASELINES,diffusers-max-autotune
TESTS=${TESTS:-"tests/stable_fast tests/generation tests/lora tests/loader tests/core tests/sampling/samplers/test_samplers.py"}

first() {
  unet unet-512 900 full,graph,fused,eager,$BASELINES,diffusers-reduce-overhead,diffusers-max-autotune
  unet unet-b8 900 full,$SEARCHED --batch 8
  unet unet-1024 900 full,$SEARCHED --size 1024
  unet sd21-768 900 full,$SEARCHED --model sd21 --size 768
  unet sdxl-1024 900 full,fused,eager,diffusers,diffusers-reduce-overhead,diffusers-max-autotune --model sdxl --size 1024
}

second() {
  local networks=eager,full,diffusers,diffusers-channels-last,diffusers-reduce-overhead,diffusers-max-autotune
  # shellcheck disable=SC2086
  step gpu-tests 300 python3 -m pytest -m gpu -q -n 4 -p no:cacheprovider --timeout 100 --tb=line -rf --show-capture=no $TESTS
  step doctor 60 python3 -m modules.stable_fast.doctor
  step vae 400 python3 -m benchmarks.bench_networks vae --rounds 10 --subjects $networks
  step controlnet 700 python3 -m benchmarks.bench_networks controlnet --batch 2 --rounds 10 --subjects $networks
  step picture 1100 python3 -m benchmarks.bench_generate --rounds 8 \
    --subjects full,off,diffusers,diffusers-regional,diffusers-max-autotune
  step quality 200 python3 -m benchmarks.bench_quality --divide 8 --levels off,full
  step memory 60 python3 -m benchmarks.bench_memory --subjects eager,fused,full,diffusers
  step compile-ours 130 python3 -m benchmarks.bench_compile --subjects full --limit 60
  step server 400 python3 -m benchmarks.serving.bench_server --clients 1,4,16,64
  step server-few-steps 150 python3 -m benchmarks.serving.bench_server --steps 4 --cfg 1 --clients 1,16 --subjects together,one-by-one
  step lora-switch 60 python3 -m benchmarks.bench_lora_switch
  step picture-sdxl 500 python3 -m benchmarks.gpu.bench_picture --subjects off,full,diffusers,diffusers-reduce-overhead
  step compile-sdxl 130 python3 -m benchmarks.bench_compile --model sdxl --size 1024 --subjects full --limit 60
  step pipelines-sd15 90 python3 -m benchmarks.bench_pipelines sd15
  step pipelines-clip 60 python3 -m benchmarks.bench_pipelines clip
  step pipelines-flux 120 python3 -m benchmarks.bench_pipelines flux
  step pipelines-t5 120 python3 -m benchmarks.bench_pipelines t5
  step pipelines-sdxl 150 python3 -m benchmarks.bench_pipelines sdxl --subjects product,pipeline,diffusers,diffusers-compile
  step pipelines-svd 400 python3 -m benchmarks.bench_pipelines svd
  step lora-switch-sdxl 90 python3 -m benchmarks.bench_lora_switch --model sdxl --size 1024
  step profile 30 python3 -m benchmarks.gpu.profile_unet --level full
}

GPUS=$(nvidia-smi -L | wc -l)
HALF=$(($(nproc) / 2))
lane() { # lane NAME GPU CORES
  export LANE=$1 CUDA_VISIBLE_DEVICES=$2 CORES=$3 TORCHINDUCTOR_CACHE_DIR=/tmp/inductor-$1
  mkdir -p "$TORCHINDUCTOR_CACHE_DIR"
  [ -n "$SEED" ] && cp -r "$SEED"/. "$TORCHINDUCTOR_CACHE_DIR"
  "$1"
}
if [ "$GPUS" -gt 1 ]; then
  (lane first 0 "0-$((HALF - 1))") &
  (lane second 1 "$HALF-$((2 * HALF - 1))") &
  wait
else
  (lane second 0 "0-$(($(nproc) - 1))")
  (lane first 0 "0-$(($(nproc) - 1))")
fi
echo "== done after $SECONDS s"
