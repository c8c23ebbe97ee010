#!/usr/bin/env bash
# Everything that only a GPU can show, within ten minutes a call:  OUT=results bash benchmarks/gpu_session.sh [bare|full]
#   bare  what needs torch, NumPy and pyarrow only: the pipeline against the device, and tests/gpu/test_engine.py where pytest is
#   full  the whole project is installed (pip install ".[infer,gpu,flows,dev]"): LocalCUDACluster, every test marked gpu, and
#         the end-to-end benchmark
# Results lie under $OUT (default gpu_results); PYTHON names the interpreter; OSPOR_DRY_RUN=cpu tries it without a GPU.
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu_results}; mkdir -p "$OUT"; OUT=$(cd "$OUT" && pwd)
PYTHON=${PYTHON:-python3}; WHAT=${1:-bare}; STATUS=0
export PYTHONPATH="$PWD" OSPOR_GPU_OUT="$OUT"
SECONDS_EACH=${SECONDS_EACH:-8} WIDTH=${WIDTH:-64}
step() { # NAME LIMIT COMMAND...
  local name=$1 limit=$2; shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$OUT/$name.log" 2>&1; local rc=$?
  tail -n 12 "$OUT/$name.log"; echo "$name rc=$rc" | tee -a "$OUT/summary.txt"
  [ $rc -eq 0 ] || STATUS=1
}
: >"$OUT/summary.txt"
{ nvidia-smi || echo "no nvidia-smi"; "$PYTHON" -c 'import torch; print(torch.__version__, torch.cuda.is_available())'; nproc; } >"$OUT/machine.txt" 2>&1
step feed 240 "$PYTHON" benchmarks/gpu_feed.py --seconds "$SECONDS_EACH" --width "$WIDTH" --json "$OUT/feed.json"
if "$PYTHON" -c 'import pytest' 2>/dev/null; then
  if [ "$WHAT" = full ]; then
    step tests 300 "$PYTHON" -m pytest tests/gpu -m gpu -q -rs -p no:cacheprovider -s
  else
    step tests 200 "$PYTHON" -m pytest tests/gpu/test_engine.py -m gpu -q -rs -p no:cacheprovider -s
  fi
else
  echo "tests skipped: no pytest" | tee -a "$OUT/summary.txt"
fi
[ "$WHAT" = full ] && step inference 200 "$PYTHON" benchmarks/inference.py --json "$OUT/inference.json"
exit $STATUS
