#!/usr/bin/env bash
# Everything that only a GPU can show, within ten minutes a call:  OUT=results bash benchmarks/gpu_session.sh [STEP ...]
#   Without steps: all of  machine engine recipes cluster study feed inference, one after the other until the time is up.
#   A step whose packages are missing is skipped and says which; so is a step for which no time is left: name it in a next call.
#   Where torch sees no GPU every step but the first is skipped and the call ends with 3: nothing measured there is a GPU's.
#     machine     the card, its driver, torch, and which packages are here
#     engine      tests/gpu/test_engine.py: a killed process, two processes, bf16   (torch, NumPy, pytest), and out of memory (and
#                 pydicom, nibabel, PyYAML, pyarrow)
#     recipes     tests/gpu/test_recipes.py: every network on GPU and CPU            (and MONAI, pydicom, nibabel, PyYAML, pyarrow)
#     cluster     tests/gpu/test_cluster.py: LocalCUDACluster, a killed CUDA worker, two workers on one GPU
#                 (and safetensors, pydantic, distributed, cryptography; dask-cuda for LocalCUDACluster)
#     study       the infer stage and the generator on the GPU                       (the whole project, with dask-cuda)
#     feed        benchmarks/gpu_feed.py: the pipeline against the device fed from memory   (torch, NumPy)
#     inference   benchmarks/inference.py: end to end against DataLoader and MONAI   (the whole project); better in a call of its
#                 own, and ONLY="JPEG 2000 resnet" takes one case; IMAGES and VOLUMES say how many (320, 24)
#     train RECIPE FACTOR   generate the published cohort of a recipe at this share of its people and train it (the whole
#                 project); the same call again goes on where the last one was stopped. Not among the steps without names.
# Results lie under $OUT (gpu_results): summary.txt, measured.jsonl, a log a step. $WORK (a folder beside them) keeps what train makes.
# WHEELS=FOLDER installs the wheels there, without a network and without what they need, for this call alone.
# PYTHON names the interpreter (python3); LIMIT the seconds of the call (570); OSPOR_DRY_RUN=cpu tries it without a GPU.
set -u
cd "$(dirname "$0")/.."
OUT=${OUT:-gpu_results}; mkdir -p "$OUT"; OUT=$(cd "$OUT" && pwd)
WORK=${WORK:-$OUT/work}; PYTHON=${PYTHON:-python3}; LIMIT=${LIMIT:-570}; STATUS=0; SECONDS=0
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OSPOR_GPU_OUT="$OUT" PYTHONUNBUFFERED=1
DEVICE=cuda; [ "${OSPOR_DRY_RUN:-}" = cpu ] && DEVICE=cpu
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} # of each process: several compute beside one another

say() { echo "$*" | tee -a "$OUT/summary.txt"; }

missing() { # MODULE... -> those that cannot be imported
  "$PYTHON" - "$@" <<'PY'
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])
PY
}

has_gpu() { # asked once
  [ -n "${GPU:-}" ] || GPU=$("$PYTHON" -c 'import torch; print("yes" if torch.cuda.is_available() else "no")' 2>/dev/null || echo no)
  [ "$GPU" = yes ]
}

step() { # NAME LIMIT "MODULE..." COMMAND...
  local name=$1 limit=$2 modules=$3 left=$((LIMIT - SECONDS)) gone rc; shift 3
  if [ "$name" != machine ] && [ "${OSPOR_DRY_RUN:-}" != cpu ] && ! has_gpu; then
    say "$name: skipped, since torch sees no GPU here; OSPOR_DRY_RUN=cpu tries it on the CPU"; STATUS=3; return
  fi
  # shellcheck disable=SC2086
  gone=$(missing $modules)
  if [ -n "$gone" ]; then say "$name: skipped, since these are not installed: $gone"; return; fi
  if [ "$left" -lt 20 ]; then say "$name: not begun, the time of this call is up; name it in a next call"; return; fi
  [ "$left" -lt "$limit" ] && limit=$left
  echo "== $name (at most $limit s)"
  local began=$SECONDS
  timeout --kill-after=10 "$limit" "$@" >"$OUT/$name.log" 2>&1; rc=$?
  tail -n 25 "$OUT/$name.log"
  case $rc in
    0) say "$name: done in $((SECONDS - began)) s" ;;
    124 | 137) say "$name: stopped after $limit s; what it wrote until then is in $name.log"; STATUS=1 ;;
    *) say "$name: FAILED with $rc after $((SECONDS - began)) s, see $name.log"; STATUS=1 ;;
  esac
}

