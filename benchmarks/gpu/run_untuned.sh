#!/usr/bin/env bash
# Measures on one GPU what cards without a table of their own get, in LIMIT seconds. Each step writes what it has, and
# results, tables and logs are copied to $OUT after it. What time does not suffice for is left out. The parts are:
#   probes  the first call with empty caches, then steps of six sizes beside tuned ones (200 s)
#   class   SDXL's rows for the table of a class, and SDXL's steps with and without tables (200 s)
#   sums    sums in fp16: their tests, and steps with and without them (60 s)
# Usage: LIMIT=200 OUT=/tmp/out bash benchmarks/gpu/run_untuned.sh probes sums
cd "$(dirname "$0")/../.." || exit 1
OUT=${OUT:-/tmp/untuned}
DEADLINE=$((SECONDS + ${LIMIT:-200}))
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 LIGHTDIFFUSION_CACHE=/tmp/untuned-cache
# Where site-packages cannot be written to, Python would compile its sources at every start.
export PYTHONPYCACHEPREFIX=${PYTHONPYCACHEPREFIX:-/tmp/pycache}
unset PYTHONDONTWRITEBYTECODE
touch /tmp/untuned-began

# step NAME SECONDS COMMAND...: runs the command unless the time is up; never past the deadline.
step() {
  local name=$1 limit=$2 left=$((DEADLINE - SECONDS)) began=$SECONDS
  shift 2
  if [ "$left" -lt 15 ]; then echo "== $name: left out, no time"; return; fi
  [ "$limit" -gt "$left" ] && limit=$left
  timeout --foreground --signal=INT --kill-after=5 "$limit" "$@" >"/tmp/$name.log" 2>&1
  echo "== $name: status $?, $((SECONDS - began)) s of $limit, at $SECONDS"
  grep -aE "ms  |ms$|seconds|^Timed|: [0-9]+ s$|first call|compiled:|choices|rows|passed|failed|skipped|rror" "/tmp/$name.log" | grep -av '^{"bench' | cut -c1-240 | tail -60
  find benchmarks/results/nvidia* -name '*.json' -newer /tmp/untuned-began -print0 |
    tar czf "$OUT/untuned.tar.gz" --null -T - -C /tmp --ignore-failed-read untuned-tables "$name.log" 2>/dev/null
}

probes() {
  step cold 120 python3 -m benchmarks.gpu.bench_untuned --cold --sizes sd15-512 --capabilities own
  step probes 180 python3 -m benchmarks.gpu.bench_untuned --capabilities own --compiled none --suffix probes --rounds 8 \
    --sizes sd15-512,sd21-768,sd15-1024,sdxl-1024,sd15-640x512,sd15-768 --budget 60 \
    --with-tables "tuned,other classes,class table without this size"
  step probes-8.9 60 python3 -m benchmarks.gpu.bench_untuned --capabilities 8.9 --compiled none --suffix probes-8.9 \
    --rounds 8 --sizes sd15-512,sd15-1024 --with-tables "tuned,other classes,class table without this size"
  step probe-tests 40 python3 -m pytest -m gpu -q -p no:cacheprovider tests/stable_fast/store
}

class() {
  mkdir -p /tmp/untuned-tables
  step tune-sdxl 90 python3 -m benchmarks.gpu.tune --class mma --capability 8.9 --workloads sdxl-1024-2 --seconds 35 \
    --out /tmp/untuned-tables
  step untuned-sdxl 120 python3 -m benchmarks.gpu.bench_untuned --sizes sdxl-1024 --capabilities own,8.9,8.0 --compiled none \
    --tables /tmp/untuned-tables --with-tables "tuned,class table,class table without this size" --rounds 8 --budget 60 \
    --suffix sdxl
}

sums() {
  step sums-time 45 python3 -m benchmarks.bench_unet --subjects full,full-fp16-accumulate --rounds 10 --steps 5 --suffix sums
  step sums-tests 60 python3 -m pytest -m gpu -q -rs -p no:cacheprovider tests/stable_fast/kernels/test_accumulation.py \
    tests/stable_fast/kernels/linear/test_matmul.py tests/stable_fast/kernels/conv/test_implicit_matmul.py -k in_fp16
}

for part in "${@:-probes}"; do
  case "$part" in
    probes | class | sums) "$part" ;;
    *) echo "there is no part $part: name probes, class or sums" >&2; exit 2 ;;
  esac
done
