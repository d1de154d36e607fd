#!/usr/bin/env bash
# Compares Conclave with PyTorch, and two ranks with two threads, on examples/benchmark.yaml.
#
#     bash examples/benchmark/run.sh [--rounds N] [--steps N] [--threads N] [--settle N] [twin] [products] [ranks] [start]
#                                    [generate]
#
#   twin      the same model in PyTorch (twin.py), eager and compiled, in turn with Conclave, in fp32 and in bf16:
#             losses, then the ratios; in bf16 also with a loop over experts in place of grouped_mm
#   products  the products of a step in bf16 (products.py), in turn with oneDNN alone and with PyTorch
#   ranks     2 ranks of 1 thread, experts shared out, in turn with 1 rank of 2 threads; and the recipe's router beside
#             forced balance, after --settle steps (100) in which it learns balance, and at the start of training
#   start     from the command line to the end of the first step of examples/quickstart.yaml
#   generate  a token after 10 and after 1,000 tokens, of 2,048 positions, with the key-value cache and without
# Without names: all five. The virtual environment with PyTorch is made in .cache/benchmark, or TWIN_PYTHON names a
# Python that has torch, h5py, numpy and PyYAML. Not part of the tests: it takes long, and gigabytes.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=3 steps=8 threads=2 settle=100 parts=()
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2; shift 2 ;;
    --steps) steps=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    --settle) settle=$2; shift 2 ;;
    twin | products | ranks | start | generate) parts+=("$1"); shift ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(twin products ranks start generate)

conclave=build/release/conclave
[ -x $conclave ] || { echo "run.sh: $conclave is missing; build it first: cmake --preset release && cmake --build --preset release" >&2; exit 2; }
results=runs/benchmark
export OMP_NUM_THREADS=$threads
mpirun=(mpirun -n 2 --oversubscribe --bind-to none)
[ "$(id -u)" -ne 0 ] || mpirun+=(--allow-run-as-root)

prepare_python() {
  python=${TWIN_PYTHON:-.cache/benchmark/bin/python}
  [ -n "${TWIN_PYTHON:-}" ] || [ -x $python ] || python3 -m venv .cache/benchmark
  "$python" -c 'import torch, h5py, numpy, yaml' 2>/dev/null ||
    "$python" -m pip install torch h5py numpy pyyaml
}

prepare_data() {
  [ -f data/benchmark/text.bin ] && return
  mkdir -p data/benchmark
  # One document of any text; the repository's own will do.
  find docs framework parallel layers launch -name '*.md' -o -name '*.cpp' -o -name '*.h' | sort | xargs cat \
    > data/benchmark/text.txt
  $conclave tokenize --replace --output data/benchmark/text --domain text data/benchmark/text.txt
}

train() { # DIRECTORY key=value ...
  local directory=$1
  shift
  rm -rf "$directory"
  $conclave train examples/benchmark.yaml data.document_mask=false logging.samples=true output="$directory" "$@" \
    > "$directory.log" || { tail "$directory.log" >&2; exit 1; }
}

twin() {
  prepare_python
  prepare_data
  mkdir -p $results
  # A step so small that it changes no weight: its checkpoint is what every run begins with.
  train $results/weights training.steps=1 optimizer.lr=1e-30
  twin_in fp32 1e-4 eager compiled
  # A loss in bf16 is as near as the rounding of activations lets it be.
  twin_in bf16 4e-3 eager compiled eager-loop
  rm -rf $results/weights
}

twin_in() { # PRECISION TOLERANCE PEER ...
  local precision=$1 tolerance=$2 directory=$results/$1 round peer
  shift 2
  mkdir -p "$directory"
  for round in $(seq "$rounds"); do
    train "$directory/conclave-$round" training.steps="$steps" training.precision="$precision"
    rm -rf "$directory/conclave-$round/checkpoints"
    for peer in "$@"; do
      local options=()
      case $peer in compiled*) options+=(--compile) ;; esac
      case $peer in *-loop) options+=(--loop) ;; esac
      "$python" examples/benchmark/twin.py "$directory/conclave-$round" --weights $results/weights/checkpoints/step-00000001 \
        --threads "$threads" "${options[@]}" --output "$directory/$peer-$round.jsonl"
    done
  done
  echo "In $precision:"
  "$python" examples/benchmark/compare.py "$directory" --rounds "$rounds" --tolerance "$tolerance" --peers "$@"
}

products() {
  prepare_python
  "$python" examples/benchmark/products.py --rounds "$rounds" --threads "$threads"
}

ranks() {
  mkdir -p $results
  local two=("${mpirun[@]}" $conclave bench examples/benchmark.yaml --only train --steps "$steps" --json
             parallel.expert=2 training.micro_batch_size=2) round
  OMP_NUM_THREADS=1 "${two[@]}" > $results/new.json
  for round in $(seq "$rounds"); do
    OMP_NUM_THREADS=2 $conclave bench examples/benchmark.yaml --only train --steps "$steps" --json \
      > $results/threads-$round.json
    OMP_NUM_THREADS=1 "${two[@]}" --settle "$settle" > $results/ranks-$round.json
  done
  python3 - "$rounds" "$settle" <<'PYTHON'
import json, statistics, sys
rounds, settle = map(int, sys.argv[1:])
read = lambda name: json.load(open(f'runs/benchmark/{name}.json'))
figure = lambda report, name: next(one for one in report['figures'] if one['name'] == name)
said = lambda ratios: f'{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})'
ranks, threads = ([read(f'{kind}-{round + 1}') for round in range(rounds)] for kind in ('ranks', 'threads'))
rate = lambda report: report['training']['tokens_per_second']
print(f"2 ranks x 1 thread, expert 2, after {settle} steps: {statistics.median(map(rate, ranks)):.0f} tokens/s; "
      f"1 rank x 2 threads: {statistics.median(map(rate, threads)):.0f}; "
      f"ratio {said([rate(a) / rate(b) for a, b in zip(ranks, threads)])}")
for when, reports in (f'after {settle} steps', ranks), ('at the start', [read('new')]):
    print(f"the recipe's router on 2 ranks {when}: "
          f"{statistics.median(map(rate, reports)):.0f} tokens/s; with forced balance "
          f"{statistics.median(figure(r, 'tokens with forced balance')['value'] for r in reports):.0f}; "
          f"ratio {said([figure(r, 'tokens')['ratio'] for r in reports])}; load violation "
          f"{statistics.median(figure(r, 'load violation')['value'] for r in reports):.2f}")
PYTHON
}

start() {
  [ -f data/quickstart/complete ] || bash launch/prepare_quickstart_data.sh
  for round in $(seq "$rounds"); do
    rm -rf $results/start
    # The first step's line in the log carries the seconds since the command began.
    $conclave train examples/quickstart.yaml training.steps=1 parallel.expert=1 'data.validation=[]' \
      output=$results/start > /dev/null
    grep -m1 'step 1/' $results/start/log.txt
  done
  rm -rf $results/start
}

generate() {
  mkdir -p $results
  for one in 1 "$threads"; do
    OMP_NUM_THREADS=$one $conclave bench examples/benchmark.yaml --only generate --repeat $((3 * rounds)) \
      data.sequence_length=2048 | tee "$results/generate-$one.txt"
  done
}

for part in "${parts[@]}"; do $part; done
echo "run.sh: done; raw figures are in $results."
