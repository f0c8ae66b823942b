#!/usr/bin/env bash
# Measures on one GPU what cards without a table of their own get, in LIMIT seconds: sums in fp16, the first call with empty
# caches, SDXL's rows for the table of a class, and SDXL's steps with and without tables. Each step writes what it has, and
# results, tables and logs are copied to $OUT after it. What time does not suffice for is left out.
# Usage: LIMIT=200 OUT=/tmp/out bash benchmarks/gpu/run_untuned.sh
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
  grep -aE "ms  |ms$|seconds|first call|compiled:|choices|rows|passed|failed|skipped|rror" "/tmp/$name.log" | grep -av '^{"bench' | cut -c1-240 | tail -30
  find benchmarks/results/nvidia* -name '*.json' -newer /tmp/untuned-began -print0 |
    tar czf "$OUT/untuned.tar.gz" --null -T - -C /tmp --ignore-failed-read untuned-tables "$name.log" 2>/dev/null
}

mkdir -p /tmp/untuned-tables
step sums-time 45 python3 -m benchmarks.bench_unet --subjects full,full-fp16-accumulate --rounds 10 --steps 5 --suffix sums
step cold 60 python3 -m benchmarks.gpu.bench_untuned --cold --sizes sd15-512 --capabilities own,8.9
# The tests run while the next step compiles.
timeout 60 python3 -m pytest -m gpu -q -rs -p no:cacheprovider tests/stable_fast/kernels/test_accumulation.py \
  tests/stable_fast/kernels/linear/test_matmul.py tests/stable_fast/kernels/conv/test_implicit_matmul.py \
  -k in_fp16 >/tmp/sums-tests.log 2>&1 &
step tune-sdxl 90 python3 -m benchmarks.gpu.tune --class mma --capability 8.9 --workloads sdxl-1024-2 --seconds 35 \
  --out /tmp/untuned-tables
wait
tail -15 /tmp/sums-tests.log
cp /tmp/sums-tests.log "$OUT"
step untuned-sdxl 120 python3 -m benchmarks.gpu.bench_untuned --sizes sdxl-1024 --capabilities own,8.9,8.0 --compiled none \
  --tables /tmp/untuned-tables --with-tables "tuned,class table,class table without this size" --rounds 8 --budget 60 \
  --suffix sdxl
