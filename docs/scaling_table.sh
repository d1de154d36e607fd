#!/usr/bin/env bash
# The table of calculated steps in docs/scaling.md: examples/cluster/qwen3-30b-a3b.yaml on the machines that
# docs/machines/ describes, with 64 to 4096 ranks. Run from the repository's root; takes a second.
#     bash docs/scaling_table.sh [CONCLAVE]
set -euo pipefail
cd "$(dirname "$0")/.."
conclave=${1:-build/release/conclave}

rows() { # NAME MACHINE key=value ...
  local name=$1 machine=$2
  shift 2
  for ranks in 64 256 1024 4096; do
    "$conclave" validate examples/cluster/qwen3-30b-a3b.yaml --ranks $ranks --machine "docs/machines/$machine.yaml" "$@" |
      awk -v machine="$name" -v ranks=$ranks '
        function seconds() { sub(/ +-?[0-9.]+ %$/, ""); return $(NF - 1) * ($NF == "ms" ? 1e-3 : 1) }
        /^Time of a step/ { on = 1 }
        !on { next }
        /^  gradients on the network/ { gradients = seconds() }
        /^  activations on the network/ { activations = seconds() }
        /^  (dispatch|combine) on the network/ { exchange += seconds() }
        /^    of it hidden/ { hidden = seconds() }
        /^  a step / { step = seconds() }
        /^  tokens per second/ { tokens = $NF }
        /^  model flops over/ { share = $NF }
        END { printf "| %s | %d | %.2f s | %.3g | %.2f s | %.2f s | %.2f s | %.2f s | %.2f |\n", machine, ranks, step, tokens,
                     activations, exchange, gradients, hidden, share }'
  done
}

echo '| machine and layout | ranks | step | tokens/s | activations | dispatch, combine | gradients | hidden | flops / products'"'"' rate |'
echo '| --- | --- | --- | --- | --- | --- | --- | --- | --- |'
rows 'CPU, the recipe as it is' cpu_cluster
rows 'H100, the recipe in bf16' h100_cluster training.precision=bf16
rows 'H100, bf16, tensor 1, expert 8 in a node, 4096 sequences' h100_cluster training.precision=bf16 parallel.tensor=1 \
  parallel.sequence=false parallel.expert=8 parallel.dispatch_rows=0 training.global_batch_size=4096