# other versions of libraries warn of other things: here a warning is no failure
tests() { echo "$PYTHON -m pytest -m gpu -q -rs -s -W default -p no:cacheprovider $*"; }

machine() {
  { nvidia-smi || echo "no nvidia-smi: no driver here"; nproc --all; free -g; "$PYTHON" -VV; "$PYTHON" - <<'PY'
import importlib.metadata, importlib.util
for name in ("torch", "numpy", "monai", "pydicom", "polars", "distributed", "dask-cuda", "pytest"):
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        print(name, "is not installed")
if importlib.util.find_spec("torch"):
    import torch
    print("GPU that torch sees:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")
PY
  } 2>&1
}

train() { # RECIPE FACTOR
  local recipe=$1 factor=$2 study="$WORK/$1/$1/study.toml" what=(--preset paper-ct --study "$1")
  [ "$recipe" = cxr_osteoporosis ] && { what=(--preset paper-cxr); study="$WORK/$1/study.toml"; }
  mkdir -p "$WORK"
  if [ ! -f "$study" ]; then
    "$PYTHON" -m ospor_batch.cli synth "$WORK/$recipe" "${what[@]}" --factor "$factor" || return 1
    [ "${OSPOR_DRY_RUN:-}" = cpu ] || printf '\n[compute.gpu]\ncluster = "local"\nworkers = 1\n' >>"$study"
  fi
  "$PYTHON" -m ospor_batch.cli run "$study" && "$PYTHON" -m ospor_batch.cli status "$study" --json >"$OUT/train_$recipe.json"
  cp -f "$(dirname "$study")"/workspace/runs/latest/tables/performance.csv "$OUT/train_$recipe.performance.csv" 2>/dev/null || true
}

if [ -n "${WHEELS:-}" ]; then
  SITE=$(mktemp -d); trap 'rm -rf "$SITE"' EXIT
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" "$WHEELS"/*.whl || { say "the wheels of $WHEELS cannot be installed"; exit 1; }
  export PYTHONPATH="$PYTHONPATH:$SITE"
fi
export -f machine train; export PYTHON OUT WORK
RECIPES="torch numpy pytest monai pydicom nibabel yaml pyarrow"
CLUSTER="$RECIPES safetensors pydantic distributed cryptography"
ALL="$CLUSTER polars deltalake scipy sklearn matplotlib"
if [ "${1:-}" = train ]; then
  [ $# -eq 3 ] || { echo "usage: gpu_session.sh train RECIPE FACTOR, such as: train cxr_osteoporosis 0.1"; exit 2; }
  step "train_$2" "$LIMIT" "$ALL" bash -c "train '$2' '$3'"
  exit $STATUS
fi
[ $# -gt 0 ] || { set -- machine engine recipes cluster study feed inference; : >"$OUT/summary.txt"; }
for name in "$@"; do
  # shellcheck disable=SC2046
  case $name in
    machine) step machine 60 "" bash -c machine ;;
    engine) step engine 120 "torch numpy pytest" $(tests tests/gpu/test_engine.py) ;;
    recipes) step recipes 120 "$RECIPES" $(tests tests/gpu/test_recipes.py) ;;
    cluster) step cluster 150 "$CLUSTER" $(tests tests/gpu/test_cluster.py) ;;
    study) step study 150 "$ALL dask_cuda" $(tests tests/gpu/test_infer.py tests/gpu/test_synthetic.py) ;;
    feed) step feed 150 "torch numpy" "$PYTHON" benchmarks/gpu_feed.py --seconds "${SECONDS_EACH:-8}" --width "${WIDTH:-64}" --json "$OUT/feed.json" ;;
    inference) step inference "$LIMIT" "$ALL" "$PYTHON" benchmarks/inference.py --device "$DEVICE" --images "${IMAGES:-320}" --volumes "${VOLUMES:-24}" --only "${ONLY:-}" --json "$OUT/inference.json" ;;
    *) say "$name: no such step; see the head of benchmarks/gpu_session.sh"; STATUS=2 ;;
  esac
done
exit $STATUS
